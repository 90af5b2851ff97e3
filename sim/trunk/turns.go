package trunk

import (
	"fmt"
	"strconv"
	"time"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim/people"
)

// The turns a call can take. Each moves the plan's time on.

// incoming lets a caller's INVITE come in on the trunk.
func (p *plan) incoming() *leg { return p.comesIn(true) }

func (p *plan) comesIn(offer bool) *leg {
	number, name, did := "+"+people.CallerNumber(p.rng), people.CallerName(p.rng), "+180055501"+people.Pad(p.rng.IntN(100), 2)
	caller := p.party(p.e.hosts.carrier, number, name, carrierSoftware)
	pbx := p.party(p.e.hosts.pbx, did, "", pbxSoftware)
	a := p.newLeg(caller, pbx, 0)
	p.impair(a, a.out, a.back)
	p.chooseLink()
	p.malformed(caller, pbx)
	p.truth.From, p.truth.FromName, p.truth.To = number, name, did
	p.truth.Started = p.now()
	c := content{}
	if offer {
		c = withSDP(p.offerSDP(caller))
	}
	c.headers = append(c.headers, allow, "Supported: timer, 100rel, replaces", p.timer(), "Min-SE: 90", "P-Asserted-Identity: "+caller.nameAddr())
	if p.truth.LinkedBy == linkRef {
		c.headers = append(c.headers, linkRef+": "+p.ref)
	}
	a.inv = p.ask(a, caller, "INVITE", c)
	p.tell(a.inv, 100, "Trying", content{})
	return a
}

const allow = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK, REFER, NOTIFY"

// What one leg may carry of the other.
const (
	linkRef = "X-Call-Ref" // the same value in both
	linkCID = "X-CID"      // the caller's Call-ID in the PBX's INVITE
)

func (p *plan) chooseLink() {
	p.ref = token(p.rng, 16)
	switch n := p.rng.IntN(10); {
	case n < 5:
		p.truth.LinkedBy = linkRef
	case n < 7:
		p.truth.LinkedBy = linkCID
	}
}

// malformed lets something that is no SIP come before the call.
func (p *plan) malformed(from, to *party) {
	if !p.faults.malformed {
		return
	}
	p.truth.Malformed++
	junk := []string{
		"INVITE sip:1001@pbx SIP/2.0\r\nVia SIP/2.0/UDP without a colon\r\nContent-Length: -5\r\n\r\n",
		"OPTIONS sip:pbx\r\nCall-ID\r\n\r\n",
		"SIP/2.0 2000 OK\r\nCSeq: many INVITE\r\n\r\n",
	}[p.rng.IntN(3)]
	p.put(from, to, "", []byte(junk))
	p.network()
}

// rings lets the PBX call an agent's phone on behalf of the caller of a.
func (p *plan) rings(a *leg, agent int, headers ...string) *leg {
	pbx := p.party(p.e.hosts.pbx, p.truth.From, p.truth.FromName, pbxSoftware)
	phone := p.party(p.e.hosts.phones, agentID(agent), "", phoneSoftware)
	b := p.newLeg(pbx, phone, agent)
	p.impair(b, b.out, b.back)
	c := withSDP(p.offerSDP(pbx), allow, "Supported: timer, replaces", p.timer(), "P-Asserted-Identity: "+pbx.nameAddr())
	switch p.truth.LinkedBy {
	case linkRef:
		c.headers = append(c.headers, linkRef+": "+p.ref)
	case linkCID:
		c.headers = append(c.headers, linkCID+": "+a.id)
	}
	c.headers = append(c.headers, headers...)
	p.pause(2_000, 15_000)
	b.inv = p.ask(b, pbx, "INVITE", c)
	p.tell(b.inv, 100, "Trying", content{})
	return b
}

// alerts lets a phone ring, and the PBX say so to the caller.
func (p *plan) alerts(a, b *leg) {
	p.pause(10_000, 60_000)
	p.truth.Offered = append(p.truth.Offered, b.uas.user)
	if p.faults.swap { // it is overtaken by the answer
		b.rung = false
	} else {
		p.tell(b.inv, 180, "Ringing", content{})
		b.rung = true
	}
	if a != nil && !p.answer && !a.rung && !p.faults.swap {
		a.rung = true
		p.tell(a.inv, 180, "Ringing", content{})
	}
}

// pickUp lets a phone answer: who is talking now is in the truth.
func (p *plan) pickUp(b *leg) {
	p.answers()
	p.accept(b, withSDP(p.answerSDP(b.uas), "Require: timer", p.timer()))
	p.truth.AnsweredBy = append(p.truth.AnsweredBy, b.uas.user)
}

// answers notes when the first party answered.
func (p *plan) answers() {
	if p.truth.AnsweredAt.IsZero() {
		p.truth.AnsweredAt = p.now()
	}
}

// connect lets the PBX answer the caller.
func (p *plan) connect(a *leg) {
	if p.answer {
		return
	}
	p.answer = true
	p.truth.SIPCode, p.truth.Outcome = 200, call.Answered
	p.truth.Codec, p.truth.CodecsSeen = p.codec.String(), []string{p.codec.String()}
	p.accept(a, withSDP(p.answerSDP(a.uas), "Require: timer", p.timer()))
}

// accept answers an INVITE with 200 and lets the other end acknowledge it.
func (p *plan) accept(l *leg, c content) {
	ok := l.inv.reply(200, "OK", c)
	p.put(l.uas, l.uac, l.id, ok)
	if p.faults.swap && !l.rung { // the 180 was slower
		late := l.inv.reply(180, "Ringing", content{})
		p.steps = append(p.steps, step{p.at + 300, func(int64) { p.e.send(SIP, l.uas.ep, l.uac.ep, l.id, late) }})
	}
	p.talk(l)
	p.network()
	if p.faults.lostACK { // RFC 3261, 13.3.1.4
		for _, later := range []int64{second / 2, second} {
			p.at += later
			p.put(l.uas, l.uac, l.id, ok)
		}
		p.network()
	}
	p.ack(l, l.inv, content{})
}

// refuse answers an INVITE with a failure.
func (p *plan) refuse(l *leg, code int, reason string, headers ...string) {
	p.tell(l.inv, code, reason, with(headers...))
	m := l.ackFailure(l.inv)
	p.put(m.from, m.to, l.id, m.raw)
	p.network()
	p.silence(l, false)
}

// fails ends the call with a failure for the caller.
func (p *plan) fails(a *leg, outcome call.Outcome, code, q850 int, reason string) {
	p.truth.Outcome, p.truth.SIPCode, p.truth.Q850, p.truth.HangupBy = outcome, code, q850, "switch"
	p.truth.Ended = p.now()
	p.refuse(a, code, reason, fmt.Sprintf("Reason: Q.850;cause=%d", q850))
}

// cancels takes back an INVITE that has not been answered.
func (p *plan) cancels(l *leg, headers ...string) {
	m := l.cancel(l.inv, with(headers...))
	p.dispatch(m)
	p.tell(m, 200, "OK", content{})
	p.refuse(l, 487, "Request Terminated")
}

// hangsUp lets one end send BYE and returns when it did.
func (p *plan) hangsUp(l *leg, by *party, headers ...string) time.Time {
	p.pause(1_000, 10_000)
	at := p.now()
	m := l.request(by, "BYE", with(headers...))
	p.silence(l, true)
	p.dispatch(m)
	p.tell(m, 200, "OK", content{})
	return at
}

// goodbye ends an answered call: at the caller's wish, or at the other party's.
func (p *plan) goodbye(a, b *leg, byCaller bool) {
	const normal = "Reason: Q.850;cause=16;text=\"Normal call clearing\""
	if byCaller {
		p.truth.HangupBy = "caller"
		if a.agent > 0 {
			p.truth.HangupBy = a.uac.user
		}
		p.truth.Ended = p.hangsUp(a, a.uac)
		p.hangsUp(b, b.uac, normal)
		return
	}
	p.truth.HangupBy = b.uas.user
	p.hangsUp(b, b.uas)
	p.truth.Ended = p.hangsUp(a, a.uas, normal)
}

// chat lets them talk, with what may come between.
func (p *plan) chat(a *leg, name string) {
	from := p.at
	p.wait(name)
	if !p.faults.spoof {
		return
	}
	p.faults.spoof = false
	p.truth.SpoofedBYEs++
	end := p.at
	p.at = from + (end-from)/2
	p.spoof(a)
	p.at = max(p.at, end)
}

// spoof lets a stranger who knows the dialog's ids send a BYE, which the PBX refuses.
func (p *plan) spoof(a *leg) {
	stranger := *a.uac
	stranger.ep = p.e.hosts.stranger
	m := a.write(a.uac, "BYE", "z9hG4bK"+token(p.rng, 14), a.uac.cseq+1, content{})
	m.from = &stranger
	p.put(m.from, m.to, a.id, m.raw)
	p.network()
	p.tell(m, 403, "Forbidden", content{})
}

// reinvite lets one end change the session, and returns when the other agreed.
func (p *plan) reinvite(l *leg, by *party, offer, answer description) (agreed time.Time) {
	other := l.uas
	if by == l.uas {
		other = l.uac
	}
	m := p.ask(l, by, "INVITE", withSDP(by.sdp(offer), allow))
	agreed = p.now()
	p.tell(m, 200, "OK", withSDP(other.sdp(answer)))
	p.ack(l, m, content{})
	return agreed
}

// holdStyle is how a phone puts a call on hold.
type holdStyle struct {
	offer, answer string
	zero          bool
}

var holdStyles = []holdStyle{{offer: "sendonly", answer: "recvonly"}, {offer: "inactive", answer: "inactive"}, {offer: "", answer: "", zero: true}}

// holds lets b's agent put the caller of a on hold, who hears music.
func (p *plan) holds(a, b *leg, style holdStyle) {
	one := []codec{b.codec}
	agreed := p.reinvite(b, b.uas, description{codecs: one, event: p.event, direction: style.offer, zero: style.zero},
		description{codecs: one, event: p.event, direction: style.answer})
	p.truth.Holds = append(p.truth.Holds, Hold{By: b.uas.user, From: agreed})
	p.hush(b.out)
	if style.offer == "sendonly" {
		p.set(b.back, func(s *stream) { s.sound = silence })
	} else {
		p.hush(b.back)
	}
	p.set(a.back, func(s *stream) { s.sound = music })
}

// retrieves ends the hold.
func (p *plan) retrieves(a, b *leg) {
	both := description{codecs: []codec{b.codec}, event: p.event, direction: "sendrecv"}
	p.truth.Holds[len(p.truth.Holds)-1].To = p.reinvite(b, b.uas, both, both)
	p.set(b.back, func(s *stream) { s.sound = speech })
	p.resume(b.out)
	p.resume(b.back)
	p.set(a.back, func(s *stream) { s.sound = speech })
}

// presses lets the caller press keys in the RTP (RFC 4733).
func (p *plan) presses(a *leg, keys string) {
	for _, k := range keys {
		d := digit{at: p.at, key: byte(k), dur: 80_000 + p.rng.Int64N(100_000)}
		p.set(a.out, func(s *stream) { s.digits = append(s.digits, d) })
		p.pause(400_000, 900_000)
	}
	p.truth.Digits += keys
}

// informs lets the caller press keys by INFO.
func (p *plan) informs(a *leg, keys string) {
	for _, k := range keys {
		body := "Signal=" + string(k) + "\r\nDuration=" + strconv.Itoa(100+p.rng.IntN(100)) + "\r\n"
		m := p.ask(a, a.uac, "INFO", content{kind: "application/dtmf-relay", body: body})
		p.tell(m, 200, "OK", content{})
		p.pause(400_000, 900_000)
	}
	p.truth.Digits += keys
}
