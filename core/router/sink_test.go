package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// talker comes up and sends n frames as fast as it may, then waits.
func talker(t *testing.T, n int, sent *atomic.Int64) *adapter {
	return sessions(func(ctx context.Context, out core.Emitter) error {
		must(t, up(out))
		for i := range n {
			if out.Frame(frame(call.LegUpdated, fmt.Sprint("leg", i%7), fmt.Sprintf("%06d", i))) != nil {
				return nil
			}
			sent.Add(1)
		}
		<-ctx.Done()
		return nil
	})
}

// stuck blocks every write until open is closed or the write's context ends.
func stuck(open chan struct{}) *memory {
	return &memory{write: func(ctx context.Context, _ []core.Item) error {
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

func TestSlowSinkDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		open := make(chan struct{})
		slow, quick := stuck(open), &memory{}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 1000, &sent)}},
			Sinks: []NamedSink{{Name: "slow", Sink: slow}, {Name: "quick", Sink: quick}}})
		synctest.Wait()
		if n := len(quick.on(core.StreamEvents)); n != 1000 {
			t.Errorf("the quick sink got %d events while the slow one waits", n)
		}
		if s := r.Status(); s.Sinks[0].Queue != 2001 || s.Sinks[1].Queue != 0 {
			t.Errorf("status: %+v", s.Sinks)
		}
		close(open)
		synctest.Wait()
		must(t, stop())
		if n := len(slow.on(core.StreamEvents)); n != 1000 {
			t.Errorf("the slow sink got %d", n)
		}
	})
}

func TestFullSinkBlocksTheLinksAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		open := make(chan struct{})
		slow := stuck(open)
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 5000, &sent)}}, QueueLen: 50,
			Sinks: []NamedSink{{Name: "slow", Sink: slow, QueueItems: 100, BatchItems: 10}}})
		synctest.Wait()
		if n := sent.Load(); n > 1000 {
			t.Errorf("%d frames went in although nothing comes out", n)
		}
		if s := r.Status(); s.Ready || !s.Sinks[0].Full || !s.Links[0].Up || s.Queue != 50 {
			t.Errorf("status: %+v", s)
		}
		close(open)
		synctest.Wait()
		if s := r.Status(); !s.Ready || s.Sinks[0].Full || s.Sinks[0].Dropped != 0 || s.Sinks[0].Acked != 10_001 {
			t.Errorf("status after: %+v", s)
		}
		must(t, stop())
		if n := len(slow.on(core.StreamEvents)); n != 5000 {
			t.Errorf("%d events arrived", n)
		}
	})
}

func TestFullSinkDropsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		open := make(chan struct{})
		slow, quick := stuck(open), &memory{}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 5000, &sent)}},
			Sinks: []NamedSink{{Name: "slow", Sink: slow, QueueItems: 100, BatchItems: 10, WhenFull: Drop}, {Name: "quick", Sink: quick}}})
		synctest.Wait()
		s := r.Status()
		dropped := s.Sinks[0].Dropped // all but the full queue and the first batch, which may be a short one
		if s.Ready || !s.Sinks[0].Full || dropped < 10_001-110 || dropped > 10_001-101 {
			t.Errorf("status: %+v", s.Sinks[0])
		}
		if n := len(quick.on(core.StreamEvents)); n != 5000 {
			t.Errorf("the quick sink got %d events", n)
		}
		close(open)
		time.Sleep(time.Minute)
		if s := r.Status(); !s.Ready || s.Sinks[0].Full {
			t.Errorf("status after: %+v", s.Sinks[0])
		}
		if err := stop(); err == nil || !strings.Contains(err.Error(), fmt.Sprint(dropped, " items not delivered")) {
			t.Errorf("Run: %v", err)
		}
		var said []string
		for _, m := range []*memory{slow, quick} {
			for _, i := range m.on(core.StreamSources) {
				if i.Event.Type == call.SourceGap {
					said = append(said, i.Event.Source.Reason)
				}
			}
		}
		if want := fmt.Sprintf(`sink "slow": %d items dropped, its queue was full`, dropped); len(said) != 2 || said[0] != want || said[1] != want {
			t.Errorf("gaps: %q", said)
		}
	})
}

func TestFailedItemsAreRetriedBeforeLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		failures := 0
		m := &memory{write: func(_ context.Context, batch []core.Item) error {
			be := &core.BatchError{Failed: map[int]error{}}
			for i, it := range batch {
				if it.Event == nil {
					continue
				}
				switch {
				case it.Event.Native.ID == "000500" && it.Stream == core.StreamEvents && failures < 3:
					failures++
					be.Failed[i] = errors.New("leader not available")
				case it.Event.Native.ID == "000501":
					be.Failed[i] = core.Permanent(errors.New("message too large"))
				}
			}
			if len(be.Failed) == 0 {
				return nil
			}
			return be
		}}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 2000, &sent)}}, Sinks: []NamedSink{{Name: "m", Sink: m, BatchItems: 100}}})
		time.Sleep(time.Minute)
		s := r.Status().Sinks[0]
		if s.Retried < 3 || s.DeadLetters != 2 || s.FailingSince != 0 || s.LastError != "" {
			t.Errorf("status: %+v", s)
		}
		must(t, stop())
		events := m.on(core.StreamEvents)
		at := -1
		for i, it := range events {
			if it.Event.Native.ID == "000500" {
				at = i
			}
		}
		// It comes behind the rest of its own batch, never behind a later batch.
		if at < 500 || at > 550 || len(events) != 1999 {
			t.Errorf("the failed item came at %d of %d", at, len(events))
		}
		dead := m.on(core.StreamDeadLetter)
		if len(dead) != 2 || !strings.Contains(dead[0].Dead.Reason, "message too large") || !strings.Contains(string(dead[0].Dead.Raw), "000501") {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

func TestFailingSinkIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var broken atomic.Bool
		broken.Store(true)
		m := &memory{write: func(context.Context, []core.Item) error {
			if broken.Load() {
				return errors.New("no broker")
			}
			return nil
		}}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 10, &sent)}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		time.Sleep(10 * time.Minute)
		ok, detail := r.Ready()
		if s := detail.(Status); ok || s.Sinks[0].LastError != "no broker" || s.Sinks[0].FailingSince == 0 {
			t.Errorf("ready %v: %+v", ok, detail)
		}
		if n := m.attempts(); n < 50 || n > 100 {
			t.Errorf("%d attempts in ten minutes at a cap of 10 s", n)
		}
		broken.Store(false)
		time.Sleep(time.Minute)
		if ok, detail := r.Ready(); !ok {
			t.Errorf("not ready: %+v", detail)
		}
		must(t, stop())
	})
}

// TestDrainTriesAgainAtOnce: a stop during the long pause after a refusal offers the items once more, since the fault
// may be mended by then.
func TestDrainTriesAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var mended atomic.Bool
		m := &memory{write: func(context.Context, []core.Item) error {
			if mended.Load() {
				return nil
			}
			return core.Permanent(errors.New("the password is refused"))
		}}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 10, &sent)}},
			Sinks: []NamedSink{{Name: "m", Sink: m}}, DrainTimeout: 5 * time.Second})
		time.Sleep(10 * time.Second) // into the pause of 30 s
		mended.Store(true)
		must(t, stop())
	})
}

// TestHangingWriteIsNotReady: a sink that retries inside one Write tells nothing until it gives up; readiness does.
func TestHangingWriteIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		m := &memory{write: func(ctx context.Context, _ []core.Item) error {
			select {
			case <-time.After(20 * time.Second):
			case <-ctx.Done():
			}
			return nil
		}}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 10, &sent)}},
			Sinks: []NamedSink{{Name: "m", Sink: m}}, DrainTimeout: time.Minute})
		time.Sleep(2 * time.Second)
		if s := r.Status(); s.Sinks[0].FailingSince != 0 {
			t.Errorf("failing after 2 s: %+v", s.Sinks[0])
		}
		time.Sleep(8 * time.Second)
		if s := r.Status(); s.Ready || s.Sinks[0].FailingSince == 0 {
			t.Errorf("ready with a write that hangs: %+v", s.Sinks[0])
		}
		must(t, stop())
	})
}
