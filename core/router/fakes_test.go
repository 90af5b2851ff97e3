package router

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// adapter runs one function a session; after the last it waits for ctx.
type adapter struct {
	given    atomic.Int64 // frames that are in the router's queue, or past it
	mu       sync.Mutex
	sessions []func(ctx context.Context, out core.Emitter) error
	began    []time.Time
}

// giver counts what it gives.
type giver struct {
	core.Emitter
	a *adapter
}

func (g giver) Frame(f core.Frame) error {
	err := g.Emitter.Frame(f)
	if err == nil {
		g.a.given.Add(1)
	}
	return err
}

func sessions(s ...func(ctx context.Context, out core.Emitter) error) *adapter {
	return &adapter{sessions: s}
}

func (a *adapter) Run(ctx context.Context, out core.Emitter) error {
	a.mu.Lock()
	i := len(a.began)
	a.began = append(a.began, time.Now())
	a.mu.Unlock()
	if i >= len(a.sessions) {
		<-ctx.Done()
		return nil
	}
	return a.sessions[i](ctx, giver{out, a})
}

// taken waits until n frames have come from a, and the core loop has taken them and handed over what it made of them. A
// frame counts as received before it is in the queue.
func taken(t *testing.T, r *Router, a *adapter, n int) {
	t.Helper()
	eventually(t, "the frames", func() bool { return a.given.Load() == int64(n) && r.in.len() == 0 })
	must(t, r.do(t.Context(), func() {})) // behind the turn that took them
}

// isKept reports whether everything that was handed over is in the journal.
func (r *Router) isKept() bool { return r.keeper.turns.len() == 0 && !r.keeper.keeping.Load() }

// isDelivered reports whether, besides, every sink has it.
func (r *Router) isDelivered() bool {
	if !r.isKept() {
		return false
	}
	last := r.o.Journal.Stats().Last
	return !slices.ContainsFunc(r.sinks, func(w *writer) bool { return w.lag.cursor.Seq() < last })
}

func (a *adapter) starts() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]time.Time(nil), a.began...)
}

// tracker gives one event an observation. The leg is the call; LegCleared ends it with call.ended and call.record,
// and what comes later is flagged late.
type tracker struct {
	calls map[string]*call.Call
	ticks int
}

func (t *tracker) Adopt(c *call.Call, _ uint64, _ call.Time) bool {
	t.calls[c.ID] = c
	return c.State != call.StateEnded
}

func newFakeTracker() *tracker { return &tracker{calls: map[string]*call.Call{}} }

func (t *tracker) Apply(sw call.SwitchRef, o call.Observation) []*call.Event {
	if o.Kind == call.LinkDown || o.Kind == call.SnapshotEnd {
		return nil
	}
	id := call.NewID(sw.ID, o.Leg)
	c := t.calls[id]
	if c == nil {
		c = &call.Call{ID: id, InteractionID: id, Switch: sw, State: call.StateActive, StartedAt: o.At}
		t.calls[id] = c
	}
	event := func(typ call.EventType) *call.Event {
		snap := *c
		return &call.Event{ID: o.Native.ID + string(typ), Type: typ, CallID: id, InteractionID: id, Switch: sw, Native: o.Native,
			Synthetic: o.Synthetic || o.Kind == call.SnapshotLeg, Call: &snap, Time: call.EventTime{Switch: o.At, Received: o.Received}}
	}
	if c.State == call.StateEnded {
		e := event(call.ConnectionCleared)
		e.Flags = []string{call.FlagLate}
		return []*call.Event{e}
	}
	if o.Kind == call.LegCleared {
		c.State, c.EndedAt = call.StateEnded, o.At
		return []*call.Event{event(call.CallEnded), event(call.CallRecord)}
	}
	return []*call.Event{event(call.CallUpdated)}
}

func (t *tracker) Tick(call.Time) []*call.Event { t.ticks++; return nil }
func (t *tracker) Active() int                  { return len(t.calls) }
func (t *tracker) AppendState(b []byte) []byte  { return b }
func (t *tracker) Calls() (out []*call.Call) {
	for _, c := range t.calls {
		out = append(out, c)
	}
	return out
}

// memory is a sink that keeps what it accepts. write, when set, decides.
type memory struct {
	write func(ctx context.Context, batch []core.Item) error

	mu     sync.Mutex
	items  []core.Item
	writes int
	closed bool
	onEnd  func()
}

func (m *memory) Write(ctx context.Context, batch []core.Item) error {
	m.mu.Lock()
	m.writes++
	m.mu.Unlock()
	var err error
	if m.write != nil {
		err = m.write(ctx, batch)
	}
	var be *core.BatchError
	if err != nil && !errors.As(err, &be) {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("written after close")
	}
	for i, it := range batch {
		if be != nil && be.Failed[i] != nil {
			continue
		}
		m.items = append(m.items, it)
	}
	return err
}

func (m *memory) Close(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.onEnd != nil {
		m.onEnd()
	}
	return nil
}

func (m *memory) attempts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// on returns the items of a stream.
func (m *memory) on(s core.Stream) (out []core.Item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.items {
		if i.Stream == s {
			out = append(out, i)
		}
	}
	return out
}

// types returns the event types on a stream, in order.
func (m *memory) types(s core.Stream) (out []call.EventType) {
	for _, i := range m.on(s) {
		if i.Event == nil {
			out = append(out, "")
			continue
		}
		out = append(out, i.Event.Type)
	}
	return out
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// start makes and runs a router; stop ends it and returns Run's error.
func start(t *testing.T, o Options) (r *Router, stop func() error) {
	t.Helper()
	if o.Tracker == nil {
		o.Tracker = newFakeTracker()
	}
	if o.Log == nil {
		o.Log = quiet()
	}
	if o.Rand == nil {
		o.Rand = func() float64 { return 1 }
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() error { cancel(); return <-done }
}

func now() call.Time { return call.At(time.Now()) }

func frame(kind call.Kind, leg, native string) core.Frame {
	n := now()
	return core.Frame{Type: "test", Raw: []byte(native), Received: n,
		Observations: []call.Observation{{Kind: kind, Leg: leg, At: n, Received: n, Native: call.Native{Type: "test", ID: native}}}}
}

func up(out core.Emitter) error {
	return out.Up(core.Instance{Kind: "asterisk", ID: "aa:bb", Version: "22.1"})
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
