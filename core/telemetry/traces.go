package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/ctigate/ctigate/core/call"
)

// Call exports the trace of an ended call from its record: a span for the call and, inside it, one for each leg's
// ringing and talking and one for the queue. It does nothing when no traces are exported. It never blocks.
func (t *T) Call(c *call.Call) {
	if t == nil || t.tracer == nil || c == nil || c.StartedAt.IsZero() || c.EndedAt < c.StartedAt {
		return
	}
	ids := &spanIDs{trace: call.TraceID(c.InteractionID)}
	ctx := context.WithValue(context.Background(), idKey{}, ids)
	ids.span = call.SpanID(c.ID, "")
	ctx, root := t.tracer.Start(ctx, "call", trace.WithTimestamp(c.StartedAt.Std()),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(callAttributes(c)...))
	if c.Outcome == call.Failed {
		root.SetStatus(codes.Error, string(c.Outcome))
	}
	if q := c.Queue; q != nil {
		t.part(ctx, c, ids, "queue", "", q.EnteredAt, q.LeftAt, attribute.String("queue.id", q.ID))
	}
	for _, leg := range c.Connections {
		t.leg(ctx, c, ids, leg)
	}
	root.End(trace.WithTimestamp(c.EndedAt.Std()))
}

func (t *T) leg(ctx context.Context, c *call.Call, ids *spanIDs, leg *call.Connection) {
	attrs := []attribute.KeyValue{attribute.String("cti.party.id", leg.Party.ID), attribute.String("cti.party.role", string(leg.Party.Role))}
	if m := leg.Media; m != nil && m.Codec != "" {
		attrs = append(attrs, attribute.String("audio.codec", m.Codec), attribute.Int("audio.sample_rate", m.SampleRate))
	}
	rung := leg.ConnectedAt
	if rung.IsZero() {
		rung = leg.ClearedAt
	}
	t.part(ctx, c, ids, "ring", leg.ID, leg.AlertingAt, rung, attrs...)
	t.part(ctx, c, ids, "talk", leg.ID, leg.ConnectedAt, leg.ClearedAt, attrs...)
}

// part makes one child span, unless one of its ends is not known.
func (t *T) part(ctx context.Context, c *call.Call, ids *spanIDs, name, of string, from, to call.Time, attrs ...attribute.KeyValue) {
	if from.IsZero() || to < from {
		return
	}
	ids.span = call.SpanID(c.ID, name+"/"+of)
	_, s := t.tracer.Start(ctx, name, trace.WithTimestamp(from.Std()), trace.WithAttributes(attrs...))
	s.End(trace.WithTimestamp(to.Std()))
}

func callAttributes(c *call.Call) []attribute.KeyValue {
	var attrs []attribute.KeyValue
	add := func(key, v string) {
		if v != "" {
			attrs = append(attrs, attribute.String(key, v))
		}
	}
	add("cti.call.id", c.ID)
	add("cti.interaction.id", c.InteractionID)
	add("cti.switch.id", c.Switch.ID)
	add("cti.switch.kind", c.Switch.Kind)
	add("cti.call.direction", string(c.Direction))
	add("cti.call.outcome", string(c.Outcome))
	add("cti.call.hangup_by", c.HangupBy)
	add("ivr.path", c.IVRPath)
	if c.From != nil {
		add("caller.id", c.From.Number)
	}
	if c.Queue != nil {
		add("queue.id", c.Queue.ID)
	}
	return attrs
}

type idKey struct{}

// spanIDs travels in a context to givenIDs: the ids the next span gets.
type spanIDs struct {
	trace trace.TraceID
	span  trace.SpanID
}

// givenIDs hands out the ids found in the context, so that a call has the same trace on every node.
type givenIDs struct{}

func (givenIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	ids, _ := ctx.Value(idKey{}).(*spanIDs)
	if ids == nil {
		return trace.TraceID{}, trace.SpanID{}
	}
	return ids.trace, ids.span
}

func (g givenIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, span := g.NewIDs(ctx)
	return span
}
