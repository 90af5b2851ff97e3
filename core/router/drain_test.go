package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// diary notes what happened in which order.
type diary struct {
	mu   sync.Mutex
	said []string
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.said) == 0 || d.said[len(d.said)-1] != s {
		d.said = append(d.said, s)
	}
}

// TestDrainOrder holds a busy gateway's end to its order: adapters stop, the queue goes through the tracker, the sink
// takes all that came in, and is closed last.
func TestDrainOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var accepted atomic.Int64
		a := sessions(func(ctx context.Context, out core.Emitter) error {
			defer d.note("adapter ended")
			must(t, up(out))
			for i := 0; ctx.Err() == nil; i++ {
				if err := out.Frame(frame(call.LegUpdated, "leg", fmt.Sprint(i))); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				accepted.Add(1)
				time.Sleep(time.Millisecond)
			}
			return nil
		})
		m := &memory{onEnd: func() { d.note("sink closed") }}
		m.write = func(_ context.Context, batch []core.Item) error {
			time.Sleep(200 * time.Millisecond) // slower than the adapter: there is a backlog
			if batch[len(batch)-1].Event.Type == call.SourceDown {
				d.note("last item written")
			}
			return nil
		}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m, BatchItems: 200}}})
		time.Sleep(5 * time.Second)
		if q := r.Status().Sinks[0].Queue; q < 1000 {
			t.Fatalf("no backlog to drain: %d", q)
		}
		must(t, stop())
		if n := len(m.on(core.StreamEvents)); int64(n) != accepted.Load() {
			t.Errorf("%d of %d events written", n, accepted.Load())
		}
		if got := strings.Join(d.said, ", "); got != "adapter ended, last item written, sink closed" {
			t.Errorf("order: %s", got)
		}
	})
}

func TestDrainEndsInTimeAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		m := &memory{write: func(context.Context, []core.Item) error { return errors.New("no broker") }}
		r, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: talker(t, 1000, &sent)}}, DrainTimeout: 5 * time.Second,
			QueueLen: 10, Sinks: []NamedSink{{Name: "m", Sink: m, QueueItems: 50}}})
		time.Sleep(time.Minute)
		began := time.Now()
		err := stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		if err == nil || !strings.Contains(err.Error(), "items not delivered") {
			t.Errorf("got %v", err)
		}
		if s := r.Status(); !m.closed || s.Ready || !s.Stopping {
			t.Errorf("closed %v, status %+v", m.closed, s)
		}
	})
}

func TestDrainLeavesStuckPartsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		a := sessions(func(_ context.Context, out core.Emitter) error { must(t, up(out)); <-free; return nil })
		m := &memory{write: func(context.Context, []core.Item) error { <-free; return nil }}
		_, stop := start(t, Options{Links: []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}}, Sinks: []NamedSink{{Name: "m", Sink: m}}})
		synctest.Wait()
		began := time.Now()
		err := stop()
		if took := time.Since(began); took > 10*time.Second || err == nil || !strings.Contains(err.Error(), "not closed") {
			t.Errorf("after %s: %v", took, err)
		}
		if m.closed {
			t.Error("closed while a write was under way")
		}
		close(free)
	})
}

func TestRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := start(t, Options{})
		synctest.Wait()
		if err := r.Run(t.Context()); err == nil {
			t.Error("a second Run was taken")
		}
		must(t, stop())
	})
}

func TestQueueBounds(t *testing.T) {
	q := newQueue(3, 100, func(v *int) int { return *v })
	if n, err := q.offer([]int{500}); n != 1 || err != nil {
		t.Errorf("an item beyond the byte bound must pass alone: %d, %v", n, err)
	}
	if n, _ := q.offer([]int{1}); n != 0 {
		t.Error("bytes are not bounded")
	}
	got, open := q.take(nil, 10, 10)
	if len(got) != 1 || !open {
		t.Errorf("took %v, %v", got, open)
	}
	if n, _ := q.offer([]int{1, 2, 3, 4}); n != 3 {
		t.Errorf("%d fit in three places", n)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.push(ended, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("push into a full queue: %v", err)
	}
	if got, _ = q.take(nil, 10, 3); len(got) != 2 {
		t.Errorf("a batch of 3 bytes: %v", got)
	}
	q.close()
	if err := q.push(t.Context(), 1); !errors.Is(err, errClosed) {
		t.Errorf("push after close: %v", err)
	}
	if got, open = q.take(nil, 10, 10); len(got) != 1 || got[0] != 3 || !open {
		t.Errorf("the rest: %v, %v", got, open)
	}
	if got, open = q.take(nil, 10, 10); len(got) != 0 || open {
		t.Errorf("after the rest: %v, %v", got, open)
	}
}

func TestQueueManyProducersKeepTheirOrder(t *testing.T) {
	q := newQueue(4, 1<<20, func(*[2]int) int { return 1 })
	var wg sync.WaitGroup
	const producers, each = 5, 2000
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				if err := q.push(t.Context(), [2]int{p, i}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { wg.Wait(); q.close() }()
	var next [producers]int
	for open := true; open; {
		<-q.readable
		var got [][2]int
		got, open = q.take(nil, 3, 100)
		for _, g := range got {
			if next[g[0]] != g[1] {
				t.Fatalf("producer %d: got %d, want %d", g[0], g[1], next[g[0]])
			}
			next[g[0]]++
		}
	}
	for p, n := range next {
		if n != each {
			t.Errorf("producer %d: %d of %d", p, n, each)
		}
	}
}

func TestTombstonesAreBounded(t *testing.T) {
	ts := tombstones{max: 100, after: time.Hour}
	id := func(i int) string { return call.NewID("pbx", fmt.Sprint(i)) }
	const start = call.Time(1_790_000_000) * call.Second
	for i := range 150 {
		early, _, full := ts.add(id(i), 0, start+call.Time(i)*call.Second)
		if full != (i >= 100) || full && early != id(i-100) {
			t.Fatalf("call %d: early %q, full %v", i, early, full)
		}
	}
	var got []string
	note := func(c string, _ uint16) { got = append(got, c) }
	ts.due(start+3600*call.Second+49*call.Second, note)
	if len(got) != 0 {
		t.Errorf("too early: %v", got)
	}
	ts.due(start+3600*call.Second+149*call.Second, note)
	if len(got) != 100 || got[0] != id(50) || got[99] != id(149) {
		t.Errorf("%d came due", len(got))
	}
}
