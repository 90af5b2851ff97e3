package router

import (
	"context"
	"errors"
	"sync"
)

var errClosed = errors.New("the queue is closed")

// queue is a FIFO bounded by items and bytes, for many producers and one consumer. An item bigger than the byte bound
// passes when the queue is empty.
type queue[T any] struct {
	maxItems, maxBytes int
	size               func(*T) int

	readable chan struct{} // one token: look again
	writable chan struct{} // one token, handed on from producer to producer
	done     chan struct{} // closed by close

	mu     sync.Mutex
	buf    []T // ring
	head   int
	n      int
	bytes  int
	closed bool
}

func newQueue[T any](maxItems, maxBytes int, size func(*T) int) *queue[T] {
	return &queue[T]{maxItems: maxItems, maxBytes: maxBytes, size: size,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), done: make(chan struct{})}
}

// offer appends as many of items as there is room for and returns how many.
func (q *queue[T]) offer(items []T) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, errClosed
	}
	i := 0
	for ; i < len(items); i++ {
		sz := q.size(&items[i])
		if q.n >= q.maxItems || (q.n > 0 && q.bytes+sz > q.maxBytes) {
			break
		}
		q.put(items[i], sz)
	}
	if i > 0 {
		signal(q.readable)
	}
	// Another producer may find room too. After an item that found none, only take makes room.
	if i == len(items) && q.n < q.maxItems && q.bytes < q.maxBytes {
		signal(q.writable)
	}
	return i, nil
}

// offerAll appends all of items, or none when there is not room for all of them.
func (q *queue[T]) offerAll(items []T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := 0
	for i := range items {
		size += q.size(&items[i])
	}
	if q.closed || q.n > 0 && (q.n+len(items) > q.maxItems || q.bytes+size > q.maxBytes) {
		return false
	}
	for i := range items {
		q.put(items[i], q.size(&items[i]))
	}
	signal(q.readable)
	return true
}

func (q *queue[T]) put(v T, size int) {
	if q.n == len(q.buf) {
		q.grow()
	}
	q.buf[(q.head+q.n)%len(q.buf)] = v
	q.n++
	q.bytes += size
}

func (q *queue[T]) grow() {
	bigger := make([]T, max(16, 2*len(q.buf)))
	for i := range q.n {
		bigger[i] = q.buf[(q.head+i)%len(q.buf)]
	}
	q.buf, q.head = bigger, 0
}

// push appends v, waiting for room until ctx ends. What finds room is taken even when ctx is over.
func (q *queue[T]) push(ctx context.Context, v T) error {
	one := [1]T{v}
	for {
		n, err := q.offer(one[:])
		if n == 1 || err != nil {
			return err
		}
		if err := q.waitRoom(ctx); err != nil {
			return err
		}
	}
}

// waitRoom returns when there may be room.
func (q *queue[T]) waitRoom(ctx context.Context) error {
	select {
	case <-q.writable:
		return nil
	case <-q.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take moves up to maxItems items (and about maxBytes, at least one item) to dst. open is false once the queue is
// closed and empty.
func (q *queue[T]) take(dst []T, maxItems, maxBytes int) (_ []T, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if want := min(q.n, maxItems); cap(dst) < want {
		dst = make([]T, 0, want)
	}
	var zero T
	for taken := 0; q.n > 0 && len(dst) < maxItems; {
		v := q.buf[q.head]
		sz := q.size(&v)
		if taken > 0 && taken+sz > maxBytes {
			break
		}
		q.buf[q.head] = zero
		q.head = (q.head + 1) % len(q.buf)
		q.n--
		q.bytes -= sz
		taken += sz
		dst = append(dst, v)
	}
	if q.n < q.maxItems {
		signal(q.writable)
	}
	if q.n > 0 || q.closed {
		signal(q.readable)
	}
	return dst, q.n > 0 || !q.closed || len(dst) > 0
}

// close refuses what comes later; what is queued can still be taken.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.done)
		signal(q.readable)
	}
}

// clear throws away what is queued.
func (q *queue[T]) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.buf)
	q.head, q.n, q.bytes = 0, 0, 0
	signal(q.writable)
}

// halfEmpty reports whether at least half of the room is free, in items and in bytes.
func (q *queue[T]) halfEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n <= q.maxItems/2 && q.bytes <= q.maxBytes/2
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
