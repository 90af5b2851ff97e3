package router

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/journal"
)

// remembering is a sink whose destination keeps the last state of each call. It answers at the second try.
type remembering struct {
	*resumer
	asked atomic.Int64
}

func (m *remembering) Calls(_ context.Context, tell func(c *call.Call, seq uint64, at call.Time)) error {
	if m.asked.Add(1) == 1 {
		return errors.New("not yet")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	last := map[string]*call.Event{}
	for _, i := range m.items {
		if i.Stream == core.StreamCalls {
			last[i.Key] = i.Event
		}
	}
	for _, e := range last {
		if e != nil {
			tell(e.Call, e.Seq, e.Time.Received)
		}
	}
	tell(&call.Call{ID: "elsewhere", Switch: call.SwitchRef{ID: "another gateway's"}, State: call.StateActive}, 7, 1)
	return nil
}

// A gateway and its disk are lost in the middle of calls: at every frame. The next goes on with what was published: the
// same calls, their numbers and ids, and it owns up to the time in which nobody listened.
func TestNewDiskGoesOn(t *testing.T) {
	frames := append(talk(0, "a"), talk(7, "b")...)
	for cut := range len(frames) + 1 {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			j, found := openJournal(t, t.TempDir(), journal.Options{})
			m := &remembering{resumer: &resumer{}}
			o := kept(j, found)
			first := sends(t, []core.Frame{snapshotOver}, frames[:cut]...)
			o.Links, o.Sinks = pbx(first), []NamedSink{{Name: "m", Sink: m.resumer}}
			r, stop := start(t, o)
			taken(t, r, first, cut+1)
			eventually(t, "all of it at the sink", r.isDelivered)
			before := len(m.items)
			must(t, stop(), j.Close())
			m.items, m.closed = m.items[:before], false

			dir := t.TempDir()
			j, found = openJournal(t, dir, journal.Options{})
			o = kept(j, found)
			o.Links, o.Sinks = pbx(sends(t, snapshotOf(frames[:cut]), frames[cut:]...)), []NamedSink{{Name: "m", Sink: m}}
			r, stop = start(t, o)
			eventually(t, "all frames", func() bool {
				return m.asked.Load() == 2 && contains(m.types(core.StreamSources), call.SourceGap) == (cut > 0) && r.Status().ActiveCalls == 0 && len(m.on(core.StreamRecords)) == 2
			})
			must(t, stop(), j.Close())
			if n := wholeCalls(t, m.items); n != 2 {
				t.Errorf("%d calls", n)
			}
			notAgain(t, dir, m)
		})
	}
}

// notAgain starts on a journal that is not new.
func notAgain(t *testing.T, dir string, m *remembering) {
	t.Helper()
	asked := m.asked.Load()
	m.closed = false
	j, found := openJournal(t, dir, journal.Options{})
	o := kept(j, found)
	o.Links, o.Sinks = pbx(sends(t, nil)), []NamedSink{{Name: "m", Sink: m}}
	_, stop := start(t, o)
	must(t, stop(), j.Close())
	if again := m.asked.Load() - asked; asked != 2 || again != 0 {
		t.Errorf("asked %d times, and %d times again", asked, again)
	}
}
