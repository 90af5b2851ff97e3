package ari

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	// markPatience is how long a mark may take from the request to its event.
	markPatience = 2 * time.Second
	// registering is how long Asterisk may take, after it has answered the opening of the websocket, to know its reader.
	registering = 250 * time.Millisecond
	// settling is how long events are awaited that happened before the snapshot, where no mark can tell that they are
	// through: Asterisk sends an event within a few milliseconds.
	settling = 100 * time.Millisecond
	// windowFactor is how much more than a full queue may wait while the snapshot is taken.
	windowFactor = 16
)

// reconcile takes the snapshot while events come in, and hands over first the snapshot and then those events. Two marks
// of our own in the stream of events say which ones lie between asking and having the answers: what these speak of is
// theirs to tell, and not the snapshot's (touches).
func (s *session) reconcile(g *group) error {
	m := newMarks()
	taken := make(chan taken, 1)
	g.start(func(ctx context.Context) error { taken <- s.take(ctx, m); return nil })
	for waiting := true; waiting; {
		ready := s.queue.ready
		if s.windowFull() {
			ready = nil // what is not taken waits in the queue
		}
		select {
		case snap := <-taken:
			s.gather(m)
			if snap.err != nil {
				return snap.err
			}
			if err := s.apply(snap.snapshot); err != nil {
				return err
			}
			waiting = false
		case <-ready:
			s.gather(m)
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		}
	}
	return s.handleWindow()
}

// gather takes the frames that wait, and looks for marks among them.
func (s *session) gather(m *marks) {
	for !s.windowFull() {
		in, ok := s.queue.pop()
		if !ok {
			return
		}
		m.look(in.raw)
		s.window = append(s.window, in)
		s.queue.aside(1)
		s.windowBytes += in.size()
	}
}

func (s *session) windowFull() bool {
	return len(s.window) >= windowFactor*s.cfg.Queue || s.windowBytes >= windowFactor/4*maxQueuedBytes
}

// handleWindow hands over what was gathered. What it does not get to, drain does.
func (s *session) handleWindow() error {
	for len(s.window) > 0 {
		in := s.window[0]
		s.window[0] = inbound{}
		s.window = s.window[1:]
		s.windowBytes -= in.size()
		s.queue.aside(-1)
		if err := s.flush(in.received); err != nil {
			return err
		}
		if err := s.handle(in); err != nil {
			return err
		}
	}
	s.window = nil
	return nil
}

// apply hands over the snapshot. One that cannot be read is a dead letter and a gap.
func (s *session) apply(snap *snapshot) error {
	snap.touched = touchedBy(s.norm.opt, s.window)
	s.norm.ahead = snap.at - snap.received
	observed, err := s.norm.snapshot(snap)
	if err != nil {
		// Going on without it beats not going on: the next call is seen whole.
		reason := fmt.Sprintf("reading ARI's snapshot: %v", err)
		if err := s.out.DeadLetter(core.DeadLetter{Raw: snap.raw(), Reason: reason, Received: snap.received}); err != nil {
			return err
		}
		return s.out.Gap("ARI's snapshot of channels and bridges could not be read: calls that began before this session stay unknown", 0)
	}
	return s.out.Frame(core.Frame{Type: "snapshot", Raw: snap.raw(), Received: snap.received, Observations: observed})
}

// taken is a snapshot, or why there is none.
type taken struct {
	*snapshot
	err error
}

// take asks for the snapshot between two marks. Where ARI lets us set none, times decide.
func (s *session) take(ctx context.Context, m *marks) taken {
	marked, err := s.mark(ctx, m.opening, m.opened)
	if err != nil {
		return taken{err: err}
	}
	snap, err := s.ask(ctx)
	if err != nil {
		return taken{err: err}
	}
	if marked {
		if marked, err = s.mark(ctx, m.closing, m.closed); err != nil {
			return taken{err: err}
		}
	}
	if !marked && !sleep(ctx, settling) {
		return taken{err: context.Cause(ctx)}
	}
	snap.marked = marked
	return taken{snapshot: snap}
}

// mark has ARI send us the user event name and waits until it has come. It reports false where that cannot be had: the
// user may only read, or the event does not come.
func (s *session) mark(ctx context.Context, name string, seen <-chan struct{}) (bool, error) {
	if err := s.place(ctx, name); err != nil {
		s.log.Debug("ARI sets no mark in its stream of events", "err", err)
		return false, context.Cause(ctx)
	}
	patience := time.NewTimer(min(markPatience, s.cfg.ReadTimeout))
	defer patience.Stop()
	select {
	case <-seen:
		return true, nil
	case <-patience.C:
		s.out.Count("mark_missed", 1)
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// place posts a user event to our application. ARI answers 404 until the application is registered.
func (s *session) place(ctx context.Context, name string) error {
	q := request{op: "placing a mark", method: http.MethodPost, path: "/events/user/" + name, query: url.Values{"application": {s.cfg.Application}}}
	for deadline := time.Now().Add(registering); ; {
		_, err := s.rest.do(ctx, q)
		if !errors.Is(err, ErrNotFound) || time.Now().After(deadline) || !sleep(ctx, registering/10) {
			return err
		}
	}
}

// marks are the two user events around a snapshot, of names that nobody else uses.
type marks struct {
	word             []byte // in both names
	opening, closing string
	opened, closed   chan struct{}
}

func newMarks() *marks {
	word := fmt.Sprintf("ctigate-mark-%016x", rand.Uint64())
	return &marks{
		word: []byte(word), opening: word + "-opening", closing: word + "-closing",
		opened: make(chan struct{}, 1), closed: make(chan struct{}, 1),
	}
}

// look notes a mark.
func (m *marks) look(raw []byte) {
	if !bytes.Contains(raw, m.word) {
		return
	}
	if bytes.Contains(raw, []byte(m.opening)) {
		signal(m.opened)
	}
	if bytes.Contains(raw, []byte(m.closing)) {
		signal(m.closed)
	}
}

// touches is what the events that came while a snapshot was taken tell of each leg.
type touches map[string]*touch

type touch struct {
	kinds uint64    // of the observations
	hold  call.Kind // the first that tells of a hold: LegHeld or LegRetrieved
	left  *place    // where the leg was before, when the first that tells of a bridge says that it left it
	state string    // that the leg was in when the first event came, for call.SnapshotKept
}

// touchedBy reads the gathered events with a normalizer of their own.
func touchedBy(opt options, window []inbound) touches {
	n, t := newNormalizer(opt, func(string, int) {}), touches{}
	var last call.Time
	for _, in := range window {
		if in.from != fromARI {
			continue
		}
		last = max(last, in.received)
		t.add(n.flush(in.received))
		if f, err := n.event(in.raw, in.received); err == nil {
			t.add(f.Observations)
		}
	}
	t.add(n.flush(last + call.Second))
	return t
}

func (t touches) add(observed []call.Observation) {
	for _, o := range observed {
		x := t[o.Leg]
		if x == nil {
			x = &touch{}
			t[o.Leg] = x
		}
		switch {
		case o.Kind == call.SnapshotLeg: // what was found, rather than seen
			x.state = o.Value
		case o.Kind != call.LegCreated || !o.Unseen:
			if o.Kind == call.LegUnbridged && x.kinds&(1<<call.LegBridged|1<<call.LegUnbridged) == 0 {
				x.left = &place{o.Bridge, o.Conference}
			}
			x.kinds |= 1 << o.Kind
			if x.hold == 0 && (o.Kind == call.LegHeld || o.Kind == call.LegRetrieved) {
				x.hold = o.Kind
			}
		}
	}
}

// place is where a leg is: in a bridge, which may be a conference room.
type place struct{ bridge, room string }

// place is where leg was when the snapshot was begun; false when events do not tell.
func (t touches) place(leg string) (place, bool) {
	if t[leg] == nil || t[leg].left == nil {
		return place{}, false
	}
	return *t[leg].left, true
}

// hold is what tells first of a hold of leg; 0 when nothing does.
func (t touches) hold(leg string) call.Kind {
	if t[leg] == nil {
		return 0
	}
	return t[leg].hold
}

// by reports whether one of kinds was observed of leg.
func (t touches) by(leg string, kinds ...call.Kind) bool {
	x := t[leg]
	return x != nil && slices.ContainsFunc(kinds, func(k call.Kind) bool { return x.kinds&(1<<k) != 0 })
}
