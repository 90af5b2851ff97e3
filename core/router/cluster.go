package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/journal"
)

// Cluster is what a router that shares its links with other nodes needs. It begins as a standby: it reads every link and
// the log, and publishes nothing, until TakeOver. It needs a journal.
type Cluster struct {
	Node string   // this node's name
	Log  core.Log // of what the owner took from its links
	// Owner reports whether this node may publish now: that it owns the links and its lease runs. It is cheap.
	Owner func() bool
	// Hung is told, again and again, while the owner seems to hang. It must not block. It is for the callee to know
	// whether the owner has had the time to begin.
	Hung      func(reason string)
	HungAfter time.Duration // how long what came here may be missing in the log
	// Fenced is told that another node shut this one out, which owns the links as far as it knows. It must not block.
	Fenced func(err error)
}

// wait waits until this node may publish. It reports false when ctx has ended.
func (c *Cluster) wait(ctx context.Context) bool {
	for !c.Owner() {
		if !sleep(ctx, leasePause) {
			return false
		}
	}
	return ctx.Err() == nil
}

// A link is taken over without a snapshot when nothing can have been said between what the owner told and what this node
// holds. What proves it is that the owner told of something that this node heard as well.
const (
	// overlap is how long both must have listened by then: the channels of one switch are not in step.
	overlap = time.Second
	// quietOverlap is how long they must have listened when the switch said nothing. A link of the owner's that hangs is
	// known to be down by then.
	quietOverlap = time.Minute
)

// staleLog is how long the log may have taken nothing from an owner that is well: it writes a sign of life each aliveEvery.
const staleLog = 3 * time.Second

// stint is one time of owning the links: the stages behind the core loop run for its length. Without a cluster there is
// one, for all of Run.
type stint struct {
	ctx    context.Context
	cancel context.CancelFunc
	stages sync.WaitGroup
	x      *replicator // nil without a cluster
	own    bool        // it went on from this node's journal
}

// LogWriter is the node that wrote the latest turn or sign of life in the cluster's log, as far as this node has read it.
func (r *Router) LogWriter() string {
	if w := r.follower.writer.Load(); w != nil {
		return *w
	}
	return ""
}

// Joined is closed once this standby has read the cluster's log to its end, and may take over.
func (r *Router) Joined() <-chan struct{} { return r.follower.joined }

// TakeOver makes this node the owner, in the cluster's generation gen: the one before, by the name of its node where that is
// known, is shut out at every sink and at the log, what it published is read to the end, and what it took and did not publish
// follows from here. It returns once this node goes on by itself; ctx ends it.
func (r *Router) TakeOver(ctx context.Context, gen uint64, before string) error {
	select {
	case <-r.follower.joined:
	case <-ctx.Done():
		return fmt.Errorf("taking over: waiting for the log to be read: %w", ctx.Err())
	}
	if err := r.fence(ctx); err != nil {
		return fmt.Errorf("taking over: %w", err)
	}
	if err := r.readToEnd(ctx); err != nil {
		return fmt.Errorf("taking over: reading the log to its end: %w", err)
	}
	var err error
	if done := r.do(ctx, func() { err = r.loop.takeOver(ctx, gen, before) }); done != nil {
		return done
	}
	return err
}

// fence shuts earlier writers out of every sink that can.
func (r *Router) fence(ctx context.Context) error {
	for _, w := range r.sinks {
		f, can := w.sink.(core.Fencer)
		if !can {
			continue
		}
		for failures := 0; ; failures++ {
			err := f.Fence(ctx)
			if err == nil {
				break
			}
			if errors.Is(err, core.ErrFenced) { // another is at it, who may be the rightful owner by now
				return fmt.Errorf("shutting out the owner before at sink %s: %w", w.name, err)
			}
			r.log.Warn("cluster: shutting out the owner before: trying again", "sink", w.name, "error", err)
			if !sleep(ctx, r.o.SinkBackoff.pause(failures, r.o.Rand())) {
				return fmt.Errorf("shutting out the owner before at sink %s: %w", w.name, err)
			}
		}
	}
	return nil
}

// readToEnd waits until the loop has followed everything that is in the log now.
func (r *Router) readToEnd(ctx context.Context) error {
	end, err := r.o.Cluster.Log.End(ctx)
	for failures := 0; err != nil; failures++ {
		r.log.Warn("cluster: taking over: asking where the log ends: trying again", "error", err)
		if !sleep(ctx, r.o.SinkBackoff.pause(failures, r.o.Rand())) {
			return err
		}
		end, err = r.o.Cluster.Log.End(ctx)
	}
	told := time.Now()
	for !r.follower.reached.has(end) {
		if !sleep(ctx, leasePause) {
			return ctx.Err()
		}
		if time.Since(told) > tellEvery {
			told = time.Now()
			r.log.Warn("cluster: taking over: still reading what the owner before wrote", "end", end)
		}
	}
	return nil
}

// tellEvery is how often a wait that should be short is told of.
const tellEvery = 5 * time.Second

// takeOver starts a stint, on the core loop. When ctx ends, so does the stint.
func (p *loop) takeOver(ctx context.Context, gen uint64, before string) error {
	r, f := p.r, p.r.follower
	if f.own && f.last.node == "" && before != "" && before != f.c.Node { // the log has grown too old to tell
		f.own, f.need = false, true
	}
	if f.need {
		p.r.log.Error("cluster: taking over without the state of the owner before: calls in progress begin anew")
		if err := p.restoreState(f.blank); err != nil {
			return fmt.Errorf("taking over: %w", err)
		}
		p.nth = max(p.nth, f.last.turn) + 1 // no turn is this one: who follows finds a hole, and goes on from the checkpoint behind it
	}
	x, err := newReplicator(r, r.o.Cluster, gen)
	if err != nil {
		return err
	}
	x.state, x.turn, x.begun, x.floor = f.state, f.last.turn, p.nth+1, f.last.delivered
	parts, err := p.prepare(x)
	if err != nil {
		return fmt.Errorf("taking over: %w", err)
	}
	f.paused.Store(true)
	f.again = again{} // the stint reads it from the journal, where it is not held
	r.begin(x)
	r.stint.own = f.own
	defer context.AfterFunc(ctx, r.stint.cancel)()
	p.standby, p.gen = false, gen
	p.goOnFrom(f)
	p.now = max(p.now, p.clockTime())
	for i, items := range parts {
		p.nth++
		part := turn{inputs: inputs{gen: gen, turn: p.nth}, items: items, at: p.now}
		if i == len(parts)-1 {
			part.state = p.appendState(nil)
		}
		if err := r.keeper.turns.push(r.stint.ctx, part); err != nil {
			return fmt.Errorf("taking over: %w", err)
		}
	}
	p.takeLinks(f)
	f.isOwned()
	if ctx.Err() != nil {
		return fmt.Errorf("taking over: %w", context.Cause(ctx))
	}
	r.log.Info("cluster: this node owns the links", "generation", gen, "turn", p.nth)
	return nil
}

// prepare sets every sink to where it is to go on, and returns the parts of what the stint's first turns are made of: the
// items of which it is unsure whether the owner before delivered them.
func (p *loop) prepare(x *replicator) (parts [][]core.Item, err error) {
	f := p.r.follower
	last, err := p.r.o.Journal.Sync()
	if err != nil {
		return nil, err
	}
	parts, f.unsureLost = f.unsure.take()
	resume := last + 2*uint64(len(parts)) // two records each
	if len(parts) == 0 {
		parts = [][]core.Item{nil}
	}
	x.first = x.begun + uint64(len(parts)) - 1
	switch {
	case !f.own:
		x.lag.skip(last)
	case f.state < 0: // without a checkpoint in the log, it begins with what is not delivered, and this one
		x.lag.begin(p.r.undeliveredFrom(last), last)
	}
	if f.own {
		x.logged.Store(f.last.turn)
	}
	for _, w := range p.r.sinks {
		if !f.own {
			w.lag.skip(last)
		}
		w.reset(min(last, x.lag.cursor.Seq()), resume)
	}
	return parts, nil
}

// skip leaves out what is in the journal up to seq: another node has delivered it.
func (g *lag) skip(seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cursor.Advance(seq)
	g.tail, g.next, g.behind = seq, seq+1, false
}

// begin goes on with record next, the last being there.
func (g *lag) begin(next, last uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cursor.Advance(next - 1)
	g.tail, g.next, g.behind = last, next, next <= last
}

// undeliveredFrom is the journal's first record that is of a turn of which a sink may not have had all; last is its last.
func (r *Router) undeliveredFrom(last uint64) uint64 {
	low := last + 1
	for _, w := range r.sinks {
		if had := w.lag.cursor.Seq(); had < last {
			low = min(low, max(had, 1)) // which may be the first of two records
		}
	}
	return low
}

// reset makes a writer ready for another stint: it begins to read from the journal behind its cursor, and does so at
// least up to record resume, whether it is there yet or not. What is up to record logged is in the cluster's log, and the
// sink may have it.
func (w *writer) reset(logged, resume uint64) {
	g := w.lag
	w.resumed = false
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resume, g.tail = resume, max(logged, g.cursor.Seq())
	g.behind, g.next = true, g.cursor.Seq()+1
}

// letGo ends a writer's part in a stint: what it has not delivered is the next owner's, or of a next stint, which reads it
// from the journal.
func (w *writer) letGo() {
	w.q.clear()
	w.pending = nil
	w.full.Store(false)
	w.mu.Lock()
	w.fine()
	w.mu.Unlock()
	g := w.lag
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tail, g.behind = g.cursor.Seq(), false
	w.tel.Depth.Store(0)
	w.tel.Behind.Store(0)
}

// begin starts the stages of a stint.
func (r *Router) begin(x *replicator) {
	ctx, cancel := context.WithCancel(r.hard)
	s := &stint{ctx: ctx, cancel: cancel, x: x}
	r.stint = s
	r.current.Store(s)
	if r.keeper != nil {
		r.keeper.x = x
		r.keeper.turns.clear()
		r.keeper.runs.Go(func() { r.keeper.run(ctx) })
	}
	if x != nil {
		s.stages.Go(func() { x.run(ctx) })
	}
	for _, w := range r.sinks {
		s.stages.Go(func() { w.run(ctx) })
	}
}

// cameLate is how late what the owner wrote may have come here, and so how wrong what is known of its clock.
const cameLate = call.Second

// goOnFrom sets received time to what it would be by the owner before, whose clock may be another: from the latest that came
// here just when it was written.
func (p *loop) goOnFrom(f *follower) {
	if f.toldAt.IsZero() {
		return
	}
	wall, _ := p.readClock()
	p.ahead = f.toldNow + call.Time(time.Since(f.toldAt).Microseconds()) - wall
	if p.ahead < sameClock {
		p.ahead = 0
		return
	}
	p.r.log.Warn("cluster: this node's clock is behind that of the owner before: time goes on from there; keep them together (NTP)",
		"by", time.Duration(p.ahead)*time.Microsecond)
}

// sameClock is less than what two clocks that are kept together, and the way between, differ by.
const sameClock = call.Second / 4

// seamless reports whether this node heard everything on l that the owner before did not take: its own session was
// established, and the snapshot over, while the owner still told of what it heard, and what the owner knew was complete.
func (p *loop) seamless(l *link) bool {
	if l.own == nil || !slices.Equal(l.own.Missing, l.ownBlind) || !l.state.up || l.state.snapshot != nil || l.own.ID != l.state.ref.Instance || l.ownSince.IsZero() {
		return false
	}
	both := l.ownSince
	if l.anew.After(both) {
		both = l.anew
	}
	return l.told.Sub(both) > overlap || p.r.follower.alive.Sub(both) > quietOverlap
}

// prove says which links would be taken over with a gap now.
func (p *loop) prove() {
	var unproven []string
	for _, l := range p.r.links {
		if !p.seamless(l) || !l.own.Shared {
			unproven = append(unproven, l.id)
		}
	}
	p.r.follower.unproven.Store(&unproven)
}

// takeLinks goes on with every link: from what this node has read of it and the owner before had not taken.
func (p *loop) takeLinks(f *follower) {
	now := p.clockTime()
	late := call.Time(0)
	if p.ahead > 0 {
		late = cameLate
	}
	from := "taken over from node " + f.last.node
	if f.last.node == p.r.o.Cluster.Node || f.last.node == "" { // the state is this node's own journal's
		from = unstopped
		if f.stoodDown {
			from = "taken over again by the node that had lost the switches"
		}
	}
	for _, l := range p.r.links {
		news := message{kind: msgDown, link: l, at: now - p.ahead, text: from, from: l.state.heard - p.ahead - late} // nobody may have listened behind the last frame
		switch {
		case p.seamless(l):
			if !l.own.Shared {
				news.kind = msgGap
				p.handle(&news)
			}
			continue
		case l.state.up:
			p.handle(&news)
		}
		if l.own != nil {
			l.ending = true
			l.restart() // its snapshot is needed
		}
	}
	for _, l := range p.r.links {
		if d := f.unsureLost; d.n > 0 {
			p.step(&message{kind: msgNote, link: l, now: p.now, ahead: p.ahead, from: d.from - p.ahead, at: d.to - p.ahead,
				text: fmt.Sprintf("standing by, %d items found no room and the owner may not have delivered them", d.n)})
		}
	}
	for l, d := range f.held.dropped {
		p.step(&message{kind: msgNote, link: l, now: p.now, ahead: p.ahead, from: d.from, at: d.to,
			text: fmt.Sprintf("standing by, %d events found no room and the owner had not taken them", d.n)})
	}
	for _, m := range f.held.take() {
		p.handle(&m)
		if max(len(p.items), len(p.inputs)) >= 4*takeFrames {
			p.flush(p.r.stint.ctx)
		}
	}
	p.flush(p.r.stint.ctx)
}

// StandDown ends this node's ownership. When it is planned, what was taken is published first, as far as ctx lets it:
// then nothing is left for the next owner to find out. When it was lost, what was not published is left to the next
// owner, who has read the same.
func (r *Router) StandDown(ctx context.Context, planned bool) error {
	switch now := r.current.Load(); { // the loop may wait for the journal, which waits for sinks, which wait for a lease
	case now == nil:
		return nil
	case planned:
		defer context.AfterFunc(ctx, now.cancel)()
	default:
		now.cancel()
	}
	var s *stint
	if err := r.do(context.WithoutCancel(ctx), func() { s = r.loop.pause() }); err != nil || s == nil {
		return err
	}
	var err error
	if planned {
		err = r.finishStint(ctx, s)
	}
	s.cancel()
	r.keeper.runs.Wait()
	s.stages.Wait()
	clean := planned && err == nil
	var left unlogged
	if !clean {
		left = r.leftBefore(s)
	}
	return errors.Join(err, r.do(context.WithoutCancel(ctx), func() { r.loop.standDown(s, clean, left) }))
}

// pause holds back what comes from the links, and returns the stint that is to end.
func (p *loop) pause() *stint {
	if p.standby {
		return nil
	}
	p.flush(p.r.stint.ctx)
	p.standby = true
	return p.r.stint
}

// finishStint waits until everything that was taken is published.
func (r *Router) finishStint(ctx context.Context, s *stint) error {
	for !r.published(s) {
		if s.x.fenced.Load() || !sleep(ctx, leasePause) {
			return fmt.Errorf("handing over: not everything that was taken is published: %w", context.Cause(ctx))
		}
	}
	s.x.q.close()
	for !s.x.finished.Load() {
		if !sleep(ctx, leasePause) {
			return fmt.Errorf("handing over: the last word is not in the log: %w", context.Cause(ctx))
		}
	}
	return nil
}

func (r *Router) published(s *stint) bool {
	last := r.o.Journal.Stats().Last
	if r.keeper.turns.len() > 0 || r.keeper.keeping.Load() || s.x.lag.cursor.Seq() < last {
		return false
	}
	for _, w := range r.sinks {
		if w.lag.cursor.Seq() < last {
			return false
		}
	}
	return true
}

// standDown makes the loop a standby's. clean says that its state is the log's, left is what the journal had from before the
// stint and the log has not.
func (p *loop) standDown(s *stint, clean bool, left unlogged) {
	f := p.r.follower
	f.heard, f.alive, f.last.node = time.Now(), time.Time{}, ""
	for _, l := range p.r.links {
		l.told, l.toldBy, l.anew, l.begunAt = f.heard, feeds{f.heard, f.heard}, time.Time{}, time.Time{} // what this node took is in the log, or held again
	}
	if !clean {
		p.remember(inputs{turn: p.nth + 1, msgs: p.inputs})
		f.again = again{s.x.logged.Load(), []unlogged{left, p.unlogged}}
	}
	for _, w := range p.r.sinks {
		w.letGo()
	}
	p.wallRead = time.Time{} // received time is another node's from here on
	f.toldNow, f.toldAt = 0, time.Time{}
	p.r.keeper.trouble.Store(nil) // a standby writes none: it is not known to be so still
	p.inputs, p.items, p.unlogged = nil, nil, unlogged{}
	f.own, f.need, f.stoodDown = false, false, true
	f.restarted = !clean && s.own && p.goBack()
	f.state = max(f.state, s.x.state)
	f.next.Store(max(s.x.next.Load(), f.next.Load()))
	f.toldTo = max(f.toldTo, s.x.next.Load()-1)
	if !clean {
		p.lose(f)
	}
	f.paused.Store(false) // last: what is read from here on is about that
	signal(f.resume)
	p.r.log.Info("cluster: standing by", "turn", p.nth, "clean", clean)
}

// goBack sets the loop to where the journal ends. It reports whether its turns follow each other.
func (p *loop) goBack() bool {
	_, err := p.r.o.Journal.Sync() // what was appended just before the end is to be read as well
	if err == nil {
		err = p.restoreState(p.r.follower.blank)
	}
	if err == nil {
		err = p.restore(p.r.o.Journal, journal.Report{})
	}
	if err != nil {
		p.r.log.Error("cluster: going on from the journal", "error", err)
		return false
	}
	return p.r.follower.restarted
}
