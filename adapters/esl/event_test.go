package esl

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

func all(string) bool { return true }

// TestScannerAgreesWithJSON reads every recorded event both ways.
func TestScannerAgreesWithJSON(t *testing.T) {
	s := newHeaderSet("variable_ivr_path")
	for _, f := range recorded(t) {
		e, err := s.parse(f.raw, true, all)
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]any
		if err := json.Unmarshal(f.raw, &want); err != nil {
			t.Fatal(err)
		}
		for h := range s.index {
			w, _ := want[h].(string)
			if list, ok := want[h].([]any); ok {
				w, _ = list[0].(string)
			}
			if got := e.get(h); got != w {
				t.Errorf("%s of %s is %q, want %q", h, e.get("Event-Name"), got, w)
			}
		}
	}
}

func TestPlain(t *testing.T) {
	e, err := newHeaderSet().parse([]byte("Event-Name: CUSTOM\nEvent-Subclass: callcenter%3A%3Ainfo\nCC-Queue: ARRAY::a%40b|:c\nUnique-ID:\n\nrest"), false, all)
	if err != nil || e.get("Event-Subclass") != "callcenter::info" || e.get("CC-Queue") != "a@b" || e.get("Unique-ID") != "" {
		t.Errorf("got %q %q %q %v", e.get("Event-Subclass"), e.get("CC-Queue"), e.get("Unique-ID"), err)
	}
}

func TestBadEvents(t *testing.T) {
	s := newHeaderSet()
	for _, raw := range []string{
		``, `{`, `[]`, `{"a"}`, `{"a":}`, `{"a":"b"`, `{"a":"b" "c":"d"}`, `{"a":["b"}`, `{"a":{"b":"c"}}`, `{"a":"b}`, `{}`,
		`{"Unique-ID":"1"}`, "\x00", `{"a":[["b"]]}`,
	} {
		if _, err := s.parse([]byte(raw), true, all); err == nil {
			t.Errorf("%q was accepted", raw)
		} else if !strings.HasPrefix(err.Error(), "decoding ") {
			t.Errorf("%q: %v", raw, err)
		}
	}
	if _, err := s.parse([]byte("no colon here\n"), false, all); err == nil {
		t.Error("a plain event without a colon was accepted")
	}
}

// TestSnapshots reads what a real switch answered while a call rang, talked and was held.
func TestSnapshots(t *testing.T) {
	for tag, want := range map[string]string{"ringing": "initiated initiated", "talking": "connected connected", "held": "connected held", "after": ""} {
		b, err := os.ReadFile("../adaptertest/traces/freeswitch/midcall_snapshots/snapshot-" + tag + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Calls string            `json:"calls"`
			Dumps map[string]string `json:"uuid_dump"`
		}
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
		dumps := map[string][]byte{}
		for id, d := range s.Dumps {
			dumps[id] = []byte(d)
		}
		obs, err := newNormalizer(options{}, func(string, int) {}).snapshot(&snapshot{dumps: dumps, Calls: s.Calls, received: 5 * call.Second})
		if err != nil {
			t.Fatal(err)
		}
		var states []string
		for _, o := range obs {
			if o.Kind == call.SnapshotLeg {
				states = append(states, o.Value)
			}
		}
		if got := strings.Join(states, " "); got != want || obs[len(obs)-1].Kind != call.SnapshotEnd {
			t.Errorf("%s: states %q, want %q", tag, got, want)
		}
	}
}

func FuzzEvent(f *testing.F) {
	for i, r := range recorded(f) {
		if i%97 == 0 {
			f.Add(r.raw, true)
		}
	}
	f.Add([]byte("Event-Name: CUSTOM\nEvent-Subclass: callcenter%3A%3Ainfo\nCC-Action: x%zz\n"), false)
	f.Fuzz(func(t *testing.T, body []byte, json bool) {
		n := newNormalizer(options{Variables: []string{"x"}}, func(string, int) {})
		_, _ = n.event(body, json, call.Second)
		_, _ = n.snapshot(&snapshot{dumps: map[string][]byte{"u": body}, received: call.Second})
	})
}
