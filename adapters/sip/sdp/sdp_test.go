package sdp

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	pion "github.com/pion/sdp/v3"
)

// usual is what a desk phone offers.
const usual = "v=0\r\no=- 1 1 IN IP4 192.0.2.4\r\ns=x\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 9 101\r\n" +
	"a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n" +
	"a=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:150\r\na=sendrecv\r\na=rtcp:4001\r\n"

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func parse(t testing.TB, s string) *Description {
	t.Helper()
	d, err := Parse([]byte(s))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return d
}

func TestParse(t *testing.T) {
	want := &Description{
		Origin: Origin{User: "-", SessionID: "1", Version: "1", Address: "192.0.2.4"},
		Media: []Media{{
			Kind: "audio", Port: 4000, Profile: "RTP/AVP", Addr: addr("192.0.2.4:4000"), RTCP: addr("192.0.2.4:4001"),
			Direction: SendRecv, PTimeMS: 20, MaxPTimeMS: 150,
			Formats: []Format{
				{PayloadType: 0, Codec: "PCMU", ClockRate: 8000, SampleRate: 8000, Channels: 1},
				{PayloadType: 8, Codec: "PCMA", ClockRate: 8000, SampleRate: 8000, Channels: 1},
				{PayloadType: 9, Codec: "G722", ClockRate: 8000, SampleRate: 16000, Channels: 1},
				{PayloadType: 101, Codec: "telephone-event", ClockRate: 8000, SampleRate: 8000, Channels: 1, FMTP: "0-16"},
			},
		}},
	}
	if got := parse(t, usual); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestParseTolerates plays what phones, gateways and switches send against the grammar.
func TestParseTolerates(t *testing.T) {
	const audio = "m=audio 4000 RTP/AVP 0\r\n"
	tests := []struct {
		name, text string
		check      func(d *Description) bool
	}{
		{"bare LF, no last end", "v=0\no=- 1 1 IN IP4 1.2.3.4\ns=-\nc=IN IP4 1.2.3.4\nt=0 0\nm=audio 4000 RTP/AVP 0", at("1.2.3.4:4000")},
		{"bare CR", "v=0\rc=IN IP4 1.2.3.4\rm=audio 4000 RTP/AVP 0\r", at("1.2.3.4:4000")},
		{"no s=, o= and t=", "v=0\r\nc=IN IP4 1.2.3.4\r\n" + audio, at("1.2.3.4:4000")},
		{"c= after t=", "v=0\r\ns=-\r\nt=0 0\r\nc=IN IP4 1.2.3.4\r\n" + audio, at("1.2.3.4:4000")},
		{"c= after a= in the media", "v=0\r\n" + audio + "a=sendrecv\r\nc=IN IP4 1.2.3.4\r\n", at("1.2.3.4:4000")},
		{"the media's c= holds", "v=0\r\nc=IN IP4 9.9.9.9\r\n" + audio + "c=IN IP4 1.2.3.4\r\n", at("1.2.3.4:4000")},
		{"IPv6", "v=0\r\nc=IN IP6 2001:db8::1\r\n" + audio, at("[2001:db8::1]:4000")},
		{"IPv4 in IPv6", "v=0\r\nc=IN IP6 ::ffff:1.2.3.4\r\n" + audio, at("1.2.3.4:4000")},
		{"multicast with a time to live", "v=0\r\nc=IN IP4 224.2.1.1/127\r\nm=audio 4000/2 RTP/AVP 0\r\n", at("224.2.1.1:4000")},
		{"a name for an address", "v=0\r\nc=IN IP4 phone.example.com\r\n" + audio, func(d *Description) bool {
			return !d.Media[0].Addr.IsValid() && !d.Media[0].RTCP.IsValid()
		}},
		{"blanks in the user name", "v=0\r\no=John Doe 7 8 IN IP4 1.2.3.4\r\n" + audio, func(d *Description) bool {
			return d.Origin == Origin{User: "John Doe", SessionID: "7", Version: "8", Address: "1.2.3.4"}
		}},
		{"a session id that is no number", "v=0\r\no=- abc -1 IN IP4 1.2.3.4\r\n" + audio, func(d *Description) bool {
			return d.Origin.SessionID == "abc" && d.Origin.Version == "-1"
		}},
		{"lines of no known kind", "v=0\r\nX-odd\r\nx=1\r\n" + audio + "a\r\na=\r\na=rtpmap:0\r\na=rtpmap:x y/z\r\n", func(d *Description) bool {
			return d.Ignored == 3 && d.Media[0].Formats[0].Codec == "PCMU"
		}},
		{"names in another case", "v=0\r\nm=audio 4 rtp/avp 96 97\r\na=rtpmap:96 OPUS/48000/2\r\na=rtpmap:97 TELEPHONE-EVENT/48000\r\n", func(d *Description) bool {
			m := d.Media[0]
			return m.Profile == "RTP/AVP" && m.Formats[0] == Format{PayloadType: 96, Codec: "opus", ClockRate: 48000, SampleRate: 48000, Channels: 2} &&
				m.Formats[1].Codec == "telephone-event"
		}},
		{"a fax", "v=0\r\nc=IN IP4 1.2.3.4\r\nm=image 4000 udptl t38\r\na=T38FaxVersion:0\r\n", func(d *Description) bool {
			m := d.Media[0]
			return m.Kind == "image" && m.Profile == "udptl" && m.Addr == addr("1.2.3.4:4000") && !m.RTCP.IsValid() &&
				reflect.DeepEqual(m.Formats, []Format{{Codec: "t38"}})
		}},
		{"direction of the session and of the media", "v=0\r\na=sendonly\r\n" + audio + audio + "a=inactive\r\n", func(d *Description) bool {
			return d.Media[0].Direction == SendOnly && d.Media[1].Direction == Inactive
		}},
		{"held as in RFC 2543", "v=0\r\nc=IN IP4 0.0.0.0\r\n" + audio, func(d *Description) bool {
			return d.Media[0].Null && !d.Media[0].CanReceive() && d.Media[0].CanSend()
		}},
		{"no candidates yet", "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:x\r\na=rtcp-mux\r\n", func(d *Description) bool {
			m := d.Media[0]
			return !m.Null && m.ICE && m.Mux && m.Encryption == DTLS
		}},
		{"refused", "v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 0 RTP/AVP 0\r\n", func(d *Description) bool {
			return d.Media[0].Port == 0 && !d.Media[0].Addr.IsValid() && !d.Media[0].CanReceive()
		}},
		{"RTCP elsewhere", "v=0\r\nc=IN IP4 1.2.3.4\r\n" + audio + "a=rtcp:53020 IN IP4 126.16.64.4\r\n", func(d *Description) bool {
			return d.Media[0].RTCP == addr("126.16.64.4:53020")
		}},
		{"no port after the last", "v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 65535 RTP/AVP 0\r\n", func(d *Description) bool {
			return !d.Media[0].RTCP.IsValid()
		}},
		{"label, mid and a fraction in ptime", "v=0\r\n" + audio + "a=label:96\r\na=mid:audio\r\na=ptime:20.0\r\n", func(d *Description) bool {
			m := d.Media[0]
			return m.Label == "96" && m.Mid == "audio" && m.PTimeMS == 20
		}},
		{"SDES in RTP/AVP", "v=0\r\n" + audio + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJD|2^31|1:1 UNENCRYPTED_SRTCP\r\n", func(d *Description) bool {
			m := d.Media[0]
			return m.Encryption == SDES && m.Crypto[0].Tag == 1 && m.Crypto[0].Params == "|2^31|1:1 UNENCRYPTED_SRTCP"
		}},
		{"SRTP by other means", "v=0\r\nm=audio 4 RTP/SAVP 0\r\na=key-mgmt:mikey AAA\r\n", func(d *Description) bool {
			return d.Media[0].Encryption == OtherSRTP
		}},
		{"payload types that are none", "v=0\r\nm=audio 4 RTP/AVP 0 128 300 -1 x\r\n", func(d *Description) bool {
			return len(d.Media[0].Formats) == 1 && d.Ignored == 4
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := parse(t, tt.text); !tt.check(d) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func at(want string) func(*Description) bool {
	return func(d *Description) bool { return len(d.Media) == 1 && d.Media[0].Addr == addr(want) }
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "no v= and no m= line"},
		{"something else", "<xml>\r\n</xml>", "no v= and no m= line"},
		{"a media line cut off", "v=0\r\nm=audio\r\n", "no media line"},
		{"a port too high", "v=0\r\nm=audio 70000 RTP/AVP 0\r\n", "no media line"},
		{"too long", "v=0\r\n" + strings.Repeat("a=x\r\n", MaxBytes/5), "over the limit of 65536"},
		{"too many lines", "v=0\r\n" + strings.Repeat("a=\n", MaxLines), "more than 2048 lines"},
		{"too many media", "v=0\r\n" + strings.Repeat("m=audio 1 RTP/AVP 0\n", MaxMedia+1), "more than 32 m= lines"},
		{"too many formats", "m=audio 1 RTP/AVP" + strings.Repeat(" 0", MaxFormats+1), "more than 128 formats"},
		{"too many keys", "m=audio 1 RTP/SAVP 0\n" + strings.Repeat("a=crypto:1 X inline:QUJD\n", MaxCrypto+1), "more than 16 a=crypto"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d, err := Parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, error %v, want %q", d, err, tt.want)
			}
		})
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	d := parse(t, "m=audio 1 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\n")
	if s := fmt.Sprintf("%v %+v %#v", d, d, d); strings.Contains(s, "d0Rmd") {
		t.Errorf("the key is in %s", s)
	}
	key, salt, err := d.Media[0].Crypto[0].Master()
	if err != nil || len(key) != 16 || len(salt) != 14 {
		t.Errorf("Master: %d, %d bytes, %v", len(key), len(salt), err)
	}
}

// FuzzParse: no input may panic, break a bound, or be read otherwise than by pion/sdp where that accepts it.
func FuzzParse(f *testing.F) {
	f.Add([]byte(usual))
	f.Add([]byte("m=audio 1/2 RTP/SAVP 0 96\na=rtpmap:96 opus/48000/2\na=crypto:1 X inline:QUJD|1\na=rtcp:5 IN IP4 1.1.1.1\n"))
	f.Add([]byte("v=0\nc=IN IP6 fe80::1%x/1\nm=image 1 udptl t38\na=inactive\na=candidate:1\na=label:1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			return
		}
		if len(d.Media) > MaxMedia {
			t.Fatalf("%d media", len(d.Media))
		}
		for _, g := range Negotiate(d, d) {
			if m := d.Media[g.Index]; g.Refused != (m.Port == 0) || len(g.Offerer.Formats) > len(m.Formats) {
				t.Fatalf("agreed %+v on %+v", g, m)
			}
		}
		text, _, err := Answer(d, Session{Addr: netip.MustParseAddr("192.0.2.1")}, []Receive{{Port: 1}})
		if err == nil {
			var p pion.SessionDescription
			if err := p.Unmarshal(text); err != nil && !strings.Contains(string(text), "m=") {
				t.Fatalf("pion refuses %q: %v", text, err)
			}
		}
		compare(t, b, d)
	})
}

// compare checks ours against pion's reading, where it has one.
func compare(t *testing.T, b []byte, d *Description) {
	var p pion.SessionDescription
	if p.Unmarshal(b) != nil || slices.ContainsFunc(b, func(c byte) bool { return strings.IndexByte("\t\v\f\x85\xa0", c) >= 0 }) {
		return
	}
	if len(p.MediaDescriptions) != len(d.Media) {
		t.Fatalf("%d media, pion has %d", len(d.Media), len(p.MediaDescriptions))
	}
	for i, m := range p.MediaDescriptions {
		if m.MediaName.Port.Value != d.Media[i].Port {
			t.Fatalf("port %d, pion has %d", d.Media[i].Port, m.MediaName.Port.Value)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(usual)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseWorst is the slowest text that the bounds allow, as far as we found.
func BenchmarkParseWorst(b *testing.B) {
	var s strings.Builder
	s.WriteString("m=audio 1 RTP/AVP")
	for i := range MaxFormats {
		fmt.Fprintf(&s, " %d", i)
	}
	s.WriteString(strings.Repeat("\na=rtpmap:127 telephone-evens/1", MaxLines-2))
	text := []byte(s.String())
	if len(text) > MaxBytes {
		text = text[:MaxBytes]
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
