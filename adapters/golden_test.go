package adapters_test

import (
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/adapters/esl"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const traces = "adaptertest/traces"

// collector is the smallest host: it feeds a tracker with what an adapter emits.
type collector struct {
	sw     call.SwitchRef
	t      *call.Tracker
	last   call.Time
	events []*call.Event
	dead   []core.DeadLetter
	frames int
}

func newCollector(id string) *collector {
	return &collector{sw: call.SwitchRef{ID: id}, t: call.NewTracker(call.Options{})}
}

func (c *collector) Up(i core.Instance) error {
	c.sw.Kind, c.sw.Instance = i.Kind, i.ID
	return nil
}

func (c *collector) Frame(f core.Frame) error {
	c.frames++
	c.last = max(c.last, f.Received)
	c.events = append(c.events, c.t.Tick(f.Received)...)
	for _, o := range f.Observations {
		c.events = append(c.events, c.t.Apply(c.sw, o)...)
	}
	return nil
}

func (c *collector) DeadLetter(d core.DeadLetter) error { c.dead = append(c.dead, d); return nil }
func (c *collector) Clock(core.ClockSample) error       { return nil }
func (c *collector) Gap(string, call.Time) error        { return nil }
func (c *collector) Missing([]string) error             { return nil }
func (c *collector) Count(string, int)                  {}

// finish lets the time pass that waiting calls wait for.
func (c *collector) finish() { c.events = append(c.events, c.t.Tick(c.last+call.Second)...) }

// play replays a trace folder as the switch it is of.
func play(t testing.TB, kind, dir string) *collector {
	t.Helper()
	c := newCollector("golden")
	var err error
	if kind == "asterisk" {
		err = ari.Replay(dir, ari.ReplayOptions{}, c)
	} else {
		err = esl.Replay(dir, esl.ReplayOptions{}, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.finish()
	return c
}

func readTruth(t testing.TB) map[string]adaptertest.Scenario {
	t.Helper()
	truth, err := adaptertest.ReadTruth(filepath.Join(traces, "truth.json"))
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

// folders lists the recordings: every folder below a switch's, so that a new one needs no code.
func folders(t testing.TB) (out []struct{ kind, name, dir string }) {
	t.Helper()
	for _, pat := range []string{"asterisk", "freeswitch", "freeswitch-plain"} {
		dirs, err := filepath.Glob(filepath.Join(traces, pat, "*"))
		if err != nil || len(dirs) == 0 {
			t.Fatalf("no recordings in %s: %v", pat, err)
		}
		for _, d := range dirs {
			kind := pat
			if pat == "freeswitch-plain" {
				kind = "freeswitch"
			}
			out = append(out, struct{ kind, name, dir string }{kind, filepath.Base(d), d})
		}
	}
	return out
}
