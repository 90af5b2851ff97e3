package media

// Limits of RFC 3550, A.1.
const (
	maxDropout  = 3000 // a larger step forward is a restart
	maxMisorder = 100  // a larger step back is a restart
)

// windowSize is how many of the latest sequence numbers are remembered: duplicates are told within it, and what is
// missing when it moves on counts as lost in bursts and gaps.
const windowSize = 64

// place is where a packet falls in its sequence.
type place uint8

const (
	ahead     place = iota // the highest so far
	behind                 // came after a later one
	duplicate              // was there before
	jump                   // too far away to belong to this run of numbers
)

// sequence is one run of sequence numbers: from a stream's start, a restart or a new SSRC to the next.
type sequence struct {
	base uint64 // first, extended
	max  uint64 // highest, extended
	seen uint64 // bit i: max-i was received; bits before base are set
	late uint64 // bit i: max-i came too late for the jitter buffer
}

// start begins a run at seq. The cycle before is kept free for packets that came too early to be the first.
func (s *sequence) start(seq uint16) {
	*s = sequence{base: 1<<16 | uint64(seq), max: 1<<16 | uint64(seq), seen: ^uint64(0)}
}

// expected is RFC 3550, A.3.
func (s *sequence) expected() uint64 { return s.max - s.base + 1 }

// place says where seq falls without taking it.
func (s *sequence) place(seq uint16) (p place, back uint) {
	switch d := seq - uint16(s.max); {
	case d == 0:
		return duplicate, 0
	case d < maxDropout:
		return ahead, 0
	case d > 1<<16-maxMisorder-1:
		return s.older(uint(1<<16 - int(d)))
	}
	return jump, 0
}

func (s *sequence) older(back uint) (place, uint) {
	known := back < windowSize && uint64(back) <= s.max-s.base
	if known && s.seen>>back&1 != 0 {
		return duplicate, back
	}
	return behind, back
}

// fill takes a packet that came back packets behind the highest.
func (s *sequence) fill(back uint) {
	if back < windowSize {
		s.seen |= 1 << back
	}
}

// advance takes the packet seq, which is ahead, and hands what leaves the window to b.
func (s *sequence) advance(seq uint16, b *bursts) {
	d := uint64(seq - uint16(s.max))
	s.shift(d, b)
	s.max += d
	s.seen |= 1
}

// shift moves the window by d.
func (s *sequence) shift(d uint64, b *bursts) {
	held := min(s.expected(), windowSize)
	if d == 1 { // the ordinary case
		if held == windowSize {
			s.settle(windowSize-1, b)
		}
		s.seen, s.late = s.seen<<1, s.late<<1
		return
	}
	keep := uint64(0)
	if d < windowSize {
		keep = windowSize - d
	}
	for i := held; i > keep; i-- {
		s.settle(i-1, b)
	}
	if d > windowSize { // lost before they could enter the window
		b.lose(d - windowSize)
		d = windowSize
	}
	s.seen, s.late = s.seen<<d, s.late<<d
}

// settle hands the packet at bit i to b.
func (s *sequence) settle(i uint64, b *bursts) {
	if s.seen>>i&1 != 0 && s.late>>i&1 == 0 {
		b.received(1)
	} else {
		b.lose(1)
	}
}

// flush hands all that the window holds to b; the run takes no more packets.
func (s *sequence) flush(b *bursts) {
	for i := min(s.expected(), windowSize); i > 0; i-- {
		s.settle(i-1, b)
	}
}
