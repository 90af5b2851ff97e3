package sip

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"weak"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// fork plays a call through a proxy that forks it, one hop at a time, as it is captured at the proxy.
type fork struct{ g *stage }

const forkProxy = "10.9.0.1:5060"

func (f *fork) req(method, branch, b string, to string, cseq int, up bool) {
	lines := []string{method + " sip:200@x SIP/2.0"}
	src, dst := phoneA, forkProxy
	if !up {
		src, dst = forkProxy, b
		lines = append(lines, "Via: SIP/2.0/UDP "+forkProxy+";branch=z9hG4bK"+branch)
	}
	if up || method == "INVITE" || method == "BYE" {
		lines = append(lines, "Via: SIP/2.0/UDP "+phoneA+";branch=z9hG4bKa")
	}
	m := method
	f.g.send(src, dst, append(lines, "From: <sip:100@x>;tag=f", "To: <sip:200@x>"+to, "Call-ID: x", fmt.Sprintf("CSeq: %d %s", cseq, m))...)
}

func (f *fork) res(status int, branch, b, to string, up bool) {
	lines := []string{fmt.Sprintf("SIP/2.0 %d X", status)}
	src, dst := forkProxy, phoneA
	if !up {
		src, dst = b, forkProxy
		lines = append(lines, "Via: SIP/2.0/UDP "+forkProxy+";branch=z9hG4bK"+branch)
	}
	lines = append(lines, "Via: SIP/2.0/UDP "+phoneA+";branch=z9hG4bKa")
	f.g.send(src, dst, append(lines, "From: <sip:100@x>;tag=f", "To: <sip:200@x>"+to, "Call-ID: x", "CSeq: 1 INVITE")...)
}

// parallel forking at a proxy: one phone refuses, the other answers.
func TestParallelForkOneRefuses(t *testing.T) {
	g := newStage(Config{})
	f := &fork{g: g}
	f.req("INVITE", "", "", "", 1, true)
	f.req("INVITE", "b1", phoneB, "", 1, false)
	f.req("INVITE", "b2", phoneC, "", 1, false)
	f.res(180, "b1", phoneB, ";tag=one", false)
	f.res(180, "", "", ";tag=one", true)
	f.res(180, "b2", phoneC, ";tag=two", false)
	f.res(180, "", "", ";tag=two", true)
	f.res(486, "b1", phoneB, ";tag=one", false)
	g.wait(2 * call.Second)
	want(t, "calls that go on", g.t.Active(), 1)
	f.res(200, "b2", phoneC, ";tag=two", false)
	f.res(200, "", "", ";tag=two", true)
	g.wait(3 * call.Second)
	f.req("BYE", "b3", phoneC, ";tag=two", 2, true)
	r := g.one(t)
	want(t, "outcome", r.Outcome, call.Answered)
}

// serial forking: the proxy cancels the first phone and rings the second.
func TestSerialFork(t *testing.T) {
	g := newStage(Config{})
	f := &fork{g: g}
	f.req("INVITE", "", "", "", 1, true)
	f.req("INVITE", "b1", phoneB, "", 1, false)
	f.res(180, "b1", phoneB, ";tag=one", false)
	f.res(180, "", "", ";tag=one", true)
	f.req("CANCEL", "b1", phoneB, "", 1, false)
	f.res(487, "b1", phoneB, ";tag=one", false)
	f.req("INVITE", "b2", phoneC, "", 1, false)
	g.wait(2 * call.Second)
	want(t, "calls that go on", g.t.Active(), 1)
	f.res(200, "b2", phoneC, ";tag=two", false)
	f.res(200, "", "", ";tag=two", true)
	g.wait(3 * call.Second)
	f.req("BYE", "b3", phoneC, ";tag=two", 2, true)
	r := g.one(t)
	want(t, "outcome", r.Outcome, call.Answered)
}

// the caller cancels, and the proxy both phones: cancelled, once.
func TestForkCancelled(t *testing.T) {
	g := newStage(Config{})
	f := &fork{g: g}
	f.req("INVITE", "", "", "", 1, true)
	f.req("INVITE", "b1", phoneB, "", 1, false)
	f.req("INVITE", "b2", phoneC, "", 1, false)
	f.res(180, "b1", phoneB, ";tag=one", false)
	f.res(180, "", "", ";tag=one", true)
	f.req("CANCEL", "", "", "", 1, true)
	at := g.now
	f.req("CANCEL", "b1", phoneB, "", 1, false)
	f.req("CANCEL", "b2", phoneC, "", 1, false)
	f.res(487, "b1", phoneB, ";tag=one", false)
	f.res(487, "b2", phoneC, ";tag=two", false)
	f.res(487, "", "", ";tag=one", true)
	r := g.one(t)
	want(t, "outcome", []any{r.Outcome, r.EndedAt}, []any{call.Abandoned, at})
}

// media of a dialog that is over must not be set up.
func TestStreamsOfEndedDialogsLeak(t *testing.T) {
	g := newStage(Config{})
	for i := range 5 {
		d := g.call(phoneA, phoneB, fmt.Sprint("x", i), "100", "200")
		d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf(fmt.Sprintf("10.1.0.1:%d", 4000+2*i), "sendrecv"))...)
		d.toTag = "t"
		d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf(fmt.Sprintf("10.2.0.1:%d", 4000+2*i), "sendrecv"))...)
		d.ask("ACK", 1)
		d.ask("BYE", 2)
		d.back().ask("INVITE", 7, with([]string{typeSDP}, sdpOf(fmt.Sprintf("10.2.0.1:%d", 4000+2*i), "sendonly"))...) // crossed the BYE
		d.answer(200, "BYE", 2)
	}
	g.wait(100 * call.Second)
	want(t, "dialogs, streams, flows", []int{g.e.n, g.e.streams, len(g.e.flows)}, []int{0, 0, 0})
}

// the UAC tries again after a final refusal, with the same Call-ID and From tag and a higher CSeq (RFC 3261, 8.1.3.4).
func TestRetryAfterRefusal(t *testing.T) {
	for _, status := range []int{302, 415, 488, 503, 486} {
		g := newStage(Config{})
		d := g.call(phoneA, phoneB, "x", "100", "200")
		d.ask("INVITE", 1)
		d.toTag = "one"
		d.answer(status, "INVITE", 1, "Contact: <sip:300@10.3.0.1>")
		d.ask("ACK", 1)
		d.toTag, d.b = "", phoneC
		d.ask("INVITE", 2)
		d.toTag = "two"
		d.answer(180, "INVITE", 2)
		d.answer(200, "INVITE", 2)
		d.ask("ACK", 2)
		g.wait(3 * call.Second)
		d.ask("BYE", 3)
		g.wait(100 * call.Second)
		answered := 0
		for _, r := range g.records() {
			if r.Outcome == call.Answered {
				answered++
			}
		}
		want(t, fmt.Sprint("answered calls after ", status), answered, 1)
		ids := map[string]bool{}
		for _, r := range g.records() {
			ids[r.InteractionID] = true
		}
		want(t, "interactions", len(ids), 1)
	}
}

// a re-INVITE that is refused leaves the old session (RFC 3261, 14.1): its audio goes on being measured.
func TestRefusedReinvite(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	d.ask("INVITE", 2, with([]string{typeSDP}, sdpOf("10.1.0.9:6000", "sendrecv", "0", "101"))...)
	g.speak(10, 100, there, back)
	d.answer(488, "INVITE", 2)
	d.ask("ACK", 2)
	g.speak(1200, 110, there, back)
	d.ask("BYE", 3)
	r := g.one(t)
	want(t, "packets from the caller, callee", []any{r.Connections[0].Media.Packets, r.Connections[1].Media.Packets, r.Connections[1].Media.Lost}, []any{1310, 1310, 0})
	for _, e := range g.types(call.MediaQuality) {
		if len(e.Quality.Flags) > 0 {
			t.Errorf("flags %v", e.Quality.Flags)
			break
		}
	}
}

// a dialog that is forgotten holds no other in memory.
func TestForgottenDialogsAreFreed(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	g.e.out = &nowhere{}
	in := g.talkTo(g.call(phoneA, pbx, "in", "+14155550100", "1000"))
	out := g.call(pbx, phoneB, "out", "+14155550100", "200")
	out.ask("INVITE", 1)
	out.toTag = "o"
	out.answer(486, "INVITE", 1) // out is forgotten soon, and still in the group of in
	_ = in
	var later []weak.Pointer[dialog]
	for i := range 200 {
		d := g.call(phoneA, phoneB, fmt.Sprint("later", i), "x", "y")
		d.ask("INVITE", 1)
		later = append(later, weak.Make(g.e.last))
		d.toTag = "t"
		d.answer(486, "INVITE", 1)
		g.wait(4 * call.Second)
	}
	g.wait(100 * call.Second)
	for range 3 {
		runtime.GC()
	}
	alive := 0
	for _, w := range later {
		if w.Value() != nil {
			alive++
		}
	}
	runtime.KeepAlive(g)
	want(t, "dialogs known", g.e.n, 1)
	if alive > 2 {
		t.Errorf("%d forgotten dialogs are still in memory", alive)
	}
}

// a scan that is refused, faster than it is forgotten, leaves room for calls.
func TestRefusedScanLeavesRoom(t *testing.T) {
	g := newStage(Config{MaxDialogs: 200})
	g.e.out = &nowhere{}
	for i := range 400 {
		d := g.call(fmt.Sprintf("10.66.%d.%d:5060", i>>8, i&255), phoneB, fmt.Sprint("scan", i), "1", "2")
		d.ask("INVITE", 1)
		d.toTag = "t"
		d.answer([]int{401, 404}[i%2], "INVITE", 1)
		if i%50 == 0 {
			g.wait(call.Second)
		}
	}
	g.e.out = g.sheet
	d := g.talkTo(g.call(phoneA, phoneB, "good", "100", "200"))
	_ = d
	want(t, "calls seen, full", []int{g.t.Active(), g.counts["dialogs_full"]}, []int{1, 0})
}

// messages of dialogs that nobody knows must not fill the table for six hours.
func TestStrayDialogsLeaveRoom(t *testing.T) {
	for _, kind := range []string{"request", "response"} {
		g := newStage(Config{MaxDialogs: 200})
		g.e.out = &nowhere{}
		for i := range 400 {
			d := g.call(fmt.Sprintf("10.66.%d.%d:5060", i>>8, i&255), phoneB, fmt.Sprint("stray", i), "1", "2")
			d.toTag = "t"
			if kind == "request" {
				d.ask("INVITE", 1)
			} else {
				d.answer(200, "INVITE", 1)
			}
		}
		g.wait(60 * call.Second)
		g.e.out = g.sheet
		g.talkTo(g.call(phoneA, phoneB, "good", "100", "200"))
		want(t, kind+": calls seen, full", []int{g.t.Active(), g.counts["dialogs_full"]}, []int{1, 0})
	}
}

// a switch that keeps out of the audio's way has the same audio in both of its dialogs.
func TestDirectMedia(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	in := g.call(phoneA, pbx, "in", "100", "200")
	out := g.call(pbx, phoneB, "out", "100", "200")
	a := with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0"))
	b := with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))
	in.ask("INVITE", 1, a...)
	out.ask("INVITE", 1, a...)
	in.toTag, out.toTag = "ti", "to"
	out.answer(200, "INVITE", 1, b...)
	in.answer(200, "INVITE", 1, b...)
	g.speak(1200, 0, there, back)
	in.ask("BYE", 2)
	out.ask("BYE", 2)
	r := g.one(t)
	want(t, "connections", len(r.Connections), 2)
	for _, e := range g.types(call.MediaQuality) {
		if len(e.Quality.Flags) > 0 {
			t.Errorf("%s %s %v", e.ConnectionID, e.Quality.Direction, e.Quality.Flags)
		}
	}
	for _, c := range r.Connections {
		if c.Media == nil || c.Media.Packets != 1200 {
			t.Errorf("%s: %+v", c.ID, c.Media)
		}
	}
}

// behind a NAT, the source's port changes in mid-call; audio goes on.
func TestNATRebinds(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	g.speak(250, 100, back) // 5 s without the caller
	moved := [2]string{"10.1.0.1:4444", there[1]}
	g.speak(1000, 350, moved, back)
	d.ask("BYE", 2)
	r := g.one(t)
	if n := r.Connections[0].Media.Packets; n < 1090 {
		t.Errorf("%d packets", n)
	}
}

// two agents whose clocks differ.
func TestAgentsClocksDiffer(t *testing.T) {
	g, d := rtpStage(Config{})
	other := func() { // an agent whose clock is an hour ahead tells of another call
		p := wire.Packet{Kind: wire.Datagram, At: g.now + 3600*call.Second, Received: g.now, Src: netip.MustParseAddrPort(phoneC), Dst: netip.MustParseAddrPort(phoneB), Payload: []byte("OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 10.3.0.1;branch=z9hG4bKq\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")}
		g.e.packet(&p)
	}
	for i := range 40 {
		g.speak(50, uint16(50*i), there, back)
		g.e.ticked = 0 // the tick falls on the other agent's packet
		other()
	}
	d.ask("BYE", 2)
	g.one(t)
	n := 0
	for _, e := range g.types(call.MediaQuality) {
		if !e.Quality.Final {
			n++
		}
		if e.Time.Switch > g.now {
			t.Errorf("a report at %v, now %v", e.Time.Switch, g.now)
			break
		}
	}
	if n < 6 {
		t.Errorf("%d reports in 40 s of two streams", n)
	}
}

// early audio one way, then both ways.
func TestEarlyOneWay(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0"))...)
	d.toTag = "t"
	d.answer(183, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendonly", "0"))...)
	d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	d.ask("ACK", 1)
	d.ask("BYE", 2)
	r := g.one(t)
	want(t, "directions", []string{r.Connections[0].Media.Direction, r.Connections[1].Media.Direction}, []string{"sendrecv", "sendrecv"})
}

// the switch to T.38 ends the audio.
func TestFax(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	g2, d2 := g.call(phoneA, phoneC, "y", "300", "400"), 0
	_, _ = g2, d2
	fax := []string{typeSDP, "", "v=0", "o=- 1 2 IN IP4 10.2.0.1", "s=-", "c=IN IP4 10.2.0.1", "t=0 0", "m=audio 0 RTP/AVP 0", "m=image 4002 udptl t38"}
	faxA := []string{typeSDP, "", "v=0", "o=- 1 2 IN IP4 10.1.0.1", "s=-", "c=IN IP4 10.1.0.1", "t=0 0", "m=audio 0 RTP/AVP 0", "m=image 4002 udptl t38"}
	b := d.back()
	b.ask("INVITE", 1, fax...)
	b.answer(200, "INVITE", 1, faxA...)
	b.ask("ACK", 1)
	g.wait(50 * call.Second)
	d.ask("BYE", 2)
	g.one(t)
	for _, e := range g.types(call.MediaQuality) {
		if len(e.Quality.Flags) > 0 {
			t.Errorf("%s %s %v", e.ConnectionID, e.Quality.Direction, e.Quality.Flags)
		}
	}
}

// T.38 with only an image line.
func TestFaxOnlyImage(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	fax := []string{typeSDP, "", "v=0", "o=- 1 2 IN IP4 10.2.0.1", "s=-", "c=IN IP4 10.2.0.1", "t=0 0", "m=image 4002 udptl t38"}
	b := d.back()
	b.ask("INVITE", 1, fax...)
	b.answer(200, "INVITE", 1, fax...)
	b.ask("ACK", 1)
	g.wait(50 * call.Second)
	d.ask("BYE", 2)
	g.one(t)
	for _, e := range g.types(call.MediaQuality) {
		if len(e.Quality.Flags) > 0 {
			t.Errorf("%s %s %v", e.ConnectionID, e.Quality.Direction, e.Quality.Flags)
		}
	}
}

// the BYE was lost to the capture, or came from an address nobody named; its 200 says that the call is over.
func TestTheAnswerToAByeEndsTheCall(t *testing.T) {
	for _, status := range []int{200, 481} {
		g := newStage(Config{})
		d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
		g.wait(5 * call.Second)
		d.answer(status, "BYE", 2)
		r := g.one(t)
		want(t, "hangup", r.HangupBy, "caller")
	}
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	bye := *d
	bye.a = "10.7.0.7:5060" // another machine of the caller's carrier
	bye.ask("BYE", 2)
	bye.answer(200, "BYE", 2)
	g.one(t)
}
