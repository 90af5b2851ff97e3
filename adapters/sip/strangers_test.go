package sip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// TestWhatIsWalkedIsBounded: what one key finds is walked for every packet, so nobody may make it long.
func TestWhatIsWalkedIsBounded(t *testing.T) {
	g := newStage(Config{MaxDialogs: 50000})
	g.e.out = &nowhere{}
	for i := range 1000 {
		d := g.call("10.66.6.6:5060", phoneB, "same", "1", "2")
		d.fromTag = fmt.Sprint("f", i)
		d.ask("INVITE", 1)
		g.call("10.66.6.6:5060", phoneB, fmt.Sprint("c", i), "1", "2").ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.5.0.1:4000", "sendrecv"))...)
	}
	dialogs, flows := 0, 0
	for d := g.e.dialogs["same"]; d != nil; d = d.next {
		dialogs++
	}
	for f := g.e.flows[netip.MustParseAddrPort("10.5.0.1:4000")]; f != nil; f = f.next {
		flows++
	}
	want(t, "dialogs of one Call-ID, flows to one address", []int{dialogs, flows}, []int{maxSameCallID, maxSameDestination})
	for key, list := range g.e.index {
		if len(list) > maxSame {
			t.Errorf("%d dialogs under %q", len(list), key)
		}
	}
}

// what a switch shows for callers without a number is nobody's number.
func TestPlaceholderNumber(t *testing.T) {
	for _, nobody := range []string{"asterisk", "Anonymous", "unknown", "restricted", "unavailable", "private", "0000000000"} {
		g := newStage(Config{PBX: []string{"10.0.0.1"}})
		in := g.talkTo(g.call(phoneA, pbx, "in", nobody, "1000"))
		out := g.talkTo(g.call(pbx, phoneB, "out", nobody, "agent2"))
		want(t, nobody+": calls", g.t.Active(), 2)
		in.ask("BYE", 2)
		out.ask("BYE", 2)
	}
}

// a switch with a leg in two networks.
func TestMultiHomed(t *testing.T) {
	const inside = "192.168.0.1:5060"
	g := newStage(Config{PBX: []string{"10.0.0.1", "192.168.0.1"}})
	in := g.call(phoneA, pbx, "in", "+14155550100", "+18005550000")
	out := g.call(inside, "192.168.0.20:5060", "out", "+14155550100", "200")
	in.ask("INVITE", 1)
	out.ask("INVITE", 1)
	in.toTag, out.toTag = "i", "o"
	out.answer(200, "INVITE", 1)
	in.answer(200, "INVITE", 1)
	want(t, "calls", g.t.Active(), 1)
}

// a border element that keeps the Call-ID.
func TestSameCallID(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	in := g.call(phoneA, pbx, "x", "+14155550100", "200")
	out := g.call(pbx, phoneB, "x", "+18005550000", "agent")
	out.fromTag = "other"
	in.ask("INVITE", 1)
	out.ask("INVITE", 1)
	in.toTag, out.toTag = "i", "o"
	out.answer(200, "INVITE", 1)
	in.answer(200, "INVITE", 1)
	want(t, "calls", g.t.Active(), 1)
}

// the refresh was lost to the capture; the audio shows that the call goes on.
func TestAudioOutlivesALostRefresh(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0"))...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, with([]string{typeSDP, "Session-Expires: 90;refresher=uac"}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	d.ask("ACK", 1)
	g.speak(50*200, 0, there, back)
	want(t, "calls", g.t.Active(), 1)
}

// who has seen a message makes himself known by an INVITE without a tag.
func TestStrangerByInvite(t *testing.T) {
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	spoof := *d
	spoof.a, spoof.branch, spoof.toTag = "10.66.6.6:5060", 66, ""
	spoof.ask("INVITE", 50)
	spoof.toTag = d.toTag
	spoof.ask("BYE", 51)
	want(t, "calls", g.t.Active(), 1)
}

// a page: audio one way from the start.
func TestSendOnlyFromTheStart(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendonly", "0"))...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "recvonly", "0"))...)
	d.ask("ACK", 1)
	d.ask("BYE", 2)
	r := g.one(t)
	if r.Completeness != nil {
		t.Errorf("%+v; holds %v", r.Completeness, r.Connections[0].Holds)
	}
}

// phones whose contacts have the same user part.
func TestContacts(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	reg := func(user, phone string) {
		head := []string{"From: <sip:" + user + "@example.com>;tag=f" + user, "To: <sip:" + user + "@example.com>;tag=t", "Call-ID: r" + user, "CSeq: 1 REGISTER"}
		g.send(pbx, phone, append([]string{"SIP/2.0 200 OK", "Via: SIP/2.0/UDP " + phone + ";branch=z9hG4bKr" + user, "Contact: <sip:line1@" + phone + ">;expires=60"}, head...)...)
	}
	reg("agent1", phoneA)
	reg("agent2", phoneB)
	d := g.call(pbx, phoneA, "x", "+14155550100", "line1")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(180, "INVITE", 1)
	want(t, "party", g.t.Calls()[0].Connections[0].Party.ID, "agent1")
}

// many calls at once from one number.
func TestBusyNumber(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	for i := range 300 {
		g.talkTo(g.call(fmt.Sprintf("10.1.%d.%d:5060", i>>8, i&255), pbx, fmt.Sprint("q", i), "+14155550100", fmt.Sprint(i)))
	}
	in := g.call(phoneA, pbx, "in", "+14155550100", "1000")
	in.ask("INVITE", 1)
	g.call(pbx, phoneB, "out", "+14155550100", "200").ask("INVITE", 1)
	calls := g.t.Calls()
	last := calls[len(calls)-1]
	want(t, "parties of the last call", len(last.Connections), 2)
}

// what ended is told, even when the router was slow for a while.
func TestEndsAreTold(t *testing.T) {
	slow := &slowEmitter{hold: make(chan struct{}), open: map[string]bool{}}
	box := newOutbox(slow, 16)
	done := make(chan struct{})
	go func() { box.pump(); close(done) }()
	e := newEngine((&Config{}).withDefaults(), box)
	g := &stage{sheet: newSheet(), e: e, now: 1_800_000_000 * call.Second}
	ds := make([]*dlg, 0, 5)
	for i := range 5 {
		ds = append(ds, g.talkTo(g.call(phoneA, phoneB, fmt.Sprint("c", i), "1", "2")))
		time.Sleep(5 * time.Millisecond)
	}
	for _, d := range ds {
		d.ask("INFO", 2)
		d.ask("INFO", 3)
		d.ask("INFO", 4)
	}
	for i := range 20 {
		g.call(phoneA, phoneC, fmt.Sprint("n", i), "1", "2").ask("INVITE", 1)
	}
	for _, d := range ds {
		d.ask("BYE", 5)
	}
	close(slow.hold)
	time.Sleep(50 * time.Millisecond)
	g.wait(100 * call.Second)
	time.Sleep(50 * time.Millisecond)
	close(box.queue)
	<-done
	if len(slow.open) > 0 {
		t.Errorf("%d legs were created and never cleared: %v", len(slow.open), slow.open)
	}
}

type slowEmitter struct {
	hold chan struct{}
	open map[string]bool
	n    int
}

func (s *slowEmitter) Frame(f core.Frame) error {
	if s.n++; s.n > 20 {
		<-s.hold
	}
	for _, o := range f.Observations {
		switch o.Kind {
		case call.LegCreated:
			s.open[o.Leg] = true
		case call.LegCleared:
			delete(s.open, o.Leg)
		}
	}
	return nil
}
func (s *slowEmitter) DeadLetter(core.DeadLetter) error { return nil }
func (s *slowEmitter) Count(string, int)                {}
func (s *slowEmitter) Up(core.Instance) error           { return nil }
func (s *slowEmitter) Clock(core.ClockSample) error     { return nil }
func (s *slowEmitter) Gap(string, call.Time) error      { return nil }
func (s *slowEmitter) Missing([]string) error           { return nil }

// RTCP to a port of its own (RFC 3605).
func TestRTCPPort(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	offer := with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0"))
	offer = append(offer, "a=rtcp:5555")
	d.ask("INVITE", 1, offer...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	d.ask("ACK", 1)
	rr := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
	g.packet(wire.Datagram, "10.2.0.1:4001", "10.1.0.1:5555", rr)
	want(t, "rtcp of no call", g.counts["rtcp_of_no_call"], 0)
}

// a user agent that is a soft phone with a switch's name in it.
func TestSoftphoneName(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, pbx, "x", "100", "200")
	d.ask("INVITE", 1, "User-Agent: 3CXPhone 6.0.26523.0")
	d.toTag = "t"
	d.answer(180, "INVITE", 1, "Server: Kamailio")
	want(t, "first party inbound", g.t.Calls()[0].Connections[0].Party.Number, "100")
}

// IPv6 with a zone, IPv4 mapped.
func TestAddresses(t *testing.T) {
	r := newRoles([]string{"::ffff:10.0.0.1", "[::ffff:10.0.0.2]:5060"})
	want(t, "mapped", []bool{r.known(netip.MustParseAddrPort("10.0.0.1:5060")), r.known(netip.MustParseAddrPort("10.0.0.2:5060"))}, []bool{true, true})
	g := newStage(Config{})
	d := g.call("[fe80::1]:5060", "[fe80::2]:5060", "x", "100", "200")
	sdp := func(a string) []string {
		return []string{typeSDP, "", "v=0", "o=- 1 1 IN IP6 " + a, "s=-", "c=IN IP6 " + a, "t=0 0", "m=audio 4000 RTP/AVP 0"}
	}
	d.ask("INVITE", 1, sdp("fe80::1%eth0")...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, sdp("fe80::2%eth0")...)
	d.ask("ACK", 1)
	g.speak(10, 0, [2]string{"[fe80::1]:4000", "[fe80::2]:4000"})
	want(t, "rtp of no call", g.counts["rtp_of_no_call"], 0)
}

// long values are bounded.
func TestLongCallID(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, strings.Repeat("x", 20000), "1", "2")
	g.send(d.a, d.b, append([]string{"INVITE sip:2@x SIP/2.0", "Via: SIP/2.0/UDP 1.1.1.1;branch=z9hG4bKx"}, d.head(1, "INVITE")...)...)
	want(t, "dead letters, dialogs", []int{len(g.dead), g.e.n}, []int{1, 0})
}

// both sides of an early dialog; UPDATE refused with the same CSeq as the other side's offer.
func TestGlareSameCSeq(t *testing.T) {
	g, d := rtpStage(Config{})
	b := d.back()
	d.ask("INVITE", 5, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendonly", "0"))...)
	b.ask("INVITE", 5, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendonly", "0"))...)
	d.answer(491, "INVITE", 5)
	d.ask("ACK", 5)
	b.answer(200, "INVITE", 5, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "recvonly", "0"))...)
	b.ask("ACK", 5)
	g.wait(2 * call.Second)
	c := g.t.Calls()[0]
	want(t, "held", []int{len(c.Connections[0].Holds), len(c.Connections[1].Holds)}, []int{0, 1})
}

// BYE before its 200 by disorder.
func TestChallenge407StatusKept(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "c"
	d.answer(422, "INVITE", 1)
	d.ask("ACK", 1)
	r := g.one(t)
	want(t, "status", r.Cause.SIP, 422)
}

var _ = slices.Sort[[]int]

// the end of a call whose BYE was lost is when its audio ended.
func TestLostEndIsWhenTheAudioEnded(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0"))...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, with([]string{typeSDP, "Session-Expires: 90;refresher=uac"}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	d.ask("ACK", 1)
	g.speak(50*60, 0, there, back)
	at := g.now
	g.wait(200 * call.Second)
	r := g.one(t)
	want(t, "end", r.EndedAt, at)
}
