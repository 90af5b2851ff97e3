package sdp

import (
	"net/netip"
	"strings"
	"testing"

	pion "github.com/pion/sdp/v3"
)

// recording is the offer of a session recording client (RFC 7866, figure 4, shortened).
const recording = "v=0\no=SRC 2890844526 2890844526 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\n" +
	"m=audio 12240 RTP/AVP 0 4 8 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=sendonly\na=label:1\n" +
	"m=audio 12242 RTP/AVP 98\na=rtpmap:98 H264/90000\na=sendonly\na=label:2\n" +
	"m=audio 12244 RTP/AVP 8\na=inactive\na=label:3\nm=audio 12246 RTP/AVP 0\na=label:4\n"

func TestAnswer(t *testing.T) {
	s := Session{ID: 7, Version: 8, Addr: netip.MustParseAddr("203.0.113.9")}
	r := Receive{Codecs: []string{"PCMA", "pcmu"}}
	media := []Receive{r, r, r}
	for i := range media {
		media[i].Port = uint16(20000 + 2*i)
	}
	media[0].RTCP = 30001
	text, d, err := Answer(parse(t, recording), s, media)
	if err != nil {
		t.Fatal(err)
	}
	want := "v=0\r\no=- 7 8 IN IP4 203.0.113.9\r\ns=-\r\nc=IN IP4 203.0.113.9\r\nt=0 0\r\n" +
		"m=audio 20000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n" +
		"a=fmtp:101 0-15\r\na=ptime:20\r\na=rtcp:30001\r\na=label:1\r\na=recvonly\r\n" +
		"m=audio 0 RTP/AVP 98\r\n" +
		"m=audio 20004 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=label:3\r\na=inactive\r\n" +
		"m=audio 0 RTP/AVP 0\r\n"
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if len(d.Media) != 4 || d.Media[0].Addr != addr("203.0.113.9:20000") || d.Media[0].RTCP != addr("203.0.113.9:30001") {
		t.Errorf("said %+v", d)
	}
	var p pion.SessionDescription
	if err := p.Unmarshal(text); err != nil {
		t.Errorf("a strict reader: %v", err)
	}
}

func TestAnswerEncrypted(t *testing.T) {
	const offer = "v=0\nc=IN IP4 198.51.100.1\nm=audio 12240 RTP/SAVP 0\na=rtcp-mux\na=sendonly\na=crypto:1 NEW_SUITE inline:QUJD\n" +
		"a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:QUJD\na=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20\n"
	s := Session{Addr: netip.MustParseAddr("2001:db8::9")}
	o := parse(t, offer)
	if _, _, err := Answer(o, s, []Receive{{Port: 1}}); err == nil || !strings.Contains(err.Error(), "no a=crypto") {
		t.Errorf("without a key: %v", err)
	}
	ours, theirs, err := AnswerCrypto(o.Media[0].Crypto, "AES_CM_128_HMAC_SHA1_80")
	if err != nil || ours.Tag != 3 || theirs.Tag != 3 {
		t.Fatalf("AnswerCrypto: %v, %v, %v", ours, theirs, err)
	}
	_, d, err := Answer(o, s, []Receive{{Port: 1, Mux: true, Crypto: &ours}})
	if err != nil {
		t.Fatal(err)
	}
	g := Negotiate(o, d)[0]
	if g.Encryption != SDES || !g.Mux || g.Answerer.Direction != RecvOnly || g.Answerer.RTCP != addr("[2001:db8::9]:1") {
		t.Errorf("agreed %+v", g)
	}
	key, salt, err := g.Answerer.Crypto[0].Master()
	if err != nil || len(key) != 16 || len(salt) != 14 {
		t.Errorf("our key: %d and %d bytes, %v", len(key), len(salt), err)
	}
	if _, _, err := AnswerCrypto(o.Media[0].Crypto, "AEAD_AES_256_GCM"); err == nil {
		t.Error("a suite that is not offered was found")
	}
}

func TestAnswerRefuses(t *testing.T) {
	if _, _, err := Answer(parse(t, usual), Session{}, nil); err == nil {
		t.Error("answered without an address")
	}
	dtls := parse(t, "m=audio 9 UDP/TLS/RTP/SAVPF 0\na=fingerprint:sha-256 00\n")
	if _, _, err := Answer(dtls, Session{Addr: netip.MustParseAddr("192.0.2.1")}, []Receive{{Port: 1}}); err == nil {
		t.Error("answered DTLS")
	}
}
