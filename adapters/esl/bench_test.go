package esl

import (
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/trace"
)

type benchFrame struct {
	raw      []byte
	received call.Time
}

// recorded reads every recorded event of the switch, as bytes.
func recorded(t testing.TB) (out []benchFrame) {
	dirs, _ := filepath.Glob("../adaptertest/traces/freeswitch/*")
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
			if l.Head["Content-Type"] == "text/event-json" {
				out = append(out, benchFrame{raw: l.Body, received: l.Received})
			}
		}
		r.Close()
	}
	if len(out) == 0 {
		t.Fatal("no recordings")
	}
	return out
}

// BenchmarkEvents measures native event to canonical events, on every recorded event of the switch: decoding,
// normalizing and tracking. The time an operation takes is an event's.
func BenchmarkEvents(b *testing.B) {
	frames := recorded(b)
	size, canonical := 0, 0
	for _, f := range frames {
		size += len(f.raw)
	}
	b.SetBytes(int64(size / len(frames)))
	b.ReportAllocs()
	var n *normalizer
	var t *call.Tracker
	for i := 0; b.Loop(); i++ {
		if i%len(frames) == 0 {
			n, t = newNormalizer(options{}, func(string, int) {}), call.NewTracker(call.Options{})
		}
		f := frames[i%len(frames)]
		out, err := n.event(f.raw, true, f.received)
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range out.Observations {
			canonical += len(t.Apply(call.SwitchRef{ID: "bench"}, o))
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(canonical)/float64(b.N), "canonical/event")
}
