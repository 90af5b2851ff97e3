package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ctigate/ctigate"

// may says what of ours a package may import, directly, outside of its tests: folders below the module, "." for all.
// The first rule that fits decides. The linter's depguard holds the same rules.
var may = []struct {
	pkg     string
	imports []string
}{
	{"", []string{"."}},
	{"core/call", nil},
	{"core/router", []string{"core", "core/..."}},
	{"core/...", []string{"core", "core/call"}},
	{"core", []string{"core/call"}},
	{"adapters/adaptertest", []string{"core", "core/..."}},
	{"adapters/sip/...", []string{"core", "core/call", "core/trace", "adapters/sip/..."}},
	{"adapters/...", []string{"core", "core/call", "core/trace"}},
	{"sinks/cloudevents", []string{"core", "core/call"}},
	{"sinks/sinktest", []string{"core", "core/call", "sinks/cloudevents"}},
	{"sinks/...", []string{"core", "core/call", "sinks/cloudevents"}},
	{"sim/people", nil},
	{"sim/...", []string{"core/call", "sim/people"}},
	{"configs", []string{"core", "core/call", "core/cluster"}},
	{"deploy/chaos/oracle", []string{"core/call", "sim"}},
	{"deploy/chaos", []string{"."}},
}

func matches(pattern, pkg string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
	}
	return pattern == pkg
}

// allowed reports whether pkg may import other, and whether any rule speaks of pkg.
func allowed(pkg, other string) (ok, ruled bool) {
	for _, rule := range may {
		if !matches(rule.pkg, pkg) {
			continue
		}
		return slices.ContainsFunc(rule.imports, func(p string) bool {
			return p == "." || matches(p, other)
		}), true
	}
	return false, false
}

// own is pkg below the module, and whether it is ours.
func own(pkg string) (string, bool) {
	if pkg == module {
		return "", true
	}
	return strings.CutPrefix(pkg, module+"/")
}

func TestImportRules(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkg, ours := own(p.ImportPath)
		if !ours {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			other, ours := own(imp)
			if !ours {
				continue
			}
			if ok, ruled := allowed(pkg, other); !ruled {
				t.Errorf("no rule says what %q may import: add one here and to .golangci.yml", pkg)
			} else if !ok {
				t.Errorf("%q imports %q, which the rules of the architecture do not allow", pkg, other)
			}
		}
	}
	if seen < 10 {
		t.Errorf("saw %d packages of ours", seen)
	}
}

func TestImportRulesThemselves(t *testing.T) {
	for _, x := range []struct {
		pkg, other string
		want       bool
	}{
		{"core/call", "core", false}, {"core/fresh", "core/router", false}, {"adapters/ari", "adapters/esl", false},
		{"adapters/ari", "core/router", false}, {"core/router", "sinks/kafka", false}, {"sim", "adapters/ari", false},
		{"sim/trunk", "adapters/sip/hep", false}, {"sim/trunk", "sim", false},
		{"configs", "core/telemetry", false}, {"sinks/kafka", "sinks/file", false},
		{"adapters/ari", "core", true}, {"core/router", "core/fresh", true}, {"", "sim", true},
	} {
		if got, _ := allowed(x.pkg, x.other); got != x.want {
			t.Errorf("%q importing %q: %v", x.pkg, x.other, got)
		}
	}
}
