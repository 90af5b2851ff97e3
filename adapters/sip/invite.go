package sip

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// invited begins a dialog with its INVITE.
func (e *engine) invited(m *message) *dialog {
	d := e.newDialog(m)
	d.tags[uac], d.cseq, d.branch = m.fromTag, m.cseq, m.branch
	d.ends = [2]netip.AddrPort{m.sender(), m.dst}
	d.attempt(m)
	before := e.refusedBefore(m)
	d.again = before != nil
	if !e.add(d) {
		return nil
	}
	e.unanswered.push(d)
	id := identify(m)
	d.number, d.dialed, d.target = id.number, m.req.Recipient.User, m.req.Recipient.HostPort()
	rel := e.relate(d, m, id)
	if rel.to == nil && before != nil {
		rel = relation{to: before, evidence: "call_id", replaces: true}
	}
	calledBySwitch := rel.to != nil && !rel.replaces || e.roles.isSwitch(d.ends[uac], m)
	if calledBySwitch {
		e.roles.learn(d.ends[uac])
	}
	switch {
	case strings.Contains(m.header("require"), "siprec"): // a recording of a call (RFC 7866), and no call
		e.out.Count("recording_sessions", 1)
	case e.o.View == ViewTrunk, !calledBySwitch:
		e.takeInbound(d, m, id, rel)
	case d.ends[uac] == d.ends[uas]: // a switch that follows a diversion by calling itself
	default:
		e.takeOutbound(d, m, id, rel)
	}
	e.index.put(d, e.tokens(m))
	e.variables(d, m)
	e.history(d, m)
	e.describe(d, m, uac)
	return d
}

// refusedBefore is the attempt that m repeats after its refusal, nil for none.
func (e *engine) refusedBefore(m *message) *dialog {
	for d := e.dialogs[m.callID]; d != nil; d = d.next {
		if m.fromTag == d.tags[uac] {
			return d
		}
	}
	return nil
}

func (e *engine) newDialog(m *message) *dialog {
	d := &dialog{callID: m.callID, heard: e.now}
	(&group{}).add(d)
	d.meet(m.src.Addr())
	d.meet(m.dst.Addr())
	d.meetNamed(m)
	return d
}

// takeInbound makes d a leg of its caller.
func (e *engine) takeInbound(d *dialog, m *message, id identity, rel relation) {
	leg := d.legID(d.tags[uac])
	d.legs[uac] = leg
	o := e.observe(call.LegCreated, leg)
	o.Inbound, o.Number, o.Name, o.SIPCallID = true, id.number, id.name, d.callID
	o.Dialed = m.dialed()
	if e.roles.registered(id.number) {
		o.Local, o.User = true, id.number
	}
	o.Local = o.Local || e.o.View == ViewTrunk && e.roles.isSwitch(d.ends[uac], m)
	o.Unseen, o.Correlation = d.unseen, e.correlation(m)
	rel.apply(o, d)
}

// takeOutbound makes d a leg of the party that a switch calls.
func (e *engine) takeOutbound(d *dialog, m *message, id identity, rel relation) {
	leg := d.legID(d.tags[uac])
	d.legs[uas] = leg
	dialed := m.dialed()
	d.user = e.roles.userOf(dialed, d.target)
	o := e.observe(call.LegCreated, leg)
	o.User, o.Number, o.Name, o.SIPCallID = d.user, id.number, id.name, d.callID
	if isPhoneNumber(dialed) {
		o.User, o.Dialed = "", dialed
	}
	o.Unseen, o.Correlation = d.unseen, e.correlation(m)
	rel.apply(o, d)
}

// joined begins a dialog that is found in the middle, by m of its INVITE's transaction or a later one.
func (e *engine) joined(m *message) *dialog {
	d := e.newDialog(m)
	d.unseen, d.cseq, d.branch = true, m.cseq, m.branch
	d.tags = [2]string{m.fromTag, m.toTag}
	d.ends = [2]netip.AddrPort{m.src, m.dst}
	if m.status != 0 {
		d.ends = [2]netip.AddrPort{m.dst, m.src}
	} else {
		d.phase = confirmed // a request with both tags
	}
	if !e.add(d) {
		return nil
	}
	e.spare.push(d)
	id := identify(m)
	d.number, d.dialed = id.number, m.to().Address.User
	rel := e.relate(d, m, id)
	if e.o.View != ViewTrunk && (rel.to != nil || m.req != nil && e.roles.isSwitch(d.ends[uac], m) || m.req == nil && e.roles.known(d.ends[uac])) {
		e.takeOutbound(d, m, id, rel)
	} else {
		e.takeInbound(d, m, id, rel)
	}
	e.index.put(d, e.tokens(m))
	if d.phase == confirmed {
		d.answered = m.at
		e.confirmed(d)
	}
	return d
}

// variables carries the configured headers into the call's attributes.
func (e *engine) variables(d *dialog, m *message) {
	leg := d.anyLeg()
	if leg == "" {
		return
	}
	for _, name := range e.o.Variables {
		if v := m.header(strings.ToLower(name)); v != "" {
			o := e.observe(call.LegVariable, leg)
			o.Reason, o.Value = name, v
		}
	}
}

func (d *dialog) anyLeg() string {
	if d.legs[uac] != "" {
		return d.legs[uac]
	}
	return d.legs[uas]
}

// history tells of diversions before this INVITE: Diversion (RFC 5806), else History-Info (RFC 7044).
func (e *engine) history(d *dialog, m *message) {
	if d.legs[uac] == "" { // a switch tells what it has done itself
		return
	}
	to := m.req.Recipient.User
	if a, ok := parseAddr(m.header("diversion")); ok && a.user != "" {
		o := e.observe(call.Diverted, d.legs[uac])
		o.Other, o.Dialed = a.user, to
		return
	}
	if from, ok := retargeted(m.header("history-info")); ok {
		o := e.observe(call.Diverted, d.legs[uac])
		o.Other, o.Dialed = from, to
	}
}

// retargeted returns the last user that a History-Info names as having sent the call on with a reason.
func retargeted(h string) (user string, ok bool) {
	for entry := range strings.SplitSeq(h, ",") {
		a, good := parseAddr(entry)
		if good && (strings.Contains(entry, "Reason=") || strings.Contains(entry, "cause=")) {
			user, ok = a.user, a.user != ""
		}
	}
	return user, ok
}

// reinvited takes an INVITE of a known dialog: one more try without a tag in To, or a change of the session.
func (e *engine) reinvited(d *dialog, m *message, from side) {
	if m.toTag == "" {
		if m.cseq > d.cseq && (d.phase == challenged || d.phase == trying) {
			d.phase, d.cseq, d.challenged, d.attempts = trying, m.cseq, 0, nil
			d.attempt(m)
		}
	}
	e.describe(d, m, from)
}

// invitation takes a response to an INVITE.
func (e *engine) invitation(d *dialog, m *message, from side) {
	if from == uas && m.cseq == d.cseq && d.phase < confirmed {
		e.firstInvitation(d, m)
		return
	}
	switch {
	case m.status >= 200 && m.status < 300:
		if d.tags[uas] != "" && from == uas && m.toTag != d.tags[uas] {
			e.out.Count("forked_answers", 1) // its caller will end it
			return
		}
		e.timer(d, m)
		e.describe(d, m, from)
	case m.status >= 300:
		d.refuseOffer(m, from)
		if m.status == 481 || m.status == 408 { // RFC 5057: the dialog is gone
			e.end(d, ending{at: m.at, by: -1, sip: m.status})
		}
	default:
		e.describe(d, m, from)
	}
}

// firstInvitation takes a response to the INVITE that began d.
func (e *engine) firstInvitation(d *dialog, m *message) {
	if e.roles.names(m) {
		e.roles.learn(d.ends[uas])
	}
	switch {
	case m.status == 100:
		d.phase = max(d.phase, proceeding)
	case m.status < 200:
		e.progress(d, m)
	case m.status < 300:
		e.answer(d, m)
	case !d.refusedAll(m):
		e.out.Count("forked_refusals", 1)
	case m.status == 401 || m.status == 407 || m.status == 422 || m.status == 494:
		d.phase, d.challenged, d.challenge = challenged, e.now, m.status
		e.spare.push(d)
		d.refuseOffer(m, uas)
	default:
		e.refused(d, m)
	}
}

// progress takes a provisional response: the party is rung, or early media flows.
func (e *engine) progress(d *dialog, m *message) {
	d.phase = max(d.phase, proceeding)
	if m.toTag != "" {
		d.forked = d.forked || d.early != "" && m.toTag != d.early
		d.early = m.toTag
	}
	e.callee(d, m)
	if (m.status == 180 || m.status == 183) && !d.alerted && d.legs[uas] != "" {
		d.alerted = true
		e.observe(call.LegAlerting, d.legs[uas])
	}
	e.describe(d, m, uas)
}

// answer takes the 2xx that confirms the dialog.
func (e *engine) answer(d *dialog, m *message) {
	e.callee(d, m)
	d.tags[uas], d.phase, d.answered = m.toTag, confirmed, m.at
	d.meetNamed(m)
	e.timer(d, m)
	e.describe(d, m, uas)
	e.confirmed(d)
}

// confirmed tells that d's parties are connected.
func (e *engine) confirmed(d *dialog) {
	for _, s := range [...]side{uas, uac} {
		if d.legs[s] != "" {
			e.observe(call.LegConnected, d.legs[s])
		}
	}
}

// acknowledged takes an ACK of the INVITE that began d. Where the 2xx was not seen, it proves it: the caller's ACK of a
// refusal would have the branch of its INVITE (RFC 3261, 17.1.1.3). A proxy's, which has one of the next hop, proves nothing.
func (e *engine) acknowledged(d *dialog, m *message, from side) {
	if from != uac || d.phase >= confirmed || d.phase == challenged || m.toTag == "" || m.cseq != d.cseq || m.branch == "" ||
		m.sender() != d.ends[uac] || d.attemptOf(m) >= 0 {
		return
	}
	e.callee(d, m)
	d.tags[uas], d.phase, d.answered = m.toTag, confirmed, m.at
	e.confirmed(d)
}

// callee gives d a second leg when its other end turns out to be no switch.
func (e *engine) callee(d *dialog, m *message) {
	if d.legs[uac] == "" || d.legs[uas] != "" || m.toTag == "" {
		return
	}
	if calling, _ := d.group.calling(); e.o.View != ViewTrunk && (calling || e.roles.known(d.ends[uas])) {
		return
	}
	leg := d.legID(m.toTag)
	d.legs[uas], d.user = leg, e.roles.userOf(d.dialed, d.target)
	o := e.observe(call.LegCreated, leg)
	o.Parent, o.User, o.SIPCallID, o.Unseen = d.legs[uac], d.user, d.callID, d.unseen
	if isPhoneNumber(d.dialed) {
		o.User, o.Dialed = "", d.dialed
	}
}

// refused ends a dialog that was not answered.
func (e *engine) refused(d *dialog, m *message) {
	reason := reasonQ850(m)
	x := ending{at: m.at, by: int(uas), sip: m.status, q850: reason}
	if x.q850 == 0 {
		x.q850 = q850Of(m.status)
	}
	if d.cancelled != 0 && m.status == 487 { // it was over when it was cancelled
		x.at, x.by, x.q850 = d.cancelled, int(uac), max(reason, 16)
	}
	if m.status >= 300 && m.status < 400 && d.legs[uas] != "" {
		e.diverted(d, m)
		x.q850 = 23
	}
	e.end(d, x)
}

// diverted tells where d's party sent the call.
func (e *engine) diverted(d *dialog, m *message) {
	a, ok := parseAddr(m.header("contact"))
	if !ok {
		return
	}
	d.group.diverted = e.now
	e.observe(call.Diverted, d.legs[uas]).Dialed = a.user
}

// cancel takes a CANCEL of the INVITE that began d. What becomes of it, its final response says: it may come too late.
func (e *engine) cancel(d *dialog, m *message, from side) {
	if from != uac || m.cseq != d.cseq || d.phase >= confirmed || !d.cancelledAll(m) {
		return
	}
	d.cancelled = m.at
	if d.legs[uac] != "" {
		e.observe(call.LegReleasing, d.legs[uac])
	}
}

// timer takes over what a 2xx says of the session timer (RFC 4028).
func (e *engine) timer(d *dialog, m *message) {
	d.expires = 0
	text, _, _ := strings.Cut(m.header("session-expires"), ";")
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n > 0 && n < 1<<22 {
		d.expires = e.now + call.Time(n)*call.Second
	}
}

// ending is how a dialog ended.
type ending struct {
	at        call.Time
	by        int // side of the one who ended it; -1 for neither
	sip, q850 int
	synthetic bool
}

// end clears the legs of d and closes its streams, after those of parties who have left before.
func (e *engine) end(d *dialog, x ending) {
	if !d.live() {
		return
	}
	e.leaveFirst(d)
	e.finish(d, x)
}

// finish is the end of d alone.
func (e *engine) finish(d *dialog, x ending) {
	e.closeFlows(d)
	order := [...]side{uac, uas}
	if x.by == int(uas) {
		order = [...]side{uas, uac}
	}
	for _, s := range order {
		if d.legs[s] == "" {
			continue
		}
		o := e.observe(call.LegCleared, d.legs[s])
		o.At, o.Q850, o.SIP, o.ByParty, o.Unseen, o.Synthetic = x.at, x.q850, x.sip, x.by == int(s), x.by < 0, x.synthetic
	}
	d.phase, d.expires = terminated, 0
	e.spare.push(d)
	d.offer, d.refer, d.doubtful = nil, nil, nil
}

// leaveFirst ends, before d, the dialogs of parties who have passed the call on to d's and not hung up since: they left
// when the transfer was done, and did not end the call.
func (e *engine) leaveFirst(d *dialog) {
	for _, x := range d.group.dialogs {
		if r := x.refer; x != d && x.live() && r != nil && r.done && r.replaces != d.callID {
			e.finish(x, ending{at: r.doneAt, by: int(r.by), q850: 16})
		}
	}
}

// reasonQ850 is the cause in a Reason header (RFC 3326).
func reasonQ850(m *message) int {
	for _, h := range m.headers() {
		if !strings.EqualFold(h.Name(), "Reason") {
			continue
		}
		for r := range strings.SplitSeq(h.Value(), ",") {
			if protocol, rest, _ := strings.Cut(r, ";"); strings.EqualFold(strings.TrimSpace(protocol), "Q.850") {
				if n, err := strconv.Atoi(param(rest, "cause")); err == nil && n > 0 && n < 128 {
					return n
				}
			}
		}
	}
	return 0
}

// q850Of maps a final SIP status to a Q.850 cause (RFC 3398, 8.2.6.1, and for 480 and 487 what switches mean by them).
func q850Of(status int) int {
	switch status {
	case 400, 481, 500, 503:
		return 41
	case 401, 402, 403, 407, 603:
		return 21
	case 404, 604:
		return 1
	case 405:
		return 63
	case 408, 504:
		return 102
	case 410:
		return 22
	case 413, 414, 416, 420, 421, 423, 505, 513:
		return 127
	case 415, 488, 606:
		return 79
	case 480:
		return 19
	case 482, 483:
		return 25
	case 484:
		return 28
	case 486, 600:
		return 17
	case 487:
		return 16
	case 501:
		return 79
	case 502:
		return 38
	}
	if status >= 300 && status < 400 {
		return 23
	}
	return 31
}
