package trunk

import (
	"encoding/binary"
)

// receiver is what the far end knows of a stream (RFC 3550, 6.4.1 and A.3, A.8).
type receiver struct {
	ssrc          uint32
	begun         bool
	cycles        uint32
	base, top     uint32 // extended sequence numbers
	received      uint32
	transit       int32
	jitter        float64 // timestamp units
	expectedPrior uint32
	receivedPrior uint32
	lastSR        uint32 // middle 32 bits of its NTP time
	lastSRAt      int64
}

// hear takes note of an RTP packet.
func (r *receiver) hear(at int64, b []byte) {
	seq, ssrc := uint32(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint32(b[8:])
	arrival := uint32(at * sampleRate / second)
	transit := int32(arrival - binary.BigEndian.Uint32(b[4:]))
	if !r.begun || ssrc != r.ssrc || r.jumped(seq) {
		*r = receiver{ssrc: ssrc, begun: true, base: seq, top: seq, received: 1, transit: transit}
		return
	}
	ext := r.cycles | seq
	if d := seq - r.top&0xffff; d < 0x8000 && ext < r.top {
		r.cycles += 1 << 16
		ext = r.cycles | seq
	} else if ext > r.top && ext-r.top > 0x8000 {
		ext -= 1 << 16 // from before the wrap
	}
	r.top = max(r.top, ext)
	r.received++
	d := transit - r.transit
	r.transit = transit
	if d < 0 {
		d = -d
	}
	r.jitter += (float64(d) - r.jitter) / 16
}

// jumped says whether seq is no continuation (RFC 3550, A.1, MAX_DROPOUT and MAX_MISORDER).
func (r *receiver) jumped(seq uint32) bool {
	d := uint16(seq) - uint16(r.top)
	return d > 3000 && d < 0xffff-100
}

// block appends a report block made at the receiver's time at.
func (r *receiver) block(b []byte, at int64) []byte {
	expected := r.top - r.base + 1
	lost := int32(expected - r.received)
	newExpected, newReceived := expected-r.expectedPrior, r.received-r.receivedPrior
	r.expectedPrior, r.receivedPrior = expected, r.received
	fraction := uint32(0)
	if newExpected > newReceived {
		fraction = (newExpected - newReceived) * 256 / newExpected
	}
	b = binary.BigEndian.AppendUint32(b, r.ssrc)
	b = binary.BigEndian.AppendUint32(b, min(fraction, 255)<<24|uint32(lost)&0xffffff)
	b = binary.BigEndian.AppendUint32(b, r.top)
	b = binary.BigEndian.AppendUint32(b, uint32(r.jitter))
	delay := uint32(0)
	if r.lastSR != 0 {
		delay = uint32((at - r.lastSRAt) * 65536 / second)
	}
	b = binary.BigEndian.AppendUint32(b, r.lastSR)
	return binary.BigEndian.AppendUint32(b, delay)
}

// ntp is a time in NTP format (RFC 3550, 4).
func ntp(at int64) uint64 {
	sec, micro := uint64(at/second)+2_208_988_800, uint64(at%second)
	return sec<<32 | micro<<32/second
}

const (
	reportEvery = 5 * second
	rtcpSR      = 200
	rtcpRR      = 201
	rtcpSDES    = 202
	rtcpBYE     = 203
)

// report sends what one end says of the stream it sends and of the one it receives, as a compound packet.
func report(e *engine, at int64, sends, receives *stream, bye bool) {
	if !sends.started && !receives.heard.begun {
		return
	}
	b := senderReport(e.scratch[:0], at, sends, receives)
	b = binary.BigEndian.AppendUint32(append(b, 0x81, rtcpSDES, 0, 0), sends.ssrc)
	start := len(b) - 8
	b = append(append(b, 1, byte(len(sends.src.name))), sends.src.name...) // CNAME
	b = append(b, 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16((len(b)-start)/4-1))
	if bye {
		b = binary.BigEndian.AppendUint32(append(b, 0x81, rtcpBYE, 0, 1), sends.ssrc)
	}
	e.scratch = b
	e.send(RTCP, sends.src.rtcp, sends.dst.rtcp, sends.callID, b)
}

// senderReport appends an SR, or an RR for an end that sends nothing.
func senderReport(b []byte, at int64, sends, receives *stream) []byte {
	blocks := byte(0)
	if receives.heard.begun {
		blocks = 1
	}
	if sends.sentN > 0 {
		now := ntp(at - sends.src.far)
		b = binary.BigEndian.AppendUint32(append(b, 0x80|blocks, rtcpSR, 0, 6+6*blocks), sends.ssrc)
		b = binary.BigEndian.AppendUint64(b, now)
		b = binary.BigEndian.AppendUint32(b, sends.timestamp(at))
		b = binary.BigEndian.AppendUint32(b, sends.sentN)
		b = binary.BigEndian.AppendUint32(b, sends.octets)
		// The other end will say in its next report when it got this one.
		sends.heard.lastSR, sends.heard.lastSRAt = uint32(now>>16), at+sends.dst.far
	} else {
		b = binary.BigEndian.AppendUint32(append(b, 0x80|blocks, rtcpRR, 0, 1+6*blocks), sends.ssrc)
	}
	if blocks == 1 {
		b = receives.heard.block(b, at-sends.src.far)
	}
	return b
}

// timestamp is the RTP time that corresponds to at.
func (s *stream) timestamp(at int64) uint32 { return s.ts + uint32((at-s.base)*sampleRate/second) }
