package call

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
)

// populate makes n answered calls of two parties.
func populate(n int) (*Tracker, []Observation) {
	t := NewTracker(Options{})
	now := 1_700_000_000 * Second
	var next []Observation
	apply := func(o Observation) {
		now += Millisecond
		o.At, o.Received, o.Native = now, now, Native{Type: "t", ID: strconv.Itoa(int(now))}
		t.Apply(testSwitch, o)
	}
	for i := range n {
		a, b := "1795352070."+strconv.Itoa(2*i), "1795352070."+strconv.Itoa(2*i+1)
		o := caller(a, "+1415555"+strconv.Itoa(i), "1000")
		o.SIPCallID = fmt.Sprintf("%016x@example", i)
		apply(o)
		apply(agentLeg(b, a, "agent"+strconv.Itoa(i%100)))
		for _, k := range []Kind{LegAlerting, LegConnected} {
			apply(is(k, b))
		}
		apply(is(LegConnected, a))
		apply(Observation{Kind: LegMedia, Leg: a, Value: "PCMU", Count: 8000})
		apply(Observation{Kind: LegMedia, Leg: b, Value: "PCMU", Count: 8000})
		apply(Observation{Kind: LegBridged, Leg: a, Bridge: "br" + a})
		apply(Observation{Kind: LegBridged, Leg: b, Bridge: "br" + a})
		next = append(next, is(LegHeld, b), is(LegRetrieved, b))
	}
	return t, next
}

// BenchmarkActive measures an event's cost, and the heap of a call, with few and with many calls in progress.
func BenchmarkActive(b *testing.B) {
	for _, n := range []int{100, 50_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			t, next := populate(n)
			runtime.GC()
			runtime.ReadMemStats(&after)
			heap := float64(after.HeapAlloc-before.HeapAlloc) - float64(cap(next)*448)
			now := 1_800_000_000 * Second
			var i int
			for b.Loop() {
				o := next[i%len(next)]
				now += Millisecond
				o.At, o.Received, o.Native = now, now, Native{Type: "t", Seq: uint64(i) + 1}
				if len(t.Apply(testSwitch, o)) != 1 {
					b.Fatal("no event")
				}
				i++
			}
			b.ReportMetric(heap/float64(n), "heap-B/call")
			runtime.KeepAlive(t)
		})
	}
}

// BenchmarkState measures saving and restoring 10,000 calls in progress and 20,000 that have ended.
func BenchmarkState(b *testing.B) {
	t, _ := populate(30_000)
	now := t.now
	t.opt.SaveEnded = 20_000
	for i := range 20_000 {
		for _, leg := range [...]int{2*i + 1, 2 * i} {
			o := cleared("1795352070."+strconv.Itoa(leg), 16)
			now += Millisecond
			o.At, o.Received = now, now
			t.Apply(testSwitch, o)
		}
	}
	if t.Active() != 10_000 || len(t.ended) != 20_000 {
		b.Fatal(t.Active(), len(t.ended))
	}
	state := t.AppendState(nil)
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			state = t.AppendState(state[:0])
		}
		b.ReportMetric(float64(len(state)), "B")
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if _, err := RestoreTracker(t.opt, state); err != nil {
				b.Fatal(err)
			}
		}
	})
}
