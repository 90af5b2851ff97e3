package esl

import (
	"sync"

	"github.com/ctigate/ctigate/core/call"
)

const (
	// queueBytes bounds what waits in a queue beside the number of its items.
	queueBytes = 64 << 20
	// startupFactor is how much more may wait while the snapshot is taken: nobody takes from the queue then, and the
	// answers the snapshot waits for come behind the events.
	startupFactor = 16
)

// arrival is one thing the socket brought for the session: an event, or bytes for the dead-letter stream.
type arrival struct {
	body     []byte
	json     bool
	received call.Time
	dead     string // why it is no event; empty for an event
}

// queue is what has arrived and waits to be handled, in order, from one reader to one session. It is bounded by items
// and by bytes; the session may hold as much again that it has already taken.
type queue struct {
	mu      sync.Mutex
	items   []arrival
	bytes   int
	limit   int
	startup bool
	arrived chan struct{} // something is there
	room    chan struct{} // there is room again
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, startup: true, arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// steady ends the startup bounds.
func (q *queue) steady() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.startup = false
	wake(q.room)
}

// pushed is what became of a push.
type pushed int

const (
	accepted pushed = iota
	full
	overflow // full during startup: waiting would never end
)

// push adds a unless the queue is full.
func (q *queue) push(a arrival) pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, bytes := q.limit, queueBytes
	if q.startup {
		items, bytes = items*startupFactor, bytes*startupFactor/4
	}
	if len(q.items) >= items || q.bytes >= bytes {
		if q.startup {
			return overflow
		}
		return full
	}
	q.add(a)
	return accepted
}

// pushLast adds a beyond the bounds, when nothing more is read from the socket.
func (q *queue) pushLast(a arrival) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(a)
}

func (q *queue) add(a arrival) {
	q.items = append(q.items, a)
	q.bytes += len(a.body)
	wake(q.arrived)
}

// take gives everything that waits, in order, and keeps spare for what arrives next. It waits for the first arrival,
// and returns nothing when ended is closed and nothing is left.
func (q *queue) take(ended <-chan struct{}, spare []arrival) []arrival {
	for {
		if items := q.swap(spare); len(items) > 0 {
			return items
		}
		select {
		case <-q.arrived:
		case <-ended:
			return q.swap(spare)
		}
	}
}

func (q *queue) swap(spare []arrival) []arrival {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil
	}
	items := q.items
	clear(spare)
	q.items, q.bytes = spare[:0], 0
	wake(q.room)
	return items
}

// wake leaves one note in c for whoever waits on it.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// first shows the oldest event that waits.
func (q *queue) first() (arrival, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.items {
		if a.dead == "" {
			return a, true
		}
	}
	return arrival{}, false
}
