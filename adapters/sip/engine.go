package sip

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	sipgo "github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// output is where an engine's frames go: a core.Emitter, or the outbox before one.
type output interface {
	Frame(core.Frame) error
	DeadLetter(core.DeadLetter) error
	Count(name string, n int)
}

// engine makes observations about legs of the SIP, RTP and RTCP packets that it is given, in their order. Time comes in
// with the packets and by advance. It is not safe for concurrent use.
type engine struct {
	o      Config
	parser *sipgo.Parser
	out    output
	err    error // of out: what follows is for nothing

	now    call.Time // our clock: the latest packet's, or the latest advance
	ticked call.Time
	lag    call.Time // our clock less the capture's, at the latest packet

	dialogs     map[string]*dialog // by Call-ID
	first, last *dialog            // oldest first
	unanswered  fifo               // nothing came back for them yet: the first to go in a flood
	spare       fifo               // over, challenged or strays: the first to go for want of room
	n           int
	index       index
	roles       roles

	flows    map[netip.AddrPort]*flow // by destination
	reports  map[netip.AddrPort]*flow // by where reports about the other direction go, where that is not beside it
	streams  int
	calm     call.Time // last time the load was high
	sampling uint      // streams are measured one in 1<<sampling
	measure  media.Options
	heardAt  map[netip.Addr]call.Time // hosts that known streams come from or go to, by our clock, to a second

	obs []call.Observation // of the message in hand; its room is used again
	m   *message           // in hand; nil for what time brings
}

func newEngine(o Config, out output) *engine {
	return &engine{
		o: o, out: out, parser: newParser(o.MaxMessageBytes),
		dialogs: map[string]*dialog{}, index: newIndex(), roles: newRoles(o.PBX),
		flows: map[netip.AddrPort]*flow{}, reports: map[netip.AddrPort]*flow{}, heardAt: map[netip.Addr]call.Time{}, measure: media.Options{JitterBufferMS: float64(o.Quality.JitterBuffer.Microseconds()) / 1000},
	}
}

// packet takes one packet. It is a wire.Handler.
func (e *engine) packet(p *wire.Packet) {
	e.lag = p.Received - p.At
	e.advance(p.Received)
	switch p.Kind {
	case wire.RTP:
		e.rtp(p)
	case wire.RTCP:
		e.rtcp(p)
	case wire.RTCPJSON:
		e.rtcpJSON(p)
	case wire.SIP:
		e.message(p)
	default:
		e.datagram(p)
	}
}

// datagram tells apart what UDP carries: the two highest bits of RTP and RTCP are their version, 2 (RFC 3550, 5.1), and
// SIP begins with a letter.
func (e *engine) datagram(p *wire.Packet) {
	b := p.Payload
	switch {
	case len(b) >= 8 && b[0]>>6 == 2:
		if b[1] >= 192 && b[1] <= 223 { // RFC 5761, 4
			e.rtcp(p)
		} else {
			e.rtp(p)
		}
	case looksLikeSIP(b):
		e.message(p)
	case len(bytes.Trim(b, "\r\n\x00 ")) == 0: // RFC 5626 keep-alives, and what NATs are kept open with
	default:
		e.out.Count("other_protocol", 1)
	}
}

// looksLikeSIP reports whether b begins as a SIP message: a status line, or a request line as far as it goes.
func looksLikeSIP(b []byte) bool {
	if bytes.HasPrefix(b, []byte("SIP/")) {
		return true
	}
	word, rest, ok := bytes.Cut(b[:min(len(b), 32)], []byte(" "))
	if !ok || len(word) < 3 || len(rest) == 0 {
		return false
	}
	for _, c := range word {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	line, _, _ := bytes.Cut(b[:min(len(b), 8192)], []byte("\n"))
	return bytes.Contains(line, []byte("SIP/")) || bytes.Contains(line, []byte("sip:"))
}

// message takes one SIP message.
func (e *engine) message(p *wire.Packet) {
	m, err := understand(e.parser, p)
	if err != nil {
		e.out.Count("invalid_sip", 1)
		e.unreadable(p.Payload, err, p.Received)
		return
	}
	e.m = m
	e.handle(m)
	e.flush(m.name(), m.raw, m.received)
	e.m = nil
}

// unreadable hands over what could not be understood.
func (e *engine) unreadable(b []byte, err error, received call.Time) {
	raw := bytes.Clone(b)
	sdp.MaskKeys(raw)
	e.keep(e.out.DeadLetter(core.DeadLetter{Raw: raw, Reason: err.Error(), Received: received}))
}

// flush hands over the message in hand and what was observed in it.
func (e *engine) flush(name string, raw []byte, received call.Time) {
	sdp.MaskKeys(raw)
	obs := append([]call.Observation(nil), e.obs...)
	clear(e.obs)
	e.obs = e.obs[:0]
	e.keep(e.out.Frame(core.Frame{Type: name, Raw: raw, Received: received, Observations: obs}))
}

func (e *engine) keep(err error) {
	if e.err == nil {
		e.err = err
	}
}

// handle finds m's dialog and lets it take m.
func (e *engine) handle(m *message) {
	d := e.find(m)
	if d == nil {
		d = e.meet(m)
		if d == nil {
			return
		}
	}
	from, ok := d.sender(m)
	if !ok {
		e.out.Count("foreign_tags", 1)
		return
	}
	if !e.trusted(d, m) {
		if m.method == "INVITE" && m.status == 0 { // a phone that has changed networks: its answer will tell
			d.doubtful = m
		}
		return
	}
	d.heard, d.lag, d.spoken[from] = e.now, e.lag, true
	if d.phase < confirmed || d.knows(m.src.Addr()) {
		d.meet(m.src.Addr())
		d.meet(m.dst.Addr())
	}
	if again, hop := d.repeated(m, from); again {
		e.again(d, m, hop)
		return
	}
	if m.status == 0 {
		e.request(d, m, from)
	} else {
		e.response(d, m, from)
	}
}

// again counts a repeated message. At another hop it shows where the INVITE went next.
func (e *engine) again(d *dialog, m *message, hop bool) {
	if !hop {
		e.out.Count("retransmissions", 1)
		return
	}
	e.out.Count("other_hops", 1)
	if m.method == "INVITE" && m.status == 0 && m.toTag == "" && d.phase < challenged {
		d.attempt(m)
	}
	if m.method == "INVITE" && m.status == 0 && m.src.Addr() == d.ends[uas].Addr() {
		d.ends[uas] = m.dst
	}
}

// find returns m's dialog, nil when there is none.
func (e *engine) find(m *message) *dialog {
	for d := e.dialogs[m.callID]; d != nil; d = d.next {
		if m.fromTag == d.tags[uac] || m.toTag != "" && m.toTag == d.tags[uac] {
			if d.triedAgain(m) {
				return nil
			}
			return d
		}
	}
	return nil
}

// meet begins a dialog with m, when m is of one: its INVITE, or something that shows one in the middle.
func (e *engine) meet(m *message) *dialog {
	switch {
	case m.method == "REGISTER":
		e.roles.register(m)
	case m.method != "INVITE" && m.method != "UPDATE" || m.fromTag == "":
		if m.status == 0 && m.toTag != "" && m.method != "ACK" {
			e.out.Count("unknown_dialog", 1)
		}
	case m.status == 0 && m.toTag == "" && m.method == "INVITE":
		return e.invited(m)
	case m.toTag != "" && (m.status == 0 || m.status >= 180 && m.status < 300):
		return e.joined(m)
	}
	return nil
}

// trusted reports whether m may change d: it comes from an address that d's signalling has used or named before, for
// anybody who has seen a message could write another one with its tags. Another INVITE without a tag in To repeats the
// first, and an answer to it proves by its branch that its sender has received it.
func (e *engine) trusted(d *dialog, m *message) bool {
	switch {
	case d.knows(m.src.Addr()), m.method == "INVITE" && m.status == 0 && m.toTag == "" && d.phase < confirmed:
		return true
	case m.status != 0 && m.branch != "" && m.branch == d.branch:
		return true
	}
	e.out.Count("unexpected_source", 1)
	return false
}

// add puts d among the dialogs, making room for it if need be; false when there is none.
func (e *engine) add(d *dialog) bool {
	if !e.roomFor(d.callID) {
		e.out.Count("dialogs_same_call_id", 1)
		return false
	}
	if e.n >= e.o.MaxDialogs && !e.makeRoom() {
		e.out.Count("dialogs_full", 1)
		return false
	}
	d.next = e.dialogs[d.callID]
	e.dialogs[d.callID] = d
	if e.last == nil {
		e.first = d
	} else {
		e.last.new, d.older = d, e.last
	}
	e.last = d
	e.n++
	return true
}

// maxSameCallID bounds the dialogs of one Call-ID: attempts, and what a border element that keeps it makes of them.
const maxSameCallID = 64

// roomFor reports whether there may be another dialog of a Call-ID; the oldest that is over makes room for it.
func (e *engine) roomFor(callID string) bool {
	n, over := 0, (*dialog)(nil)
	for d := e.dialogs[callID]; d != nil; d = d.next {
		if n++; !d.live() {
			over = d
		}
	}
	if n >= maxSameCallID && over != nil {
		e.remove(over)
	}
	return n < maxSameCallID || over != nil
}

// makeRoom drops a dialog that is over, challenged or a stray, or else the oldest that nobody has answered with so much
// as a 100.
func (e *engine) makeRoom() bool {
	d := e.spare.pop((*dialog).spare)
	if d == nil {
		d = e.unanswered.pop(func(d *dialog) bool { return d.phase == trying })
	}
	if d == nil {
		return false
	}
	if d.live() {
		e.out.Count("dialogs_given_up", 1)
		e.vanish(d, "ctigate.too_many_dialogs")
	}
	e.remove(d)
	return true
}

// remove forgets d.
func (e *engine) remove(d *dialog) {
	if d.gone {
		return
	}
	d.gone = true
	e.unlist(d)
	for p := e.dialogs[d.callID]; ; p = p.next {
		if p == d {
			if d.next == nil {
				delete(e.dialogs, d.callID)
			} else {
				e.dialogs[d.callID] = d.next
			}
			break
		}
		if p.next == d {
			p.next = d.next
			break
		}
	}
	d.next = nil
	d.group.drop(d)
	e.index.drop(d)
}

func (e *engine) unlist(d *dialog) {
	if d.older == nil {
		e.first = d.new
	} else {
		d.older.new = d.new
	}
	if d.new == nil {
		e.last = d.older
	} else {
		d.new.older = d.older
	}
	d.older, d.new = nil, nil // whoever still holds d holds no other
	e.n--
}

// observe adds an observation about leg to those of the message in hand.
func (e *engine) observe(kind call.Kind, leg string) *call.Observation {
	o := call.Observation{Kind: kind, Leg: leg}
	if m := e.m; m != nil {
		o.At, o.Received, o.Native = m.at, m.received, m.native()
	} else {
		o.At, o.Received = e.now-e.lag, e.now
	}
	e.obs = append(e.obs, o)
	return &e.obs[len(e.obs)-1]
}

// vanish ends a dialog of which nothing is heard any more, at the time of its last message or audio. Why is its native event.
func (e *engine) vanish(d *dialog, why string) {
	e.out.Count("dialogs_lost", 1)
	held, m := e.obs, e.m
	e.obs, e.m = nil, nil
	at := d.heard - d.lag
	for _, f := range d.flows {
		if f != nil && f.lastHeard != 0 {
			at = max(at, f.lastHeard-f.lag)
		}
	}
	e.end(d, ending{at: at, by: -1, synthetic: true})
	e.late(d, why)
	e.obs, e.m = held, m
}

// snapshot tells, at the beginning of another session, which legs there are as far as is known: what was said of others
// before, by a recording client for one, is over.
func (e *engine) snapshot(now call.Time) {
	e.now = max(e.now, now)
	for d := e.first; d != nil; d = d.new {
		for _, leg := range d.legs {
			if leg == "" || !d.live() {
				continue
			}
			o := e.observe(call.SnapshotLeg, leg)
			switch {
			case d.phase == confirmed:
				o.Value = "up"
			case d.alerted && leg == d.legs[uas]:
				o.Value = string(call.Alerting)
			default:
				o.Value = string(call.Initiated)
			}
		}
	}
	e.observe(call.SnapshotEnd, "")
	for i := range e.obs {
		e.obs[i].Native = call.Native{Type: "ctigate.snapshot", ID: now.String()}
	}
	e.flush("snapshot", nil, e.now)
}

// fifo is a queue of dialogs by age, from which those that have been answered since fall out when their turn comes.
type fifo struct{ list []*dialog }

func (f *fifo) push(d *dialog) { f.list = append(f.list, d) }

// trim drops those at the front that are not wanted; of more than limit, all of them.
func (f *fifo) trim(limit int, wanted func(*dialog) bool) {
	if len(f.list) > limit {
		f.list = slices.DeleteFunc(f.list, func(d *dialog) bool { return d.gone || !wanted(d) })
	}
	i := 0
	for i < len(f.list) && (f.list[i].gone || !wanted(f.list[i])) {
		f.list[i] = nil
		i++
	}
	if f.list = f.list[i:]; len(f.list) == 0 {
		f.list = nil
	}
}

// pop returns the oldest that is wanted and not gone; what is not wanted is dropped on the way.
func (f *fifo) pop(wanted func(*dialog) bool) *dialog {
	for i, d := range f.list {
		if !d.gone && wanted(d) {
			f.list = f.list[i+1:]
			return d
		}
	}
	f.list = nil
	return nil
}

// legID is the id of d's leg whose party has tag. What is tried again after a refusal is another leg.
func (d *dialog) legID(tag string) string {
	if d.again {
		return fmt.Sprintf("%s;%s;%d", d.callID, tag, d.cseq)
	}
	return d.callID + ";" + tag
}
