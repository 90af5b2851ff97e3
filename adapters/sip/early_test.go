package sip

import (
	"fmt"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// phones talk past the capture (direct media) while other calls' audio is seen.
func TestAudioThatPassesElsewhere(t *testing.T) {
	g, d := rtpStage(Config{})
	e := g.call(phoneC, "10.4.0.1:5060", "y", "300", "400")
	e.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.3.0.1:4000", "sendrecv", "0"))...)
	e.toTag = "t"
	e.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.4.0.1:4000", "sendrecv", "0"))...)
	e.ask("ACK", 1)
	g.speak(1500, 0, there, back)
	e.ask("BYE", 2)
	d.ask("BYE", 2)
	g.wait(40 * call.Second)
	for _, ev := range g.types(call.MediaQuality) {
		if len(ev.Quality.Flags) > 0 {
			t.Errorf("%s %v", ev.ConnectionID, ev.Quality.Flags)
		}
	}
}

// an early dialog's BYE ends one fork only (RFC 3261, 15).
func TestByeOfAnEarlyFork(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "one"
	d.answer(180, "INVITE", 1)
	d.toTag = "two"
	d.answer(180, "INVITE", 1)
	d.toTag = "one"
	d.ask("BYE", 2)
	d.answer(200, "BYE", 2)
	d.toTag = "two"
	d.answer(200, "INVITE", 1)
	g.wait(call.Second)
	want(t, "calls", g.t.Active(), 1)
}

// sipfrag forms.
func TestSipfrag(t *testing.T) {
	for _, body := range []string{"SIP/2.0 200 OK", "SIP/2.0 200", "\r\nSIP/2.0 200 OK", "sip/2.0 200 OK", "SIP/2.0  200 OK"} {
		g := newStage(Config{})
		d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
		b := d.back()
		b.ask("REFER", 1, "Refer-To: <sip:300@x>")
		b.answer(202, "REFER", 1)
		d.ask("NOTIFY", 2, "Event: refer", "Content-Type: message/sipfrag", "", body)
		want(t, fmt.Sprintf("transfers by %q", body), len(g.types(call.CallTransferred)), 1)
	}
}

// the offer of a re-INVITE without SDP is in its 200.
func TestOfferlessReinvite(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	d.ask("INVITE", 2)
	d.answer(200, "INVITE", 2, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	d.ask("ACK", 2, with([]string{typeSDP}, sdpOf("10.1.0.1:6000", "sendrecv", "0"))...)
	g.speak(100, 100, [2]string{"10.1.0.1:6000", "10.2.0.1:4000"}, [2]string{"10.2.0.1:4000", "10.1.0.1:6000"})
	d.ask("BYE", 3)
	r := g.one(t)
	want(t, "packets", []uint64{r.Connections[0].Media.Packets, r.Connections[1].Media.Packets}, []int{200, 200})
}

// reliable 183 with the offer, PRACK with the answer; then UPDATE early.
func TestPrack(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(183, "INVITE", 1, with([]string{typeSDP, "RSeq: 1", "Require: 100rel"}, sdpOf("10.2.0.1:4000", "sendrecv", "8"))...)
	d.ask("PRACK", 2, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "8"))...)
	d.answer(200, "PRACK", 2)
	d.ask("UPDATE", 3, with([]string{typeSDP}, sdpOf("10.1.0.1:5000", "sendrecv", "8"))...)
	d.answer(200, "UPDATE", 3, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "8"))...)
	d.answer(200, "INVITE", 1)
	d.ask("ACK", 1)
	g.speak(100, 100, [2]string{"10.1.0.1:5000", "10.2.0.1:4000"}, [2]string{"10.2.0.1:4000", "10.1.0.1:5000"})
	d.ask("BYE", 4)
	r := g.one(t)
	want(t, "packets", []uint64{r.Connections[0].Media.Packets, r.Connections[1].Media.Packets}, []int{100, 100})
}

// a long early media phase.
func TestLongEarlyAudio(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0"))...)
	d.toTag = "t"
	d.answer(183, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	g.speak(50*300, 0, back)
	d.answer(200, "INVITE", 1)
	want(t, "calls", g.t.Active(), 1)
}

// an answered call whose 200 was lost: the ACK with a branch of its own says so.
func TestLostOK(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(180, "INVITE", 1)
	d.branch = 77
	d.ask("ACK", 1)
	g.wait(30 * call.Second)
	d.ask("BYE", 2)
	r := g.one(t)
	want(t, "outcome", r.Outcome, call.Answered)
}

// a mobile phone goes to another network: re-INVITE from an address nobody named.
func TestHandover(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	moved := *d
	moved.a = "100.64.0.9:5060"
	moved.ask("INVITE", 2, with([]string{typeSDP}, sdpOf("100.64.0.9:7000", "sendrecv", "0"))...)
	moved.answer(200, "INVITE", 2, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0"))...)
	moved.ask("ACK", 2)
	g.speak(1500, 100, [2]string{"100.64.0.9:7000", "10.2.0.1:4000"}, [2]string{"10.2.0.1:4000", "100.64.0.9:7000"})
	moved.ask("BYE", 3)
	r := g.one(t)
	want(t, "packets", []uint64{r.Connections[0].Media.Packets, r.Connections[1].Media.Packets}, []int{1600, 1600})
}

// a proxy on the caller's own host acknowledges a refusal, at a hop whose INVITE had a branch of its own.
func TestAProxysACKProvesNothing(t *testing.T) {
	const proxy = "10.1.0.1:5090"
	g := newStage(Config{})
	viaA, viaP := "Via: SIP/2.0/UDP "+phoneA+";branch=z9hG4bKa", "Via: SIP/2.0/UDP "+proxy+";branch=z9hG4bKp"
	from, to, id := "From: <sip:100@x>;tag=f", "To: <sip:200@x>", "Call-ID: x"
	g.send(phoneA, proxy, "INVITE sip:200@x SIP/2.0", viaA, from, to, id, "CSeq: 1 INVITE")
	g.send(proxy, phoneB, "INVITE sip:200@x SIP/2.0", viaP, viaA, from, to, id, "CSeq: 1 INVITE")
	g.send(phoneB, proxy, "SIP/2.0 480 Nobody", viaP, viaA, from, to+";tag=t", id, "CSeq: 1 INVITE")
	g.send(proxy, phoneB, "ACK sip:200@x SIP/2.0", viaP, from, to+";tag=t", id, "CSeq: 1 ACK")
	g.send(proxy, phoneA, "SIP/2.0 480 Nobody", viaA, from, to+";tag=t", id, "CSeq: 1 INVITE")
	g.send(phoneA, proxy, "ACK sip:200@x SIP/2.0", viaA, from, to+";tag=t", id, "CSeq: 1 ACK")
	want(t, "outcome", g.one(t).Outcome, call.NoAnswer)
}
