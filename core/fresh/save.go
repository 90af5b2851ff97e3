package fresh

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// The format of a Judge's measurements.
const (
	saveName    = "J"
	saveVersion = 1
)

// AppendState appends what was measured of every switch's clock to dst.
func (j *Judge) AppendState(dst []byte) []byte {
	p := new(call.Pack)
	p.Write(dst)
	j.pack(p)
	return p.Bytes()
}

// RestoreState takes over what AppendState appended.
func (j *Judge) RestoreState(state []byte) error {
	p := new(call.Pack)
	p.Read(state)
	was := &Judge{clocks: map[string]*clock{}}
	was.pack(p)
	if err := p.Done(); err != nil {
		return fmt.Errorf("reading the measurements of the switches' clocks: %w", err)
	}
	j.clocks = was.clocks
	return nil
}

type savedClock struct {
	id string
	clock
}

func (j *Judge) pack(p *call.Pack) {
	var all []savedClock
	for id, k := range j.clocks {
		all = append(all, savedClock{id, *k})
	}
	slices.SortFunc(all, func(a, b savedClock) int { return cmp.Compare(a.id, b.id) })
	p.Format(saveName, saveVersion)
	call.PackList(p, &all, func(p *call.Pack, k *savedClock) {
		p.Word(&k.id)
		call.PackList(p, &k.samples, packSample)
		packSample(p, &k.best)
		p.Time(&k.reported)
	})
	if p.Reading() {
		for _, k := range all {
			j.clocks[k.id] = &clock{k.samples, k.best, k.reported}
		}
	}
}

func packSample(p *call.Pack, s *sample) {
	p.Time(&s.offset)
	p.Time(&s.uncertainty)
	p.Time(&s.at)
}
