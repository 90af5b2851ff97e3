package trunk

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim/people"
)

// step is one thing a call does at a time.
type step struct {
	at int64
	do func(at int64)
}

// plan is a whole call, decided when it begins.
type plan struct {
	e      *engine
	rng    *rand.Rand
	script string
	wrong  profile // what is wrong with its audio
	faults struct{ retransmit, duplicate, swap, lostACK, spoof, malformed bool }
	at     int64 // of what is being composed
	steps  []step
	legs   []*leg
	ports  []*mediaPort
	staff  []int // agents it needs, from 1
	codec  codec
	event  uint8
	expiry int // Session-Expires, seconds
	ref    string
	answer bool // the caller has been answered
	late   []step
	truth  Truth
	err    error
}

// leg is one dialog with its two streams.
type leg struct {
	*dialog
	inv       *message
	out, back *stream // of the calling and of the called end
	agent     int     // at the phone's end, 0: none
	codec     codec
	rung      bool
	playing   bool
}

func newPlan(e *engine, script, media string, at int64) *plan {
	p := &plan{e: e, script: script, at: at, wrong: profiles()[media], event: 101, expiry: 1800}
	p.rng = rand.New(rand.NewPCG(e.opt.Seed^0x706c616e, uint64(e.started)))
	f := e.opt.Faults
	for _, x := range []struct {
		on    *bool
		share float64
	}{{&p.faults.retransmit, f.Retransmit}, {&p.faults.duplicate, f.Duplicate}, {&p.faults.swap, f.Swap},
		{&p.faults.lostACK, f.LostACK}, {&p.faults.spoof, f.SpoofedBYE}, {&p.faults.malformed, f.Malformed}} {
		*x.on = p.rng.Float64() < x.share
	}
	if p.rng.IntN(10) < 3 {
		p.codec = pcma
	}
	if p.rng.IntN(4) == 0 {
		p.event = 96
	}
	p.truth = Truth{Number: e.started, Script: script, Profile: media, Direction: call.Inbound, Started: time.UnixMicro(at).UTC()}
	return p
}

// compose writes the whole call.
func (p *plan) compose() error {
	scripts()[p.script](p)
	p.steps = append(p.steps, p.late...)
	for _, n := range p.staff {
		p.e.agents[n-1] = max(p.e.agents[n-1], p.at)
	}
	if p.err != nil {
		return fmt.Errorf("call %d, script %s: %w", p.truth.Number, p.script, p.err)
	}
	return nil
}

// last is when all of the call is over, stragglers included.
func (p *plan) last() int64 { return p.at + 100_000 }

func (p *plan) release() {
	for _, m := range p.ports {
		p.e.net.release(m)
	}
}

// do orders something for the moment that the composing has reached.
func (p *plan) do(f func(at int64)) { p.steps = append(p.steps, step{p.at, f}) }

// put sends a message now, or twice when the network does that.
func (p *plan) put(from, to *party, callID string, raw []byte) {
	send := func(int64) { p.e.send(SIP, from.ep, to.ep, callID, raw) }
	p.do(send)
	if p.faults.duplicate && p.rng.IntN(4) == 0 {
		p.steps = append(p.steps, step{p.at + 50 + p.rng.Int64N(900), send})
	}
}

// pause lets lo to hi microseconds pass.
func (p *plan) pause(lo, hi int64) { p.at += lo + p.rng.Int64N(hi-lo+1) }

// network lets a message travel and be worked on.
func (p *plan) network() { p.pause(400, 4_000) }

// wait lets people take their time.
func (p *plan) wait(name string) {
	uniform := func(lo, hi float64) float64 { return lo + p.rng.Float64()*(hi-lo) }
	var s float64
	switch name {
	case "menu":
		s = uniform(3, 7)
	case "ring":
		s = uniform(2, 12)
	case "no_answer":
		s = uniform(12, 25)
	case "talk":
		s = clamp(math.Exp(math.Log(110)+0.7*p.rng.NormFloat64()), 8, 900)
	case "talk2":
		s = clamp(math.Exp(math.Log(60)+0.7*p.rng.NormFloat64()), 5, 600)
	case "hold", "consult":
		s = uniform(5, 40)
	}
	p.at += int64(s * second / p.e.opt.Speed)
}

func clamp(v, lo, hi float64) float64 { return math.Max(lo, math.Min(hi, v)) }

func (p *plan) now() time.Time { return time.UnixMicro(p.at).UTC() }

// ask sends a request. When the answer to it is late, it is repeated after T1 (RFC 3261, 17.1).
func (p *plan) ask(l *leg, from *party, method string, c content) *message {
	m := l.request(from, method, c)
	p.dispatch(m)
	return m
}

func (p *plan) dispatch(m *message) {
	p.put(m.from, m.to, m.d.id, m.raw)
	if p.faults.retransmit && (m.method == "INVITE" || m.method == "BYE") && p.rng.IntN(2) == 0 {
		p.at += second / 2
		p.put(m.from, m.to, m.d.id, m.raw)
	}
	p.network()
}

// tell answers a request.
func (p *plan) tell(m *message, code int, reason string, c content) {
	p.put(m.to, m.from, m.d.id, m.reply(code, reason, c))
	p.network()
}

// ack acknowledges a 2xx of an INVITE.
func (p *plan) ack(l *leg, inv *message, c content) {
	m := l.write(inv.from, "ACK", "z9hG4bK"+token(p.rng, 14), inv.cseq, c)
	p.put(m.from, m.to, l.id, m.raw)
	p.network()
}

// party makes one end; it has a media port from when it is in a leg. Phones are users of the PBX.
func (p *plan) party(ep *endpoint, user, name, software string) *party {
	domain := ep.addr.Addr().String()
	if ep == p.e.hosts.phones {
		domain = p.e.hosts.pbx.addr.Addr().String()
	}
	return &party{ep: ep, user: user, name: name, domain: domain, software: software, tag: token(p.rng, 10),
		cseq: 1 + p.rng.IntN(500), session: 1_000_000 + p.rng.Uint64N(1_000_000_000)}
}

const (
	carrierSoftware = "Example Carrier SBC 7.4"
	pbxSoftware     = "Example PBX 12.1"
	phoneSoftware   = "Example Phone 5.9"
)

// newLeg makes a dialog with media between two ends.
func (p *plan) newLeg(uac, uas *party, agent int) *leg {
	l := &leg{agent: agent, codec: p.codec}
	l.dialog = &dialog{id: token(p.rng, 20) + "@" + uac.domain, uac: uac, uas: uas, rng: p.rng}
	uac.media, uas.media = p.port(uac), p.port(uas)
	l.out = newStream(p.rng, uac.media, uas.media, l.id)
	l.back = newStream(p.rng, uas.media, uac.media, l.id)
	for _, s := range []*stream{l.out, l.back} {
		s.codec, s.event = l.codec, p.event
	}
	p.legs = append(p.legs, l)
	p.truth.Dialogs = append(p.truth.Dialogs, l.id)
	return l
}

// port takes a media port for x, which is some way from the capture point.
func (p *plan) port(x *party) *mediaPort {
	m, err := p.e.net.media(x.ep)
	if err != nil {
		p.err = err
		return &mediaPort{rtp: &endpoint{}, rtcp: &endpoint{}}
	}
	p.ports = append(p.ports, m)
	m.name = x.user + "@" + x.domain
	switch x.ep {
	case p.e.hosts.carrier:
		m.far, m.unsteady = 8_000+p.rng.Int64N(30_000), 1_500
	case p.e.hosts.phones:
		m.far, m.unsteady = 500+p.rng.Int64N(4_000), 400
	default:
		m.far, m.unsteady = 0, 150
	}
	return m
}

// impair gives a leg's streams what is wrong with the call's audio: on the trunk, what the outside party sends; on a
// phone's leg, what the PBX passes on of it.
func (p *plan) impair(l *leg, fromOutside, toOutside *stream) {
	w := p.wrong
	if w.dead {
		fromOutside.dead, toOutside.dead = true, w.both
		return
	}
	fromOutside.sound = w.sound
	if l.agent == 0 {
		fromOutside.profile, fromOutside.wrong = w.impairment, w.wrong
	}
}

// hire takes an agent that is free.
func (p *plan) hire() int {
	best := p.rng.IntN(len(p.e.agents))
	for i := range p.e.agents {
		n := (best + i) % len(p.e.agents)
		if p.e.agents[n] <= p.at && !p.hired(n+1) {
			best = n
			break
		}
	}
	for p.hired(best+1) && len(p.staff) < len(p.e.agents) {
		best = (best + 1) % len(p.e.agents)
	}
	p.staff = append(p.staff, best+1)
	return best + 1
}

func (p *plan) hired(n int) bool {
	for _, x := range p.staff {
		if x == n {
			return true
		}
	}
	return false
}

// talk starts both streams and the reports of a leg whose two ends have agreed.
func (p *plan) talk(l *leg) {
	p.listen(l)
	from := p.at + p.rng.Int64N(frame)
	p.steps = append(p.steps, step{from, func(at int64) { l.out.start(p.e, at) }})
}

// listen starts what the called end sends, and the reports.
func (p *plan) listen(l *leg) {
	from := p.at + p.rng.Int64N(frame)
	p.steps = append(p.steps, step{from, func(at int64) { l.back.start(p.e, at) }})
	if l.playing {
		return
	}
	l.playing = true
	p.reports(l.out, l.back, from+reportEvery)
	p.reports(l.back, l.out, from+reportEvery+300_000+p.rng.Int64N(4*second))
}

// reports orders the RTCP of one end every five seconds (RFC 3550, 6.2) until its stream is over.
func (p *plan) reports(sends, receives *stream, at int64) {
	var again func(int64)
	again = func(at int64) {
		if sends.over {
			return
		}
		report(p.e, at, sends, receives, false)
		p.e.at(at+reportEvery, again)
	}
	p.steps = append(p.steps, step{at, again})
}

// silence ends a leg's media.
func (p *plan) silence(l *leg, bye bool) {
	p.do(func(at int64) {
		if bye {
			report(p.e, at, l.out, l.back, true)
			report(p.e, at, l.back, l.out, true)
		}
		l.out.over, l.back.over = true, true
	})
}

// set changes a stream at the moment reached.
func (p *plan) set(s *stream, change func(*stream)) { p.do(func(int64) { change(s) }) }

func (p *plan) hush(s *stream) { p.set(s, func(s *stream) { s.quiet = true }) }

func (p *plan) resume(s *stream) { p.do(func(at int64) { s.start(p.e, at) }) }

// offerSDP is a first offer: both codecs, the call's own first.
func (p *plan) offerSDP(x *party) string {
	return x.sdp(description{codecs: []codec{p.codec, p.codec.other()}, event: p.event, direction: "sendrecv"})
}

// answerSDP takes the first of them.
func (p *plan) answerSDP(x *party) string {
	return x.sdp(description{codecs: []codec{p.codec}, event: p.event, direction: "sendrecv"})
}

func (p *plan) timer() string { return "Session-Expires: " + strconv.Itoa(p.expiry) + ";refresher=uac" }

func agentID(n int) string { return people.Agent(n) }
