package media_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/capture"
	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/wire"
)

// pcapOf is a capture of so many G.711 streams, so many packets each.
func pcapOf(streams, packets int) []byte {
	le, be := binary.LittleEndian, binary.BigEndian
	b := le.AppendUint32(le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, 0xa1b2c3d4), 2), 4), 0)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, 0), 262144), 101) // raw IP
	p := make([]byte, 20+8+12+160)
	p[0], p[8], p[9] = 0x45, 64, 17
	be.PutUint16(p[2:], uint16(len(p)))
	be.PutUint16(p[20+4:], uint16(len(p)-20))
	for i := range p[40:] {
		p[40+i] = byte(i * 7)
	}
	p[28], p[29] = 0x80, 0
	for n := range packets {
		for s := range streams {
			copy(p[12:], []byte{10, 0, byte(s >> 8), byte(s), 10, 1, 0, 1})
			be.PutUint16(p[20:], 4000)
			be.PutUint16(p[22:], uint16(10000+2*(s%20000)))
			be.PutUint16(p[30:], uint16(n))
			be.PutUint32(p[32:], uint32(160*n))
			be.PutUint32(p[36:], uint32(s))
			us := n*20000 + s*20000/streams
			b = le.AppendUint32(le.AppendUint32(b, uint32(us/1e6)), uint32(us%1e6))
			b = le.AppendUint32(le.AppendUint32(b, uint32(len(p))), uint32(len(p)))
			b = append(b, p...)
		}
	}
	return b
}

// BenchmarkPcapToStatistics is the whole way of an RTP packet: from the bytes of a file, by its addresses, into its
// stream's measures.
func BenchmarkPcapToStatistics(b *testing.B) {
	const streams, packets = 1000, 100
	file := pcapOf(streams, packets)
	b.ReportAllocs()
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		all := map[[2]netip.AddrPort]*media.Stream{}
		_, err := capture.Read(context.Background(), bytes.NewReader(file), capture.Options{}, func(p *wire.Packet) {
			key := [2]netip.AddrPort{p.Src, p.Dst}
			s := all[key]
			if s == nil {
				s = media.New(nil, p.At)
				all[key] = s
			}
			if _, err := s.RTP(p.At, p.Payload); err != nil {
				b.Fatal(err)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range all {
			if q := s.Report(0, true); q.Packets != packets || q.Lost != 0 {
				b.Fatalf("%d packets, %d lost", q.Packets, q.Lost)
			}
		}
	}
	b.ReportMetric(float64(b.N)*streams*packets/b.Elapsed().Seconds(), "packets/s")
}
