package adapters_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

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
func (c *collector) Gap(string) error                   { return nil }
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

// interaction is what truth.json says of a caller's whole experience.
type interaction struct {
	Direction    string            `json:"direction"`
	From         string            `json:"from"`
	FromName     string            `json:"from_name"`
	To           string            `json:"to"`
	Outcome      string            `json:"outcome"`
	AnsweredBy   *[]string         `json:"answered_by"`
	Offered      *[]string         `json:"offered"`
	IVRPath      string            `json:"ivr_path"`
	Digits       string            `json:"digits"`
	HangupBy     string            `json:"hangup_by"`
	Q850         int               `json:"q850"`
	Queue        *call.Queue       `json:"queue"`
	Holds        []hold            `json:"holds"`
	Transfers    []call.Transfer   `json:"transfers"`
	Diverted     []call.Diversion  `json:"diverted"`
	CallerCodecs []string          `json:"caller_codecs"`
	Conference   bool              `json:"conference"`
	Participants []string          `json:"participants"`
	Codec        map[string]string `json:"codec"`
	Media        *json.RawMessage  `json:"media"` // packets only
}

type hold struct {
	By      string  `json:"by"`
	Seconds float64 `json:"seconds"`
}

type scenario struct {
	Interactions []interaction `json:"interactions"`
	Count        int           `json:"count"`
	Each         *interaction  `json:"each"`
}

func readTruth(t testing.TB) map[string]scenario {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(traces, "truth.json"))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	delete(raw, "_about")
	out := map[string]scenario{}
	for name, v := range raw {
		var s scenario
		if err := json.Unmarshal(v, &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Each != nil {
			for range s.Count {
				s.Interactions = append(s.Interactions, *s.Each)
			}
		}
		out[name] = s
	}
	return out
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
