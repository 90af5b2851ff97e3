package adapters_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// step lets a tracker take frame i of r.
func (r *tape) step(tr *call.Tracker, i int) []*call.Event {
	events := tr.Tick(r.frames[i].Received)
	for _, o := range r.frames[i].Observations {
		events = append(events, tr.Apply(r.refs[i], o)...)
	}
	return events
}

// through are the events that r becomes, frame by frame, and at last those of the time after it; the tracker that takes
// it is given to between before each frame.
func (r *tape) through(between func(*call.Tracker) *call.Tracker) (out [][]*call.Event) {
	tr := call.NewTracker(call.Options{})
	for i := range r.frames {
		tr = between(tr)
		out = append(out, r.step(tr, i))
	}
	return append(out, r.after(between(tr)))
}

func (r *tape) after(tr *call.Tracker) []*call.Event {
	return tr.Tick(r.frames[len(r.frames)-1].Received + call.Second)
}

func restart(t *testing.T, state []byte) *call.Tracker {
	t.Helper()
	tr, err := call.RestoreTracker(call.Options{}, state)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestRestartBeforeEveryFrame restarts the tracker before every frame of every recording: nobody can tell.
func TestRestartBeforeEveryFrame(t *testing.T) {
	for _, r := range tapes(t) {
		want := r.through(func(tr *call.Tracker) *call.Tracker { return tr })
		got := r.through(func(tr *call.Tracker) *call.Tracker { return restart(t, tr.AppendState(nil)) })
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("%s, frame %d:\n got %q\nwant %q", r.name, i, transcript(got[i]), transcript(want[i]))
			}
		}
	}
}

// TestRestartOnceAnywhere cuts every recording, at every place where it is short, and runs each to its end.
func TestRestartOnceAnywhere(t *testing.T) {
	for _, r := range tapes(t) {
		stride := 1 + len(r.frames)/60
		var states [][]byte
		want := r.through(func(tr *call.Tracker) *call.Tracker {
			states = append(states, tr.AppendState(nil))
			return tr
		})
		for cut := 0; cut < len(r.frames); cut += stride {
			tr := restart(t, states[cut])
			for i := cut; i < len(r.frames); i++ {
				if got := r.step(tr, i); !reflect.DeepEqual(got, want[i]) {
					t.Fatalf("%s, cut before frame %d, frame %d:\n got %q\nwant %q", r.name, cut, i, transcript(got), transcript(want[i]))
				}
			}
			if got := r.after(tr); !reflect.DeepEqual(got, want[len(want)-1]) {
				t.Fatalf("%s, cut before frame %d, at the end: %q", r.name, cut, transcript(got))
			}
		}
	}
}

// adopt is a tracker that knows no more than what was published last of each call.
func adopt(published []*call.Event, now call.Time) *call.Tracker {
	tr := call.NewTracker(call.Options{})
	last := map[string]*call.Event{}
	var ids []string
	for _, e := range published {
		if e.Call == nil || e.Type == call.MediaQuality {
			continue
		}
		if last[e.CallID] == nil {
			ids = append(ids, e.CallID)
		}
		last[e.CallID] = e
	}
	for _, id := range ids {
		tr.Adopt(last[id].Call, last[id].Seq, now)
	}
	return tr
}

// bridges are where each leg of r is after so many frames: what it joined last.
func (r *tape) bridges(frames int) map[string]call.Observation {
	in := map[string]call.Observation{}
	for _, f := range r.frames[:frames] {
		for _, o := range f.Observations {
			switch o.Kind {
			case call.LegBridged:
				in[o.Leg] = o
			case call.LegUnbridged:
				delete(in, o.Leg)
			}
		}
	}
	return in
}

// snapshot is what the switch would answer when its calls are as tr knows them.
func snapshot(tr *call.Tracker, bridges map[string]call.Observation, now call.Time) (out []call.Observation) {
	end := call.Observation{Kind: call.SnapshotEnd, At: now, Received: now, Native: call.Native{Type: "test", ID: "snapshot"}}
	for _, c := range tr.Calls() {
		for i, n := range c.Connections {
			if n.ClearedAt == 0 {
				o := end
				o.Kind, o.Leg, o.Value, o.Inbound = call.SnapshotLeg, strings.TrimPrefix(n.ID, c.Switch.ID+"/"), string(n.State), i == 0
				o.Bridge, o.Conference = bridges[o.Leg].Bridge, bridges[o.Leg].Conference
				out = append(out, o)
			}
		}
	}
	return append(out, end)
}

// TestNewDiskAnywhere cuts every recording, takes the calls over as they were last published, lets the switch tell how
// they stand, and goes on: each call keeps its id and its interaction, counts on and ends once.
func TestNewDiskAnywhere(t *testing.T) {
	for _, r := range tapes(t) {
		want := slices.Concat(r.through(func(tr *call.Tracker) *call.Tracker { return tr })...)
		for cut := 1; cut < len(r.frames); cut += 1 + len(r.frames)/60 {
			for _, told := range [...]bool{true, false} {
				where := fmt.Sprintf("%s, cut before frame %d, snapshot %v", r.name, cut, told)
				got := r.onNewDisk(t, where, cut, told)
				if faults := counted(got); len(faults) > 0 {
					t.Fatalf("%s: %v\n%q", where, faults, transcript(got))
				}
				if told { // without, nobody says who is in which bridge
					sameCalls(t, where, got, want)
				}
			}
		}
	}
}

// onNewDisk are the events that r becomes with a restart before frame cut that finds nothing but what was published; told
// says that the switch then gives a snapshot.
func (r *tape) onNewDisk(t *testing.T, where string, cut int, told bool) (events []*call.Event) {
	before := call.NewTracker(call.Options{})
	for i := range cut {
		events = append(events, r.step(before, i)...)
	}
	now := r.frames[cut-1].Received
	tr := adopt(events, now)
	if tr.Active() != before.Active() {
		t.Fatalf("%s: %d of %d calls go on", where, tr.Active(), before.Active())
	}
	if told {
		for _, o := range snapshot(before, r.bridges(cut), now) {
			events = append(events, tr.Apply(r.refs[cut-1], o)...)
		}
	}
	for i := cut; i < len(r.frames); i++ {
		events = append(events, r.step(tr, i)...)
	}
	events = append(events, r.after(tr)...)
	if tr.Active() > 0 {
		t.Fatalf("%s: %d calls go on for ever", where, tr.Active())
	}
	return events
}

// counted says where a call's events are not numbered 1, 2, 3 … or it has not exactly one end.
func counted(events []*call.Event) (faults []string) {
	seq, ends := map[string]uint64{}, map[string]int{}
	for _, e := range events {
		if e.CallID == "" || e.Type == call.MediaQuality {
			continue
		}
		if seq[e.CallID]++; e.Seq != seq[e.CallID] {
			faults = append(faults, fmt.Sprintf("%s of %s is number %d, not %d", e.Type, e.CallID, e.Seq, seq[e.CallID]))
		}
		if e.Type == call.CallEnded {
			ends[e.CallID]++
		}
	}
	for id := range seq {
		if ends[id] != 1 {
			faults = append(faults, fmt.Sprintf("%s ends %d times", id, ends[id]))
		}
	}
	return faults
}

// sameCalls compares which calls there are, in which interactions, and which were answered. Who hung up, and so whether a
// call was abandoned, is not known when the hang-up had begun.
func sameCalls(t *testing.T, where string, got, want []*call.Event) {
	t.Helper()
	a, b := outcomes(got), outcomes(want)
	if !maps.Equal(a, b) {
		t.Errorf("%s:\n got %v\nwant %v", where, a, b)
	}
}

func outcomes(events []*call.Event) map[string]string {
	out := map[string]string{}
	for _, e := range events {
		if e.Type == call.CallRecord {
			out[e.CallID] = fmt.Sprint(e.InteractionID, e.Call.Outcome == call.Answered, e.Call.MergedInto)
		}
	}
	return out
}
