package trunk

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Pcap writes packets as a pcap file: Ethernet, IPv4, UDP, times in microseconds.
type Pcap struct {
	w   io.Writer
	buf []byte
	id  uint16 // of the last IP packet
}

// NewPcap writes the file's header.
func NewPcap(w io.Writer) (*Pcap, error) {
	h := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	h = append(h, 2, 0, 4, 0)                            // version 2.4
	h = append(h, 0, 0, 0, 0, 0, 0, 0, 0)                // UTC, accuracy unknown
	h = binary.LittleEndian.AppendUint32(h, maxDatagram) // of what is kept of a packet
	h = binary.LittleEndian.AppendUint32(h, 1)           // Ethernet
	if _, err := w.Write(h); err != nil {
		return nil, fmt.Errorf("writing the pcap header: %w", err)
	}
	return &Pcap{w: w}, nil
}

const maxDatagram = 65535

// Write appends one packet. Both its addresses are IPv4.
func (c *Pcap) Write(p Packet) error {
	if !p.Src.Addr().Is4() || !p.Dst.Addr().Is4() {
		return fmt.Errorf("writing a packet from %s to %s to a pcap file: only IPv4 is supported", p.Src, p.Dst)
	}
	n := 14 + 20 + 8 + len(p.Payload)
	b := binary.LittleEndian.AppendUint32(c.buf[:0], uint32(p.At.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.At.Nanosecond()/1000))
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	src, dst := p.Src.Addr().As4(), p.Dst.Addr().As4()
	b = append(append(append(b, 2, 0), dst[:]...), append([]byte{2, 0}, src[:]...)...) // locally administered MACs
	b = append(b, 8, 0)
	c.id++
	b = appendIPv4(b, src, dst, c.id, 8+len(p.Payload))
	b = appendUDP(b, p, src, dst)
	c.buf = b
	if _, err := c.w.Write(b); err != nil {
		return fmt.Errorf("writing a packet to the pcap file: %w", err)
	}
	return nil
}

// appendIPv4 appends a header without options before n bytes (RFC 791, 3.1).
func appendIPv4(b []byte, src, dst [4]byte, id uint16, n int) []byte {
	start := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(20+n))
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0x40, 0, 64, 17, 0, 0) // don't fragment, TTL 64, UDP
	b = append(append(b, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(b[start+10:], ^checksum(0, b[start:]))
	return b
}

// appendUDP appends a header and the payload (RFC 768).
func appendUDP(b []byte, p Packet, src, dst [4]byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, p.Src.Port())
	b = binary.BigEndian.AppendUint16(b, p.Dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.Payload)))
	b = append(append(b, 0, 0), p.Payload...)
	sum := checksum(0, src[:])
	sum = checksum(sum, dst[:])
	sum = checksum(sum, []byte{0, 17, byte((8 + len(p.Payload)) >> 8), byte(8 + len(p.Payload))})
	sum = ^checksum(sum, b[start:])
	if sum == 0 {
		sum = 0xffff // zero says that there is none
	}
	binary.BigEndian.PutUint16(b[start+6:], sum)
	return b
}

// checksum adds b to a ones' complement sum (RFC 1071).
func checksum(sum uint16, b []byte) uint16 {
	s := uint32(sum)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
