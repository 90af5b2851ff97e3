package sdp

import (
	"fmt"
	"testing"
)

func audio(port int, formats, attributes string) string {
	return fmt.Sprintf("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.%d\nt=0 0\nm=audio %d RTP/AVP %s\n%s", port%256, port, formats, attributes)
}

func TestNegotiate(t *testing.T) {
	const event101, event96 = "a=rtpmap:101 telephone-event/8000\n", "a=rtpmap:96 telephone-event/8000\n"
	tests := []struct {
		name, offer, answer string
		codec               string
		offerer, answerer   string // codec/dtmf payload types, direction
	}{
		{"the answer's first", audio(4000, "0 8 101", event101), audio(5000, "8 0 101", event101), "PCMA", "8 101 sendrecv", "8 101 sendrecv"},
		{"payload types differ", audio(4000, "97 96", "a=rtpmap:97 opus/48000/2\n"+event96), audio(5000, "110 101", "a=rtpmap:110 opus/48000\n"+event101), "opus", "97 96 sendrecv", "110 101 sendrecv"},
		{"tones are no codec", audio(4000, "101 13 0", event101), audio(5000, "101 13 0", event101), "PCMU", "0 101 sendrecv", "0 101 sendrecv"},
		{"no tones", audio(4000, "0 101", event101), audio(5000, "0", ""), "PCMU", "0 -1 sendrecv", "0 -1 sendrecv"},
		{"tones at the codec's clock", audio(4000, "111 101 110", "a=rtpmap:111 opus/48000/2\na=rtpmap:110 telephone-event/48000\n"+event101),
			audio(5000, "111 101 110", "a=rtpmap:111 opus/48000/2\na=rtpmap:110 telephone-event/48000\n"+event101), "opus", "111 110 sendrecv", "111 110 sendrecv"},
		{"an answer without rtpmap", audio(4000, "97", "a=rtpmap:97 iLBC/8000\n"), audio(5000, "97", ""), "iLBC", "97 -1 sendrecv", "97 -1 sendrecv"},
		{"nothing in common", audio(4000, "0", ""), audio(5000, "18", ""), "", "-1 -1 sendrecv", "-1 -1 sendrecv"},
		{"on hold", audio(4000, "0", "a=sendonly\n"), audio(5000, "0", "a=recvonly\n"), "PCMU", "0 -1 sendonly", "0 -1 recvonly"},
		{"on hold, answered as if not", audio(4000, "0", "a=sendonly\n"), audio(5000, "0", ""), "PCMU", "0 -1 sendonly", "0 -1 recvonly"},
		{"both on hold", audio(4000, "0", "a=sendonly\n"), audio(5000, "0", "a=inactive\n"), "PCMU", "0 -1 inactive", "0 -1 inactive"},
		{"one of two ways to send a codec", audio(4000, "96 97", "a=rtpmap:96 AMR/8000\na=fmtp:96 octet-align=1\na=rtpmap:97 AMR/8000\n"),
			audio(5000, "98", "a=rtpmap:98 AMR/8000\na=fmtp:98 octet-align=1\n"), "AMR", "96 -1 sendrecv", "98 -1 sendrecv"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := Negotiate(parse(t, tt.offer), parse(t, tt.answer))[0]
			side := func(s Side) string { return fmt.Sprintf("%d %d %s", s.Codec, s.DTMF, s.Direction) }
			if g.Refused || g.Codec.Codec != tt.codec || side(g.Offerer) != tt.offerer || side(g.Answerer) != tt.answerer {
				t.Errorf("got %+v", g)
			}
			if g.Offerer.Addr != addr("192.0.2.160:4000") || g.Answerer.Addr != addr("192.0.2.136:5000") {
				t.Errorf("addresses %v and %v", g.Offerer.Addr, g.Answerer.Addr)
			}
		})
	}
}

func TestNegotiateStreams(t *testing.T) {
	offer := parse(t, audio(4000, "0", "a=rtcp-mux\na=label:1\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJD\nm=video 4002 RTP/AVP 34\nm=image 4004 udptl t38\n"))
	answer := parse(t, audio(5000, "0", "a=rtcp-mux\nm=video 0 RTP/AVP 34\n"))
	g := Negotiate(offer, answer)
	if len(g) != 3 || g[0].Refused || !g[1].Refused || !g[2].Refused {
		t.Fatalf("got %+v", g)
	}
	if !g[0].Mux || g[0].Offerer.RTCP != g[0].Offerer.Addr || g[0].Answerer.RTCP != addr("192.0.2.136:5000") {
		t.Errorf("RTCP of %+v", g[0])
	}
	if g[0].Encryption != "" || g[0].Label != "1" {
		t.Errorf("an offer of encryption that was not taken: %+v", g[0])
	}
	if g[1].Offerer.Direction != Inactive || g[1].Codec.Codec != "" {
		t.Errorf("refused: %+v", g[1])
	}
	if g := Negotiate(offer, nil); len(g) != 3 || !g[0].Refused {
		t.Errorf("without an answer: %+v", g)
	}
	if g := Negotiate(nil, answer); g != nil {
		t.Errorf("without an offer: %+v", g)
	}
}

func TestHolds(t *testing.T) {
	null := "v=0\nc=IN IP4 0.0.0.0\nm=audio 4000 RTP/AVP 0\n"
	tests := []struct {
		name, offer, answer string
		offerer, answerer   Hold
	}{
		{"talking", audio(4000, "0", ""), audio(5000, "0", ""), HoldOff, HoldOff},
		{"the offerer holds", audio(4000, "0", "a=sendonly\n"), audio(5000, "0", "a=recvonly\n"), HoldOn, HoldOff},
		{"the offerer holds without music", audio(4000, "0", "a=inactive\n"), audio(5000, "0", "a=inactive\n"), HoldOn, HoldUnchanged},
		{"the offerer holds the old way", null, audio(5000, "0", ""), HoldOn, HoldOff},
		{"both hold", audio(4000, "0", "a=sendonly\n"), audio(5000, "0", "a=inactive\n"), HoldOn, HoldOn},
		{"the answerer holds", audio(4000, "0", ""), audio(5000, "0", "a=sendonly\n"), HoldOff, HoldOn},
		{"the one on hold refreshes", audio(4000, "0", "a=recvonly\n"), audio(5000, "0", "a=sendonly\n"), HoldOff, HoldUnchanged},
		{"refused", audio(0, "0", ""), audio(0, "0", ""), HoldUnchanged, HoldUnchanged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, a := Holds(&parse(t, tt.offer).Media[0], &parse(t, tt.answer).Media[0])
			if o != tt.offerer || a != tt.answerer {
				t.Errorf("offerer %d, answerer %d; want %d, %d", o, a, tt.offerer, tt.answerer)
			}
		})
	}
	if o, a := Holds(nil, nil); o != HoldUnchanged || a != HoldUnchanged {
		t.Errorf("nothing: %d, %d", o, a)
	}
}

func BenchmarkNegotiate(b *testing.B) {
	o, a := parse(b, usual), parse(b, usual)
	b.ReportAllocs()
	for b.Loop() {
		if g := Negotiate(o, a); g[0].Refused {
			b.Fatal(g)
		}
	}
}
