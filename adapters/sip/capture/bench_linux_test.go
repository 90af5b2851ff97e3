package capture

import (
	"context"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/wire"
)

// counted captures what send sends to port and returns when all of it was seen, or nothing more comes. It returns how
// many packets of size came, and the fullest the ring was.
func counted(tb testing.TB, l *Live, n, size int, send func()) (got int64, fullest float64) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var seen atomic.Int64
	done := make(chan error, 1)
	go func() {
		done <- l.Run(ctx, func(p *wire.Packet) {
			if len(p.Payload) == size {
				seen.Add(1)
			}
			fullest = max(fullest, l.Backlog())
		})
	}()
	send()
	for last, quiet := int64(-1), 0; seen.Load() < int64(n) && quiet < 20; {
		time.Sleep(50 * time.Millisecond) // the kernel hands over a started block after 10 ms
		if now := seen.Load(); now == last {
			quiet++
		} else {
			last, quiet = now, 0
		}
	}
	cancel()
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	return seen.Load(), fullest
}

// pace sends n packets, rate a second, a millisecond's worth at a time.
func pace(tb testing.TB, conn *net.UDPConn, n, rate, size int) {
	packet := make([]byte, size)
	packet[0] = 0x80
	begin := time.Now()
	for sent := 0; sent < n; {
		due := int(math.Min(float64(n), float64(rate)*(time.Since(begin)+time.Millisecond).Seconds()))
		for ; sent < due; sent++ {
			if _, err := conn.Write(packet); err != nil {
				tb.Error(err)
				return
			}
		}
		if sent < n {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(sent) / float64(rate) * float64(time.Second)))))
		}
	}
}

const rtpSize = 172 // 12 of header and 20 ms of G.711

// 100,000 RTP packets a second for a second: none is lost, in the kernel or after it.
func TestLiveKeepsUp(t *testing.T) {
	const n = 100_000
	conn, port := udpPair(t, "udp4", "127.0.0.1")
	l := openLive(t, LiveConfig{Interface: "lo", Options: Options{Ports: []PortRange{{port, port}}}})
	got, fullest := counted(t, l, n, rtpSize, func() { pace(t, conn, n, n, rtpSize) })
	st := l.Stats()
	if got != n || st.KernelDrops != 0 || st.KernelPackets != n {
		t.Errorf("%d packets of %d, %+v", got, n, st)
	}
	t.Logf("the ring was at most %.0f %% full", 100*fullest)
}

func BenchmarkLiveLoopback(b *testing.B) {
	for _, bb := range []struct {
		name string
		rate int
	}{{"100k", 100_000}, {"unpaced", 1 << 30}} {
		b.Run(bb.name, func(b *testing.B) {
			conn, port := udpPair(b, "udp4", "127.0.0.1")
			l := openLive(b, LiveConfig{Interface: "lo", Options: Options{Ports: []PortRange{{port, port}}}})
			b.ResetTimer()
			got, fullest := counted(b, l, b.N, rtpSize, func() {
				pace(b, conn, b.N, bb.rate, rtpSize)
				b.StopTimer()
			})
			st := l.Stats()
			if uint64(got)+st.KernelDrops != uint64(b.N) {
				b.Errorf("%d seen and %d dropped of %d", got, st.KernelDrops, b.N)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sent/s")
			b.ReportMetric(float64(st.KernelDrops), "drops")
			b.ReportMetric(100*fullest, "%ring")
		})
	}
}

// A sender that sends as fast as it can, and a receiver that does nothing: what the kernel drops is counted.
func TestLiveCountsDrops(t *testing.T) {
	conn, port := udpPair(t, "udp4", "127.0.0.1")
	l := openLive(t, LiveConfig{Interface: "lo", RingBytes: MinRingBytes, Options: Options{Ports: []PortRange{{port, port}}}})
	const n = 400
	for range n {
		conn.Write(make([]byte, 60_000))
	}
	got, _ := counted(t, l, n, 60_000, func() {})
	st := l.Stats()
	if got == 0 || st.KernelDrops == 0 || uint64(got)+st.KernelDrops != n || st.Freezes == 0 {
		t.Errorf("%d of %d packets, %+v", got, n, st)
	}
	l.Close()
	if after := l.Stats(); after.KernelDrops != st.KernelDrops {
		t.Errorf("%d drops after Close, want %d", after.KernelDrops, st.KernelDrops)
	}
}
