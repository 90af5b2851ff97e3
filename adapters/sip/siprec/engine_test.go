package siprec

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// bench is an engine with a network and a clock of the test's own.
type bench struct {
	*engine
	t    testing.TB
	rec  *adaptertest.Recorder
	now  time.Time
	sent []sentMessage
}

type sentMessage struct {
	text string
	to   netip.AddrPort
}

func (b *bench) send(text []byte, to netip.AddrPort) {
	b.sent = append(b.sent, sentMessage{string(text), to})
}

func newBench(t testing.TB, change func(c *Config)) *bench {
	t.Helper()
	c := &Config{RTPPorts: "45000-48999"}
	if change != nil {
		change(c)
	}
	s, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, rec: adaptertest.NewRecorder(context.Background()), now: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
	b.engine = newEngine(s, b.rec)
	t.Cleanup(func() { b.leave(b.now) })
	return b
}

// get handles a message from an address and returns what was sent because of it.
func (b *bench) get(from, transport, text string) []sentMessage {
	b.t.Helper()
	src := netip.MustParseAddrPort(from)
	m, err := parse(newParser(), []byte(text), call.At(b.now), path{via: b, transport: transport, src: src, local: netip.MustParseAddrPort("127.0.0.1:5080")})
	if err != nil {
		b.t.Fatalf("%v in\n%s", err, text)
	}
	b.sent = nil
	b.take(inbound{msg: m}, b.now)
	return b.sent
}

// after lets time pass and returns what was sent meanwhile.
func (b *bench) after(d time.Duration) []sentMessage {
	b.sent = nil
	end := b.now.Add(d)
	for {
		w := b.wait(b.now)
		if b.now.Add(w).After(end) {
			break
		}
		b.now = b.now.Add(w)
		b.tick(b.now)
	}
	b.now = end
	return b.sent
}

const peer = "192.0.2.7:5060"

// sip writes a request of a client at peer.
func sipText(method, callID, toTag string, seq int, headers, kind, body string) string {
	to := "<sip:srs@x>"
	if toTag != "" {
		to += ";tag=" + toTag
	}
	return fmt.Sprintf("%s sip:srs@x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK%s%d%s\r\nFrom: <sip:src@y>;tag=f\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:src@192.0.2.7:5070>\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		method, callID, seq, method, to, callID, seq, method, headers, kind, len(body), body)
}

const oneStream = "v=0\r\no=- 1 1 IN IP4 192.0.2.8\r\ns=-\r\nc=IN IP4 192.0.2.8\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\na=label:96\r\n"

func inviteText(callID, headers string) string {
	return sipText("INVITE", callID, "", 1, "Require: siprec\r\n"+headers, "multipart/mixed;boundary=xyz", multipartBody(oneStream, metadata("complete", "")))
}

// begin sets up a session and returns our tag.
func (b *bench) established(callID, headers string) string {
	b.t.Helper()
	sent := b.get(peer, "UDP", inviteText(callID, headers))
	if len(sent) != 1 || !strings.HasPrefix(sent[0].text, "SIP/2.0 200 ") {
		b.t.Fatalf("INVITE is answered by %v", sent)
	}
	tag := tagOf(sent[0].text)
	b.get(peer, "UDP", sipText("ACK", callID, tag, 1, "", "text/plain", ""))
	return tag
}

func tagOf(text string) string {
	_, rest, _ := strings.Cut(text, "\r\nTo: <sip:srs@x>;tag=")
	tag, _, _ := strings.Cut(rest, "\r\n")
	return tag
}

func starts(sent []sentMessage, want ...string) bool {
	if len(sent) != len(want) {
		return false
	}
	for i := range want {
		if !strings.HasPrefix(sent[i].text, want[i]) {
			return false
		}
	}
	return true
}

func (b *bench) counted(name string, want int) {
	b.t.Helper()
	if got := b.rec.Log().Counts[name]; got != want {
		b.t.Errorf("%s is %d, want %d", name, got, want)
	}
}

func TestRepeats200UntilACK(t *testing.T) {
	for _, transport := range []string{"UDP", "TCP"} {
		b := newBench(t, nil)
		first := b.get(peer, transport, inviteText("a", ""))
		if !starts(first, "SIP/2.0 200 ") || first[0].to != netip.MustParseAddrPort(peer) {
			t.Fatal(first)
		}
		if got := b.after(3600 * time.Millisecond); len(got) != 3 { // 0.5, 1.5, 3.5 s
			t.Errorf("%s: 200 was repeated %d times in 3.6 s", transport, len(got))
		}
		again := b.get(peer, transport, inviteText("a", ""))
		if len(again) != 1 || again[0] != first[0] {
			t.Errorf("%s: the repeated INVITE is answered otherwise", transport)
		}
		if n := len(b.rec.Log().Frames); n != 0 {
			t.Errorf("%s: %d frames before the ACK", transport, n)
		}
		b.get(peer, transport, sipText("ACK", "a", tagOf(first[0].text), 1, "", "text/plain", ""))
		if got := b.after(9 * time.Second); len(got) != 0 {
			t.Errorf("%s: still repeated after the ACK: %d", transport, len(got))
		}
		if n := len(observations(b.rec.Log(), call.LegCreated)); n != 2 {
			t.Errorf("%s: %d legs after the ACK", transport, n)
		}
	}
}

func TestNoACK(t *testing.T) {
	b := newBench(t, nil)
	b.get(peer, "UDP", inviteText("a", ""))
	sent := b.after(40 * time.Second)
	if last := sent[len(sent)-1]; !strings.HasPrefix(last.text, "BYE sip:src@192.0.2.7:5070 ") {
		t.Errorf("the last message is %q", last.text)
	}
	if len(b.sessions) != 0 || b.streams != 0 || len(b.rec.Log().Frames) != 0 {
		t.Errorf("%d sessions, %d streams, %d frames are left", len(b.sessions), b.streams, len(b.rec.Log().Frames))
	}
	b.counted(CountNoACK, 1)
	b.after(80 * time.Second)
	if len(b.asking) != 0 || b.timers.Len() != 0 || b.tx.order.Len() != 0 {
		t.Errorf("%d requests, %d timers, %d transactions are left", len(b.asking), b.timers.Len(), b.tx.order.Len())
	}
}

func TestRefusals(t *testing.T) {
	plain := func(headers, kind, body string) string { return sipText("INVITE", "a", "", 1, headers, kind, body) }
	tests := []struct{ name, text, want, header string }{
		{"no offer", plain("Require: siprec\r\n", "text/plain", ""), "SIP/2.0 488 ", "Warning: 399 "},
		{"metadata alone", plain("Require: siprec\r\n", "application/rs-metadata+xml", metadata("complete", "")), "SIP/2.0 488 ", "Warning: 399 "},
		{"no recording client", plain("", "application/sdp", oneStream), "SIP/2.0 421 ", "Require: siprec"},
		{"unknown extension", plain("Require: siprec, 100rel\r\n", "application/sdp", oneStream), "SIP/2.0 420 ", "Unsupported: 100rel"},
		{"broken multipart", plain("Require: siprec\r\n", "multipart/mixed", "x"), "SIP/2.0 400 ", "Warning: 399 "},
		{"broken SDP", plain("Require: siprec\r\n", "application/sdp", "hello"), "SIP/2.0 400 ", "Warning: 399 "},
		{"huge SDP", plain("Require: siprec\r\n", "application/sdp", oneStream+strings.Repeat("a=x\r\n", 20_000)), "SIP/2.0 400 ", "Warning: 399 "},
		{"video", plain("Require: siprec\r\n", "application/sdp", strings.Replace(oneStream, "m=audio", "m=video", 1)), "SIP/2.0 488 ", "Warning: 399 "},
		{"DTLS", plain("Require: siprec\r\n", "application/sdp", strings.Replace(oneStream, "RTP/AVP", "UDP/TLS/RTP/SAVP", 1)), "SIP/2.0 488 ", ""},
		{"SRTP without a key", plain("Require: siprec\r\n", "application/sdp", strings.Replace(oneStream, "RTP/AVP", "RTP/SAVP", 1)), "SIP/2.0 488 ", ""},
		{"unknown suite", plain("Require: siprec\r\n", "application/sdp", strings.Replace(oneStream, "RTP/AVP", "RTP/SAVP", 1)+"a=crypto:1 F8_128_HMAC_SHA1_80 inline:AAAA\r\n"), "SIP/2.0 488 ", ""},
		{"short interval", plain("Require: siprec\r\nSession-Expires: 30\r\n", "application/sdp", oneStream), "SIP/2.0 422 ", "Min-SE: 90"},
		{"REGISTER", sipText("REGISTER", "a", "", 1, "", "text/plain", ""), "SIP/2.0 405 ", "Allow: INVITE"},
		{"unknown method", sipText("FOO", "a", "", 1, "", "text/plain", ""), "SIP/2.0 405 ", "Allow: INVITE"},
		{"OPTIONS", sipText("OPTIONS", "a", "", 1, "", "text/plain", ""), "SIP/2.0 200 ", "Accept: application/sdp, application/rs-metadata+xml"},
		{"BYE outside", sipText("BYE", "a", "", 1, "", "text/plain", ""), "SIP/2.0 481 ", ""},
		{"BYE in an unknown dialog", sipText("BYE", "a", "x", 1, "", "text/plain", ""), "SIP/2.0 481 ", ""},
		{"CANCEL of nothing", sipText("CANCEL", "a", "", 1, "", "text/plain", ""), "SIP/2.0 481 ", ""},
		{"re-INVITE in an unknown dialog", sipText("INVITE", "a", "x", 1, "Require: siprec\r\n", "application/sdp", oneStream), "SIP/2.0 481 ", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, nil)
			sent := b.get(peer, "UDP", tt.text)
			if !starts(sent, tt.want) || !strings.Contains(sent[0].text, tt.header) || tagOf(sent[0].text) == "" && !strings.Contains(tt.text, ";tag=x") {
				t.Fatalf("got %v, want %s with %s", sent, tt.want, tt.header)
			}
			if len(b.sessions) != 0 || b.streams != 0 || len(b.rec.Log().Frames) != 0 {
				t.Errorf("%d sessions, %d streams, %d frames", len(b.sessions), b.streams, len(b.rec.Log().Frames))
			}
			if !strings.HasPrefix(tt.text, "INVITE") {
				return
			}
			if repeats := b.after(1600 * time.Millisecond); len(repeats) != 2 || repeats[0] != sent[0] { // timer G
				t.Errorf("the refusal is repeated %d times before the ACK", len(repeats))
			}
			ack := strings.ReplaceAll(strings.Replace(tt.text, "INVITE sip", "ACK sip", 1), "1 INVITE", "1 ACK")
			b.get(peer, "UDP", ack)
			if repeats := b.after(40 * time.Second); len(repeats) != 0 || b.tx.repeats != 0 || b.tx.order.Len() != 0 {
				t.Errorf("after the ACK it is repeated %d times, %d kept", len(repeats), b.tx.order.Len())
			}
		})
	}
}

func TestInsideDialog(t *testing.T) {
	b := newBench(t, nil)
	tag := b.established("a", "")
	bye := sipText("BYE", "a", tag, 2, "", "text/plain", "")
	if sent := b.get("198.51.100.1:5060", "UDP", bye); !starts(sent, "SIP/2.0 403 ") || len(b.sessions) != 1 {
		t.Errorf("BYE from elsewhere: %v", sent)
	}
	b.counted(CountSpoofed, 1)
	for _, wrong := range []string{strings.Replace(bye, "tag="+tag, "tag=wrong", 1), strings.Replace(bye, "tag=f", "tag=g", 1), strings.Replace(bye, "Call-ID: a", "Call-ID: b", 1)} {
		if sent := b.get(peer, "UDP", wrong); !starts(sent, "SIP/2.0 481 ") {
			t.Errorf("BYE with wrong tags: %v", sent)
		}
	}
	if sent := b.get(peer, "UDP", sipText("INFO", "a", tag, 1, "", "text/plain", "")); !starts(sent, "SIP/2.0 500 ") {
		t.Errorf("an old CSeq: %v", sent)
	}
	if sent := b.get(peer, "UDP", inviteText("a", "X: another\r\n")); !starts(sent, "SIP/2.0 200 ") {
		t.Errorf("the INVITE again: %v", sent)
	}
	if sent := b.get(peer, "UDP", strings.Replace(inviteText("a", ""), "branch=", "branch=z9hG4bKother", 1)); !starts(sent, "SIP/2.0 482 ") {
		t.Errorf("the same Call-ID by another way: %v", sent)
	}
	cancel := strings.Replace(strings.Replace(inviteText("a", ""), "INVITE sip", "CANCEL sip", 1), "1 INVITE", "1 CANCEL", 1)
	if sent := b.get(peer, "UDP", cancel); !starts(sent, "SIP/2.0 200 ") || len(b.sessions) != 1 {
		t.Errorf("CANCEL after the answer: %v", sent)
	}
	for method, want := range map[string]string{"INFO": "SIP/2.0 200 ", "OPTIONS": "SIP/2.0 200 ", "NOTIFY": "SIP/2.0 405 ", "REFER": "SIP/2.0 405 "} {
		seq := int(b.sessions["a"].d.remoteSeq) + 1
		if sent := b.get(peer, "UDP", sipText(method, "a", tag, seq, "", "text/plain", "")); !starts(sent, want) {
			t.Errorf("%s: %v", method, sent)
		}
	}
	seq := int(b.sessions["a"].d.remoteSeq) + 1
	if sent := b.get(peer, "UDP", sipText("INVITE", "a", tag, seq, "", "text/plain", "")); !starts(sent, "SIP/2.0 200 ") || !strings.Contains(sent[0].text, "m=audio") {
		t.Errorf("an INVITE without an offer, to refresh: %v", sent)
	}
	bye = sipText("BYE", "a", tag, seq+1, "", "text/plain", "")
	one, two := b.get(peer, "UDP", bye), b.get(peer, "UDP", bye)
	if !starts(one, "SIP/2.0 200 ") || len(two) != 1 || one[0] != two[0] {
		t.Errorf("BYE and again: %v, %v", one, two)
	}
	if n := len(observations(b.rec.Log(), call.LegCleared)); n != 2 {
		t.Errorf("%d legs are cleared", n)
	}
	b.counted(CountRetransmitted, 2)
}

func TestSessionTimer(t *testing.T) {
	t.Run("client refreshes", func(t *testing.T) {
		b := newBench(t, nil)
		sent := b.get(peer, "UDP", inviteText("a", "Supported: timer\r\nSession-Expires: 300\r\n"))
		if !strings.Contains(sent[0].text, "Session-Expires: 300;refresher=uac\r\n") || !strings.Contains(sent[0].text, "Require: timer\r\n") {
			t.Fatalf("answer: %s", sent[0].text)
		}
		tag := tagOf(sent[0].text)
		b.get(peer, "UDP", sipText("ACK", "a", tag, 1, "", "text/plain", ""))
		b.after(200 * time.Second)
		b.get(peer, "UDP", sipText("UPDATE", "a", tag, 2, "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n", "text/plain", ""))
		b.after(200 * time.Second)
		if len(b.sessions) != 1 {
			t.Fatal("a refreshed session is over")
		}
		gone(t, b, 100*time.Second)
	})
	t.Run("we refresh", func(t *testing.T) {
		b := newBench(t, nil)
		b.established("a", "Allow: INVITE, UPDATE\r\nSession-Expires: 200;refresher=uas\r\nSupported: timer\r\n")
		sent := b.after(100 * time.Second)
		if !starts(sent, "UPDATE sip:src@192.0.2.7:5070 ") || !strings.Contains(sent[0].text, "Session-Expires: 200;refresher=uac") || !strings.Contains(sent[0].text, "To: <sip:src@y>;tag=f\r\n") {
			t.Fatalf("sent %v", sent)
		}
		b.get(peer, "UDP", response(sent[0].text, "200 OK"))
		if sent := b.after(100 * time.Second); !starts(sent, "UPDATE ") {
			t.Errorf("no second refresh: %v", sent)
		}
		b.get(peer, "UDP", response(b.sent[0].text, "481 Gone"))
		cleared(t, b)
	})
	t.Run("no timer", func(t *testing.T) {
		b := newBench(t, nil)
		b.established("a", "")
		sent := b.after(probeTime + time.Second)
		if len(sent) == 0 || !strings.HasPrefix(sent[0].text, "OPTIONS ") {
			t.Fatalf("sent %v", sent)
		}
		b.get("198.51.100.1:5060", "UDP", response(sent[0].text, "481 Gone"))
		b.counted(CountStrayResponses, 1)
		b.get(peer, "UDP", response(sent[0].text, "405 What"))
		if len(b.sessions) != 1 {
			t.Fatal("a client that answers is given up")
		}
		gone(t, b, probeTime+40*time.Second)
	})
}

// response answers a request of ours.
func response(request, status string) string {
	head, _, _ := strings.Cut(request, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	out := "SIP/2.0 " + status + "\r\n"
	for _, l := range lines[1:] {
		if name, _, _ := strings.Cut(l, ":"); strings.Contains("Via From To Call-ID CSeq", name) {
			out += l + "\r\n"
		}
	}
	return out + "Content-Length: 0\r\n\r\n"
}

// gone wants the session to end for want of a client.
func gone(t *testing.T, b *bench, within time.Duration) {
	t.Helper()
	b.after(within)
	cleared(t, b)
}

func cleared(t *testing.T, b *bench) {
	t.Helper()
	if len(b.sessions) != 0 || b.streams != 0 {
		t.Fatal("a session without a client goes on")
	}
	b.counted(CountDeadSessions, 1)
	o := observations(b.rec.Log(), call.LegCleared)
	if len(o) != 2 || !o[0].Synthetic || o[0].Value != "unknown" || o[0].Q850 != 0 {
		t.Errorf("cleared: %+v", o)
	}
}

func TestNoMetadata(t *testing.T) {
	b := newBench(t, nil)
	text := sipText("INVITE", "a", "", 1, "Require: siprec\r\n", "application/sdp", oneStream)
	sent := b.get(peer, "UDP", text)
	if !starts(sent, "SIP/2.0 200 ") {
		t.Fatal(sent)
	}
	tag := tagOf(sent[0].text)
	b.get(peer, "UDP", sipText("ACK", "a", tag, 1, "", "text/plain", ""))
	o := observations(b.rec.Log(), call.LegCreated)
	if len(o) != 1 || o[0].Leg != "a;96" || o[0].Number != "" {
		t.Fatalf("legs: %+v", o)
	}
	// The metadata comes later: the stream's leg is the caller's now.
	b.get(peer, "UDP", sipText("UPDATE", "a", tag, 2, "", "application/rs-metadata+xml", metadata("complete", "")))
	l := b.rec.Log()
	if u := observations(l, call.LegUpdated); len(u) != 1 || u[0].Leg != "a;96" || u[0].Number != "5551230001" {
		t.Errorf("updates: %+v", u)
	}
	if o := observations(l, call.LegCreated); len(o) != 2 || o[1].Leg != "a;pb" || o[1].Parent != "a;96" || len(observations(l, call.LegCleared)) != 0 {
		t.Errorf("legs: %+v", o)
	}
	// The recorded call's Call-ID comes later still.
	b.cfg.CallIDHeaders = []string{"sipSessionID"}
	b.get(peer, "UDP", sipText("UPDATE", "a", tag, 30, "", "application/rs-metadata+xml", metadata("complete", "")))
	l = b.rec.Log()
	if u := observations(l, call.LegUpdated); len(u) != 2 || u[1].Leg != "a;96" || u[1].SIPCallID != "original@pbx" {
		t.Errorf("updates: %+v", u)
	}
	// Another document with new ids for the same people makes no new legs.
	again := strings.NewReplacer(`"pa"`, `"pa2"`, `"pb"`, `"pb2"`).Replace(metadata("complete", ""))
	b.get(peer, "UDP", sipText("UPDATE", "a", tag, 31, "", "application/rs-metadata+xml", again))
	l = b.rec.Log()
	if n := len(observations(l, call.LegCreated, call.LegCleared)); n != 2 {
		t.Errorf("new ids made %d legs", n)
	}
}

// TestRefusedStream: a video stream before the audio is refused, and takes nobody's place.
func TestRefusedStream(t *testing.T) {
	b := newBench(t, nil)
	video := strings.Replace(oneStream, "m=audio", "m=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio", 1)
	sent := b.get(peer, "UDP", sipText("INVITE", "a", "", 1, "Require: siprec\r\n", "multipart/mixed;boundary=xyz", multipartBody(video, string(document(t, "opensips.xml")))))
	if !starts(sent, "SIP/2.0 200 ") || !strings.Contains(sent[0].text, "m=video 0 ") {
		t.Fatal(sent)
	}
	b.get(peer, "UDP", sipText("ACK", "a", tagOf(sent[0].text), 1, "", "text/plain", ""))
	b.get(peer, "UDP", sipText("BYE", "a", tagOf(sent[0].text), 2, "", "text/plain", ""))
	l := b.rec.Log()
	first := observations(l, call.LegCreated)[0]
	if q := observations(l, call.LegQuality); first.Number != "5551230001" || len(q) != 1 || q[0].Leg != first.Leg {
		t.Errorf("caller %+v, reports %+v", first, q)
	}
}

// TestReplaced: all participants are others now, in one document: the call goes on.
func TestReplaced(t *testing.T) {
	b := newBench(t, nil)
	tag := b.established("a", "")
	others := strings.NewReplacer(`"pa"`, `"px"`, `"pb"`, `"py"`, "5551230001", "7001", "agent1", "agent9").Replace(metadata("complete", ""))
	b.get(peer, "UDP", sipText("UPDATE", "a", tag, 2, "", "application/rs-metadata+xml", others))
	tr, calls := call.NewTracker(call.Options{}), map[string]bool{}
	for _, f := range b.rec.Log().Frames {
		for _, o := range f.Observations {
			for _, e := range tr.Apply(call.SwitchRef{ID: "s"}, o) {
				calls[e.CallID] = true
				if e.Type == call.CallEnded {
					t.Error("the call ends")
				}
			}
		}
	}
	if len(calls) != 1 {
		t.Errorf("%d calls", len(calls))
	}
	if n := len(observations(b.rec.Log(), call.LegCleared)); n != 2 {
		t.Errorf("%d legs are cleared", n)
	}
}

// TestKeysStayHere: no SRTP key leaves with the raw message.
func TestKeysStayHere(t *testing.T) {
	b := newBench(t, nil)
	const key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	secure := strings.Replace(oneStream, "RTP/AVP", "RTP/SAVP", 1) + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + key + "|2^31\r\n"
	text := sipText("INVITE", "a", "", 1, "Require: siprec\r\n", "multipart/mixed;boundary=xyz", multipartBody(secure, "no xml"))
	sent := b.get(peer, "UDP", text)
	if !starts(sent, "SIP/2.0 200 ") {
		t.Fatal(sent)
	}
	b.get(peer, "UDP", sipText("ACK", "a", tagOf(sent[0].text), 1, "", "text/plain", ""))
	l := b.rec.Log()
	for _, raw := range [][]byte{l.Frames[0].Raw, l.DeadLetters[0].Raw} {
		if strings.Contains(string(raw), key) || len(raw) != len(text) || !strings.Contains(string(raw), "inline:xxxx") || !strings.Contains(string(raw), "|2^31") {
			t.Errorf("raw: %s", raw)
		}
	}
}

// TestBadMetadata: what cannot be read is a dead letter, and the streams are measured all the same.
func TestBadMetadata(t *testing.T) {
	b := newBench(t, nil)
	bomb := `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><recording>&b;</recording>`
	sent := b.get(peer, "UDP", sipText("INVITE", "a", "", 1, "Require: siprec\r\n", "multipart/mixed;boundary=xyz", multipartBody(oneStream, bomb)))
	if !starts(sent, "SIP/2.0 200 ") || b.streams != 1 {
		t.Errorf("answered by %v", sent)
	}
	b.counted(CountBadMetadata, 1)
	if d := b.rec.Log().DeadLetters; len(d) != 1 || !strings.Contains(d[0].Reason, "DOCTYPE") {
		t.Errorf("dead letters: %+v", d)
	}
}

func TestAssociationTimes(t *testing.T) {
	b := newBench(t, nil)
	at := func(d time.Duration) string {
		return `<participantsessionassoc participant_id="pa"><associate-time>` + b.now.Add(d).Format(time.RFC3339) + `</associate-time></participantsessionassoc>`
	}
	tests := map[time.Duration]time.Duration{-time.Minute: -time.Minute, -time.Second: 0, time.Minute: 0, -48 * time.Hour: 0}
	for given, want := range tests {
		id := given.String()
		text := sipText("INVITE", id, "", 1, "Require: siprec\r\n", "multipart/mixed;boundary=xyz", multipartBody(oneStream, metadata("complete", at(given))))
		tag := tagOf(b.get(peer, "UDP", text)[0].text)
		b.get(peer, "UDP", sipText("ACK", id, tag, 1, "", "text/plain", ""))
		o := of(b.rec.Log(), id+";pa", call.LegConnected)
		if len(o) != 1 || o[0].At != call.At(b.now.Add(want)) || o[0].Received != call.At(b.now) {
			t.Errorf("associated %v ago: %+v", given, o)
		}
	}
}

// FuzzMessages feeds a session's peer's and a stranger's bytes to the engine.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(inviteText("b", "")), true)
	f.Add([]byte(sipText("UPDATE", "a", "TAG", 2, "Session-Expires: 90\r\n", "application/sdp", oneStream)), true)
	f.Add([]byte(sipText("BYE", "a", "TAG", 2, "", "text/plain", "")), false)
	f.Add([]byte(sipText("INVITE", "a", "TAG", 3, "", "multipart/mixed;boundary=xyz", multipartBody(oneStream, metadata("partial", "")))), true)
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP x;branch=y\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: a\r\nCSeq: 1 BYE\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, raw []byte, known bool) {
		b := newBench(t, func(c *Config) { c.MaxSessions, c.MaxStreams = 4, 4 })
		b.established("a", "")
		text := strings.ReplaceAll(string(raw), "tag=TAG", "tag="+b.sessions["a"].d.localTag)
		src := netip.MustParseAddrPort("198.51.100.9:5060")
		if known {
			src = netip.MustParseAddrPort(peer)
		}
		m, err := parse(newParser(), []byte(text), call.At(b.now), path{via: b, transport: "UDP", src: src, local: src})
		if err == nil {
			b.sent = nil
			b.take(inbound{msg: m}, b.now)
		}
		if !known && b.sessions["a"] == nil {
			t.Fatal("a stranger ended a session")
		}
		b.after(10 * time.Second)
		if len(b.sessions) > 4 || b.streams > 4 || b.timers.Len() > 4*4+maxRepeat+2*4+16 {
			t.Fatalf("%d sessions, %d streams, %d timers", len(b.sessions), b.streams, b.timers.Len())
		}
	})
}
