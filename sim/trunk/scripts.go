package trunk

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim/people"
)

// scripts are the kinds of calls.
func scripts() map[string]func(*plan) {
	return map[string]func(*plan){
		"inbound_answered":     func(p *plan) { p.answered(true) },
		"inbound_agent_hangup": func(p *plan) { p.answered(false) },
		"abandoned":            (*plan).abandoned,
		"busy":                 (*plan).busy,
		"declined":             (*plan).declined,
		"no_answer":            (*plan).noAnswer,
		"unallocated":          (*plan).unallocated,
		"hold_retrieve":        (*plan).holdRetrieve,
		"blind_transfer":       (*plan).blindTransfer,
		"attended_transfer":    (*plan).attendedTransfer,
		"diverted_302":         (*plan).diverted,
		"ring_group":           (*plan).ringGroup,
		"ivr_agent":            func(p *plan) { p.ivr((*plan).presses) },
		"ivr_info":             func(p *plan) { p.ivr((*plan).informs) },
		"codec_change":         (*plan).codecChange,
		"early_media":          (*plan).earlyMedia,
		"late_offer":           (*plan).lateOffer,
		"session_refresh":      (*plan).sessionRefresh,
		"half_open":            (*plan).halfOpen,
		"outbound_answered":    func(p *plan) { p.outbound(true) },
		"outbound_busy":        func(p *plan) { p.outbound(false) },
	}
}

// Scripts returns the names of all scripts, sorted.
func Scripts() []string { return slices.Sorted(maps.Keys(scripts())) }

// DefaultMix is the traffic of an ordinary day.
func DefaultMix() map[string]int {
	return map[string]int{
		"inbound_answered": 20, "inbound_agent_hangup": 12, "abandoned": 4, "busy": 3, "declined": 2, "no_answer": 3, "unallocated": 1,
		"hold_retrieve": 9, "blind_transfer": 6, "attended_transfer": 4, "diverted_302": 3, "ring_group": 4, "ivr_agent": 10, "ivr_info": 3,
		"codec_change": 3, "early_media": 4, "late_offer": 2, "session_refresh": 2, "half_open": 1, "outbound_answered": 6, "outbound_busy": 2,
	}
}

// reached is an incoming call that an agent has taken.
func (p *plan) reached() (a, b *leg) {
	a = p.incoming()
	b = p.rings(a, p.hire())
	p.alerts(a, b)
	p.wait("ring")
	p.pickUp(b)
	p.connect(a)
	return a, b
}

func (p *plan) answered(byCaller bool) {
	a, b := p.reached()
	p.chat(a, "talk")
	p.goodbye(a, b, byCaller)
}

func (p *plan) abandoned() {
	a := p.incoming()
	b := p.rings(a, p.hire())
	p.alerts(a, b)
	p.wait("ring")
	p.truth.Outcome, p.truth.SIPCode, p.truth.HangupBy, p.truth.Ended = call.Abandoned, 487, "caller", p.now()
	p.cancels(a)
	p.cancels(b)
}

func (p *plan) busy() {
	a := p.incoming()
	b := p.rings(a, p.hire())
	p.truth.Offered = append(p.truth.Offered, b.uas.user)
	p.refuse(b, 486, "Busy Here")
	p.fails(a, call.Busy, 486, 17, "Busy Here")
}

func (p *plan) declined() {
	a := p.incoming()
	b := p.rings(a, p.hire())
	p.alerts(a, b)
	p.wait("ring")
	p.refuse(b, 603, "Decline")
	p.fails(a, call.Rejected, 603, 21, "Decline")
}

func (p *plan) noAnswer() {
	a := p.incoming()
	b := p.rings(a, p.hire())
	p.alerts(a, b)
	p.wait("no_answer")
	p.cancels(b, "Reason: Q.850;cause=19;text=\"No answer\"")
	p.fails(a, call.NoAnswer, 480, 19, "Temporarily Unavailable")
}

func (p *plan) unallocated() { p.fails(p.incoming(), call.Failed, 404, 1, "Not Found") }

func (p *plan) holdRetrieve() {
	a, b := p.reached()
	p.chat(a, "talk")
	p.holds(a, b, holdStyles[p.rng.IntN(len(holdStyles))])
	p.wait("hold")
	p.retrieves(a, b)
	p.chat(a, "talk2")
	p.goodbye(a, b, true)
}

// blindTransfer: the agent's phone refers the PBX to a colleague and leaves (RFC 3515).
func (p *plan) blindTransfer() {
	a, b := p.reached()
	p.chat(a, "talk")
	second := p.hire()
	target := people.Extension(second)
	p.truth.Transfers = append(p.truth.Transfers, Transfer{Kind: "blind", By: b.uas.user, To: target, At: p.now()})
	p.refers(b, fmt.Sprintf("<sip:%s@%s>", target, b.uac.ep.addr))
	p.notifies(b, "SIP/2.0 100 Trying", "active;expires=60")
	c := p.rings(a, second, fmt.Sprintf("Referred-By: <%s>", b.uas.uri()))
	p.set(a.back, func(s *stream) { s.sound = ringback })
	p.alerts(a, c)
	p.notifies(b, "SIP/2.0 180 Ringing", "active;expires=60")
	p.wait("ring")
	p.pickUp(c)
	p.set(a.back, func(s *stream) { s.sound = speech })
	p.notifies(b, "SIP/2.0 200 OK", "terminated;reason=noresource")
	p.hangsUp(b, b.uas)
	p.chat(a, "talk2")
	p.goodbye(a, c, true)
}

// refers lets a phone send REFER, which the PBX accepts.
func (p *plan) refers(b *leg, to string) {
	m := p.ask(b, b.uas, "REFER", with("Refer-To: "+to, "Referred-By: <"+b.uas.uri()+">"))
	p.tell(m, 202, "Accepted", content{})
}

// notifies lets the PBX tell the phone how its transfer goes (RFC 3420).
func (p *plan) notifies(b *leg, line, state string) {
	m := p.ask(b, b.uac, "NOTIFY", content{headers: []string{"Event: refer", "Subscription-State: " + state},
		kind: "message/sipfrag;version=2.0", body: line + "\r\n"})
	p.tell(m, 200, "OK", content{})
}

// attendedTransfer: the agent asks a colleague first, in a call of his own, and then joins the two (RFC 3891).
func (p *plan) attendedTransfer() {
	a, b := p.reached()
	p.chat(a, "talk")
	p.holds(a, b, holdStyles[0])
	second := p.hire()
	c := p.consults(b, second)
	d := p.rings(c, second)
	p.relayRinging(c, d)
	p.wait("ring")
	p.pickUp(d)
	p.accept(c, withSDP(p.answerSDP(c.uas)))
	p.wait("consult")
	p.truth.Transfers = append(p.truth.Transfers, Transfer{Kind: "attended", By: b.uas.user, To: people.Extension(second), At: p.now()})
	replaces := url.QueryEscape(c.id + ";to-tag=" + c.uas.tag + ";from-tag=" + c.uac.tag)
	p.refers(b, fmt.Sprintf("<sip:%s@%s?Replaces=%s>", people.Extension(second), b.uac.ep.addr, replaces))
	p.set(a.back, func(s *stream) { s.sound = speech })
	p.truth.Holds[len(p.truth.Holds)-1].To = p.now()
	p.notifies(b, "SIP/2.0 200 OK", "terminated;reason=noresource")
	p.hangsUp(b, b.uas)
	p.hangsUp(c, c.uas)
	p.chat(a, "talk2")
	p.goodbye(a, d, true)
}

// consults lets the agent of b call a colleague through the PBX.
func (p *plan) consults(b *leg, second int) *leg {
	p.pause(500_000, 2*1_000_000)
	phone := p.party(p.e.hosts.phones, b.uas.user, people.AgentName(b.agent), phoneSoftware)
	pbx := p.party(p.e.hosts.pbx, people.Extension(second), "", pbxSoftware)
	c := p.newLeg(phone, pbx, b.agent)
	c.inv = p.ask(c, phone, "INVITE", withSDP(p.offerSDP(phone), allow))
	p.tell(c.inv, 100, "Trying", content{})
	return c
}

// relayRinging lets d's phone ring and the PBX say so on c.
func (p *plan) relayRinging(c, d *leg) {
	p.alerts(nil, d)
	c.rung = true
	p.tell(c.inv, 180, "Ringing", content{})
}

// diverted: the phone sends the call on to a colleague's (302), and the PBX follows (RFC 5806, RFC 7044).
func (p *plan) diverted() {
	a := p.incoming()
	first := p.hire()
	b := p.rings(a, first)
	p.truth.Offered = append(p.truth.Offered, b.uas.user)
	second := p.hire()
	to := agentID(second)
	p.truth.Diversions = append(p.truth.Diversions, Transfer{By: b.uas.user, To: to, At: p.now()})
	diversion := fmt.Sprintf("Diversion: <%s>;reason=unconditional", b.uas.uri())
	p.refuse(b, 302, "Moved Temporarily", fmt.Sprintf("Contact: <sip:%s@%s>", to, b.uas.ep.addr), diversion)
	history := fmt.Sprintf("History-Info: <%s?Reason=SIP%%3Bcause%%3D302>;index=1, <sip:%s@%s>;index=1.1", b.uas.uri(), to, b.uas.domain)
	c := p.rings(a, second, diversion, history)
	p.alerts(a, c)
	p.wait("ring")
	p.pickUp(c)
	p.connect(a)
	p.chat(a, "talk")
	p.goodbye(a, c, true)
}

// ringGroup: two phones ring, one is picked up, the other one is told so.
func (p *plan) ringGroup() {
	a := p.incoming()
	b, c := p.rings(a, p.hire()), p.rings(a, p.hire())
	p.alerts(a, b)
	p.alerts(a, c)
	p.wait("ring")
	p.pickUp(c)
	p.connect(a)
	p.cancels(b, "Reason: SIP;cause=200;text=\"Call completed elsewhere\"")
	p.chat(a, "talk")
	p.goodbye(a, c, true)
}

// ivr: the PBX answers by itself, the caller presses keys and is put through.
func (p *plan) ivr(press func(*plan, *leg, string)) {
	a := p.incoming()
	p.set(a.back, func(s *stream) { s.sound = music })
	p.connect(a)
	p.wait("menu")
	press(p, a, strconv.Itoa(1+p.rng.IntN(9))+[]string{"", "#", "2*"}[p.rng.IntN(3)])
	p.pause(300_000, 900_000)
	b := p.rings(a, p.hire())
	p.alerts(a, b)
	p.set(a.back, func(s *stream) { s.sound = ringback })
	p.wait("ring")
	p.pickUp(b)
	p.set(a.back, func(s *stream) { s.sound = speech })
	p.chat(a, "talk")
	p.goodbye(a, b, p.rng.IntN(2) == 0)
}

// codecChange: the carrier goes over to the other G.711.
func (p *plan) codecChange() {
	a, b := p.reached()
	p.chat(a, "talk")
	next := p.codec.other()
	d := description{codecs: []codec{next}, event: p.event, direction: "sendrecv"}
	p.reinvite(a, a.uac, d, d)
	a.codec = next
	p.set(a.out, func(s *stream) { s.codec = next })
	p.set(a.back, func(s *stream) { s.codec = next })
	p.truth.CodecsSeen = append(p.truth.CodecsSeen, next.String())
	p.chat(a, "talk2")
	p.goodbye(a, b, true)
}

// earlyMedia: the caller hears the PBX's ringback before the answer, told so reliably (RFC 3262).
func (p *plan) earlyMedia() {
	a := p.incoming()
	p.truth.EarlyMedia = true
	sdp := p.answerSDP(a.uas)
	p.set(a.back, func(s *stream) { s.sound = ringback })
	p.tell(a.inv, 183, "Session Progress", withSDP(sdp, "Require: 100rel", "RSeq: 1"))
	p.listen(a)
	m := p.ask(a, a.uac, "PRACK", with(fmt.Sprintf("RAck: 1 %d INVITE", a.inv.cseq)))
	p.tell(m, 200, "OK", content{})
	a.rung = true
	b := p.rings(a, p.hire())
	p.alerts(a, b)
	p.wait("ring")
	p.pickUp(b)
	p.set(a.back, func(s *stream) { s.sound = speech })
	p.connect(a)
	p.chat(a, "talk")
	p.goodbye(a, b, true)
}

// lateOffer: the carrier's INVITE has no SDP; the PBX offers in its 200 and the ACK answers.
func (p *plan) lateOffer() {
	a := p.comesIn(false)
	b := p.rings(a, p.hire())
	p.alerts(a, b)
	p.wait("ring")
	p.pickUp(b)
	p.answer = true
	p.truth.SIPCode, p.truth.Outcome = 200, call.Answered
	p.truth.Codec, p.truth.CodecsSeen = p.codec.String(), []string{p.codec.String()}
	p.tell(a.inv, 200, "OK", withSDP(p.offerSDP(a.uas), "Require: timer", p.timer()))
	p.ack(a, a.inv, withSDP(p.answerSDP(a.uac)))
	p.talk(a)
	p.chat(a, "talk")
	p.goodbye(a, b, true)
}

// sessionRefresh: the carrier says by UPDATE that it is still there (RFC 4028).
func (p *plan) sessionRefresh() {
	p.expiry = 90
	a, b := p.reached()
	for range 2 {
		p.chat(a, "talk2")
		m := p.ask(a, a.uac, "UPDATE", with("Supported: timer", p.timer()))
		p.tell(m, 200, "OK", with("Require: timer", p.timer()))
	}
	p.chat(a, "talk2")
	p.goodbye(a, b, true)
}

// halfOpen: carrier and phone vanish without a word; the PBX says nothing either.
func (p *plan) halfOpen() {
	p.expiry = 90
	a, b := p.reached()
	p.chat(a, "talk2")
	p.truth.Died = true
	p.truth.Ended = p.now()
	p.silence(a, false)
	p.silence(b, false)
}

// outbound: an agent calls somebody outside, through the PBX and the trunk.
func (p *plan) outbound(answered bool) {
	agent := p.hire()
	number := "+" + people.CallerNumber(p.rng)
	phone := p.party(p.e.hosts.phones, agentID(agent), people.AgentName(agent), phoneSoftware)
	inside := p.party(p.e.hosts.pbx, number, "", pbxSoftware)
	a := p.newLeg(phone, inside, agent)
	p.impair(a, a.back, a.out)
	p.chooseLink()
	p.truth.LinkedBy = "" // phones know of no such header
	p.truth.Direction, p.truth.From, p.truth.FromName, p.truth.To = call.Outbound, phone.user, phone.name, number
	a.inv = p.ask(a, phone, "INVITE", withSDP(p.offerSDP(phone), allow, "Supported: timer, replaces", p.timer()))
	p.tell(a.inv, 100, "Trying", content{})
	b := p.dialsOut(number)
	if !answered {
		p.refuse(b, 486, "Busy Here", "Reason: Q.850;cause=17")
		p.fails(a, call.Busy, 486, 17, "Busy Here")
		return
	}
	b.rung, a.rung = true, true
	p.tell(b.inv, 180, "Ringing", content{})
	p.tell(a.inv, 180, "Ringing", content{})
	p.wait("ring")
	p.pickUp(b)
	p.connect(a)
	p.chat(b, "talk")
	p.goodbye(a, b, p.rng.IntN(2) == 0)
}

// dialsOut lets the PBX call a number over the trunk, with the company's own number.
func (p *plan) dialsOut(number string) *leg {
	pbx := p.party(p.e.hosts.pbx, "+18005550100", "Example Company", pbxSoftware)
	callee := p.party(p.e.hosts.carrier, number, "", carrierSoftware)
	b := p.newLeg(pbx, callee, 0)
	p.impair(b, b.back, b.out)
	p.pause(2_000, 15_000)
	b.inv = p.ask(b, pbx, "INVITE", withSDP(p.offerSDP(pbx), allow, "Supported: timer, 100rel", p.timer(), "P-Asserted-Identity: "+pbx.nameAddr()))
	p.tell(b.inv, 100, "Trying", content{})
	return b
}
