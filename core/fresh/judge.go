// Package fresh says how old an event was when it arrived, and whether it may still drive something live such as a
// screen-pop. It measures each switch's clock against ours from the adapters' clock samples, corrects every age by the
// measured offset, and gives a verdict: fresh, late, stale, future or unknown.
//
// The rules, first match first:
//
//  1. source.* events are made by the gateway itself: age 0, fresh.
//  2. An event whose call had already ended when it arrived is stale, whatever its clock says.
//  3. An event without a switch time, or whose switch's clock is not known to within MaxUncertainty, is unknown. A
//     clock that was never measured counts as that: offset_ms 0 and uncertainty_ms UnmeasuredMS.
//  4. An event ahead of us by more than the uncertainty plus FutureSlack is future.
//  5. Otherwise age decides: at most FreshFor is fresh, at most LateFor is late, older is stale.
//
// Synthetic events have no rule of their own: what a snapshot says about long ago has a long-ago switch time, so
// rule 5 makes it stale; what it says about just now is fresh.
//
// The package is pure: no clock, no goroutine. Published times are never rewritten.
package fresh

import (
	"fmt"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// UnmeasuredMS is the uncertainty_ms of an event from a switch whose clock was never measured: one day. It is a large
// number rather than a missing or negative one so that a consumer's "uncertainty_ms < 100" does the safe thing.
const UnmeasuredMS = 86_400_000

// Thresholds are the limits of the verdicts. A zero field takes the default.
type Thresholds struct {
	FreshFor       time.Duration `yaml:"fresh"`           // oldest fresh age; default 1 s
	LateFor        time.Duration `yaml:"late"`            // oldest late age; default 10 s
	FutureSlack    time.Duration `yaml:"future_slack"`    // allowed ahead, beyond the uncertainty; default 250 ms
	MaxUncertainty time.Duration `yaml:"max_uncertainty"` // above it the verdict is unknown; default 1 s
}

// defaults are the thresholds of the model.
var defaults = Thresholds{FreshFor: time.Second, LateFor: 10 * time.Second,
	FutureSlack: 250 * time.Millisecond, MaxUncertainty: time.Second}

// Options configure a Judge. The zero value is the model's.
type Options struct {
	Thresholds Thresholds                    `yaml:"thresholds"`
	PerType    map[call.EventType]Thresholds `yaml:"per_type"` // zero fields fall back to Thresholds
}

// Validate returns every fault, each naming the field.
func (o Options) Validate() []error {
	errs := o.Thresholds.or(defaults).validate("thresholds")
	base := o.Thresholds.or(defaults)
	for _, t := range sortedTypes(o.PerType) {
		errs = append(errs, o.PerType[t].or(base).validate("per_type."+string(t))...)
	}
	return errs
}

func sortedTypes(m map[call.EventType]Thresholds) []call.EventType {
	types := make([]call.EventType, 0, len(m))
	for t := range m {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

func (t Thresholds) validate(path string) []error {
	var errs []error
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"fresh", t.FreshFor}, {"late", t.LateFor}, {"future_slack", t.FutureSlack}, {"max_uncertainty", t.MaxUncertainty}} {
		if f.d < 0 {
			errs = append(errs, fmt.Errorf("%s.%s: %s is negative: use a positive duration such as 1s", path, f.name, f.d))
		}
	}
	if t.LateFor < t.FreshFor {
		errs = append(errs, fmt.Errorf("%s.late: %s is shorter than fresh (%s)", path, t.LateFor, t.FreshFor))
	}
	return errs
}

func (t Thresholds) or(d Thresholds) Thresholds {
	if t.FreshFor == 0 {
		t.FreshFor = d.FreshFor
	}
	if t.LateFor == 0 {
		t.LateFor = max(d.LateFor, t.FreshFor)
	}
	if t.FutureSlack == 0 {
		t.FutureSlack = d.FutureSlack
	}
	if t.MaxUncertainty == 0 {
		t.MaxUncertainty = d.MaxUncertainty
	}
	return t
}

// Judge measures clocks and stamps events. It is not safe for concurrent use: the router's one goroutine owns it.
type Judge struct {
	base    Thresholds
	perType map[call.EventType]Thresholds
	clocks  map[string]*clock
}

// New makes a Judge that has measured nothing yet.
func New(o Options) *Judge {
	j := &Judge{base: o.Thresholds.or(defaults), clocks: map[string]*clock{}}
	if len(o.PerType) > 0 {
		j.perType = make(map[call.EventType]Thresholds, len(o.PerType))
	}
	for t, th := range o.PerType {
		j.perType[t] = th.or(j.base)
	}
	return j
}

// Adopt takes over what old measured, so that a reload of thresholds does not forget the clocks. old must not be used
// afterwards.
func (j *Judge) Adopt(old *Judge) {
	if old != nil && old != j {
		j.clocks = old.clocks
	}
}

// Stamp fills e.Time's offset_ms, uncertainty_ms, age_ms and freshness from its switch and received times.
func (j *Judge) Stamp(e *call.Event) {
	t := &e.Time
	offset, uncertainty, known := j.at(e.Switch.ID, t.Received)
	t.OffsetMS, t.UncertaintyMS, t.AgeMS = 0, UnmeasuredMS, 0
	if known {
		t.OffsetMS, t.UncertaintyMS = ms(offset), ms(uncertainty)
	}
	if e.Source != nil {
		t.Freshness = call.Fresh
		return
	}
	timed := t.Switch != 0 && t.Received != 0
	if timed {
		t.AgeMS = ms(t.Received - t.Switch + offset)
	}
	t.Freshness = j.verdict(e, timed && known, t.Received-t.Switch+offset, uncertainty)
}

func (j *Judge) verdict(e *call.Event, known bool, age, uncertainty call.Time) call.Freshness {
	th, ok := j.perType[e.Type]
	if !ok {
		th = j.base
	}
	switch {
	case AfterEnd(e):
		return call.Stale
	case !known || uncertainty > micros(th.MaxUncertainty):
		return call.FreshnessUnknown
	case -age > uncertainty+micros(th.FutureSlack):
		return call.Future
	case age <= micros(th.FreshFor):
		return call.Fresh
	case age <= micros(th.LateFor):
		return call.Late
	}
	return call.Stale
}

// AfterEnd reports whether e arrived when its call had already ended. call.ended and call.record, which say so
// themselves, never did.
func AfterEnd(e *call.Event) bool {
	return e.Type != call.CallEnded && e.Type != call.CallRecord && e.AfterEnd()
}

func micros(d time.Duration) call.Time { return call.Time(d.Microseconds()) }

func ms(t call.Time) float64 { return float64(t) / float64(call.Millisecond) }
