package media

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// pattern feeds received (.) and lost (x) packets.
func pattern(p string) *bursts {
	var b bursts
	for _, c := range p {
		if c == 'x' {
			b.lose(1)
		} else {
			b.received(1)
		}
	}
	return &b
}

func TestBursts(t *testing.T) {
	gap := strings.Repeat(".", 16)
	for _, c := range []struct {
		name, pattern                                 string
		count, burstPackets, burstLost, gaps, gapLost uint64
	}{
		{"nothing", "", 0, 0, 0, 0, 0},
		{"no loss", gap, 0, 0, 0, 16, 0},
		{"one isolated", gap + "x" + gap, 0, 0, 0, 33, 1},
		{"isolated at both ends", "x" + gap + "x", 0, 0, 0, 18, 2},
		{"two together", gap + "xx" + gap, 1, 2, 2, 32, 0},
		{"15 between", gap + "x" + gap[1:] + "x" + gap, 1, 17, 2, 32, 0},
		{"16 between", gap + "x" + gap + "x" + gap, 0, 0, 0, 50, 2},
		{"a burst and an isolated one", "x.x.x" + gap + "x" + gap, 1, 5, 3, 33, 1},
		{"two bursts", "xx" + gap + "xxx", 2, 5, 5, 16, 0},
		{"all lost", "xxxx", 1, 4, 4, 0, 0},
		{"open at the end", gap + "x....x..", 1, 6, 2, 18, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := pattern(c.pattern).since(&bursts{})
			if b.count != c.count || b.burstPackets != c.burstPackets || b.burstLost != c.burstLost ||
				b.gapPackets != c.gaps || b.gapLost != c.gapLost {
				t.Errorf("%+v", b)
			}
		})
	}
}

func TestBurstRatio(t *testing.T) {
	for _, c := range []struct {
		pattern   string
		low, high float64
	}{
		{strings.Repeat(".", 100), 1, 1},
		{strings.Repeat("x.........", 100), 1, 1},                                    // spread more evenly than at random: no better than that
		{strings.Repeat("xx........", 100), 1.59, 1.61},                              // runs of 2; at random 1/(1-0.2)
		{strings.Repeat(strings.Repeat("x", 20)+strings.Repeat(".", 980), 10), 8, 8}, // bounded
	} {
		b := pattern(c.pattern).since(&bursts{})
		if r := b.ratio(); r < c.low || r > c.high {
			t.Errorf("%.20s…: %v", c.pattern, r)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var b bursts
	for range 200_000 {
		if rng.Float64() < 0.05 {
			b.lose(1)
		} else {
			b.received(1)
		}
	}
	b = b.since(&bursts{})
	if r := b.ratio(); r < 1 || r > 1.03 {
		t.Errorf("independent losses: %v", r)
	}
}

// What comes in counts once, whatever the intervals; only a burst that spans two counts in both.
func TestBurstIntervals(t *testing.T) {
	var b bursts
	b.received(20)
	b.lose(2)
	first := b.since(&bursts{})
	mark := b
	b.received(3)
	b.lose(1)
	b.received(20)
	second := b.since(&mark)
	if first.count != 1 || first.gapPackets != 20 || second.count != 1 || second.burstPackets != 6 || second.gapPackets != 20 {
		t.Errorf("%+v\n%+v", first, second)
	}
}

// A stream's bursts are those of its losses: reordered packets are none.
func TestStreamBursts(t *testing.T) {
	s := newSender(t)
	s.send(100)
	s.lose(1)
	s.send(5)
	s.lose(3)
	s.send(40)
	s.put(s.seq+1, s.ts+160, 0)
	s.put(s.seq, s.ts, 0)
	s.next()
	s.next()
	s.lose(1)
	s.send(100)
	q := s.final()
	if q.Bursts != 1 || q.BurstDurationMS != 9*20 || q.BurstDensity < 44 || q.BurstDensity > 45 || q.Lost != 5 {
		t.Errorf("%d bursts of %v ms with %v %%, %d lost", q.Bursts, q.BurstDurationMS, q.BurstDensity, q.Lost)
	}
	if want := float64(q.Expected-9) * 20 / 2; q.GapDurationMS != want || q.GapDensity != round(100/float64(q.Expected-9), 3) {
		t.Errorf("gaps of %v ms with %v %%, want %v", q.GapDurationMS, q.GapDensity, want)
	}
}
