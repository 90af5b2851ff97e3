package router

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/enrich"
	"github.com/ctigate/ctigate/core/telemetry"
)

// none is a tracker that makes nothing: what is left is the way through the router.
type none struct{}

func (none) Apply(call.SwitchRef, call.Observation) []*call.Event { return nil }
func (none) Tick(call.Time) []*call.Event                         { return nil }
func (none) Active() int                                          { return 0 }
func (none) Adopt(*call.Call, uint64, call.Time) bool             { return false }
func (none) AppendState(b []byte) []byte                          { return b }
func (none) Calls() []*call.Call                                  { return nil }

// sinkhole counts.
type sinkhole struct{ items atomic.Int64 }

func (s *sinkhole) Write(_ context.Context, batch []core.Item) error {
	s.items.Add(int64(len(batch)))
	return nil
}
func (s *sinkhole) Close(context.Context) error { return nil }

// script is the frames of one answered call: six of them say something and, as on ARI, nine times as many that do not.
func script(n int) []core.Frame {
	caller, agent := fmt.Sprintf("caller-%d", n), fmt.Sprintf("agent-%d", n)
	obs := []call.Observation{
		{Kind: call.LegCreated, Leg: caller, Link: caller, Inbound: true, Number: "+14155552671", Dialed: "5000"},
		{Kind: call.LegCreated, Leg: agent, Link: caller, Parent: caller, User: "agent1"},
		{Kind: call.LegAlerting, Leg: agent, Link: caller},
		{Kind: call.LegConnected, Leg: agent, Link: caller},
		{Kind: call.LegCleared, Leg: agent, Link: caller, Q850: 16},
		{Kind: call.LegCleared, Leg: caller, Link: caller, Q850: 16},
	}
	raw := make([]byte, 700)
	var frames []core.Frame
	for i, o := range obs {
		o.Native = call.Native{Type: "test", ID: fmt.Sprint(n, "-", i)}
		frames = append(frames, core.Frame{Type: "test", Raw: raw, Observations: []call.Observation{o}})
		for range 9 {
			frames = append(frames, core.Frame{Type: "ChannelVarset", Raw: raw})
		}
	}
	return frames
}

func benchmark(b *testing.B, tr func() Tracker, withRest bool) {
	const calls = 500
	var frames []core.Frame
	for n := range calls {
		frames = append(frames, script(n)...)
	}
	o := Options{Log: quiet()}
	if withRest {
		tel, err := telemetry.New(b.Context(), telemetry.Options{})
		if err != nil {
			b.Fatal(err)
		}
		o.Telemetry = tel
		if o.Enrichers, err = enrich.New(enrich.Options{DefaultRegion: "US", Numbers: []enrich.Number{{Dialed: "5000", Tenant: "acme"}}}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	var items int64
	n := 0
	for b.Loop() {
		o.Tracker = tr()
		items += runThrough(b, o, frames)
		n += len(frames)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "frames/s")
	b.ReportMetric(float64(items)/b.Elapsed().Seconds(), "items/s")
}

// runThrough starts a router, sends frames through it, and stops it.
func runThrough(b *testing.B, o Options, frames []core.Frame) int64 {
	sent := make(chan struct{})
	a := sessions(func(ctx context.Context, out core.Emitter) error {
		defer close(sent)
		at := call.At(time.Now())
		for i := range frames {
			f := frames[i]
			f.Received = at + call.Time(i)*call.Millisecond/100
			for j := range f.Observations {
				f.Observations[j].At, f.Observations[j].Received = f.Received, f.Received
			}
			if err := out.Frame(f); err != nil {
				return err
			}
		}
		return nil
	})
	hole := &sinkhole{}
	o.Links, o.Sinks = []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, []NamedSink{{Name: "hole", Sink: hole}}
	r, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	go func() { <-sent; cancel() }()
	if err := r.Run(ctx); err != nil {
		b.Fatal(err)
	}
	return hole.items.Load()
}

func BenchmarkQueueAlone(b *testing.B) { benchmark(b, func() Tracker { return none{} }, false) }

func BenchmarkWholeWay(b *testing.B) {
	benchmark(b, func() Tracker { return call.NewTracker(call.Options{}) }, true)
}
