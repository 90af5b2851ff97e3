package capture

import (
	"container/list"
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

const (
	// streamIdle is the silence after which a connection is forgotten. RFC 5626 pings at least every 15 minutes.
	streamIdle = 20 * 60 * call.Second
	// openIdle is how long a connection may take to its first message.
	openIdle = 30 * call.Second
	// sweepEvery is how often connections are looked through, by the packets' time.
	sweepEvery = call.Second
	// connectionCost is what a connection takes without its buffers, bytes.
	connectionCost = 1024
)

// TCP flags (RFC 9293, 3.1).
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// connKey names a connection: the lower address first.
type connKey struct{ a, b netip.AddrPort }

// conn is one TCP connection that carries SIP, or whose beginning was seen and that may.
type conn struct {
	key  connKey
	half [2]half // what a sends, what b sends
	sip  bool    // a message was found
	cost int     // as it was last counted
	seen call.Time
	el   *list.Element
}

// streams follows the TCP connections that look like SIP: those that begin with a message, and those joined later, from
// the first segment that does. The others take no room.
type streams struct {
	d     *decoder
	opt   Options
	byKey map[connKey]*conn
	order *list.List // of *conn, silent longest first
	cost  int        // of all
	swept call.Time

	src, dst netip.AddrPort // of the segment being handled, for message
	message  func([]byte)
}

func newStreams(o Options, d *decoder) *streams {
	s := &streams{d: d, opt: o, byKey: map[connKey]*conn{}, order: list.New()}
	s.message = func(msg []byte) {
		d.stats.Messages++
		d.emit(wire.SIP, s.src, s.dst, msg)
	}
	return s
}

// segment is one TCP segment.
type segment struct {
	src, dst netip.AddrPort
	seq, ack uint32
	flags    byte
	payload  []byte
	missing  int // bytes of payload that were not captured
}

// tcpSegment decodes the TCP header.
func (d *decoder) tcpSegment(src, dst netip.Addr, b []byte) {
	if len(b) < 20 {
		d.malformed()
		return
	}
	from, to := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if !d.wanted(from, to) {
		return
	}
	head := int(b[12]>>4) * 4
	if head < 20 {
		d.stats.Malformed++
		return
	}
	if head > len(b) {
		d.malformed()
		return
	}
	if d.missing > 0 {
		d.truncated()
	}
	d.tcp.take(&segment{
		src: netip.AddrPortFrom(src, from), dst: netip.AddrPortFrom(dst, to),
		seq: binary.BigEndian.Uint32(b[4:]), ack: binary.BigEndian.Uint32(b[8:]),
		flags: b[13], payload: b[head:], missing: d.missing,
	})
}

// take handles one segment.
func (s *streams) take(g *segment) {
	key, dir := connKey{g.src, g.dst}, 0
	if g.dst.Compare(g.src) < 0 {
		key, dir = connKey{g.dst, g.src}, 1
	}
	c := s.byKey[key]
	if c == nil {
		if c = s.join(key, g); c == nil {
			return
		}
	}
	s.touch(c)
	if g.flags&flagRST != 0 {
		if c.half[dir].expects(g.seq) {
			s.remove(c)
		}
		return
	}
	s.src, s.dst = g.dst, g.src
	if back := &c.half[1-dir]; g.flags&flagACK != 0 && back.lost(g.ack) {
		s.gap(back)
	}
	s.src, s.dst = g.src, g.dst
	s.data(c, &c.half[dir], g)
	s.settle(c)
}

// join decides whether to follow a connection that is not followed yet.
func (s *streams) join(key connKey, g *segment) *conn {
	syn := g.flags&flagSYN != 0
	if !syn && len(g.payload) == 0 || g.flags&flagRST != 0 {
		return nil
	}
	if len(g.payload) > 0 && framer.Start(g.payload) == framer.No {
		s.d.stats.NotSIP++
		return nil
	}
	for len(s.byKey) >= s.opt.MaxConnections {
		s.evict()
	}
	c := &conn{key: key}
	c.el = s.order.PushBack(c)
	s.byKey[key] = c
	return c
}

// data handles what one direction says.
func (s *streams) data(c *conn, h *half, g *segment) {
	seq := g.seq
	if g.flags&flagSYN != 0 {
		seq++
		s.open(h, seq, false)
	}
	if len(g.payload)+g.missing > 0 {
		if !h.known {
			if framer.Start(g.payload) == framer.No {
				s.d.stats.NotSIP++
				return
			}
			s.open(h, seq, true)
		}
		s.d.stats.Segments++
		s.place(h, piece{seq: seq, data: g.payload, missing: g.missing})
		if !c.sip && h.framer.Stats().Messages > 0 {
			c.sip = true
			s.d.stats.Connections++
		}
	}
	if g.flags&flagFIN != 0 && h.known && seq+uint32(len(g.payload)+g.missing) == h.next {
		h.closed = true
	}
}

// settle forgets a connection that is over or is no SIP, and keeps to the limit of memory.
func (s *streams) settle(c *conn) {
	if c.half[0].closed && c.half[1].closed || !c.sip && (c.half[0].refuted() || c.half[1].refuted()) {
		s.remove(c)
		return
	}
	s.account(c)
	for s.cost > s.opt.MaxStreamBytes && len(s.byKey) > 1 {
		s.evict()
	}
}

// account notes what c holds now.
func (s *streams) account(c *conn) {
	cost := connectionCost + c.half[0].cost() + c.half[1].cost()
	s.cost += cost - c.cost
	c.cost = cost
}

func (s *streams) touch(c *conn) {
	c.seen = s.d.at
	s.order.MoveToBack(c.el)
}

func (s *streams) evict() {
	s.d.stats.Evicted++
	s.remove(s.order.Front().Value.(*conn))
}

func (s *streams) remove(c *conn) {
	for i := range c.half {
		s.close(&c.half[i])
	}
	s.cost -= c.cost
	s.order.Remove(c.el)
	delete(s.byKey, c.key)
}

// sweep looks once a second for connections that are silent, and for holes that nothing will fill any more.
func (s *streams) sweep() {
	now := s.d.at
	if since := now - s.swept; len(s.byKey) == 0 || since >= 0 && since < sweepEvery {
		return
	}
	s.swept = now
	for el := s.order.Front(); el != nil; {
		c := el.Value.(*conn)
		el = el.Next()
		if idle := now - c.seen; idle > streamIdle || idle > openIdle && !c.sip {
			s.remove(c)
			continue
		}
		s.giveUp(c, holdTime)
		s.account(c)
	}
}

// giveUp goes on after the holes that are older than age.
func (s *streams) giveUp(c *conn, age call.Time) {
	ends := [2]netip.AddrPort{c.key.a, c.key.b}
	for i := range c.half {
		h := &c.half[i]
		s.src, s.dst = ends[i], ends[1-i]
		for len(h.held) > 0 && s.d.at-h.heldSince > age {
			s.gap(h)
		}
	}
}

// flush hands over what waits behind a hole, at the end of a capture.
func (s *streams) flush() {
	for el := s.order.Front(); el != nil; el = s.order.Front() {
		c := el.Value.(*conn)
		s.giveUp(c, math.MinInt64)
		s.remove(c)
	}
}
