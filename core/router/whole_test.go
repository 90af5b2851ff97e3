package router

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/telemetry"
)

// TestBlindIntervalWithTheRealTracker loses the link in the middle of two calls. One ends unseen, the other goes on
// and ends after the snapshot: each has one call.ended, last, and a record that owns up to the gap.
func TestBlindIntervalWithTheRealTracker(t *testing.T) {
	tel, err := telemetry.New(t.Context(), telemetry.Options{})
	must(t, err)
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: blindAdapter(t)}}, Sinks: []NamedSink{{Name: "m", Sink: m}},
			Tracker: call.NewTracker(call.Options{}), Telemetry: tel})
		time.Sleep(10 * time.Minute)
		if n := r.Status().ActiveCalls; n != 0 {
			t.Errorf("%d calls are still active", n)
		}
		must(t, stop())
		last := map[string]call.EventType{}
		ends := 0
		for _, i := range m.on(core.StreamEvents) {
			if i.Event.Seq == 0 || i.Key != i.Event.InteractionID {
				t.Errorf("event without place: %+v", i)
			}
			if i.Event.Type == call.CallEnded {
				ends++
			}
			last[i.Event.CallID] = i.Event.Type
		}
		for id, typ := range last {
			if typ != call.CallEnded {
				t.Errorf("call %s ends with %s", id, typ)
			}
		}
		records := m.on(core.StreamRecords)
		if len(last) != 2 || ends != 2 || len(records) != 2 {
			t.Fatalf("%d calls, %d ends, %d records", len(last), ends, len(records))
		}
		for _, rec := range records {
			if c := rec.Event.Call.Completeness; c == nil || c.Gaps != 1 {
				t.Errorf("the record hides the gap: %+v", c)
			}
		}
	})
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`cti_link_sessions_total{kind="asterisk",link="pbx"} 2`, `cti_link_up{kind="asterisk",link="pbx"} 0`, `cti_sink_queue_depth{sink="m"} 0`} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	must(t, tel.Shutdown(t.Context()))
}

// blindAdapter sees two answered calls, loses the link, finds one of them in the snapshot, and sees it end.
func blindAdapter(t *testing.T) *adapter {
	leg := func(kind call.Kind, leg, link string, o call.Observation) core.Frame {
		f := frame(kind, leg, leg+link+time.Now().String())
		o.Kind, o.Leg, o.Link, o.At, o.Received = kind, leg, link, f.Received, f.Received
		o.Native = call.Native{Type: "test", ID: f.Observations[0].Native.ID + string(rune('a'+kind))}
		f.Observations[0] = o
		return f
	}
	first := func(_ context.Context, out core.Emitter) error {
		must(t, up(out), out.Frame(core.Frame{Type: "snapshot", Observations: []call.Observation{{Kind: call.SnapshotEnd}}}))
		for _, c := range []string{"a", "b"} {
			must(t, out.Frame(leg(call.LegCreated, c, c, call.Observation{Inbound: true, Number: "100", Dialed: "200"})),
				out.Frame(leg(call.LegCreated, c+"2", c, call.Observation{Parent: c, User: "agent1"})),
				out.Frame(leg(call.LegConnected, c+"2", c, call.Observation{})), out.Frame(leg(call.LegConnected, c, c, call.Observation{})))
		}
		time.Sleep(time.Minute)
		return errors.New("connection reset")
	}
	second := func(ctx context.Context, out core.Emitter) error {
		must(t, up(out), out.Frame(leg(call.SnapshotLeg, "a", "a", call.Observation{Inbound: true, Value: "connected"})),
			out.Frame(leg(call.SnapshotLeg, "a2", "a", call.Observation{Parent: "a", User: "agent1", Value: "connected"})),
			out.Frame(core.Frame{Type: "snapshot", Observations: []call.Observation{{Kind: call.SnapshotEnd}}}))
		time.Sleep(time.Minute)
		must(t, out.Frame(leg(call.LegCleared, "a2", "a", call.Observation{Q850: 16})), out.Frame(leg(call.LegCleared, "a", "a", call.Observation{Q850: 16})))
		<-ctx.Done()
		return nil
	}
	return sessions(first, second)
}
