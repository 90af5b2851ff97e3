package media

import (
	"math"

	"github.com/ctigate/ctigate/core/call"
)

const (
	// maxStep is the largest difference of transit, in ms, that is taken for the network's doing. Beyond it the
	// sender's timestamps jumped or stood still (a hold, a new source behind the same SSRC).
	maxStep = 3000
	// followPackets is how slowly the jitter buffer's reference follows a transit that became longer: a change of
	// route by more than the buffer makes packets late for a second or two, a drifting clock never does.
	followPackets = 256
	// maxVotes bounds how long an old packet length outlives a new one.
	maxVotes = 100
)

// clock compares arrival with timestamps.
type clock struct {
	at      call.Time // arrival of the reference: the audio packet before
	ts      uint32    // its timestamp
	rate    uint32    // its clock rate
	seq     uint16    // its sequence number
	set     bool      // there is a reference
	step    uint32    // length of a packet, µs, by majority
	votes   uint32
	jitter  float64 // ms, RFC 3550, A.8
	transit float64 // ms, of the reference, relative to the first packet
	least   float64 // ms, least transit, slowly following
}

// diff returns how much longer than the reference's this packet's transit was, in ms, and whether it can be told.
func (c *clock) diff(at call.Time, h *header, p *payload) (d float64, ok bool) {
	if !c.set || c.rate != p.rate {
		return 0, false
	}
	d = float64(at-c.at)/float64(call.Millisecond) - float64(int32(h.ts-c.ts))*p.tick
	return d, math.Abs(d) <= maxStep
}

// refer makes the packet the reference.
func (c *clock) refer(at call.Time, h *header, p *payload, transit float64) {
	c.at, c.ts, c.rate, c.seq, c.set, c.transit = at, h.ts, p.rate, h.seq, true, transit
}

// restart forgets the reference: what comes next is compared with nothing before it. The jitter goes on.
func (c *clock) restart(at call.Time, h *header, p *payload) {
	c.least = 0
	c.refer(at, h, p, 0)
}

// follow moves the jitter buffer's reference and says by how many ms the transit is longer.
func (c *clock) follow(transit float64) float64 {
	if transit < c.least {
		c.least = transit
		return 0
	}
	excess := transit - c.least
	c.least += excess / followPackets
	return excess
}

// vote settles the length of a packet by the timestamps of packets that follow each other; step is in µs.
func (c *clock) vote(step uint64) {
	switch {
	case step == 0 || step > uint64(call.Second): // longer than any packet
	case step == uint64(c.step):
		c.votes = min(c.votes+1, maxVotes)
	case c.votes == 0:
		c.step, c.votes = uint32(step), 1
	default:
		c.votes--
	}
}

// ptime is the length of a packet in ms, 0 when it is not known.
func (c *clock) ptime() float64 { return float64(c.step) / float64(call.Millisecond) }
