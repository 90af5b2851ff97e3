package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSimSIPWritesAFileWithoutWaiting(t *testing.T) {
	dir := t.TempDir()
	var files [2][]byte
	for i := range files {
		name := filepath.Join(dir, "trunk.pcap")
		code, out, errOut := cli(t, "sim", "sip", "--fast", "--pcap", name, "--max-calls", "5", "--speed", "20", "--faults", "0.2")
		if code != exitOK || !strings.Contains(out, "packets of 5 calls that ended") {
			t.Fatalf("exit %d, %q, %q", code, out, errOut)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if files[i] = withoutTimes(b); len(b) < 50_000 {
			t.Errorf("%d bytes", len(b))
		}
	}
	if len(files[0]) != len(files[1]) {
		t.Errorf("the same seed gives %d and %d packets", len(files[0]), len(files[1]))
	}
}

// withoutTimes are the lengths of a pcap file's packets: the calls begin when they are asked for.
func withoutTimes(b []byte) (sizes []byte) {
	for b = b[24:]; len(b) > 0; {
		n := int(b[8]) | int(b[9])<<8
		sizes = append(sizes, b[8], b[9])
		b = b[16+n:]
	}
	return sizes
}

func TestSimSIPLive(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trunk.pcap")
	code, out, errOut := cli(t, "sim", "sip", "--hep", "127.0.0.1:9", "--hep-key", "s3cret", "--pcap", name, "--for", "2s", "--rate", "200", "--max-active", "5")
	if code != exitOK {
		t.Fatalf("exit %d, %q", code, errOut)
	}
	for _, want := range []string{"SIP trunk: carrier 127.0.0.1:", "kind: sip", "listen: 127.0.0.1:9\n", `CTIGATE_HEP_KEY="s3cret"`, "SIP messages", "nobody listened"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	_, yaml, _ := strings.Cut(out, "\n\n")
	yaml, _, _ = strings.Cut(yaml, "\n\n")
	conf := filepath.Join(t.TempDir(), "ctigate.yaml")
	if err := os.WriteFile(conf, []byte(yaml+"\nsinks: [{kind: stdout}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CTIGATE_HEP_KEY", "s3cret")
	if code, _, errOut := cli(t, "config", "print", "-c", conf); code != exitOK {
		t.Errorf("what it says to write is refused: %s\n%s", errOut, yaml)
	}
	if i, err := os.Stat(name); err != nil || i.Size() < 1000 {
		t.Errorf("%v %v", i, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	said, errs := &trigger{text: "SIP trunk", fire: cancel}, &bytes.Buffer{}
	if code := execute(ctx, strings.Fields("sim sip --hep= --max-calls 2"), said, errs); code != exitOK || strings.Contains(said.String(), "HEP") {
		t.Errorf("exit %d, %q, %q", code, said, errs)
	}
}

func TestSimSIPRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"--fast":                      "give --pcap FILE",
		"--fast --pcap /dev/null":     "give --max-calls or --for",
		"--rate 0":                    "at most 1000 calls a second",
		"--faults 2":                  "give a share of calls from 0 to 1",
		"--swap -1":                   "--swap -1",
		"--hep= --mix nonsense=1":     `no script named "nonsense"`,
		"--hep= --media nonsense=1":   `no audio profile named "nonsense"`,
		"--pcap /no/such/folder/file": "creating the pcap file",
	} {
		code, _, errOut := cli(t, append([]string{"sim", "sip"}, strings.Fields(args)...)...)
		if code == exitOK || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, %q", args, code, errOut)
		}
	}
	if _, out, _ := cli(t, "sim", "scripts"); !strings.Contains(out, "hold_retrieve") || !strings.Contains(out, "one_way") {
		t.Errorf("scripts: %s", out)
	}
}
