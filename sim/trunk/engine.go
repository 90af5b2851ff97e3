package trunk

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// event is one thing due at a time, in microseconds since the epoch. Ties go by the order they were scheduled in.
type event struct {
	at     int64
	order  uint64
	stream *stream // whose next packet it is; else
	do     func(at int64)
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

// engine plays the calls. Everything in it belongs to the goroutine that plays.
type engine struct {
	opt    Options
	net    network
	sounds *tables
	rng    *rand.Rand
	mix    mixer
	media  mixer
	hosts  hosts

	heap    timeline
	order   uint64
	now     int64 // of the step being played
	active  int
	agents  []int64 // until when each is busy, scripted
	started int64
	ended   int64
	packets map[Kind]int64
	truths  []Truth
	scratch []byte
	err     error // of handing a packet on: ends the play
	done    chan struct{}
}

// hosts are the SIP sockets.
type hosts struct {
	carrier, pbx, phones, stranger *endpoint
}

func newEngine(opt Options, n network) *engine {
	e := &engine{opt: opt, net: n, sounds: newTables(), mix: newMixer(opt.Mix), media: newMixer(opt.Media), packets: map[Kind]int64{}, done: make(chan struct{})}
	e.rng = rand.New(rand.NewPCG(opt.Seed, 0x74727562))
	return e
}

func (e *engine) at(t int64, do func(at int64)) {
	e.order++
	heap.Push(&e.heap, event{at: t, order: e.order, do: do})
}

func (e *engine) run(s *stream, t int64) {
	e.order++
	heap.Push(&e.heap, event{at: t, order: e.order, stream: s})
}

// playDue plays what is due at now and returns when the next thing is, or -1 when there is nothing.
func (e *engine) playDue(now int64) int64 {
	for len(e.heap) > 0 && e.err == nil {
		top := &e.heap[0]
		if top.at > now {
			return top.at
		}
		e.now = top.at
		s, do := top.stream, top.do
		if s == nil {
			heap.Pop(&e.heap)
			do(e.now)
			continue
		}
		next, more := s.tick(e, e.now)
		e.reschedule(s, next, more)
	}
	return -1
}

// reschedule moves the stream's event, which is still on top but for what was scheduled at the same time.
func (e *engine) reschedule(s *stream, next int64, more bool) {
	i := 0
	for e.heap[i].stream != s {
		i++
	}
	if !more {
		heap.Remove(&e.heap, i)
		return
	}
	e.order++
	e.heap[i].at, e.heap[i].order = next, e.order
	heap.Fix(&e.heap, i)
}

// send hands one packet to the network.
func (e *engine) send(k Kind, src *endpoint, dst *endpoint, callID string, b []byte) {
	e.packets[k]++
	p := Packet{At: time.UnixMicro(e.now).UTC(), Kind: k, Src: src.addr, Dst: dst.addr, CallID: callID, Payload: b}
	if err := e.net.send(src, p); err != nil && e.err == nil {
		e.err = err
	}
}

// begin lets the phones log in at time t and starts the arrivals.
func (e *engine) begin(t int64) {
	e.registers(t)
	if e.opt.Rate > 0 && len(e.mix.names) > 0 {
		e.at(t+e.gap(), e.arrive)
	}
}

// gap draws the time to the next arrival: a Poisson process, bounded by an hour.
func (e *engine) gap() int64 {
	return int64(min(e.rng.ExpFloat64()/e.opt.Rate, 3600) * second)
}

// arrive starts a call, unless there are enough, and orders the next arrival.
func (e *engine) arrive(at int64) {
	if e.opt.MaxCalls > 0 && e.started >= int64(e.opt.MaxCalls) {
		return
	}
	script, profile := e.mix.draw(e.rng), e.media.draw(e.rng)
	if e.active < e.opt.MaxActive {
		if err := e.place(script, profile, at); err != nil {
			e.opt.Log.Error("placing a simulated call", "error", err)
		}
	}
	e.at(at+e.gap(), e.arrive)
}

// place decides all of a call that begins now.
func (e *engine) place(script, profile string, at int64) error {
	e.started++
	p := newPlan(e, script, profile, at)
	if err := p.compose(); err != nil {
		p.release()
		e.over()
		return err
	}
	e.active++
	for _, s := range p.steps {
		e.at(s.at, s.do)
	}
	e.at(p.last(), func(int64) { e.finish(p) })
	return nil
}

// finish settles a call of which nothing more will be sent.
func (e *engine) finish(p *plan) {
	p.settle()
	p.release()
	e.active--
	e.truths = append(e.truths, p.truth)
	if over := len(e.truths) - e.opt.Ledger; over > e.opt.Ledger/4 {
		e.truths = append(e.truths[:0], e.truths[over:]...)
	}
	e.over()
}

// over counts a call that has ended.
func (e *engine) over() {
	if e.ended++; e.ended == int64(e.opt.MaxCalls) {
		close(e.done)
	}
}
