package trunk

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Kind says what a packet carries. Its values are HEP's protocol types.
type Kind uint8

// Kinds of packets.
const (
	SIP  Kind = 1
	RTP  Kind = 4
	RTCP Kind = 5
)

// Packet is one UDP datagram of the trunk. Its payload is valid only until the next one.
type Packet struct {
	At       time.Time // scripted, at the capture point
	Kind     Kind
	Src, Dst netip.AddrPort
	CallID   string // SIP Call-ID of the dialog it belongs to; empty for none
	Payload  []byte
}

// HEP chunk types (HEP/EEP revision 36, section 4).
const (
	hepFamily      = 1
	hepProtocol    = 2
	hepSource4     = 3
	hepDest4       = 4
	hepSource6     = 5
	hepDest6       = 6
	hepSourcePort  = 7
	hepDestPort    = 8
	hepSeconds     = 9
	hepMicros      = 10
	hepType        = 11
	hepAgent       = 12
	hepKey         = 14
	hepPayload     = 15
	hepCorrelation = 17
)

// captureAgent is the number by which the trunk's capture agent calls itself.
const captureAgent = 2001

// AppendHEP appends p as one HEPv3 packet with the authentication key, if there is one.
func AppendHEP(b []byte, p Packet, key string) []byte {
	start := len(b)
	b = append(b, "HEP3\x00\x00"...)
	family, src, dst := byte(2), uint16(hepSource4), uint16(hepDest4) // AF_INET, AF_INET6
	if p.Src.Addr().Is6() {
		family, src, dst = 10, hepSource6, hepDest6
	}
	b = append(chunk(b, hepFamily, 1), family)
	b = append(chunk(b, hepProtocol, 1), 17)
	b = hepAddress(b, src, p.Src.Addr())
	b = hepAddress(b, dst, p.Dst.Addr())
	b = binary.BigEndian.AppendUint16(chunk(b, hepSourcePort, 2), p.Src.Port())
	b = binary.BigEndian.AppendUint16(chunk(b, hepDestPort, 2), p.Dst.Port())
	b = binary.BigEndian.AppendUint32(chunk(b, hepSeconds, 4), uint32(p.At.Unix()))
	b = binary.BigEndian.AppendUint32(chunk(b, hepMicros, 4), uint32(p.At.Nanosecond()/1000))
	b = append(chunk(b, hepType, 1), byte(p.Kind))
	b = binary.BigEndian.AppendUint32(chunk(b, hepAgent, 4), captureAgent)
	if key != "" {
		b = append(chunk(b, hepKey, len(key)), key...)
	}
	if p.CallID != "" && p.Kind != SIP {
		b = append(chunk(b, hepCorrelation, len(p.CallID)), p.CallID...)
	}
	b = append(chunk(b, hepPayload, len(p.Payload)), p.Payload...)
	binary.BigEndian.PutUint16(b[start+4:], uint16(len(b)-start))
	return b
}

func hepAddress(b []byte, kind uint16, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(chunk(b, kind, len(raw)), raw...)
}

// chunk begins a generic chunk (vendor 0) of n bytes.
func chunk(b []byte, kind uint16, n int) []byte {
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, kind)
	return binary.BigEndian.AppendUint16(b, uint16(6+n))
}
