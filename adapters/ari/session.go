package ari

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	clockInterval = 10 * time.Second
	flushInterval = 20 * time.Millisecond
	stoodStill    = 60 * call.Millisecond // no tick for so long: three were due
	amiPatience   = 5 * time.Second       // how long the session waits for AMI before it goes on without
)

// session is one Run.
type session struct {
	a     *Adapter
	cfg   *Config
	log   *slog.Logger
	out   core.Emitter
	rest  *rest
	queue *queue
	norm  *normalizer   // only for the goroutine that pops the queue
	up    chan struct{} // closed once out.Up was called
	sight sight

	ticked call.Time // when it was looked last for what need not wait any more

	window      []inbound // what came while the snapshot was taken
	windowBytes int
}

func (a *Adapter) newSession(out core.Emitter) (*session, error) {
	r, err := newREST(&a.cfg)
	if err != nil {
		return nil, core.Permanent(err)
	}
	return &session{
		a: a, cfg: &a.cfg, log: a.log, out: out, rest: r, up: make(chan struct{}),
		queue: newQueue(a.cfg.Queue, func() { out.Count("queue_full", 1) }),
		norm:  newNormalizer(options{IVRVariable: a.cfg.IVRVariable, Variables: a.cfg.Variables}, out.Count),
	}, nil
}

// run connects, then handles frames until the link drops or ctx ends. What was read by then is still handled.
func (s *session) run(ctx context.Context) error {
	conn, err := dialEvents(ctx, s.rest, s.cfg.Application)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	events := newEventReader(conn, s)
	g := newGroup(ctx)
	g.start(func(c context.Context) error { return events.closing(c, ctx) })
	g.start(events.read)
	g.start(events.watch)
	err = s.serve(g)
	err = g.stop(err)
	s.drain()
	if s.cfg.AMI != nil && ctx.Err() == nil { // AMI may have been heard for longer
		err = &core.LossError{Err: err, Since: events.heard()}
	}
	return err
}

// serve does what follows the connection: AMI, introduction, snapshot, events.
func (s *session) serve(g *group) error {
	s.startAMI(g)
	if err := s.introduce(g.ctx); err != nil {
		return err
	}
	if err := s.measure(g.ctx); err != nil { // first of all: no event can be judged without it
		return err
	}
	if err := s.reconcile(g); err != nil {
		return err
	}
	g.start(s.clock)
	return s.loop(g.ctx)
}

// startAMI starts the AMI link and gives it a moment to log in.
func (s *session) startAMI(g *group) {
	if s.cfg.AMI == nil {
		s.sight.missing = "queue and agent events: no AMI configured (add ami: to this switch)"
		return
	}
	s.sight.missing = withoutAMI(fmt.Errorf("AMI at %s has not answered yet", s.cfg.AMI.Address))
	l := &amiLink{s: s, first: make(chan struct{}, 1), retry: s.a.amiRetry}
	g.start(l.run)
	patience := time.NewTimer(min(amiPatience, s.cfg.ReadTimeout))
	defer patience.Stop()
	select {
	case <-l.first:
	case <-patience.C:
	case <-g.ctx.Done():
	}
}

func withoutAMI(err error) string {
	return fmt.Sprintf("queue and agent events, until AMI is back: %v", err)
}

// sight is what the session cannot see now. The AMI link changes it while the session introduces itself.
type sight struct {
	mu      sync.Mutex
	missing string // empty: nothing
	told    bool   // Up was called
}

func (v *sight) list() []string {
	if v.missing == "" {
		return nil
	}
	return []string{v.missing}
}

// sees notes what cannot be seen now, and tells the router when it was told something else before.
func (s *session) sees(missing string) error {
	s.sight.mu.Lock()
	defer s.sight.mu.Unlock()
	if s.sight.missing == missing {
		return nil
	}
	s.sight.missing = missing
	if !s.sight.told {
		return nil // Up will say it
	}
	return s.out.Missing(s.sight.list())
}

// introduce asks who the switch is and declares the session up.
func (s *session) introduce(ctx context.Context) error {
	info, err := s.rest.info(ctx)
	if err != nil {
		return err
	}
	s.sight.mu.Lock()
	defer s.sight.mu.Unlock()
	s.sight.told = true
	defer close(s.up)
	return s.out.Up(core.Instance{Kind: "asterisk", ID: info.EntityID, Version: info.Version, Missing: s.sight.list(), Shared: true})
}

// loop handles frames in the order of their arrival until ctx ends.
func (s *session) loop(ctx context.Context) error {
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.queue.ready:
			if err := s.handleQueued(ctx, tick.C); err != nil {
				return err
			}
		case <-tick.C:
			if err := s.tick(); err != nil {
				return err
			}
		}
	}
}

// tick hands over what need not wait any more.
func (s *session) tick() error { return s.flush(s.passed(call.At(time.Now()))) }

// passed is how far time has passed for what waits for later frames: not beyond the oldest frame that is read and not handled,
// and not at all at the first tick after this process stood still, when there may be more to be read.
func (s *session) passed(now call.Time) call.Time {
	at := s.queue.oldest(now)
	if s.ticked != 0 && now-s.ticked > stoodStill {
		at = s.ticked
	}
	s.ticked = now
	return at
}

func (s *session) handleQueued(ctx context.Context, tick <-chan time.Time) error {
	for {
		in, ok := s.queue.pop()
		if !ok {
			return nil
		}
		if err := s.handle(in); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick:
			if err := s.tick(); err != nil {
				return err
			}
		default:
		}
	}
}

// handle normalizes one frame. What cannot be understood becomes a dead letter, and the session goes on.
func (s *session) handle(in inbound) error {
	switch in.from {
	case fromAMI:
		return s.out.Frame(s.norm.manager(in.msg, in.received))
	case unreadable:
		return s.out.DeadLetter(core.DeadLetter{Raw: in.raw, Reason: in.reason, Received: in.received})
	}
	f, err := s.norm.event(in.raw, in.received)
	if err != nil {
		return s.out.DeadLetter(core.DeadLetter{Raw: in.raw, Reason: fmt.Sprintf("reading an ARI event: %v", err), Received: in.received})
	}
	return s.out.Frame(f)
}

// flush hands over what the normalizer no longer waits for.
func (s *session) flush(now call.Time) error { return s.flushed(now, s.norm.flush(now)) }

func (s *session) flushed(now call.Time, observed []call.Observation) error {
	if len(observed) == 0 {
		return nil
	}
	return s.out.Frame(core.Frame{Type: "flush", Received: now, Observations: observed})
}

// drain handles what was read before the session ended, as far as the router still takes it, and counts the rest.
func (s *session) drain() {
	if s.handleWindow() != nil {
		s.countLeft()
		return
	}
	for in, ok := s.queue.pop(); ok; in, ok = s.queue.pop() {
		if s.handle(in) != nil {
			s.countLeft()
			return
		}
	}
	now := call.At(time.Now())
	_ = s.flushed(now, s.norm.last(now)) // the router may be gone
}

// countLeft counts what was read and can no longer be handed over.
func (s *session) countLeft() {
	if left, _ := s.queue.depth(); left > 0 {
		s.out.Count(core.CountDropped, left)
	}
}

// clock measures the switch's clock every ten seconds.
func (s *session) clock(ctx context.Context) error {
	tick := time.NewTicker(clockInterval)
	defer tick.Stop()
	for {
		s.a.countHighest(s)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := s.measure(ctx); err != nil {
			return err
		}
	}
}

// measure asks the switch's clock once. An answer that does not come is counted; the error is the router's.
func (s *session) measure(ctx context.Context) error {
	sample, err := s.rest.ping(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		s.out.Count("clock_failed", 1)
		s.log.Debug("measuring the clock by ARI", "err", err)
		return nil
	}
	return s.out.Clock(sample)
}
