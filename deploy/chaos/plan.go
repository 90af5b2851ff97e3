package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/sim"
)

// fault is one thing that goes wrong: what, to whom, when and for how long.
type fault struct {
	kind   string
	target string // n1, n1/ast, broker 0, brokers, n1-n2
	at     time.Duration
	length time.Duration
	arg    string // of failures: which
	n      int    // and how many requests; of clocks: milliseconds
}

func (f fault) String() string {
	s := fmt.Sprintf("%7.3f s  %-16s %-9s", f.at.Seconds(), f.kind, f.target)
	if f.length > 0 {
		s += fmt.Sprintf(" for %v", f.length)
	}
	if f.arg != "" {
		s += fmt.Sprintf(" %s", f.arg)
	}
	if f.n != 0 {
		s += fmt.Sprintf(" %d", f.n)
	}
	return s
}

// placed is one simulated call.
type placed struct {
	at     time.Duration
	sw     string
	script string
}

// plan is a run as its seed and settings decide it.
type plan struct {
	seed   uint64
	length time.Duration
	nodes  []string
	calls  []placed
	faults []fault
}

// kind is a sort of fault.
type kind struct {
	name     string
	weight   int
	min      time.Duration // of its length, in a plan of the usual length
	max      time.Duration
	needs    func(s *settings) bool // nil: nothing
	targets  func(p *plan) []string
	draw     func(r *rand.Rand, f *fault) // more of it; nil: nothing
	disturbs disturbance                  // what it does to the reading of the switches
	run      func(r *run, f fault)
}

// disturbance is what a fault does to the reading of the switches.
type disturbance int

const (
	nothing  disturbance = iota
	delays               // what they send is read late
	misdates             // or told or read at wrong times
	blinds               // or is not read at all
	damages              // or was read and is lost from the journal
)

func journaled(s *settings) bool  { return s.journal }
func doubled(s *settings) bool    { return s.nodes > 1 }
func replicated(s *settings) bool { return journaled(s) && doubled(s) }
func onFake(s *settings) bool     { return !s.live }
func cabled(s *settings) bool     { return s.namespaces }
func clocked(s *settings) bool    { return s.clocks }
func tmpfs(s *settings) bool      { return s.journal && s.root }
func ofNodes(p *plan) []string    { return p.nodes }
func ofBrokers(*plan) []string    { return []string{"broker 0", "broker 1", "broker 2"} }
func ofAllBrokers(*plan) []string { return []string{"brokers"} }
func ofSwitches(*plan) []string   { return []string{asterisk, freeswitch} }
func ofPeers(p *plan) []string    { return []string{strings.Join(p.nodes, "-")} }
func ofLinks(p *plan) (l []string) {
	for _, n := range p.nodes {
		l = append(l, n+"/"+asterisk, n+"/"+freeswitch)
	}
	return l
}

const (
	ms = time.Millisecond

	nodeClock = "node clock"
)

// kinds are all sorts of faults, in a fixed order: the seed decides by it. Lengths are those of a plan of quickLength
// and grow with it.
func kinds() []kind {
	return []kind{
		{name: "kill", weight: 6, min: 100 * ms, max: 1200 * ms, needs: journaled, targets: ofNodes, disturbs: blinds, run: (*run).killNode},
		{name: "restart", weight: 3, min: 50 * ms, max: 500 * ms, needs: journaled, targets: ofNodes, disturbs: blinds, run: (*run).restartNode},
		{name: "stop", weight: 4, min: 200 * ms, max: 2500 * ms, targets: ofNodes, disturbs: blinds, run: (*run).stopNode},
		{name: "link cut", weight: 4, min: 10 * ms, max: 600 * ms, targets: ofLinks, disturbs: blinds, run: (*run).cutLink},
		{name: "link held", weight: 3, min: 100 * ms, max: 1500 * ms, targets: ofLinks, disturbs: blinds, run: (*run).holdLink},
		{name: "link slow", weight: 3, min: 300 * ms, max: 1500 * ms, targets: ofLinks, disturbs: delays, run: (*run).slowLink,
			draw: func(r *rand.Rand, f *fault) { f.n = 5 + r.IntN(60) }},
		{name: "half a frame", weight: 4, targets: ofLinks, disturbs: blinds, run: (*run).halfFrame},
		{name: "broker stop", weight: 4, min: 200 * ms, max: 1500 * ms, targets: ofBrokers, run: (*run).stopBroker},
		{name: "brokers restart", weight: 3, min: 100 * ms, max: 1000 * ms, targets: ofAllBrokers, run: (*run).restartBrokers},
		{name: "broker slow", weight: 3, min: 300 * ms, max: 1500 * ms, targets: ofBrokers, run: (*run).slowBroker,
			draw: func(r *rand.Rand, f *fault) { f.n = 20 + r.IntN(300) }},
		{name: "answer lost", weight: 4, min: 50 * ms, max: 400 * ms, targets: ofBrokers, run: (*run).loseAnswers},
		{name: "broker errors", weight: 6, needs: onFake, targets: ofAllBrokers, run: (*run).failRequests,
			draw: func(r *rand.Rand, f *fault) { f.arg, f.n = failureNames()[r.IntN(len(failureNames()))], 1+r.IntN(4) }},
		{name: "journal torn", weight: 2, min: 50 * ms, max: 600 * ms, needs: journaled, targets: ofNodes, disturbs: blinds, run: (*run).tearJournal},
		{name: "journal flipped", weight: 1, min: 50 * ms, max: 600 * ms, needs: journaled, targets: ofNodes, disturbs: damages, run: (*run).flipJournal},
		{name: "disk lost", weight: 1, min: 50 * ms, max: 600 * ms, needs: replicated, targets: ofNodes, disturbs: blinds, run: (*run).loseDisk},
		{name: "disk full", weight: 2, min: 300 * ms, max: 1500 * ms, needs: tmpfs, targets: ofNodes, disturbs: delays, run: (*run).fillDisk},
		{name: "peers apart", weight: 3, min: 200 * ms, max: 2500 * ms, needs: doubled, targets: ofPeers, run: (*run).partPeers},
		{name: "split", weight: 4, min: 300 * ms, max: 2500 * ms, needs: doubled, targets: ofNodes, disturbs: delays, run: (*run).splitOff},
		{name: "cable pulled", weight: 4, min: 300 * ms, max: 2500 * ms, needs: cabled, targets: ofNodes, disturbs: blinds, run: (*run).pullCable},
		{name: "clock step", weight: 2, min: 300 * ms, max: 1500 * ms, targets: ofSwitches, disturbs: misdates, run: (*run).stepClock,
			draw: minuteOff},
		{name: nodeClock, weight: 3, min: 300 * ms, max: 2500 * ms, needs: clocked, targets: ofNodes, disturbs: misdates, run: (*run).stepNode,
			draw: minuteOff},
	}
}

// minuteOff draws how far a clock is set off: up to a minute, either way.
func minuteOff(r *rand.Rand, f *fault) { f.n = r.IntN(120_000) - 60_000 }

// quickLength is how long faults go on in a run of the quick form.
const quickLength = 5 * time.Second

// newPlan draws a run.
func newPlan(seed uint64, s *settings) *plan {
	r := rand.New(rand.NewPCG(seed, 0x6368616f73))
	p := &plan{seed: seed, length: s.length, nodes: s.names()}
	p.drawCalls(r, s)
	p.drawFaults(r, s)
	return p
}

// drawCalls spreads calls over the run, up to a little before its end.
func (p *plan) drawCalls(r *rand.Rand, s *settings) {
	scripts := sim.Scripts()
	span := p.length - min(p.length/5, 5*time.Second)
	for at := time.Duration(0); at < span; at += time.Duration(r.ExpFloat64() * float64(time.Second) / s.rate) {
		p.calls = append(p.calls, placed{at, ofSwitches(p)[r.IntN(2)], scripts[r.IntN(len(scripts))]})
	}
}

// drawFaults draws as many as the settings want, two at a target never at once.
func (p *plan) drawFaults(r *rand.Rand, s *settings) {
	all := kinds()
	sum := 0
	for _, k := range all {
		if s.plays(&k) {
			sum += k.weight
		}
	}
	if sum == 0 {
		return
	}
	scale := max(1, min(12, float64(p.length)/float64(quickLength)))
	for range s.faults {
		n := r.IntN(sum)
		for _, k := range all {
			if !s.plays(&k) {
				continue
			}
			if n -= k.weight; n < 0 {
				p.add(r, &k, scale)
				break
			}
		}
	}
	slices.SortStableFunc(p.faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
}

func (p *plan) add(r *rand.Rand, k *kind, scale float64) {
	targets := k.targets(p)
	f := fault{kind: k.name, target: targets[r.IntN(len(targets))], at: time.Duration(r.Int64N(int64(p.length))).Round(ms)}
	if k.max > 0 {
		f.length = time.Duration(float64(k.min+time.Duration(r.Int64N(int64(k.max-k.min)))) * (1 + (scale-1)*r.Float64())).Round(ms)
	}
	if k.draw != nil {
		k.draw(r, &f)
	}
	if !slices.ContainsFunc(p.faults, f.clashes) {
		p.faults = append(p.faults, f)
	}
}

// clashes reports whether both at once make no sense: two faults of one target, or two of all brokers.
func (f fault) clashes(g fault) bool {
	if f.kind == "broker errors" || g.kind == "broker errors" {
		return false
	}
	a, b := f.target, g.target
	if f.kind == "peers apart" || g.kind == "peers apart" {
		return f.kind == g.kind && f.at < g.at+g.length && g.at < f.at+f.length
	}
	related := a == b || strings.HasPrefix(a, "broker") && strings.HasPrefix(b, "broker")
	return related && f.at < g.at+g.length+100*ms && g.at < f.at+f.length+100*ms
}

func kindOf(name string) *kind {
	for _, k := range kinds() {
		if k.name == name {
			return &k
		}
	}
	return nil
}
