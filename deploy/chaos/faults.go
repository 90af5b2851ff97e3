package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Each fault is done, lasts and is undone here. What fails of that is the driver's to note: the plan goes on.

// killNode ends a node with SIGKILL and starts it again.
func (r *run) killNode(f fault) { r.killed(f, func(*node) error { return nil }) }

// killed kills a node, does something to what it left behind, and starts it again.
func (r *run) killed(f fault, meanwhile func(*node) error) {
	n := r.nodes[f.target]
	n.life.Lock()
	defer n.life.Unlock()
	n.kill()
	time.Sleep(f.length)
	if err := meanwhile(n); err != nil {
		r.note("%s of %s: %v", f.kind, n.name, err)
	}
	r.wrong(n.start())
	r.back(n)
}

// back waits until a node that was started again says that it is ready. What else fails meanwhile may keep it from that:
// that all is delivered in the end is what counts.
func (r *run) back(n *node) {
	if err := n.ready(30 * time.Second); err != nil {
		r.note("%v", err)
	}
}

// restartNode ends a node as an upgrade does and starts it again.
func (r *run) restartNode(f fault) {
	n := r.nodes[f.target]
	n.life.Lock()
	defer n.life.Unlock()
	r.wrong(n.drain(30 * time.Second))
	time.Sleep(f.length)
	r.wrong(n.start())
	r.back(n)
}

// partPeers lets nothing pass between the nodes.
func (r *run) partPeers(f fault) {
	for _, n := range r.nodes {
		for _, p := range n.peers {
			p.hold()
			defer func() { p.cut(); p.release() }()
		}
	}
	time.Sleep(f.length)
}

// splitOff keeps a node from Kafka and from its peers: it still hears the switches.
func (r *run) splitOff(f fault) {
	for _, p := range r.kafka.proxies() {
		p.shut(f.target)
		defer p.unshut(f.target)
	}
	for name, n := range r.nodes {
		for to, p := range n.peers {
			if name == f.target || to == f.target {
				p.hold()
				defer func() { p.cut(); p.release() }()
			}
		}
	}
	time.Sleep(f.length)
}

// pullCable keeps a node from everything: nothing that is sent arrives, and nobody is told.
func (r *run) pullCable(f fault) {
	c := r.nodes[f.target].cable
	r.wrong(c.plug(false))
	time.Sleep(f.length)
	r.wrong(c.plug(true))
}

func (r *run) stopNode(f fault) {
	n := r.nodes[f.target]
	n.life.Lock()
	defer n.life.Unlock()
	n.signal(syscall.SIGSTOP)
	time.Sleep(f.length)
	n.signal(syscall.SIGCONT)
}

// linksOf returns the proxies of a target such as n1/ast.
func (r *run) linksOf(target string) []*proxy {
	name, sw, _ := strings.Cut(target, "/")
	return r.nodes[name].links[sw]
}

func each(ps []*proxy, do func(*proxy)) {
	for _, p := range ps {
		do(p)
	}
}

func (r *run) cutLink(f fault) {
	each(r.linksOf(f.target), (*proxy).down)
	time.Sleep(f.length)
	each(r.linksOf(f.target), (*proxy).up)
}

func (r *run) holdLink(f fault) {
	each(r.linksOf(f.target), (*proxy).hold)
	time.Sleep(f.length)
	each(r.linksOf(f.target), (*proxy).release)
}

func (r *run) slowLink(f fault) {
	slow(r.linksOf(f.target), f)
}

func slow(ps []*proxy, f fault) {
	each(ps, func(p *proxy) { p.set(func() { p.delay = time.Duration(f.n) * ms }) })
	time.Sleep(f.length)
	each(ps, func(p *proxy) { p.set(func() { p.delay = 0 }) })
}

// halfFrame lets half of the next piece through and cuts the link.
func (r *run) halfFrame(f fault) {
	each(r.linksOf(f.target), func(p *proxy) { p.set(func() { p.half = true }) })
	time.Sleep(300 * ms)
	each(r.linksOf(f.target), func(p *proxy) { p.set(func() { p.half = false }) })
}

// brokerOf is the number in a target such as "broker 2".
func brokerOf(f fault) (i int) {
	_, _ = fmt.Sscanf(f.target, "broker %d", &i) // the plan wrote it
	return i
}

// stopBroker stops a broker and starts it again, as restartBrokers does with all: one fault after the other, since a start
// may take longer than was planned.
func (r *run) stopBroker(f fault) {
	r.brokers.Lock()
	defer r.brokers.Unlock()
	if err := r.kafka.stop(brokerOf(f)); err != nil {
		r.note("stopping %s: %v", f.target, err)
	}
	time.Sleep(f.length)
	if err := r.kafka.start(brokerOf(f)); err != nil {
		r.note("starting %s: %v", f.target, err)
	}
}

func (r *run) restartBrokers(f fault) {
	r.brokers.Lock()
	defer r.brokers.Unlock()
	if err := r.kafka.restart(f.length); err != nil {
		r.note("restarting the brokers: %v", err)
	}
}

func (r *run) slowBroker(f fault) {
	slow(r.kafka.proxies()[brokerOf(f):][:1], f)
}

// loseAnswers swallows what a broker answers, and then cuts the connections.
func (r *run) loseAnswers(f fault) {
	p := r.kafka.proxies()[brokerOf(f)]
	p.set(func() { p.mute = true })
	time.Sleep(f.length)
	p.cut()
	p.set(func() { p.mute = false })
}

func (r *run) failRequests(f fault) { r.kafka.fail(f.arg, f.n) }

// stepClock sets a switch's clock off and back.
func (r *run) stepClock(f fault) {
	r.sw.by[f.target].SetClockSkew(time.Duration(f.n) * ms)
	time.Sleep(f.length)
	r.sw.by[f.target].SetClockSkew(0)
}

// stepNode sets a node's clock off and back. It may be killed and started again meanwhile.
func (r *run) stepNode(f fault) {
	n := r.nodes[f.target]
	r.wrong(n.setClock(time.Duration(f.n) * ms))
	time.Sleep(f.length)
	r.wrong(n.setClock(0))
}
