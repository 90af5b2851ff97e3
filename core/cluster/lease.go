package cluster

import (
	"sync"
	"sync/atomic"
	"time"
)

// epoch is what moments are counted from, by the process's monotonic clock.
var epoch = time.Now()

func moment(t time.Time) int64 { return int64(t.Sub(epoch)) }

// Ownership is this node's right to publish for a unit, from one assignment to its loss. Its methods may be called from
// any goroutine and cost a few nanoseconds.
type Ownership struct {
	unit       int
	generation int32
	notBefore  int64 // moment
	until      atomic.Int64
	endedAt    atomic.Int64 // moment; 0 while it lasts
	end        sync.Once
	done       chan struct{}
	why        error // set before done is closed
}

// never is a moment long ago.
const never = -1 << 62

func newOwnership(unit int, generation int32, notBefore int64) *Ownership {
	o := &Ownership{unit: unit, generation: generation, notBefore: notBefore, done: make(chan struct{})}
	o.until.Store(never)
	return o
}

// Unit is the number of the unit, from 0 in the order of the configuration.
func (o *Ownership) Unit() int { return o.unit }

// Generation is that of the group in which the unit was assigned. It grows from owner to owner.
func (o *Ownership) Generation() int32 { return o.generation }

// Valid reports whether the unit may be published for at now, which must be a reading of time.Now: not before the
// predecessor's lease is over, while our own runs, and not after the ownership ended. A lease that lapsed may run again
// later; an ownership that ended is over for good.
func (o *Ownership) Valid(now time.Time) bool {
	m := moment(now)
	return m < o.until.Load() && m >= o.notBefore && o.endedAt.Load() == 0
}

// NotBefore is when the predecessor's lease is over; in the past when there is nothing to wait for.
func (o *Ownership) NotBefore() time.Time {
	if o.notBefore == never {
		return epoch
	}
	return epoch.Add(time.Duration(o.notBefore))
}

// Until is when the lease ends unless it is renewed; in the past when it lapsed or the ownership ended.
func (o *Ownership) Until() time.Time {
	m := o.until.Load()
	if m == never || o.endedAt.Load() != 0 {
		return epoch
	}
	return epoch.Add(time.Duration(m))
}

// Done is closed when the ownership has ended.
func (o *Ownership) Done() <-chan struct{} { return o.done }

// Err says why the ownership ended; nil while it lasts.
func (o *Ownership) Err() error {
	select {
	case <-o.done:
		return o.why
	default:
		return nil
	}
}

// renew lets the lease run until a moment; it never shortens it.
func (o *Ownership) renew(until int64) {
	for {
		old := o.until.Load()
		if until <= old || o.until.CompareAndSwap(old, until) {
			return
		}
	}
}

// finish ends the ownership.
func (o *Ownership) finish(why error, at int64) {
	o.end.Do(func() {
		if at == 0 {
			at = 1 // 0 says that it lasts
		}
		o.endedAt.Store(at)
		o.why = why
		close(o.done)
	})
}
