package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// reader reads n frames into a queue of its own, stops reading with ctx, and hands over what it has, as adapters do.
func reader(t *testing.T, n int) *adapter {
	return sessions(func(_ context.Context, out core.Emitter) error {
		must(t, up(out))
		for i := range n {
			if err := out.Frame(frame(call.LegUpdated, "leg", fmt.Sprintf("%06d", i))); err != nil {
				out.Count(core.CountDropped, n-i-1)
				return err
			}
		}
		return nil
	})
}

// TestWhatWasReadBeforeTheStopIsDelivered stops while a slow sink has filled every queue.
func TestWhatWasReadBeforeTheStopIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		slow := stuck(open)
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: reader(t, 3000)}}, QueueLen: 200,
			Sinks: []NamedSink{{Name: "slow", Sink: slow, QueueItems: 500}}})
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(open) }) // after the stop
		must(t, stop())
		if n := len(slow.on(core.StreamEvents)); n != 3000 || r.Status().Links[0].Dropped != 0 {
			t.Errorf("%d of 3000 events, dropped %d", n, r.Status().Links[0].Dropped)
		}
	})
}

// TestWhatIsDroppedAtTheStopIsCounted gives the sink no chance: every frame is in one of the numbers.
func TestWhatIsDroppedAtTheStopIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: reader(t, 3000)}}, QueueLen: 200,
			Log:   slog.New(slog.NewTextHandler(&log, nil)),
			Sinks: []NamedSink{{Name: "stuck", Sink: stuck(make(chan struct{})), QueueItems: 500, Streams: []core.Stream{core.StreamEvents}}}})
		synctest.Wait()
		began := time.Now()
		err := stop()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		var took string
		var frames, items int
		if err != nil {
			_, _ = fmt.Sscanf(err.Error(), "drain ended after %s with %d frames not processed and %d items not delivered", &took, &frames, &items)
		}
		if frames+items != 3000 || frames < 1500 {
			t.Errorf("%d frames and %d items of 3000: %v", frames, items, err)
		}
		if l := r.Status().Links[0]; l.Received != 3000 || int(l.Dropped) > frames {
			t.Errorf("status: %+v", l)
		}
		if !strings.Contains(log.String(), fmt.Sprintf("frames=%d", frames)) || strings.Contains(log.String(), "leaving it behind") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestProducerWaitsQuietlyForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looked atomic.Int64
		q := newQueue(100, 1000, func(p *int) int { looked.Add(1); return *p })
		must(t, q.push(t.Context(), 600))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.push(ctx, 600); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("pushed: %v", err)
		}
		if n := looked.Load(); n > 4 {
			t.Errorf("looked for room %d times", n)
		}
	})
}

// TestManyProducersOfBytesAreAllServed has big and small items wait for one another's room.
func TestManyProducersOfBytesAreAllServed(t *testing.T) {
	q := newQueue(8, 1000, func(p *int) int { return *p })
	const producers, each = 6, 500
	errs := make(chan error, producers)
	for p := range producers {
		go func() {
			for i := range each {
				if err := q.push(t.Context(), []int{1, 400, 999}[(p+i)%3]); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	late := time.After(20 * time.Second)
	for n := 0; n < producers*each; {
		select {
		case <-q.readable:
		case <-late:
			t.Fatalf("%d of %d came through", n, producers*each)
		}
		got, _ := q.take(nil, 2, 1<<20)
		n += len(got)
	}
	for range producers {
		must(t, <-errs)
	}
}

// timed notes the tracker's time.
type timed struct {
	*tracker
	now atomic.Int64
}

func (k *timed) Tick(n call.Time) []*call.Event { k.now.Store(int64(n)); return k.tracker.Tick(n) }

func TestTimeGoesOnWhenOurClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jump atomic.Int64
		var log bytes.Buffer
		k := &timed{tracker: newFakeTracker()}
		_, stop := start(t, Options{Tracker: k, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Now: func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }})
		passed := func(d time.Duration) time.Duration {
			a := k.now.Load()
			time.Sleep(d)
			return time.Duration(k.now.Load()-a) * time.Microsecond
		}
		time.Sleep(time.Minute)
		jump.Store(int64(-time.Hour))
		if d := passed(time.Minute); d < 59*time.Second || d > time.Minute {
			t.Errorf("in a minute after the step %s passed", d)
		}
		if n := strings.Count(log.String(), "clock is behind"); n != 1 || !strings.Contains(log.String(), "by=1h0m0s") {
			t.Errorf("log: %s", log.String())
		}
		jump.Store(0)
		if d := passed(time.Minute); d < 59*time.Second || d > time.Minute+time.Second {
			t.Errorf("in a minute after the correction %s passed", d)
		}
		if ahead := time.Until(time.UnixMicro(k.now.Load())); ahead > time.Second {
			t.Errorf("still %s ahead", ahead)
		}
		must(t, stop())
	})
}

// TestLateDropsAreTold stops within the pause that a note about drops waits for.
func TestLateDropsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var log bytes.Buffer
		quick, open := &memory{}, make(chan struct{})
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 500, &sent)}},
			Log:   slog.New(slog.NewTextHandler(&log, nil)),
			Sinks: []NamedSink{{Name: "slow", Sink: stuck(open), QueueItems: 100, BatchItems: 10, WhenFull: Drop}, {Name: "quick", Sink: quick}}})
		synctest.Wait()
		dropped := r.Status().Sinks[0].Dropped // the first batch may have been taken or not
		close(open)
		if err := stop(); err == nil || dropped < 800 {
			t.Errorf("%d dropped, and Run says %v", dropped, err)
		}
		var told bool
		for _, i := range quick.on(core.StreamSources) {
			told = told || i.Event.Type == call.SourceGap && strings.Contains(i.Event.Source.Reason, `sink "slow": `)
		}
		if !told {
			t.Errorf("no source.gap: %v", quick.types(core.StreamSources))
		}
		if want := fmt.Sprintf("slow.dropped=%d ", r.Status().Sinks[0].Dropped); !strings.Contains(log.String(), want) {
			t.Errorf("log: %s", log.String())
		}
	})
}

// TestRefusedItemsThatAreLostAreTold has a sink without dead letters refuse every event.
func TestRefusedItemsThatAreLostAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var log bytes.Buffer
		m := &memory{write: func(_ context.Context, batch []core.Item) error {
			be := &core.BatchError{Failed: map[int]error{}}
			for i := range batch {
				be.Failed[i] = core.Permanent(errors.New("too large"))
			}
			return be
		}}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 1000, &sent)}},
			Log:   slog.New(slog.NewTextHandler(&log, nil)),
			Sinks: []NamedSink{{Name: "m", Sink: m, BatchItems: 10, Streams: []core.Stream{core.StreamEvents}}}})
		time.Sleep(time.Second)
		if s := r.Status().Sinks[0]; s.DeadLetters != 1000 {
			t.Errorf("status: %+v", s)
		}
		if err := stop(); err == nil || !strings.Contains(err.Error(), "1000 items not delivered") {
			t.Errorf("Run: %v", err)
		}
		told, lines := 0, regexp.MustCompile(`refuses items for good" sink=m items=(\d+)`).FindAllStringSubmatch(log.String(), -1)
		for _, l := range lines {
			n, _ := strconv.Atoi(l[1])
			told += n
		}
		if told != 1000 || len(lines) != 2 || !strings.Contains(log.String(), "m.refused=1000") {
			t.Errorf("%d told in %d lines: %s", told, len(lines), log.String())
		}
	})
}

// TestFullByBytesStaysFull looks at readiness while a queue is short and yet has no room.
func TestFullByBytesStaysFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &memory{write: func(context.Context, []core.Item) error { time.Sleep(time.Second); return nil }}
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			must(t, up(out))
			for ctx.Err() == nil {
				must(t, out.DeadLetter(core.DeadLetter{Raw: make([]byte, 1000), Reason: "big"}))
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}},
			Sinks: []NamedSink{{Name: "slow", Sink: slow, QueueBytes: 10_000, BatchItems: 1, WhenFull: Drop}}})
		time.Sleep(time.Minute)
		for range 100 {
			if s := r.Status(); !s.Sinks[0].Full || s.Ready {
				t.Fatalf("not full any more: %+v", s.Sinks[0])
			}
			time.Sleep(73 * time.Millisecond)
		}
		_ = stop() // it has dropped
	})
}

func TestASessionCorrectsWhatItCannotSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan struct{})
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			must(t, up(out))
			for _, m := range [][]string{{"queue events"}, nil} {
				<-next
				must(t, out.Missing(m))
			}
			<-ctx.Done()
			return nil
		})
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}})
		for _, want := range [][]string{nil, {"queue events"}, nil} {
			synctest.Wait()
			if got := r.Status().Links[0].Missing; !slices.Equal(got, want) {
				t.Errorf("missing %q, want %q", got, want)
			}
			select {
			case next <- struct{}{}:
			default:
			}
		}
		must(t, stop())
	})
}
