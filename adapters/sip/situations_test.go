package sip

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

const (
	phoneA, phoneB, phoneC = "10.1.0.1:5060", "10.2.0.1:5060", "10.3.0.1:5060"
	pbx                    = "10.0.0.1:5060"
)

// talkTo plays a call from INVITE to ACK, without media.
func (g *stage) talkTo(d *dlg) *dlg {
	d.ask("INVITE", 1)
	d.toTag = "t" + d.id
	d.answer(180, "INVITE", 1)
	d.answer(200, "INVITE", 1)
	d.ask("ACK", 1)
	return d
}

func (g *stage) call(a, b, id, from, to string) *dlg {
	return &dlg{g: g, a: a, b: b, id: id, from: from, to: to, fromTag: "f" + id}
}

// one returns the only record, and holds it to what every record must be.
func (g *stage) one(t *testing.T) *call.Call {
	t.Helper()
	g.wait(40 * call.Second)
	rs := g.records()
	if len(rs) != 1 || g.t.Active() != 0 {
		t.Fatalf("%d records and %d calls that go on, want one record", len(rs), g.t.Active())
	}
	return rs[0]
}

func want(t *testing.T, what string, got, expected any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("%s: %v, want %v", what, got, expected)
	}
}

func TestTwoPhonesAreTwoParties(t *testing.T) {
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	g.wait(5 * call.Second)
	d.back().ask("BYE", 1)
	r := g.one(t)
	want(t, "outcome, hangup", []any{r.Outcome, r.HangupBy, r.Cause.Q850, len(r.Connections)}, []any{call.Answered, "200", 16, 2})
	want(t, "talk", r.Durations.TalkMS/1000, 5)
}

func TestForksAreOneCall(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	for _, tag := range []string{"one", "two"} {
		d.toTag = tag
		d.answer(180, "INVITE", 1)
	}
	d.answer(200, "INVITE", 1)
	d.ask("ACK", 1)
	d.toTag = "one" // the other fork answers too late, and is hung up on
	d.answer(200, "INVITE", 1)
	d.ask("ACK", 1)
	d.ask("BYE", 2)
	d.toTag = "two"
	g.wait(3 * call.Second)
	if len(g.records()) != 0 {
		t.Fatal("the BYE of a fork that lost ended the call")
	}
	d.ask("BYE", 3)
	r := g.one(t)
	want(t, "outcome, by", []any{r.Outcome, r.HangupBy}, []any{call.Answered, "caller"})
}

func TestAnswerWinsOverCancel(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(180, "INVITE", 1)
	d.toTag = ""
	d.ask("CANCEL", 1)
	d.toTag = "t"
	d.answer(200, "INVITE", 1)
	d.answer(200, "CANCEL", 1)
	d.ask("ACK", 1)
	d.ask("BYE", 2)
	r := g.one(t)
	want(t, "hangup", r.HangupBy, "caller")
	want(t, "connected", r.Connections[0].ConnectedAt != 0, true)
}

func TestCancelIsAbandoned(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(180, "INVITE", 1)
	d.toTag = ""
	g.wait(2 * call.Second)
	d.ask("CANCEL", 1)
	at := g.now
	d.toTag = "t"
	g.wait(call.Second)
	d.answer(487, "INVITE", 1)
	r := g.one(t)
	want(t, "outcome, by, end", []any{r.Outcome, r.HangupBy, r.EndedAt}, []any{call.Abandoned, "caller", at})
}

func TestAChallengeIsNoRefusal(t *testing.T) {
	for _, again := range []bool{true, false} {
		g := newStage(Config{})
		d := g.call(phoneA, phoneB, "x", "100", "200")
		d.ask("INVITE", 1)
		d.toTag = "c"
		d.answer(407, "INVITE", 1, `Proxy-Authenticate: Digest realm="x", nonce="y"`)
		d.ask("ACK", 1)
		if again {
			d.toTag = ""
			d.ask("INVITE", 2, `Proxy-Authorization: Digest username="100"`)
			d.toTag = "t"
			d.answer(180, "INVITE", 2)
			d.answer(200, "INVITE", 2)
			d.ask("ACK", 2)
			d.ask("BYE", 3)
		}
		r := g.one(t)
		want(t, "outcome", r.Outcome, map[bool]call.Outcome{true: call.Answered, false: call.Rejected}[again])
	}
}

func TestHolds(t *testing.T) {
	media := func(addr, direction string) []string { return with([]string{typeSDP}, sdpOf(addr, direction)) }
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, media("10.1.0.1:4000", "sendrecv")...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, media("10.2.0.1:4000", "sendrecv")...)
	d.ask("ACK", 1)
	b := d.back()
	for i, offer := range [][]string{media("10.2.0.1:4000", "sendonly"), media("10.2.0.1:4000", "inactive"), media("0.0.0.0:4000", "sendrecv")} {
		seq := 10 * (i + 1)
		g.wait(call.Second)
		b.ask("INVITE", seq, offer...)
		b.answer(200, "INVITE", seq, media("10.1.0.1:4000", "recvonly")...)
		b.ask("ACK", seq)
		g.wait(2 * call.Second)
		b.ask("UPDATE", seq+1, media("10.2.0.1:4000", "sendrecv")...)
		b.answer(200, "UPDATE", seq+1, media("10.1.0.1:4000", "sendrecv")...)
	}
	d.ask("BYE", 2)
	r := g.one(t)
	holds := r.Connections[1].Holds
	if len(holds) != 3 || len(r.Connections[0].Holds) != 0 {
		t.Fatalf("holds of the callee %v, of the caller %v", holds, r.Connections[0].Holds)
	}
	for _, h := range holds {
		want(t, "hold of 2 s", h.To.Sub(h.From)/1000, 2)
	}
}

func TestDelayedOffer(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "8", "0"))...)
	d.ask("ACK", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "8"))...)
	d.ask("BYE", 2)
	r := g.one(t)
	want(t, "codec", r.Connections[0].Media.Codec, "PCMA")
}

func TestASessionThatIsNotRefreshedIsOver(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, "Session-Expires: 90;refresher=uac")
	d.ask("ACK", 1)
	g.wait(60 * call.Second)
	d.ask("UPDATE", 2)
	d.answer(200, "UPDATE", 2, "x: 90")
	at := g.now
	g.wait(100 * call.Second)
	want(t, "still going", g.t.Active(), 1)
	g.wait(60 * call.Second)
	r := g.one(t)
	want(t, "outcome, by, end", []any{r.Outcome, r.HangupBy, r.EndedAt}, []any{call.Answered, "", at})
	if r.Completeness == nil || !slices.Contains(r.Completeness.Missing, "end") || r.Completeness.SyntheticEvents == 0 {
		t.Errorf("the record does not say that its end was not seen: %+v", r.Completeness)
	}
}

// Our clock is set, by an hour or a day, while a dialog goes on: it neither ends for that, nor outlives its session timer.
func TestDialogsOutlastOurClockBeingSet(t *testing.T) {
	for _, by := range []call.Time{3600 * call.Second, -3600 * call.Second, 86400 * call.Second} {
		g := newStage(Config{})
		d := g.call(phoneA, phoneB, "x", "100", "200")
		d.ask("INVITE", 1)
		d.toTag = "t"
		d.answer(200, "INVITE", 1, "Session-Expires: 90;refresher=uac")
		d.ask("ACK", 1)
		g.wait(60 * call.Second)
		g.now += by
		g.e.clockSet(by, true)
		g.wait(50 * call.Second)
		want(t, "still going", g.t.Active(), 1)
		g.wait(30 * call.Second)
		want(t, "over", g.t.Active(), 0)
	}
}

func TestAnInviteThatNobodyAnswersIsOver(t *testing.T) {
	g := newStage(Config{})
	g.call(phoneA, phoneB, "x", "100", "200").ask("INVITE", 1)
	r := g.one(t)
	want(t, "outcome", r.Outcome, call.OutcomeUnknown)
}

func TestRepetitionsSayNothingNew(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	play := func(n int) {
		for range n {
			d.toTag, d.branch = "", 0
			d.ask("INVITE", 1)
		}
		d.toTag = "t"
		for range n {
			d.answer(180, "INVITE", 1)
			d.answer(200, "INVITE", 1)
			d.ask("ACK", 1)
		}
		for range n {
			d.branch = 5
			d.ask("BYE", 2)
			d.answer(200, "BYE", 2)
		}
	}
	play(3)
	r := g.one(t)
	want(t, "connections", len(r.Connections), 2)
	want(t, "retransmissions", g.counts["retransmissions"], 2*6)
	want(t, "alerting", len(g.types(call.ConnectionAlerting)), 1)
}

func TestHopsOfOneDialogAreOneCall(t *testing.T) {
	const proxy = "10.9.0.1:5060"
	g := newStage(Config{})
	hop := func(a, b, via string, lines ...string) {
		g.send(a, b, append([]string{lines[0], via}, lines[1:]...)...)
	}
	viaA, viaP := "Via: SIP/2.0/UDP "+phoneA+";branch=z9hG4bKa", "Via: SIP/2.0/UDP "+proxy+";branch=z9hG4bKp"
	from, to, id := "From: <sip:100@x>;tag=f", "To: <sip:200@x>", "Call-ID: x"
	both := func(request bool, first, to, cseq string) {
		if request {
			hop(phoneA, proxy, viaA, first, from, to, id, cseq)
			hop(proxy, phoneB, viaP, first, viaA, from, to, id, cseq)
		} else {
			hop(phoneB, proxy, viaP, first, viaA, from, to, id, cseq)
			hop(proxy, phoneA, viaA, first, from, to, id, cseq)
		}
	}
	both(true, "INVITE sip:200@x SIP/2.0", to, "CSeq: 1 INVITE")
	both(false, "SIP/2.0 180 Ringing", to+";tag=t", "CSeq: 1 INVITE")
	both(false, "SIP/2.0 200 OK", to+";tag=t", "CSeq: 1 INVITE")
	both(true, "ACK sip:200@x SIP/2.0", to+";tag=t", "CSeq: 1 ACK")
	both(true, "BYE sip:200@x SIP/2.0", to+";tag=t", "CSeq: 2 BYE")
	both(false, "SIP/2.0 200 OK", to+";tag=t", "CSeq: 2 BYE")
	r := g.one(t)
	want(t, "connections", len(r.Connections), 2)
	want(t, "other hops, retransmissions", []int{g.counts["other_hops"], g.counts["retransmissions"]}, []int{6, 0})
}

// through plays a call from a phone into a switch, and the switch's own call to another; it returns both.
func (g *stage) through(id, from, dialed, shown, user string, headers ...string) (in, out *dlg) {
	in = g.call(phoneA, pbx, id+"-in", from, dialed)
	out = g.call(pbx, phoneB, id+"-out", shown, user)
	in.ask("INVITE", 1, headers...)
	out.ask("INVITE", 1, headers...)
	in.toTag, out.toTag = "ti", "to"
	out.answer(180, "INVITE", 1)
	in.answer(180, "INVITE", 1)
	out.answer(200, "INVITE", 1)
	in.answer(200, "INVITE", 1)
	return in, out
}

func TestBothLegsAreOneCallByWhatIsInThem(t *testing.T) {
	for _, x := range []struct {
		name, evidence string
		cfg            Config
		shown, dialed  string
		user           string
		headers        []string
	}{
		{"the caller's number", "number_and_time", Config{}, "+14155550100", "1000", "agent1", nil},
		{"the caller's number with another prefix", "number_and_time", Config{}, "0014155550100", "1000", "agent1", nil},
		{"the dialed number", "dialed_number_and_time", Config{}, "+18005550000", "442079460000", "442079460000", nil},
		{"a configured header", "header:x-ref", Config{CorrelationHeaders: []string{"X-Ref"}, PBX: []string{"10.0.0.1"}}, "anonymous", "1000", "agent1", []string{"X-Ref: abc"}},
		{"Session-ID", "header:session-id", Config{PBX: []string{"10.0.0.0/24"}}, "anonymous", "1000", "agent1", []string{"Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			g := newStage(x.cfg)
			in, out := g.through("x", "+14155550100", x.dialed, x.shown, x.user, x.headers...)
			g.wait(3 * call.Second)
			in.ask("BYE", 2)
			out.ask("BYE", 2)
			r := g.one(t)
			want(t, "parties", []any{len(r.Connections), r.Connections[1].LinkedBy, r.HangupBy, r.Outcome}, []any{2, x.evidence, "caller", call.Answered})
		})
	}
}

func TestStrangersAreNotOneCall(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	in := g.call(phoneA, pbx, "in", "+14155550100", "1000")
	out := g.call(pbx, phoneB, "out", "+18005550199", "+14155550177")
	g.talkTo(in)
	g.talkTo(out)
	in.ask("BYE", 2)
	out.ask("BYE", 2)
	g.wait(call.Second)
	want(t, "records", len(g.records()), 2)
}

func TestADialerWithOneNumberMakesManyCalls(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	for i := range 5 {
		d := g.talkTo(g.call(pbx, phoneB, fmt.Sprint("d", i), "+18005550199", fmt.Sprintf("+1415555017%d", i)))
		defer d.ask("BYE", 2)
	}
	want(t, "calls", g.t.Active(), 5)
}

func TestATransferThatFailsIsNone(t *testing.T) {
	g := newStage(Config{})
	in, out := g.through("x", "+14155550100", "1000", "+14155550100", "agent1")
	b := out.back()
	b.ask("REFER", 1, "Refer-To: <sip:1002@10.0.0.1>")
	b.answer(202, "REFER", 1)
	notify := func(seq int, line string) {
		out.ask("NOTIFY", seq, "Event: refer", "Content-Type: message/sipfrag", "", line)
		out.answer(200, "NOTIFY", seq)
	}
	notify(2, "SIP/2.0 100 Trying")
	notify(3, "SIP/2.0 486 Busy Here")
	g.wait(5 * call.Second)
	in.ask("BYE", 2)
	out.ask("BYE", 4)
	r := g.one(t)
	want(t, "transfers", len(r.Transfers), 0)
}

func TestReplacesTakesADialogsPlace(t *testing.T) {
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	n := g.call(phoneC, phoneB, "y", "300", "200")
	n.ask("INVITE", 1, "Replaces: x;from-tag=fx;to-tag=tx")
	n.toTag = "ty"
	n.answer(200, "INVITE", 1)
	d.back().ask("BYE", 1)
	g.wait(2 * call.Second)
	n.ask("BYE", 2)
	r := g.one(t)
	want(t, "parties", []any{len(r.Connections), r.Connections[2].LinkedBy}, []any{4, "replaces"})
}

func TestDiversionsBeforeTheCallCameHere(t *testing.T) {
	for _, h := range []string{
		`Diversion: "Boss" <sip:+14155550111@example.com>;reason=no-answer;counter=1`,
		`History-Info: <sip:+14155550111@example.com?Reason=SIP%3Bcause%3D302>;index=1, <sip:200@example.com>;index=1.1`,
	} {
		g := newStage(Config{})
		d := g.call(phoneA, phoneB, "x", "100", "200")
		d.ask("INVITE", 1, h)
		d.toTag = "t"
		d.answer(486, "INVITE", 1)
		r := g.one(t)
		if len(r.Diversions) != 1 || r.Diversions[0].By != "+14155550111" || r.Diversions[0].To != "200" {
			t.Errorf("%s: %+v", h, r.Diversions)
		}
		want(t, "outcome", r.Outcome, call.Busy)
	}
}

func TestTheCallerIsWhoTheNetworkAsserts(t *testing.T) {
	g := newStage(Config{})
	g.send(phoneA, phoneB, "INVITE sip:200@example.com SIP/2.0", "Via: SIP/2.0/UDP "+phoneA+";branch=z9hG4bK1", `From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag=f`,
		"To: <sip:200@example.com>", "Call-ID: x", "CSeq: 1 INVITE", `P-Asserted-Identity: "Alice" <sip:+14155550100@example.com>`, "Privacy: id")
	r := g.one(t)
	want(t, "from", []string{r.From.Number, r.From.Name}, []string{"+14155550100", "Alice"})
}

func TestReasonTellsTheCause(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1)
	d.toTag = "t"
	d.answer(500, "INVITE", 1, `Reason: SIP;cause=500, Q.850;cause=38;text="network out of order"`)
	r := g.one(t)
	want(t, "cause", []any{r.Cause.Q850, r.Cause.SIP, r.Outcome}, []any{38, 500, call.Failed})
}

func TestACallFoundInTheMiddleSaysSo(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.toTag = "t"
	d.ask("INVITE", 7, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv"))...)
	d.answer(200, "INVITE", 7, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv"))...)
	d.ask("BYE", 8)
	r := g.one(t)
	if r.Completeness == nil || !slices.Contains(r.Completeness.Missing, "start") {
		t.Errorf("completeness %+v", r.Completeness)
	}
}

func TestUsersWhoRegisterAreInside(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}})
	g.send(pbx, phoneB, "SIP/2.0 200 OK", "Via: SIP/2.0/UDP "+phoneB+";branch=z9hG4bKr", "From: <sip:7001@x>;tag=r", "To: <sip:7001@x>;tag=q", "Call-ID: reg", "CSeq: 2 REGISTER",
		"Contact: <sip:a8f3x@10.2.0.1:5060>;expires=300")
	out := g.talkTo(g.call(pbx, phoneB, "o", "+14155550100", "a8f3x"))
	out.ask("BYE", 2)
	in := g.talkTo(g.call(phoneB, pbx, "i", "7001", "7002"))
	in.ask("BYE", 2)
	g.wait(call.Second)
	rs := g.records()
	want(t, "called user", rs[0].Connections[0].Party.ID, "7001")
	want(t, "calling user", []any{rs[1].Direction, rs[1].Connections[0].Party.Role}, []any{call.Internal, call.RoleAgent})
}

func TestATrunkIsTwoParties(t *testing.T) {
	g := newStage(Config{PBX: []string{"10.0.0.1"}, View: ViewTrunk})
	in := g.talkTo(g.call(phoneA, pbx, "i", "+14155550100", "+18005550199"))
	in.ask("BYE", 2)
	out := g.talkTo(g.call(pbx, phoneA, "o", "+18005550199", "+14155550100"))
	out.back().ask("BYE", 1)
	g.wait(call.Second)
	rs := g.records()
	want(t, "in", []any{rs[0].Direction, rs[0].Outcome, rs[0].HangupBy}, []any{call.Inbound, call.Answered, "caller"})
	want(t, "out", []any{rs[1].Direction, rs[1].Outcome, rs[1].HangupBy}, []any{call.Outbound, call.Answered, "+14155550100"})
}

func TestDigits(t *testing.T) {
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	for i, body := range []string{"Signal=4\r\nDuration=160", "Signal= #\r\nDuration=90", "Signal=10", "Signal=x"} {
		d.ask("INFO", 2+i, "Content-Type: application/dtmf-relay", "", body)
		g.wait(call.Second)
	}
	d.ask("INFO", 7, "Content-Type: application/dtmf", "", "7")
	d.ask("BYE", 8)
	want(t, "digits", g.one(t).Digits, "4#*7")
}

func TestSameNumber(t *testing.T) {
	for _, x := range []struct {
		a, b string
		want bool
	}{
		{"+14155550100", "14155550100", true}, {"+33123456789", "0123456789", true}, {"0033123456789", "+33123456789", true},
		{"914155550100", "+14155550100", true}, {"+14155550100", "+12155550100", false}, {"agent1", "AGENT1", true},
		{"1001", "1002", false}, {"", "", false}, {"5550100", "+14155550100", true}, {"0000000", "+14155550100", false},
	} {
		if got := sameNumber(x.a, x.b); got != x.want || sameNumber(x.b, x.a) != x.want {
			t.Errorf("%s and %s: %v", x.a, x.b, got)
		}
		if x.want && numberKey(x.a) != numberKey(x.b) {
			t.Errorf("%s and %s are not filed together", x.a, x.b)
		}
	}
}

func TestAnotherSessionSaysWhatItKnows(t *testing.T) {
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	lost := call.Observation{Kind: call.LegCreated, Leg: "of a recording client", Inbound: true, At: g.now, Received: g.now}
	g.events = append(g.events, g.t.Apply(call.SwitchRef{ID: "wire"}, lost)...)
	g.t.Apply(call.SwitchRef{ID: "wire"}, call.Observation{Kind: call.LinkDown, Received: g.now})
	g.wait(10 * call.Second)
	g.e.snapshot(g.now)
	want(t, "calls, ended", []int{g.t.Active(), len(g.records())}, []int{1, 1})
	d.ask("BYE", 2)
	want(t, "ended", len(g.records()), 2)
}

func TestKeysOfEncryptedCallsDoNotLeave(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	body := append(sdpOf("10.1.0.1:4000", "sendrecv"), "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20")
	d.ask("INVITE", 1, with([]string{typeSDP}, body)...)
	for _, f := range g.frames {
		if strings.Contains(string(f.Raw), "d0Rmd") {
			t.Error("the key is in the frame")
		}
	}
}
