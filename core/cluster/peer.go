package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// States of a peer.
const (
	PeerStateUnknown = "unknown" // just started
	PeerStateUp      = "up"
	PeerStateSilent  = "silent"
	PeerStateDead    = "dead"    // refuses connections
	PeerStateStopped = "stopped" // said goodbye
)

// peer is another node. Its own goroutine connects to it; others serve the connections that it makes to us.
type peer struct {
	l       *Link
	id      string
	address string
	look    chan struct{} // connect now
	gate    sync.Mutex    // held while a callback runs, so that they come in order

	mu      sync.Mutex
	state   string
	begun   time.Time
	heard   time.Time
	hello   hello
	report  *Report
	bye     bool
	err     error
	refused uint64
	conns   []net.Conn // that it made to us, newest last
}

func newPeer(l *Link, p Peer) *peer {
	return &peer{l: l, id: p.ID, address: p.Address, look: make(chan struct{}, 1), state: PeerStateUnknown}
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PeerStatus{ID: p.id, Address: p.address, State: p.state, AgeMS: -1, Refused: p.refused, Report: p.report}
	if !p.heard.IsZero() {
		s.AgeMS = time.Since(p.heard).Milliseconds()
	}
	if p.err != nil {
		s.Error = p.err.Error()
	}
	return s
}

// probe lets run connect at once, to see whether the peer is still there.
func (p *peer) probe() { poke(p.look) }

// run keeps a connection to the peer.
func (p *peer) run(ctx context.Context) {
	p.mu.Lock()
	p.begun = time.Now()
	p.mu.Unlock()
	quick := 0
	for ctx.Err() == nil {
		err := p.session(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := p.failed(err)
		if errors.Is(err, errEnded) && quick < 20 { // a process that dies closes this one first and the listener a moment later
			quick++
			pause = minGap
		} else if !errors.Is(err, errEnded) {
			quick = 0
		}
		p.pause(ctx, pause)
	}
}

func (p *peer) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.look:
	case <-ctx.Done():
	}
}

// errEnded is a connection that the other side closed or reset, in whatever state.
var errEnded = errors.New("the peer closed the connection")

// session is one connection that we made.
func (p *peer) session(ctx context.Context) error {
	c, err := p.connect(ctx)
	if err != nil {
		return ended(err)
	}
	defer c.Close()
	return ended(p.talk(ctx, c))
}

// ended marks errors that mean that the other side's kernel closed the connection.
func ended(err error) error {
	var timeout net.Error
	switch {
	case err == nil || errors.Is(err, errFrame) || errors.As(err, &timeout) && timeout.Timeout():
		return err
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	return err
}

func (p *peer) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	c, err := p.l.dial(ctx, p)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	h, err := p.exchange(c, deadline)
	if err != nil {
		c.Close()
		return nil, err
	}
	p.greeted(h)
	return c, nil
}

func (p *peer) exchange(c net.Conn, deadline time.Time) (hello, error) {
	if err := writeFrame(c, p.l.hello()); err != nil {
		return hello{}, err
	}
	h, err := readHello(c, deadline)
	if err == nil && h.Node != p.id {
		err = fmt.Errorf("%w: %q answers at the address of peer %s", errFrame, h.Node, p.id)
	}
	return h, err
}

// talk reports to the peer and listens to it until the connection ends; nil when it said goodbye or ctx ended.
func (p *peer) talk(ctx context.Context, c net.Conn) error {
	over := make(chan struct{})
	var speaker sync.WaitGroup
	speaker.Go(func() { p.speak(ctx, c, over) })
	err := p.listen(c)
	close(over)
	speaker.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (p *peer) speak(ctx context.Context, c net.Conn, over <-chan struct{}) {
	defer c.Close() // ends listen
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		r := p.l.opts.Report()
		if writeFrame(c, frame{Report: &r}) != nil {
			return
		}
		select {
		case <-t.C:
		case <-over:
			return
		case <-ctx.Done():
			_ = writeFrame(c, frame{Bye: true}) // a courtesy
			return
		}
	}
}

func (p *peer) listen(c net.Conn) error {
	silence := time.AfterFunc(silentAfter, p.quiet)
	defer silence.Stop()
	for {
		f, err := readFrame(c, time.Now().Add(frameLimit))
		if err != nil {
			return err
		}
		silence.Reset(silentAfter)
		if p.hear(f) {
			return nil
		}
		time.Sleep(minGap) // a peer that floods us waits
	}
}

// hear takes a frame; true when it was goodbye.
func (p *peer) hear(f frame) (bye bool) {
	p.mu.Lock()
	p.heard = time.Now()
	if f.Report != nil {
		p.report = f.Report
	}
	p.bye = f.Bye
	p.mu.Unlock()
	if !f.Bye {
		p.become(PeerStateUp)
	}
	return f.Bye
}

// greeted takes a greeting. Another process than before means that the one before has ended.
func (p *peer) greeted(h hello) {
	p.mu.Lock()
	before, was, gone := p.hello, p.member(), p.state == PeerStateDead || p.bye
	p.hello, p.heard, p.bye, p.err = h, time.Now(), false, nil
	if p.report != nil && before.Instance != h.Instance {
		p.report = nil
	}
	p.mu.Unlock()
	if before.Instance != "" && before.Instance != h.Instance && !gone {
		p.l.log.Warn("peer was restarted", "peer", p.id)
		p.tellDead(was)
	}
	p.become(PeerStateUp)
}

// member is the peer's member id as it last said; p.mu is held.
func (p *peer) member() string {
	if p.report != nil {
		return p.report.Member
	}
	return p.hello.Member
}

// quiet is called when a connection has brought nothing for silentAfter; another may have.
func (p *peer) quiet() {
	p.mu.Lock()
	silent := time.Since(p.heard) >= silentAfter && p.state != PeerStateDead && p.state != PeerStateStopped
	p.mu.Unlock()
	if silent {
		p.become(PeerStateSilent)
	}
}

// failed takes the end of a connection, or of the attempt to make one, and says how long to wait before the next.
func (p *peer) failed(err error) time.Duration {
	p.mu.Lock()
	p.err = err
	bye, known, young := p.bye, p.hello.Instance != "", time.Since(p.begun) < silentAfter
	talks := len(p.conns) > 0 // to us: it lives, and we have the wrong address
	p.mu.Unlock()
	switch {
	case talks:
	case errors.Is(err, syscall.ECONNREFUSED) && bye:
		p.become(PeerStateStopped)
	case errors.Is(err, syscall.ECONNREFUSED) && (known || !young):
		p.become(PeerStateDead)
	case err == nil: // goodbye: it refuses soon
		return reportEvery
	case errors.Is(err, errEnded):
		p.quiet()
		return 0
	default:
		p.quiet()
	}
	return reportEvery
}

// become changes the state and says so, if it is a change.
func (p *peer) become(state string) {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.mu.Lock()
	old, member := p.state, p.member()
	p.state = state
	p.mu.Unlock()
	if old == state {
		return
	}
	p.l.log.Info("peer", "peer", p.id, "state", state)
	switch state {
	case PeerStateUp:
		call(p.l.opts.PeerUp, p.id)
	case PeerStateSilent:
		call(p.l.opts.PeerSilent, p.id)
	case PeerStateDead:
		if p.l.opts.PeerDead != nil {
			p.l.opts.PeerDead(p.id, member)
		}
	}
}

func (p *peer) tellDead(member string) {
	p.gate.Lock()
	defer p.gate.Unlock()
	if p.l.opts.PeerDead != nil {
		p.l.opts.PeerDead(p.id, member)
	}
}

func call(f func(string), id string) {
	if f != nil {
		f(id)
	}
}

func (p *peer) turnedAway() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused++
}

// maxConns is how many connections of one peer are served: a new one may come before the old one is known to be gone.
const maxConns = 2

// enter notes a connection that the peer made and closes the oldest if there are too many; the result takes it out.
func (p *peer) enter(c net.Conn) (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
	if len(p.conns) > maxConns {
		p.conns[0].Close()
		p.conns = p.conns[1:]
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, other := range p.conns {
			if other == c {
				p.conns = append(p.conns[:i], p.conns[i+1:]...)
				return
			}
		}
	}
}
