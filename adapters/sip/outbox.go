package sip

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ctigate/ctigate/core"
)

// outbox stands between the engine and the router, which may block: packets do not wait. What finds no room is shed and
// counted: from three quarters on, what only measures or repeats, then everything.
type outbox struct {
	out   core.Emitter
	queue chan parcel
	lost  atomic.Int64 // since the last Gap was told

	mu     sync.Mutex
	failed error // of out
}

// parcel is a frame or a dead letter.
type parcel struct {
	frame core.Frame
	dead  *core.DeadLetter
}

func newOutbox(out core.Emitter, size int) *outbox {
	return &outbox{out: out, queue: make(chan parcel, size)}
}

// Frame queues f.
func (b *outbox) Frame(f core.Frame) error { return b.put(parcel{frame: f}, plain(f)) }

// DeadLetter queues d.
func (b *outbox) DeadLetter(d core.DeadLetter) error { return b.put(parcel{dead: &d}, true) }

// Count passes on.
func (b *outbox) Count(name string, n int) { b.out.Count(name, n) }

// plain reports whether f says nothing of how a call goes: a message without news, or a measurement.
func plain(f core.Frame) bool {
	for _, o := range f.Observations {
		if o.Quality == nil {
			return false
		}
	}
	return true
}

func (b *outbox) put(p parcel, minor bool) error {
	if minor && len(b.queue) > cap(b.queue)/4*3 {
		b.out.Count("shed_minor", 1)
		return b.err()
	}
	select {
	case b.queue <- p:
	default:
		b.out.Count(core.CountDropped, 1)
		b.lost.Add(1)
	}
	return b.err()
}

func (b *outbox) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// pump hands the queue to the router until it is closed and empty. After an error of the router, what is left is counted.
func (b *outbox) pump() {
	for p := range b.queue {
		if b.err() != nil {
			b.out.Count(core.CountDropped, 1)
			continue
		}
		if err := b.send(p); err != nil {
			b.mu.Lock()
			b.failed = err
			b.mu.Unlock()
		}
	}
}

func (b *outbox) send(p parcel) error {
	var gap error
	if n := b.lost.Swap(0); n > 0 {
		gap = b.out.Gap("the router was too slow: SIP messages were shed, see dropped")
	}
	if p.dead != nil {
		return errors.Join(gap, b.out.DeadLetter(*p.dead))
	}
	return errors.Join(gap, b.out.Frame(p.frame))
}
