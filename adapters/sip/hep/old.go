package hep

import (
	"encoding/binary"
	"net/netip"
)

// Sizes of the headers of versions 1 and 2.
const (
	oldHeader = 8  // version, header length, family, IP protocol, ports
	oldTime   = 12 // version 2 only: seconds, microseconds, agent id, padding

	oldINET, oldINET6 = 2, 10 // address families as Linux numbers them
)

// readOld reads a frame of version 1 or 2: a fixed header, then a SIP message to the end. Neither carries a key.
func (f *frame) readOld(raw []byte) error {
	if len(raw) < oldHeader {
		return errShort
	}
	size := 4
	if raw[2] == oldINET6 {
		size = 16
	} else if raw[2] != oldINET {
		return errMagic
	}
	// Some agents count the time of version 2 into the header's length, some do not; it is there either way.
	addresses, length := oldHeader+2*size, int(raw[1])
	if length != addresses && length != addresses+oldTime {
		return errMagic
	}
	f.protocol, f.transport = protocolSIP, raw[3]
	f.srcPort, f.dstPort = binary.BigEndian.Uint16(raw[4:]), binary.BigEndian.Uint16(raw[6:])
	if raw[0] == 2 {
		addresses += oldTime
	}
	if len(raw) < addresses {
		return errShort
	}
	f.src, _ = netip.AddrFromSlice(raw[oldHeader : oldHeader+size])
	f.dst, _ = netip.AddrFromSlice(raw[oldHeader+size : oldHeader+2*size])
	if raw[0] == 2 {
		f.oldTime(raw[oldHeader+2*size:])
	}
	f.payload = raw[addresses:]
	return nil
}

// oldTime reads the capture time, which is in the byte order of the agent's machine: nearly always the little end
// first.
func (f *frame) oldTime(b []byte) {
	f.seconds, f.micros = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if f.micros >= 1e6 {
		f.seconds, f.micros = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	}
}
