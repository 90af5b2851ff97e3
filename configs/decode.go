package configs

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth  = 50           // of nesting
	maxIndent = 8 * maxDepth // columns before a list item
	maxNodes  = 50000        // visited, so that aliases cannot multiply
)

// parse reads the one document of raw.
func parse(raw []byte) (ast.Node, *Fault) {
	tokens := lexer.Tokenize(string(raw))
	if deep(tokens) {
		return nil, &Fault{Message: fmt.Sprintf("is nested more than %d levels deep: is it the right file?", maxDepth)}
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, syntaxFault(err)
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if root != nil {
			return nil, &Fault{Line: line(doc.Body), Message: "a second YAML document starts here: put everything in one"}
		}
		root = doc.Body
	}
	return root, nil
}

// deep says whether the tokens nest so far that parsing would only burn memory, which grows with the square of the
// depth: by flow brackets, open over any number of lines; by "- - - …" and "? ? ? …", each of which is a level as far
// to the right as its column; or by tags of tags.
func deep(tokens token.Tokens) bool {
	brackets, tags := 0, 0
	for _, t := range tokens {
		if t.Type != token.TagType {
			tags = 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets = max(0, brackets-1)
		case token.SequenceEntryType, token.MappingKeyType:
			if t.Position.Column > maxIndent {
				return true
			}
		case token.TagType:
			tags++
		}
		if brackets > maxDepth || tags > maxDepth {
			return true
		}
	}
	return false
}

func syntaxFault(err error) *Fault {
	var y yaml.Error
	if !errors.As(err, &y) {
		return &Fault{Message: "is not YAML: " + err.Error()}
	}
	f := &Fault{Message: "is not YAML: " + y.GetMessage()}
	if t := y.GetToken(); t != nil && t.Position != nil {
		f.Line = t.Position.Line
	}
	return f
}

// decoder fills Go values from a YAML tree, goes on after a fault, and remembers where everything stood.
type decoder struct {
	faults  Faults
	broken  bool           // something could not be decoded, so values cannot be judged
	seen    map[string]int // path → line
	anchors map[string]ast.Node
	special map[string]func(ast.Node) // top-level keys read by somebody else
	nodes   int
	depth   int
}

func newDecoder(root ast.Node) *decoder {
	d := &decoder{seen: map[string]int{}, anchors: map[string]ast.Node{}}
	if root != nil {
		ast.Walk(anchorFinder{d.anchors}, root)
	}
	return d
}

type anchorFinder struct{ found map[string]ast.Node }

// Visit collects anchors.
func (f anchorFinder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		f.found[a.Name.GetToken().Value] = a.Value
	}
	return f
}

func line(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	if p, ok := n.(*ast.MappingNode); ok && len(p.Values) > 0 {
		return line(p.Values[0].Key)
	}
	return n.GetToken().Position.Line
}

// fault reports what is wrong at path, on the line of path or of the nearest thing above it that is in the file.
func (d *decoder) fault(path, format string, args ...any) {
	f := Fault{Path: path, Message: fmt.Sprintf(format, args...)}
	for p := path; p != "" && f.Line == 0; {
		f.Line = d.seen[p]
		p = p[:max(0, strings.LastIndexAny(p, ".["))]
	}
	d.faults = append(d.faults, f)
}

// bad reports what is wrong with node n.
func (d *decoder) bad(n ast.Node, path, format string, args ...any) {
	d.broken = true
	d.faults = append(d.faults, Fault{Line: line(n), Path: path, Message: fmt.Sprintf(format, args...)})
}

// resolve looks through anchors, aliases and tags.
func (d *decoder) resolve(n ast.Node, path string) ast.Node {
	for range maxDepth {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		case *ast.AliasNode:
			target, ok := d.anchors[v.Value.GetToken().Value]
			if !ok {
				d.bad(n, path, "alias *%s has no anchor", v.Value.GetToken().Value)
				return nil
			}
			n = target
		default:
			return n
		}
	}
	d.bad(n, path, "an alias that leads back to itself")
	return nil
}

// decode fills v (and, for a mapping, more structs that share its keys) from n.
func (d *decoder) decode(n ast.Node, v reflect.Value, path string, more ...reflect.Value) {
	if d.nodes++; d.nodes > maxNodes || d.depth > maxDepth {
		if d.nodes == maxNodes+1 || d.depth == maxDepth+1 {
			d.bad(n, path, "is too large or nested too deep")
		}
		return
	}
	d.depth++
	defer func() { d.depth-- }()
	if n = d.resolve(n, path); n == nil || n.Type() == ast.NullType {
		return
	}
	for v.Kind() == reflect.Pointer && !custom(v.Type()) {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			if section, ok := v.Interface().(interface{ SetDefaults() }); ok {
				section.SetDefaults()
			}
		}
		v = v.Elem()
	}
	switch {
	case custom(v.Type()):
		d.leaf(n, v, path)
	case v.Type() == reflect.TypeFor[time.Duration]():
		d.duration(n, v, path)
	case v.Kind() == reflect.Struct:
		d.structs(n, append([]reflect.Value{v}, more...), path)
	case v.Kind() == reflect.Slice:
		d.slice(n, v, path)
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		d.mapping(n, v, path)
	default:
		d.leaf(n, v, path)
	}
}

// custom says whether t has its own way to be decoded.
func custom(t reflect.Type) bool {
	for _, x := range []reflect.Type{
		reflect.TypeFor[yaml.InterfaceUnmarshaler](), reflect.TypeFor[yaml.BytesUnmarshaler](), reflect.TypeFor[yaml.NodeUnmarshaler](),
	} {
		if t.Implements(x) || reflect.PointerTo(t).Implements(x) {
			return true
		}
	}
	return false
}

func (d *decoder) slice(n ast.Node, v reflect.Value, path string) {
	items := d.list(n, path)
	if items == nil {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.seen[at] = line(item)
		d.decode(item, v.Index(i), at)
	}
}

// list returns the items of a sequence.
func (d *decoder) list(n ast.Node, path string) []ast.Node {
	n = d.resolve(n, path)
	if n == nil || n.Type() == ast.NullType {
		return nil
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.bad(n, path, "must be a list: start each item with \"- \"")
		return nil
	}
	return s.Values
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(key string, kn, value ast.Node) {
		at := join(path, key)
		d.seen[at] = line(kn)
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, at)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	})
}

func (d *decoder) structs(n ast.Node, targets []reflect.Value, path string) {
	known := map[string]reflect.Value{}
	var keys []string
	for _, t := range targets {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() == reflect.Struct {
			keys = fields(t, known, keys)
		}
	}
	d.pairs(n, path, func(key string, kn, value ast.Node) {
		at := join(path, key)
		d.seen[at] = line(kn)
		switch f, ok := known[key]; {
		case path == "" && d.special[key] != nil:
			d.special[key](value)
		case ok:
			d.decode(value, f, at)
		default:
			d.unknown(kn, at, key, keys)
		}
	})
}

func (d *decoder) unknown(n ast.Node, path, key string, keys []string) {
	hint := "the keys here are " + strings.Join(keys, ", ")
	if near := nearest(key, keys); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	d.faults = append(d.faults, Fault{Line: line(n), Path: path, Message: "unknown key; " + hint})
}

// fields adds the settable fields of struct v to known, by their YAML keys.
func fields(v reflect.Value, known map[string]reflect.Value, keys []string) []string {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case opts == "inline" || (f.Anonymous && name == ""):
			inner := v.Field(i)
			if inner.Kind() == reflect.Pointer && inner.IsNil() {
				inner.Set(reflect.New(inner.Type().Elem()))
			}
			keys = fields(reflect.Indirect(inner), known, keys)
		default:
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			if _, twice := known[name]; !twice {
				known[name] = v.Field(i)
				keys = append(keys, name)
			}
		}
	}
	return keys
}

// pairs calls f for every key of a mapping; merge keys (<<) give what the mapping itself does not have.
func (d *decoder) pairs(n ast.Node, path string, f func(key string, kn, value ast.Node)) {
	done := map[string]bool{}
	d.pairsOnce(n, path, done, 0, f)
}

func (d *decoder) pairsOnce(n ast.Node, path string, done map[string]bool, depth int, f func(string, ast.Node, ast.Node)) {
	m, ok := n.(ast.MapNode)
	if !ok || depth > maxDepth {
		d.bad(n, path, "must be a mapping: lines of the form \"key: value\"")
		return
	}
	var merged []ast.Node
	for it := m.MapRange(); it.Next(); {
		if it.Key().IsMergeKey() {
			merged = append(merged, it.Value())
			continue
		}
		key := it.Key().GetToken().Value
		if done[key] {
			if depth == 0 {
				d.bad(it.Key(), join(path, key), "is given twice: keep one")
			}
			continue
		}
		done[key] = true
		f(key, it.Key(), it.Value())
	}
	for _, x := range merged {
		if x = d.resolve(x, path); x != nil {
			d.pairsOnce(x, path, done, depth+1, f)
		}
	}
}

// kind returns the kind of a switch or sink, or "" after reporting what is wrong with it.
func (d *decoder) kind(n ast.Node, path string, kinds []string) string {
	d.seen[path] = line(n)
	if n = d.resolve(n, path); n == nil {
		return ""
	}
	if _, ok := n.(ast.MapNode); !ok {
		d.bad(n, path, "must be a mapping with a kind, one of %s", strings.Join(kinds, ", "))
		return ""
	}
	kind, at := "", n
	quiet := &decoder{seen: map[string]int{}, anchors: d.anchors}
	quiet.pairs(n, path, func(key string, _, value ast.Node) {
		if key == "kind" && value.GetToken() != nil {
			kind, at = value.GetToken().Value, value
		}
	})
	for _, k := range kinds {
		if k == kind {
			return k
		}
	}
	message := "unknown kind " + strconv.Quote(kind)
	if kind == "" {
		message = "is missing"
	}
	d.bad(at, path+".kind", "%s: use one of %s", message, strings.Join(kinds, ", "))
	return ""
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
