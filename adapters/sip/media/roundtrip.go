package media

import "github.com/ctigate/ctigate/core/call"

// RoundTrip measures the round trip between two ends from a point between them, by the RTCP that passes there in both
// directions (RFC 3550, 6.4.1, seen from the middle).
//
// An SR of A passes at t1 on its way to B; a report block of B about A's stream that quotes it (LSR) passes back at t2.
// t2 - t1 - DLSR is the round trip between this point and B. A quotes B's reports likewise, which gives the round trip
// between this point and A. The sum of both is the round trip between A and B. Beside a switch, the half towards the
// switch is next to nothing.
//
// The zero value is ready; one is kept for each pair of streams of a session. It takes constant memory.
type RoundTrip struct {
	sent   [4]sentReport
	next   uint8
	halves [2]half
}

type sentReport struct {
	at   call.Time
	ssrc uint32
	ntp  uint32 // middle 32 bits
}

// half is the round trip to the receiver of ssrc.
type half struct {
	ms    float64
	ssrc  uint32
	known bool
}

const (
	// maxRoundTripMS is the longest that is believed: beyond it, clocks or reports are wrong.
	maxRoundTripMS = 10000
	// ntpSlack is how far a quoted NTP time may be off, in 1/65536 s: agents that report in JSON round it to
	// microseconds.
	ntpSlack = 2
)

// RTCP takes a packet that passed at at.
func (r *RoundTrip) RTCP(at call.Time, p *RTCP) {
	for i := range p.Blocks {
		r.Block(at, &p.Blocks[i])
	}
	for i := range p.Senders {
		r.SR(at, p.Senders[i].SSRC, p.Senders[i].NTP)
	}
}

// SR takes a sender report of ssrc that passed at at.
func (r *RoundTrip) SR(at call.Time, ssrc uint32, ntp uint64) {
	r.sent[r.next] = sentReport{at: at, ssrc: ssrc, ntp: uint32(ntp >> 16)}
	r.next = (r.next + 1) % uint8(len(r.sent))
}

// Block takes a report block that passed at at, and returns the round trip, in ms, between here and the receiver that
// sent it; false when the report it quotes did not pass here lately.
func (r *RoundTrip) Block(at call.Time, b *Block) (ms float64, ok bool) {
	if b.LSR == 0 {
		return 0, false
	}
	for i := range r.sent {
		s := &r.sent[i]
		if off := int32(b.LSR - s.ntp); s.at == 0 || s.ssrc != b.SSRC || off > ntpSlack || off < -ntpSlack {
			continue
		}
		ms = float64(at-s.at)/float64(call.Millisecond) - float64(b.DLSR)*1000/65536
		if ms < -1 || ms > maxRoundTripMS { // DLSR is a little too long where a receiver rounds it
			return 0, false
		}
		ms = max(ms, 0)
		r.keep(half{ms: ms, ssrc: b.SSRC, known: true})
		return ms, true
	}
	return 0, false
}

// keep sets the half of h's SSRC, in place of the older one when there are two others.
func (r *RoundTrip) keep(h half) {
	if r.halves[0].ssrc != h.ssrc && r.halves[0].known {
		if r.halves[1].ssrc != h.ssrc && r.halves[1].known {
			r.halves[0] = r.halves[1]
		}
		r.halves[1] = h
		return
	}
	r.halves[0] = h
}

// MS is the latest round trip in ms: of both halves, or of the one that is known. whole says that it is both; ok that
// it is anything.
func (r *RoundTrip) MS() (ms float64, whole, ok bool) {
	a, b := r.halves[0], r.halves[1]
	return a.ms + b.ms, a.known && b.known, a.known || b.known
}
