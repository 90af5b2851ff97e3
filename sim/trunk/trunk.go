package trunk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Trunk is a simulated SIP trunk with a PBX and phones at its end.
type Trunk struct {
	opt   Options
	eng   *engine
	net   *sockets
	ctx   context.Context
	stop  context.CancelFunc
	group sync.WaitGroup
	cmds  chan func()
	once  sync.Once
}

// New makes the trunk; Start brings it up.
func New(opt Options) *Trunk {
	return &Trunk{opt: opt.withDefaults(), cmds: make(chan func())}
}

// Start opens the sockets and plays until ctx ends or Close is called.
func (t *Trunk) Start(ctx context.Context) error {
	if err := t.open(); err != nil {
		if t.net != nil {
			t.net.close()
		}
		return fmt.Errorf("starting the simulated trunk: %w", err)
	}
	t.ctx, t.stop = context.WithCancel(ctx)
	t.group.Go(t.run)
	return nil
}

func (t *Trunk) open() error {
	if err := t.opt.validate(); err != nil {
		return err
	}
	t.net = &sockets{key: t.opt.HEPKey}
	if t.opt.HEP != "" {
		c, err := net.Dial("udp", t.opt.HEP)
		if err != nil {
			return fmt.Errorf("opening the socket for HEP to %s: %w", t.opt.HEP, err)
		}
		t.net.hep = c.(*net.UDPConn)
	}
	if t.opt.Capture != nil {
		p, err := NewPcap(t.opt.Capture)
		if err != nil {
			return err
		}
		t.net.pcap = p
	}
	return t.furnish(t.net)
}

// furnish makes the engine on a network.
func (t *Trunk) furnish(n network) error {
	t.eng = newEngine(t.opt, n)
	t.eng.agents = make([]int64, t.opt.Agents)
	h, err := n.hosts()
	t.eng.hosts = h
	return err
}

// quantum is how finely the playing is timed: packets due within it go out together. It divides the packets' length,
// so that their distance stays even.
const quantum = 2 * time.Millisecond

// run plays until the context ends.
func (t *Trunk) run() {
	if !t.await() {
		return
	}
	t.eng.begin(t.opt.Now().UnixMicro())
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for t.ctx.Err() == nil {
		timer.Reset(t.play())
		select {
		case <-t.ctx.Done():
		case f := <-t.cmds:
			f()
		case <-timer.C:
		}
	}
}

// await serves commands until calls may begin.
func (t *Trunk) await() bool {
	for t.opt.Begin != nil {
		select {
		case <-t.ctx.Done():
			return false
		case f := <-t.cmds:
			f()
		case <-t.opt.Begin:
			return true
		}
	}
	return true
}

// play plays what is due and returns how long nothing will be.
func (t *Trunk) play() time.Duration {
	now := t.opt.Now().UnixMicro()
	next := t.eng.playDue(now)
	if t.eng.err != nil {
		t.opt.Log.Error("simulated trunk: stopping", "error", t.eng.err)
		t.stop()
	}
	if next < 0 {
		return time.Hour
	}
	return max(quantum, time.Duration(next-now)*time.Microsecond)
}

// Close stops the trunk and waits until all it started has ended.
func (t *Trunk) Close() {
	if t.stop == nil {
		return // never started
	}
	t.once.Do(func() {
		t.stop()
		t.group.Wait()
		t.net.close()
	})
}

// Wait blocks until the context given to Start ends, and then until the trunk has stopped.
func (t *Trunk) Wait() {
	<-t.ctx.Done()
	t.Close()
}

// Done is closed when Options.MaxCalls calls have ended.
func (t *Trunk) Done() <-chan struct{} { return t.eng.done }

// do runs f on the trunk's goroutine and waits for it; false when the trunk has stopped.
func (t *Trunk) do(f func()) bool {
	done := make(chan struct{})
	select {
	case t.cmds <- func() { f(); close(done) }:
	case <-t.ctx.Done():
		return false
	}
	<-done
	return true
}

// view runs f, which only reads, on the trunk's goroutine, or after its end.
func (t *Trunk) view(f func()) {
	if !t.do(f) {
		t.group.Wait()
		f()
	}
}

var errStopped = errors.New("placing a simulated call: the trunk has stopped")

// Place starts one call of a script (see Scripts) with an audio profile (see Profiles; empty: clean) now.
func (t *Trunk) Place(script, profile string) error {
	if err := known(script, profile); err != nil {
		return err
	}
	err := errStopped
	t.do(func() { err = t.eng.place(script, orClean(profile), t.opt.Now().UnixMicro()) })
	return err
}

func orClean(profile string) string {
	if profile == "" {
		return "clean"
	}
	return profile
}

func known(script, profile string) error {
	return Options{Mix: map[string]int{script: 1}, Media: map[string]int{orClean(profile): 1}}.validate()
}

// Stats is what a simulated trunk has done so far.
type Stats struct {
	Started, Ended, Active int64          // calls
	Packets                map[Kind]int64 // sent
	Received               int64          // that came through the sockets
	Unsent                 int64          // that a socket refused
	Unheard                int64          // mirrored ones that nobody listened to
}

// Stats says what has been done so far.
func (t *Trunk) Stats() Stats {
	s := Stats{Packets: map[Kind]int64{}, Received: t.net.received.Load(), Unsent: t.net.unsent.Load(), Unheard: t.net.unheard.Load()}
	t.view(func() { t.eng.stats(&s) })
	return s
}

func (e *engine) stats(s *Stats) {
	s.Started, s.Ended, s.Active = e.started, e.ended, int64(e.active)
	for k, n := range e.packets {
		s.Packets[k] = n
	}
}

// Truths returns what happened in the last Options.Ledger calls that ended.
func (t *Trunk) Truths() []Truth {
	var out []Truth
	t.view(func() { out = append(out, t.eng.truths[max(0, len(t.eng.truths)-t.opt.Ledger):]...) })
	return out
}

// Addrs says where the SIP sockets are, host:port each: the carrier's, the PBX's, the phones'.
func (t *Trunk) Addrs() (carrier, pbx, phones string) {
	h := t.eng.hosts
	return h.carrier.addr.String(), h.pbx.addr.String(), h.phones.addr.String()
}

// Render plays the calls without sockets and without waiting, from opt.Now on: each packet goes to out, in the order of
// time. It ends when opt.MaxCalls calls have ended or, when that is 0, after length of scripted time; out's error ends
// it too. The truth of every call is returned.
func Render(opt Options, length time.Duration, out func(Packet) error) ([]Truth, error) {
	opt.Ledger = max(opt.Ledger, 1<<20)
	t := New(opt)
	err := t.opt.validate()
	if err == nil {
		err = t.furnish(&paper{out: out})
	}
	if err != nil {
		return nil, fmt.Errorf("rendering a simulated trunk: %w", err)
	}
	if t.opt.MaxCalls == 0 && length <= 0 {
		return nil, errors.New("rendering a simulated trunk: set MaxCalls or a length, or it never ends")
	}
	start := t.opt.Now().UnixMicro()
	end := int64(1<<62 - 1)
	if length > 0 {
		end = start + length.Microseconds()
	}
	t.eng.begin(start)
	for next := start; next >= 0 && next <= end && t.eng.err == nil; {
		if t.opt.MaxCalls > 0 && t.eng.ended >= int64(t.opt.MaxCalls) {
			break
		}
		next = t.eng.playDue(next)
	}
	return t.eng.truths, t.eng.err
}
