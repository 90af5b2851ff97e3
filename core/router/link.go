package router

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/telemetry"
)

// stableAfter is how long a session must have been up for the next failure to start the backoff afresh.
const stableAfter = 10 * time.Second

// maxNative bounds the bytes of one frame that are passed through, or dead letters: a snapshot may have more.
const maxNative = 8 << 20

// stopping is source.down's reason when the gateway itself ends the session.
const stopping = "gateway stopping"

var (
	errSessionOver = errors.New("the session is over")
	errEndedItself = errors.New("the session ended by itself")

	errAnotherSession = errors.New("taken over: the switch is asked for a snapshot")
)

// link is one supervised switch link. The core loop owns the fields of state; the rest is safe for concurrent use.
type link struct {
	r       *Router
	id      string
	index   uint16
	adapter core.Adapter
	raw     bool
	tel     *telemetry.Link
	stats   linkStats
	state   linkState
	running atomic.Bool
	lost    atomic.Int64  // frames that were read and found the queue closed
	again   chan struct{} // the session is to be ended, and another begun

	// Of the core loop, in a cluster.
	own      *core.Instance // this node's own session, nil while there is none
	ownSince time.Time      // when its snapshot was over, or it last said that it had missed something
	ownBlind []string       // what it could not see from its beginning
	ending   bool           // that session is to end, for one that brings a snapshot
	told     time.Time      // when the latest came here that the owner told of; zero: nothing since it began to listen
	toldBy   feeds          // likewise, of each of the link's connections
	anew     time.Time      // when the owner was seen to begin to listen
	begun    int            // how often it was
	begunAt  time.Time      // when, while another node owns the link
}

func newLink(r *Router, l Link, index uint16) *link {
	k := &link{r: r, id: l.ID, index: index, adapter: l.Adapter, raw: l.Raw, tel: r.o.Telemetry.Link(l.ID, l.Kind),
		again: make(chan struct{}, 1)}
	k.state.ref = call.SwitchRef{ID: l.ID, Kind: l.Kind}
	k.stats.kind = l.Kind
	return k
}

// supervise runs sessions one after the other until ctx ends.
func (l *link) supervise(ctx context.Context) {
	l.running.Store(true)
	defer l.running.Store(false)
	failures, complained := 0, ""
	for {
		wasUp, err := l.session(ctx)
		if ctx.Err() != nil {
			l.tell(message{kind: msgDown, text: stopping})
			return
		}
		if wasUp >= stableAfter {
			failures = 0
		}
		wait := l.r.o.Backoff.pause(failures, l.r.o.Rand())
		switch {
		case core.IsPermanent(err):
			wait = l.r.o.Backoff.Permanent
		case err == errAnotherSession:
			wait, failures = 0, -1
		}
		complained = l.complain(err, complained, wait)
		l.tell(message{kind: msgDown, text: err.Error(), from: core.LostSince(err)})
		failures++
		if !sleep(ctx, wait) {
			return
		}
	}
}

// complain logs the failure: a permanent one once and plainly, until another reason takes its place.
func (l *link) complain(err error, last string, wait time.Duration) string {
	log := l.r.log.With("link", l.id)
	switch {
	case !core.IsPermanent(err):
		log.Warn("link down: trying again", "error", err, "in", wait.Round(time.Millisecond))
		return ""
	case err.Error() == last:
		log.Debug("link still refused", "error", err, "in", wait)
	default:
		log.Error("link refused: trying again slowly until its settings are mended", "error", err, "every", wait)
	}
	return err.Error()
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session runs the adapter once and returns how long it was up. A panic in the adapter's own goroutine becomes an
// error: the other links go on.
func (l *link) session(ctx context.Context) (up time.Duration, err error) {
	e := &emitter{l: l, ctx: ctx}
	select {
	case <-l.again: // meant for a session that is over
	default:
	}
	defer func() {
		e.over.Store(true)
		if p := recover(); p != nil {
			err = fmt.Errorf("the adapter panicked (please report this): %v", p)
			l.r.log.Error("adapter panic", "link", l.id, "panic", p, "stack", string(debug.Stack()))
		}
		if d := e.up.Ago(); d != core.Never {
			up = d
		}
	}()
	run, stop := l.endable(ctx)
	defer stop()
	if err = l.adapter.Run(run, e); err == nil {
		err = errEndedItself
	}
	if run.Err() != nil {
		err = context.Cause(run)
	}
	return 0, err
}

// endable ends with ctx, and when another session is asked for.
func (l *link) endable(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		select {
		case <-l.again:
			cancel(errAnotherSession)
		case <-over:
		}
	}()
	return ctx, func() { close(over); cancel(nil) }
}

// restart ends the session, so that the next one brings a snapshot.
func (l *link) restart() { signal(l.again) }

// tell queues the link's own news behind its frames. It waits for room even when the links are being stopped, and
// gives up only when the queue is closed.
func (l *link) tell(m message) {
	m.link, m.at = l, call.At(l.r.o.Now())
	if err := l.r.in.push(context.Background(), m); err != nil {
		l.r.log.Warn("link news lost while stopping", "link", l.id, "news", m.text)
	}
}

// emitter is one session's way in.
type emitter struct {
	l    *link
	ctx  context.Context
	over atomic.Bool
	up   core.Mark
}

var _ core.Emitter = (*emitter)(nil)

func (e *emitter) Frame(f core.Frame) error {
	e.l.tel.Received.Add(1)
	if f.Received == 0 {
		f.Received = e.now()
	}
	e.l.stats.lastFrame.Store(int64(f.Received))
	if len(f.Raw) > maxNative {
		if e.l.raw {
			e.l.r.log.Warn("a frame is too large to be passed through: what it shows is published, its bytes are not", "link", e.l.id,
				"type", f.Type, "bytes", len(f.Raw), "max", maxNative)
		}
		f.Raw = nil
	}
	return e.put(message{kind: msgFrame, at: f.Received, text: f.Type, raw: f.Raw, obs: f.Observations})
}

func (e *emitter) DeadLetter(d core.DeadLetter) error {
	e.l.tel.Received.Add(1)
	e.l.tel.DeadLetters.Add(1)
	if d.Received == 0 {
		d.Received = e.now()
	}
	e.l.stats.lastFrame.Store(int64(d.Received))
	if n := len(d.Raw); n > maxNative {
		d.Raw, d.Reason = d.Raw[:maxNative:maxNative], fmt.Sprintf("%s (the first %d of %d bytes)", d.Reason, maxNative, n)
	}
	return e.put(message{kind: msgDead, at: d.Received, text: d.Reason, raw: d.Raw})
}

func (e *emitter) Up(i core.Instance) error {
	e.up.Set()
	e.l.tel.Sessions.Add(1)
	return e.put(message{kind: msgUp, at: e.now(), inst: &i})
}

func (e *emitter) Clock(s core.ClockSample) error {
	if e.ctx.Err() != nil {
		return nil // of no use to a session that has ended
	}
	return e.put(message{kind: msgClock, at: e.now(), clock: &s})
}

func (e *emitter) Gap(reason string, since call.Time) error {
	return e.put(message{kind: msgGap, at: e.now(), text: reason, from: since})
}

func (e *emitter) Missing(what []string) error {
	return e.put(message{kind: msgMissing, at: e.now(), inst: &core.Instance{Missing: slices.Clone(what)}})
}

func (e *emitter) Count(name string, n int) {
	if name != core.CountDropped {
		e.l.tel.Count(name, n)
	} else if n > 0 {
		e.l.tel.Received.Add(uint64(n))
		e.l.dropped(n)
	}
}

func (e *emitter) now() call.Time { return call.At(e.l.r.o.Now()) }

// put queues m. It waits for room even when the session's context has ended, since what was read before is still to
// be delivered; the drain closes the queue in time.
func (e *emitter) put(m message) error {
	m.link = e.l
	err := errSessionOver
	if !e.over.Load() {
		err = e.l.r.in.push(context.Background(), m)
	}
	if err == nil {
		return nil
	}
	if m.kind == msgFrame || m.kind == msgDead {
		e.l.dropped(1)
	}
	return fmt.Errorf("handing a %s to the router: %w", m.kind, err)
}

// dropped counts frames that were read and are not processed.
func (l *link) dropped(n int) {
	l.tel.Dropped.Add(uint64(n))
	l.lost.Add(int64(n))
}

// linkStats is what Status shows of a link.
type linkStats struct {
	lastFrame atomic.Int64 // call.Time

	mu       sync.Mutex
	kind     string
	instance core.Instance
	up       bool
	since    call.Time
	lastErr  string
	failures int
	clock    *clockStats
}

type clockStats struct{ offset, uncertainty float64 }

func (s *linkStats) failed(why string, at call.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up || s.since == 0 {
		s.up, s.since = false, at
	}
	s.lastErr = why
	s.failures++
}

func (s *linkStats) came(inst *core.Instance, at call.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up, s.since = true, at
	s.instance, s.failures, s.lastErr = *inst, 0, ""
}

// misses notes what the link cannot see now and reports whether that is news.
func (s *linkStats) misses(what []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.instance.Missing, what) {
		return false
	}
	s.instance.Missing = what
	return true
}

func (s *linkStats) clocked(offset, uncertainty float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = &clockStats{offset, uncertainty}
}
