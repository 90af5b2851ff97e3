package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ringing = "SIP/2.0 180 Ringing\r\nVia: SIP/2.0/TCP a\r\nl: 0\r\n\r\n"

func invite(body string) string {
	return fmt.Sprintf("INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/TCP a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// start is when the made-up captures begin.
const start = 1_795_000_000 * call.Second

var be = binary.BigEndian

func udpPacket(src, dst netip.AddrPort, payload string) []byte {
	b := be.AppendUint16(nil, src.Port())
	b = be.AppendUint16(b, dst.Port())
	b = be.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

func tcpPacket(src, dst netip.AddrPort, seq, ack uint32, flags byte, payload string) []byte {
	b := be.AppendUint16(nil, src.Port())
	b = be.AppendUint16(b, dst.Port())
	b = be.AppendUint32(b, seq)
	b = be.AppendUint32(b, ack)
	b = append(b, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	return append(b, payload...)
}

// ipPacket is IPv4 or IPv6 around a UDP packet; as4 and as6 have other protocols.
func ipPacket(src, dst netip.AddrPort, payload []byte) []byte {
	if src.Addr().Is4() {
		return as4(src, dst, protoUDP, payload)
	}
	return as6(src, dst, protoUDP, payload)
}

func as4(src, dst netip.AddrPort, proto byte, payload []byte) []byte {
	b := append([]byte{0x45, 0}, be.AppendUint16(nil, uint16(20+len(payload)))...)
	b = append(b, 0, 0, 0, 0, 64, proto, 0, 0)
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	be.PutUint16(b[10:], ^sum(b))
	return append(b, payload...)
}

func as6(src, dst netip.AddrPort, next byte, payload []byte) []byte {
	b := append([]byte{0x60, 0, 0, 0}, be.AppendUint16(nil, uint16(len(payload)))...)
	b = append(b, next, 64)
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	return append(b, payload...)
}

func sum(b []byte) uint16 {
	n := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(be.Uint16(b[i:]))
	}
	for n > 0xffff {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}

// etherFrame puts an Ethernet header with the EtherTypes and VLAN tags before a packet.
func etherFrame(packet []byte, types ...uint16) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for _, t := range types {
		b = be.AppendUint16(b, t)
	}
	return append(b, packet...)
}

// collect decodes frames, a millisecond apart.
func collect(o Options, link int, frames ...[]byte) ([]wire.Packet, Stats) {
	var got []wire.Packet
	d := newDecoder(o, func(p *wire.Packet) {
		c := *p
		c.Payload = bytes.Clone(p.Payload)
		got = append(got, c)
	})
	for i, f := range frames {
		at := start + call.Time(i)*call.Millisecond
		d.packet(&frame{link: link, at: at, received: at, length: len(f), data: f})
	}
	d.flush()
	return got, d.stats
}

// fragments4 is a UDP datagram in two fragments.
func fragments4(src, dst netip.AddrPort, payload string) (first, second []byte) {
	udp := udpPacket(src, dst, payload)
	first, second = ipPacket(src, dst, udp[:24]), ipPacket(src, dst, udp[24:])
	be.PutUint16(first[6:], 0x2000)
	be.PutUint16(second[6:], 3)
	for _, f := range [][]byte{first, second} {
		be.PutUint16(f[4:], 77)
	}
	return first, second
}
