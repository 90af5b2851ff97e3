package codec

import (
	"fmt"
	"sync"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const itemsName = "I" // of the format, before its version

var packs = sync.Pool{New: func() any { return new(call.Pack) }}

// AppendItems appends the items of a turn to dst. What several items point to is written once. An item's Seq says where
// it is kept: it is not written.
func AppendItems(dst []byte, items []core.Item) []byte {
	p := packs.Get().(*call.Pack)
	defer packs.Put(p)
	p.Write(dst)
	packItems(p, &items)
	return p.Bytes()
}

// ReadItems reads what AppendItems appended, and nothing else may be in b. Items that shared an event share it again.
// Nothing of b is kept; the strings of the result share one copy of it.
func ReadItems(b []byte) (items []core.Item, err error) {
	p := new(call.Pack) // what is read points into it: it is not used again
	p.Read(b)
	packItems(p, &items)
	if err := p.Done(); err != nil {
		return nil, fmt.Errorf("reading items of %d bytes: %w", len(b), err)
	}
	return items, nil
}

func packItems(p *call.Pack, items *[]core.Item) {
	p.Format(itemsName, call.PackVersion)
	call.PackList(p, items, packItem)
}

func packItem(p *call.Pack, i *core.Item) {
	call.PackWord(p, &i.Stream)
	p.String(&i.Key)
	p.SwitchRef(&i.Switch)
	p.Event(&i.Event)
	dead := i.Dead != nil
	p.Bool(&dead)
	if !dead {
		return
	}
	if p.Reading() {
		i.Dead = new(core.DeadLetter)
	}
	PackDeadLetter(p, i.Dead)
}

// PackDeadLetter packs d as a part of something greater.
func PackDeadLetter(p *call.Pack, d *core.DeadLetter) {
	p.Data(&d.Raw)
	p.Word(&d.Reason)
	p.Time(&d.Received)
}

// PackInstance packs i as a part of something greater.
func PackInstance(p *call.Pack, i *core.Instance) {
	p.Word(&i.Kind)
	p.Word(&i.ID)
	p.Word(&i.Version)
	call.PackList(p, &i.Missing, (*call.Pack).Word)
	p.Bool(&i.Shared)
}

// PackClockSample packs s as a part of something greater.
func PackClockSample(p *call.Pack, s *core.ClockSample) {
	p.Time(&s.Sent)
	p.Time(&s.Answered)
	p.Time(&s.Switch)
}
