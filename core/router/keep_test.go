package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/journal"
)

func openJournal(t *testing.T, dir string, o journal.Options) (*journal.Journal, journal.Report) {
	t.Helper()
	o.Dir = dir
	j, found, err := journal.Open(o)
	must(t, err)
	return j, found
}

// kept are options with a journal in dir and the real tracker.
func kept(j *journal.Journal, found journal.Report) Options {
	return Options{Journal: j, Opened: found, Tracker: call.NewTracker(call.Options{}),
		RestoreTracker: func(b []byte) (Tracker, error) { return call.RestoreTracker(call.Options{}, b) },
		Backoff:        Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}, SinkBackoff: Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}}
}

// image copies a journal as a crash would leave it.
func image(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	names, err := os.ReadDir(dir)
	must(t, err)
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // a temporary file
		}
		must(t, err, os.WriteFile(filepath.Join(to, n.Name()), b, 0o600))
	}
	return to
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// resumer is a memory that can tell what it has.
type resumer struct {
	memory
	asked atomic.Int64
}

func (m *resumer) Missing(_ context.Context, items []core.Item) (left []core.Item, err error) {
	m.asked.Add(int64(len(items)))
	m.mu.Lock()
	defer m.mu.Unlock()
	has := map[string]bool{}
	for _, i := range m.items {
		if i.Event != nil {
			has[string(i.Stream)+i.Event.ID] = true
		}
	}
	for _, i := range items {
		if i.Event == nil || !has[string(i.Stream)+i.Event.ID] {
			left = append(left, i)
		}
	}
	return left, nil
}

// wholeCalls checks what a consumer may rely on: of every call 1, 2, 3 …, one end, nothing after it but the record.
func wholeCalls(t *testing.T, items []core.Item) (calls int) {
	t.Helper()
	next, ended := map[string]uint64{}, map[string]bool{}
	for _, i := range items {
		e := i.Event
		if e == nil || e.CallID == "" || i.Stream != core.StreamEvents && i.Stream != core.StreamRecords {
			continue
		}
		if e.Seq != next[e.CallID]+1 {
			t.Errorf("call %s: seq %d (%s) follows %d", e.CallID, e.Seq, e.Type, next[e.CallID])
		}
		next[e.CallID] = e.Seq
		if ended[e.CallID] && e.Type != call.CallRecord {
			t.Errorf("call %s: %s after its end", e.CallID, e.Type)
		}
		ended[e.CallID] = ended[e.CallID] || e.Type == call.CallEnded
	}
	for id := range next {
		if !ended[id] {
			t.Errorf("call %s has no end", id)
		}
	}
	return len(next)
}

// observed is a frame of one observation at a moment of its own.
func observed(nth int, o call.Observation) core.Frame {
	at := call.At(time.Unix(1_800_000_000, 0)) + call.Time(nth)*100*call.Millisecond
	o.At, o.Received, o.Native = at, at, call.Native{Type: "test", ID: fmt.Sprint("n", nth)}
	return core.Frame{Type: "test", Received: at, Observations: []call.Observation{o}}
}

// talk is a call between c and c2, in seven frames from nth on.
func talk(nth int, c string) []core.Frame {
	return []core.Frame{
		observed(nth, call.Observation{Kind: call.LegCreated, Leg: c, Link: c, Inbound: true, Number: "100", Dialed: "200"}),
		observed(nth+1, call.Observation{Kind: call.LegCreated, Leg: c + "2", Link: c, Parent: c, User: "agent1"}),
		observed(nth+2, call.Observation{Kind: call.LegAlerting, Leg: c + "2", Link: c}),
		observed(nth+3, call.Observation{Kind: call.LegConnected, Leg: c + "2", Link: c}),
		observed(nth+4, call.Observation{Kind: call.LegConnected, Leg: c, Link: c}),
		observed(nth+5, call.Observation{Kind: call.LegCleared, Leg: c + "2", Link: c, Q850: 16}),
		observed(nth+6, call.Observation{Kind: call.LegCleared, Leg: c, Link: c, Q850: 16}),
	}
}

// talks are so many calls, one after the other.
func talks(calls int) (frames []core.Frame) {
	for n := range calls {
		frames = append(frames, talk(7*n, fmt.Sprint("c", n))...)
	}
	return frames
}

// onceOpen is how a sink writes that is away until it is opened.
func onceOpen(open *atomic.Bool) func(context.Context, []core.Item) error {
	return func(context.Context, []core.Item) error {
		if !open.Load() {
			return errors.New("away")
		}
		return nil
	}
}

// sends is an adapter whose one session sends frames and then waits; more are taken from more.
func sends(t *testing.T, snapshot []core.Frame, frames ...core.Frame) *adapter {
	return sessions(func(ctx context.Context, out core.Emitter) error {
		must(t, up(out))
		for _, f := range append(snapshot, frames...) {
			must(t, out.Frame(f))
		}
		<-ctx.Done()
		return nil
	})
}

func pbx(a core.Adapter) []Link { return []Link{{ID: "pbx", Kind: "asterisk", Adapter: a}} }

var snapshotOver = core.Frame{Type: "snapshot", Observations: []call.Observation{{Kind: call.SnapshotEnd}}}

// A gateway dies in the middle of calls: at every frame. The next goes on with the same calls, their numbers and ids, and
// owns up to the time in which nobody listened.
func TestRestartGoesOn(t *testing.T) {
	frames := append(talk(0, "a"), talk(7, "b")...)
	for cut := range len(frames) + 1 {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			dir := t.TempDir()
			j, found := openJournal(t, dir, journal.Options{})
			m := &resumer{}
			o := kept(j, found)
			first := sends(t, []core.Frame{snapshotOver}, frames[:cut]...)
			o.Links, o.Sinks = pbx(first), []NamedSink{{Name: "m", Sink: m}}
			r, stop := start(t, o)
			taken(t, r, first, cut+1)
			eventually(t, "all of it at the sink", r.isDelivered)
			crashed := image(t, dir)
			before := len(m.items)
			must(t, stop(), j.Close())
			m.items, m.closed = m.items[:before], false

			j, found = openJournal(t, crashed, journal.Options{})
			o = kept(j, found)
			a := sends(t, snapshotOf(frames[:cut]), frames[cut:]...)
			o.Links, o.Sinks = pbx(a), []NamedSink{{Name: "m", Sink: m}}
			r, stop = start(t, o)
			eventually(t, "all frames, and the gap", func() bool {
				return r.Status().ActiveCalls == 0 && len(m.on(core.StreamRecords)) == 2 && contains(m.types(core.StreamSources), call.SourceGap)
			})
			must(t, stop(), j.Close())
			if n := wholeCalls(t, m.items); n != 2 {
				t.Errorf("%d calls", n)
			}
			types := m.types(core.StreamSources)
			if !reflect.DeepEqual(types[:2], []call.EventType{call.SourceUp, call.SourceReconciled}) || !contains(types, call.SourceGap) || !contains(types, call.SourceDown) {
				t.Errorf("sources: %v", types)
			}
		})
	}
}

func contains[T comparable](s []T, v T) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}

// snapshotOf is what the switch answers after frames.
func snapshotOf(frames []core.Frame) (out []core.Frame) {
	legs, order := map[string]call.Observation{}, []string{}
	for _, f := range frames {
		o := f.Observations[0]
		switch o.Kind {
		case call.LegCreated:
			o.Kind, o.Value = call.SnapshotLeg, "initiated"
			legs[o.Leg] = o
			order = append(order, o.Leg)
		case call.LegAlerting, call.LegConnected:
			x := legs[o.Leg]
			x.Value = map[call.Kind]string{call.LegAlerting: "alerting", call.LegConnected: "connected"}[o.Kind]
			legs[o.Leg] = x
		case call.LegCleared:
			delete(legs, o.Leg)
		}
	}
	for _, id := range order {
		if o, ok := legs[id]; ok {
			o.At, o.Native = 0, call.Native{}
			out = append(out, core.Frame{Type: "snapshot", Observations: []call.Observation{o}})
		}
	}
	return append(out, snapshotOver)
}

// A sink that is away gets everything from the journal, the same and in the same order as one that was there, and holds
// up nobody.
func TestASinkThatWasAway(t *testing.T) {
	j, found := openJournal(t, t.TempDir(), journal.Options{})
	there, away := &memory{}, &memory{}
	var open atomic.Bool
	away.write = onceOpen(&open)
	o := kept(j, found)
	o.Links = pbx(sends(t, nil, talks(200)...))
	o.Sinks = []NamedSink{{Name: "there", Sink: there}, {Name: "away", Sink: away, QueueItems: 50, BatchItems: 7}}
	r, stop := start(t, o)
	eventually(t, "the sink that is there, and a failure of the other", func() bool {
		return len(there.on(core.StreamRecords)) == 200 && r.Status().Sinks[1].FailingSince != 0
	})
	if s := r.Status().Sinks[1]; s.Queue > 4*takeFrames+50 || s.FailingSince == 0 { // a turn is taken whole
		t.Errorf("the sink that is away: %+v", s)
	}
	open.Store(true)
	eventually(t, "the sink that was away", func() bool { return len(away.on(core.StreamRecords)) == 200 })
	must(t, stop(), j.Close())
	for i := range there.items { // a batch of the queue may come with or without the record's number
		there.items[i].Seq, away.items[i].Seq = 0, 0
	}
	if !reflect.DeepEqual(there.items, away.items) {
		t.Error("the sink that was away got something else")
	}
}

// The journal reaches its bound while a sink is away: the links wait, and go on when it is back. What every sink has is not
// kept.
func TestFullJournalGetsRoom(t *testing.T) {
	const bound, calls = 4 << 20, 4000
	j, found := openJournal(t, t.TempDir(), journal.Options{MaxBytes: bound, SegmentBytes: 256 << 10})
	m := &memory{}
	var open atomic.Bool
	m.write = onceOpen(&open)
	o := kept(j, found)
	o.Links, o.Sinks = pbx(sends(t, nil, talks(calls)...)), []NamedSink{{Name: "m", Sink: m, QueueItems: 100}}
	r, stop := start(t, o)
	eventually(t, "a full journal", func() bool { return r.Status().Journal.Full })
	open.Store(true)
	eventually(t, "all calls", func() bool { return len(m.on(core.StreamRecords)) == calls })
	if s := r.Status().Journal; s.Full || s.Bytes > bound || s.First == 1 {
		t.Errorf("%+v", s)
	}
	must(t, stop(), j.Close())
	wholeCalls(t, m.items)
}

// What is not delivered when the gateway stops is, after the next start.
func TestTheRestIsDeliveredByTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the drain takes its time
		dir := t.TempDir()
		j, found := openJournal(t, dir, journal.Options{})
		never := &memory{write: func(context.Context, []core.Item) error { return errors.New("away") }}
		o := kept(j, found)
		a := sends(t, nil, talk(0, "a")...)
		o.Links, o.Sinks = pbx(a), []NamedSink{{Name: "m", Sink: never}}
		r, stop := start(t, o)
		taken(t, r, a, 7)
		if n := r.ActiveCalls(); n != 0 {
			t.Errorf("%d calls", n)
		}
		must(t, stop(), j.Close())
		j, found = openJournal(t, dir, journal.Options{})
		o = kept(j, found)
		m := &memory{}
		o.Links, o.Sinks = pbx(sessions()), []NamedSink{{Name: "m", Sink: m}}
		_, stop = start(t, o)
		eventually(t, "the record", func() bool { return len(m.on(core.StreamRecords)) == 1 })
		must(t, stop(), j.Close())
		wholeCalls(t, m.items)
	})
}

// A gateway dies right behind a frame that says nothing of when it was sent: others may have been under way.
func TestGapBehindAnUntimedFrame(t *testing.T) {
	dir := t.TempDir()
	j, found := openJournal(t, dir, journal.Options{})
	o, m := kept(j, found), &memory{}
	o.Links, o.Sinks = pbx(sends(t, nil, core.Frame{Type: "untimed", Observations: []call.Observation{{Kind: call.SnapshotEnd}}})), []NamedSink{{Name: "m", Sink: m}}
	r, stop := start(t, o)
	eventually(t, "the frame, which is in the journal then", func() bool { return contains(m.types(core.StreamSources), call.SourceReconciled) })
	var heard call.Time
	must(t, r.do(t.Context(), func() { heard = r.links[0].state.heard }))
	crashed := image(t, dir)
	must(t, stop(), j.Close())
	j, found = openJournal(t, crashed, journal.Options{})
	o, m = kept(j, found), &memory{}
	o.Links, o.Sinks = pbx(sends(t, nil)), []NamedSink{{Name: "m", Sink: m}}
	o.Now = func() time.Time { return time.Now().Add(time.Minute) }
	_, stop = start(t, o)
	eventually(t, "the gap", func() bool { return contains(m.types(core.StreamSources), call.SourceGap) })
	must(t, stop(), j.Close())
	for _, i := range m.on(core.StreamSources) {
		if e := i.Event; e.Type == call.SourceGap && e.Source.From != heard {
			t.Errorf("the gap is from %s, want %s", e.Source.From, heard)
		}
	}
}
