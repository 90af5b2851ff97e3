package fresh

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// TestRestartKeepsTheClocks restarts a Judge before every sample: changes, verdicts and ages are as without.
func TestRestartKeepsTheClocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	whole, cut := New(Options{}), New(Options{})
	for i := range call.Time(200) {
		again := New(Options{})
		if err := again.Restore(cut.AppendState(nil)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.AppendState(nil), cut.AppendState(nil)) {
			t.Fatal("the same state is written in two ways")
		}
		cut = again
		id, now := []string{"pbx", "other"}[rnd.IntN(2)], noon+i*15*sec
		rtt := call.Time(rnd.IntN(50_000))
		s := core.ClockSample{Sent: now, Answered: now + rtt, Switch: now + rtt/3 + call.Time(rnd.IntN(3))*sec/4}
		want, wantNews, _ := whole.Sample(id, s)
		got, gotNews, _ := cut.Sample(id, s)
		if got != want || gotNews != wantNews {
			t.Fatalf("sample %d: %+v %v, want %+v %v", i, got, gotNews, want, wantNews)
		}
		a, b := event(now, now+sec), event(now, now+sec)
		whole.Stamp(a)
		cut.Stamp(b)
		if a.Time != b.Time {
			t.Fatalf("sample %d: %+v, want %+v", i, b.Time, a.Time)
		}
	}
}

func TestDamagedClocks(t *testing.T) {
	state := measured(t, 7*msec).AppendState(nil)
	j := measured(t, 9*msec)
	for n := range state {
		if err := j.Restore(state[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are taken for whole", n, len(state))
		}
	}
	if r, _ := j.Clock("pbx"); r.OffsetMS != 9 {
		t.Errorf("what was known is lost: %+v", r)
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte{})
	j := New(Options{})
	if _, _, err := j.Sample("pbx", exact(noon, sec)); err != nil {
		f.Fatal(err)
	}
	f.Add(j.AppendState(nil))
	f.Fuzz(func(t *testing.T, state []byte) {
		j := New(Options{})
		if j.Restore(state) == nil {
			_, _, _ = j.Sample("pbx", exact(noon, 0))
			j.Stamp(event(noon, noon))
		}
	})
}
