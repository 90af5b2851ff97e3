package siprec

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// TestRTCP: reports that a client passes on reach the stream they are about, on their own port and on a shared one.
func TestRTCP(t *testing.T) {
	s := serve(t, func(c *Config) { c.QualityInterval = time.Second })
	c := s.tcp("rtcp")
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa), newPhone(t, "127.0.0.1", 0xb)}
	m := c.invite("", offer(1, phones, "a=sendonly\r\na=rtcp-mux\r\n"), metadata("complete", ""))
	answered(t, m, phones)
	if strings.Count(m.body, "a=rtcp-mux") != 1 {
		t.Errorf("answer:\n%s", m.body)
	}
	for range 10 {
		phones[0].sendRTP(t, phones[0].next(0))
		phones[1].sendRTP(t, phones[1].next(0))
	}
	s.until("both streams to be known", func(l adaptertest.Log) bool { return packets(observations(l, call.LegQuality)) == 20 })
	report := func(ssrc uint32, jitter uint32) []byte {
		b, err := (&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: ssrc, FractionLost: 64, TotalLost: 7, Jitter: jitter}}}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	phones[0].sendRTP(t, report(0xb, 80)) // muxed, about the other's stream
	to := netip.AddrPortFrom(phones[1].to.Addr(), phones[1].to.Port()+1)
	if _, err := phones[1].WriteToUDPAddrPort(report(0xa, 160), to); err != nil {
		t.Fatal(err)
	}
	if _, err := phones[1].WriteToUDPAddrPort([]byte("no RTCP"), to); err != nil {
		t.Fatal(err)
	}
	s.until("the bad one", func(l adaptertest.Log) bool { return l.Counts[CountNotRTP] == 1 })
	c.do("BYE", "", "", "")
	l := s.until("the end", func(l adaptertest.Log) bool { return len(of(l, "rtcp;pb", call.LegCleared)) > 0 })
	a, b := final(t, l, "rtcp;pa"), final(t, l, "rtcp;pb")
	if a.Remote == nil || a.Remote.JitterMS != 20 || a.Remote.Lost != 7 || a.Remote.LossPercent != 25 {
		t.Errorf("caller's: %+v", a.Remote)
	}
	if b.Remote == nil || b.Remote.JitterMS != 10 || b.Packets != 10 {
		t.Errorf("agent's: %+v, %d packets", b.Remote, b.Packets)
	}
}

// TestLatching: a stream stays with the port it came from first, and moves to the one that the SDP names.
func TestLatching(t *testing.T) {
	strange := 0
	r := newReceiver(pair{}, &media.Options{}, 1, &group{}, func(name string, n int) { strange += n }, func(media.Digit) {})
	g := &sdp.Agreed{Answerer: sdp.Side{Formats: []sdp.Format{{Codec: "PCMU", ClockRate: 8000}}}}
	said, signalling := netip.MustParseAddrPort("192.0.2.8:4000"), netip.MustParseAddr("192.0.2.7")
	r.agree(g, said, signalling, nil)
	p := &phone{ssrc: 1}
	steps := []struct {
		from string
		ok   bool
	}{
		{"198.51.100.1:4000", false}, {"192.0.2.7:999", true}, {"192.0.2.8:4002", false}, {"192.0.2.7:1000", false},
		{"192.0.2.7:999", true}, {"192.0.2.8:4000", true}, {"192.0.2.7:999", false}, {"192.0.2.8:4000", true},
	}
	want := uint64(0)
	for i, s := range steps {
		b := p.next(0)
		if !s.ok {
			p.seq-- // whoever is refused used none
		} else {
			want++
		}
		r.rtp(call.Time(1+i)*20*call.Millisecond, netip.MustParseAddrPort(s.from), b)
		if got := r.stream.Packets(); got != want {
			t.Fatalf("after step %d, from %s: %d packets, want %d", i+1, s.from, got, want)
		}
	}
	if strange != 4 {
		t.Errorf("%d are counted as strange", strange)
	}
	r.agree(g, netip.MustParseAddrPort("192.0.2.9:4000"), signalling, nil) // the client moved
	r.rtp(call.Second, netip.MustParseAddrPort("192.0.2.8:4000"), p.next(0))
	p.seq--
	r.rtp(call.Second, netip.MustParseAddrPort("192.0.2.9:4000"), p.next(0))
	if got := r.stream.Packets(); got != want+1 || strange != 5 {
		t.Errorf("after moving: %d packets, %d strange", got, strange)
	}
}

func TestCryptoParameters(t *testing.T) {
	tests := []struct {
		params string
		mki    []byte
		ok     bool
	}{
		{"", nil, true}, {"|2^31", nil, true}, {"|2^31|1:1", []byte{1}, true}, {"|66:4", []byte{0, 0, 0, 66}, true}, {" WSH=64", nil, true},
		{" UNENCRYPTED_SRTP", nil, false}, {"|2^20 KDR=3", nil, false}, {"|300:1", nil, false}, {"|1:200", nil, false},
		{"|x:1", nil, false}, {"|-1:1", nil, false}, {"|1:0", nil, false}, {";inline:AAAA", nil, false},
	}
	for _, tt := range tests {
		mki, err := parameters(sdp.Crypto{Params: tt.params})
		if (err == nil) != tt.ok || tt.ok && !bytes.Equal(mki, tt.mki) {
			t.Errorf("%q: %v, %v", tt.params, mki, err)
		}
	}
}

// TestDecipher: with an MKI, after many sources, and with a broken tag.
func TestDecipher(t *testing.T) {
	master := bytes.Repeat([]byte{7}, 30)
	c := sdp.Crypto{Suite: "AES_CM_128_HMAC_SHA1_80", Key: core.NewSecret(base64.StdEncoding.EncodeToString(master)), Params: "|2^31|5:2"}
	d, err := newDecipher(c)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := srtp.CreateContext(master[:16], master[16:], srtp.ProtectionProfileAes128CmHmacSha1_80, srtp.MasterKeyIndicator([]byte{0, 5}))
	if err != nil {
		t.Fatal(err)
	}
	p := &phone{ssrc: 9}
	p.seq = 65500 // rolls over: from then on the rollover counter is needed
	for i := range 3 * maxSources {
		plainText := p.next(0)
		b, err := enc.EncryptRTP(nil, plainText, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.rtp(b)
		if err != nil || !bytes.Equal(got, plainText) {
			t.Fatalf("packet %d: %v", i, err)
		}
		forged := bytes.Clone(b)
		binary.BigEndian.PutUint32(forged[8:], uint32(1000+i))
		if _, err := d.rtp(forged); err == nil {
			t.Fatal("a forged packet passes")
		}
		if len(d.seen) > maxSources {
			t.Fatalf("%d sources are remembered", len(d.seen))
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 11), make([]byte, 12), make([]byte, 20)} {
		if _, err := d.rtp(b); err == nil {
			t.Errorf("%d bytes pass as SRTP", len(b))
		}
		if _, err := d.rtcp(b); err == nil {
			t.Errorf("%d bytes pass as SRTCP", len(b))
		}
	}
	rr, _ := (&rtcp.ReceiverReport{SSRC: 1}).Marshal()
	b, err := enc.EncryptRTCP(nil, rr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.rtcp(b); err != nil || !bytes.Equal(got, rr) {
		t.Errorf("SRTCP: %x, %v", got, err)
	}
	c.Suite = "AES_192_CM_HMAC_SHA1_80"
	if _, err := newDecipher(c); err == nil {
		t.Error("a key of the wrong length, or a suite that is not there, passes")
	}
}

func FuzzSRTP(f *testing.F) {
	master := bytes.Repeat([]byte{7}, 30)
	c := sdp.Crypto{Suite: "AES_CM_128_HMAC_SHA1_80", Key: core.NewSecret(base64.StdEncoding.EncodeToString(master))}
	f.Add((&phone{ssrc: 9}).next(0), false)
	f.Add([]byte{0x80, 200, 0, 1, 0, 0, 0, 1}, true)
	f.Add([]byte{0xbf, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff}, false)
	f.Fuzz(func(t *testing.T, b []byte, control bool) {
		for _, encrypted := range []bool{false, true} {
			r := newReceiver(pair{}, &media.Options{}, 1, &group{}, func(string, int) {}, func(media.Digit) {})
			r.group.add(r)
			var d *decipher
			if encrypted {
				d, _ = newDecipher(c)
			}
			src := netip.MustParseAddrPort("192.0.2.8:4000")
			r.agree(&sdp.Agreed{Answerer: sdp.Side{Formats: []sdp.Format{{Codec: "PCMU", ClockRate: 8000}}}}, src, src.Addr(), d)
			if control {
				r.rtcp(1, src, bytes.Clone(b))
			} else {
				r.rtp(1, src, bytes.Clone(b))
			}
			if encrypted && r.stream.Packets() > 0 {
				t.Fatal("a packet without the key was counted")
			}
			r.report(2, true, true)
		}
	})
}
