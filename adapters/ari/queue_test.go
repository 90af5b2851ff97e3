package ari

import (
	"context"
	"sync"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

func TestQueueKeepsOrderOfEachPusher(t *testing.T) {
	const pushers, each = 4, 2000
	q := newQueue(8, func() {})
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			for i := range each {
				if err := q.push(t.Context(), inbound{reason: string(rune('a' + p)), received: call.Time(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := map[string]call.Time{}
	for n := 0; n < pushers*each; {
		in, ok := q.pop()
		if !ok {
			<-q.ready
			continue
		}
		if in.received != next[in.reason] {
			t.Fatalf("%s: %d, want %d", in.reason, in.received, next[in.reason])
		}
		next[in.reason]++
		n++
	}
	wg.Wait()
	if n, highest := q.depth(); n != 0 || highest > 8 {
		t.Errorf("%d left, highest %d", n, highest)
	}
}

func TestQueueKeepsWhatWasReadWhenTheSessionEnds(t *testing.T) {
	q := newQueue(3, func() {})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 2 { // so that the ring's start is inside
		must(t, q.push(t.Context(), inbound{received: -1}))
		if _, ok := q.pop(); !ok {
			t.Fatal(i)
		}
	}
	for i := range 50 {
		must(t, q.push(over, inbound{received: call.Time(i)}))
	}
	for i := range 50 {
		if in, ok := q.pop(); !ok || in.received != call.Time(i) {
			t.Fatalf("%d: %v, %v", i, in.received, ok)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	full := 0
	q := newQueue(1000, func() { full++ })
	half := inbound{raw: make([]byte, maxQueuedBytes/2)}
	for range 2 {
		if err := q.push(t.Context(), half); err != nil {
			t.Fatal(err)
		}
	}
	if q.tryPush(half) {
		t.Error("bytes are not bounded")
	}
	// What was read when the session ended is kept all the same.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.push(ctx, half); err != nil || full != 1 {
		t.Errorf("%v, told %d times", err, full)
	}
	q.pop()
	q.pop()
	if err := q.push(t.Context(), half); err != nil {
		t.Error(err)
	}
	q.pop()
	q.pop()
	if err := q.push(t.Context(), inbound{raw: make([]byte, maxQueuedBytes+1)}); err != nil {
		t.Errorf("one frame alone is admitted whatever its size: %v", err)
	}
}

// What waits for later frames does not give up while these are read and not handled, nor when the process stood still.
func TestTimePassesWithTheFrames(t *testing.T) {
	s := &session{queue: newQueue(10, func() {})}
	const at = 1000 * call.Second
	passed := func(now, want call.Time) {
		t.Helper()
		if got := s.passed(now); got != want {
			t.Errorf("at %v: %v, want %v", now-at, got-at, want-at)
		}
	}
	passed(at, at)
	passed(at+20*call.Millisecond, at+20*call.Millisecond)
	must(t, s.queue.push(t.Context(), inbound{received: at + 25*call.Millisecond}))
	passed(at+40*call.Millisecond, at+25*call.Millisecond)
	s.queue.pop()
	passed(at+60*call.Millisecond, at+60*call.Millisecond)
	passed(at+2*call.Second, at+60*call.Millisecond)
	passed(at+2020*call.Millisecond, at+2020*call.Millisecond)
}

// A caller leaves a queue, and our clock is set back by an hour: why is told in time all the same.
func TestPassedAcrossAClockSetBack(t *testing.T) {
	for by, want := range map[call.Time]bool{0: false, waitForARI / 2: false, waitForARI: true, -3600 * call.Second: true} {
		from := 1_800_000_000 * call.Second
		if got := passed(waitForARI, from, from+by); got != want {
			t.Errorf("%v later: passed is %v", by, got)
		}
	}
}
