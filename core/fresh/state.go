package fresh

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// The state of a Judge as bytes: name and version of the format, and the clocks in the order of their switches.
const (
	stateName    = "ctigate clocks "
	stateVersion = 1
)

// AppendState appends what j measured to dst, so that after Restore another Judge gives the same verdicts.
func (j *Judge) AppendState(dst []byte) []byte {
	var p call.Pack
	p.Write(dst)
	p.Format(stateName, stateVersion)
	ids := slices.Sorted(maps.Keys(j.clocks))
	call.PackList(&p, &ids, func(p *call.Pack, id *string) {
		p.Word(id)
		packClock(p, j.clocks[*id])
	})
	return p.Bytes()
}

// Restore takes over what the Judge had measured whose AppendState made state, in place of what j measured. Thresholds
// stay j's own. When it fails, j is as it was.
func (j *Judge) Restore(state []byte) error {
	var p call.Pack
	clocks := map[string]*clock{}
	var ids []string
	p.Read(state)
	p.Format(stateName, stateVersion)
	call.PackList(&p, &ids, func(p *call.Pack, id *string) {
		p.Word(id)
		clocks[*id] = &clock{}
		packClock(p, clocks[*id])
	})
	if err := p.Done(); err != nil {
		return fmt.Errorf("restoring the clocks of the switches from a state of %d bytes: %w; without it they are measured anew", len(state), err)
	}
	j.clocks = clocks
	return nil
}

func packClock(p *call.Pack, k *clock) {
	call.PackList(p, &k.samples, packSample)
	if len(k.samples) > window {
		p.Fail("a clock has %d samples, more than %d", len(k.samples), window)
	}
	packSample(p, &k.best)
	packSpan(p, &k.reported)
}

// packSample packs the differences as numbers, for they are no instants.
func packSample(p *call.Pack, s *sample) {
	packSpan(p, &s.offset)
	packSpan(p, &s.uncertainty)
	p.Time(&s.at)
}

func packSpan(p *call.Pack, t *call.Time) {
	v := int64(*t)
	p.Int(&v)
	if p.Reading() {
		*t = call.Time(v)
	}
}
