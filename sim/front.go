package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// front is the network side of a switch: its listeners and connections.
type front struct {
	opt    Options
	skew   atomic.Int64 // nanoseconds
	ledger ledger

	ctx    context.Context
	stop   context.CancelFunc
	group  sync.WaitGroup
	closer []func() error

	arrived chan struct{} // told when a reader begins to take events

	mu    sync.Mutex
	conns []*conn // replaced as a whole, never changed
	last  int64
	gone  map[string]int64 // events to connections that have ended, by kind
	cuts  int64            // connections cut off because they read too slowly
}

func (f *front) open(ctx context.Context, opt Options) {
	f.opt, f.gone, f.arrived = opt, map[string]int64{}, make(chan struct{}, 1)
	f.skew.Store(int64(opt.ClockSkew))
	f.ledger.size = opt.Ledger
	f.ctx, f.stop = context.WithCancel(ctx)
}

// now is what the switch's clock says.
func (f *front) now() time.Time { return f.opt.Now().Add(f.clockSkew()) }

func (f *front) clockSkew() time.Duration { return time.Duration(f.skew.Load()) }

// listen serves each connection to addr in a goroutine of its own until the front is closed.
func (f *front) listen(addr string, serve func(net.Conn)) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("starting the simulated switch: listening: %w", err)
	}
	f.closer = append(f.closer, l.Close)
	f.group.Go(func() {
		for {
			k, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) || f.ctx.Err() != nil {
					return
				}
				f.opt.Log.Warn("simulated switch: accepting", "error", err)
				if !wait(f.ctx, 10*time.Millisecond) {
					return
				}
				continue
			}
			f.group.Go(func() { serve(k) })
		}
	})
	return l, nil
}

// admit makes a connection out of k and starts its writer.
func (f *front) admit(kind string, k net.Conn, set func(*conn)) *conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	c := &conn{id: f.last, kind: kind, net: k, sw: f, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{})}
	c.rng = rand.New(rand.NewPCG(f.opt.Seed, uint64(f.last)<<8|fnv(kind)))
	set(c)
	f.conns = append(slices.Clone(f.conns), c)
	f.group.Go(func() { c.write(f.ctx) })
	f.arrive()
	if f.opt.Faults.any() {
		f.group.Go(func() { c.misbehave(f.ctx) })
	}
	return c
}

// leave forgets a connection and waits for its writer.
func (f *front) leave(c *conn) {
	c.cut("the reader left")
	<-c.done
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[c.kind] += c.frames
	f.conns = slices.DeleteFunc(slices.Clone(f.conns), func(x *conn) bool { return x == c })
}

// arrive tells that some reader has begun to take events.
func (f *front) arrive() {
	select {
	case f.arrived <- struct{}{}:
	default:
	}
}

// readers counts the connections that take events.
func (f *front) readers() int {
	n := 0
	for _, c := range f.list() {
		if sub := c.sub.Load(); c.ready.Load() || sub != nil && sub.on {
			n++
		}
	}
	return n
}

func (f *front) list() []*conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

// close ends everything and waits for it.
func (f *front) close() {
	if f.stop == nil {
		return // never started
	}
	f.stop()
	for _, c := range f.closer {
		_ = c() // a listener that is closed already is what is wanted
	}
	f.group.Wait()
}

// deliver hands an event to a connection. A reader that is too far behind is waited for or cut off.
func (f *front) deliver(c *conn, e *Entry, serve <-chan func(), parts ...[]byte) {
	for !c.take(e, parts...) {
		if !f.opt.Wait {
			f.mu.Lock()
			f.cuts++
			f.mu.Unlock()
			c.cut("it reads too slowly")
			return
		}
		select {
		case <-c.room:
		case fn := <-serve:
			fn()
		case <-f.ctx.Done():
			return
		}
	}
}

// Stats is what a simulated switch has done so far.
type Stats struct {
	Started int64 // calls
	Ended   int64
	Active  int64
	Cut     int64            // connections cut off because they read too slowly
	Sent    map[string]int64 // events handed to connections, by kind: ari, ami, esl
	Conns   []ConnStats      // open connections
}

// ConnStats is one open connection.
type ConnStats struct {
	ID     int64
	Kind   string // ari, ami, esl
	Events int64  // taken for sending
	Bytes  int64  // written
	Behind int    // bytes waiting
}

func (f *front) stats() Stats {
	s := Stats{Sent: map[string]int64{}}
	f.mu.Lock()
	conns := f.conns
	for k, n := range f.gone {
		s.Sent[k] = n
	}
	s.Cut = f.cuts
	f.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		s.Conns = append(s.Conns, ConnStats{c.id, c.kind, c.frames, c.bytes, len(c.buf)})
		s.Sent[c.kind] += c.frames
		c.mu.Unlock()
	}
	return s
}
