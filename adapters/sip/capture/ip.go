package capture

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers and IPv6 extension headers (IANA).
const (
	protoHopByHop = 0
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoAuth     = 51
	protoDestOpts = 60
)

// maxExtensions is how many IPv6 extension headers are gone through.
const maxExtensions = 16

// ipv4 is RFC 791.
func (d *decoder) ipv4(b []byte) {
	if len(b) < 20 {
		d.malformed()
		return
	}
	head, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 {
		total = len(b) + d.missing // segmentation is left to the network card
	}
	if b[0]>>4 != 4 || head < 20 || total < head {
		d.stats.Malformed++
		return
	}
	if len(b) < head {
		d.malformed()
		return
	}
	if !d.trim(&b, total) {
		return
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	frag := binary.BigEndian.Uint16(b[6:])
	if frag&0x3fff == 0 { // neither more fragments nor an offset
		d.transport(b[9], src, dst, b[head:])
		return
	}
	key := fragKey{src: src, dst: dst, id: uint32(binary.BigEndian.Uint16(b[4:])), proto: b[9], vlan: d.vlan}
	d.fragment(key, b[9], int(frag&0x1fff)*8, frag&0x2000 != 0, b[head:])
}

// trim takes off what follows an IP packet of total bytes on the link, and sets how much of it was cut off.
func (d *decoder) trim(b *[]byte, total int) bool {
	switch n := total - len(*b); {
	case n <= 0:
		*b, d.missing = (*b)[:total], 0
	case n > d.missing:
		d.stats.Malformed++
		return false
	default:
		d.missing = n
	}
	return true
}

// ipv6 is RFC 8200.
func (d *decoder) ipv6(b []byte) {
	if len(b) < 40 {
		d.malformed()
		return
	}
	if b[0]>>4 != 6 {
		d.stats.Malformed++
		return
	}
	if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 { // 0: a jumbogram, or segmentation is left to the network card
		if !d.trim(&b, 40+n) {
			return
		}
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	d.extensions(b[6], src, dst, b[40:])
}

// extensions goes through the headers between IPv6's own and the transport's.
func (d *decoder) extensions(next uint8, src, dst netip.Addr, b []byte) {
	for range maxExtensions {
		var size int
		switch next {
		case protoHopByHop, protoRouting, protoDestOpts:
			size = extensionSize(b, 8, 8)
		case protoAuth: // RFC 4302, 2.2
			size = extensionSize(b, 4, 8)
		case protoFragment:
			if size = 8; !unfragmented(b) {
				d.fragment6(src, dst, b)
				return
			}
		default:
			d.transport(next, src, dst, b)
			return
		}
		if size == 0 || size > len(b) {
			d.malformed()
			return
		}
		next, b = b[0], b[size:]
	}
	d.stats.Malformed++
}

// extensionSize is the size of an extension header with its length at offset 1 in units, not counting the first bytes.
func extensionSize(b []byte, unit, first int) int {
	if len(b) < 2 {
		return 0
	}
	return first + int(b[1])*unit
}

// unfragmented reports whether a fragment header stands before a whole packet (RFC 6946), or is cut off.
func unfragmented(b []byte) bool {
	return len(b) < 8 || binary.BigEndian.Uint16(b[2:])&0xfff9 == 0
}

// fragment6 is RFC 8200, 4.5.
func (d *decoder) fragment6(src, dst netip.Addr, b []byte) {
	frag := binary.BigEndian.Uint16(b[2:])
	key := fragKey{src: src, dst: dst, id: binary.BigEndian.Uint32(b[4:]), vlan: d.vlan}
	d.fragment(key, b[0], int(frag&0xfff8), frag&1 != 0, b[8:])
}

// fragment takes one fragment, and goes on with the datagram when it is the last that was missing.
func (d *decoder) fragment(key fragKey, next uint8, offset int, more bool, b []byte) {
	d.stats.Fragments++
	switch {
	case d.missing > 0:
		d.truncated()
		return
	case d.whole, len(b) == 0, more && len(b)%8 != 0, offset+len(b) > maxDatagram:
		d.stats.Malformed++
		return
	}
	whole, next := d.frags.add(key, fragment{next: next, offset: offset, more: more, data: b}, d.at, &d.stats)
	if whole == nil {
		return
	}
	d.stats.Reassembled++
	d.whole = true // so that fragments inside it are refused
	if key.src.Is6() {
		d.extensions(next, key.src, key.dst, whole)
	} else {
		d.transport(next, key.src, key.dst, whole)
	}
	d.whole = false
}
