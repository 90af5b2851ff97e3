// Package esl reads a FreeSWITCH switch through its event socket (mod_event_socket): events become observations about
// legs, and calls are controlled over the same link.
//
// The frames are read by this package itself, in order, with limits on what a peer may send and for how long; commands
// are built by percipia/eslgo's command package.
package esl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/percipia/eslgo/command"

	"github.com/ctigate/ctigate/core"
)

const (
	// startupTimeout bounds everything between login and the end of the snapshot.
	startupTimeout = time.Minute
	// markPatience is how long the event of a background job may take.
	markPatience = 2 * time.Second
	// clockInterval is how often the switch's clock is asked for.
	clockInterval = 10 * time.Second
)

// subscribed is what the model needs, and no more: a full subscription is a third larger. Subclasses of CUSTOM come
// last, as the event command wants them.
var subscribed = []string{
	"CHANNEL_CREATE", "CHANNEL_ORIGINATE", "CHANNEL_PROGRESS", "CHANNEL_PROGRESS_MEDIA", "CHANNEL_ANSWER",
	"CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_HOLD", "CHANNEL_UNHOLD", "CHANNEL_PARK", "CHANNEL_UNPARK",
	"CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY",
	"CALL_UPDATE", "CODEC", "DTMF", "HEARTBEAT", "BACKGROUND_JOB",
	"CUSTOM", "callcenter::info", "fifo::info", "conference::maintenance", "valet_parking::info", "sofia::reinvite",
}

// Adapter reads one FreeSWITCH link. It implements core.Adapter and core.Checker.
type Adapter struct {
	id   string
	cfg  Config
	log  *slog.Logger
	open dialFunc

	mu   sync.Mutex
	live *conn // of the session that is up, for Control
}

func newAdapter(id string, cfg Config, env core.Env) *Adapter {
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Adapter{id: id, cfg: cfg, log: log.With("switch", id), open: dialTCP}
}

// Run is one session: log in, subscribe, take the snapshot, then hand over events until ctx or the link ends.
func (a *Adapter) Run(ctx context.Context, out core.Emitter) error {
	c, err := a.connect(ctx, out.Count)
	if err != nil {
		return unlessOver(ctx, err)
	}
	s := &session{a: a, c: c, out: out}
	s.norm = newNormalizer(options{IVRVariable: a.cfg.IVRVariable, Variables: a.cfg.Variables}, out.Count)
	stop := context.AfterFunc(ctx, func() { c.fail(ErrClosed) })
	defer stop()
	defer c.close()
	err = s.run(ctx)
	c.close()
	if n := len(c.q.swap(nil)); n > 0 { // the router takes nothing more
		out.Count(core.CountDropped, n)
	}
	return unlessOver(ctx, err)
}

// unlessOver is err, or nil when the session was asked to end.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// connect dials and logs in.
func (a *Adapter) connect(ctx context.Context, count func(string, int)) (*conn, error) {
	c, err := dial(ctx, a.cfg, a.open, count)
	if err != nil {
		return nil, err
	}
	if err := c.login(ctx, a.cfg.Password); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (a *Adapter) setLive(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live = c
}

// session is one Run after login.
type session struct {
	a     *Adapter
	c     *conn
	out   core.Emitter
	norm  *normalizer
	watch continuity
	first *core.ClockSample // taken before the subscription
}

func (s *session) run(ctx context.Context) error {
	snap, inst, err := s.start(ctx)
	if err != nil {
		return errors.Join(err, s.drain())
	}
	s.c.q.steady() // no answer is waited for any more
	if err := s.out.Up(inst); err != nil {
		return err
	}
	if s.first != nil { // first of all: no event can be judged without it
		if err := s.out.Clock(*s.first); err != nil {
			return err
		}
	}
	s.a.setLive(s.c)
	defer s.a.setLive(nil)
	if err := s.emitSnapshot(snap); err != nil {
		return err
	}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer func() { s.c.fail(ErrClosed) }() // ends the helpers
	helpers.Go(func() { s.clock(ctx) })
	helpers.Go(s.watchdog)
	return s.consume()
}

// start subscribes first, so that nothing is missed between the snapshot and the events that wait meanwhile.
func (s *session) start(ctx context.Context) (*snapshot, core.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	inst := core.Instance{Kind: Kind, Shared: true}
	if sent, answered, at, err := clockTime(ctx, s.c); err == nil {
		s.first = &core.ClockSample{Sent: sent, Answered: answered, Switch: at}
	}
	if err := subscribe(ctx, s.c, s.a.cfg.Format, subscribed); err != nil {
		return nil, inst, err
	}
	if err := s.identify(ctx, &inst); err != nil {
		return nil, inst, fmt.Errorf("asking FreeSWITCH what it is: %w", err)
	}
	snap, err := takeSnapshot(ctx, s.c)
	if errors.Is(err, errNoSnapshot) {
		inst.Missing = append(inst.Missing, fmt.Sprintf("calls already up when the link comes up: %v", err))
		err = nil
	}
	if err == nil && snap != nil {
		err = s.mark(ctx, snap)
	}
	if err != nil {
		return nil, inst, fmt.Errorf("taking the snapshot: %w", err)
	}
	return snap, inst, nil
}

// mark has a background job make an event: once it has come, those of what happened before the snapshot have, but for
// the few that FreeSWITCH's dispatchers swap; these are known by their sequence. Where no job can be run, the sequence
// alone decides.
func (s *session) mark(ctx context.Context, snap *snapshot) error {
	if s.first != nil {
		snap.at = snap.received + s.first.Switch - (s.first.Sent+s.first.Answered)/2
	}
	ctx, cancel := context.WithTimeout(ctx, markPatience)
	defer cancel()
	_, err := s.c.bgapi(ctx, "hostname", "")
	switch {
	case err == nil:
		snap.marked = true
	case commandFailed(err), errors.Is(err, context.DeadlineExceeded):
	default:
		return err
	}
	return nil
}

// subscribe asks for events in format.
func subscribe(ctx context.Context, c *conn, format string, names []string) error {
	r, err := c.command(ctx, command.Event{Format: format, Listen: names})
	if err == nil {
		err = r.err("event")
	}
	if err != nil {
		return fmt.Errorf("subscribing to events: %w", err)
	}
	return nil
}

// identify fills in what is behind the link and what of it cannot be seen.
func (s *session) identify(ctx context.Context, inst *core.Instance) (err error) {
	if inst.ID, err = coreUUID(ctx, s.c); err != nil {
		return err
	}
	if inst.ID == "" {
		if inst.ID, err = s.firstCore(ctx); err != nil {
			return err
		}
	}
	s.watch.core = inst.ID
	if inst.Version, err = versionOf(ctx, s.c); err != nil {
		return err
	}
	for _, m := range wantedModules {
		loaded, known, err := moduleLoaded(ctx, s.c, m.name)
		if err != nil {
			return err
		}
		if known && !loaded {
			inst.Missing = append(inst.Missing, fmt.Sprintf("%s: %s is not loaded", m.gives, m.name))
		}
	}
	return nil
}

// firstCore has a background job make an event, and reads the Core-UUID of the first event that waits.
func (s *session) firstCore(ctx context.Context) (string, error) {
	if _, err := s.c.bgapi(ctx, "status", ""); err != nil && !commandFailed(err) {
		return "", fmt.Errorf("waiting for a first event: %w", err)
	}
	for range 100 { // the job's result may be here a moment before its event is queued
		if a, ok := s.c.q.first(); ok {
			return string(headerOf(a.body, a.json, "Core-UUID")), nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "", nil
}

// wantedModules are the modules whose events the model knows.
var wantedModules = []struct{ name, gives string }{
	{"mod_callcenter", "callcenter queue and agent events"},
	{"mod_fifo", "fifo queue events"},
	{"mod_conference", "conference events"},
	{"mod_valet_parking", "valet parking events"},
}

// emitSnapshot hands over the snapshot and then the events that came meanwhile.
func (s *session) emitSnapshot(snap *snapshot) error {
	if snap == nil {
		return nil
	}
	window := s.c.q.swap(nil)
	snap.touched = touchedBy(s.norm.opt, window)
	if err := s.emitRows(snap); err != nil {
		if n := len(window); n > 0 {
			s.out.Count(core.CountDropped, n)
		}
		return err
	}
	err := s.emitAll(window)
	s.norm.settled = true
	return err
}

func (s *session) emitRows(snap *snapshot) error {
	raw := snap.raw()
	seen, err := s.norm.snapshot(snap)
	if err != nil {
		reason := fmt.Sprintf("reading the snapshot: %v", err)
		if err := s.out.DeadLetter(core.DeadLetter{Raw: raw, Reason: reason, Received: snap.received}); err != nil {
			return err
		}
		return s.out.Gap(reason, 0)
	}
	return s.out.Frame(core.Frame{Type: "snapshot", Raw: raw, Received: snap.received, Observations: seen})
}

// consume hands over what arrives until the link ends, which it does with the session's context. What was read before
// is still handed over.
func (s *session) consume() error {
	var batch []arrival
	for {
		if batch = s.c.q.take(s.c.done, batch); len(batch) == 0 {
			return s.c.cause()
		}
		if err := s.emitAll(batch); err != nil {
			return err
		}
	}
}

// drain ends a session that did not get as far as Up: it hands over what has arrived.
func (s *session) drain() error {
	s.c.close()
	return s.emitAll(s.c.q.swap(nil))
}

// emitAll hands over arrivals in order. After an error it counts what can no longer be handed over.
func (s *session) emitAll(batch []arrival) error {
	for i := range batch {
		if err := s.emit(batch[i]); err != nil {
			if left := len(batch) - i - 1; left > 0 {
				s.out.Count(core.CountDropped, left)
			}
			return err
		}
	}
	return nil
}

// emit hands over one arrival.
func (s *session) emit(a arrival) error {
	if a.dead != "" {
		return s.out.DeadLetter(core.DeadLetter{Raw: a.body, Reason: a.dead, Received: a.received})
	}
	v := s.watch.see(a.body, a.json)
	if v.inverted {
		s.out.Count("sequence_inversions", 1)
	}
	if gap := v.gap + v.restart; gap != "" {
		if err := s.out.Gap(gap, 0); err != nil {
			return err
		}
	}
	if v.restart != "" {
		return errors.New(v.restart)
	}
	f, err := s.norm.event(a.body, a.json, a.received)
	if err != nil {
		return s.out.DeadLetter(core.DeadLetter{Raw: a.body, Reason: fmt.Sprintf("reading event: %v", err), Received: a.received})
	}
	return s.out.Frame(f)
}

// clock measures the switch's clock until the link ends. An answer that does not come ends the link, unless our own
// slowness holds it up.
func (s *session) clock(ctx context.Context) {
	tick := time.NewTicker(clockInterval)
	defer tick.Stop()
	for {
		var err error
		stalls := s.c.stalls.Load()
		if !s.c.blocked.Load() {
			err = s.sample(ctx)
		}
		switch {
		case commandFailed(err):
			s.a.log.Warn("FreeSWITCH does not tell its clock; load mod_dptools", "error", err)
			return
		case errors.Is(err, context.DeadlineExceeded) && !s.c.blocked.Load() && stalls == s.c.stalls.Load():
			s.c.fail(fmt.Errorf("FreeSWITCH has not answered a command for %v: the link is dead", commandTimeout))
		}
		select {
		case <-tick.C:
		case <-s.c.done:
			return
		}
	}
}

func (s *session) sample(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	sent, answered, at, err := clockTime(ctx, s.c)
	if err != nil {
		return err
	}
	return s.out.Clock(core.ClockSample{Sent: sent, Answered: answered, Switch: at})
}

// watchdog ends a link on which no event comes, not even HEARTBEAT. Time in which nothing could come, since the router
// was slow and the queue full, does not count.
func (s *session) watchdog() {
	tick := time.NewTicker(max(s.a.cfg.HeartbeatTimeout/10, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !s.c.blocked.Load() && s.c.lastEvent.Ago() > s.a.cfg.HeartbeatTimeout {
				s.c.fail(fmt.Errorf("no event for %v, not even HEARTBEAT: the link is dead, or event-heartbeat-interval in switch.conf is longer than heartbeat_timeout", s.a.cfg.HeartbeatTimeout))
			}
		case <-s.c.done:
			return
		}
	}
}
