package sim

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Counters of a switch.
const (
	countChannel = iota
	countName
	countCall
	countSession
	countEvent
	countersNumber
)

// output is what a switch does with a step that is due.
type output interface {
	send(c *simCall, s *step)
	ended(c *simCall)
}

// engine plays the calls of one switch. Everything in it belongs to the goroutine that runs run; others reach it
// through do.
type engine struct {
	opt     Options
	kind    string
	out     output
	rng     *rand.Rand
	side    *rand.Rand // for what readers ask for, which must not change the calls
	mix     mixer
	scores  map[string]*score
	staff   *staff
	boot    int64 // microseconds since the epoch, without skew
	globals [globalsNumber]string
	counts  [countersNumber]int64
	clock   clockText
	appAt   int

	heap    timeline
	order   uint64
	calls   map[int64]*simCall
	pending int   // arrivals held back by MaxActive
	started int64 // calls
	endedN  int64
	skew    func() time.Duration
	cmds    chan func()
	done    chan struct{} // closed when MaxCalls calls have ended
}

func newEngine(kind string, opt Options, out output) *engine {
	e := &engine{opt: opt, boot: opt.Now().UnixMicro(), kind: kind, out: out, scores: map[string]*score{}, staff: newStaff(opt.Agents),
		mix: newMixer(opt.Mix), calls: map[int64]*simCall{}, cmds: make(chan func()), done: make(chan struct{})}
	e.rng = rand.New(rand.NewPCG(opt.Seed, fnv(kind)))
	e.side = rand.New(rand.NewPCG(opt.Seed, ^fnv(kind)))
	e.globals[globalCore] = randomLike(e.rng, "16b894de-02df-4902-a4c3-17c2275ab1a2")
	e.globals[globalEntity] = fmt.Sprintf("02:fc:%02x:%02x:%02x:%02x", e.rng.IntN(256), e.rng.IntN(256), e.rng.IntN(256), e.rng.IntN(256))
	return e
}

func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// load compiles every script that may be played.
func (e *engine) load() error {
	for name := range e.opt.Mix {
		if _, err := e.score(name); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) score(name string) (*score, error) {
	if sc, ok := e.scores[name]; ok {
		return sc, nil
	}
	sc, err := loadScore(e.kind, name)
	if err != nil {
		return nil, err
	}
	e.scores[name] = sc
	return sc, nil
}

func (e *engine) count(which int) int64 { return e.countBy(which, 1) }

func (e *engine) countBy(which int, n int64) int64 {
	e.counts[which] += n
	return e.counts[which]
}

// stamp is a scripted time as the switch's own clock tells it.
func (e *engine) stamp(t int64) int64 { return t + e.skew().Microseconds() }

// event is one thing due at a time. Ties go by the order they were scheduled in.
type event struct {
	at    int64
	order uint64
	call  *simCall
	do    func()
}

type timeline []event

func (t timeline) Len() int { return len(t) }
func (t timeline) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].order < t[j].order
}
func (t timeline) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timeline) Push(x any)   { *t = append(*t, x.(event)) }
func (t *timeline) Pop() any {
	old := *t
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*t = old[:len(old)-1]
	return x
}

func (e *engine) at(t int64, do func()) { e.push(event{at: t, do: do}) }

func (e *engine) push(x event) {
	e.order++
	x.order = e.order
	heap.Push(&e.heap, x)
}

// replaceTop puts the first event back with a new time: cheaper than taking it out and in.
func (e *engine) replaceTop(at int64) {
	e.order++
	e.heap[0].at, e.heap[0].order = at, e.order
	heap.Fix(&e.heap, 0)
}

// begin starts the arrivals.
func (e *engine) begin() {
	if e.opt.Rate > 0 && len(e.mix.names) > 0 {
		e.at(e.opt.Now().UnixMicro()+e.gap(), e.arrive)
	}
}

// await serves commands until enough readers take events.
func (e *engine) await(ctx context.Context, readers func() int, arrived <-chan struct{}) {
	for readers() < e.opt.Readers {
		select {
		case <-ctx.Done():
			return
		case f := <-e.cmds:
			f()
		case <-arrived:
		}
	}
}

// gap draws the time to the next arrival: a Poisson process.
func (e *engine) gap() int64 {
	return int64(math.Min(e.rng.ExpFloat64()/e.opt.Rate, 3600) * second)
}

func (e *engine) arrive() {
	if e.opt.MaxCalls > 0 && e.started+int64(e.pending) >= int64(e.opt.MaxCalls) {
		return
	}
	now := e.heap[0].at
	if e.full() {
		e.pending++
	} else if _, err := e.place(e.mix.draw(e.rng), now); err != nil {
		e.opt.Log.Error("placing a simulated call", "error", err)
	}
	e.at(now+e.gap(), e.arrive)
}

func (e *engine) full() bool { return e.opt.MaxActive > 0 && len(e.calls) >= e.opt.MaxActive }

// place starts a call of script name at scripted time now.
func (e *engine) place(name string, now int64, wanted ...*agent) (*simCall, error) {
	sc, err := e.score(name)
	if err != nil {
		return nil, err
	}
	e.started++
	c := &simCall{sw: e, sc: sc, number: e.started, start: now}
	c.rng = rand.New(rand.NewPCG(e.opt.Seed^fnv(e.kind), uint64(c.number)))
	c.hire(scripts[name], c.drawWaits(), wanted)
	c.fill(c.queueIndex())
	c.rng = nil // its draws are done: half a kilobyte a call
	c.truth.describe(c, scripts[name])
	e.calls[c.number] = c
	c.due = c.dueAt(c.sc.steps[0].at)
	e.push(event{at: c.due, call: c})
	return c, nil
}

// dueAt is when a step recorded at t is sent: when it happens, and the latency drawn for it later.
func (c *simCall) dueAt(t int64) int64 {
	o := &c.sw.opt
	at := c.warp(t) + o.Latency.Microseconds()
	if o.Jitter > 0 {
		at += c.sw.rng.Int64N(o.Jitter.Microseconds() + 1)
	}
	return max(at, c.due)
}

// step sends what is due of the first event's call.
func (e *engine) step(c *simCall) {
	s := c.current()
	if s == nil {
		heap.Pop(&e.heap)
		e.finish(c)
		return
	}
	if s.proto == protoESL {
		c.numberStep(s)
	}
	c.begin(s)
	c.next++
	c.noteAgent(s)
	e.out.send(c, s)
	n := c.current()
	if n == nil {
		heap.Pop(&e.heap)
		e.finish(c)
		return
	}
	c.due = c.dueAt(n.at)
	e.replaceTop(c.due)
}

// noteAgent keeps what Asterisk says about a queue's member up to date.
func (c *simCall) noteAgent(s *step) {
	if s.typ == "AgentComplete" {
		a := c.agent(0)
		a.taken++
		a.last = c.warp(s.at)
	}
}

func (e *engine) finish(c *simCall) {
	if _, ok := e.calls[c.number]; !ok {
		return
	}
	delete(e.calls, c.number)
	e.endedN++
	e.out.ended(c)
	if e.endedN == int64(e.opt.MaxCalls) {
		close(e.done)
	}
	if e.pending > 0 && !e.full() {
		e.pending--
		if _, err := e.place(e.mix.draw(e.rng), max(c.due, e.boot)); err != nil {
			e.opt.Log.Error("placing a simulated call", "error", err)
		}
	}
}

// run plays until ctx ends.
func (e *engine) run(ctx context.Context, f *front) {
	e.await(ctx, f.readers, f.arrived)
	e.begin()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait := e.playDue(ctx)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case f := <-e.cmds:
			f()
		case <-timer.C:
		}
	}
}

// playDue plays what is due and returns how long nothing will be.
func (e *engine) playDue(ctx context.Context) time.Duration {
	now := e.opt.Now().UnixMicro()
	for n := 0; len(e.heap) > 0; n++ {
		if n&63 == 63 {
			e.poll(ctx)
			now = e.opt.Now().UnixMicro()
		}
		top := e.heap[0]
		if !e.opt.Unpaced && top.at > now {
			return time.Duration(top.at-now) * time.Microsecond
		}
		if ctx.Err() != nil {
			return 0
		}
		if top.call != nil {
			e.step(top.call)
			continue
		}
		top.do()
		e.drop(top.order)
	}
	return time.Hour
}

// drop takes a done event out; what it did may have put others before it.
func (e *engine) drop(order uint64) {
	for i := range e.heap {
		if e.heap[i].order == order {
			heap.Remove(&e.heap, i)
			return
		}
	}
}

// poll serves one waiting command without blocking.
func (e *engine) poll(context.Context) {
	select {
	case f := <-e.cmds:
		f()
	default:
	}
}

// do runs f on the switch's goroutine and waits for it; false when the switch has stopped.
func (e *engine) do(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	select {
	case e.cmds <- func() { f(); close(done) }:
	case <-ctx.Done():
		return false
	}
	<-done
	return true
}

// now is the switch's time: that of the step being played when unpaced, the clock's otherwise.
func (e *engine) now() int64 {
	if e.opt.Unpaced && len(e.heap) > 0 {
		return e.heap[0].at
	}
	return e.opt.Now().UnixMicro()
}
