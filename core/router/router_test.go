package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/fresh"
)

func TestEventsReachEverySinkInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			must(t, up(out))
			for i := range n {
				must(t, out.Frame(frame(call.LegUpdated, "leg", fmt.Sprintf("%06d", i))))
			}
			<-ctx.Done()
			return nil
		})
		one, two := &memory{}, &memory{}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, QueueLen: 10, SinkQueueLen: 20,
			Sinks: []NamedSink{{Name: "one", Sink: one}, {Name: "two", Sink: two, Streams: []core.Stream{core.StreamEvents}}}})
		synctest.Wait()
		must(t, stop())
		for _, m := range []*memory{one, two} {
			got := m.on(core.StreamEvents)
			if len(got) != n || !slices.IsSortedFunc(got, func(a, b core.Item) int { return strings.Compare(a.Event.ID, b.Event.ID) }) {
				t.Errorf("%d events, want %d in order", len(got), n)
			}
		}
		if len(two.on(core.StreamCalls)) != 0 || len(one.on(core.StreamCalls)) != n {
			t.Error("the stream filter does not hold")
		}
	})
}

func TestReconnectTellsGapBeforeSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a := sessions(
			func(ctx context.Context, out core.Emitter) error {
				must(t, up(out), out.Frame(frame(call.LegCreated, "a", "1")))
				time.Sleep(time.Minute)
				return errors.New("connection reset")
			},
			func(ctx context.Context, out core.Emitter) error { return errors.New("connection refused") },
			func(ctx context.Context, out core.Emitter) error {
				must(t, up(out))
				f := frame(call.SnapshotLeg, "a", "2")
				f.Observations = append(f.Observations, call.Observation{Kind: call.SnapshotEnd})
				must(t, out.Frame(f), out.Gap("queue overrun", 0))
				<-ctx.Done()
				return nil
			})
		m := &memory{}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		time.Sleep(5 * time.Minute)
		must(t, stop())
		want := []call.EventType{call.SourceUp, call.SourceDown, call.SourceUp, call.SourceGap, call.SourceReconciled, call.SourceGap, call.SourceDown}
		got := m.on(core.StreamSources)
		if types := m.types(core.StreamSources); !slices.Equal(types, want) {
			t.Fatalf("got %v, want %v", types, want)
		}
		for i, it := range got {
			if it.Event.Seq != uint64(i+1) || it.Key != "pbx" || it.Event.ID == "" || it.Event.Switch.Instance != "aa:bb" {
				t.Errorf("source event %d: seq %d key %q id %q switch %+v", i, it.Event.Seq, it.Key, it.Event.ID, it.Event.Switch)
			}
		}
		gap := got[3].Event.Source
		if gap.From != call.At(began) || gap.To.Std().Sub(began) < time.Minute || gap.Reason != "connection reset" {
			t.Errorf("gap: %+v", gap)
		}
		if r := got[4].Event.Source; r.Calls != 1 || r.Synthetic != 1 {
			t.Errorf("reconciled: %+v", r)
		}
		if r := got[6].Event.Source.Reason; r != "gateway stopping" {
			t.Errorf("last down: %q", r)
		}
		order := func(typ call.EventType, synthetic bool) int {
			return slices.IndexFunc(m.items, func(i core.Item) bool {
				return i.Event.Type == typ && i.Event.Synthetic == synthetic
			})
		}
		if g, s, r := order(call.SourceGap, false), order(call.CallUpdated, true), order(call.SourceReconciled, false); g > s || s > r {
			t.Errorf("gap at %d, snapshot at %d, reconciled at %d", g, s, r)
		}
	})
}

// Of a link's two connections one went on when the other stood still: what is lost with that one is lost since then.
func TestGapOfOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a := sessions(
			func(ctx context.Context, out core.Emitter) error {
				must(t, up(out))
				time.Sleep(time.Minute)
				must(t, out.Frame(frame(call.LegCreated, "a", "1")))
				time.Sleep(10 * time.Second)
				must(t, out.Gap("AMI lost", call.At(began.Add(50*time.Second))))
				time.Sleep(time.Minute)
				must(t, out.Frame(frame(call.LegAlerting, "a", "2")))
				time.Sleep(10 * time.Second)
				return &core.LossError{Err: errors.New("ARI lost"), Since: call.At(began.Add(110 * time.Second))}
			},
			func(ctx context.Context, out core.Emitter) error {
				must(t, up(out))
				<-ctx.Done()
				return nil
			})
		m := &memory{}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		time.Sleep(5 * time.Minute)
		must(t, stop())
		var from []time.Duration
		for _, i := range m.on(core.StreamSources) {
			if i.Event.Type == call.SourceGap {
				from = append(from, i.Event.Source.From.Std().Sub(began))
			}
		}
		if want := []time.Duration{50 * time.Second, 110 * time.Second}; !slices.Equal(from, want) {
			t.Errorf("gaps from %v, want %v", from, want)
		}
	})
}

func TestBackoffGrowsToItsCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := func(context.Context, core.Emitter) error { return errors.New("refused") }
		a := sessions(refuse, refuse, refuse, refuse, refuse)
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Backoff: Backoff{Min: time.Second, Max: 4 * time.Second}})
		time.Sleep(time.Hour)
		must(t, stop())
		want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second}
		starts := a.starts()
		for i, w := range want {
			if got := starts[i+1].Sub(starts[i]); got != w {
				t.Errorf("pause %d: %s, want %s", i, got, w)
			}
		}
	})
}

func TestPauseIsJittered(t *testing.T) {
	b := Backoff{Min: time.Second, Max: 30 * time.Second}
	for n, want := range map[int][2]time.Duration{0: {time.Second / 10, time.Second}, 3: {800 * time.Millisecond, 8 * time.Second},
		5: {3 * time.Second, 30 * time.Second}, 1000: {3 * time.Second, 30 * time.Second}} {
		if lo, hi := b.pause(n, 0), b.pause(n, 1); lo != want[0] || hi != want[1] {
			t.Errorf("pause %d: %s to %s, want %v", n, lo, hi, want)
		}
	}
}

func TestPermanentErrorIsOneLineAndSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		refuse := func(context.Context, core.Emitter) error { return core.Permanent(errors.New("wrong password")) }
		a := sessions(refuse, refuse, refuse, refuse)
		m := &memory{}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}},
			Log: slog.New(slog.NewTextHandler(&logged, nil))})
		time.Sleep(10 * time.Minute)
		must(t, stop())
		if n := strings.Count(logged.String(), "wrong password"); n != 1 {
			t.Errorf("said %d times:\n%s", n, logged.String())
		}
		if s := a.starts(); s[1].Sub(s[0]) != time.Minute || len(s) != 5 {
			t.Errorf("starts: %v", s)
		}
		if types := m.types(core.StreamSources); len(types) != 1 || types[0] != call.SourceDown {
			t.Errorf("sources: %v", types)
		}
	})
}

func TestPanicOfOneAdapterLeavesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := sessions(func(context.Context, core.Emitter) error { panic("index out of range") })
		good := sessions(func(ctx context.Context, out core.Emitter) error {
			must(t, up(out))
			time.Sleep(time.Minute)
			must(t, out.Frame(frame(call.LegCreated, "a", "1")))
			<-ctx.Done()
			return nil
		})
		m := &memory{}
		_, stop := start(t, Options{Links: []Link{{ID: "bad", Kind: "asterisk", Adapter: bad}, {ID: "good", Kind: "freeswitch", Adapter: good}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		time.Sleep(2 * time.Minute)
		must(t, stop())
		if len(m.on(core.StreamEvents)) != 1 || len(bad.starts()) < 2 {
			t.Errorf("events %d, starts of the bad one %d", len(m.on(core.StreamEvents)), len(bad.starts()))
		}
	})
}

func TestEmitterOfAnEarlierSessionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := make(chan core.Emitter, 1)
		a := sessions(func(_ context.Context, out core.Emitter) error { old <- out; return errors.New("gone") })
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}})
		time.Sleep(time.Minute)
		if err := (<-old).Frame(frame(call.LegCreated, "a", "1")); !errors.Is(err, errSessionOver) {
			t.Errorf("got %v", err)
		}
		if err := stop(); err == nil || !strings.Contains(err.Error(), "1 frames not processed") {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAfterEndAndStaleStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			n := now()
			must(t, up(out), out.Clock(core.ClockSample{Sent: n, Answered: n, Switch: n}))
			old := frame(call.LegCreated, "a", "1")
			old.Observations[0].At -= 60 * call.Second
			must(t, out.Frame(old), out.Frame(frame(call.LegCleared, "a", "2")), out.Frame(frame(call.LegAlerting, "a", "3")))
			<-ctx.Done()
			return nil
		})
		m := &memory{}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}},
			TombstoneAfter: time.Hour})
		time.Sleep(59 * time.Minute)
		if n := len(m.on(core.StreamCalls)); n != 2 {
			t.Errorf("%d items on calls before the tombstone", n)
		}
		time.Sleep(2 * time.Minute)
		must(t, stop())
		for stream, want := range map[core.Stream][]call.EventType{
			core.StreamEvents:  {call.CallUpdated, call.CallEnded},
			core.StreamCalls:   {call.CallUpdated, call.CallEnded, ""},
			core.StreamRecords: {call.CallRecord},
			core.StreamStale:   {call.CallUpdated, call.ConnectionCleared},
		} {
			if got := m.types(stream); !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", stream, got, want)
			}
		}
		calls := m.on(core.StreamCalls)
		if calls[2].Key != calls[0].Key || calls[2].Dead != nil || calls[2].Switch.ID != "pbx" {
			t.Errorf("tombstone: %+v", calls[2])
		}
	})
}

func TestDeadLettersAndRaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			must(t, up(out), out.DeadLetter(core.DeadLetter{Raw: []byte("{"), Reason: "parsing JSON"}), out.Frame(frame(call.LegCreated, "a", "raw")))
			out.Count("unknown_type", 3)
			<-ctx.Done()
			return nil
		})
		m := &memory{}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a, Raw: true}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		synctest.Wait()
		s := r.Status().Links[0]
		if s.DeadLetters != 1 || s.Received != 2 || s.Counters["unknown_type"] != 3 || s.Normalized != 2 {
			t.Errorf("status: %+v", s)
		}
		must(t, stop())
		dead, raw := m.on(core.StreamDeadLetter), m.on(core.StreamRaw)
		if len(dead) != 1 || string(dead[0].Dead.Raw) != "{" || dead[0].Dead.Reason != "parsing JSON" || dead[0].Key != "pbx" || dead[0].Dead.Received == 0 {
			t.Errorf("dead letters: %+v", dead)
		}
		if len(raw) != 1 || string(raw[0].Dead.Raw) != "raw" {
			t.Errorf("raw: %+v", raw)
		}
	})
}

func TestClockEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			must(t, up(out))
			for _, off := range []call.Time{3 * call.Second, 3*call.Second + 10, -call.Second} {
				n := now() + 1
				must(t, out.Clock(core.ClockSample{Sent: n, Answered: n, Switch: n + off}))
			}
			must(t, out.Clock(core.ClockSample{}))
			<-ctx.Done()
			return nil
		})
		m := &memory{}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		synctest.Wait()
		s := r.Status().Links[0]
		if s.OffsetMS == nil || *s.OffsetMS != -1000 || s.Counters["clock_sample_refused"] != 1 {
			t.Errorf("status: %+v", s)
		}
		must(t, stop())
		got := m.on(core.StreamSources)[1:3]
		if got[0].Event.Source.OffsetMS != 3000 || got[0].Event.Source.StepMS != 0 || math.Round(got[1].Event.Source.StepMS) != -4000 {
			t.Errorf("clock events: %+v, %+v", got[0].Event.Source, got[1].Event.Source)
		}
	})
}

type tagger string

func (g tagger) Enrich(e *call.Event) {
	c := *e.Call
	c.Attributes = map[string]string{"tag": string(g)}
	e.Call = &c
}

func TestReloadBetweenFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			n := now()
			must(t, up(out), out.Clock(core.ClockSample{Sent: n, Answered: n, Switch: n}), out.Frame(frame(call.LegCreated, "a", "1")))
			<-goOn
			f := frame(call.LegUpdated, "a", "2")
			f.Observations[0].At -= 2 * call.Second
			must(t, out.Frame(f))
			<-ctx.Done()
			return nil
		})
		m := &memory{}
		var seen []call.EventType
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}},
			Enrichers: []core.Enricher{tagger("old")}, OnEvent: func(e *call.Event) { seen = append(seen, e.Type) }})
		synctest.Wait()
		must(t, r.Apply(t.Context(), Reload{Enrichers: []core.Enricher{tagger("new")},
			Fresh: fresh.New(fresh.Options{Thresholds: fresh.Thresholds{FreshFor: 5 * time.Second}})}))
		calls, err := r.Calls(t.Context())
		if err != nil || len(calls) != 1 {
			t.Errorf("calls: %v, %v", calls, err)
		}
		close(goOn)
		synctest.Wait()
		must(t, stop())
		got := m.on(core.StreamEvents)
		if got[0].Event.Call.Attributes["tag"] != "old" || got[1].Event.Call.Attributes["tag"] != "new" || got[1].Event.Time.Freshness != call.Fresh {
			t.Errorf("got %+v then %+v", got[0].Event, got[1].Event)
		}
		if len(seen) != 5 {
			t.Errorf("OnEvent saw %v", seen)
		}
		if err := r.Apply(t.Context(), Reload{}); err == nil {
			t.Error("Apply after Run succeeded")
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	a, m := sessions(), &memory{}
	for want, o := range map[string]Options{
		"no tracker":           {},
		"links[1] (\"a\")":     {Tracker: newFakeTracker(), Links: []Link{{ID: "a", Kind: "", Adapter: a}, {ID: "a", Kind: "", Adapter: a}}},
		"sinks[0] (\"\")":      {Tracker: newFakeTracker(), Sinks: []NamedSink{{Sink: m}}},
		"when_full: \"maybe\"": {Tracker: newFakeTracker(), Sinks: []NamedSink{{Name: "m", Sink: m, WhenFull: "maybe"}}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

// TestGapAfterAPileBeginsWhereItWasSent: this process stood still for three seconds, and the link was lost meanwhile. What
// had piled up is read at once when it goes on; the gap begins where the pile ended, by the switch's clock, which is an
// hour ahead.
func TestGapAfterAPileBeginsWhereItWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = call.Time(time.Hour / time.Microsecond)
		m := &memory{}
		sent := call.Time(0)
		at := func(leg string, sent call.Time) core.Frame {
			f := frame(call.LegCreated, leg, leg)
			f.Observations[0].At = sent + ahead
			return f
		}
		first := func(_ context.Context, out core.Emitter) error {
			now := call.At(time.Now())
			must(t, up(out), out.Clock(core.ClockSample{Sent: now, Answered: now, Switch: now + ahead}), out.Frame(at("a", now)))
			sent = now + call.Second
			time.Sleep(3 * time.Second)
			must(t, out.Frame(at("b", sent)), out.Frame(core.Frame{Type: "untimed", Received: call.At(time.Now())}))
			return errors.New("connection reset")
		}
		second := func(ctx context.Context, out core.Emitter) error {
			must(t, out.Frame(at("c", call.At(time.Now()))), up(out)) // a frame before Up closes no gap
			<-ctx.Done()
			return nil
		}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: sessions(first, second)}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		time.Sleep(time.Minute)
		must(t, stop())
		var gaps []*call.Source
		for _, i := range m.on(core.StreamSources) {
			if i.Event.Type == call.SourceGap {
				gaps = append(gaps, i.Event.Source)
			}
		}
		if len(gaps) != 1 || gaps[0].From != sent || gaps[0].To <= gaps[0].From {
			t.Errorf("%+v, want one from %s on", gaps, sent)
		}
	})
}

// TestGapOverAClockSetBack: our clock is set back by an hour while a link is up. It is lost some seconds later, or at once,
// and comes back: the gap is told by the clock as it is now.
func TestGapOverAClockSetBack(t *testing.T) {
	for name, still := range map[string]time.Duration{"heard since": 30 * time.Second, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var jump atomic.Int64
				wall := func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
				told := func(leg string) core.Frame {
					f := frame(call.LegCreated, leg, leg)
					f.Received, f.Observations[0].At = call.At(wall()), call.At(wall())-1000
					return f
				}
				var last, again call.Time
				first := func(_ context.Context, out core.Emitter) error {
					must(t, up(out))
					time.Sleep(time.Minute)
					must(t, out.Frame(told("a")))
					jump.Store(int64(-time.Hour))
					last = call.At(wall())
					if still > 0 {
						time.Sleep(still)
						last = call.At(wall())
						must(t, out.Frame(told("b")))
					}
					return errors.New("connection reset")
				}
				second := func(ctx context.Context, out core.Emitter) error {
					again = call.At(wall())
					must(t, up(out))
					<-ctx.Done()
					return nil
				}
				m := &memory{}
				_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: sessions(first, second)}}, Sinks: []NamedSink{{Name: "m", Sink: m}}, Now: wall})
				time.Sleep(5 * time.Minute)
				must(t, stop())
				var gaps []*call.Source
				for _, i := range m.on(core.StreamSources) {
					if i.Event.Type == call.SourceGap {
						gaps = append(gaps, i.Event.Source)
					}
				}
				if len(gaps) != 1 || gaps[0].To != again || gaps[0].From > last || gaps[0].From < last-call.Second {
					t.Fatalf("gaps %+v, want one from %s to %s", gaps, last, again)
				}
			})
		})
	}
}
