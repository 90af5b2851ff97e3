package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/wire"
)

// pcapFile is a pcap of frames, a millisecond apart.
func pcapFile(link uint32, frames ...[]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magicMicro)
	b = le.AppendUint16(le.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, maxPacket), link)
	for i, f := range frames {
		at := uint64(start) + 1000*uint64(i)
		b = le.AppendUint32(le.AppendUint32(b, uint32(at/1e6)), uint32(at%1e6))
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(f))), uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

func benchmarkRead(b *testing.B, file []byte, n int) {
	b.ReportAllocs()
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		got := 0
		if _, err := Read(context.Background(), bytes.NewReader(file), Options{}, func(*wire.Packet) { got++ }); err != nil || got != n {
			b.Fatalf("%d of %d packets: %v", got, n, err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

func BenchmarkReadRTP(b *testing.B) {
	src, dst := netip.MustParseAddrPort("198.51.100.1:10000"), netip.MustParseAddrPort("198.51.100.2:20000")
	frames := make([][]byte, 100_000)
	for i := range frames {
		frames[i] = etherFrame(ipPacket(src, dst, udpPacket(src, dst, strings.Repeat("x", 172))), 0x8100, 7, 0x0800)
	}
	benchmarkRead(b, pcapFile(linkEthernet, frames...), len(frames))
}

func BenchmarkReadSIPOverTCP(b *testing.B) {
	src, dst := netip.MustParseAddrPort("198.51.100.1:40000"), netip.MustParseAddrPort("198.51.100.2:5060")
	msg := invite(strings.Repeat("a=rtpmap:0 PCMU/8000\r\n", 30))
	frames := make([][]byte, 10_000)
	for i := range frames {
		seq := uint32(1000 + i*len(msg))
		frames[i] = etherFrame(as4(src, dst, protoTCP, tcpPacket(src, dst, seq, 1, flagACK, msg)), 0x0800)
	}
	benchmarkRead(b, pcapFile(linkEthernet, frames...), len(frames))
}

func BenchmarkReadFragments(b *testing.B) {
	src, dst := netip.MustParseAddrPort("198.51.100.1:5060"), netip.MustParseAddrPort("198.51.100.2:5060")
	var frames [][]byte
	for i := range 10_000 {
		udp := udpPacket(src, dst, strings.Repeat("x", 1800))
		for offset := 0; offset < len(udp); offset += 1480 {
			end := min(offset+1480, len(udp))
			f := as4(src, dst, protoUDP, udp[offset:end])
			be.PutUint16(f[4:], uint16(i))
			be.PutUint16(f[6:], uint16(offset/8))
			if end < len(udp) {
				f[6] |= 0x20
			}
			frames = append(frames, etherFrame(f, 0x0800))
		}
	}
	benchmarkRead(b, pcapFile(linkEthernet, frames...), len(frames)/2)
}
