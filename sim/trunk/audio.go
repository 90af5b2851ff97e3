package trunk

import "math"

// codec is a G.711 payload type (RFC 3551, 6).
type codec uint8

const (
	pcmu codec = 0
	pcma codec = 8
)

func (c codec) String() string {
	if c == pcma {
		return "PCMA"
	}
	return "PCMU"
}

// other is the one that was not agreed.
func (c codec) other() codec { return pcmu + pcma - c }

// sound is what a stream carries.
type sound uint8

const (
	speech   sound = iota // bursts of voiced sound with pauses
	music                 // two tones, for a caller on hold
	ringback              // 440 and 480 Hz, two seconds of six
	silence
	clipped // speech far too loud
	soundsNumber
)

const (
	sampleRate = 8000
	frameSize  = sampleRate / 50 // samples, and bytes, of 20 ms
	loopFrames = 300             // of a sound before it repeats: 6 s
)

// tables are the encoded sounds, by sound and whether it is A-law.
type tables [soundsNumber][2][]byte

// newTables computes six seconds of each sound.
func newTables() *tables {
	var t tables
	for s := range soundsNumber {
		n := loopFrames * frameSize
		mu, a := make([]byte, n), make([]byte, n)
		for i := range n {
			v := sample(s, i)
			mu[i], a[i] = muLaw(v), aLaw(v)
		}
		t[s] = [2][]byte{mu, a}
	}
	return &t
}

// frame is the payload of a stream's nth packet.
func (t *tables) frame(s sound, c codec, n int) []byte {
	law := 0
	if c == pcma {
		law = 1
	}
	at := n % loopFrames * frameSize
	return t[s][law][at : at+frameSize]
}

// sample is the ith sample of a sound, as 16-bit linear PCM.
func sample(s sound, i int) int {
	sec := float64(i) / sampleRate
	switch s {
	case music:
		return int(5000*sine(523.25, sec) + 4000*sine(659.25, sec))
	case ringback:
		if sec >= 2 {
			return 0
		}
		return int(3000*sine(440, sec) + 3000*sine(480, sec))
	case silence:
		return 0
	case clipped:
		return max(-32767, min(32767, 12*voice(sec)))
	}
	return voice(sec)
}

func sine(hz, sec float64) float64 { return math.Sin(2 * math.Pi * hz * sec) }

// voice is something like speech: syllables of a 140 Hz voice with two formants, two seconds of every three.
func voice(sec float64) int {
	if math.Mod(sec, 3) >= 2 {
		return 0
	}
	syllable := math.Abs(sine(2.5, sec))
	v := 0.5*sine(140, sec) + 0.3*sine(700, sec) + 0.2*sine(1220, sec)
	return int(9000 * syllable * v)
}

// muLaw encodes a 16-bit sample (ITU-T G.711, table 2).
func muLaw(v int) byte {
	sign := byte(0)
	if v < 0 {
		sign, v = 0x80, -v
	}
	v = min(v, 32635) + 132
	seg := 0
	for v>>(seg+8) > 0 {
		seg++
	}
	return ^(sign | byte(seg<<4) | byte(v>>(seg+3)&15))
}

// aLaw encodes a 16-bit sample (ITU-T G.711, table 1).
func aLaw(v int) byte {
	sign := byte(0x80)
	if v < 0 {
		sign, v = 0, -v-1
	}
	v = min(v, 32767)
	seg := 0
	for v>>(seg+8) > 0 {
		seg++
	}
	low := v >> 4 & 15
	if seg > 0 {
		low = v >> (seg + 3) & 15
	}
	return (sign | byte(seg<<4) | byte(low)) ^ 0x55
}
