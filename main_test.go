package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/configs"
)

// asProgram in the environment makes the test binary be ctigate.
const asProgram = "CTIGATE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

const traces = "adapters/adaptertest/traces"

// cli runs one command line.
func cli(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ctigate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodesAndMessages(t *testing.T) {
	bad := write(t, "switches:\n  - {id: a, kind: esl, addresses: 127.0.0.1}\nlog: {level: loud}\n")
	twice := write(t, "switches: [{id: a, kind: esl, address: h, password: {env: X}}]\n"+
		"sinks:\n  - {kind: file, name: x, dir: out}\n  - {kind: file, name: y, dir: ./out/}\n")
	hostile := write(t, "\"\\e]0;owned\\a\": 1\n")
	tests := []struct {
		args string
		code int
		want string // on standard error
	}{
		{"version", exitOK, ""},
		{"--help", exitOK, ""},
		{"", exitOK, ""},
		{"nope", exitUsage, `unknown command "nope"`},
		{"run", exitUsage, `required flag(s) "config" not set`},
		{"run -c /nowhere.yaml", exitUsage, "reading configuration: open /nowhere.yaml: no such file"},
		{"run -c " + bad, exitUsage, "ctigate.yaml:2: switches[0].addresses: unknown key; did you mean address?"},
		{"check -c " + bad, exitUsage, `ctigate.yaml:3: log.level: "loud" must be one of`},
		{"config print -c " + bad, exitUsage, "did you mean address?"},
		{"replay --kind ari", exitUsage, "accepts 1 arg(s), received 0"},
		{"replay --kind isdn x", exitUsage, "use ari, esl or sip"},
		{"replay --kind ari --output all x", exitUsage, "use events, records or calls"},
		{"replay --kind ari --region Mars x", exitUsage, "no region"},
		{"replay --kind ari /nowhere", exitFailed, "no such file or directory"},
		{"replay --kind ari " + traces + "/freeswitch/busy", exitFailed, "holds none of ari.jsonl"},
		{"run -c " + twice, exitUsage, "ctigate.yaml:4: sinks[1].dir: ./out/ is also the folder of sinks[0] (x)"},
		{"run -c " + hostile, exitUsage, "·]0;owned·: unknown key; the keys here are switches, sinks"},
		{"version --lo\x1b[31mud", exitUsage, "unknown flag: --lo·[31mud"},
		{"version --loud", exitUsage, "unknown flag: --loud"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errOut := cli(t, strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(errOut, tt.want) {
				t.Errorf("exit %d, want %d; standard error:\n%s", code, tt.code, errOut)
			}
			if code != exitOK && out != "" {
				t.Errorf("standard output has %q", out)
			}
			if tt.want == "" && errOut != "" {
				t.Errorf("standard error has %q", errOut)
			}
		})
	}
}

func TestEveryCommandHelps(t *testing.T) {
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" || c.Name() == "help" {
			continue
		}
		if c.Short == "" || (c.Example == "" && !c.HasSubCommands()) {
			t.Errorf("%s has no summary or no example", c.Name())
		}
		code, out, _ := cli(t, c.Name(), "--help")
		if code != exitOK || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: exit %d, %q", c.Name(), code, out)
		}
	}
	if code, out, _ := cli(t, "completion", "bash"); code != exitOK || !strings.Contains(out, "ctigate") {
		t.Errorf("completion: exit %d", code)
	}
}

func TestReplayPrintsJSONLinesAndTheSameTwice(t *testing.T) {
	dirs, _ := filepath.Glob(traces + "/*/*")
	if len(dirs) < 40 {
		t.Fatalf("%d recordings", len(dirs))
	}
	for _, dir := range dirs {
		kind := "esl"
		if filepath.Base(filepath.Dir(dir)) == "asterisk" {
			kind = "ari"
		}
		for _, output := range []string{"events", "records", "calls"} {
			code, out, errOut := cli(t, "replay", "--kind", kind, "--output", output, dir)
			again := out
			if output == "events" { // the others are made of the same events
				_, again, _ = cli(t, "replay", "--kind", kind, "--output", output, dir)
			}
			if code != exitOK || errOut != "" || out != again {
				t.Errorf("%s %s: exit %d, the same twice %v, standard error %q", dir, output, code, out == again, errOut)
			}
			checkLines(t, dir+" "+output, output, out)
		}
	}
}

func checkLines(t *testing.T, where, output, out string) {
	t.Helper()
	for l := range strings.Lines(out) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%s: %v in %s", where, err, l)
		}
		switch {
		case output == "events" && (m["specversion"] != "1.0" || m["type"] == "cti.call.record.v1"):
			t.Fatalf("%s: no event: %s", where, l)
		case output != "events" && m["call_id"] == nil:
			t.Fatalf("%s: no call: %s", where, l)
		case output == "records" && m["outcome"] == nil:
			t.Fatalf("%s: no outcome: %s", where, l)
		}
	}
}

func TestReplayUsesWhatItIsTold(t *testing.T) {
	_, out, _ := cli(t, "replay", "--kind", "esl", "--switch-id", "fs7", traces+"/freeswitch/busy")
	if !strings.Contains(out, `"source":"/ctigate/switch/fs7"`) {
		t.Errorf("the switch id is not used: %.300s", out)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "esl.jsonl"), []byte("{\"rx\":1,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := cli(t, "replay", "--kind", "esl", dir)
	if code != exitOK || out != "" || !strings.Contains(errOut, "1 lines or packets could not be understood, the first: ") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
}

// TestExampleConfiguration: the example loads and has every key that there is, each with its default.
func TestExampleConfiguration(t *testing.T) {
	const path = "configs/ctigate.example.yaml"
	cfg, err := configs.Load(path, kinds())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := cfg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(printed)) {
		key, value, ok := strings.Cut(strings.TrimLeft(l, " -"), ":")
		if !ok {
			continue
		}
		if !strings.Contains(string(raw), key+":") {
			t.Errorf("the example lacks %s (%s)", key, strings.TrimSpace(value))
		}
	}
	defaults, err := configs.Parse([]byte(minimal), kinds())
	if err != nil {
		t.Fatal(err)
	}
	changed, err := configs.Changed(defaults, cfg)
	if err != nil || len(changed) > 0 {
		t.Errorf("%v: these differ from the defaults that the example claims to show: %v", err, changed)
	}
}

// minimal is what of the example has no default.
const minimal = `
switches:
  - {id: pbx1, kind: ari, url: http://127.0.0.1:8088/ari, username: ctigate, password: {env: PBX1_ARI_PASSWORD},
     ami: {address: "127.0.0.1:5038", username: ctigate, password: {env: PBX1_AMI_PASSWORD}}}
  - {id: fs1, kind: esl, address: "127.0.0.1:8021", password: {env: FS1_PASSWORD}}
  - {id: trunk1, kind: sip, capture: {interface: eth1}, hep: {}, siprec: {}}
  - {id: oldpbx, kind: sip, dialogs: {server: "sip:127.0.0.1:5060", username: ctigate, password: {env: PBX_SIP_PASSWORD}, resources: ["100", "101"]}}
sinks:
  - {kind: kafka, brokers: ["127.0.0.1:9092"]}
  - {kind: file, name: archive}
`

func TestConfigPrintSaysWhenTheFileSinkStandsIn(t *testing.T) {
	path := write(t, "switches: [{id: a, kind: esl, address: 127.0.0.1, password: {env: X}}]\n")
	code, out, errOut := cli(t, "config", "print", "-c", path)
	if code != exitOK || !strings.Contains(out, "the file sink stands in") || !strings.Contains(out, "dir: ./ctigate-data") {
		t.Errorf("exit %d %s\n%s", code, errOut, out)
	}
	if _, err := configs.Parse([]byte(out), kinds()); err != nil {
		t.Errorf("what is printed does not load: %v", err)
	}
}

func TestCancelledContextEndsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := write(t, "switches: [{id: a, kind: esl, address: '127.0.0.1:1', password: {env: X}}]\nsinks: [{kind: file, dir: "+t.TempDir()+"}]\ntelemetry: {listen: off}\n")
	var out, errOut bytes.Buffer
	if code := execute(ctx, []string{"run", "-c", path}, &out, &errOut); code != exitOK {
		t.Errorf("exit %d: %s", code, &errOut)
	}
}
