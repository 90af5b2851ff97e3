package media

import "math"

// block is the length of audio whose level is judged at once: 20 ms of G.711.
const block = 160

// clipUnit is one clipped sample in a table's entry, above the squares: 48 bits hold the squares of 65,536 samples.
const (
	clipUnit   = 1 << 48
	squareMask = clipUnit - 1
)

// Power of a 0 dBm0 tone and of silence (-50 dBm0), per sample of 16-bit linear audio. A tone that just reaches the
// coder's limit has 3.17 dBm0 in µ-law and 3.14 dBm0 in A-law (ITU-T G.711, tables 5 and 6).
var (
	muZero = 32636 * 32636 / 2 / math.Pow(10, 0.317)
	aZero  = 32768 * 32768 / 2 / math.Pow(10, 0.314)
)

const silenceFactor = 1e-5

// The square of each code, and clipUnit for the two codes at the limit.
var (
	muSquares = squares(muLinear, 0x00, 0x80)
	aSquares  = squares(aLinear, 0x2a, 0xaa)
)

func squares(linear func(byte) int, limits ...byte) *[256]uint64 {
	var t [256]uint64
	for i := range t {
		v := linear(byte(i))
		t[i] = uint64(v * v)
	}
	for _, c := range limits {
		t[c] += clipUnit
	}
	return &t
}

// muLinear decodes a µ-law code to 16 bits.
func muLinear(c byte) int {
	c = ^c
	v := (int(c&0x0f)<<3+0x84)<<(c>>4&7) - 0x84
	if c&0x80 != 0 {
		return -v
	}
	return v
}

// aLinear decodes an A-law code to 16 bits.
func aLinear(c byte) int {
	c ^= 0x55
	v, seg := int(c&0x0f)<<4+8, c>>4&7
	if seg > 0 {
		v = (v + 0x100) << (seg - 1)
	}
	if c&0x80 == 0 {
		return -v
	}
	return v
}

// level is what G.711 audio sounds like: counters that only grow.
type level struct {
	samples uint64
	silent  uint64  // samples in silent blocks
	clipped uint64  // samples at full scale
	power   float64 // of the blocks that are not silent: the sum of squares over that of 0 dBm0
}

// measure takes one packet's audio. Longer than any packet's it is cut.
func (l *level) measure(audio []byte, coding law) {
	table, zero := muSquares, muZero
	if coding == aLaw {
		table, zero = aSquares, aZero
	}
	audio = audio[:min(len(audio), 1<<16-1)]
	l.samples += uint64(len(audio))
	for len(audio) > 0 {
		n := min(block, len(audio))
		sum := sumOf(audio[:n], table)
		l.clipped += sum >> 48
		power := float64(sum&squareMask) / zero
		if power < silenceFactor*float64(n) {
			l.silent += uint64(n)
		} else {
			l.power += power
		}
		audio = audio[n:]
	}
}

// sumOf adds up the entries of a block. Four sums go on at once: each waits for nothing but its own table look-ups.
func sumOf(audio []byte, table *[256]uint64) uint64 {
	var a, b, c, d uint64
	for len(audio) >= 4 {
		q := audio[:4]
		a += table[q[0]]
		b += table[q[1]]
		c += table[q[2]]
		d += table[q[3]]
		audio = audio[4:]
	}
	for _, s := range audio {
		a += table[s]
	}
	return a + b + c + d
}

func (l level) since(mark *level) level {
	l.samples -= mark.samples
	l.silent -= mark.silent
	l.clipped -= mark.clipped
	l.power -= mark.power
	return l
}
