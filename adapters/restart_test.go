package adapters_test

import (
	"reflect"
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
