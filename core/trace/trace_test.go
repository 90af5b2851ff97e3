package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

const recordings = "../../adapters/adaptertest/traces"

func readAll(t *testing.T, r *Reader) (lines []Line, broken []*LineError) {
	t.Helper()
	for {
		l, err := r.Next()
		var le *LineError
		switch {
		case err == io.EOF:
			return lines, broken
		case errors.As(err, &le):
			broken = append(broken, le)
		case err != nil:
			t.Fatal(err)
		default:
			lines = append(lines, l)
		}
		if len(lines)+len(broken) > 1e6 {
			t.Fatal("the reader does not end")
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	add(t, dir, name, text)
	return dir
}

func add(t *testing.T, dir, name, text string) {
	t.Helper()
	b := []byte(text)
	if strings.HasSuffix(name, ".gz") {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(b)
		_ = w.Close()
		b = z.Bytes()
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEveryRecordingReads(t *testing.T) {
	dirs, _ := filepath.Glob(filepath.Join(recordings, "*", "*"))
	if len(dirs) < 20 {
		t.Fatalf("found %d recordings in %s", len(dirs), recordings)
	}
	for _, dir := range dirs {
		r, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		lines, broken := readAll(t, r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if len(broken) > 0 || len(lines) == 0 {
			t.Errorf("%s: %d lines, broken: %v", dir, len(lines), broken)
		}
		for i := 1; i < len(lines); i++ {
			if lines[i].Received < lines[i-1].Received {
				t.Errorf("%s: line %d goes back in time", dir, i)
				break
			}
		}
	}
}

func TestMergesByReceiveTimeInEitherNotation(t *testing.T) {
	dir := write(t, "ari.jsonl.gz", `{"rx":"2026-11-22T12:48:16.25Z","ev":{"type":"A"}}`+"\n"+`{"rx":1795351696.750001,"ev":{"type":"B"}}`)
	add(t, dir, "ami.jsonl", `{"rx":1795351696.5,"lines":["Event: X"]}`+"\n\n"+`{"rx":"2026-11-22T13:48:16.750001+01:00","lines":["Event: Y"]}`+"\n")
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines, broken := readAll(t, r)
	var got []string
	for _, l := range lines {
		got = append(got, l.Received.String()[20:]+" "+string(l.Event)+strings.Join(l.Lines, ""))
	}
	want := `250000Z {"type":"A"}|500000Z Event: X|750001Z {"type":"B"}|750001Z Event: Y`
	if strings.Join(got, "|") != want || len(broken) > 0 {
		t.Errorf("got  %s\nwant %s\nbroken %v", strings.Join(got, "|"), want, broken)
	}
}

func TestBadLinesAreNamedAndPassed(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"torn", `{"rx":1,"ev":{"ty`, "unexpected end of JSON input"},
		{"no time", `{"ev":{}}`, "rx (the receive time) is missing"},
		{"no event", `{"rx":1}`, "ev is missing"},
		{"time in words", `{"rx":"noon","ev":{}}`, "reading rx"},
		{"time out of range", `{"rx":1e300,"ev":{}}`, "neither Unix seconds"},
		{"wrong type", `[]`, "cannot unmarshal array"},
		{"too long", `{"rx":1,"ev":"` + strings.Repeat("x", MaxLine) + `"}`, "more than the 16777216 allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, "ari.jsonl", `{"rx":1,"ev":{}}`+"\n"+tt.line+"\n"+`{"rx":2,"ev":{}}`)
			r, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			lines, broken := readAll(t, r)
			if len(lines) != 2 || len(broken) != 1 {
				t.Fatalf("%d lines, %d broken", len(lines), len(broken))
			}
			if msg := broken[0].Error(); !strings.Contains(msg, tt.want) || !strings.Contains(msg, "ari.jsonl:2: ") {
				t.Errorf("error %q lacks %q", msg, tt.want)
			}
		})
	}
}

func TestCutOffGzipEnds(t *testing.T) {
	dir := write(t, "esl.jsonl.gz", strings.Repeat(`{"rx":1.5,"head":{},"body":"0123456789abcdef"}`+"\n", 5000))
	p := filepath.Join(dir, "esl.jsonl.gz")
	b, _ := os.ReadFile(p)
	if err := os.WriteFile(p, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines, broken := readAll(t, r)
	if len(lines) == 0 || len(broken) != 1 || !errors.Is(broken[0], io.ErrUnexpectedEOF) {
		t.Errorf("%d lines, broken %v", len(lines), broken)
	}
}

func TestOpenSaysWhatItLookedFor(t *testing.T) {
	tests := []struct {
		name, path, want string
		sources          []Source
	}{
		{"nothing there", filepath.Join(t.TempDir(), "gone"), "no such file", nil},
		{"empty folder", t.TempDir(), "holds none of esl.jsonl, esl.jsonl.gz", []Source{ESL}},
		{"a file of no source", filepath.Join(write(t, "x.jsonl", ""), "x.jsonl"), "cannot tell what", nil},
		{"not gzip", write(t, "esl.jsonl.gz.tmp", ""), "holds none of", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(tt.path, tt.sources...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWrittenTracesReadBack(t *testing.T) {
	in := []struct {
		kind, raw string
	}{
		{"ari", `{"type":"StasisStart","html":"<&>"}`},
		{"ari", "Event: QueueCallerJoin\r\nQueue: support\r\n\r\n"},
		{"esl", `{"Event-Name":"HEARTBEAT"}`},
		{"esl", "Event-Name: HEARTBEAT\nEvent-Info: up\n\n"},
		{"esl", "Content-Length: 2\nContent-Type: text/event-json\n\n{}"},
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range in {
		l, err := Native(x.kind, []byte(x.raw), call.Time(1795351528887214+int64(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Line{Source: ARI, Event: []byte("{}")}); err == nil {
		t.Error("a closed writer writes")
	}
	if _, err := Create(dir); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("second Create: %v", err)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines, broken := readAll(t, r)
	if len(broken) > 0 || len(lines) != len(in) {
		t.Fatalf("%d lines, broken %v", len(lines), broken)
	}
	for i, l := range lines {
		if l.Received != call.Time(1795351528887214+int64(i)) {
			t.Errorf("line %d received %v", i, l.Received)
		}
	}
	if string(lines[0].Event) != in[0].raw || strings.Join(lines[1].Lines, "|") != "Event: QueueCallerJoin|Queue: support" {
		t.Errorf("ARI and AMI came back as %s and %q", lines[0].Event, lines[1].Lines)
	}
	if lines[2].Head["Content-Type"] != "text/event-json" || lines[3].Head["Content-Type"] != "text/event-plain" || string(lines[4].Body) != "{}" {
		t.Errorf("event-socket frames came back as %v", lines[2:])
	}
}

func TestNativeRefusesUnknownKinds(t *testing.T) {
	if _, err := Native("sip", []byte("x"), 0); err == nil {
		t.Error("no error")
	}
	if _, err := Append(nil, Line{Source: "sip"}); err == nil {
		t.Error("no error")
	}
	if _, err := Append(nil, Line{Source: ARI, Event: []byte("{")}); err == nil {
		t.Error("an event that is not JSON was written")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ari", []byte(`{"rx":1795351528.8872147,"ev":{"type":"A"}}`))
	f.Add("ami", []byte(`{"rx":"2026-11-22T12:48:16.328347263Z","lines":["Event: X"]}`))
	f.Add("esl", []byte(`{"rx":1,"head":{"Content-Length":"1"},"body":"x"}`))
	f.Fuzz(func(t *testing.T, s string, raw []byte) {
		l, err := Parse(Source(s), raw)
		if err != nil {
			return
		}
		out, err := Append(nil, l)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Parse(Source(s), out)
		if err != nil || again.Received != l.Received {
			t.Fatalf("written %s: %v, received %d, was %d", out, err, again.Received, l.Received)
		}
	})
}
