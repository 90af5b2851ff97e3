package router

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	tailEntries = 256 // how far back the join looks for the latest checkpoint's place
	doubtEvery  = 250 * time.Millisecond
	staleRead   = 2 * time.Second // after which what was read of the log says nothing of now
)

// follower reads the cluster's log for a standby: it brings the core loop to the owner's state and keeps it there.
type follower struct {
	r *Router
	c *Cluster

	pages   chan page
	rejoin  chan struct{} // the loop's state is of no use: read from a checkpoint
	paused  atomic.Bool   // this node is the owner
	resume  chan struct{} // it is not any more
	next    atomic.Int64  // offset to read
	once    sync.Once
	owned   chan struct{} // closed once there is an owner, this node or another
	joined  chan struct{} // closed when the owner's state was reached for the first time
	reached reach
	live    core.Mark              // when the log was last read to its end
	turn    atomic.Uint64          // of the core loop
	holds   atomic.Int64           // observations held
	blind   atomic.Bool            // the loop has not the owner's state
	writer  atomic.Pointer[string] // the node that wrote the latest turn or sign of life

	unproven atomic.Pointer[[]string] // links that would be taken over with a gap

	// Of the core loop.
	need       bool      // the state is not the log's
	own        bool      // the local journal goes on where the log ends
	restarted  bool      // the state is as the journal has it
	stoodDown  bool      // this process has owned the links
	blank      []byte    // the state of a loop that has seen nothing
	saved      assembly  // a checkpoint being read
	taken      assembly  // a turn being read
	state      int64     // offset of the latest checkpoint, -1: none
	last       entry     // the latest turn or sign of life, without its data
	heard      time.Time // when it came
	alive      time.Time // when the latest came that the owner had written just then
	toldNow    call.Time // received time of the latest turn that came so
	toldAt     time.Time // when it came
	unsure     unsures   // turns that were followed and may not have been delivered
	unsureLost drop      // likewise, for want of room
	again      again     // what the stint left that was lost last, until it is known what the state rests on
	held       *held
	toldTo     int64     // offset up to which held knows what the owner told
	hole       int64     // offset of the latest turn that did not follow: a checkpoint before it leads there again
	doubted    time.Time // when the owner was last said to hang
}

func newFollower(r *Router, c *Cluster) *follower {
	return &follower{r: r, c: c, pages: make(chan page), rejoin: make(chan struct{}, 1), resume: make(chan struct{}, 1),
		joined: make(chan struct{}), owned: make(chan struct{}), state: -1, toldTo: -1, hole: -1, held: newHeld(), heard: time.Now()}
}

// reach is how far into the log the loop has taken all since it last had to find its state anew.
type reach struct {
	mu      sync.Mutex
	to      int64 // offset
	wanted  int   // how often the state was to be found
	current int   // and which of these the reading is about
}

// lost says that the loop's state is not the log's.
func (r *reach) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted++
	r.to = -1
}

// begin says that the reading begins where the state is found that is wanted now.
func (r *reach) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = r.wanted
}

// got says that the loop has taken all up to an offset.
func (r *reach) got(to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == r.wanted {
		r.to = to
	}
}

// has reports whether the loop has taken all up to end, and its state is the log's, as far as that has one.
func (r *reach) has(end int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current == r.wanted && r.to >= end
}

// run reads the log until ctx ends, but for the times in which this node owns the links.
func (f *follower) run(ctx context.Context) {
	f.join(ctx)
	for ctx.Err() == nil {
		select {
		case <-f.rejoin:
			f.join(ctx)
		default:
		}
		if !f.paused.Load() {
			f.read(ctx)
			continue
		}
		select {
		case <-f.resume:
		case <-ctx.Done():
		}
	}
}

// read reads what follows and hands it to the core loop.
func (f *follower) read(ctx context.Context) {
	next := f.next.Load()
	got, err := f.c.Log.Read(ctx, next)
	if err != nil {
		f.trouble(ctx, err)
		return
	}
	if got.Next < next && !f.anew(ctx) { // the log was made anew
		return
	}
	if len(got.Entries) > 0 && !f.give(ctx, page{got.Entries, f.isJoined()}) {
		return
	}
	if !f.next.CompareAndSwap(next, got.Next) {
		return // another stint has moved it
	}
	f.reached.got(got.Next)
	if got.Next >= got.End {
		f.live.Set()
		f.once.Do(func() { close(f.joined) })
	}
}

// anew forgets where things were in a log that is no more. It reports whether to go on.
func (f *follower) anew(ctx context.Context) bool {
	f.r.log.Warn("cluster: the log is shorter than it was: it was made anew")
	return f.r.do(ctx, func() {
		f.toldTo, f.hole, f.state = -1, -1, -1
		if f.r.loop.standby {
			f.r.loop.lose(f)
		}
	}) == nil
}

func (f *follower) trouble(ctx context.Context, err error) {
	if ctx.Err() == nil {
		f.r.log.Warn("cluster: reading the log: trying again", "error", err)
		sleep(ctx, f.r.o.SinkBackoff.Min)
	}
}

// page is entries of the log. They are fresh when they were written since this node had read the log to its end.
type page struct {
	entries []core.LogEntry
	fresh   bool
}

// give hands a page to the core loop, which takes none while this node is the owner.
func (f *follower) give(ctx context.Context, p page) bool {
	select {
	case f.pages <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

// join finds where to begin: at the latest checkpoint, or at the log's end where the local journal goes on from there.
func (f *follower) join(ctx context.Context) {
	f.reached.begin()
	for ctx.Err() == nil {
		next, err := f.tryJoin(ctx)
		if err == nil {
			f.next.Store(next)
			return
		}
		f.trouble(ctx, err)
	}
}

func (f *follower) tryJoin(ctx context.Context) (next int64, err error) {
	end, err := f.c.Log.End(ctx)
	if err != nil {
		return 0, err
	}
	last, err := f.tail(ctx, end)
	if err != nil {
		return 0, err
	}
	err = f.r.do(ctx, func() {
		if next = f.begin(last, end); next > f.toldTo+1 && !f.own {
			for _, l := range f.r.links {
				l.begunAnew(time.Now()) // what is passed over may have told of what is held
			}
		}
	})
	return next, err
}

// tail returns the last entry before end that says where the latest checkpoint is; nil when there is none.
func (f *follower) tail(ctx context.Context, end int64) (last *entry, err error) {
	for back := int64(tailEntries); ; back *= 4 { // there may be nothing but a checkpoint's pieces
		if last, err = f.lastFrom(ctx, max(0, end-back)); err != nil || last != nil || back >= end {
			return last, err
		}
	}
}

// lastFrom reads the log from an offset on and returns the last entry that is no piece of a checkpoint, without its data.
func (f *follower) lastFrom(ctx context.Context, from int64) (last *entry, err error) {
	for {
		page, err := f.c.Log.Read(ctx, from)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			got, err := readEntry(e.Data)
			if err != nil {
				f.r.log.Error("cluster: an entry of the log cannot be read", "offset", e.Offset, "error", err)
				continue
			}
			if got.kind != entryState {
				got.data = nil
				last = &got
			}
		}
		from = page.Next
		if from >= page.End {
			return last, nil
		}
	}
}

// begin decides, on the core loop, what the state rests on.
func (f *follower) begin(last *entry, end int64) (next int64) {
	p := f.r.loop
	f.saved, f.taken, f.unsure = assembly{}, assembly{}, unsures{}
	next = f.rest(last, end)
	if f.own { // what the stint left is in the state, until another node turns out to own the links
		return next
	}
	p.holdAgain(f.again.logged, f.again.parts)
	f.again = again{}
	if f.held.n > 0 { // what lies before the checkpoint may tell of it
		next = min(next, f.toldTo+1)
	}
	return next
}

// rest sets own and need, and says where to go on reading.
func (f *follower) rest(last *entry, end int64) (next int64) {
	p := f.r.loop
	switch {
	case last == nil:
		f.own, f.need = f.restarted, !f.restarted
		return 0
	case f.restarted && last.node == f.c.Node && last.gen <= p.gen && last.turn <= p.nth:
		f.own, f.need, f.state, f.last = true, false, last.state, *last
		return end
	}
	f.own, f.need = false, true
	if f.hole >= 0 && last.state <= f.hole { // a newer one is to come
		return f.hole + 1
	}
	return max(0, last.state)
}

// isOwned lets the links begin.
func (f *follower) isOwned() {
	select {
	case <-f.owned:
	default:
		close(f.owned)
	}
}

func (f *follower) isJoined() bool {
	select {
	case <-f.joined:
		return true
	default:
		return false
	}
}

// follow takes entries of the log, on the core loop of a standby.
func (p *loop) follow(read page) {
	f := p.r.follower
	for _, raw := range read.entries {
		e, err := readEntry(raw.Data)
		if err != nil {
			p.r.log.Error("cluster: an entry of the log cannot be read", "offset", raw.Offset, "error", err)
			continue
		}
		p.followOne(f, &e, raw.Offset, read.fresh)
	}
	p.active.Store(int64(p.tracker.Active()))
}

func (p *loop) followOne(f *follower, e *entry, offset int64, fresh bool) {
	if e.kind == entryState {
		p.followState(f, e, offset)
		return
	}
	f.heard = time.Now()
	if fresh {
		f.alive = f.heard
		f.isOwned()
	}
	if e.kind == entryTurn {
		if data, whole := f.taken.add(e, offset); whole {
			was := p.now
			p.followTurn(f, data, offset)
			if fresh && p.now > was {
				f.toldNow, f.toldAt = p.now, f.heard
			}
		}
	}
	f.state = max(f.state, e.state)
	f.unsure.delivered(e.delivered)
	if f.last.node != e.node {
		f.writer.Store(&e.node)
	}
	e.data = nil
	f.last = *e
}

// followTurn applies what the owner took.
func (p *loop) followTurn(f *follower, data []byte, offset int64) {
	in, err := readInputs(data, p.linkOf)
	if err != nil {
		p.r.log.Error("cluster: a turn of the log cannot be read: starting from a checkpoint", "error", err)
		p.lose(f)
		return
	}
	news := offset > f.toldTo // not read once more
	f.toldTo = max(f.toldTo, offset)
	for i := range in.msgs {
		m := &in.msgs[i]
		if m.kind == msgFrame && news {
			f.held.told(m, f.heard)
		}
		if m.kind == msgUp && news {
			f.held.before(m.link, f.heard)
			m.link.begunAnew(f.heard)
		}
	}
	if f.own { // another node's first turn holds what this one may not have delivered: it stands with that turn's checkpoint
		p.lose(f)
		return
	}
	if f.need || in.turn <= p.nth {
		return
	}
	if in.turn != p.nth+1 {
		p.r.log.Warn("cluster: the log goes on with another turn than expected: starting from a checkpoint", "turn", in.turn, "expected", p.nth+1)
		f.hole = offset
		p.lose(f)
		return
	}
	p.repeat(&in)
	f.unsure.add(in.turn, p.items, p.now)
	p.items = nil
}

// repeat applies a turn that was taken before or elsewhere. What comes of it is left in items.
func (p *loop) repeat(in *inputs) {
	p.mute = true
	defer func() { p.mute = false }()
	p.nth, p.gen = in.turn, in.gen
	for i := range in.msgs {
		p.step(&in.msgs[i])
	}
}

// lose has the follower bring a state again.
func (p *loop) lose(f *follower) {
	f.need, f.own = true, false
	f.reached.lost()
	signal(f.rejoin)
}

// followState collects a checkpoint, and takes it over when the state is not what it should be.
func (p *loop) followState(f *follower, e *entry, offset int64) {
	raw, whole := f.saved.add(e, offset)
	if !whole {
		return
	}
	f.state = f.saved.at
	if f.need {
		if err := p.adopt(f, raw); err != nil {
			p.r.log.Error("cluster: a checkpoint of the log cannot be used", "error", err)
		}
	}
}

func (p *loop) adopt(f *follower, raw []byte) error {
	var s savedTurns
	pack := new(call.Pack)
	pack.Read(raw)
	s.pack(pack)
	if err := pack.Done(); err != nil {
		return fmt.Errorf("reading a checkpoint of the cluster, %d bytes: %w", len(raw), err)
	}
	if err := p.restoreState(s.state); err != nil {
		return err
	}
	p.gen, f.need, f.restarted = s.gen, false, false
	f.unsure.set(s.turns)
	p.r.log.Info("cluster: the owner's state is here", "turn", p.nth, "active_calls", p.tracker.Active())
	return nil
}

// begunAnew notes that the owner tells of l from the beginning of a session, or that this node has not read all it told.
func (l *link) begunAnew(now time.Time) {
	l.told, l.toldBy, l.anew = time.Time{}, feeds{}, now
	l.begun++
}

// watch notes what this node's own session of a link is, whoever owns the link.
func (p *loop) watch(m *message) {
	l := m.link
	switch m.kind {
	case msgUp:
		l.own, l.ownSince, l.ownBlind, l.ending = m.inst, time.Time{}, m.inst.Missing, false
	case msgDown:
		l.own, l.ending = nil, false
	case msgMissing, msgGap: // part of it was not heard
		if m.inst != nil && l.own != nil {
			own := *l.own
			own.Missing = m.inst.Missing
			l.own = &own
		}
		if !l.ownSince.IsZero() {
			l.ownSince = time.Now()
		}
	case msgFrame:
		if l.ownSince.IsZero() && slices.ContainsFunc(m.obs, func(o call.Observation) bool { return o.Kind == call.SnapshotEnd }) {
			l.ownSince = time.Now()
		}
	}
}

// hold takes a message of this node's own links while another node owns them: what a frame shows is held once the
// session's snapshot is over.
func (p *loop) hold(m *message) {
	l := m.link
	switch m.kind {
	case msgFrame:
		if !l.ownSince.IsZero() {
			p.r.follower.held.hold(m, time.Now())
		}
	case msgUp:
		l.tel.Up.Store(true)
		l.stats.came(m.inst, m.at)
		p.r.log.Info("link up, standing by", "link", l.id, "version", m.inst.Version)
	case msgDown:
		l.tel.Up.Store(false)
		l.stats.failed(m.text, m.at)
	}
}

// doubt looks whether the owner hangs: the log is read to its end, and what came here long ago is not in it, or not even
// a sign of life.
func (p *loop) doubt() {
	f, now := p.r.follower, time.Now()
	if f.last.node == "" || f.live.Ago() > staleRead || now.Sub(f.doubted) < doubtEvery {
		return
	}
	switch old := f.held.overdue(now, f.c.HungAfter); {
	case old != nil:
		f.doubted = now
		f.c.Hung(fmt.Sprintf("an event of link %s came here %s ago and is not in the log", old.frame.link.id, now.Sub(old.since).Round(time.Millisecond)))
	case now.Sub(f.heard) > f.c.HungAfter+time.Second:
		f.doubted = now
		f.c.Hung(fmt.Sprintf("no sign of life of node %s for %s", f.last.node, now.Sub(f.heard).Round(time.Millisecond)))
	}
}
