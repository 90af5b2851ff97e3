package media

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/ctigate/ctigate/core/call"
)

// maxStreamBytes leaves room, of the 2 KB a stream may take, for its owner's keys and tables.
const maxStreamBytes = 1200

func speech() []byte {
	audio := make([]byte, 160)
	for i := range audio {
		audio[i] = byte(i*37 + 11)
	}
	return audio
}

// BenchmarkRTP is one packet of a healthy stream.
func BenchmarkRTP(b *testing.B) {
	for _, c := range []struct {
		name string
		pt   uint8
	}{{"PCMU", 0}, {"G722", 9}} {
		b.Run(c.name, func(b *testing.B) {
			s := New(nil, 1e15)
			s.Negotiate(agreed, false)
			packet := raw(c.pt, false, 0, 0, 7, speech())
			b.ReportAllocs()
			for i := range b.N {
				packet[2], packet[3] = byte(i>>8), byte(i)
				ts := uint32(i * 160)
				packet[4], packet[5], packet[6], packet[7] = byte(ts>>24), byte(ts>>16), byte(ts>>8), byte(ts)
				if _, err := s.RTP(1e15+call.Time(i)*20*ms, packet); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// BenchmarkRTPManyStreams goes through 20,000 streams, as a busy trunk does: each is out of the cache when its turn comes.
func BenchmarkRTPManyStreams(b *testing.B) {
	const streams = 20_000
	all := make([]*Stream, streams)
	for i := range all {
		all[i] = New(nil, 1e15)
		all[i].Negotiate(agreed, false)
	}
	packet := raw(0, false, 0, 0, 7, speech())
	b.ResetTimer()
	for i := range b.N {
		n := i / streams
		packet[2], packet[3] = byte(n>>8), byte(n)
		ts := uint32(n * 160)
		packet[4], packet[5], packet[6], packet[7] = byte(ts>>24), byte(ts>>16), byte(ts>>8), byte(ts)
		if _, err := all[i%streams].RTP(1e15+call.Time(n)*20*ms, packet); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

func BenchmarkReport(b *testing.B) {
	s := newSender(b)
	s.send(500)
	b.ReportAllocs()
	for b.Loop() {
		s.stream.Report(s.at, true)
	}
}

func BenchmarkRTCP(b *testing.B) {
	s := []byte{0x81, 200, 0, 12, 0, 0, 0, 7, 0xe0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9,
		0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9}
	for b.Loop() {
		if _, err := ParseRTCP(s, false); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMemoryOfAStream(t *testing.T) {
	t.Logf("a Stream is %d bytes", unsafe.Sizeof(Stream{}))
	const streams = 20_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make([]*Stream, streams)
	for i := range all {
		s := New(nil, 1e15)
		s.Negotiate(agreed, false)
		for n := range 10 {
			pt, audio := uint8(0), muMilliwatt
			if n > 6 {
				pt, audio = 101, event(1, n == 9, uint16(160*n))
			}
			if _, err := s.RTP(1e15+call.Time(n)*20*ms, raw(pt, n == 0, uint16(n), uint32(160*n), uint32(i), audio)); err != nil {
				t.Fatal(err)
			}
		}
		s.Reported(1e15, &Block{SSRC: uint32(i)})
		s.Report(1e15, false)
		all[i] = s
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / streams
	t.Logf("%d bytes a stream", each)
	if each > maxStreamBytes {
		t.Errorf("%d bytes a stream, at most %d are allowed", each, maxStreamBytes)
	}
	runtime.KeepAlive(all)
}
