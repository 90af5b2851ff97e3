package capture

import (
	"bytes"
	"slices"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/core/call"
)

const (
	// maxAhead is how far from the expected sequence number a segment may be and still belong to the stream, bytes.
	maxAhead = 4 << 20
	// maxHeld and maxHeldBytes bound what waits behind a hole, in one direction.
	maxHeld      = 128
	maxHeldBytes = 256 << 10
	// holdTime is how long a hole is waited on for a retransmission when nobody acknowledges it.
	holdTime = 5 * call.Second
)

// piece is what one segment adds to a stream.
type piece struct {
	seq     uint32
	data    []byte
	missing int // bytes after data that were not captured
}

func (p *piece) length() int { return len(p.data) + p.missing }

// half is one direction of a connection.
type half struct {
	known     bool   // next is
	closed    bool   // its FIN came, after everything before it
	begun     bool   // something else than line ends was sent
	other     bool   // and it was no SIP
	next      uint32 // sequence number of the next byte
	framer    *framer.Framer
	held      []piece // segments that came too early, by sequence number
	heldBytes int
	heldSince call.Time
	before    framer.Stats // of framer, as far as it is counted
}

// ahead is how far seq is after what is expected; negative, before it.
func (h *half) ahead(seq uint32) int { return int(int32(seq - h.next)) }

// expects reports whether a reset with this sequence number can be true (RFC 9293, 3.5.2).
func (h *half) expects(seq uint32) bool {
	return !h.known || h.ahead(seq) >= 0 && h.ahead(seq) < maxAhead
}

// lost reports whether the receiver acknowledges bytes that the capture does not have: waiting for them is in vain.
func (h *half) lost(ack uint32) bool { return len(h.held) > 0 && h.ahead(ack) > 0 }

// refuted reports whether it has begun with something else than SIP.
func (h *half) refuted() bool {
	if h.framer == nil {
		return false
	}
	st := h.framer.Stats()
	return h.other || st.Messages == 0 && st.Skipped > 0
}

// begin looks at the first bytes of a direction.
func (h *half) begin(data []byte) {
	if data = bytes.TrimLeft(data, "\r\n"); len(data) > 0 {
		h.begun, h.other = true, framer.Start(data) == framer.No
	}
}

func (h *half) cost() int {
	if h.framer == nil {
		return 0
	}
	return h.framer.Buffered() + h.heldBytes
}

// open begins a direction at seq. A repeated SYN changes nothing. When its beginning was not seen, its first message
// is not believed without a Content-Length.
func (s *streams) open(h *half, seq uint32, joined bool) {
	if h.known && h.next == seq {
		return
	}
	if h.known {
		s.close(h)
	}
	*h = half{known: true, next: seq, framer: framer.New(s.opt.MaxMessage)}
	if joined {
		h.begun = true
		h.framer.Gap()
	}
}

// close counts what a direction has left.
func (s *streams) close(h *half) {
	if h.framer != nil {
		h.framer.Gap()
		s.count(h)
	}
	h.held, h.heldBytes = nil, 0
}

// count adds what the framer saw since it was last asked.
func (s *streams) count(h *half) {
	now, st := h.framer.Stats(), &s.d.stats
	st.Skipped += now.Skipped - h.before.Skipped
	st.Oversized += now.Oversized - h.before.Oversized
	st.BadLength += now.Malformed - h.before.Malformed
	st.KeepAlives += now.KeepAlives - h.before.KeepAlives
	h.before = now
}

// place puts a piece where it belongs: into the stream, aside until what is before it comes, or away.
func (s *streams) place(h *half, p piece) {
	d := h.ahead(p.seq)
	if d > maxAhead || d < -maxAhead {
		if framer.Start(p.data) != framer.Yes {
			s.d.stats.OutOfOrder++
			return
		}
		s.jump(h, p.seq) // the same ports anew, or much was lost
		d = 0
	}
	switch {
	case d > 0:
		s.d.stats.OutOfOrder++
		s.hold(h, p)
	case -d >= p.length():
		s.d.stats.Retransmitted++
	default:
		s.feed(h, p)
		s.drain(h)
	}
}

// jump goes on at seq, whatever was expected.
func (s *streams) jump(h *half, seq uint32) {
	s.d.stats.Gaps++
	h.framer.Gap()
	h.held, h.heldBytes = nil, 0
	h.next = seq
}

// feed hands the new bytes of p, which begins at or before the next one, to the framer.
func (s *streams) feed(h *half, p piece) {
	old := -h.ahead(p.seq)
	data := p.data[min(old, len(p.data)):]
	if !h.begun {
		h.begin(data)
	}
	if !h.other {
		h.framer.Write(data, s.message)
	}
	h.next = p.seq + uint32(p.length())
	if p.missing > 0 {
		s.d.stats.Gaps++
		h.framer.Gap()
	}
	s.count(h)
}

// hold keeps a copy of p until what is before it comes.
func (s *streams) hold(h *half, p piece) {
	for len(h.held) > 0 && (len(h.held) >= maxHeld || h.heldBytes+len(p.data) > maxHeldBytes) {
		s.gap(h)
	}
	if h.ahead(p.seq) <= 0 { // the hole before it was given up
		s.place(h, p)
		return
	}
	i, same := slices.BinarySearchFunc(h.held, h.ahead(p.seq), func(q piece, d int) int { return h.ahead(q.seq) - d })
	if same && h.held[i].length() >= p.length() {
		s.d.stats.Retransmitted++
		return
	}
	if len(h.held) == 0 {
		h.heldSince = s.d.at
	}
	p.data = bytes.Clone(p.data)
	h.held = slices.Insert(h.held, i, p)
	h.heldBytes += len(p.data)
}

// drain takes what was held as far as it follows.
func (s *streams) drain(h *half) {
	for len(h.held) > 0 && h.ahead(h.held[0].seq) <= 0 {
		p := h.held[0]
		h.held = slices.Delete(h.held, 0, 1)
		h.heldBytes -= len(p.data)
		h.heldSince = s.d.at
		if -h.ahead(p.seq) < p.length() {
			s.feed(h, p)
		}
	}
	if len(h.held) == 0 {
		h.held = nil
	}
}

// gap gives up the hole before what is held.
func (s *streams) gap(h *half) {
	s.d.stats.Gaps++
	h.framer.Gap()
	h.next = h.held[0].seq
	s.drain(h)
}
