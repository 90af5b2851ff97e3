package ari

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// TestQuickDecides the same as decoding would: an event passed over says nothing.
func TestQuickDecides(t *testing.T) {
	n := newNormalizer(options{}, func(string, int) {})
	full := newNormalizer(options{}, func(string, int) {})
	quick := 0
	for _, f := range recorded(t) {
		passed := n.quick(f.raw)
		a, err := n.event(f.raw, f.received)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := decode(f.raw)
		if err != nil {
			t.Fatal(err)
		}
		full.begin(ev.Type, parseTime(ev.Timestamp), f.received)
		full.observe(ev)
		if len(a.Observations) != len(full.out) || a.Type != ev.Type {
			t.Fatalf("%s: %d observations, decoding gives %d: %s", ev.Type, len(a.Observations), len(full.out), f.raw)
		}
		if passed {
			quick++
		}
	}
	if quick < 1500 {
		t.Errorf("only %d events were recognized quickly", quick)
	}
}

func TestUnknownTypesAreCounted(t *testing.T) {
	counted := map[string]int{}
	n := newNormalizer(options{}, func(name string, k int) { counted[name] += k })
	for _, raw := range []string{
		`{"type":"SomethingNew","timestamp":"2026-11-22T12:54:30.207+0000","novel":{"a":[1]}}`,
		`{"type":"AnotherOne","channel":{"id":"1.2","name":"PJSIP/a-1","state":"Up","brand":"new"}}`,
	} {
		if _, err := n.event([]byte(raw), 1); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if counted["unknown_type"] != 2 {
		t.Errorf("counted %v", counted)
	}
}

func TestNotAnEvent(t *testing.T) {
	n := newNormalizer(options{}, func(string, int) {})
	for _, raw := range []string{``, `{`, `[]`, `"x"`, `{"type":7}`, `{"timestamp":"x"}`, "\x00\xff", `{"type":"Dial","peer":3}`} {
		if f, err := n.event([]byte(raw), 1); err == nil || !strings.HasPrefix(err.Error(), "decoding ARI event: ") {
			t.Errorf("%q gives %+v, %v", raw, f, err)
		}
	}
}

func TestTimes(t *testing.T) {
	for s, want := range map[string]string{
		"2026-11-22T12:54:30.207+0000":  "2026-11-22T12:54:30.207000Z",
		"2026-11-22T14:54:30.207+0200":  "2026-11-22T12:54:30.207000Z",
		"2026-11-22T12:54:30.207Z":      "2026-11-22T12:54:30.207000Z",
		"2026-11-22T14:54:30.207+02:00": "2026-11-22T12:54:30.207000Z",
	} {
		if got := parseTime(s); got.String() != want {
			t.Errorf("%s is %s, want %s", s, got, want)
		}
	}
	for _, s := range []string{"", "yesterday", "2026-13-22T12:54:30.207+0000", "2026-11-2xT12:54:30.207+0000"} {
		if got := parseTime(s); got != 0 {
			t.Errorf("%q is %s, want unknown", s, got)
		}
	}
	if got := eventTime("1795352070.5"); got != 1795352070500000 {
		t.Errorf("AMI time %d", got)
	}
}

func TestDialTargets(t *testing.T) {
	for s, want := range map[string]string{
		"agent1": "", "agent1/sip:1002@127.0.0.1:5060": "1002", "PJSIP/agent1/sip:1002@127.0.0.1:15060": "1002",
		"+15550100@trunk": "+15550100", "trunk/sips:+15550100@example.org": "+15550100",
	} {
		if got := dialTarget(s); got != want {
			t.Errorf("%s dials %q, want %q", s, got, want)
		}
	}
}

// TestTwoReadersAgree: the same event read under two application names has one native id.
func TestTwoReadersAgree(t *testing.T) {
	a := digest([]byte(`{"type":"Dial","application":"one","x":1}`), "one")
	b := digest([]byte(`{"type":"Dial","application":"two","x":1}`), "two")
	if a != b || a == digest([]byte(`{"type":"Dial","application":"two","x":2}`), "two") {
		t.Errorf("ids %s and %s", a, b)
	}
}

// TestAMIBeforeARI: what AMI says of a channel waits until ARI has shown it, and not for ever.
func TestAMIBeforeARI(t *testing.T) {
	join := parseLines([]string{"Event: QueueCallerJoin", "Uniqueid: 1.1", "Queue: support", "Position: 1"})
	created := []byte(`{"type":"ChannelCreated","timestamp":"2026-11-22T12:54:30.207+0000","channel":{"id":"1.1","name":"PJSIP/t-1","state":"Ring","protocol_id":"","dialplan":{"exten":"2000"}}}`)
	answer := []byte(`{"type":"ChannelStateChange","timestamp":"2026-11-22T12:54:30.208+0000","channel":{"id":"1.1","name":"PJSIP/t-1","state":"Up","protocol_id":"x@y","dialplan":{"exten":"2000"}}}`)
	n := newNormalizer(options{}, func(string, int) {})
	if f := n.manager(join, 100*call.Millisecond); len(f.Observations) != 0 {
		t.Fatalf("did not wait: %+v", f.Observations)
	}
	_, _ = n.event(created, 101*call.Millisecond)
	f, _ := n.event(answer, 102*call.Millisecond)
	if len(f.Observations) != 3 || f.Observations[0].Kind != call.LegCreated || f.Observations[1].Kind != call.QueueEnter {
		t.Errorf("got %+v", f.Observations)
	}
	unknown := 0
	n = newNormalizer(options{}, func(string, int) { unknown++ })
	n.manager(join, 100*call.Millisecond)
	n.flush(200 * call.Millisecond)
	if len(n.waiting) != 1 {
		t.Error("gave up early")
	}
	if got := n.flush(301 * call.Millisecond); len(got) != 0 || len(n.waiting) != 0 || unknown != 1 {
		t.Errorf("a channel that is no party: %+v, %d waiting, counted %d", got, len(n.waiting), unknown)
	}
}

// TestSnapshots reads what a real switch answered while a call rang, talked and was held.
func TestSnapshots(t *testing.T) {
	for tag, want := range map[string]string{"ringing": "initiated alerting", "talking": "up up", "held": "up up", "after": ""} {
		var s struct{ Channels, Bridges json.RawMessage }
		readFile(t, "../adaptertest/traces/asterisk/midcall_snapshots/snapshot-"+tag+".json", &s)
		obs, err := newNormalizer(options{}, func(string, int) {}).snapshot(&snapshot{channels: s.Channels, bridges: s.Bridges, at: 5 * call.Second, received: 5 * call.Second})
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
	if _, err := newNormalizer(options{}, func(string, int) {}).snapshot(&snapshot{channels: []byte(`{}`), bridges: []byte(`[]`)}); err == nil {
		t.Error("an error answer was taken for a list of channels")
	}
}

// TestQueueStatus: what AMI answers after a login tells of agents and callers that were there before.
func TestQueueStatus(t *testing.T) {
	n := newNormalizer(options{}, func(string, int) {})
	f := n.manager(parseLines([]string{"Event: QueueMember", "Queue: support", "Name: One", "Location: PJSIP/agent1", "Paused: 1", "PausedReason: lunch"}), 9*call.Second)
	if o := f.Observations[0]; o.Kind != call.AgentStateChange || o.Agent != "agent1" || o.Value != "not_ready" || o.Reason != "lunch" || !o.Synthetic {
		t.Errorf("got %+v", o)
	}
	_, _ = n.snapshot(&snapshot{channels: []byte(`[{"id":"1.1","name":"PJSIP/t-1","state":"Up"}]`), bridges: []byte(`[]`), received: 9 * call.Second})
	obs := n.manager(parseLines([]string{"Event: QueueEntry", "Queue: support", "Position: 2", "Uniqueid: 1.1", "Wait: 4"}), 9*call.Second).Observations
	if len(obs) != 1 || obs[0].Kind != call.QueueEnter || obs[0].At != 5*call.Second || obs[0].Count != 2 || !obs[0].Synthetic {
		t.Errorf("got %+v", obs)
	}
}

func FuzzEvent(f *testing.F) {
	for i, r := range recorded(f) {
		if i%97 == 0 {
			f.Add(r.raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := newNormalizer(options{Variables: []string{"X"}}, func(string, int) {})
		for range 2 {
			_, _ = n.event(raw, call.Second)
			n.flush(2 * call.Second)
		}
	})
}

func FuzzManager(f *testing.F) {
	f.Add("Event: QueueCallerJoin\nUniqueid: 1.1\nQueue: q")
	f.Add("Event: AgentConnect\nUniqueid: 1.1\nInterface: PJSIP/a\nTimestamp: 1.5")
	f.Fuzz(func(t *testing.T, text string) {
		n := newNormalizer(options{}, func(string, int) {})
		n.manager(parseLines(strings.Split(text, "\n")), call.Second)
		n.flush(2 * call.Second)
	})
}
