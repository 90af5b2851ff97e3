package ari

import (
	"context"
	"slices"
	"sync"

	"github.com/ctigate/ctigate/core/call"
)

// source says where an inbound frame came from.
type source uint8

const (
	fromARI source = iota + 1
	fromAMI
	unreadable // reason says why; straight to the dead letters
)

// inbound is one frame between the socket and the normalizer.
type inbound struct {
	from     source
	raw      []byte
	msg      message // fromAMI
	reason   string  // unreadable
	received call.Time
}

func (in inbound) size() int { return len(in.raw) + len(in.msg.raw) }

// maxQueuedBytes bounds what a full queue holds, whatever the frames' size. One frame is always admitted.
const maxQueuedBytes = 64 << 20

// queue takes frames off the sockets quickly and hands them over in arrival order. It is bounded in frames and in
// bytes; push blocks while it is full. Many may push; one goroutine pops.
type queue struct {
	mu       sync.Mutex
	ring     []inbound
	first, n int
	bytes    int
	highest  int // most frames ever held
	taken    int // popped, and not handled yet

	ready chan struct{} // one token: something may be there to pop
	space chan struct{} // one token: there may be room to push

	full func() // told each time a push finds no room
}

func newQueue(size int, full func()) *queue {
	return &queue{
		ring:  make([]inbound, size),
		ready: make(chan struct{}, 1),
		space: make(chan struct{}, 1),
		full:  full,
	}
}

// push adds in, waiting for room until ctx ends. What was read by then is not thrown away: it goes in beyond the bound.
func (q *queue) push(ctx context.Context, in inbound) error {
	for waited := false; ; waited = true {
		if q.tryPush(in) {
			return nil
		}
		if !waited {
			q.full()
		}
		select {
		case <-q.space:
		case <-ctx.Done():
			q.pushLast(in)
			return nil
		}
	}
}

// pushLast adds in beyond the bounds, when nothing more is read from its socket.
func (q *queue) pushLast(in inbound) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == len(q.ring) {
		q.ring = slices.Concat(q.ring[q.first:], q.ring[:q.first], make([]inbound, 16))
		q.first = 0
	}
	q.add(in)
}

func (q *queue) tryPush(in inbound) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n > 0 && (q.n == len(q.ring) || q.bytes+in.size() > maxQueuedBytes) {
		return false
	}
	q.add(in)
	if q.n < len(q.ring) {
		signal(q.space) // another pusher may be waiting
	}
	return true
}

func (q *queue) add(in inbound) {
	q.ring[(q.first+q.n)%len(q.ring)] = in
	q.n++
	q.bytes += in.size()
	q.highest = max(q.highest, q.n)
	signal(q.ready)
}

// pop takes the oldest frame, or reports that there is none.
func (q *queue) pop() (inbound, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return inbound{}, false
	}
	in := q.ring[q.first]
	q.ring[q.first] = inbound{}
	q.first = (q.first + 1) % len(q.ring)
	q.n--
	q.bytes -= in.size()
	signal(q.space)
	return in, true
}

// oldest is when the frame that is popped next was received; none if there is none.
func (q *queue) oldest(none call.Time) call.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return none
	}
	return q.ring[q.first].received
}

// depth is how many frames wait, and the most that ever did.
func (q *queue) depth() (now, highest int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n + q.taken, q.highest
}

// aside counts n more frames that were popped and still wait, or fewer.
func (q *queue) aside(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken += n
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
