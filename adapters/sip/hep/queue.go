package hep

import (
	"sync"
	"unsafe"

	"github.com/ctigate/ctigate/adapters/sip/wire"
)

// entry is one packet, or one malformed frame when reason is set. Its bytes are batch.bytes[from:to].
type entry struct {
	packet   wire.Packet
	reason   string
	from, to int
}

const entryBytes = int(unsafe.Sizeof(entry{}))

// batch is what has come between two visits of the handler.
type batch struct {
	entries []entry
	bytes   []byte
}

func (b *batch) cost() int { return len(b.bytes) + len(b.entries)*entryBytes }

func (b *batch) reset() {
	clear(b.entries) // lets go of the correlation ids
	b.entries, b.bytes = b.entries[:0], b.bytes[:0]
}

// queue stands between the readers and the one handler. It keeps the order of arrival, and copies: a reader's buffer is
// free again as soon as put returns.
type queue struct {
	wake chan struct{} // holds one token when there is something to take

	mu      sync.Mutex
	room    sync.Cond
	filling batch
	limit   int // of filling.cost()
	closed  bool
}

func newQueue(limit int) *queue {
	q := &queue{wake: make(chan struct{}, 1), limit: limit}
	q.room.L = &q.mu
	return q
}

// put adds one entry, with a copy of payload. When the queue is full it waits, or, with wait false, gives up and returns
// false. Only SIP may fill the second half of the queue, so that a flood of RTP is shed before any SIP is.
func (q *queue) put(p *wire.Packet, payload []byte, reason string, wait bool) bool {
	limit := q.limit
	if reason != "" || p.Kind != wire.SIP {
		limit /= 2
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.filling.cost()+len(payload)+entryBytes > limit {
		if !wait || q.closed {
			return false
		}
		q.room.Wait()
	}
	b := &q.filling
	from := len(b.bytes)
	b.bytes = append(b.bytes, payload...)
	b.entries = append(b.entries, entry{packet: *p, reason: reason, from: from, to: len(b.bytes)})
	if len(b.entries) == 1 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take exchanges what has come for the empty batch b.
func (q *queue) take(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*b, q.filling = q.filling, *b
	q.room.Broadcast()
}

// close ends all waiting in put.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.room.Broadcast()
}
