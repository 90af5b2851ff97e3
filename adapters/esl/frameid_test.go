package esl

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/core/trace"
)

// Two readers of a switch, whichever format they asked for, name every event alike; different events differ.
func TestFrameID(t *testing.T) {
	n := newNormalizer(options{}, func(string, int) {})
	seen := map[uint64][]byte{}
	for _, f := range recorded(t) {
		got, err := n.event(f.raw, true, f.received)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID == 0 {
			t.Fatalf("an event without a name: %.300s", f.raw)
		}
		if before, ok := seen[got.ID]; ok && !bytes.Equal(before, f.raw) {
			t.Fatalf("two events are named %x:\n%.300s\n%.300s", got.ID, before, f.raw)
		}
		seen[got.ID] = f.raw
		plain := "Event-Name: " + got.Type + "\nCore-UUID: " + string(headerOf(f.raw, true, "Core-UUID")) +
			"\nEvent-Sequence: " + string(headerOf(f.raw, true, "Event-Sequence")) + "\n\n"
		if other, err := n.event([]byte(plain), false, f.received); err != nil || other.ID != got.ID {
			t.Fatalf("two readers name one event %x and %x (%v): %.300s", got.ID, other.ID, err, f.raw)
		}
	}
}

func TestFrameIDOfPlainEvents(t *testing.T) {
	dirs, _ := filepath.Glob("../adaptertest/traces/freeswitch-plain/*")
	n, events := newNormalizer(options{}, func(string, int) {}), 0
	for _, d := range dirs {
		r, err := trace.Open(d, trace.ESL)
		if err != nil {
			t.Fatal(err)
		}
		for {
			l, err := r.Next()
			if err != nil {
				break
			}
			if l.Head["Content-Type"] != "text/event-plain" {
				continue
			}
			events++
			if f, err := n.event(l.Body, false, l.Received); err != nil || f.ID == 0 {
				t.Fatalf("named %x (%v): %.300s", f.ID, err, l.Body)
			}
		}
		r.Close()
	}
	if events == 0 {
		t.Fatal("no recordings")
	}
	if f, err := n.event([]byte("Event-Name: X\n\n"), false, 1); f.ID != 0 || err != nil {
		t.Errorf("an event without a sequence is named %x (%v)", f.ID, err)
	}
	if known[coreIndex] != "Core-UUID" || known[sequenceIndex] != "Event-Sequence" {
		t.Error("the headers that name an event stand elsewhere")
	}
}
