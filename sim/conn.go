package sim

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one reader's connection. Frames are appended whole to its buffer; one goroutine writes the buffer out.
type conn struct {
	id   int64
	kind string // ari, ami, esl
	net  net.Conn
	sw   *front

	mu     sync.Mutex
	buf    []byte
	marks  []mark // frames in buf, when a ledger is kept
	base   int64  // bytes that went through buf before what is in it
	closed bool   // nothing more is taken
	last   bool   // close when buf is written
	wake   chan struct{}
	room   chan struct{}

	frames int64 // events taken, under mu
	bytes  int64
	app    string                       // ARI: the application
	ready  atomic.Bool                  // logged in and wanting events
	sub    atomic.Pointer[subscription] // ESL: the events wanted
	done   chan struct{}                // closed when the writer has ended
	rng    *rand.Rand
}

// mark says where in the stream a frame ends.
type mark struct {
	end int64
	e   Entry
}

// take appends the parts of one event; it reports false when the buffer is full.
func (c *conn) take(e *Entry, parts ...[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.last {
		return true
	}
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if len(c.buf) > 0 && len(c.buf)+n > c.sw.opt.Buffer {
		return false
	}
	for _, p := range parts {
		c.buf = append(c.buf, p...)
	}
	if e != nil {
		c.frames++
		if c.sw.ledger.on() {
			e.Conn, e.Nth = c.id, c.frames
			c.marks = append(c.marks, mark{c.base + int64(len(c.buf)), *e})
		}
	}
	c.signal()
	return true
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// answer appends bytes that are no event.
func (c *conn) answer(parts ...[]byte) {
	if !c.take(nil, parts...) {
		c.cut("its answers are not read")
	}
}

// cut closes the connection at once.
func (c *conn) cut(why string) {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if !was {
		c.sw.opt.Log.Debug("simulated switch closes a connection", "conn", c.id, "kind", c.kind, "why", why)
	}
	c.net.Close()
	c.signal()
}

// finish closes the connection once everything taken so far is written.
func (c *conn) finish() {
	c.mu.Lock()
	c.last = true
	c.mu.Unlock()
	c.signal()
}

// finishWith writes b after what was taken so far, and nothing after it.
func (c *conn) finishWith(b []byte) {
	c.mu.Lock()
	if !c.closed && !c.last {
		c.buf = append(c.buf, b...)
		c.last = true
	}
	c.mu.Unlock()
	c.signal()
}

// write runs until the connection ends.
func (c *conn) write(ctx context.Context) {
	defer close(c.done)
	defer c.net.Close()
	stop := context.AfterFunc(ctx, func() { c.cut("the switch stops") })
	defer stop()
	var out []byte
	for {
		c.mu.Lock()
		out, c.buf = c.buf, out[:0]
		c.base += int64(len(out))
		last, closed := c.last, c.closed
		c.mu.Unlock()
		c.freed()
		if closed {
			return
		}
		if len(out) == 0 {
			if last {
				c.cut("done")
				return
			}
			<-c.wake
			continue
		}
		if err := c.push(ctx, out); err != nil {
			c.cut(err.Error())
			return
		}
	}
}

func (c *conn) freed() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// slice is how often a slow connection gets its share.
const slice = 50 * time.Millisecond

// push writes b, slowly if that was ordered, and enters what was written in the ledger.
func (c *conn) push(ctx context.Context, b []byte) error {
	size := len(b)
	if rate := c.sw.opt.Faults.SlowBytesPerSecond; rate > 0 {
		size = max(1, int(int64(rate)*int64(slice)/int64(time.Second)))
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if _, err := c.net.Write(b[:n]); err != nil {
			return err
		}
		c.wrote(n)
		b = b[n:]
		if c.sw.opt.Faults.SlowBytesPerSecond > 0 && !wait(ctx, slice) {
			return ctx.Err()
		}
	}
	return nil
}

// wrote moves the ledger on by n bytes.
func (c *conn) wrote(n int) {
	c.mu.Lock()
	c.bytes += int64(n)
	done := 0
	for done < len(c.marks) && c.marks[done].end <= c.bytes {
		done++
	}
	entered := c.marks[:done]
	c.mu.Unlock()
	if done == 0 {
		return
	}
	c.sw.ledger.enter(entered)
	c.mu.Lock()
	c.marks = c.marks[done:]
	c.mu.Unlock()
}

// wait sleeps for d and reports whether ctx is still on.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
