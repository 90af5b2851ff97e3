package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// latencyBounds are the histograms' buckets, in seconds: fine around the 50 ms that a screen-pop may take.
var latencyBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .075, .1, .25, .5, 1, 2.5, 5, 10, 30}

// maker creates instruments and remembers what went wrong.
type maker struct {
	meter metric.Meter
	errs  []error
	made  []metric.Observable
}

func (m *maker) counter(name, unit, what string) metric.Int64ObservableCounter {
	c, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.keep(c, err)
	return c
}

func (m *maker) gauge(name, unit, what string) metric.Int64ObservableGauge {
	g, err := m.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.keep(g, err)
	return g
}

func (m *maker) floatGauge(name, unit, what string) metric.Float64ObservableGauge {
	g, err := m.meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.keep(g, err)
	return g
}

func (m *maker) latency(name, what string) metric.Float64Histogram {
	h, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what),
		metric.WithExplicitBucketBoundaries(latencyBounds...))
	m.errs = append(m.errs, err)
	return h
}

func (m *maker) keep(o metric.Observable, err error) {
	m.errs = append(m.errs, err)
	m.made = append(m.made, o)
}

// instruments are what is read from the handles at collection. Labels are link ids, sink names and fixed words:
// never call ids or numbers.
type instruments struct {
	received, normalized, deadLetters, linkDropped, sessions, notes, verdicts metric.Int64ObservableCounter
	produced, acked, retried, sinkDropped, sinkDead                           metric.Int64ObservableCounter
	up, active, queue, depth, failing, behind                                 metric.Int64ObservableGauge
	journalBytes, journalFailing, owner                                       metric.Int64ObservableGauge
	offset                                                                    metric.Float64ObservableGauge
}

func (t *T) instrument(meter metric.Meter) error {
	m := &maker{meter: meter}
	t.trackerLatency = m.latency("cti.latency.tracker", "From the socket to the tracker.")
	t.ackedLatency = m.latency("cti.latency.acked", "From the socket to the sink's acknowledgement.")
	in := &instruments{
		received:    m.counter("cti.link.received", "{frame}", "Native frames received."),
		normalized:  m.counter("cti.link.normalized", "{event}", "Canonical events made."),
		deadLetters: m.counter("cti.link.dead_letters", "{frame}", "Native frames that could not be understood."),
		linkDropped: m.counter("cti.link.dropped", "{frame}", "Frames received and not processed."),
		sessions:    m.counter("cti.link.sessions", "{session}", "Sessions that came up."),
		notes:       m.counter("cti.link.notes", "{note}", "What the adapter counted, by name."),
		verdicts:    m.counter("cti.link.verdicts", "{event}", "Events by freshness."),
		produced:    m.counter("cti.sink.produced", "{item}", "Items handed to the sink's queue."),
		acked:       m.counter("cti.sink.acked", "{item}", "Items the sink accepted."),
		retried:     m.counter("cti.sink.retried", "{item}", "Items offered again after a failure."),
		sinkDropped: m.counter("cti.sink.dropped", "{item}", "Items given up."),
		sinkDead:    m.counter("cti.sink.dead_letters", "{item}", "Items the sink refuses for good."),
		up:          m.gauge("cti.link.up", "", "1 while the link's session is established."),
		active:      m.gauge("cti.calls.active", "{call}", "Calls that have not ended."),
		queue:       m.gauge("cti.queue.depth", "{frame}", "Frames waiting for the tracker."),
		depth:       m.gauge("cti.sink.queue.depth", "{item}", "Items queued or being written."),
		failing:     m.gauge("cti.sink.failing", "", "1 while the sink's last write failed."),
		behind:      m.gauge("cti.sink.behind", "{record}", "Records of the journal that the sink has not been given yet."),

		journalBytes:   m.gauge("cti.journal.bytes", "By", "Size of the journal's folder."),
		journalFailing: m.gauge("cti.journal.failing", "", "1 while the journal cannot be written or is at its bound."),
		owner:          m.gauge("cti.cluster.owner", "", "1 while this node owns the links and may publish."),

		offset: m.floatGauge("cti.clock.offset", "ms", "The switch's clock minus ours."),
	}
	if err := errors.Join(m.errs...); err != nil {
		return fmt.Errorf("making metrics: %w", err)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		t.observe(o, in)
		return nil
	}, m.made...)
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}

func (t *T) observe(o metric.Observer, in *instruments) {
	links, sinks, g := t.snapshot()
	for _, l := range links {
		in.link(o, l)
	}
	for _, s := range sinks {
		in.sink(o, s)
	}
	if g.ActiveCalls != nil {
		o.ObserveInt64(in.active, int64(g.ActiveCalls()))
	}
	if g.QueueDepth != nil {
		o.ObserveInt64(in.queue, int64(g.QueueDepth()))
	}
	if g.Journal != nil {
		bytes, failing := g.Journal()
		o.ObserveInt64(in.journalBytes, bytes)
		o.ObserveInt64(in.journalFailing, oneIf(failing))
	}
	if g.Owner != nil {
		o.ObserveInt64(in.owner, oneIf(g.Owner()))
	}
}

func (in *instruments) link(o metric.Observer, l *Link) {
	id := attribute.String("link", l.id)
	attrs := metric.WithAttributeSet(attribute.NewSet(id, attribute.String("kind", l.kind)))
	o.ObserveInt64(in.received, int64(l.Received.Load()), attrs)
	o.ObserveInt64(in.normalized, int64(l.Normalized.Load()), attrs)
	o.ObserveInt64(in.deadLetters, int64(l.DeadLetters.Load()), attrs)
	o.ObserveInt64(in.linkDropped, int64(l.Dropped.Load()), attrs)
	o.ObserveInt64(in.sessions, int64(l.Sessions.Load()), attrs)
	o.ObserveInt64(in.up, oneIf(l.Up.Load()), attrs)
	if l.clocked.Load() {
		o.ObserveFloat64(in.offset, math.Float64frombits(l.offset.Load()), attrs)
	}
	for name, n := range l.Counts() {
		o.ObserveInt64(in.notes, int64(n), metric.WithAttributes(id, attribute.String("name", name)))
	}
	for i, v := range verdictNames {
		o.ObserveInt64(in.verdicts, int64(l.verdicts[i].Load()), metric.WithAttributes(id, attribute.String("freshness", string(v))))
	}
}

func (in *instruments) sink(o metric.Observer, s *Sink) {
	attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("sink", s.name)))
	o.ObserveInt64(in.produced, int64(s.Produced.Load()), attrs)
	o.ObserveInt64(in.acked, int64(s.Acked.Load()), attrs)
	o.ObserveInt64(in.retried, int64(s.Retried.Load()), attrs)
	o.ObserveInt64(in.sinkDropped, int64(s.Dropped.Load()), attrs)
	o.ObserveInt64(in.sinkDead, int64(s.DeadLettered.Load()), attrs)
	o.ObserveInt64(in.depth, s.Depth.Load(), attrs)
	o.ObserveInt64(in.failing, oneIf(s.Failing.Load()), attrs)
	o.ObserveInt64(in.behind, s.Behind.Load(), attrs)
}

func oneIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
