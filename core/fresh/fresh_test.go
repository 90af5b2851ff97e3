package fresh

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	msec = call.Millisecond
	sec  = call.Second
	// noon is a moment that is not on a whole millisecond, so that clock answers near it count as fine.
	noon = call.Time(1_790_000_000_000_123)
)

// exact is a sample with a round trip of 2 ms taken at `at`, from a clock that is ahead by offset.
func exact(at, offset call.Time) core.ClockSample {
	return core.ClockSample{Sent: at - msec, Answered: at + msec, Switch: at + offset}
}

func measured(t *testing.T, offset call.Time) *Judge {
	t.Helper()
	j := New(Options{})
	if _, changed, err := j.Sample("pbx", exact(noon, offset)); err != nil || !changed {
		t.Fatalf("first sample: changed %v, err %v", changed, err)
	}
	return j
}

func event(switchTime, received call.Time) *call.Event {
	return &call.Event{Type: call.ConnectionAlerting, Switch: call.SwitchRef{ID: "pbx"},
		Time: call.EventTime{Switch: switchTime, Received: received}}
}

func TestVerdictsByAge(t *testing.T) {
	for _, tc := range []struct {
		name        string
		offset, age call.Time
		want        call.Freshness
	}{
		{"just now", 0, 0, call.Fresh},
		{"at the fresh limit", 0, sec, call.Fresh},
		{"past the fresh limit", 0, sec + 1, call.Late},
		{"at the late limit", 0, 10 * sec, call.Late},
		{"past the late limit", 0, 10*sec + 1, call.Stale},
		{"ahead within slack", 0, -250 * msec, call.Fresh},
		{"ahead beyond slack", 0, -252 * msec, call.Future},
		{"switch an hour ahead, just now", 3600 * sec, 0, call.Fresh},
		{"switch an hour ahead, past the limit", 3600 * sec, 2 * sec, call.Late},
		{"switch an hour behind, just now", -3600 * sec, 0, call.Fresh},
		{"switch an hour behind, ahead", -3600 * sec, -sec, call.Future},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := measured(t, tc.offset)
			e := event(noon+tc.offset-tc.age, noon)
			j.Stamp(e)
			if e.Time.Freshness != tc.want || e.Time.AgeMS != ms(tc.age) || e.Time.OffsetMS != ms(tc.offset) {
				t.Errorf("got %+v, want %s at age %v ms", e.Time, tc.want, ms(tc.age))
			}
			if e.Time.Switch != noon+tc.offset-tc.age || e.Time.Received != noon {
				t.Errorf("published times were rewritten: %+v", e.Time)
			}
		})
	}
}

func TestUnknownClock(t *testing.T) {
	j := New(Options{})
	e := event(noon-100*sec, noon)
	j.Stamp(e)
	if e.Time.Freshness != call.FreshnessUnknown || e.Time.UncertaintyMS != UnmeasuredMS || e.Time.AgeMS != 100_000 {
		t.Errorf("never measured: %+v", e.Time)
	}
	if _, known := j.Clock("pbx"); known {
		t.Error("a clock is known without a sample")
	}
	_, _, err := j.Sample("pbx", core.ClockSample{Sent: noon, Answered: noon + 3*sec, Switch: noon + sec})
	if err != nil {
		t.Fatal(err)
	}
	j.Stamp(e)
	if e.Time.Freshness != call.FreshnessUnknown || e.Time.UncertaintyMS < 1500 {
		t.Errorf("a round trip of 3 s leaves more than 1 s of doubt: %+v", e.Time)
	}
	e = event(0, noon)
	measured(t, 0).Stamp(e)
	if e.Time.Freshness != call.FreshnessUnknown || e.Time.AgeMS != 0 {
		t.Errorf("no switch time: %+v", e.Time)
	}
}

func TestAfterItsCallEnded(t *testing.T) {
	j := measured(t, 0)
	ended := &call.Call{State: call.StateEnded}
	for _, tc := range []struct {
		name  string
		typ   call.EventType
		call  *call.Call
		flags []string
		want  call.Freshness
	}{
		{"late after end", call.ConnectionCleared, ended, []string{call.FlagLate}, call.Stale},
		{"the end itself", call.CallEnded, ended, []string{call.FlagLate}, call.Fresh},
		{"the record", call.CallRecord, ended, []string{call.FlagLate}, call.Fresh},
		{"last before the end", call.ConnectionCleared, ended, nil, call.Fresh},
		{"late for its leg only", call.ConnectionCleared, &call.Call{State: call.StateActive}, []string{call.FlagLate}, call.Fresh},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := event(noon, noon)
			e.Type, e.Call, e.Flags = tc.typ, tc.call, tc.flags
			j.Stamp(e)
			if e.Time.Freshness != tc.want {
				t.Errorf("got %s, want %s", e.Time.Freshness, tc.want)
			}
		})
	}
}

func TestSourceEventsAreFresh(t *testing.T) {
	e := &call.Event{Type: call.SourceDown, Source: &call.Source{}, Time: call.EventTime{Received: noon}}
	New(Options{}).Stamp(e)
	if e.Time.Freshness != call.Fresh || e.Time.AgeMS != 0 {
		t.Errorf("got %+v", e.Time)
	}
}

func TestPerTypeThresholds(t *testing.T) {
	j := New(Options{
		Thresholds: Thresholds{FreshFor: 2 * time.Second},
		PerType:    map[call.EventType]Thresholds{call.AgentOffered: {FreshFor: 100 * time.Millisecond, LateFor: 200 * time.Millisecond}},
	})
	if _, _, err := j.Sample("pbx", exact(noon, 0)); err != nil {
		t.Fatal(err)
	}
	offered, alerting := event(noon-1500*msec, noon), event(noon-1500*msec, noon)
	offered.Type = call.AgentOffered
	j.Stamp(offered)
	j.Stamp(alerting)
	if offered.Time.Freshness != call.Stale || alerting.Time.Freshness != call.Fresh {
		t.Errorf("offered %s, alerting %s", offered.Time.Freshness, alerting.Time.Freshness)
	}
}

func TestMostCertainSampleCounts(t *testing.T) {
	j := measured(t, 100*msec)
	slow := core.ClockSample{Sent: noon + sec, Answered: noon + sec + 400*msec, Switch: noon + sec + 390*msec + 100*msec}
	c, changed, err := j.Sample("pbx", slow)
	if err != nil || changed || c.OffsetMS != 100 {
		t.Errorf("a slow answer moved the estimate: %+v changed %v err %v", c, changed, err)
	}
}

func TestOldSampleLosesToNewer(t *testing.T) {
	j := measured(t, 0)
	// A day later the first sample is uncertain by 4.3 s at 50 ppm.
	later := noon + 86_400*sec
	c, changed, _ := j.Sample("pbx", core.ClockSample{Sent: later, Answered: later + 20*msec, Switch: later + 2*sec + 10*msec})
	if !changed || c.OffsetMS != 2000 || c.StepMS != 0 {
		t.Errorf("drift: %+v changed %v", c, changed)
	}
}

func TestStep(t *testing.T) {
	j := measured(t, 0)
	c, changed, _ := j.Sample("pbx", exact(noon+10*sec, -5*sec))
	if !changed || c.StepMS != -5000 || c.OffsetMS != -5000 || c.First {
		t.Fatalf("step back: %+v changed %v", c, changed)
	}
	if c, changed, _ = j.Sample("pbx", exact(noon+20*sec, -5*sec)); changed {
		t.Errorf("the same offset again is news: %+v", c)
	}
	if c, changed, _ = j.Sample("pbx", exact(noon+30*sec, -5*sec+20*msec)); changed || c.StepMS != 0 {
		t.Errorf("20 ms is a step: %+v", c)
	}
}

func TestImpossibleSamples(t *testing.T) {
	j := New(Options{})
	for _, s := range []core.ClockSample{{}, {Sent: noon, Answered: noon - 1, Switch: noon}, {Sent: noon, Answered: noon}} {
		if _, changed, err := j.Sample("pbx", s); err == nil || changed {
			t.Errorf("%+v was taken", s)
		}
	}
}

func TestAdoptKeepsClocks(t *testing.T) {
	j := New(Options{})
	j.Adopt(measured(t, 7*msec))
	if r, known := j.Clock("pbx"); !known || r.OffsetMS != 7 {
		t.Errorf("got %+v, %v", r, known)
	}
}

// TestTruthStaysInside feeds samples from a drifting clock over a jittery path: the true offset is never outside what
// the Judge claims.
func TestTruthStaysInside(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	j := New(Options{})
	for i := range call.Time(500) {
		now := noon + i*15*sec
		truth := 3*sec + i*15*30 // 30 ppm
		there, back := call.Time(rnd.IntN(50_000)), call.Time(rnd.IntN(50_000))
		c, _, err := j.Sample("pbx", core.ClockSample{Sent: now, Answered: now + there + back, Switch: now + there + truth})
		if err != nil || c.StepMS != 0 {
			t.Fatalf("sample %d: %+v, %v", i, c, err)
		}
		if diff := c.OffsetMS - ms(truth); diff > c.UncertaintyMS || -diff > c.UncertaintyMS {
			t.Fatalf("sample %d: off by %v ms, claimed ±%v ms", i, diff, c.UncertaintyMS)
		}
	}
}

func TestValidate(t *testing.T) {
	if errs := (Options{}).Validate(); len(errs) != 0 {
		t.Errorf("defaults: %v", errs)
	}
	bad := Options{Thresholds: Thresholds{FreshFor: -1}, PerType: map[call.EventType]Thresholds{
		call.AgentOffered: {FreshFor: time.Minute, LateFor: time.Second}}}
	errs := bad.Validate()
	if len(errs) != 2 || !strings.HasPrefix(errs[0].Error(), "thresholds.fresh: ") ||
		!strings.HasPrefix(errs[1].Error(), "per_type.agent.offered.late: ") {
		t.Errorf("got %v", errs)
	}
}

func BenchmarkStamp(b *testing.B) {
	j := New(Options{})
	if _, _, err := j.Sample("pbx", exact(noon, 0)); err != nil {
		b.Fatal(err)
	}
	e := event(noon-msec, noon)
	for b.Loop() {
		j.Stamp(e)
	}
}
