package sip

import (
	"fmt"

	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core/call"
)

// describe takes the session description in m, if any, as an offer or as the answer to one (RFC 3264; RFC 6337 says
// which it is).
func (e *engine) describe(d *dialog, m *message, from side) {
	if !d.live() { // nothing would close its streams
		return
	}
	desc, err := m.description()
	if err != nil {
		e.out.Count("invalid_sdp", 1)
		e.unreadable(m.Body(), fmt.Errorf("reading the session description of a %s: %w", m.name(), err), m.received)
		return
	}
	if desc == nil {
		return
	}
	o := d.offer
	answers := o != nil && o.by != from && (m.status != 0 && m.method == o.method && m.cseq == o.cseq || m.status == 0 && (m.method == "ACK" || m.method == "PRACK"))
	if !answers {
		if m.status != 0 || m.method != "ACK" {
			d.offer = &offered{by: from, method: m.method, cseq: m.cseq, sdp: desc}
			e.expect(d, from, desc)
		}
		return
	}
	e.agree(d, o, desc, m.status >= 200 || m.status == 0)
}

// refuseOffer drops the offer that m, of side from, refuses: in a glare both sides may have used the same CSeq.
func (d *dialog) refuseOffer(m *message, from side) {
	if o := d.offer; o != nil && o.by != from && o.method == m.method && o.cseq == m.cseq {
		d.offer = nil
	}
}

// audio returns the first audio stream of what was agreed, and the descriptions it comes from; nil for none.
func audio(offer, answer *sdp.Description) (agreed *sdp.Agreed, o, a *sdp.Media) {
	all := sdp.Negotiate(offer, answer)
	for i := range all {
		if all[i].Kind == "audio" && !all[i].Refused && i < len(answer.Media) {
			return &all[i], &offer.Media[i], &answer.Media[i]
		}
	}
	return nil, nil, nil
}

// agree takes the answer to o. final says that it is not of a provisional response: only then does a hold begin or end.
func (e *engine) agree(d *dialog, o *offered, answer *sdp.Description, final bool) {
	agreed, om, am := audio(o.sdp, answer)
	if agreed == nil {
		d.mute(final)
		return
	}
	sides := [2]*sdp.Side{&agreed.Offerer, &agreed.Answerer}
	if o.by == uas {
		sides[0], sides[1] = sides[1], sides[0]
	}
	for s, side := range sides {
		d.media[s] = call.Media{
			Codec: agreed.Codec.Codec, SampleRate: agreed.Codec.SampleRate, ClockRate: agreed.Codec.ClockRate,
			PTimeMS: sides[1-s].PTimeMS, Direction: side.Direction, Encryption: agreed.Encryption,
		}
		if leg := d.legs[s]; leg != "" && agreed.Codec.Codec != "" {
			m := d.media[s]
			ob := e.observe(call.LegMedia, leg)
			ob.Value, ob.Count, ob.Media = m.Codec, m.SampleRate, &m
		}
	}
	if final {
		byOfferer, byAnswerer := sdp.Holds(om, am)
		e.hold(d, o.by, byOfferer)
		e.hold(d, o.by.other(), byAnswerer)
	}
	e.stream(d, sides, agreed)
}

// mute notes that no audio is agreed any more: of a fax by T.38, say.
func (d *dialog) mute(final bool) {
	for _, f := range d.flows {
		if f != nil && final {
			f.agreed = false
		}
	}
}

// hold tells that the party on side s has put the call on hold, or taken it back.
func (e *engine) hold(d *dialog, s side, h sdp.Hold) {
	if h == sdp.HoldUnchanged || d.held[s] == (h == sdp.HoldOn) {
		return
	}
	d.held[s] = h == sdp.HoldOn
	leg := d.legs[s]
	switch {
	case leg == "" || d.phase != confirmed:
	case d.held[s]:
		e.observe(call.LegHeld, leg)
	default:
		e.observe(call.LegRetrieved, leg)
	}
}
