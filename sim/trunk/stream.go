package trunk

import (
	"encoding/binary"
	"math/rand/v2"
)

const (
	second = 1_000_000 // microseconds
	frame  = 20_000    // of a packet
)

// stream is the RTP that one end sends to another in one dialog.
type stream struct {
	src, dst *mediaPort
	callID   string
	rng      *rand.Rand
	profile  impairment

	codec   codec
	event   uint8 // payload type of telephone events
	wrong   bool  // sends the codec that was not agreed
	sound   sound
	started bool
	over    bool
	quiet   bool // sends nothing for now: on hold
	dead    bool // never sends anything: one-way audio
	slot    bool // has an event in the heap
	n       int  // of the packet, for its sound

	ssrc    uint32
	seq     uint16
	ts      uint32
	last    int64 // when the latest delayed packet arrives
	base    int64 // nominal time of the next packet, at which ts is
	marker  bool
	octets  uint32
	sentN   uint32 // since the SSRC began
	burst   int    // packets of a loss burst still to come
	digits  []digit
	key     *press // being pressed
	changes int    // of SSRC or sequence, still to come
	nth     int    // packets so far, for when to change

	heard receiver
	truth StreamTruth
}

// digit is a key to be pressed.
type digit struct {
	at  int64
	key byte
	dur int64
}

// press is a telephone event being sent (RFC 4733, 2.5.1).
type press struct {
	code     byte
	ts       uint32
	packets  int // to be sent while it lasts
	sent     int
	ends     int // end packets sent
	duration int
}

func newStream(r *rand.Rand, src, dst *mediaPort, callID string) *stream {
	s := &stream{src: src, dst: dst, callID: callID, rng: rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))}
	s.ssrc, s.seq, s.ts = r.Uint32(), uint16(r.Uint32()), r.Uint32()
	s.marker = true
	s.truth.Source, s.truth.Destination = src.rtp.addr, dst.rtp.addr
	return s
}

// start begins or resumes sending at time t.
func (s *stream) start(e *engine, t int64) {
	if s.dead || s.over {
		return
	}
	if s.started && s.quiet { // the clock went on: whole frames passed
		frames := (t - s.base + frame - 1) / frame
		s.base += frames * frame
		s.ts += uint32(frames * frameSize)
		s.marker = true
	}
	if !s.started {
		s.base = t
	}
	s.started, s.quiet = true, false
	if !s.slot {
		s.slot = true
		e.run(s, s.base)
	}
}

// tick sends the packet that is due and returns when the next one is.
func (s *stream) tick(e *engine, at int64) (next int64, more bool) {
	if s.quiet || s.over || s.dead {
		s.slot = false
		return 0, false
	}
	s.nth++
	s.changes = s.profile.change(s)
	if !s.sendKey(e, at) {
		s.sendAudio(e, at)
	}
	s.n++
	s.base += frame
	s.ts += frameSize
	return s.base + s.rng.Int64N(s.src.unsteady+1), true
}

func (s *stream) sendAudio(e *engine, at int64) {
	pt := s.codec
	if s.wrong {
		pt = pt.other()
	}
	b := s.header(e, byte(pt), s.ts)
	s.marker = false
	s.out(e, at, append(b, e.sounds.frame(s.sound, pt, s.n)...))
}

// header begins a packet in the engine's scratch (RFC 3550, 5.1).
func (s *stream) header(e *engine, pt byte, ts uint32) []byte {
	if s.marker {
		pt |= 0x80
	}
	b := append(e.scratch[:0], 0x80, pt)
	b = binary.BigEndian.AppendUint16(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, ts)
	b = binary.BigEndian.AppendUint32(b, s.ssrc)
	s.seq++
	return b
}

// sendKey sends a packet of the digit being pressed instead of audio; false when there is none.
func (s *stream) sendKey(e *engine, at int64) bool {
	if s.key == nil {
		if len(s.digits) == 0 || s.digits[0].at > at {
			return false
		}
		d := s.digits[0]
		s.digits = s.digits[1:]
		s.key = &press{code: eventCode(d.key), ts: s.ts, packets: max(2, int(d.dur/frame))}
		s.marker = true
	}
	k := s.key
	end := byte(0)
	if k.sent >= k.packets {
		end = 0x80
		k.ends++
	} else {
		k.sent++
		k.duration += frameSize
	}
	b := s.header(e, s.event, k.ts)
	s.marker = false
	b = append(b, k.code, end|10) // volume -10 dBm0
	s.out(e, at, binary.BigEndian.AppendUint16(b, uint16(k.duration)))
	if k.ends == 3 {
		s.key = nil
	}
	return true
}

func eventCode(key byte) byte {
	switch key {
	case '*':
		return 10
	case '#':
		return 11
	}
	return key - '0'
}

// out sends a packet through the network's faults.
func (s *stream) out(e *engine, at int64, b []byte) {
	e.scratch = b
	s.octets += uint32(len(b) - rtpHeader)
	s.sentN++
	fate := s.profile.draw(s, at)
	switch {
	case fate.lost:
		return
	case fate.delay > 0:
		held := append([]byte(nil), b...)
		e.at(at+fate.delay, func(at int64) { s.emit(e, at, held, false) })
	default:
		s.emit(e, at, b, false)
	}
	if fate.twice {
		held := append([]byte(nil), b...)
		e.at(at+fate.delay+300, func(at int64) { s.emit(e, at, held, true) })
	}
}

const rtpHeader = 12

// emit puts a packet on the wire, where it is also heard.
func (s *stream) emit(e *engine, at int64, b []byte, again bool) {
	if s.over {
		return
	}
	s.truth.see(at, b, again)
	if !s.profile.lostBeyond(s) {
		s.heard.hear(at, b)
	}
	e.send(RTP, s.src.rtp, s.dst.rtp, s.callID, b)
}
