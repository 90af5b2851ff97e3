package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// proxy passes TCP connections on to a target and can disturb them. It listens on loopback for as long as the run goes.
type proxy struct {
	name string
	ln   net.Listener
	work sync.WaitGroup

	mu     sync.Mutex
	target string
	pairs  map[*pair]bool
	refuse bool                     // close whoever comes
	open   chan struct{}            // closed while bytes pass
	mute   bool                     // what the target answers is swallowed
	delay  time.Duration            // of every piece, either way
	half   bool                     // the next piece of the target is cut in the middle, and the link with it
	whose  func(net.Conn) string    // names the client; nil: all are alike
	closed map[string]chan struct{} // for these clients nothing passes until it is closed
}

// pair is a client's connection and ours to the target.
type pair struct {
	client, target net.Conn
	who            string
	done           chan struct{} // closed when either has ended
	once           sync.Once
}

func (p *pair) cut() {
	p.once.Do(func() { close(p.done) })
	p.client.Close()
	p.target.Close()
}

// newProxy listens on a free port of host; target may be set later.
func newProxy(host, name, target string) (*proxy, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("opening the proxy to %s: %w", name, err)
	}
	p := &proxy{name: name, ln: ln, target: target, pairs: map[*pair]bool{}, open: make(chan struct{}), closed: map[string]chan struct{}{}}
	close(p.open)
	p.work.Go(p.serve)
	return p, nil
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) to(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) close() {
	p.ln.Close()
	p.set(func() { p.refuse = true })
	p.cut()
	p.work.Wait()
}

func (p *proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// cut ends every connection.
func (p *proxy) cut() {
	p.set(func() {
		for x := range p.pairs {
			x.cut()
		}
	})
}

// down cuts and refuses until up.
func (p *proxy) down() {
	p.set(func() { p.refuse = true })
	p.cut()
}

func (p *proxy) up() { p.set(func() { p.refuse = false }) }

// hold lets nothing pass, and nobody know, until release.
func (p *proxy) hold() { p.set(func() { p.open = make(chan struct{}) }) }

func (p *proxy) release() {
	p.set(func() {
		select {
		case <-p.open:
		default:
			close(p.open)
		}
	})
}

// shut lets nothing of one client pass until unshut.
func (p *proxy) shut(who string) { p.set(func() { p.closed[who] = make(chan struct{}) }) }

// unshut cuts what the client had open, as a network that comes back after long does, and lets it connect again.
func (p *proxy) unshut(who string) {
	p.set(func() {
		if c := p.closed[who]; c != nil {
			delete(p.closed, who)
			close(c)
		}
		for x := range p.pairs {
			if x.who == who {
				x.cut()
			}
		}
	})
}

func (p *proxy) serve() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.pass(c) })
	}
}

// dial connects a client to the target, or turns it away.
func (p *proxy) dial(c net.Conn) *pair {
	p.mu.Lock()
	refuse, target, whose := p.refuse || p.target == "", p.target, p.whose
	p.mu.Unlock()
	if refuse {
		return nil
	}
	who := ""
	if whose != nil {
		who = whose(c)
	}
	t, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		return nil
	}
	x := &pair{client: c, target: t, who: who, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse {
		x.cut()
		return nil
	}
	p.pairs[x] = true
	return x
}

func (p *proxy) pass(c net.Conn) {
	x := p.dial(c)
	if x == nil {
		c.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(x, c, x.target, false) })
	both.Go(func() { p.pump(x, x.target, c, true) })
	both.Wait()
	p.set(func() { delete(p.pairs, x) })
}

// pump copies from one to the other until either ends. answers is the target's direction.
func (p *proxy) pump(x *pair, from, to net.Conn, answers bool) {
	defer x.cut()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.forward(x, to, buf[:n], answers) {
			return
		}
		if err != nil {
			return
		}
	}
}

// forward writes one piece as the proxy's state says.
func (p *proxy) forward(x *pair, to net.Conn, b []byte, answers bool) bool {
	p.mu.Lock()
	open, closed, delay := p.open, p.closed[x.who], p.delay
	half := answers && p.half
	p.half = p.half && !half
	p.mu.Unlock()
	if !opened(open, x.done) || closed != nil && !opened(closed, x.done) {
		return false
	}
	if delay > 0 && !sleepOr(x.done, delay) {
		return false
	}
	p.mu.Lock()
	mute := answers && p.mute
	p.mu.Unlock()
	switch {
	case mute:
		return true
	case half:
		_, _ = to.Write(b[:(len(b)+1)/2]) // the link is cut next whether it went through or not
		return false
	}
	_, err := to.Write(b)
	return err == nil
}

// opened waits for a gate, and reports whether it opened before done.
func opened(gate, done <-chan struct{}) bool {
	select {
	case <-gate:
		return true
	case <-done:
		return false
	}
}

// sleepOr reports whether d went by before done.
func sleepOr(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
		return false
	}
}
