package siprec

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

type parser = *sip.Parser

// Bounds of connections.
const (
	messageTime = 10 * time.Second // for one to come
	idleTime    = 10 * time.Minute // without a message, when no session needs the connection
	writeTime   = 5 * time.Second
	queued      = 64 // messages that may wait to be written
)

// maxConns is how many connections there may be: some clients open one for each session. One address may have half.
func maxConns(sessions int) int { return 2*sessions + 64 }

// conns are the open connections.
type conns struct {
	max  int
	mu   sync.Mutex
	all  map[*conn]struct{}
	from map[netip.Addr]int
}

func (s *conns) add(c *conn, from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= s.max || s.from[from] >= s.max/2 {
		return false
	}
	s.all[c] = struct{}{}
	s.from[from]++
	return true
}

func (s *conns) remove(c *conn, from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}

// wake ends all reads.
func (s *conns) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// conn is one TCP or TLS connection: read by one goroutine, written by another, so that a peer that does not read stalls
// nobody.
type conn struct {
	nc    net.Conn
	run   *run
	out   chan []byte
	ended chan struct{} // no more is read, and what waits may be written
	users atomic.Int32  // sessions that came over it
}

func newConn(nc net.Conn, r *run) *conn {
	return &conn{nc: nc, run: r, out: make(chan []byte, queued), ended: make(chan struct{})}
}

func (c *conn) send(b []byte, _ netip.AddrPort) {
	select {
	case c.out <- b:
	default:
		c.run.out.Count(CountSlow, 1)
		c.nc.Close()
	}
}

// serve reads and writes until the peer closes, is too slow, or the server stops; then what waits is written first.
func (c *conn) serve(from path) {
	defer c.nc.Close()
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read(from)
	c.run.reading.Done()
	if c.run.stopping() {
		<-c.run.finished
	}
	close(c.ended)
	writer.Wait()
}

func (c *conn) write() {
	for {
		select {
		case b := <-c.out:
			if !c.put(b) {
				return
			}
		case <-c.ended:
			for len(c.out) > 0 {
				if !c.put(<-c.out) {
					return
				}
			}
			return
		}
	}
}

func (c *conn) put(b []byte) bool {
	_ = c.nc.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := c.nc.Write(b); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.run.out.Count(CountSlow, 1)
		}
		c.nc.Close()
		return false
	}
	return true
}

func (c *conn) read(from path) {
	if t, ok := c.nc.(*tls.Conn); ok {
		_ = t.SetDeadline(time.Now().Add(messageTime))
		if err := t.HandshakeContext(c.run.ctx); err != nil {
			c.run.out.Count(CountRefusedConnection, 1)
			return
		}
		_ = t.SetDeadline(time.Time{})
	}
	in := stream{conn: c, from: from, parser: newParser(), framer: framer.New(maxMessage), until: time.Now().Add(messageTime)}
	buf := make([]byte, 4<<10)
	for {
		_ = c.nc.SetReadDeadline(in.until)
		if c.run.stopping() { // after the deadline was set: wake comes after stopping
			return
		}
		n, err := c.nc.Read(buf)
		if n > 0 && !in.take(buf[:n], time.Now()) {
			return
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.run.stopping():
			if !in.patient(time.Now()) {
				c.run.out.Count(CountSlow, 1)
				return
			}
		default:
			return
		}
	}
}

// stream is what is read of one connection.
type stream struct {
	conn    *conn
	from    path
	parser  parser
	framer  *framer.Framer
	seen    framer.Stats
	partial bool
	until   time.Time
}

// take handles what was read; false ends the connection: nobody who speaks SIP over TCP loses step.
func (s *stream) take(b []byte, now time.Time) bool {
	s.framer.Write(b, func(msg []byte) {
		s.conn.run.push(s.conn.run.read(s.parser, slices.Clone(msg), call.At(now), s.from), true)
	})
	before, is := s.seen, s.framer.Stats()
	s.seen = is
	if is.Skipped+is.Malformed+is.Oversized > before.Skipped+before.Malformed+before.Oversized {
		s.conn.run.out.Count(CountRefusedConnection, 1)
		s.conn.run.push(inbound{dead: &core.DeadLetter{Raw: slices.Clone(b), Received: call.At(now),
			Reason: "taking a SIP message out of a connection from " + s.from.src.String() + ": no start line, no usable Content-Length, or too long"}}, true)
		return false
	}
	if is.KeepAlives >= before.KeepAlives+2 && is.Messages == before.Messages {
		s.conn.send([]byte("\r\n"), netip.AddrPort{}) // RFC 5626, 4.4.1
	}
	switch {
	case is.Messages > before.Messages:
		s.partial, s.until = false, now.Add(idleTime)
	case is.KeepAlives > before.KeepAlives:
		// proves life of the network, not of a client that has anything to say
	case !s.partial:
		s.partial, s.until = true, minTime(s.until, now.Add(messageTime))
	}
	return true
}

// patient says whether to go on after a silence.
func (s *stream) patient(now time.Time) bool {
	if s.partial || s.conn.users.Load() == 0 {
		return false
	}
	s.until = now.Add(idleTime)
	return true
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
