package configs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml/lexer"

	"github.com/ctigate/ctigate/core"
)

type pbx struct {
	URL       string
	Password  core.Secret
	Port      int
	TLS       bool
	Timeout   time.Duration
	Variables []string
	Labels    map[string]string
}

func (p *pbx) Validate() []error {
	switch scheme, _, ok := strings.Cut(p.URL, "://"); {
	case p.URL == "":
		return []error{errors.New("url: is missing")}
	case !ok || (scheme != "http" && scheme != "https"):
		return []error{errors.New("url: must be http:// or https://, not " + scheme + "://")}
	}
	return nil
}

func (p *pbx) Open(string, core.Env) (core.Adapter, error) { return nil, errors.New("not for opening") }

type files struct{ Dir string }

func (f *files) Validate() []error { return nil }

func (f *files) Open(context.Context, core.Env) (core.Sink, error) {
	return nil, errors.New("not for opening")
}

func kinds() Kinds {
	return Kinds{
		Switches: map[string]func() core.AdapterConfig{"pbx": func() core.AdapterConfig { return &pbx{Timeout: 5 * time.Second} }},
		Sinks:    map[string]func() core.SinkConfig{"file": func() core.SinkConfig { return &files{Dir: "./ctigate-data"} }},
		Folder:   func(s core.SinkConfig) string { return s.(*files).Dir },
	}
}

// TestBadFiles: every file under testdata/bad states its faults, all of them, in "# want:" lines.
func TestBadFiles(t *testing.T) {
	paths, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(paths) < 25 {
		t.Fatalf("found %d files", len(paths))
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for l := range strings.Lines(string(raw)) {
				if w, ok := strings.CutPrefix(l, "# want: "); ok {
					want = append(want, strings.TrimSpace(w))
				}
			}
			c, err := Parse(raw, kinds())
			if err == nil || c != nil || len(want) == 0 {
				t.Fatalf("accepted, or nothing wanted: %v", err)
			}
			if got := err.Error(); got != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the message repeats a secret")
			}
		})
	}
}

func TestGoodFile(t *testing.T) {
	c, err := Load("testdata/good.yaml", kinds())
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.Switches[0].Config.(*pbx), c.Switches[1].Config.(*pbx)
	if c.Switches[1].ID != "pbx2" || second.URL != first.URL || second.Timeout != 250*time.Millisecond || first.Timeout != 5*time.Second {
		t.Errorf("switches: %+v %+v", first, second)
	}
	if first.Password.Env != "PBX_PASSWORD" || first.Variables[0] != "IVR_PATH" || first.Labels["site"] != "berlin" {
		t.Errorf("first switch: %+v", first)
	}
	if c.Enrich.Numbers[0].Dialed != "+14155550100" || c.Enrich.Numbers[1].Prefix != "0049" {
		t.Errorf("numbers lost something on the way: %+v", c.Enrich.Numbers)
	}
	if s := c.Sinks[0]; s.Name != "archive" || s.WhenFull != Drop || s.Config.(*files).Dir != "./out" || c.FileSinkByDefault {
		t.Errorf("sink: %+v", s)
	}
	if c.DrainTimeout != 3*time.Second || !c.RawPassthrough || c.Freshness.Late != 10*time.Second || c.Freshness.PerType["agent.state"].Late != time.Minute {
		t.Errorf("the rest: %+v", c)
	}
}

func TestNoSinkGivesTheFileSink(t *testing.T) {
	c, err := Parse([]byte("switches: [{id: a, kind: pbx, url: 'http://x'}]"), kinds())
	if err != nil {
		t.Fatal(err)
	}
	if !c.FileSinkByDefault || len(c.Sinks) != 1 || c.Sinks[0].Kind != "file" {
		t.Errorf("got %+v", c.Sinks)
	}
}

func TestPrintedConfigurationIsRedactedAndLoadsBack(t *testing.T) {
	c, err := Load("testdata/good.yaml", kinds())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "user:pw") || !strings.Contains(string(raw), "http://[redacted]@127.0.0.1:8088") {
		t.Errorf("a password in a URL shows:\n%s", raw)
	}
	again, err := Parse(raw, kinds())
	if err != nil {
		t.Fatalf("%v in\n%s", err, raw)
	}
	raw2, err := again.Marshal()
	if err != nil || string(raw2) != string(raw) {
		t.Errorf("printed again, %v:\n%s\nfirst:\n%s", err, raw2, raw)
	}
	if again.Enrich.Numbers[0].Dialed != "+14155550100" {
		t.Errorf("a number changed: %q", again.Enrich.Numbers[0].Dialed)
	}
}

func TestPrintNeverShowsAHeldSecret(t *testing.T) {
	c := Default()
	c.Switches = []Switch{{ID: "a", Kind: "pbx", Config: &pbx{URL: "http://x", Password: core.NewSecret("hunter2")}}}
	c.Telemetry.Token = core.NewSecret("hunter2")
	c.Telemetry.OTLP.Headers = map[string]core.Secret{"x-key": core.NewSecret("hunter2")}
	raw, err := c.Marshal()
	if err != nil || strings.Contains(string(raw), "hunter2") {
		t.Errorf("%v\n%s", err, raw)
	}
}

func TestChangedNamesWhatDiffers(t *testing.T) {
	read := func() *Config {
		c, err := Load("testdata/good.yaml", kinds())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for want, change := range map[string]func(*Config){
		"[]":                func(*Config) {},
		"[log.level]":       func(c *Config) { c.Log.Level = "error" },
		"[switches]":        func(c *Config) { c.Switches[0].Config.(*pbx).Port++ },
		"[sinks freshness]": func(c *Config) { c.Sinks[0].WhenFull = Block; c.Freshness.Late++ },
		"[enrich drain_timeout raw_passthrough]": func(c *Config) {
			c.Enrich.Numbers = nil
			c.DrainTimeout++
			c.RawPassthrough = false
		},
	} {
		b := read()
		change(b)
		if got, err := Changed(read(), b); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%v, %v, want %s", got, err, want)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "no such file",
		dir:                             "is a directory",
		big:                             "more than the 1048576 bytes allowed",
		"testdata/bad/log.yaml":         "log.yaml:4: log.level: ",
	} {
		if _, err := Load(path, kinds()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestAliasesCannotMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("switches:\n  - id: a\n    kind: pbx\n    url: http://x\n    labels: &l0 {a: a, b: b}\n")
	b.WriteString("    variables: &v0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		b.WriteString("  - &s" + string(rune('a'+i)) + "\n    <<: [")
		b.WriteString("*x,*x]\n")
	}
	if _, err := Parse([]byte(b.String()), kinds()); err == nil {
		t.Error("accepted")
	}
	loop := "switches:\n  - &s\n    id: a\n    kind: pbx\n    <<: *s\n"
	if _, err := Parse([]byte(loop), kinds()); err == nil {
		t.Error("a mapping merged into itself was accepted")
	}
}

// TestNestingBombs: what nests without end is refused before it is parsed, which would take memory with the square of
// the depth.
func TestNestingBombs(t *testing.T) {
	for name, unit := range map[string]string{
		"brackets": "[", "brackets over lines": "[\n", "mappings": "{a: ", "mappings over lines": "{a:\n",
		"list items": "- ", "keys": "? ", "tags": "!!a ", "items and brackets": "- [\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, head := range []string{"enrich: ", "enrich:\n  ", ""} {
				if !deep(lexer.Tokenize(head + strings.Repeat(unit, 1000))) {
					t.Errorf("%q repeated after %q is not refused", unit, head)
				}
			}
		})
	}
	raw := "enrich: " + strings.Repeat("[\n", 200_000)
	tokens := lexer.Tokenize(raw)
	if !deep(tokens) {
		t.Fatal("the file is not refused")
	}
	began, before := time.Now(), allocated()
	if _, err := Parse([]byte(raw), kinds()); err == nil || !strings.Contains(err.Error(), "nested more than 50 levels") {
		t.Errorf("got %v", err)
	}
	if grew, took := allocated()-before, time.Since(began); grew > 400<<20 || took > 20*time.Second {
		t.Errorf("a file of 400 KB took %d MiB and %s", grew>>20, took)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestBracketsThatDoNotNestAreFine(t *testing.T) {
	var b strings.Builder
	b.WriteString("switches:\n  - {id: a, kind: pbx, url: 'http://x'}\nenrich:\n  numbers:\n")
	for i := range 200 {
		fmt.Fprintf(&b, "    - {dialed: '%d', label: 'Sales [EU'} # as [ever {\n", i)
	}
	if _, err := Parse([]byte(b.String()), kinds()); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*/*.yaml")
	for _, p := range append(paths, "testdata/good.yaml") {
		raw, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Parse(raw, kinds())
		if err != nil {
			return
		}
		out, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(out, kinds()); err != nil {
			t.Fatalf("what was printed does not load: %v\n%s", err, out)
		}
	})
}
