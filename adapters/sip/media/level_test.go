package media

import (
	"math"
	"testing"
)

// The digital milliwatt of ITU-T G.711, tables 5 and 6: a 1 kHz tone of 0 dBm0, in both laws.
var (
	muMilliwatt = []byte{0x1e, 0x0b, 0x0b, 0x1e, 0x9e, 0x8b, 0x8b, 0x9e}
	aMilliwatt  = []byte{0x34, 0x21, 0x21, 0x34, 0xb4, 0xa1, 0xa1, 0xb4}
)

func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, b...)
	}
	return out[:n]
}

func TestMilliwatt(t *testing.T) {
	for _, c := range []struct {
		name string
		tone []byte
		pt   uint8
	}{{"µ-law", muMilliwatt, 0}, {"A-law", aMilliwatt, 8}} {
		s := newSender(t)
		s.pt, s.audio = c.pt, repeat(c.tone, 160)
		s.send(50)
		q := s.final()
		if math.Abs(*q.LevelDBM0) > 0.1 || *q.SilencePercent != 0 || *q.ClippingPercent != 0 {
			t.Errorf("%s: level %v, silence %v, clipping %v", c.name, *q.LevelDBM0, *q.SilencePercent, *q.ClippingPercent)
		}
	}
}

// The two laws' decoders agree with the values of G.711: the largest, the smallest, and every sign.
func TestDecoders(t *testing.T) {
	for _, c := range []struct {
		got, want int
	}{
		{muLinear(0x80), 32124}, {muLinear(0x00), -32124}, {muLinear(0xff), 0}, {muLinear(0x7f), 0}, {muLinear(0xfe), 8},
		{aLinear(0xaa), 32256}, {aLinear(0x2a), -32256}, {aLinear(0xd5), 8}, {aLinear(0x55), -8},
	} {
		if c.got != c.want {
			t.Errorf("%d, want %d", c.got, c.want)
		}
	}
	for i := range 128 {
		if muLinear(byte(i)) != -muLinear(byte(i|0x80)) || aLinear(byte(i)) != -aLinear(byte(i|0x80)) {
			t.Errorf("code %x is not symmetrical", i)
		}
	}
}

// encode makes µ-law of a tone by choosing the nearest code.
func encode(amplitude float64, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		want, best := amplitude*math.Sin(2*math.Pi*float64(i)*1004/8000), math.Inf(1)
		for c := range 256 {
			if d := math.Abs(float64(muLinear(byte(c))) - want); d < best {
				best, out[i] = d, byte(c)
			}
		}
	}
	return out
}

func TestLevels(t *testing.T) {
	zero := math.Sqrt(2 * muZero)
	for _, dbm := range []float64{3, 0, -10, -20, -30, -45} {
		s := newSender(t)
		s.audio = encode(zero*math.Pow(10, dbm/20), 160)
		s.send(10)
		if got := *s.final().LevelDBM0; math.Abs(got-dbm) > 0.3 {
			t.Errorf("%v dBm0 measured as %v", dbm, got)
		}
	}
}

func TestSilenceAndClipping(t *testing.T) {
	s := newSender(t)
	s.audio = repeat([]byte{0xff}, 160)
	s.send(30)
	s.audio = encode(math.Sqrt(2*muZero)*math.Pow(10, -60.0/20), 160)
	s.send(30)
	s.audio = repeat(muMilliwatt, 160)
	s.send(20)
	s.audio = repeat([]byte{0x80, 0x80, 0xff, 0xff, 0x00, 0x00, 0xff, 0xff}, 160)
	s.send(20)
	q := s.final()
	if *q.SilencePercent != 60 || *q.ClippingPercent != 10 {
		t.Errorf("silence %v, clipping %v", *q.SilencePercent, *q.ClippingPercent)
	}
	s = newSender(t)
	s.audio = repeat([]byte{0xff}, 160)
	s.send(30)
	if q := s.final(); *q.SilencePercent != 100 || q.LevelDBM0 != nil {
		t.Errorf("silence %v, level %v", *q.SilencePercent, q.LevelDBM0)
	}
	s.pt = 9
	s.stream.Report(s.at, false)
	s.send(30)
	if q := s.stream.Report(s.at, false); q.SilencePercent != nil {
		t.Error("G.722 has silence")
	}
}
