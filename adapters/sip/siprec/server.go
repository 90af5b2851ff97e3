// Package siprec is a session recording server (SRS; RFC 7866, metadata of RFC 7865) that records nothing: it measures
// the RTP it is sent, and says what the metadata tells of the recorded call. A session border controller or PBX is the
// session recording client (SRC) and sends it a copy of both parties' streams.
//
// Sockets are read by one goroutine each, in order. All signalling is handled by a single goroutine, the engine, so that
// what belongs to one dialog is never swapped. sipgo's own server is not used: it forks a goroutine for each message and
// keeps every source address for ever.
package siprec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
)

const (
	inboundQueue = 1024 // messages between the sockets and the engine
	digitQueue   = 256  // DTMF digits between the streams and the engine
)

// Server is one session recording server.
type Server struct {
	cfg         Config
	log         *slog.Logger
	allow       []netip.Prefix
	media       netip.Addr
	first, last int

	mu    sync.Mutex
	bound *sockets
}

// New checks the configuration and makes a server. It opens nothing.
func New(c *Config, log *slog.Logger) (*Server, error) {
	if errs := c.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("making SIPREC server: %w", errors.Join(errs...))
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: c.withDefaults(), log: log}
	s.allow, _ = prefixes(s.cfg.AllowFrom) // both are valid
	s.media, _ = s.cfg.mediaAddress()
	s.first, s.last, _ = portRange(s.cfg.RTPPorts)
	if s.cfg.MaxStreams == 0 {
		s.cfg.MaxStreams = portPairs(s.first, s.last)
	}
	return s, nil
}

// Listen opens the sockets, for Run to serve; Run does it itself when it was not done. What comes before Run waits.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound != nil {
		return nil
	}
	b, err := s.open()
	s.bound = b
	return err
}

// Close closes what Listen has opened, when Run is not going to serve it. Run does it itself at its end.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound != nil {
		s.bound.close()
		s.bound = nil
	}
}

// Addr is where the server listens by a transport (UDP, TCP or TLS); not valid before Listen, or when it does not.
func (s *Server) Addr(transport string) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound == nil {
		return netip.AddrPort{}
	}
	return s.bound.addrs()[transport]
}

// run is one Run.
type run struct {
	s       *Server
	ctx     context.Context
	out     core.Emitter
	in      chan inbound
	conns   conns
	workers sync.WaitGroup // all goroutines
	reading sync.WaitGroup // of them, those that still read
	stopped atomic.Bool

	drained  chan struct{} // the engine takes nothing more
	finished chan struct{} // what the engine wanted to say is queued
}

func (r *run) stopping() bool { return r.stopped.Load() }

// advertised is the address to be named in headers for one that is listened on.
func (r *run) advertised(local netip.AddrPort) netip.AddrPort {
	if local.Addr().IsUnspecified() {
		return netip.AddrPortFrom(r.s.media, local.Port())
	}
	return local
}

// Run serves recording clients until ctx ends, then says BYE to those in session and reports what was measured. Their
// calls go on: nothing is cleared. It returns an error when it cannot listen, or when out takes nothing more.
func (s *Server) Run(ctx context.Context, out core.Emitter) error {
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	b := s.bound
	s.mu.Unlock()
	if b == nil {
		return errors.New("serving SIPREC: closed before it began")
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{s: s, ctx: ctx, out: out, in: make(chan inbound, inboundQueue),
		conns:   conns{max: maxConns(s.cfg.MaxSessions), all: map[*conn]struct{}{}, from: map[netip.Addr]int{}},
		drained: make(chan struct{}), finished: make(chan struct{})}
	e := newEngine(s, out)
	r.serve(b)
	err := r.loop(e)
	cancel()
	r.stop(b, e)
	return err
}

// serve starts the readers.
func (r *run) serve(b *sockets) {
	if b.udp != nil {
		r.reading.Add(1)
		r.workers.Go(func() { defer r.reading.Done(); r.readUDP(b.udp) })
	}
	for transport, l := range map[string]net.Listener{"TCP": b.tcp, "TLS": b.tls} {
		if l != nil {
			r.reading.Add(1)
			r.workers.Go(func() { defer r.reading.Done(); r.accept(l, transport) })
		}
	}
}

// loop is the engine's goroutine.
func (r *run) loop(e *engine) error {
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	for e.err == nil {
		clock.Reset(e.wait(time.Now()))
		select {
		case <-r.ctx.Done():
			return nil
		case in := <-r.in:
			e.take(in, time.Now())
		case d := <-e.digits:
			e.digit(d)
		case now := <-clock.C:
			e.tick(now)
		}
	}
	return fmt.Errorf("serving SIPREC: %w", e.err)
}

// stop ends reading, handles what was read, takes leave of the clients and waits for all goroutines.
func (r *run) stop(b *sockets, e *engine) {
	r.stopped.Store(true)
	b.closeListeners()
	if b.udp != nil {
		_ = b.udp.SetReadDeadline(time.Unix(1, 0))
	}
	r.conns.wake()
	read := make(chan struct{})
	go func() { r.reading.Wait(); close(read) }()
	for reading := true; reading; {
		select {
		case in := <-r.in:
			e.take(in, time.Now())
		case <-read:
			reading = false
		}
	}
	close(r.drained)
	for len(r.in) > 0 {
		e.take(<-r.in, time.Now())
	}
	e.leave(time.Now())
	close(r.finished)
	r.workers.Wait()
}
