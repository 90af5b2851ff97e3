package capture

import (
	"encoding/binary"
	"net/netip"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// Link types (the LINKTYPE_ registry of tcpdump.org).
const (
	linkNull     = 0
	linkEthernet = 1
	linkRawBSD   = 12
	linkRawOpen  = 14
	linkRaw      = 101
	linkLoop     = 108
	linkSLL      = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276
)

// EtherTypes (IEEE 802 numbers).
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherOldQ = 0x9100 // before 802.1ad
)

// maxVLANTags is how deep VLAN tags may be stacked.
const maxVLANTags = 8

// decoder takes packets off the link and hands over what is in them. It holds nothing of a packet but fragments and
// TCP payload, which it copies.
type decoder struct {
	h     wire.Handler
	ports *portSet
	frags *fragments
	tcp   *streams
	stats Stats
	pkt   wire.Packet // the one handed over, used again and again

	at, received call.Time // of the packet being decoded
	vlan         uint16    // its outermost VLAN
	missing      int       // bytes that the snap length cut off
	cut          bool      // it is counted as truncated
	whole        bool      // it was put together from fragments
	inner        bool      // it is inside of another one
}

// newDecoder expects valid options.
func newDecoder(o Options, h wire.Handler) *decoder {
	o = o.withDefaults()
	d := &decoder{h: h, ports: newPortSet(o.Ports), frags: newFragments(o.MaxFragmented)}
	d.tcp = newStreams(o, d)
	return d
}

// frame is one captured packet. data is valid only while it is decoded.
type frame struct {
	link     int
	at       call.Time
	received call.Time
	length   int // on the wire, bytes
	data     []byte
}

func (d *decoder) begin(f *frame) {
	d.stats.Packets++
	d.stats.Bytes += uint64(len(f.data))
	if d.stats.First == 0 || f.at < d.stats.First {
		d.stats.First = f.at
	}
	d.stats.Last = max(d.stats.Last, f.at)
	d.at, d.received = f.at, f.received
	d.vlan, d.cut = 0, false
	d.missing = max(f.length-len(f.data), 0)
	d.tcp.sweep()
}

// tick says what time it is when no packets come: streams do not wait for ever for what is missing.
func (d *decoder) tick(now call.Time) {
	d.at, d.received = now, now
	d.tcp.sweep()
}

// packet decodes one frame.
func (d *decoder) packet(f *frame) {
	d.begin(f)
	switch f.link {
	case linkEthernet:
		d.ethernet(f.data)
	case linkSLL2:
		d.header(f.data, 0, 20)
	case linkSLL:
		d.header(f.data, 14, 16)
	case linkRaw, linkRawBSD, linkRawOpen, linkIPv4, linkIPv6:
		d.rawIP(f.data)
	case linkNull, linkLoop:
		d.loopback(f.data)
	default:
		d.stats.Other++
	}
}

// network decodes one frame whose link header is already taken off.
func (d *decoder) network(f *frame, etherType, vlan uint16) {
	d.begin(f)
	d.vlan = vlan
	d.ether(etherType, f.data)
}

// tagged decodes an Ethernet frame whose outermost VLAN tag, if any, was taken off.
func (d *decoder) tagged(f *frame, vlan uint16) {
	d.begin(f)
	d.vlan = vlan
	d.ethernet(f.data)
}

func (d *decoder) ethernet(b []byte) { d.header(b, 12, 14) }

// header is a link header of size bytes with the EtherType at offset.
func (d *decoder) header(b []byte, offset, size int) {
	if len(b) < size {
		d.malformed()
		return
	}
	d.ether(binary.BigEndian.Uint16(b[offset:]), b[size:])
}

func (d *decoder) ether(etherType uint16, b []byte) {
	for range maxVLANTags + 1 {
		switch etherType {
		case etherIPv4:
			d.ipv4(b)
			return
		case etherIPv6:
			d.ipv6(b)
			return
		case etherVLAN, etherQinQ, etherOldQ:
			if len(b) < 4 {
				d.malformed()
				return
			}
			if d.vlan == 0 {
				d.vlan = binary.BigEndian.Uint16(b) & 0x0fff
			}
			etherType, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		default:
			d.stats.Other++
			return
		}
	}
	d.malformed()
}

func (d *decoder) rawIP(b []byte) {
	if len(b) == 0 {
		d.malformed()
		return
	}
	switch b[0] >> 4 {
	case 4:
		d.ipv4(b)
	case 6:
		d.ipv6(b)
	default:
		d.stats.Other++
	}
}

// loopback has the address family in the capturing machine's byte order (NULL) or the network's (LOOP).
func (d *decoder) loopback(b []byte) {
	if len(b) < 4 {
		d.malformed()
		return
	}
	family := binary.BigEndian.Uint32(b)
	if family > 0xffff {
		family = binary.LittleEndian.Uint32(b)
	}
	switch family {
	case 2, 10, 24, 28, 30: // AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD, Darwin
		d.rawIP(b[4:])
	default:
		d.stats.Other++
	}
}

// malformed counts a packet that ends before its headers do, or whose headers lie.
func (d *decoder) malformed() {
	if d.missing > 0 {
		d.truncated()
		return
	}
	d.stats.Malformed++
}

func (d *decoder) truncated() {
	if !d.cut {
		d.cut = true
		d.stats.Truncated++
	}
}

// transport decodes what is above IP.
func (d *decoder) transport(proto uint8, src, dst netip.Addr, b []byte) {
	switch proto {
	case protoUDP:
		d.udp(src, dst, b)
	case protoTCP:
		d.tcpSegment(src, dst, b)
	default:
		d.stats.Other++
	}
}

func (d *decoder) wanted(src, dst uint16) bool {
	if d.ports == nil || d.ports.has(src) || d.ports.has(dst) {
		return true
	}
	d.stats.Filtered++
	return false
}

// udp is RFC 768.
func (d *decoder) udp(src, dst netip.Addr, b []byte) {
	if len(b) < 8 {
		d.malformed()
		return
	}
	from, to := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if !d.wanted(from, to) {
		return
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 {
		length = len(b) + d.missing // longer than 16 bits can say: segmentation is left to the network card
	}
	if length < 8 || length > len(b)+d.missing {
		d.stats.Malformed++
		return
	}
	if length > len(b) {
		d.truncated()
	}
	payload := b[8:min(length, len(b))]
	if to == portVXLAN && d.vxlan(payload) {
		return
	}
	if len(payload) > 0 {
		d.stats.Datagrams++
		d.emit(wire.Datagram, netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to), payload)
		return
	}
	d.stats.Empty++
}

// portVXLAN is where clouds mirror traffic to, each packet inside of one of theirs (RFC 7348, 5).
const portVXLAN = 4789

// vxlan takes the packet out of a VXLAN one, and reports whether there was one.
func (d *decoder) vxlan(b []byte) bool {
	const header, valid = 8, 0x08 // flag I, with everything reserved zero
	if d.inner || len(b) < header+14 || b[0] != valid || b[1]|b[2]|b[3]|b[7] != 0 {
		return false
	}
	d.stats.VXLAN++
	d.inner = true
	d.ethernet(b[header:])
	d.inner = false
	return true
}

func (d *decoder) emit(kind wire.Kind, src, dst netip.AddrPort, payload []byte) {
	d.pkt = wire.Packet{Kind: kind, Stream: kind == wire.SIP, At: d.at, Received: d.received, Src: src, Dst: dst, Payload: payload}
	d.h(&d.pkt)
}

// flush gives up waiting for what is missing, at the end of a capture.
func (d *decoder) flush() {
	d.tcp.flush()
	d.frags.flush(&d.stats)
}
