package sip

import (
	"fmt"
	"net/netip"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// rtcp takes one RTCP packet.
func (e *engine) rtcp(p *wire.Packet) {
	f := e.reporter(p)
	if f == nil {
		e.out.Count("rtcp_of_no_call", 1)
		return
	}
	r, err := media.ParseRTCP(p.Payload, f.d.media[f.from].Encryption != "")
	if err != nil {
		e.out.Count("invalid_rtcp", 1)
		return
	}
	e.remote(f, p.At, r)
}

// rtcpJSON takes RTCP in the JSON form of HEP agents.
func (e *engine) rtcpJSON(p *wire.Packet) {
	r, err := media.ParseRTCPJSON(p.Payload)
	if err != nil {
		e.out.Count("invalid_rtcp", 1)
		return
	}
	f := e.reporter(p)
	if f == nil {
		e.out.Count("rtcp_of_no_call", 1)
		return
	}
	e.remote(f, p.At, r)
}

// reporter is the flow whose sender has sent the RTCP packet p: by where it goes, which is the flow's own destination or
// the one for reports beside it, else by the call that a HEP agent names.
func (e *engine) reporter(p *wire.Packet) *flow {
	for _, port := range [...]uint16{p.Dst.Port(), p.Dst.Port() &^ 1} {
		for f := e.flows[netip.AddrPortFrom(p.Dst.Addr(), port)]; f != nil; f = f.next {
			here := f.dst == p.Dst || f.rtcp == p.Dst || p.Kind == wire.RTCPJSON
			if here && (!f.src.IsValid() || f.src.Addr() == p.Src.Addr()) {
				return f
			}
		}
	}
	if f := e.reports[p.Dst]; f != nil && (!f.src.IsValid() || f.src.Addr() == p.Src.Addr()) {
		return f
	}
	if p.Correlation == "" {
		return nil
	}
	for d := e.dialogs[p.Correlation]; d != nil; d = d.next {
		for _, f := range d.flows {
			if f != nil && f.src.IsValid() && f.src.Addr() == p.Src.Addr() {
				return f
			}
		}
	}
	return nil
}

// remote takes what the sender of f says by RTCP of the stream it receives, and when.
func (e *engine) remote(f *flow, at call.Time, r *media.RTCP) {
	f.trip.RTCP(at, r)
	received := f.d.flows[f.from.other()]
	if received == nil {
		return
	}
	for i := range r.Blocks {
		if received.stream.Reported(at, &r.Blocks[i]) {
			received.reported = at
		}
	}
	for i := range r.Metrics {
		if received.stream.ReportedXR(at, &r.Metrics[i]) {
			received.reported = at
		}
	}
	if ms, _, ok := f.trip.MS(); ok {
		received.stream.SetRoundTrip(ms)
		f.stream.SetRoundTrip(ms)
	}
}

// report tells of d's streams what was measured in their interval, when that is over: of both directions together, since
// each is judged by the other.
func (e *engine) report(d *dialog) {
	quiet := e.quiet(d, false)
	for _, f := range d.flows {
		if f == nil || e.now-f.lag < f.due {
			continue
		}
		now := e.now - f.lag
		f.due = max(f.due+e.interval(), now)
		e.quality(f, now, false, quiet)
		e.heardLate(f, now, false)
	}
}

// quiet says which of d's directions should be heard and are not.
func (e *engine) quiet(d *dialog, final bool) (out [2]bool) {
	for s, f := range d.flows {
		out[s] = f != nil && e.silent(f, e.now-f.lag, final)
	}
	return out
}

// heardLate tells a digit whose end was lost; at the stream's end, with final, at once.
func (e *engine) heardLate(f *flow, now call.Time, final bool) {
	leg := f.d.legs[f.from]
	for _, g := range f.stream.Expire(now, final) {
		if leg != "" {
			e.pressed(f.d, press{leg: leg, digit: g.Digit, at: g.Start}, g.DurationMS)
		}
	}
	if e.m == nil && len(e.obs) > 0 {
		e.flush("RTP telephone-event", nil, e.now)
	}
}

// closeFlows ends the streams of d with a report of their whole life.
func (e *engine) closeFlows(d *dialog) {
	quiet := e.quiet(d, true)
	for s, f := range d.flows {
		if f == nil {
			continue
		}
		now := e.now - f.lag
		e.heardLate(f, now, true)
		e.quality(f, now, true, quiet)
		e.unfile(f)
		d.flows[s] = nil
		e.streams--
	}
}

// quality reports f: about the party that sends it, or, where that is a switch, about the one that receives it.
func (e *engine) quality(f *flow, now call.Time, final bool, quiet [2]bool) {
	leg, direction := f.d.legs[f.from], call.FromParty
	if leg == "" {
		leg, direction = f.d.legs[f.from.other()], call.ToParty
	}
	if leg == "" || f.off {
		return
	}
	silent := quiet[f.from]
	packets := f.stream.Packets()
	news := silent || packets > f.atReport || f.reported > f.told
	if final {
		news = silent || packets > 0 || f.reported > 0
	}
	if !news {
		return
	}
	q := f.stream.Report(now, final)
	q.Direction, q.Destination = direction, f.dst.String()
	if source := f.source(); source.IsValid() {
		q.Source = source.String()
	}
	q.Flags = append(q.Flags, f.flags(quiet)...)
	if e.sampling > 0 {
		q.Sampling = 1 / float64(uint(1)<<e.sampling)
	}
	f.atReport, f.told, f.foreign = packets, f.reported, false
	before := len(e.obs)
	o := e.observe(call.LegQuality, leg)
	o.Quality = q
	if e.m == nil {
		o.At = now
	}
	o.Native = call.Native{Type: "RTP", ID: fmt.Sprintf("%s/%s/%s/%s/%d", leg, f.src, f.dst, q.Stream, q.From)}
	if final {
		o.Native.ID += "/final"
	}
	if e.m == nil && !final && before == 0 {
		e.flush("RTP", nil, e.now)
	}
}

func (f *flow) source() netip.AddrPort {
	if f.latch.IsValid() {
		return f.latch
	}
	return f.src
}

// passes reports whether audio like f's is seen here: some that one of its hosts sends or receives. Where phones talk
// past the switch, their calls' audio may not be, though that of other calls is.
func (e *engine) passes(f *flow) bool {
	const elsewhere = 60 * call.Second
	for _, a := range [...]netip.AddrPort{f.dst, f.source()} {
		if at, ok := e.heardAt[a.Addr()]; ok && e.now-at <= elsewhere {
			return true
		}
	}
	return false
}

// silent reports whether f should have been heard in its interval, or ever, and was not: audio was agreed, and audio of
// its hosts is seen.
func (e *engine) silent(f *flow, now call.Time, final bool) bool {
	const settle = 2 * call.Second
	if !f.agreed || f.d.held[uac] || f.d.held[uas] || f.d.phase != confirmed || now-f.since < settle || !e.passes(f) {
		return false
	}
	if final {
		return f.stream.Packets() == 0
	}
	return f.stream.Packets() == f.atReport
}

func (f *flow) flags(quiet [2]bool) (out []string) {
	switch {
	case quiet[f.from]:
		out = append(out, call.FlagNoMedia)
	case quiet[f.from.other()]:
		out = append(out, call.FlagOneWay)
	}
	if f.foreign {
		out = append(out, call.FlagUnexpectedSource)
	}
	return out
}
