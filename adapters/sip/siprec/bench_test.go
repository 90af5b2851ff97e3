package siprec

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/pion/srtp/v3"

	"github.com/ctigate/ctigate/adapters/adaptertest"
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

// BenchmarkLoopback sends RTP of 400 streams through the kernel, as fast as one goroutine writes it.
func BenchmarkLoopback(b *testing.B) {
	s := serve(b, nil)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const sessions = 200
	phones := make([]*phone, 0, 2*sessions)
	for i := range sessions {
		p := []*phone{newPhone(b, "127.0.0.1", 1), newPhone(b, "127.0.0.1", 2)}
		c := s.udp(fmt.Sprint("load", i))
		answered(b, c.invite("", offer(1, p), metadata("complete", "")), p)
		phones = append(phones, p...)
	}
	var after runtime.MemStats
	s.until("the legs", func(l adaptertest.Log) bool { return len(observations(l, call.LegCreated)) == 2*sessions })
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ResetTimer()
	for i := range b.N {
		p := phones[i%len(phones)]
		p.sendRTP(b, p.next(0))
	}
	b.StopTimer()
	if err := s.stop(); err != nil {
		b.Fatal(err)
	}
	var got, sent uint64 = 0, uint64(b.N)
	for _, o := range observations(s.rec.Log(), call.LegQuality) {
		if o.Quality.Final {
			got += o.Quality.Packets
		}
	}
	used := after.HeapAlloc + after.StackInuse - before.HeapAlloc - before.StackInuse
	b.ReportMetric(float64(used)/1024/2/sessions, "KiB/stream")
	b.ReportMetric(float64(sent-got)*100/float64(sent), "%lost")
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "packets/s")
}
