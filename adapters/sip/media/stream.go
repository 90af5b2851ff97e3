package media

import (
	"github.com/ctigate/ctigate/core/call"
)

// DefaultJitterBufferMS is assumed of receivers when Options say nothing.
const DefaultJitterBufferMS = 60

// Options are shared by all streams of an adapter.
type Options struct {
	// JitterBufferMS is the jitter buffer assumed of the receivers: what comes later is counted late and taken for lost
	// in the MOS. 0 is DefaultJitterBufferMS.
	JitterBufferMS float64
}

func (o *Options) buffer() float64 {
	if o == nil || o.JitterBufferMS <= 0 {
		return DefaultJitterBufferMS
	}
	return o.JitterBufferMS
}

// Stream is what is measured of the RTP from one source to one destination, through all its SSRCs, restarts and
// payload types. It is for one goroutine at a time, keeps nothing of the packets, and takes constant memory.
type Stream struct {
	opt       *Options
	formats   []Format
	encrypted bool
	started   bool
	changed   bool  // former is set
	lastPT    uint8 // of the packet before, whatever it was
	ssrc      uint32
	former    uint32 // SSRC before the last change
	opened    call.Time
	first     call.Time // arrival of the first packet
	last      call.Time // of the last one
	marked    call.Time // end of the last interval
	roundTrip float64   // ms, 0 when not known

	payload payload // of the packets that pass now
	sound   payload // the last one that was audio
	waiting waiting
	run     sequence
	clock   clock
	dtmf    dtmf
	remote  *call.RemoteQuality

	whole, mark totals // since the beginning; as they were at the last interval report
	life, now   peaks  // of the whole life, of the interval
}

// totals only grow: an interval is a difference of two.
type totals struct {
	packets, bytes, duplicates, reordered, late, restarts uint64
	expected                                              uint64 // of the runs before this one
	jitterSum                                             float64
	jitterCount                                           uint64
	bursts                                                bursts
	level                                                 level
}

// peaks cannot be had as differences.
type peaks struct {
	jitter float64 // ms, largest
	gap    call.Time
	types  types
	odd    uint32 // packets whose payload type was not agreed when they came
}

// waiting is a packet that does not fit the run of sequence numbers. A second one that fits it begins a new run
// (RFC 3550, A.1: two in a row make a restart); else it was a stray.
type waiting struct {
	header header // without its payload
	at     call.Time
	size   int
	copies uint64
	set    bool
}

// Event is something in a packet that the owner of the stream may want to tell. See Stream.RTP.
type Event struct {
	Digits []Digit // that ended here

	Source bool // first packet of the stream, or of a new SSRC
	SSRC   uint32

	Payload     bool   // the audio's payload type is the first, or another than before
	PayloadType uint8  // now, with Payload
	Codec       string // "" when neither the SDP nor RFC 3551 knows it
	ClockRate   int    // Hz, 0 when not known
	Agreed      bool   // the SDP names it
}

// New begins a stream at opened (when it was agreed, or its first packet's arrival). The options are shared.
func New(o *Options, opened call.Time) *Stream {
	return &Stream{opt: o, opened: opened, marked: opened}
}

// Negotiate sets what an offer and answer agreed for this direction: formats in order of preference, shared and never
// changed afterwards, and whether the media is encrypted (SRTP): then only headers are read. The statistics go on.
func (s *Stream) Negotiate(formats []Format, encrypted bool) {
	s.formats, s.encrypted = formats, encrypted
	s.payload.defined = false
	if s.sound.defined && s.sound != resolve(formats, s.sound.number) {
		s.sound.defined = false // the same number means something else now: the next packet says so
	}
}

// RTP takes the bytes of one packet, which arrived at at. It returns nil for most packets; an event is its caller's.
// Errors wrap ErrNotRTP; such bytes change nothing.
func (s *Stream) RTP(at call.Time, packet []byte) (*Event, error) {
	var h header
	if err := h.parse(packet, s.encrypted); err != nil {
		return nil, err
	}
	var ev *Event
	switch {
	case !s.started:
		ev = s.begin(at, &h, len(packet))
	case h.ssrc != s.ssrc:
		return s.stray(at, &h, len(packet)), nil
	default:
		p, back := s.run.place(h.seq)
		if p == jump && !s.outage(at, &h) {
			return s.stray(at, &h, len(packet)), nil
		}
		if p == jump {
			p = ahead
		}
		s.arrived(at)
		ev = s.take(at, &h, len(packet), p, back, nil)
	}
	return ev, nil
}

// begin takes a stream's very first packet.
func (s *Stream) begin(at call.Time, h *header, size int) *Event {
	s.started, s.first, s.last, s.ssrc = true, at, at, h.ssrc
	s.run.start(h.seq)
	return s.take(at, h, size, ahead, 0, &Event{Source: true, SSRC: h.ssrc})
}

// arrived measures the time between packets.
func (s *Stream) arrived(at call.Time) {
	if gap := at - s.last; gap > s.now.gap {
		s.now.gap = gap
	}
	s.last = max(s.last, at)
}

// outage says that a large step forward is what a network that was away leaves: numbers and timestamps went on at the
// pace of time. RFC 3550 would call it a restart.
func (s *Stream) outage(at call.Time, h *header) bool {
	d, c := h.seq-uint16(s.run.max), &s.clock
	ptime := c.ptime()
	if d >= 1<<15 || !c.set || ptime == 0 || c.rate != s.payload.rate || h.pt != s.payload.number {
		return false
	}
	away := float64(at-c.at) / float64(call.Millisecond)
	return within(float64(d)*ptime, away) && within(float64(h.ts-c.ts)*1000/float64(c.rate), away)
}

// within says that a is b, to a tenth.
func within(a, b float64) bool { return a > 0.9*b && a < 1.1*b }

// stray takes a packet that fits no run: it waits for a second one.
func (s *Stream) stray(at call.Time, h *header, size int) *Event {
	w := &s.waiting
	if w.set && w.header.ssrc == h.ssrc && h.seq == w.header.seq {
		w.copies++
		return nil
	}
	near := h.seq - w.header.seq
	if !w.set || w.header.ssrc != h.ssrc || (near > maxMisorder && near < 1<<16-maxMisorder) {
		*w = waiting{header: *h, at: at, size: size, set: true}
		w.header.payload = nil
		return nil
	}
	return s.restart(at, h, size)
}

// restart begins a new run with the packet that waited and the one that confirms it.
func (s *Stream) restart(at call.Time, h *header, size int) *Event {
	w := s.waiting
	s.waiting = waiting{}
	s.run.flush(&s.whole.bursts)
	s.whole.expected += s.run.expected()
	s.whole.restarts++
	ev := &Event{SSRC: h.ssrc}
	if h.ssrc != s.ssrc {
		s.former, s.ssrc, s.changed, ev.Source = s.ssrc, h.ssrc, true, true
		s.dtmf.known = false
	}
	s.clock.set = false
	s.run.start(w.header.seq)
	s.arrived(w.at)
	ev = s.take(w.at, &w.header, w.size, ahead, 0, ev)
	s.whole.duplicates += w.copies
	s.arrived(at)
	p, back := s.run.place(h.seq)
	return s.take(at, h, size, p, back, ev)
}

// take counts a packet that belongs to the run. The first of a run is in it already.
func (s *Stream) take(at call.Time, h *header, size int, p place, back uint, ev *Event) *Event {
	follows := h.seq == uint16(s.run.max)+1
	if p == ahead && h.seq != uint16(s.run.max) {
		s.run.advance(h.seq, &s.whole.bursts)
	}
	if h.pt != s.payload.number || !s.payload.defined {
		ev = s.change(h.pt, p, ev)
	}
	compared := s.clock.set
	regular, late := s.time(at, h, p, follows)
	if compared {
		s.average(regular)
	}
	if late {
		s.whole.late++
		s.run.late |= 1 << back // no effect beyond the window
	}
	s.lastPT = h.pt
	if p == duplicate {
		s.whole.duplicates++
		return ev
	}
	if p == behind {
		s.whole.reordered++
		s.run.fill(back)
	}
	s.whole.packets++
	s.whole.bytes += uint64(size)
	s.now.types.count(h.pt)
	if !s.payload.agreed && len(s.formats) > 0 {
		s.now.odd++
	}
	if !s.encrypted {
		ev = s.look(at, h, p, ev)
	}
	return ev
}

// change looks up another payload type. Audio's is an event, unless an old packet came late.
func (s *Stream) change(pt uint8, p place, ev *Event) *Event {
	s.payload = resolve(s.formats, pt)
	if s.payload.kind != audio || p != ahead || (s.sound.defined && s.sound.number == pt) {
		return ev
	}
	s.sound = s.payload
	if ev == nil {
		ev = &Event{SSRC: s.ssrc}
	}
	ev.Payload, ev.PayloadType, ev.Codec = true, pt, s.payload.codec
	ev.ClockRate, ev.Agreed = int(s.payload.rate), s.payload.agreed
	return ev
}

// time measures jitter and lateness of a packet that is no event (RFC 3550, A.8; see the package's text). It says
// whether the packet counts in the jitter's mean, and whether it came too late for the jitter buffer.
func (s *Stream) time(at call.Time, h *header, p place, follows bool) (regular, late bool) {
	c, pl := &s.clock, &s.payload
	if pl.rate == 0 || pl.kind == telephoneEvent {
		return false, false
	}
	d, ok := c.diff(at, h, pl)
	if !ok {
		if p == ahead {
			c.restart(at, h, pl)
		}
		return false, false
	}
	c.jitter += (max(d, -d) - c.jitter) / 16
	regular = !h.marker && pl.kind == audio && !comfort(s.lastPT)
	if regular && follows && h.seq == c.seq+1 {
		c.vote(uint64(float64(h.ts-c.ts)*pl.tick*1000 + 0.5))
	}
	transit := c.transit + d
	c.refer(at, h, pl, transit)
	return regular, p != duplicate && c.follow(transit) > s.opt.buffer()
}

// average takes the jitter after a packet into its mean. Packets that say nothing of it (talkspurts' first, comfort
// noise and what follows it, events) take part as if they had the mean, as in Wireshark.
func (s *Stream) average(regular bool) {
	w := &s.whole
	switch {
	case regular:
		w.jitterSum += s.clock.jitter
		s.now.jitter = max(s.now.jitter, s.clock.jitter)
	case w.jitterCount > 0:
		w.jitterSum += w.jitterSum / float64(w.jitterCount)
	}
	w.jitterCount++
}

// comfort tells the two static numbers of comfort noise.
func comfort(pt uint8) bool { return pt == 13 || pt == 19 }

// look reads what a packet carries.
func (s *Stream) look(at call.Time, h *header, p place, ev *Event) *Event {
	if s.payload.law != noLaw {
		s.whole.level.measure(h.payload, s.payload.law)
	}
	if s.payload.kind != telephoneEvent && !s.dtmf.open {
		return ev
	}
	var out []Digit
	if s.payload.kind == telephoneEvent {
		out = s.dtmf.packet(at, h, s.payload.rate, p == ahead, nil)
	} else {
		out = s.dtmf.expire(at, nil)
	}
	if len(out) == 0 {
		return ev
	}
	if ev == nil {
		ev = &Event{SSRC: s.ssrc}
	}
	ev.Digits = append(ev.Digits, out...)
	return ev
}

// Expire returns the digit whose packets stopped without an end, when now is late enough to say so; at the stream's
// end, with final, at once.
func (s *Stream) Expire(now call.Time, final bool) []Digit {
	if final {
		return s.dtmf.finish(nil)
	}
	return s.dtmf.expire(now, nil)
}

// Packets is how many packets came so far, without duplicates.
func (s *Stream) Packets() uint64 { return s.whole.packets }

// First and Last are when the first and the last packet came; 0 when none did.
func (s *Stream) First() call.Time { return s.first }

// Last is when the last packet came.
func (s *Stream) Last() call.Time { return s.last }

// SSRC is the stream's now, and whether there is one yet.
func (s *Stream) SSRC() (uint32, bool) { return s.ssrc, s.started }

// SetRoundTrip tells the round trip between the two ends, in ms, for the MOS. See RoundTrip.
func (s *Stream) SetRoundTrip(ms float64) {
	if ms >= 0 && ms < 1e5 {
		s.roundTrip = ms
	}
}
