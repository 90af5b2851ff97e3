package siprec

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/pion/srtp/v3"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// BenchmarkSession is a whole session: INVITE with metadata, ACK and BYE, with its socket pair.
func BenchmarkSession(b *testing.B) {
	e := newBench(b, nil)
	b.ReportAllocs()
	for i := range b.N {
		id := fmt.Sprint("s", i)
		tag := e.established(id, "")
		e.get(peer, "UDP", sipText("BYE", id, tag, 2, "", "text/plain", ""))
		e.after(100e6)
	}
}

// BenchmarkRefused is an INVITE of a flood, parsed and refused.
func BenchmarkRefused(b *testing.B) {
	e := newBench(b, func(c *Config) { c.MaxSessions, c.MaxStreams = 1, 1 })
	e.established("s", "")
	e.tx.repeats = maxRepeat
	text := inviteText("flood", "")
	b.ReportAllocs()
	for b.Loop() {
		e.get(peer, "UDP", text)
	}
}

// BenchmarkPacket is one RTP packet of 20 ms, from the socket's buffer into the statistics.
func BenchmarkPacket(b *testing.B) {
	src := netip.MustParseAddrPort("192.0.2.8:4000")
	for _, suite := range []string{"", "AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM"} {
		name := suite
		if name == "" {
			name = "plain"
		}
		b.Run(name, func(b *testing.B) {
			r := newReceiver(pair{}, &media.Options{}, 1, &group{}, func(name string, n int) { b.Fatal(name) }, func(media.Digit) {})
			var d *decipher
			var enc *srtp.Context
			if suite != "" {
				crypto := sdp.Crypto{Tag: 1, Suite: suite, Key: core.NewSecret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")}
				if nk, ns, _ := sdp.Lengths(suite); nk+ns == 28 {
					crypto.Key = core.NewSecret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
				}
				var err error
				if d, err = newDecipher(crypto); err != nil {
					b.Fatal(err)
				}
				key, salt, _ := crypto.Master()
				for _, s := range suites {
					if s.name == suite {
						enc, _ = srtp.CreateContext(key, salt, s.profile)
					}
				}
			}
			r.agree(&sdp.Agreed{Answerer: sdp.Side{Formats: []sdp.Format{{Codec: "PCMU", ClockRate: 8000}}}}, src, src.Addr(), d)
			p := &phone{ssrc: 1}
			packets := make([][]byte, 1<<14)
			for i := range packets {
				packets[i] = p.next(0)
				if enc != nil {
					packets[i], _ = enc.EncryptRTP(nil, packets[i], nil)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				r.rtp(call.Time(i)*20*call.Millisecond, src, packets[i%len(packets)])
			}
		})
	}
}
