package media

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// byDefinition finds the bursts of a pattern with the whole of it in view.
func byDefinition(lost []bool) (want bursts) {
	var group []int
	settle := func() {
		if len(group) > 1 {
			want.count++
			want.burstLost += uint64(len(group))
			want.burstPackets += uint64(group[len(group)-1] - group[0] + 1)
		} else {
			want.gapLost += uint64(len(group))
		}
		group = nil
	}
	for i, l := range lost {
		if !l {
			continue
		}
		if len(group) > 0 && i-group[len(group)-1]-1 >= gmin {
			settle()
		}
		group = append(group, i)
		want.lost++
		if i == 0 || !lost[i-1] {
			want.runs++
		}
	}
	settle()
	want.gapPackets = uint64(len(lost)) - want.burstPackets
	return want
}

func TestBurstsByDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		lost := make([]bool, rng.IntN(300))
		p := rng.Float64() * rng.Float64()
		var b bursts
		for i := range lost {
			lost[i] = rng.Float64() < p
			if lost[i] {
				b.lose(1)
			} else {
				b.received(1)
			}
		}
		if got, want := b.since(&bursts{}), byDefinition(lost); got != want {
			t.Fatalf("got  %+v\nwant %+v\n%v", got, want, lost)
		}
	}
}

// arrival is a sequence number, counted on beyond 16 bits, and when it comes.
type arrival struct {
	n  int
	at call.Time
}

// disorder makes the arrivals of n packets: some lost, some late, some twice.
func disorder(rng *rand.Rand, n int) []arrival {
	loss, late, twice := rng.Float64()*0.1, rng.Float64()*0.2, rng.Float64()*0.1
	var out []arrival
	for i := range n {
		at := 1e15 + call.Time(i)*20*ms
		switch {
		case i > 0 && i < n-1 && rng.Float64() < loss:
			continue
		case i > 0 && i < n-1 && rng.Float64() < late:
			at += call.Time(rng.IntN(800)) * ms // up to 40 packets
		}
		out = append(out, arrival{i, at})
		if i > 0 && i < n-1 && rng.Float64() < twice {
			out = append(out, arrival{i, at + call.Time(rng.IntN(200))*ms})
		}
	}
	slices.SortStableFunc(out, func(a, b arrival) int { return int(a.at - b.at) })
	return out
}

// A stream counts, in constant memory, what sets of all its packets would.
func TestCountsByDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		n := 2 + rng.IntN(1500)
		start := rng.IntN(1 << 16)
		s := New(&Options{JitterBufferMS: 1e6}, 1e15) // nothing is late
		s.Negotiate(agreed, false)
		seen := map[int]bool{}
		want := counts{}
		highest := -1
		for _, a := range disorder(rng, n) {
			if _, err := s.RTP(a.at, raw(0, false, uint16(start+a.n), uint32(160*a.n), 7, nil)); err != nil {
				t.Fatal(err)
			}
			switch {
			case seen[a.n]:
				want.duplicates++
				continue
			case a.n < highest:
				want.reordered++
			}
			seen[a.n] = true
			want.packets++
			highest = max(highest, a.n)
		}
		lost := make([]bool, highest+1)
		for i := range lost {
			lost[i] = !seen[i]
		}
		want.expected = uint64(highest + 1)
		want.lost = int64(want.expected) - int64(want.packets)
		q := s.Report(0, true)
		if got := countsOf(q); got != want {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		b := byDefinition(lost)
		if q.Bursts != b.count || q.BurstDensity != percent(int64(b.burstLost), b.burstPackets) ||
			q.GapDensity != percent(int64(b.gapLost), b.gapPackets) {
			t.Fatalf("%d bursts, %v and %v %%; want %+v", q.Bursts, q.BurstDensity, q.GapDensity, b)
		}
		sane(t, q)
	}
}
