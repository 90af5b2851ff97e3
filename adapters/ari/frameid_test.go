package ari

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/trace"
)

// Two readers of a switch, each with an application name of its own, name every event alike; different events differ.
func TestFrameIDOfEvents(t *testing.T) {
	ours, theirs := newNormalizer(options{}, ignore), newNormalizer(options{}, ignore)
	seen := map[uint64][]byte{}
	for _, f := range recorded(t) {
		other := application.ReplaceAll(f.raw, []byte(`${1}"a \"second\" node"`))
		if bytes.Equal(other, f.raw) {
			t.Fatalf("no application in %s", f.raw)
		}
		a, err := ours.event(f.raw, f.received)
		if err != nil {
			t.Fatal(err)
		}
		b, err := theirs.event(other, f.received+17)
		if err != nil {
			t.Fatal(err)
		}
		if a.ID == 0 || a.ID != b.ID {
			t.Fatalf("two readers name one event %x and %x: %s", a.ID, b.ID, f.raw)
		}
		if before, ok := seen[a.ID]; ok && !bytes.Equal(before, f.raw) {
			t.Fatalf("two events are named %x:\n%s\n%s", a.ID, before, f.raw)
		}
		seen[a.ID] = f.raw
	}
	if len(seen) < 2000 {
		t.Errorf("only %d events", len(seen))
	}
}

// The application member may stand anywhere, and nothing else is left out of the digest.
func TestFrameIDForms(t *testing.T) {
	same := func(a, b string) bool { return eventID([]byte(a)) == eventID([]byte(b)) }
	for _, pair := range [][2]string{
		{`{"application":"a","type":"X"}`, `{"application":"bb","type":"X"}`},
		{`{"type":"X","application":"a"}`, `{"type":"X","application":"b\""}`},
		{`{"type":"X","application": "a"}`, `{"type":"X","application": ""}`},
	} {
		if !same(pair[0], pair[1]) {
			t.Errorf("%s and %s are named differently", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{
		{`{"type":"X","application":"a"}`, `{"type":"Y","application":"a"}`},
		{`{"type":"X","application":"a","n":1}`, `{"type":"X","application":"a","n":2}`},
		{`{"type":"X","application":1}`, `{"type":"X","application":2}`},
		{`{"type":"X","application":"a`, `{"type":"Y","application":"a`},
		{`{"type":"X"}`, `{"type":"Y"}`},
	} {
		if same(pair[0], pair[1]) {
			t.Errorf("%s and %s are named alike", pair[0], pair[1])
		}
	}
}

func TestFrameIDOfManagerMessages(t *testing.T) {
	seen := map[uint64]string{}
	dirs, _ := filepath.Glob("../adaptertest/traces/asterisk/*")
	for _, d := range dirs {
		r, err := trace.Open(d, trace.AMI)
		if err != nil {
			t.Fatal(err)
		}
		for {
			l, err := r.Next()
			if err != nil {
				break
			}
			m := parseLines(l.Lines)
			id, text := managerID(m), strings.Join(l.Lines, "\n")
			if event := m.get("Event") != "" && m.get("ActionID") == ""; event != (id != 0) {
				t.Fatalf("an event: %v, named %x: %s", event, id, text)
			}
			live := message{raw: []byte(strings.Join(l.Lines, "\r\n") + "\r\n\r\n"), fields: m.fields}
			if managerID(live) != id {
				t.Fatalf("a recorded message and the same one live are named differently: %s", text)
			}
			if before, ok := seen[id]; ok && id != 0 && before != text {
				t.Fatalf("two messages are named %x:\n%s\n%s", id, before, text)
			}
			seen[id] = text
		}
		r.Close()
	}
}

// application finds the application member as Asterisk writes it, in either of its two styles.
var application = regexp.MustCompile(`("application": ?)"gateway"`)

func ignore(string, int) {}
