package ari

import (
	"context"
	"errors"
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

func TestQueueIsBoundedInBytes(t *testing.T) {
	full := 0
	q := newQueue(1000, func() { full++ })
	half := inbound{raw: make([]byte, maxQueuedBytes/2)}
	for range 2 {
		if err := q.push(t.Context(), half); err != nil {
			t.Fatal(err)
		}
	}
	gone := errors.New("the session is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if err := q.push(ctx, half); !errors.Is(err, gone) || full != 1 {
		t.Errorf("%v, told %d times", err, full)
	}
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
