package router

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/fresh"
)

const (
	takeFrames = 256                   // at most, in one turn of the core loop
	takeBytes  = 16 << 20              // of native bytes, likewise, at a look at its queue
	turnBytes  = 4 << 20               // and in one turn, but for a larger frame
	tickEvery  = 50 * time.Millisecond // of received time
	clockStep  = 2 * call.Second       // how far our clock may go back before that counts as a step
)

type msgKind uint8

const (
	msgFrame msgKind = iota
	msgDead
	msgUp
	msgDown
	msgClock
	msgGap
	msgMissing
	msgTick
	msgNote
)

func (k msgKind) String() string {
	return [...]string{"frame", "dead letter", "session start", "session end", "clock sample", "gap", "change of sight",
		"tick", "note"}[k]
}

// message is what links put into the core loop's queue, and what the loop tells itself: that time has passed (msgTick),
// that a queue was full (msgNote). The loop is a state machine over messages: what it becomes and makes depends on them
// alone, once now and ahead are set.
type message struct {
	kind  msgKind
	link  *link     // none of msgTick
	at    call.Time // received, by our clock
	text  string    // native type, or reason
	raw   []byte
	obs   []call.Observation
	inst  *core.Instance
	clock *core.ClockSample
	from  call.Time // msgNote: of what it tells; at is its end. msgDown, msgGap: up to when all was heard, where that is earlier than the last frame; else 0

	now   call.Time // when the loop took it, as received time: never going back
	ahead call.Time // of now before our clock, see loop.clockTime
}

// received is at, read from our clock lately, as received time. What was read before that clock was set back has no more
// to be added to.
func (m *message) received(at call.Time) call.Time {
	if t := at + m.ahead; t <= m.now {
		return t
	}
	return min(at, m.now)
}

func (m *message) size() int { return 256 + len(m.raw) + 512*len(m.obs) }

// loop is the one goroutine that owns the tracker, the judge and the links' states.
type loop struct {
	r         *Router
	tracker   Tracker
	enrichers []core.Enricher
	fresh     *fresh.Judge

	batch    []message
	inputs   []message   // of this turn, where there is a journal
	unlogged unlogged    // in a cluster
	items    []core.Item // of this turn
	quiet    bool        // the last of inputs is a tick that made nothing
	standby  bool        // another node owns the links
	mute     bool        // replaying: what comes out was published before
	damage   []string    // of the journal, to be told
	now      call.Time   // received time, never going back
	ahead    call.Time   // of our clock, since that was set back
	wall     call.Time   // what our clock told last, at wallRead of the monotonic one
	wallRead time.Time
	ticked   call.Time
	tombs    tombstones
	nth      uint64 // number of the latest turn
	gen      uint64 // of the cluster, see inputs

	active      atomic.Int64
	unprocessed atomic.Int64 // frames taken from the queue when time ran out
}

func newLoop(r *Router) *loop {
	return &loop{r: r, tracker: r.o.Tracker, enrichers: r.o.Enrichers, fresh: r.o.Fresh,
		tombs: tombstones{max: r.o.Tombstones, after: r.o.TombstoneAfter}}
}

// run works until the queue is closed and empty, or hard ends.
func (p *loop) run(hard context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	if p.r.keeper != nil && !p.standby {
		p.began()
		p.flush(hard)
	}
	for open := true; open; {
		select {
		case f := <-p.r.ctl:
			f()
		case <-ticker.C:
			p.beat(hard)
		case read := <-p.followed():
			p.follow(read)
		case <-p.r.in.readable:
			open = p.turn(hard)
		case <-hard.Done():
			return
		}
	}
	p.finish(hard)
}

// followed is where the cluster's log comes from, for a standby.
func (p *loop) followed() chan page {
	if !p.standby {
		return nil
	}
	return p.r.follower.pages
}

// beat is what is to be done now and then.
func (p *loop) beat(hard context.Context) {
	if f := p.r.follower; f != nil {
		f.turn.Store(p.nth)
		f.holds.Store(int64(f.held.n))
		f.blind.Store(f.need)
	}
	if p.standby {
		p.prove()
		p.doubt()
		return
	}
	now := p.clockTime()
	// Only an empty queue lets wall time pass: what is queued was received earlier.
	if p.r.in.len() == 0 {
		p.tick(now)
	}
	p.dropNotes(false)
	p.flush(hard)
}

// finish lets calls that waited for a last queue event end, where nothing can come any more. With a journal they go on
// waiting, for the next start may bring it, and the last turn carries a checkpoint.
func (p *loop) finish(hard context.Context) {
	if p.standby {
		return
	}
	if p.r.keeper != nil {
		p.r.keeper.wantState.Store(true)
	} else {
		p.step(&message{kind: msgTick, now: call.At(p.r.o.Now()) + p.ahead + call.Time(time.Hour/time.Microsecond), ahead: p.ahead})
		p.flush(hard)
	}
	p.dropNotes(true)
	p.flush(hard)
}

// clockTime is what our clock tells, as received time. Received time does not stand still when that clock is set back: it
// goes on from where it was, ahead of the clock, until this process sees the clock set right again.
func (p *loop) clockTime() call.Time {
	wall, set := p.readClock()
	switch {
	case set < -clockStep:
		p.setBack(-set)
	case set > clockStep:
		p.ahead = max(0, p.ahead-set)
	}
	if behind := p.now - p.ahead - wall; behind > clockStep { // what is known is another node's, or from before a start
		p.setBack(behind)
	}
	return wall + p.ahead
}

func (p *loop) setBack(by call.Time) {
	p.r.log.Warn("this machine's clock is behind the time that was told before: time goes on from there", "by", time.Duration(by)*time.Microsecond)
	p.ahead += by
}

// readClock returns what our clock tells, and by how much it was set since it was last read, as the monotonic one shows.
func (p *loop) readClock() (wall, set call.Time) {
	var before, read time.Time
	for range 3 { // the two must be read together
		before = time.Now()
		wall, read = call.At(p.r.o.Now()), time.Now()
		if read.Sub(before) < time.Millisecond {
			break
		}
	}
	if !p.wallRead.IsZero() {
		set = wall - p.wall - call.Time(read.Sub(p.wallRead).Microseconds())
	}
	p.wall, p.wallRead = wall, read
	return wall, set
}

// receivedAt is when m was received, as received time. What was read before our clock was set back comes in between.
func (p *loop) receivedAt(m *message) call.Time {
	if p.ahead == 0 {
		return m.at
	}
	return min(m.at, call.At(p.r.o.Now())) + p.ahead
}

// turn handles what is queued, up to takeFrames.
func (p *loop) turn(hard context.Context) (open bool) {
	p.batch, open = p.r.in.take(p.batch[:0], takeFrames, takeBytes)
	bytes := 0
	for i := range p.batch {
		if hard.Err() != nil {
			p.unprocessed.Add(int64(len(p.batch) - i))
			return false
		}
		if p.r.follower != nil {
			p.watch(&p.batch[i])
		}
		if k := p.batch[i].kind; k == msgDown || k == msgGap {
			p.batch[i].from = earlier(p.batch[i].from, p.r.pauses.lately())
		}
		if p.standby {
			p.hold(&p.batch[i])
		} else {
			p.take(&p.batch[i])
		}
		bytes += len(p.batch[i].raw)
		p.batch[i] = message{}
		if len(p.items) >= 4*takeFrames || bytes >= turnBytes {
			p.flush(hard)
			bytes = 0
		}
	}
	p.active.Store(int64(p.tracker.Active()))
	p.flush(hard)
	return open
}

// earlier is the earlier of two times that are known, those that are not 0.
func earlier(a, b call.Time) call.Time {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// take handles a message of the links that this node owns.
func (p *loop) take(m *message) {
	if f := p.r.follower; f != nil {
		f.held.sift(m, time.Now())
		if m.link.ending { // what its snapshot says is older than what is known
			m.obs = slices.DeleteFunc(m.obs, func(o call.Observation) bool { return ofSnapshot(&o) })
		}
	}
	p.handle(m)
}

// handle takes m from the queue: its time is settled, and time passes up to it.
func (p *loop) handle(m *message) {
	if d := p.now - p.ahead - m.at; d > clockStep || p.ahead > 0 && -d > clockStep {
		p.clockTime() // the clock may have been set since the last beat
	}
	m.now, m.ahead = max(p.now, p.receivedAt(m)), p.ahead
	if m.now-p.ticked >= call.Time(tickEvery.Microseconds()) {
		p.tick(m.now)
	}
	p.step(m)
}

func (p *loop) tick(now call.Time) {
	p.step(&message{kind: msgTick, now: max(p.now, now), ahead: p.ahead})
	p.active.Store(int64(p.tracker.Active()))
}

// step lets m change the loop's state, and notes it for the journal.
func (p *loop) step(m *message) {
	p.now, p.ahead = max(p.now, m.now), m.ahead
	made := len(p.items)
	p.apply(m)
	p.note(m, len(p.items) > made)
}

func (p *loop) apply(m *message) {
	l := m.link
	switch m.kind {
	case msgFrame:
		p.frame(l, m)
	case msgDead:
		p.dead(core.StreamDeadLetter, l, m)
	case msgUp:
		p.up(l, m)
	case msgDown:
		p.down(l, m)
	case msgClock:
		p.clock(l, m)
	case msgGap:
		l.state.settle(m.received(m.at))
		l.state.lost(m)
		p.emit(l, p.tracker.Apply(l.state.ref, call.Observation{Kind: call.LinkGap, At: m.at, Received: m.at}))
		p.gap(l, m, m.text)
	case msgMissing:
		p.missing(l, m)
	case msgNote:
		p.source(l, call.SourceGap, m.at, &call.Source{Reason: m.text, From: min(m.from, m.at), To: m.at})
	case msgTick:
		p.passTime()
	}
	if m.kind <= msgDead {
		p.hear(l, m)
	}
}

func (p *loop) frame(l *link, m *message) {
	if l.raw && len(m.raw) > 0 {
		p.dead(core.StreamRaw, l, m)
	}
	for i := range m.obs {
		o := &m.obs[i]
		if o.Received == 0 {
			o.Received = m.at
		}
		p.observe(l, *o)
	}
	if !p.mute {
		l.tel.ToTracker(p.r.o.Now().Sub(m.at.Std()))
	}
}

// observe applies one observation, and says when a snapshot is complete.
func (p *loop) observe(l *link, o call.Observation) {
	events := p.tracker.Apply(l.state.ref, o)
	if s := l.state.snapshot; s != nil {
		s.saw(&o, events)
	}
	p.emit(l, events)
	if o.Kind == call.SnapshotEnd {
		p.reconciled(l, &o)
	}
}

// passTime lets calls that waited end, and gives ended ones their tombstones.
func (p *loop) passTime() {
	p.ticked = p.now
	p.emit(nil, p.tracker.Tick(p.now))
	p.tombs.due(p.now, func(callID string, link uint16) {
		ref := p.r.links[link].state.ref
		p.items = append(p.items, core.Item{Stream: core.StreamCalls, Key: callID, Switch: ref})
	})
}

// emit enriches, judges and routes events of the tracker. l is nil when time made them rather than a frame.
func (p *loop) emit(l *link, events []*call.Event) {
	for _, e := range events {
		if l == nil {
			e.Time.Received -= p.ahead
		}
		for _, en := range p.enrichers {
			en.Enrich(e)
		}
		of := l
		if of == nil {
			of = p.linkOf(e.Switch.ID)
		}
		p.deliver(of, e)
	}
}

// deliver judges e and makes its items.
func (p *loop) deliver(l *link, e *call.Event) {
	p.fresh.Stamp(e)
	p.items = route(p.items, e)
	if e.Type == call.CallRecord && l != nil {
		p.bury(e, l.index)
	}
	if !p.mute {
		p.told(l, e)
	}
}

// told counts e and shows it to who watches.
func (p *loop) told(l *link, e *call.Event) {
	if l != nil {
		l.tel.Normalized.Add(1)
		l.tel.Verdict(e.Time.Freshness)
	}
	if e.Type == call.CallRecord {
		p.r.o.Telemetry.Call(e.Call)
	}
	if p.r.o.OnEvent != nil {
		p.r.o.OnEvent(e)
	}
}

// bury schedules the call's tombstone; when too many wait, the oldest gets its own at once.
func (p *loop) bury(e *call.Event, link uint16) {
	early, of, full := p.tombs.add(e.CallID, link, p.now)
	if full {
		ref := p.r.links[of].state.ref
		p.items = append(p.items, core.Item{Stream: core.StreamCalls, Key: early, Switch: ref})
	}
}

func (p *loop) linkOf(switchID string) *link {
	for _, l := range p.r.links {
		if l.id == switchID {
			return l
		}
	}
	return nil
}

func (p *loop) dead(s core.Stream, l *link, m *message) {
	p.items = append(p.items, core.Item{Stream: s, Key: l.id, Switch: l.state.ref,
		Dead: &core.DeadLetter{Raw: m.raw, Reason: m.text, Received: m.at}})
}

// flush ends the turn: what it took and made goes to the journal first, where there is one, else to every sink: first to
// each what it has room for, so that a full one holds up none of the others with this turn's items, then it waits for
// those that block.
func (p *loop) flush(hard context.Context) {
	if p.standby {
		return
	}
	if p.r.keeper != nil {
		p.hand()
		return
	}
	if len(p.items) == 0 {
		return
	}
	for _, w := range p.r.sinks {
		w.accept(p.items, p.now)
	}
	for _, w := range p.r.sinks {
		w.waitAccepted(hard)
	}
	clear(p.items)
	p.items = p.items[:0]
}
