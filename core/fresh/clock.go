package fresh

import (
	"fmt"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	window = 16 // samples kept for each switch
	// driftPPM bounds how fast two free-running clocks part, in microseconds a second: a sample's uncertainty grows
	// by it while the sample ages, so that a poor new sample in time beats a good old one.
	driftPPM    = 50
	stepSlack   = 50 * call.Millisecond // beyond 3 × uncertainty: a step
	changeSlack = 50 * call.Millisecond // an offset that moved less since it was last reported is no news
)

// Change is news about a switch's clock.
type Change struct {
	OffsetMS      float64 // switch clock minus ours
	UncertaintyMS float64 // half-width
	First         bool    // the first measurement
	StepMS        float64 // how far the clock jumped, 0 when it did not
}

// Reading is the present estimate of a switch's clock.
type Reading struct {
	OffsetMS, UncertaintyMS float64
	At                      call.Time // our time of the sample it rests on
}

type sample struct {
	offset, uncertainty, at call.Time
}

// aged is the sample's uncertainty at our time now.
func (s sample) aged(now call.Time) call.Time {
	if now <= s.at {
		return s.uncertainty
	}
	return s.uncertainty + (now-s.at)/1_000_000*driftPPM
}

type clock struct {
	samples  []sample // oldest first, at most window
	best     sample
	reported call.Time // offset last reported
}

// Sample takes one measurement of switchID's clock, NTP's way: the switch read its clock somewhere between Sent and
// Answered, so offset = switch − midpoint, give or take half the round trip and the resolution of the switch's answer.
// Of the last 16 samples the most certain one counts. changed says that c is news: the first measurement, an offset
// that moved by more than 50 ms, or a step (more than 3 × uncertainty + 50 ms off what was known), which discards the
// samples before it. An impossible sample (answered before sent, a time missing) is refused with an error.
func (j *Judge) Sample(switchID string, cs core.ClockSample) (c Change, changed bool, err error) {
	if cs.Sent == 0 || cs.Switch == 0 || cs.Answered < cs.Sent {
		return Change{}, false, fmt.Errorf("measuring the clock of %s: impossible sample (sent %s, answered %s, switch %s)",
			switchID, cs.Sent, cs.Answered, cs.Switch)
	}
	s := measure(cs)
	k := j.clocks[switchID]
	if k == nil {
		k = &clock{}
		j.clocks[switchID] = k
	}
	c.First = len(k.samples) == 0
	if !c.First {
		c.StepMS = ms(k.step(s))
	}
	k.add(s, c.StepMS != 0)
	c.OffsetMS, c.UncertaintyMS = ms(k.best.offset), ms(k.best.aged(s.at))
	changed = c.First || c.StepMS != 0 || abs(k.best.offset-k.reported) > changeSlack
	if changed {
		k.reported = k.best.offset
	}
	return c, changed, nil
}

// Clock returns what is known of switchID's clock; false before its first sample.
func (j *Judge) Clock(switchID string) (Reading, bool) {
	k := j.clocks[switchID]
	if k == nil {
		return Reading{}, false
	}
	return Reading{OffsetMS: ms(k.best.offset), UncertaintyMS: ms(k.best.uncertainty), At: k.best.at}, true
}

func (j *Judge) at(switchID string, now call.Time) (offset, uncertainty call.Time, known bool) {
	k := j.clocks[switchID]
	if k == nil {
		return 0, 0, false
	}
	return k.best.offset, k.best.aged(now), true
}

func measure(cs core.ClockSample) sample {
	rtt := cs.Answered - cs.Sent
	return sample{
		offset:      cs.Switch - (cs.Sent + rtt/2),
		uncertainty: rtt/2 + resolution(cs.Switch),
		at:          cs.Answered,
	}
}

// resolution guesses the grid of the switch's answer from its trailing zeros. A fine clock that happens to answer on
// a round number only makes that one sample less certain than it is.
func resolution(t call.Time) call.Time {
	switch {
	case t%call.Second == 0:
		return call.Second
	case t%call.Millisecond == 0:
		return call.Millisecond
	}
	return 1
}

// step returns how far s is off the estimate when that is more than both uncertainties can explain, else 0.
func (k *clock) step(s sample) call.Time {
	off := s.offset - k.best.offset
	if abs(off) > 3*(k.best.aged(s.at)+s.uncertainty)+stepSlack {
		return off
	}
	return 0
}

func (k *clock) add(s sample, restart bool) {
	switch {
	case restart:
		k.samples = k.samples[:0]
	case len(k.samples) == window:
		copy(k.samples, k.samples[1:])
		k.samples = k.samples[:window-1]
	}
	k.samples = append(k.samples, s)
	k.best = s
	for _, o := range k.samples {
		if o.aged(s.at) < k.best.aged(s.at) {
			k.best = o
		}
	}
}

func abs(t call.Time) call.Time {
	if t < 0 {
		return -t
	}
	return t
}
