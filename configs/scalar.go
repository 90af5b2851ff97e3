package configs

import (
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// duration reads 10s, 1m30s, 250ms. A number without a unit is refused: nobody can tell what it means.
func (d *decoder) duration(n ast.Node, v reflect.Value, path string) {
	text, ok := scalar(n)
	t, err := time.ParseDuration(text)
	if !ok || err != nil {
		d.bad(n, path, "must be a duration with its unit, such as 10s or 250ms, not %s", quote(n))
		return
	}
	v.SetInt(int64(t))
}

// leaf reads a scalar, or whatever a type that decodes itself wants.
func (d *decoder) leaf(n ast.Node, v reflect.Value, path string) {
	if v.Kind() == reflect.String && !custom(v.Type()) {
		// The text as written: an unquoted +14155550100 must not become a number and lose its plus.
		text, ok := scalar(n)
		if !ok {
			d.bad(n, path, "must be a text, not %s", quote(n))
			return
		}
		v.SetString(text)
		return
	}
	err := yaml.NodeToValue(n, v.Addr().Interface(), yaml.Strict())
	if err == nil {
		return
	}
	if want := wanted(v); want != "" {
		d.bad(n, path, "must be %s, not %s", want, quote(n))
		return
	}
	var y yaml.Error
	if errors.As(err, &y) {
		err = errors.New(y.GetMessage())
	}
	d.bad(n, path, "%s", strings.TrimSpace(err.Error()))
}

func wanted(v reflect.Value) string {
	if custom(v.Type()) {
		return ""
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return ""
}

// scalar returns the text of a scalar as it is written.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return strings.TrimSpace(n.GetToken().Value), true
	}
	return "", false
}

// quote shows what stands at n, shortened.
func quote(n ast.Node) string {
	switch n.(type) {
	case ast.MapNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	text, _ := scalar(n)
	if len(text) > 40 {
		text = text[:40] + "…"
	}
	return "\"" + text + "\""
}
