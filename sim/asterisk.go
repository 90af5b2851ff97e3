package sim

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Asterisk is a simulated Asterisk 22: an ARI websocket with its REST interface, and a manager interface (AMI).
type Asterisk struct {
	front
	eng      *engine
	ari, ami net.Listener
	scratch  []byte
}

// NewAsterisk makes the switch; Start brings it up.
func NewAsterisk(opt Options) *Asterisk {
	a := &Asterisk{}
	a.opt = opt.withDefaults("gwsecret")
	return a
}

// Start listens on ariAddr and amiAddr (":0" picks a port, an empty amiAddr leaves AMI out) and plays until ctx ends
// or Close is called.
func (a *Asterisk) Start(ctx context.Context, ariAddr, amiAddr string) error {
	if err := a.opt.validate(); err != nil {
		return fmt.Errorf("starting the simulated Asterisk: %w", err)
	}
	a.open(ctx, a.opt)
	a.eng = newEngine("asterisk", a.opt, a)
	a.eng.skew = a.clockSkew
	if err := a.eng.load(); err != nil {
		return err
	}
	if err := a.serve(ariAddr, amiAddr); err != nil {
		a.Close()
		return err
	}
	a.group.Go(func() { a.eng.run(a.ctx, &a.front) })
	return nil
}

func (a *Asterisk) serve(ariAddr, amiAddr string) error {
	l, err := net.Listen("tcp", ariAddr)
	if err != nil {
		return fmt.Errorf("starting the simulated Asterisk: ARI: %w", err)
	}
	a.ari = l
	a.serveHTTP(l, a.ariHandler(a))
	if amiAddr == "" {
		return nil
	}
	if a.ami, err = a.listen(amiAddr, func(k net.Conn) { a.serveAMI(k, a) }); err != nil {
		return fmt.Errorf("AMI: %w", err)
	}
	return nil
}

// serveHTTP runs h on l until the front is closed.
func (f *front) serveHTTP(l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	f.closer = append(f.closer, srv.Close)
	f.group.Go(func() {
		if err := srv.Serve(l); err != nil && f.ctx.Err() == nil {
			f.opt.Log.Error("simulated Asterisk: ARI has stopped", "error", err)
		}
	})
}

// ARIAddr is host:port of the ARI.
func (a *Asterisk) ARIAddr() string { return a.ari.Addr().String() }

// AMIAddr is host:port of the AMI, empty without one.
func (a *Asterisk) AMIAddr() string {
	if a.ami == nil {
		return ""
	}
	return a.ami.Addr().String()
}

// Close stops the switch and waits until all it started has ended. Connections are closed.
func (a *Asterisk) Close() { a.close() }

// Wait blocks until the context given to Start ends, and then until the switch has stopped.
func (a *Asterisk) Wait() {
	<-a.ctx.Done()
	a.close()
}

// Done is closed when Options.MaxCalls calls have ended.
func (a *Asterisk) Done() <-chan struct{} { return a.eng.done }

// Place starts one call of a script (see Scripts) now.
func (a *Asterisk) Place(script string) error { return a.eng.placeNow(a.ctx, script) }

// Stats says what has been done so far.
func (a *Asterisk) Stats() Stats { return a.eng.addTo(a.ctx, a.stats()) }

// Ledger returns the last Options.Ledger events written to open sockets, oldest first by connection.
func (a *Asterisk) Ledger() []Entry { return a.ledger.entries() }

// Truths returns what happened in the last Options.Ledger calls that ended.
func (a *Asterisk) Truths() []Truth { return a.ledger.ended() }

// SetClockSkew steps the switch's clock.
func (a *Asterisk) SetClockSkew(d time.Duration) { a.skew.Store(int64(d)) }

// Disconnect closes every connection, as a restart of the control interface would.
func (a *Asterisk) Disconnect() { a.disconnect() }

func (f *front) disconnect() {
	for _, c := range f.list() {
		c.cut("disconnected to order")
	}
}

// send renders a step once and hands it to whoever listens.
func (a *Asterisk) send(c *simCall, s *step) {
	kind := "ami"
	if s.proto == protoARI {
		kind = "ari"
	}
	rendered := false
	for _, k := range a.list() {
		if k.kind != kind || !k.ready.Load() {
			continue
		}
		if !rendered {
			a.scratch = s.json.append(a.scratch[:0], c)
			rendered = true
		}
		e := c.entry(s, kind)
		if kind == "ami" {
			a.deliver(k, &e, a.eng.cmds, a.scratch)
			continue
		}
		a.deliverARI(k, &e, a.eng.cmds, a.scratch, a.eng.appAt)
	}
}

// deliverARI sends one event with the reader's own application name at its place.
func (f *front) deliverARI(k *conn, e *Entry, serve <-chan func(), text []byte, at int) {
	var head [10]byte
	f.deliver(k, e, serve, wsHead(head[:0], opText, len(text)+len(k.app)), text[:at], []byte(k.app), text[at:])
}

func (a *Asterisk) ended(c *simCall) { c.settle(&a.ledger) }

// entry describes a step for the ledger.
func (c *simCall) entry(s *step, kind string) Entry {
	e := Entry{Kind: kind, Type: s.typ, Call: c.number, Step: c.next - 1}
	if s.leg >= 0 {
		e.Leg = c.vals[s.leg]
	}
	return e
}

func (c *simCall) settle(l *ledger) {
	if l.on() {
		c.truth.close(c)
		l.close(c.truth)
	}
}

// placeNow starts a call from outside.
func (e *engine) placeNow(ctx context.Context, script string) error {
	err := fmt.Errorf("placing a simulated call: the switch has stopped")
	e.do(ctx, func() { _, err = e.place(script, e.now()) })
	return err
}

// addTo adds the calls to s.
func (e *engine) addTo(ctx context.Context, s Stats) Stats {
	e.do(ctx, func() { s.Started, s.Ended, s.Active = e.started, e.endedN, int64(len(e.calls)) })
	return s
}
