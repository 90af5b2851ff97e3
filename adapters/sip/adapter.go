package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/capture"
	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/adapters/sip/siprec"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// adapter is one SIP link. What it knows of dialogs outlasts a session.
type adapter struct {
	id  string
	cfg Config
	env core.Env

	mu     sync.Mutex // of what follows: several ways in may bring packets
	engine *engine
	ticked time.Time // when time was last let pass
	clock  agentClock
}

func newAdapter(id string, cfg Config, env core.Env) *adapter {
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	return &adapter{id: id, cfg: cfg, env: env}
}

// way is one way in of a session that is open.
type way struct {
	name string
	run  func(ctx context.Context) error
}

// Run is one session: it opens the ways in, and ends with ctx or with the first of them that fails.
func (a *adapter) Run(ctx context.Context, out core.Emitter) error {
	if ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{adapter: a, out: out, box: newOutbox(out, a.cfg.Queue)}
	ways, closeAll, err := s.open()
	defer closeAll()
	if err != nil {
		return err
	}
	again := a.begin(s.box)
	if err := out.Up(core.Instance{Kind: Kind, Missing: a.missing()}); err != nil {
		return unlessOver(ctx, err)
	}
	if again {
		s.snapshot(call.At(time.Now()))
	}
	return unlessOver(ctx, s.work(ctx, cancel, ways))
}

func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// begin lets the engine go on with another session, and reports whether there was one before.
func (a *adapter) begin(out output) (again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if again = a.engine != nil; !again {
		a.engine = newEngine(a.cfg, out)
	}
	a.engine.out, a.engine.err = out, nil
	return again
}

func (s *session) snapshot(now call.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.engine.snapshot(now)
}

// missing is what packets never show.
func (a *adapter) missing() []string {
	out := []string{"queues, menus and conferences: a switch does not put them on the wire"}
	if a.cfg.Capture == nil {
		out = append(out, "RTP that the HEP agents do not send")
	}
	return out
}

// session is one Run.
type session struct {
	*adapter
	out  core.Emitter
	box  *outbox
	live *capture.Live
	load load
}

// open opens every way in, or none.
func (s *session) open() (ways []way, closeAll func(), err error) {
	var closers []func()
	closeAll = func() {
		for _, c := range closers {
			c()
		}
	}
	if c := s.cfg.Capture; c != nil {
		lc, err := c.live(s.cfg.MaxMessageBytes)
		if err == nil {
			s.live, err = capture.OpenLive(lc)
		}
		if err != nil {
			return nil, closeAll, fmt.Errorf("capturing on %s: %w", c.Interface, err)
		}
		closers = append(closers, func() { _ = s.live.Close() })
		ways = append(ways, way{"capture", func(ctx context.Context) error { return s.live.Run(ctx, s.captured) }})
	}
	if c := s.cfg.HEP; c != nil {
		server, err := hep.Listen(*c)
		if err != nil {
			return nil, closeAll, fmt.Errorf("listening for HEP agents: %w", err)
		}
		closers = append(closers, server.Close)
		ways = append(ways, way{"hep", func(ctx context.Context) error {
			return server.Run(ctx, s.relayed, s.counted, s.unreadable)
		}})
	}
	if s.cfg.SIPREC != nil {
		server, err := siprec.New(s.cfg.recording(), s.env.Log)
		if err == nil {
			err = server.Listen()
		}
		if err != nil {
			return nil, closeAll, fmt.Errorf("listening for recording clients: %w", err)
		}
		closers = append(closers, server.Close)
		ways = append(ways, way{"siprec", func(ctx context.Context) error { return server.Run(ctx, s.out) }})
	}
	return ways, closeAll, nil
}

// work runs the ways in and the clock beside them, until all have ended.
func (s *session) work(ctx context.Context, cancel context.CancelFunc, ways []way) error {
	var pump, wg sync.WaitGroup
	pump.Go(s.box.pump)
	errs := make([]error, len(ways))
	for i, w := range ways {
		wg.Go(func() {
			defer cancel()
			if err := w.run(ctx); err != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("%s: %w", w.name, err)
			}
		})
	}
	wg.Go(func() {
		defer cancel()
		s.ticks(ctx)
	})
	wg.Wait()
	close(s.box.queue)
	pump.Wait()
	return errors.Join(append(errs, s.box.err())...)
}

// captured takes a packet of the live interface.
func (s *session) captured(p *wire.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepTime(p.Received)
	s.engine.packet(p)
}

// relayed takes a packet from a HEP agent.
func (s *session) relayed(p *wire.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock.saw(p)
	s.keepTime(p.Received)
	s.engine.packet(p)
}

// unreadable takes a frame that is no HEP.
func (s *session) unreadable(raw []byte, reason string, received call.Time) {
	_ = s.box.DeadLetter(core.DeadLetter{Raw: raw, Reason: reason, Received: received})
}

// How often time is let pass when nothing comes, and how often the clock is told.
const (
	tickEvery  = 250 * time.Millisecond
	clockEvery = 30 * time.Second
)

// ticks lets time pass for the engine, tells the clock, and looks after the load, until ctx ends or the router takes
// nothing more.
func (s *session) ticks(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	clock := time.Now().Add(-clockEvery + time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.pass(now)
			s.look()
			if now.Sub(clock) >= clockEvery {
				clock = now
				s.tellClock(call.At(now))
			}
			if s.box.err() != nil {
				return
			}
		}
	}
}

func (s *session) pass(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepTime(call.At(now))
	s.ticked = now
	s.engine.advance(call.At(now))
}

// clockStep is how far our clock may be from where the engine expects it before it is asked whether it was set.
const clockStep = 2 * call.Second

// keepTime tells the engine when our clock was set since the last tick, before it takes anything of the time now.
func (s *session) keepTime(now call.Time) {
	if d := now - s.engine.now; s.ticked.IsZero() || -clockStep < d && d < clockStep {
		return
	}
	read := time.Now()
	set := call.At(read) - call.At(s.ticked) - call.Time(read.Sub(s.ticked).Microseconds())
	if -clockStep < set && set < clockStep {
		return // nothing came for long, or what came waited
	}
	s.env.Log.Warn("this machine's clock was set: dialogs go on as they were", "by", time.Duration(set)*time.Microsecond)
	s.engine.clockSet(set, s.ownClock())
	s.ticked = read
}

// ownClock reports whether packets are stamped by this machine's clock: on its own interfaces, and by agents that only
// it can have.
func (a *adapter) ownClock() bool {
	if a.cfg.Capture != nil || a.cfg.HEP == nil {
		return true
	}
	host, _, _ := net.SplitHostPort(a.cfg.HEP.Listen)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// tellClock says how the clock that stamps packets stands to ours.
func (s *session) tellClock(now call.Time) {
	sample := core.ClockSample{Sent: now, Answered: now, Switch: now}
	if !s.ownClock() {
		s.mu.Lock()
		best, ok := s.clock.take()
		s.mu.Unlock()
		if !ok {
			return
		}
		sample = best
	}
	_ = s.out.Clock(sample)
}

// maxAgentDelay is the longest that a packet is assumed to take from a HEP agent's capture to here, at its fastest.
const maxAgentDelay = 100 * call.Millisecond

// agentClock measures the agents' clock by the packet that took the least time since the last look.
type agentClock struct {
	at, received call.Time
	set          bool
}

func (c *agentClock) saw(p *wire.Packet) {
	if !c.set || p.Received-p.At < c.received-c.at {
		c.at, c.received, c.set = p.At, p.Received, true
	}
}

func (c *agentClock) take() (core.ClockSample, bool) {
	s := core.ClockSample{Sent: c.received - maxAgentDelay, Answered: c.received, Switch: c.at}
	ok := c.set
	c.set = false
	return s, ok
}
