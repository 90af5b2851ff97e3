package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Load reads and validates the file at path. When the file can be read but is wrong, the error is Faults.
func Load(path string, kinds Kinds) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("reading configuration: %s has more than the %d bytes allowed: is it the right file?", path, MaxSize)
	}
	c, err := Parse(raw, kinds)
	if c != nil {
		c.Path = path
	}
	var faults Faults
	if errors.As(err, &faults) {
		for i := range faults {
			faults[i].File = filepath.Base(path)
		}
		return nil, faults
	}
	return c, err
}

// Parse reads and validates a configuration.
func Parse(raw []byte, kinds Kinds) (*Config, error) {
	root, fault := parse(raw)
	if fault != nil {
		return nil, Faults{*fault}
	}
	c := Default()
	d := newDecoder(root)
	p := &plugins{d: d, kinds: kinds, c: c}
	d.special = map[string]func(ast.Node){"switches": p.switches, "sinks": p.sinks}
	d.decode(root, reflect.ValueOf(c).Elem(), "")
	p.defaultSink()
	if !d.broken {
		p.validate()
		validate(c, d.fault)
	}
	if len(d.faults) > 0 {
		sort.SliceStable(d.faults, func(i, j int) bool { return d.faults[i].Line < d.faults[j].Line })
		return nil, d.faults
	}
	return c, nil
}

// plugins reads the switches and sinks, whose keys depend on their kind.
type plugins struct {
	d     *decoder
	kinds Kinds
	c     *Config
}

func (p *plugins) switches(n ast.Node) {
	for i, item := range p.d.list(n, "switches") {
		path := fmt.Sprintf("switches[%d]", i)
		s := Switch{}
		kind := p.d.kind(item, path, names(p.kinds.Switches))
		if kind == "" {
			continue
		}
		s.Config = p.kinds.Switches[kind]()
		p.d.decode(item, reflect.ValueOf(&s).Elem(), path, reflect.ValueOf(s.Config))
		p.c.Switches = append(p.c.Switches, s)
	}
}

func (p *plugins) sinks(n ast.Node) {
	for i, item := range p.d.list(n, "sinks") {
		path := fmt.Sprintf("sinks[%d]", i)
		var s Sink
		kind := p.d.kind(item, path, names(p.kinds.Sinks))
		if kind == "" {
			continue
		}
		s.Config = p.kinds.Sinks[kind]()
		p.d.decode(item, reflect.ValueOf(&s).Elem(), path, reflect.ValueOf(s.Config))
		if s.Name == "" {
			s.Name = kind
		}
		p.c.Sinks = append(p.c.Sinks, s)
	}
	for i := range p.c.Sinks {
		if s := &p.c.Sinks[i]; s.WhenFull == "" {
			s.WhenFull = defaultWhenFull(len(p.c.Sinks))
		}
	}
}

// defaultWhenFull: a sink alone makes the links wait, so that nothing is lost; one of several must not stall the others.
func defaultWhenFull(sinks int) string {
	if sinks > 1 {
		return Drop
	}
	return Block
}

// defaultSink puts the file sink in when none is configured, so that nothing received is lost for want of one.
func (p *plugins) defaultSink() {
	open := p.kinds.Sinks["file"]
	if len(p.c.Sinks) > 0 || open == nil || p.d.broken {
		return
	}
	p.c.Sinks = []Sink{{Name: "file", Kind: "file", WhenFull: Block, Config: open()}}
	p.c.FileSinkByDefault = true
}

func (p *plugins) validate() {
	for i, s := range p.c.Switches {
		path := fmt.Sprintf("switches[%d]", i)
		for _, err := range s.Config.Validate() {
			p.d.pluginFault(path, err)
		}
	}
	for i, s := range p.c.Sinks {
		path := fmt.Sprintf("sinks[%d]", i)
		for _, err := range s.Config.Validate() {
			p.d.pluginFault(path, err)
		}
	}
	p.validateFolders()
}

// validateFolders: two sinks that write the same files would each break what the other wrote.
func (p *plugins) validateFolders() {
	if p.kinds.Folder == nil {
		return
	}
	owner := map[string]int{}
	for i, s := range p.c.Sinks {
		dir := p.kinds.Folder(s.Config)
		if dir == "" {
			continue
		}
		at := canonical(dir)
		if first, taken := owner[at]; taken {
			p.d.fault(fmt.Sprintf("sinks[%d].dir", i), "%s is also the folder of sinks[%d] (%s): give each its own", dir, first, p.c.Sinks[first].Name)
			continue
		}
		owner[at] = i
	}
}

// canonical is one spelling of dir, as far as it can be known: it need not exist.
func canonical(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return dir
}

// pluginFault reports what a plugin's Validate found: "field: what is wrong".
func (d *decoder) pluginFault(path string, err error) {
	field, what, ok := strings.Cut(err.Error(), ": ")
	if !ok || strings.ContainsAny(field, " \t") {
		d.fault(path, "%v", err)
		return
	}
	d.fault(path+"."+field, "%s", what)
}

func names[T any](m map[string]T) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}
