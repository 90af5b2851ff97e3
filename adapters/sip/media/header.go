package media

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotRTP is wrapped by every error of Stream.RTP.
var ErrNotRTP = errors.New("no RTP packet")

// header is the fixed header of RFC 3550, 5.1, and what follows it. It is read by hand: pion/rtp accepts version 0,
// and allocates for extensions that nobody here looks at.
type header struct {
	seq     uint16
	ts      uint32
	ssrc    uint32
	pt      uint8
	marker  bool
	payload []byte // without CSRCs, extension and padding
}

// SSRC returns the synchronization source of an RTP packet, and whether the bytes can be one: version 2, whole header,
// and a payload type that is not RTCP's on a shared port (RFC 5761, 4).
func SSRC(packet []byte) (uint32, bool) {
	if len(packet) < 12 || packet[0]>>6 != 2 || IsRTCP(packet) {
		return 0, false
	}
	return binary.BigEndian.Uint32(packet[8:]), true
}

// IsRTCP tells RTCP from RTP on a shared port by the second byte (RFC 5761, 4: 192 to 223).
func IsRTCP(packet []byte) bool {
	return len(packet) >= 8 && packet[0]>>6 == 2 && packet[1] >= 192 && packet[1] <= 223
}

func (h *header) parse(b []byte, encrypted bool) error {
	if len(b) < 12 {
		return notRTP("%d bytes, a header has 12", len(b))
	}
	if b[0]>>6 != 2 {
		return notRTP("version %d, not 2", b[0]>>6)
	}
	if b[1] >= 192 && b[1] <= 223 {
		return notRTP("payload type byte %d is RTCP's", b[1])
	}
	h.marker, h.pt = b[1]&0x80 != 0, b[1]&0x7f
	h.seq = binary.BigEndian.Uint16(b[2:])
	h.ts = binary.BigEndian.Uint32(b[4:])
	h.ssrc = binary.BigEndian.Uint32(b[8:])
	start := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < start+4 {
			return notRTP("%d bytes end inside the header extension", len(b))
		}
		start += 4 + 4*int(binary.BigEndian.Uint16(b[start+2:]))
	}
	if start > len(b) {
		return notRTP("the header claims %d bytes of %d", start, len(b))
	}
	h.payload = b[start:]
	if b[0]&0x20 == 0 || encrypted { // the padding's length is encrypted too
		return nil
	}
	if len(h.payload) == 0 || int(b[len(b)-1]) > len(h.payload) || b[len(b)-1] == 0 {
		return notRTP("the padding is longer than the payload of %d bytes, or 0", len(h.payload))
	}
	h.payload = h.payload[:len(h.payload)-int(b[len(b)-1])]
	return nil
}

func notRTP(format string, args ...any) error {
	return fmt.Errorf("reading an RTP header: %w: "+format, append([]any{ErrNotRTP}, args...)...)
}
