package capture

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/adapters/sip/wire"
)

var (
	a4 = netip.MustParseAddrPort("198.51.100.1:5060")
	b4 = netip.MustParseAddrPort("198.51.100.2:5080")
	a6 = netip.MustParseAddrPort("[2001:db8::1]:5060")
	b6 = netip.MustParseAddrPort("[2001:db8::2]:5080")
	p4 = ipPacket(a4, b4, udpPacket(a4, b4, "hello"))
	p6 = ipPacket(a6, b6, udpPacket(a6, b6, "hello"))
)

func join(parts ...[]byte) []byte { return []byte(strings.Join(texts(parts), "")) }

func texts(parts [][]byte) []string {
	var out []string
	for _, p := range parts {
		out = append(out, string(p))
	}
	return out
}

// with returns a copy of b with bytes at offset.
func with(b []byte, offset int, bytes ...byte) []byte {
	b = append([]byte(nil), b...)
	copy(b[offset:], bytes)
	return b
}

func tags(n int) []uint16 {
	var out []uint16
	for i := range n {
		out = append(out, 0x8100, uint16(i))
	}
	return append(out, etherIPv4)
}

// with6 puts extension headers into an IPv6 packet.
func with6(first byte, headers ...[]byte) []byte {
	return as6(a6, b6, first, join(append(headers, udpPacket(a6, b6, "hello"))...))
}

func TestLinkAndNetwork(t *testing.T) {
	options := with(append(append([]byte{}, p4[:20]...), append([]byte{7, 4, 4, 0}, p4[20:]...)...), 0, 0x46)
	be.PutUint16(options[2:], uint16(len(options)))
	tests := []struct {
		name  string
		link  int
		frame []byte
		six   bool
	}{
		{"Ethernet", linkEthernet, etherFrame(p4, 0x0800), false},
		{"Ethernet with padding", linkEthernet, append(etherFrame(p4, 0x0800), make([]byte, 20)...), false},
		{"Ethernet, IPv6 with padding", linkEthernet, append(etherFrame(p6, 0x86dd), make([]byte, 20)...), true},
		{"VLAN", linkEthernet, etherFrame(p4, 0x8100, 0x2007, 0x0800), false},
		{"QinQ", linkEthernet, etherFrame(p6, 0x88a8, 7, 0x8100, 8, 0x86dd), true},
		{"as deep as it goes", linkEthernet, etherFrame(p4, tags(maxVLANTags)...), false},
		{"cooked", linkSLL, join([]byte{0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0}, p4), false},
		{"cooked, VLAN", linkSLL, join([]byte{0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 7, 8, 0}, p4), false},
		{"cooked 2", linkSLL2, join([]byte{0x86, 0xdd, 0, 0, 0, 0, 0, 1, 3, 4, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0}, p6), true},
		{"raw", linkRaw, p4, false},
		{"raw, IPv6", linkRaw, p6, true},
		{"raw of BSD", linkRawBSD, p4, false},
		{"raw of OpenBSD", linkRawOpen, p6, true},
		{"IPv4", linkIPv4, p4, false},
		{"IPv6", linkIPv6, p6, true},
		{"null, little endian", linkNull, join([]byte{2, 0, 0, 0}, p4), false},
		{"null, big endian", linkNull, join([]byte{0, 0, 0, 2}, p4), false},
		{"null, Darwin's IPv6", linkNull, join([]byte{30, 0, 0, 0}, p6), true},
		{"loop, FreeBSD's IPv6", linkLoop, join([]byte{0, 0, 0, 28}, p6), true},
		{"IPv4 options", linkRaw, options, false},
		{"IPv4 without a length", linkRaw, with(p4, 2, 0, 0), false},
		{"IPv6 without a length", linkRaw, with(p6, 4, 0, 0), true},
		{"UDP without a length", linkRaw, with(p4, 24, 0, 0), false},
		{"UDP shorter than IP says", linkRaw, with(append(p4[:len(p4):len(p4)], "rubbish"...), 2, 0, byte(len(p4)+7)), false},
		{"hop-by-hop and destination options", linkRaw, with6(protoHopByHop,
			[]byte{protoDestOpts, 0, 1, 4, 0, 0, 0, 0}, []byte{protoUDP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), true},
		{"authentication header", linkRaw, with6(protoAuth, []byte{protoUDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}), true},
		{"a fragment header before a whole packet", linkRaw, with6(protoFragment, []byte{protoUDP, 0, 0, 0, 0, 0, 0, 1}), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, st := collect(Options{}, tt.link, tt.frame)
			if len(got) != 1 {
				t.Fatalf("%d packets, %+v", len(got), st)
			}
			want := wire.Packet{Src: a4, Dst: b4}
			if tt.six {
				want = wire.Packet{Src: a6, Dst: b6}
			}
			if g := got[0]; g.Src != want.Src || g.Dst != want.Dst || g.Kind != wire.Datagram || g.Stream || string(g.Payload) != "hello" || g.At != start || g.Received != start {
				t.Errorf("got %+v", g)
			}
			if st.Packets != 1 || st.Datagrams != 1 || st.Bytes != uint64(len(tt.frame)) || st.First != start || st.Last != start {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestWhatIsNotHandedOver(t *testing.T) {
	many := make([][]byte, maxExtensions+1)
	for i := range many {
		many[i] = []byte{protoDestOpts, 0, 1, 4, 0, 0, 0, 0}
	}
	count := func(s *Stats) map[string]uint64 {
		return map[string]uint64{"other": s.Other, "malformed": s.Malformed, "empty": s.Empty, "fragments": s.Fragments}
	}
	tests := []struct {
		name  string
		link  int
		frame []byte
		want  string
	}{
		{"nothing", linkEthernet, nil, "malformed"},
		{"half an Ethernet header", linkEthernet, make([]byte, 13), "malformed"},
		{"half a VLAN tag", linkEthernet, etherFrame(nil, 0x8100, 7), "malformed"},
		{"too many VLAN tags", linkEthernet, etherFrame(p4, tags(maxVLANTags+1)...), "malformed"},
		{"half a cooked header", linkSLL, make([]byte, 15), "malformed"},
		{"half a loopback header", linkLoop, make([]byte, 3), "malformed"},
		{"an empty raw packet", linkRaw, nil, "malformed"},
		{"ARP", linkEthernet, etherFrame(make([]byte, 28), 0x0806), "other"},
		{"an address family nobody has", linkNull, join([]byte{99, 0, 0, 0}, p4), "other"},
		{"another link layer", 147, p4, "other"},
		{"IP version 5", linkRaw, with(p4, 0, 0x55), "other"},
		{"ICMP", linkRaw, as4(a4, b4, 1, make([]byte, 8)), "other"},
		{"ESP", linkRaw, as6(a6, b6, 50, make([]byte, 16)), "other"},
		{"half an IPv4 header", linkRaw, p4[:19], "malformed"},
		{"IPv4 as Ethernet says, 6 as it says itself", linkEthernet, etherFrame(p6, 0x0800), "malformed"},
		{"IPv6 as Ethernet says, 4 as it says itself", linkEthernet, etherFrame(append(p4[:len(p4):len(p4)], p4...), 0x86dd), "malformed"},
		{"an IPv4 header of 16 bytes", linkRaw, with(p4, 0, 0x44), "malformed"},
		{"an IPv4 header longer than the packet", linkRaw, with(p4, 0, 0x4f), "malformed"},
		{"IPv4 longer than the frame", linkRaw, with(p4, 2, 1, 0), "malformed"},
		{"half an IPv6 header", linkRaw, p6[:39], "malformed"},
		{"IPv6 longer than the frame", linkRaw, with(p6, 4, 1, 0), "malformed"},
		{"an extension header longer than the packet", linkRaw, with6(protoHopByHop, []byte{protoUDP, 200, 0, 0, 0, 0, 0, 0}), "malformed"},
		{"an extension header of one byte", linkRaw, as6(a6, b6, protoHopByHop, []byte{protoUDP}), "malformed"},
		{"half a fragment header", linkRaw, as6(a6, b6, protoFragment, []byte{protoUDP, 0, 0, 1}), "malformed"},
		{"endless extension headers", linkRaw, with6(protoDestOpts, many...), "malformed"},
		{"half a UDP header", linkRaw, as4(a4, b4, protoUDP, make([]byte, 7)), "malformed"},
		{"UDP of 7 bytes", linkRaw, with(p4, 24, 0, 7), "malformed"},
		{"UDP longer than IP", linkRaw, with(p4, 24, 0, 99), "malformed"},
		{"UDP without payload", linkRaw, ipPacket(a4, b4, udpPacket(a4, b4, "")), "empty"},
		{"half a TCP header", linkRaw, as4(a4, b4, protoTCP, make([]byte, 19)), "malformed"},
		{"a TCP header of 16 bytes", linkRaw, as4(a4, b4, protoTCP, with(make([]byte, 20), 12, 0x40)), "malformed"},
		{"a TCP header longer than the packet", linkRaw, as4(a4, b4, protoTCP, with(make([]byte, 20), 12, 0x60)), "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, st := collect(Options{}, tt.link, tt.frame)
			if len(got) != 0 || st.Packets != 1 {
				t.Errorf("%d packets, %+v", len(got), st)
			}
			for name, n := range count(&st) {
				if want := name == tt.want; (n == 1) != want {
					t.Errorf("%s is %d, %+v", name, n, st)
				}
			}
		})
	}
}

// decodeOne decodes one frame that was longer on the wire.
func decodeOne(f frame) ([]string, Stats) {
	var got []string
	d := newDecoder(Options{}, func(p *wire.Packet) { got = append(got, string(p.Payload)) })
	d.packet(&f)
	d.flush()
	return got, d.stats
}

func TestSnapLength(t *testing.T) {
	whole := etherFrame(ipPacket(a4, b4, udpPacket(a4, b4, strings.Repeat("x", 172))), 0x0800)
	for n := range whole {
		got, st := decodeOne(frame{link: linkEthernet, at: start, data: whole[:n], length: len(whole)})
		if st.Truncated != 1 || st.Malformed != 0 {
			t.Errorf("%d bytes: %+v", n, st)
		}
		if want := n - 14 - 28; want > 0 && (len(got) != 1 || len(got[0]) != want) || want <= 0 && len(got) != 0 {
			t.Errorf("%d bytes: %d packets", n, len(got))
		}
	}
	first, _ := fragments4(a4, b4, strings.Repeat("x", 172))
	if got, st := decodeOne(frame{link: linkRaw, data: first[:30], length: len(first)}); len(got) != 0 || st.Truncated != 1 || st.Malformed != 0 {
		t.Errorf("a fragment: %d packets, %+v", len(got), st)
	}
	// Half of the first message is missing; the second is in the next segment.
	msg := invite("v=0\r\n")
	tcp := func(seq uint32) []byte { return as4(a4, b4, protoTCP, tcpPacket(a4, b4, seq, 1, flagACK, msg)) }
	var got []string
	d := newDecoder(Options{}, func(p *wire.Packet) { got = append(got, string(p.Payload)) })
	d.packet(&frame{link: linkRaw, data: tcp(1), length: 40 + len(msg)})
	d.packet(&frame{link: linkRaw, data: tcp(uint32(1 + len(msg)))[:60], length: 40 + len(msg)})
	d.packet(&frame{link: linkRaw, data: tcp(uint32(1 + 2*len(msg))), length: 40 + len(msg)})
	if len(got) != 2 || got[0] != msg || got[1] != msg || d.stats.Truncated != 1 || d.stats.Gaps != 1 || d.stats.Skipped != 20 {
		t.Errorf("TCP: %q, %+v", got, d.stats)
	}
}

func TestPorts(t *testing.T) {
	frames := [][]byte{p4, p6, as4(a4, b4, protoTCP, tcpPacket(a4, b4, 1, 1, flagACK, ringing))}
	for _, tt := range []struct {
		ports []PortRange
		want  int
	}{
		{nil, 3},
		{[]PortRange{{5060, 5060}}, 3},
		{[]PortRange{{1, 100}, {5070, 5090}}, 3},
		{[]PortRange{{5061, 5079}}, 0},
		{[]PortRange{{0, 65535}}, 3},
	} {
		got, st := collect(Options{Ports: tt.ports}, linkRaw, frames...)
		if len(got) != tt.want || int(st.Filtered) != len(frames)-tt.want {
			t.Errorf("%v: %d packets, %+v", tt.ports, len(got), st)
		}
	}
}

func TestDatagramsTakeNoMemory(t *testing.T) {
	d := newDecoder(Options{Ports: []PortRange{{5060, 5060}}}, func(*wire.Packet) {})
	f := frame{link: linkEthernet, at: start, data: etherFrame(p6, 0x8100, 7, 0x86dd), length: 1000}
	if n := testing.AllocsPerRun(1000, func() { d.packet(&f) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func FuzzPacket(f *testing.F) {
	first, second := fragments4(a4, b4, strings.Repeat("f", 64))
	for _, p := range [][]byte{p4, p6, first, second, as4(a4, b4, protoTCP, tcpPacket(a4, b4, 1, 1, flagACK, invite("v=0\r\n"))),
		with6(protoFragment, []byte{protoUDP, 0, 0, 1, 0, 0, 0, 1})} {
		f.Add(uint16(linkRaw), uint16(0), binary.BigEndian.AppendUint16(nil, uint16(len(p))), p)
		f.Add(uint16(linkEthernet), uint16(9), []byte{0, 40, 0, 50, 1, 0}, etherFrame(p, 0x8100, 7, be.Uint16([]byte{8, 0})))
	}
	// The packets of cuts' lengths follow one another in data.
	f.Fuzz(func(t *testing.T, link, more uint16, cuts, data []byte) {
		total := 0
		d := newDecoder(Options{MaxMessage: 4096, MaxConnections: 4, MaxFragmented: 4}, func(p *wire.Packet) {
			if len(p.Payload) == 0 || !p.Src.IsValid() || !p.Dst.IsValid() || p.Stream != (p.Kind == wire.SIP) {
				t.Fatalf("packet %+v", p)
			}
			if p.Stream && framer.Start(p.Payload) != framer.Yes {
				t.Fatalf("message %.40q", p.Payload)
			}
			total += len(p.Payload)
		})
		size := len(data)
		for ; len(cuts) >= 2 && len(data) > 0; cuts = cuts[2:] {
			n := min(int(be.Uint16(cuts)), len(data))
			d.packet(&frame{link: int(link), at: start, data: data[:n], length: n + int(more)})
			data = data[n:]
		}
		d.flush()
		if total > size || d.frags.bytes != 0 || d.tcp.cost != 0 || len(d.tcp.byKey) != 0 {
			t.Fatalf("%d bytes of %d, %d in fragments, %d in streams", total, size, d.frags.bytes, d.tcp.cost)
		}
	})
}

// A cloud's mirror puts each packet inside of one of its own. What only looks so is handed over as it is.
func TestVXLAN(t *testing.T) {
	outer, mirror := netip.MustParseAddrPort("10.9.0.1:50000"), netip.MustParseAddrPort("10.9.0.2:4789")
	src, dst := netip.MustParseAddrPort("10.0.0.1:5060"), netip.MustParseAddrPort("10.0.0.2:5062")
	inside := etherFrame(ipPacket(src, dst, udpPacket(src, dst, "hello")), etherIPv4)
	wrap := func(header, frame string) []byte {
		return etherFrame(ipPacket(outer, mirror, udpPacket(outer, mirror, header+frame)), etherIPv4)
	}
	const valid = "\x08\x00\x00\x00\x00\x00\x2a\x00"
	got, st := collect(Options{}, linkEthernet, wrap(valid, string(inside)), wrap("\x00\x00\x00\x00\x00\x00\x2a\x00", string(inside)),
		wrap(valid, string(wrap(valid, string(inside)))))
	if len(got) != 3 || st.VXLAN != 2 || st.Malformed != 0 {
		t.Fatalf("%d packets, %d taken out, %+v", len(got), st.VXLAN, st)
	}
	if got[0].Src != src || got[0].Dst != dst || string(got[0].Payload) != "hello" {
		t.Errorf("taken out: %s to %s: %q", got[0].Src, got[0].Dst, got[0].Payload)
	}
	if got[1].Dst != mirror || got[2].Dst != mirror {
		t.Errorf("what is no VXLAN, and one inside of one, went to %s and %s", got[1].Dst, got[2].Dst)
	}
}
