package sip

import (
	"net/netip"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// flow is the audio that one side of a dialog sends to the other.
type flow struct {
	d      *dialog
	from   side
	dst    netip.AddrPort // where it is to go, by the receiver's description
	rtcp   netip.AddrPort // where reports about the other direction are to go
	src    netip.AddrPort // where it is to come from, by the sender's description; not valid before that is known
	latch  netip.AddrPort // where it really comes from
	stream *media.Stream
	trip   *media.RoundTrip // shared by both directions

	agreed    bool // the answer has come, and wants audio in this direction
	foreign   bool // packets from elsewhere came for it
	off       bool // left out by sampling
	since     call.Time
	due       call.Time // of the next report, by the capture's clock
	atReport  uint64    // packets
	lastHeard call.Time // by our clock
	noted     call.Time // when its hosts were noted as heard, likewise
	lag       call.Time // our clock less the one that stamps its packets
	loose     bool      // its sender has described another source since
	reported  call.Time // when its receiver spoke of it last, by RTCP
	told      call.Time // reported, at the last report
	next      *flow     // to the same destination
}

// expect begins the flow towards the side that has described where it wants audio, before the other side has answered.
func (e *engine) expect(d *dialog, to side, desc *sdp.Description) {
	for i := range desc.Media {
		m := &desc.Media[i]
		if m.Kind == "audio" && m.Port != 0 && m.Addr.IsValid() && !m.Null {
			if f := d.flows[to.other()]; f != nil && f.agreed {
				return // what was agreed holds until the answer comes, and after a refusal (RFC 3261, 14.1)
			}
			f := e.flow(d, to.other(), m.Addr, m.RTCP)
			if f != nil && !f.agreed {
				f.stream.Negotiate(formats(m.Formats), m.Encryption != "")
			}
			return
		}
	}
}

// stream sets up both directions of what was agreed, sides by side.
func (e *engine) stream(d *dialog, sides [2]*sdp.Side, agreed *sdp.Agreed) {
	for s := range sides {
		from, to := sides[s], sides[1-s]
		if !to.Addr.IsValid() || to.Addr.Addr().IsUnspecified() { // on hold as in RFC 2543: what is under way still comes where it went
			if f := d.flows[s]; f != nil {
				f.agreed = false
			}
			continue
		}
		f := e.flow(d, side(s), to.Addr, to.RTCP)
		if f == nil {
			continue
		}
		src := onWire(from.Addr)
		f.loose = f.loose || f.src != src
		f.src = src
		f.agreed = from.Direction == sdp.SendRecv || from.Direction == sdp.SendOnly
		f.stream.Negotiate(formats(to.Formats), agreed.Encryption != "")
		if e.m != nil {
			f.since = e.m.at
		}
	}
	if a, b := d.flows[uac], d.flows[uas]; a != nil && b != nil {
		b.trip = a.trip
		a.due = max(a.due, b.due)
		b.due = a.due
	}
}

func formats(list []sdp.Format) []media.Format {
	out := make([]media.Format, 0, len(list))
	for _, f := range list {
		out = append(out, media.Format{PayloadType: f.PayloadType, Codec: f.Codec, ClockRate: f.ClockRate})
	}
	return out
}

// flow returns the flow that side from sends, towards dst: a new one, or the one there is, moved.
func (e *engine) flow(d *dialog, from side, dst, rtcp netip.AddrPort) *flow {
	dst, rtcp = onWire(dst), onWire(rtcp)
	f := d.flows[from]
	switch {
	case f == nil:
		if e.streams >= e.o.MaxStreams {
			e.out.Count("streams_full", 1)
			return nil
		}
		f = &flow{d: d, from: from, lag: e.lag, trip: &media.RoundTrip{}, stream: media.New(&e.measure, e.now-e.lag)}
		f.since, f.due = e.now-e.lag, e.now-e.lag+e.interval()
		d.flows[from] = f
		e.streams++
	case f.dst == dst && f.rtcp == rtcp:
		return f
	case f.dst == dst:
		e.unfile(f)
	default:
		e.unfile(f)
		f.latch = netip.AddrPort{}
	}
	f.dst, f.rtcp = dst, rtcp
	f.off = !e.measured(f)
	e.file(f)
	return f
}

// onWire is a as packets have it: without the zone that an SDP may name.
func onWire(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func (e *engine) interval() call.Time { return call.Time(e.o.Quality.Interval.Microseconds()) }

// maxSameDestination bounds the flows to one destination: a switch that rings many phones and stays out of the audio's way
// names one for all of them.
const maxSameDestination = 64

// file makes f found by its destination, in the place of the oldest that nobody has answered if there are too many.
func (e *engine) file(f *flow) {
	n, oldest := 0, (*flow)(nil)
	for x := e.flows[f.dst]; x != nil; x = x.next {
		if n++; !x.agreed {
			oldest = x
		}
	}
	if n >= maxSameDestination {
		e.out.Count("streams_same_destination", 1)
		if oldest == nil {
			return
		}
		e.unfile(oldest)
	}
	f.next = e.flows[f.dst]
	e.flows[f.dst] = f
	if f.rtcp.IsValid() && (f.rtcp.Addr() != f.dst.Addr() || f.rtcp.Port()&^1 != f.dst.Port()&^1) {
		e.reports[f.rtcp] = f
	}
}

func (e *engine) unfile(f *flow) {
	if e.reports[f.rtcp] == f {
		delete(e.reports, f.rtcp)
	}
	for p := e.flows[f.dst]; p != nil; p = p.next {
		switch {
		case p == f && f.next == nil:
			delete(e.flows, f.dst)
		case p == f:
			e.flows[f.dst] = f.next
		case p.next == f:
			p.next = f.next
		default:
			continue
		}
		break
	}
	f.next = nil
}

// measured reports whether f is among the streams that are measured while there are too many packets for all.
func (e *engine) measured(f *flow) bool {
	h := newDigest().text(f.d.callID).number(uint64(f.from))
	h ^= h >> 32
	return e.sampling == 0 || h&(1<<e.sampling-1) == 0
}

// maxSampling is one stream in 1024.
const maxSampling = 10

// sample sets how many streams are measured: one in 1<<level. What is left out reports nothing any more.
func (e *engine) sample(level uint) {
	if level = min(level, maxSampling); level == e.sampling {
		return
	}
	e.sampling = level
	for _, f := range e.flows {
		for ; f != nil; f = f.next {
			f.off = f.off || !e.measured(f)
		}
	}
}

// rtp takes one RTP packet.
func (e *engine) rtp(p *wire.Packet) {
	f := e.flows[p.Dst]
	if f == nil {
		e.out.Count("rtp_of_no_call", 1)
		return
	}
	if f.next == nil && f.latch == p.Src {
		e.take(f, p)
		return
	}
	chosen := f.choose(p.Src, p.Received)
	if chosen == nil {
		e.out.Count("rtp_unexpected_source", 1)
		return
	}
	e.take(chosen, p)
	for x := f; x != nil; x = x.next { // a switch out of the audio's way has it in both of its dialogs
		if x != chosen && x.src == p.Src && x.agreed {
			x.latch = p.Src
			e.take(x, p)
		}
	}
}

// maxHosts bounds the hosts that are known to be heard.
const maxHosts = 100_000

// noteHosts notes that RTP from and to p's hosts passes here.
func (e *engine) noteHosts(p *wire.Packet) {
	if len(e.heardAt) >= maxHosts { // those who still are will be noted within a second
		clear(e.heardAt)
	}
	e.heardAt[p.Src.Addr()], e.heardAt[p.Dst.Addr()] = p.Received, p.Received
}

// take takes one RTP packet of f.
func (e *engine) take(f *flow, p *wire.Packet) {
	if f.off {
		return
	}
	f.lastHeard, f.lag = p.Received, p.Received-p.At
	if p.Received-f.noted >= call.Second {
		f.noted = p.Received
		e.noteHosts(p)
	}
	ev, err := f.stream.RTP(p.At, p.Payload)
	if err != nil {
		e.out.Count("invalid_rtp", 1)
		return
	}
	if ev != nil {
		e.heard(f, ev.Digits, p)
	}
}

// choose picks, among the flows to one destination, the one that src may send: where its description says, or, behind a
// NAT, from the address that its signalling comes from. Once a source has sent, it alone counts, unless it falls silent.
func (f *flow) choose(src netip.AddrPort, now call.Time) *flow {
	var fallback *flow
	for x := f; x != nil; x = x.next {
		if x.latch == src {
			return x
		}
		if fallback == nil && x.accepts(src, now) {
			fallback = x
		}
		if x.src == src {
			fallback = x
		}
	}
	if fallback == nil {
		for x := f; x != nil; x = x.next {
			x.foreign = true
		}
		return nil
	}
	fallback.latch, fallback.loose = src, false
	return fallback
}

// silentFor is how long a source says nothing before its audio may come from another port: a NAT has forgotten it.
const silentFor = 2 * call.Second

// accepts reports whether f may come from src.
func (f *flow) accepts(src netip.AddrPort, now call.Time) bool {
	if f.src == src {
		return true
	}
	if f.latch.IsValid() && !f.loose && now-f.lastHeard < silentFor {
		return false // the one that sends counts
	}
	switch {
	case !f.src.IsValid(): // the sender has not described itself yet
		return src.Addr() == f.d.ends[f.from].Addr()
	case f.src.Addr() == src.Addr():
		return true
	default:
		return f.src.Addr().IsPrivate() && src.Addr() == f.d.ends[f.from].Addr()
	}
}

// heard tells the digits that came in a packet of f.
func (e *engine) heard(f *flow, digits []media.Digit, p *wire.Packet) {
	leg := f.d.legs[f.from]
	if leg == "" || len(digits) == 0 {
		return
	}
	for _, g := range digits {
		e.pressed(f.d, press{leg: leg, digit: g.Digit, at: g.Start}, g.DurationMS)
	}
	if len(e.obs) > 0 {
		e.flush("RTP telephone-event", append([]byte(nil), p.Payload...), p.Received)
	}
}

// mediaHeard is when a packet of d's audio came last, by our clock.
func (d *dialog) mediaHeard() (at call.Time) {
	for _, f := range d.flows {
		if f != nil {
			at = max(at, f.lastHeard)
		}
	}
	return at
}
