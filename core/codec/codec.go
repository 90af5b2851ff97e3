package codec

import (
	"fmt"
	"sync"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Names of the formats, before their version.
const (
	itemsName  = "I"
	framesName = "F"
	eventName  = "E"
)

var packs = sync.Pool{New: func() any { return new(call.Pack) }}

// write appends what f packs, under name.
func write(dst []byte, name string, f func(*call.Pack)) []byte {
	p := packs.Get().(*call.Pack)
	defer packs.Put(p)
	p.Write(dst)
	p.Format(name, call.PackVersion)
	f(p)
	return p.Bytes()
}

// read reads all of b by f; what says what was read, for the error.
func read(b []byte, name, what string, f func(*call.Pack)) error {
	p := new(call.Pack) // what is read points into it: it is not used again
	p.Read(b)
	p.Format(name, call.PackVersion)
	f(p)
	if err := p.Done(); err != nil {
		return fmt.Errorf("reading %s of %d bytes: %w", what, len(b), err)
	}
	return nil
}

// AppendItems appends the items of a turn to dst. What several items point to is written once. An item's Seq says where
// it is kept: it is not written.
func AppendItems(dst []byte, items []core.Item) []byte {
	return write(dst, itemsName, func(p *call.Pack) { call.PackList(p, &items, packItem) })
}

// ReadItems reads what AppendItems appended, and nothing else may be in b. Items that shared an event share it again.
// Nothing of b is kept; the strings of the result share one copy of it.
func ReadItems(b []byte) (items []core.Item, err error) {
	err = read(b, itemsName, "items", func(p *call.Pack) { call.PackList(p, &items, packItem) })
	if err != nil {
		return nil, err
	}
	return items, nil
}

// AppendEvent appends e, which is not nil, to dst.
func AppendEvent(dst []byte, e *call.Event) []byte {
	return write(dst, eventName, func(p *call.Pack) { p.Event(&e) })
}

// ReadEvent reads what AppendEvent appended, and nothing else may be in b.
func ReadEvent(b []byte) (e *call.Event, err error) {
	err = read(b, eventName, "an event", func(p *call.Pack) { p.Event(&e) })
	if err == nil && e == nil {
		err = fmt.Errorf("reading an event of %d bytes: there is none", len(b))
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// AppendFrames appends frames to dst: what an adapter took from its switch.
func AppendFrames(dst []byte, frames []core.Frame) []byte {
	return write(dst, framesName, func(p *call.Pack) { call.PackList(p, &frames, PackFrame) })
}

// ReadFrames reads what AppendFrames appended, and nothing else may be in b.
func ReadFrames(b []byte) (frames []core.Frame, err error) {
	err = read(b, framesName, "frames", func(p *call.Pack) { call.PackList(p, &frames, PackFrame) })
	if err != nil {
		return nil, err
	}
	return frames, nil
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

// PackFrame packs f as a part of something greater.
func PackFrame(p *call.Pack, f *core.Frame) {
	p.Word(&f.Type)
	p.Data(&f.Raw)
	p.Time(&f.Received)
	call.PackList(p, &f.Observations, (*call.Pack).Observation)
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
