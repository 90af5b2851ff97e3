package esl

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/trace"
)

// TestReconcileCuts cuts the link at every message of every recording, for stretches of all lengths, and lets it come back
// with the snapshot that the switch would have shown then. The records hold what those of the whole recording do, or say
// what was not seen.
func TestReconcileCuts(t *testing.T) {
	losses := adaptertest.Losses{}
	dirs, _ := filepath.Glob("../adaptertest/traces/freeswitch/*")
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			r := readRecording(t, dir)
			whole := r.run(adaptertest.Cut{At: len(r.arrivals)}, nil)
			for _, c := range adaptertest.Cuts(len(r.arrivals), func(i int) bool { return r.speaks[i] }) {
				blind := adaptertest.Blind{}
				cut := r.run(c, &blind)
				lost, faults := blind.Check(whole.Events, cut.Events)
				for _, f := range faults {
					t.Errorf("cut %+v of %d (blind %s to %s): %s", c, len(r.arrivals), blind.From, blind.To, f)
				}
				if losses.Add(name, lost); t.Failed() {
					return
				}
			}
		})
	}
	t.Logf("what cuts of FreeSWITCH's link cost:\n%s", losses)
}

// recordedEvents is the events of a recorded scenario.
type recordedEvents struct {
	arrivals []arrival
	fields   []map[string]any
	speaks   []bool // whether an event made observations
}

func readRecording(t *testing.T, dir string) *recordedEvents {
	t.Helper()
	in, err := trace.Open(dir, trace.ESL)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := &recordedEvents{}
	n := newNormalizer(options{}, func(string, int) {})
	for {
		l, err := in.Next()
		if err != nil {
			return r
		}
		var fields map[string]any
		if l.Head["Content-Type"] != "text/event-json" || json.Unmarshal(l.Body, &fields) != nil {
			continue
		}
		f, _ := n.event(l.Body, true, l.Received)
		r.arrivals = append(r.arrivals, arrival{body: l.Body, json: true, received: l.Received})
		r.fields = append(r.fields, fields)
		r.speaks = append(r.speaks, len(f.Observations) > 0)
	}
}

// time is when event i was received.
func (r *recordedEvents) time(i int) call.Time {
	return r.arrivals[min(max(i, 0), len(r.arrivals)-1)].received
}

// run plays the recording with the cut c; without one when blind is nil.
func (r *recordedEvents) run(c adaptertest.Cut, blind *adaptertest.Blind) *adaptertest.Host {
	h := adaptertest.NewHost("freeswitch", testCore)
	n := newNormalizer(options{}, func(string, int) {})
	feed := func(n *normalizer, events []arrival) {
		for _, a := range events {
			f, err := n.event(a.body, a.json, a.received)
			if err != nil {
				panic(err)
			}
			h.Frame(f)
		}
	}
	feed(n, r.arrivals[:c.At])
	if blind != nil {
		last, back := r.time(c.At-1), c.At+c.Lost
		h.Down(last)
		n = newNormalizer(options{}, func(string, int) {})
		snap := r.snapshot(back + c.Shown)
		blind.From, blind.To = last, snap.received
		window := r.arrivals[back : back+c.Window]
		snap.touched = touchedBy(options{}, window)
		observed, err := n.snapshot(snap)
		if err != nil {
			panic(err)
		}
		h.Frame(core.Frame{Received: snap.received, Observations: observed})
		feed(n, window)
		n.settled = true
		feed(n, r.arrivals[back+c.Window:])
	}
	h.Finish()
	return h
}

// snapshot is what FreeSWITCH would have answered after the first n events.
func (r *recordedEvents) snapshot(n int) *snapshot {
	legs, pairs := map[string]map[string]any{}, map[string]string{}
	sequence := uint64(0)
	for _, e := range r.fields[:n] {
		sequence = max(sequence, sequenceOf(e))
	}
	for _, e := range r.fields {
		if sequenceOf(e) > sequence { // what was given its number before had happened, though it may come later
			continue
		}
		get := func(k string) string { s, _ := e[k].(string); return s }
		id := get("Unique-ID")
		if id == "" || get("Channel-Name") == "" {
			continue
		}
		switch get("Event-Name") {
		case "CHANNEL_CREATE":
			legs[id] = map[string]any{}
		case "CHANNEL_DESTROY":
			delete(legs, id)
		case "CHANNEL_BRIDGE":
			pairs[get("Bridge-A-Unique-ID")] = get("Bridge-B-Unique-ID")
		case "CHANNEL_UNBRIDGE":
			delete(pairs, get("Bridge-A-Unique-ID"))
		}
		l := legs[id]
		if l == nil {
			continue
		}
		for k, v := range e {
			if !strings.HasPrefix(k, "Event-") || k == "Event-Date-Timestamp" {
				l[k] = v
			}
		}
		room(l, get)
	}
	s := &snapshot{dumps: map[string][]byte{}, received: r.time(n - 1), marked: true}
	for id, l := range legs {
		l["Event-Name"], l["Event-Sequence"] = "CHANNEL_DATA", fmt.Sprint(sequence)
		s.dumps[id], _ = json.Marshal(l)
	}
	var rows []string
	for _, a := range slices.Sorted(maps.Keys(pairs)) {
		if b := pairs[a]; legs[a] != nil && legs[b] != nil {
			rows = append(rows, fmt.Sprintf(`{"uuid":%q,"b_uuid":%q}`, a, b))
		}
	}
	s.Calls = `{"rows":[` + strings.Join(rows, ",") + `]}`
	return s
}

func sequenceOf(e map[string]any) uint64 {
	s, _ := e["Event-Sequence"].(string)
	return number([]byte(s))
}

// room notes the variables that mod_conference sets on a channel: events do not show them all.
func room(l map[string]any, get func(string) string) {
	if get("Event-Subclass") != "conference::maintenance" {
		return
	}
	switch get("Action") {
	case "add-member":
		l["variable_current_application"] = "conference"
		l["variable_conference_uuid"], l["variable_conference_name"] = get("Conference-Unique-ID"), get("Conference-Name")
	case "del-member":
		delete(l, "variable_current_application")
	}
}
