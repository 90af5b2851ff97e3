package sip

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// request takes a request in a dialog, by the side that sent it.
func (e *engine) request(d *dialog, m *message, from side) {
	switch m.method {
	case "INVITE":
		if m.toTag == "" && m.cseq == d.cseq && m.branch == d.branch && d.phase == trying {
			return // the one that began d
		}
		e.reinvited(d, m, from)
	case "CANCEL":
		e.cancel(d, m, from)
	case "BYE":
		e.bye(d, m, from)
	case "ACK":
		e.acknowledged(d, m, from)
		e.describe(d, m, from)
	case "UPDATE", "PRACK":
		e.describe(d, m, from)
	case "INFO":
		e.info(d, m, from)
	case "REFER":
		e.refer(d, m, from)
	case "NOTIFY":
		e.notify(d, m, from)
	}
}

// response takes a response in a dialog, by the side that sent it.
func (e *engine) response(d *dialog, m *message, from side) {
	switch m.method {
	case "INVITE":
		if x := d.doubtful; x != nil && m.status >= 200 && m.cseq == x.cseq && m.branch == x.branch {
			d.doubtful = nil
			if m.status < 300 {
				d.meet(x.src.Addr())
				e.reinvited(d, x, from.other())
			}
		}
		e.invitation(d, m, from)
	case "UPDATE", "PRACK":
		switch {
		case m.status >= 300:
			d.refuseOffer(m, from)
		case m.status >= 200:
			if m.method == "UPDATE" && d.phase == confirmed {
				e.timer(d, m)
			}
			e.describe(d, m, from)
		}
	case "REFER":
		e.referAnswered(d, m, from)
	case "BYE":
		e.byeAnswered(d, m, from)
	}
}

// bye ends d. That of a fork which lost ends nothing.
func (e *engine) bye(d *dialog, m *message, from side) {
	remote := m.toTag
	if from == uas {
		remote = m.fromTag
	}
	if d.phase == confirmed && d.tags[uas] != "" && remote != d.tags[uas] {
		e.out.Count("forked_answers", 1)
		return
	}
	e.hungUp(d, m, from)
}

// byeAnswered takes the final response to a BYE, from the side that received it. It matters where the BYE was not seen,
// or came from where nobody had named: its receiver has taken it, or has no call any more (RFC 3261, 15.1.2).
func (e *engine) byeAnswered(d *dialog, m *message, from side) {
	if m.status != 481 && (m.status < 200 || m.status >= 300) || from == uas && d.tags[uas] != "" && m.toTag != d.tags[uas] {
		return
	}
	e.hungUp(d, m, from.other())
}

// hungUp ends d as by has asked for.
func (e *engine) hungUp(d *dialog, m *message, by side) {
	if !d.live() {
		return
	}
	if d.phase < confirmed && d.forked { // the others go on (RFC 3261, 15)
		e.out.Count("forked_answers", 1)
		return
	}
	if r := d.refer; r != nil && r.accepted && !r.done {
		e.transferred(d, r) // nobody says how it went, and the call goes on without the one who asked
	}
	q850 := reasonQ850(m)
	if q850 == 0 {
		q850 = 16
	}
	e.end(d, ending{at: m.at, by: int(by), q850: q850})
}

// info takes the DTMF that an INFO may carry.
func (e *engine) info(d *dialog, m *message, from side) {
	leg := d.legs[from]
	if leg == "" {
		return
	}
	digit, ms := "", 0
	switch kind, _, _ := strings.Cut(strings.ToLower(m.header("content-type")), ";"); strings.TrimSpace(kind) {
	case "application/dtmf-relay":
		for line := range strings.Lines(string(m.Body())) {
			k, v, _ := strings.Cut(line, "=")
			switch strings.ToLower(strings.TrimSpace(k)) {
			case "signal":
				digit = strings.TrimSpace(v)
			case "duration":
				ms, _ = strconv.Atoi(strings.TrimSpace(v))
			}
		}
	case "application/dtmf":
		digit = strings.TrimSpace(string(m.Body()))
	}
	if digit = dtmfDigit(digit); digit != "" {
		e.pressed(d, press{leg: leg, digit: digit, byInfo: true, at: m.at}, ms)
	}
}

// dtmfDigit is s as a digit: some phones send the event's number (RFC 4733, 3.2). Empty for anything else.
func dtmfDigit(s string) string {
	switch s {
	case "10":
		return "*"
	case "11":
		return "#"
	case "12", "13", "14", "15":
		return string("ABCD"[s[1]-'2'])
	}
	if len(s) == 1 && strings.Contains("0123456789*#ABCDabcd", s) {
		return strings.ToUpper(s)
	}
	return ""
}

// sameDigit is how long after a digit the same one counts as the same key, told in another way: phones that send DTMF
// by INFO and in the RTP.
const sameDigit = 150 * call.Millisecond

// press is a digit, and how it was told.
type press struct {
	leg, digit string
	byInfo     bool
	at         call.Time
}

// pressed tells a digit, which lasted for ms, once.
func (e *engine) pressed(d *dialog, now press, ms int) {
	last := d.digit
	if last.leg == now.leg && last.digit == now.digit && last.byInfo != now.byInfo && now.at-last.at < sameDigit {
		e.out.Count("dtmf_twice", 1)
		return
	}
	d.digit = now
	o := e.observe(call.DTMFDigit, now.leg)
	o.Value, o.At = now.digit, now.at
	if ms > 0 && ms < 60_000 {
		o.Count = ms
	}
	if !now.byInfo {
		o.Native = call.Native{Type: "RTP telephone-event", ID: now.leg + "/" + now.at.String()}
	}
}

// refer notes what a party asks for: to pass the call on to a target, or, with Replaces in it, to join another call.
func (e *engine) refer(d *dialog, m *message, from side) {
	target := m.header("refer-to")
	a, ok := parseAddr(target)
	if !ok {
		return
	}
	r := &referral{by: from, cseq: m.cseq, kind: "blind", to: a.user}
	if _, rest, found := strings.Cut(target, "?"); found {
		rest, _, _ = strings.Cut(rest, ">")
		for h := range strings.SplitSeq(rest, "&") {
			k, v, _ := strings.Cut(h, "=")
			if !strings.EqualFold(k, "replaces") {
				continue
			}
			if v, err := url.PathUnescape(v); err == nil {
				r.kind = "attended"
				r.replaces, _, _ = strings.Cut(v, ";")
			}
		}
	}
	d.refer = r
}

// referAnswered takes the response to a REFER.
func (e *engine) referAnswered(d *dialog, m *message, from side) {
	r := d.refer
	if r == nil || r.cseq != m.cseq || from == r.by || m.status < 200 {
		return
	}
	if m.status >= 300 {
		d.refer = nil
		return
	}
	r.accepted = true
	if r.kind == "blind" {
		d.group.referred = e.now
	}
}

// notify takes the progress of a REFER: a status line in a sipfrag (RFC 3515, 2.4.5).
func (e *engine) notify(d *dialog, m *message, from side) {
	r := d.refer
	if r == nil || r.done || from == r.by || !strings.HasPrefix(m.header("event"), "refer") {
		return
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(m.Body())), "\n")
	words := strings.Fields(line)
	if len(words) < 2 || !strings.EqualFold(words[0], "SIP/2.0") {
		return
	}
	code, err := strconv.Atoi(words[1])
	switch {
	case err != nil || code < 200:
	case code < 300:
		e.transferred(d, r)
	default:
		d.refer = nil // it stays in the call
		d.group.referred = 0
	}
}

// leaveWithin is how long a party that has passed the call on is given to hang up before it counts as gone: some wait
// for the switch to do it, which takes half a minute.
const leaveWithin = 2 * call.Second

// transferred tells that the party who asked for it has passed the call on.
func (e *engine) transferred(d *dialog, r *referral) {
	r.done, r.doneAt, r.clearAt = true, e.m.at, e.now+leaveWithin
	leg := d.legs[r.by]
	if leg == "" {
		return
	}
	o := e.observe(call.TransferDone, leg)
	o.Value, o.Dialed = r.kind, r.to
	if second := e.replaced(r, d); second != nil {
		o.Other = second.anyLeg()
		if second.outbound() {
			o.Other = second.legs[uas]
		}
		if !second.live() {
			o.Other = second.group.first()
		}
		d.group.merge(second.group)
	}
}

// replaced is the dialog that r names in Replaces, nil for none. The switch may have ended it already: it says so in that
// dialog before it tells of the transfer in this one, or after.
func (e *engine) replaced(r *referral, d *dialog) *dialog {
	if r.replaces == "" {
		return nil
	}
	if c := e.filed("i"+r.replaces, d); c != nil {
		return c
	}
	if c := e.dialogs[r.replaces]; c != d {
		return c
	}
	return nil
}
