package telemetry

import (
	"context"
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ctigate/ctigate/core/call"
)

// maxNames bounds how many counter names one link may have; what comes after is counted under "other".
const maxNames = 64

// Link holds one switch link's numbers. Its methods are safe for concurrent use, cost an atomic add, and never block.
// They are read when metrics are collected and by the router's status.
type Link struct {
	Received    atomic.Uint64 // native frames taken from the socket
	Normalized  atomic.Uint64 // canonical events made of them
	DeadLetters atomic.Uint64 // frames that could not be understood
	Dropped     atomic.Uint64 // frames that were received and not processed (only when a drain runs out of time)
	Sessions    atomic.Uint64 // sessions that came up
	Up          atomic.Bool

	id, kind string
	verdicts [len(verdictNames)]atomic.Uint64
	offset   atomic.Uint64 // float64 bits, ms
	clocked  atomic.Bool
	mu       sync.Mutex
	counts   map[string]uint64
	latency  metric.Float64Histogram
	attrs    metric.MeasurementOption
}

var verdictNames = [...]call.Freshness{call.Fresh, call.Late, call.Stale, call.Future, call.FreshnessUnknown}

// Count adds n to the counter an adapter named.
func (l *Link) Count(name string, n int) {
	if n <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.counts[name]; !ok && len(l.counts) >= maxNames {
		name = "other"
	}
	l.counts[name] += uint64(n)
}

// Counts returns a copy of the adapter's counters.
func (l *Link) Counts() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := make(map[string]uint64, len(l.counts))
	for k, v := range l.counts {
		m[k] = v
	}
	return m
}

// Verdict counts one event's freshness.
func (l *Link) Verdict(f call.Freshness) {
	for i, v := range verdictNames {
		if v == f {
			l.verdicts[i].Add(1)
			return
		}
	}
}

// SetOffset records the measured clock offset, in milliseconds, switch minus ours.
func (l *Link) SetOffset(ms float64) {
	l.offset.Store(math.Float64bits(ms))
	l.clocked.Store(true)
}

// ToTracker records how long a frame took from the socket to the tracker.
func (l *Link) ToTracker(d time.Duration) {
	if l.latency != nil {
		l.latency.Record(context.Background(), d.Seconds(), l.attrs)
	}
}

// Sink holds one sink's numbers, with the same contract as Link.
type Sink struct {
	Produced     atomic.Uint64 // items handed to the sink's queue
	Acked        atomic.Uint64 // items the sink accepted
	Retried      atomic.Uint64 // items offered again after a failure
	Dropped      atomic.Uint64 // items given up: queue full under when_full: drop, or a drain that ran out of time
	DeadLettered atomic.Uint64 // items the sink will never accept
	Failing      atomic.Bool   // the last write failed
	Behind       atomic.Int64  // records of the journal that it has not been given yet
	Depth        atomic.Int64  // items queued or being written

	name    string
	latency metric.Float64Histogram
	attrs   metric.MeasurementOption
}

// ToAcked records how long an event took from the socket to the sink's acknowledgement.
func (s *Sink) ToAcked(d time.Duration) {
	if s.latency != nil {
		s.latency.Record(context.Background(), d.Seconds(), s.attrs)
	}
}

// Link returns the numbers of a link, the same for the same id. It works on a nil T, whose numbers nobody collects.
func (t *T) Link(id, kind string) *Link {
	if t == nil {
		return &Link{id: id, kind: kind, counts: map[string]uint64{}}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.links[id]
	if l == nil {
		attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("link", id)))
		l = &Link{id: id, kind: kind, counts: map[string]uint64{}, latency: t.trackerLatency, attrs: attrs}
		t.links[id] = l
	}
	return l
}

// Sink returns the numbers of a sink, the same for the same name. It works on a nil T.
func (t *T) Sink(name string) *Sink {
	if t == nil {
		return &Sink{name: name}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sinks[name]
	if s == nil {
		attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("sink", name)))
		s = &Sink{name: name, latency: t.ackedLatency, attrs: attrs}
		t.sinks[name] = s
	}
	return s
}

// Gauges are read when metrics are collected, from any goroutine. A nil func is not reported.
type Gauges struct {
	ActiveCalls func() int
	QueueDepth  func() int // frames waiting for the tracker
	Journal     func() (bytes int64, failing bool)
	Owner       func() bool // of the links, in a cluster
}

// SetGauges says where the process-wide gauges are read.
func (t *T) SetGauges(g Gauges) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gauges = g
}

func (t *T) snapshot() ([]*Link, []*Sink, Gauges) {
	t.mu.Lock()
	defer t.mu.Unlock()
	links := make([]*Link, 0, len(t.links))
	for _, l := range t.links {
		links = append(links, l)
	}
	sinks := make([]*Sink, 0, len(t.sinks))
	for _, s := range t.sinks {
		sinks = append(sinks, s)
	}
	sort.Slice(links, func(i, j int) bool { return links[i].id < links[j].id })
	sort.Slice(sinks, func(i, j int) bool { return sinks[i].name < sinks[j].name })
	return links, sinks, t.gauges
}
