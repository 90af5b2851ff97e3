package sip

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// outbox stands between the engine and the router, which may block: packets do not wait. What finds no room is shed and
// counted: from three quarters on, what only measures or repeats, then everything but the ends of legs. Those are told
// when what was before them has been: a call that was begun must not go on for ever.
type outbox struct {
	out   core.Emitter
	queue chan parcel
	lost  atomic.Int64  // since the last Gap was told
	in    atomic.Uint64 // parcels queued so far
	bytes atomic.Int64  // of the messages in the queue

	mu     sync.Mutex
	failed error  // of out
	owed   []debt // oldest first
}

// debt is the ends of legs in a frame that found no room.
type debt struct {
	after uint64 // parcels that come before it
	frame core.Frame
}

// maxOwed bounds the debts.
const maxOwed = 1 << 16

// maxQueued bounds the messages that wait for the router, in bytes.
const maxQueued = 128 << 20

// parcel is a frame or a dead letter.
type parcel struct {
	frame core.Frame
	dead  *core.DeadLetter
}

func (p *parcel) size() int64 {
	if p.dead != nil {
		return int64(len(p.dead.Raw))
	}
	return int64(len(p.frame.Raw))
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
	if minor && (len(b.queue) > cap(b.queue)/4*3 || b.bytes.Load() > maxQueued/4*3) {
		b.out.Count("shed_minor", 1)
		return b.err()
	}
	size := p.size()
	room := b.bytes.Add(size) <= maxQueued
	if room {
		select {
		case b.queue <- p:
			b.in.Add(1)
		default:
			room = false
		}
	}
	if !room {
		b.bytes.Add(-size)
		b.out.Count(core.CountDropped, 1)
		b.lost.Add(1)
		b.owe(p.frame)
	}
	return b.err()
}

// owe keeps the ends of legs in f, without its bytes.
func (b *outbox) owe(f core.Frame) {
	f.Raw = nil
	f.Observations = slices.DeleteFunc(f.Observations, func(o call.Observation) bool { return o.Kind != call.LegCleared })
	if len(f.Observations) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.owed) < maxOwed {
		b.owed = append(b.owed, debt{b.in.Load(), f})
	}
}

// due takes out the oldest debt that n parcels come before; ok is false for none.
func (b *outbox) due(n uint64) (f core.Frame, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.owed) == 0 || b.owed[0].after > n {
		return f, false
	}
	f = b.owed[0].frame
	if b.owed = b.owed[1:]; len(b.owed) == 0 {
		b.owed = nil
	}
	return f, true
}

func (b *outbox) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// pump hands the queue to the router until it is closed and empty. After an error of the router, what is left is counted.
func (b *outbox) pump() {
	var n uint64
	for p := range b.queue {
		n++
		b.bytes.Add(-p.size())
		if b.err() != nil {
			b.out.Count(core.CountDropped, 1)
			continue
		}
		b.keep(b.send(p))
		b.repay(n)
	}
	b.repay(math.MaxUint64)
}

// repay hands over the debts that n parcels come before.
func (b *outbox) repay(n uint64) {
	for b.err() == nil {
		f, ok := b.due(n)
		if !ok {
			return
		}
		b.keep(b.out.Frame(f))
	}
}

func (b *outbox) keep(err error) {
	if err == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = err
}

func (b *outbox) send(p parcel) error {
	var gap error
	if n := b.lost.Swap(0); n > 0 {
		gap = b.out.Gap("the router was too slow: SIP messages were shed, see dropped", 0)
	}
	if p.dead != nil {
		return errors.Join(gap, b.out.DeadLetter(*p.dead))
	}
	return errors.Join(gap, b.out.Frame(p.frame))
}
