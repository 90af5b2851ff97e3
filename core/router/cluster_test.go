package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/journal"
)

// memoryLog is a cluster's log that nodes write through a pen each.
type memoryLog struct {
	mu      sync.Mutex
	entries []core.LogEntry
	epoch   int
	grown   chan struct{}
}

func newMemoryLog() *memoryLog { return &memoryLog{grown: make(chan struct{})} }

// pen is one node's way to the log, and to the sink that all nodes share: both refuse it once another was fenced in.
type pen struct {
	*resumer
	log   *memoryLog
	epoch int
	away  atomic.Bool // nothing gets through
	shut  atomic.Bool // nothing gets through to the sink
	mute  atomic.Bool // nothing gets through to the log
}

var errAway = errors.New("away")

func (p *pen) Fence(context.Context) error {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	p.log.epoch++
	p.epoch = p.log.epoch
	p.log.entries = append(p.log.entries, core.LogEntry{Offset: int64(2 * len(p.log.entries))}) // a marker, which is no entry
	return nil
}

func (p *pen) allowed() error {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	switch {
	case p.away.Load():
		return errAway
	case p.epoch != p.log.epoch:
		return fmt.Errorf("writing: %w", core.ErrFenced)
	}
	return nil
}

func (p *pen) Write(ctx context.Context, batch []core.Item) error {
	if err := p.allowed(); err != nil {
		return err
	}
	if p.shut.Load() {
		return errAway
	}
	return p.resumer.Write(ctx, batch)
}

func (p *pen) Close(context.Context) error { return nil } // the others go on

func (p *pen) Append(_ context.Context, entries [][]byte) (offsets []int64, err error) {
	if err := p.allowed(); err != nil {
		return nil, err
	}
	if p.mute.Load() {
		return nil, errAway
	}
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range entries {
		at := int64(2 * len(l.entries)) // with holes
		l.entries = append(l.entries, core.LogEntry{Offset: at, Data: slices.Clone(b)})
		offsets = append(offsets, at)
	}
	close(l.grown)
	l.grown = make(chan struct{})
	return offsets, nil
}

func (p *pen) Read(ctx context.Context, from int64) (core.LogPage, error) {
	l := p.log
	l.mu.Lock()
	grown, n := l.grown, len(l.entries)
	l.mu.Unlock()
	if int(from+1)/2 >= n {
		select {
		case <-grown:
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	end := int64(2 * len(l.entries))
	got := slices.Clone(l.entries[min(int(from+1)/2, len(l.entries)):])
	got = slices.DeleteFunc(got, func(e core.LogEntry) bool { return e.Data == nil })
	return core.LogPage{Entries: got, Next: end, End: end}, nil
}

func (p *pen) End(context.Context) (int64, error) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return int64(2 * len(p.log.entries)), nil
}

// node is one gateway of a cluster under test.
type node struct {
	*Router
	pen    *pen
	owner  atomic.Bool
	hung   atomic.Bool
	fenced atomic.Bool
	before string // the owner before, as the group knows
	frames chan core.Frame
	link   *adapter
	stop   func() error
	j      *journal.Journal
}

// newNode starts a node whose one link sends what is put into frames. store is the sink that all nodes share.
func newNode(t *testing.T, name, dir string, log *memoryLog, store *resumer) *node {
	return newNodeWith(t, name, dir, log, store, journal.Options{})
}

func newNodeWith(t *testing.T, name, dir string, log *memoryLog, store *resumer, opts journal.Options) *node {
	n := &node{pen: &pen{resumer: store, log: log}, frames: make(chan core.Frame, 1000)}
	session := func(ctx context.Context, out core.Emitter) error {
		err := out.Up(core.Instance{Kind: "asterisk", ID: "aa:bb", Shared: true})
		for err = errors.Join(err, out.Frame(own(snapshotOver))); err == nil; {
			select {
			case f := <-n.frames:
				err = out.Frame(own(f))
			case <-ctx.Done():
				return nil
			}
		}
		return err
	}
	n.link = sessions(session, session)
	j, found := openJournal(t, dir, opts)
	o := kept(j, found)
	o.Links, o.Sinks = pbx(n.link), []NamedSink{{Name: "m", Sink: n.pen}}
	o.Cluster = &Cluster{Node: name, Log: n.pen, Owner: n.owner.Load, HungAfter: 300 * time.Millisecond, Hung: func(string) { n.hung.Store(true) }, Fenced: func(error) { n.fenced.Store(true) }}
	n.Router, n.stop = start(t, o)
	n.j = j
	return n
}

// own is f for one router alone.
func own(f core.Frame) core.Frame {
	f.Observations = slices.Clone(f.Observations)
	return f
}

func (n *node) takeOver(t *testing.T, gen uint64) {
	t.Helper()
	n.owner.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, n.TakeOver(ctx, gen, n.before))
}

// ownerAndStandby are two nodes, of which a owns the link, and has told of it.
func ownerAndStandby(t *testing.T, log *memoryLog, store *resumer) (a, b *node) {
	t.Helper()
	a = newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	b = newNode(t, "b", t.TempDir(), log, store)
	<-b.Joined()
	eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	return a, b
}

// follows waits until a standby has the owner's state.
func follows(t *testing.T, standby, owner *node) {
	t.Helper()
	eventually(t, "that the standby follows", func() bool {
		return standby.Status().Cluster.Synced && standby.turn(t) == owner.turn(t)
	})
}

// turn is the core loop's latest: that of Status is as of its last beat.
func (n *node) turn(t *testing.T) (nth uint64) {
	t.Helper()
	must(t, n.do(t.Context(), func() { nth = n.loop.nth }))
	return nth
}

// linked waits until the owner's own session is up, with its snapshot, and is not to end for another one.
func (n *node) linked(t *testing.T) {
	t.Helper()
	eventually(t, "the link, with its snapshot", func() (is bool) {
		must(t, n.do(t.Context(), func() {
			l := n.links[0]
			is = l.state.up && l.state.snapshot == nil && !l.ownSince.IsZero() && !l.ending
		}))
		return is && n.Status().Ready
	})
}

// taken waits until the core loop has taken n frames from the node's link, of all its sessions.
func (n *node) taken(t *testing.T, frames int) {
	t.Helper()
	taken(t, n.Router, n.link, frames)
}

// kept waits until, besides, the journal has what was made of them.
func (n *node) kept(t *testing.T, frames int) {
	t.Helper()
	n.taken(t, frames)
	eventually(t, "the journal", n.isKept)
}

func (n *node) lose(t *testing.T) {
	t.Helper()
	n.owner.Store(false)
	must(t, n.StandDown(t.Context(), false))
}

func (n *node) end(t *testing.T) {
	t.Helper()
	if n.owner.Load() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		must(t, n.StandDown(ctx, true))
	}
	must(t, n.stop(), n.j.Close())
}

// both sends frames to the links of both nodes, to b in another order where that is possible: two readers of a switch see
// the same order in each channel only.
func both(a, b *node, frames []core.Frame) {
	for i := 0; i < len(frames); i++ {
		a.frames <- frames[i]
		if i+1 < len(frames) && swappable(frames[i], frames[i+1]) {
			b.frames <- frames[i+1]
			a.frames <- frames[i+1]
			b.frames <- frames[i]
			i++
			continue
		}
		b.frames <- frames[i]
	}
}

func swappable(x, y core.Frame) bool {
	a, b := x.Observations[0], y.Observations[0]
	return a.Leg != b.Leg && a.Kind == call.LegConnected && b.Kind == call.LegConnected
}

// onlyOnce checks that no id stands for two items of a stream.
func onlyOnce(t *testing.T, items []core.Item) {
	t.Helper()
	seen := map[string]*call.Event{}
	for _, i := range items {
		if i.Event == nil {
			continue
		}
		id := string(i.Stream) + i.Event.ID
		if seen[id] != nil {
			t.Errorf("%s %s of call %s is there twice", i.Stream, i.Event.Type, i.Event.CallID)
		}
		seen[id] = i.Event
	}
}

// The owner is lost at every event of two calls, in every manner: what it took is published to the last event, to the
// journal, or not at all. The next owner publishes exactly the rest, with the same ids and numbers.
func TestTakeover(t *testing.T) {
	frames := append(talk(0, "a"), talk(7, "b")...)
	for cut := range len(frames) + 1 {
		for _, how := range []string{"planned", "published", "unheard"} {
			if how != "unheard" && cut%3 != 0 {
				continue // every third will do
			}
			t.Run(fmt.Sprint(how, " ", cut), func(t *testing.T) {
				t.Parallel()
				takeover(t, frames, cut, how)
			})
		}
	}
}

func takeover(t *testing.T, frames []core.Frame, cut int, how string) {
	log, store := newMemoryLog(), &resumer{}
	a := newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the owner's link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	b := newNode(t, "b", t.TempDir(), log, store)
	b.taken(t, 1)
	time.Sleep(overlap + 100*time.Millisecond) // so long must both have listened
	both(a, b, []core.Frame{observed(-10, call.Observation{Kind: call.AgentStateChange, Agent: "agent1", Value: "ready"})})
	eventually(t, "that both heard the same", func() bool {
		s := b.Status()
		return s.Links[0].Received == 2 && s.Cluster.Held == 0 && len(s.Cluster.Unproven) == 0
	})
	a.pen.away.Store(how == "unheard")
	both(a, b, frames[:cut])
	a.taken(t, cut+2)
	b.taken(t, cut+2)
	switch how {
	case "planned":
		must(t, a.StandDown(t.Context(), true))
		a.owner.Store(false)
	case "published":
		eventually(t, "all is told", func() (told bool) {
			must(t, b.do(t.Context(), func() { told = b.follower.held.n == 0 }))
			return told
		})
	case "unheard":
		if cut > 0 {
			eventually(t, "the standby's doubt", b.hung.Load)
		}
	}
	b.takeOver(t, 2)
	a.pen.away.Store(false)
	if how != "planned" {
		a.lose(t)
	}
	both(b, a, frames[cut:])
	eventually(t, "the records", func() bool { return len(store.on(core.StreamRecords)) == 2 })
	if how == "planned" { // and back
		follows(t, a, b)
		time.Sleep(2 * aliveEvery)
		a.takeOver(t, 3)
		b.lose(t)
	}
	a.end(t)
	b.end(t)
	if n := wholeCalls(t, store.items); n != 2 {
		t.Errorf("%d calls", n)
	}
	onlyOnce(t, store.items)
	want := []call.EventType{call.SourceUp, call.SourceReconciled}
	if got := store.types(core.StreamSources); !reflect.DeepEqual(got, want) {
		t.Errorf("sources: %v", got)
	}
}

// Two nodes listen, and nothing proves that the second heard everything from where the log ends: it asks for a snapshot, and
// says which time nobody can vouch for.
func TestTakeoverUnproven(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a := newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the owner's link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	frames := talk(0, "a")
	a.frames <- frames[0]
	b := newNode(t, "b", t.TempDir(), log, store)
	b.taken(t, 1)
	time.Sleep(overlap + 2*aliveEvery + 100*time.Millisecond) // the owner lives, and says nothing
	if u := b.Status().Cluster.Unproven; !slices.Equal(u, []string{"pbx"}) {
		t.Errorf("not proved: %v", u)
	}
	b.takeOver(t, 2)
	a.lose(t)
	eventually(t, "the snapshot", func() bool {
		return slices.Contains(store.types(core.StreamSources), call.SourceGap) && b.Status().ActiveCalls == 0
	})
	a.end(t)
	b.end(t)
	wholeCalls(t, store.items)
	onlyOnce(t, store.items)
}

// A standby that has missed a part of what its link brings hears all only from then on.
func TestPartlyBlindStandby(t *testing.T) {
	p, l := &loop{}, &link{}
	p.r = &Router{follower: newFollower(nil, nil)}
	l.state.up, l.state.ref.Instance = true, "aa:bb"
	proved := func() bool {
		l.told = time.Now().Add(2 * overlap) // the owner goes on telling
		return p.seamless(l)
	}
	watch := func(kind msgKind, inst *core.Instance, obs ...call.Observation) {
		p.watch(&message{kind: kind, link: l, inst: inst, obs: obs})
	}
	watch(msgUp, &core.Instance{ID: "aa:bb"})
	if proved() {
		t.Error("proved before the snapshot")
	}
	watch(msgFrame, nil, call.Observation{Kind: call.SnapshotEnd})
	if !proved() {
		t.Error("not proved")
	}
	before := l.ownSince
	watch(msgMissing, &core.Instance{Missing: []string{"queues"}})
	if proved() || !l.ownSince.After(before) {
		t.Error("proved while it is blind")
	}
	watch(msgMissing, &core.Instance{})
	if !proved() {
		t.Error("not proved when it sees again")
	}
	before = l.ownSince
	watch(msgGap, nil)
	if !l.ownSince.After(before) || !proved() {
		t.Error("a gap changes nothing")
	}
	watch(msgDown, nil)
	if proved() {
		t.Error("proved without a session")
	}
}

// What a standby holds from before the first thing that it and the owner both heard came before the owner's snapshot.
func TestHeldBeforeOwner(t *testing.T) {
	h, l, other := newHeld(), &link{}, &link{}
	now := time.Now()
	at := func(l *link, nth int) *message {
		return &message{kind: msgFrame, link: l, obs: observed(nth, call.Observation{Kind: call.LegHeld, Leg: "a"}).Observations}
	}
	for nth := range 4 {
		h.hold(at(l, nth), now.Add(time.Duration(nth)))
		h.hold(at(other, nth), now)
	}
	h.told(at(l, 2), now)
	if held := h.n; held != 5 { // the third is told, and of its link what came later is left
		t.Errorf("%d held", held)
	}
	if want := now.Add(2); !l.told.Equal(want) || !other.told.IsZero() {
		t.Errorf("told %v, %v", l.told, other.told)
	}
	h.told(at(l, 9), now) // not yet here
	h.hold(at(l, 8), now)
	h.hold(at(l, 9), now.Add(9))
	if h.n != 6 || !l.told.Equal(now.Add(9)) {
		t.Errorf("%d held, told %v", h.n, l.told)
	}

	h, l = newHeld(), &link{}
	h.told(at(l, 0), now)
	l.begunAnew(now)
	h.hold(at(l, 0), now) // told by an owner who has listened anew since
	h.hold(at(l, 1), now)
	h.hold(at(l, 2), now)
	if h.n != 2 || !l.told.IsZero() {
		t.Errorf("anew: %d held, told %v", h.n, l.told)
	}
	h.told(at(l, 2), now)
	if h.n != 0 || l.told.IsZero() {
		t.Errorf("anew: %d held in the end, told %v", h.n, l.told)
	}
	for nth, after := range []time.Duration{-time.Second, time.Second} {
		m := at(l, nth)
		m.at = call.At(now.Add(after))
		h.hold(m, now)
		h.before(l, now)
		h.hold(m, now)
		if h.n != nth { // read before the owner began to listen, and held after
			t.Errorf("received %s after: %d held, want %d", after, h.n, nth)
		}
		h.take()
	}
}

// One of a link's connections may stand still at the owner while the other goes on: what the owner tells by the one says
// nothing of what came here by the other.
func TestHeldByConnections(t *testing.T) {
	h, l := newHeld(), &link{}
	l.state.up = true
	now := time.Now()
	at := func(feed call.Feed, nth int) *message {
		return &message{kind: msgFrame, link: l, obs: observed(nth, call.Observation{Kind: call.LegHeld, Leg: "a", Feed: feed}).Observations}
	}
	h.hold(at(0, 0), now)
	h.hold(at(1, 1), now)
	h.hold(at(1, 2), now.Add(3*time.Second))
	h.told(at(1, 2), now)
	if h.n != 1 || h.all[0].frame.obs[0].Feed != 0 {
		t.Fatalf("%d held", h.n)
	}
	if x := h.overdue(now.Add(4*time.Second), time.Second); x == nil {
		t.Error("the owner told of something later by another connection, and nothing is overdue")
	}
	h.hold(at(0, 3), now.Add(3*time.Second))
	h.told(at(0, 3), now)
	if h.n != 0 {
		t.Errorf("%d held in the end", h.n)
	}
}

// What AMI says of a party waits in the adapter for ARI to show it, what it says of an agent does not: that came later, and is
// not given up when the owner tells of the first.
func TestHeldInTheOrderOfReading(t *testing.T) {
	h, l, now := newHeld(), &link{}, time.Now()
	at := func(nth int) *message {
		return &message{kind: msgFrame, link: l, obs: observed(nth, call.Observation{Kind: call.LegHeld, Leg: "a", Feed: 1}).Observations}
	}
	for _, nth := range []int{0, 2, 1, 3} {
		h.hold(at(nth), now)
	}
	h.told(at(1), now)
	if h.n != 2 || h.all[0].frame.obs[0].Native.ID != "n2" {
		t.Errorf("%d held, first %+v", h.n, h.all[0].frame.obs)
	}
}

// What the owner before has told of and comes here only once this node owns the links is not taken again.
func TestToldByTheOwnerBefore(t *testing.T) {
	h, l := newHeld(), &link{}
	now := time.Now()
	frame := func(nths ...int) *message {
		m := &message{kind: msgFrame, link: l}
		for _, nth := range nths {
			m.obs = append(m.obs, observed(nth, call.Observation{Kind: call.AgentStateChange, Value: "ready"}).Observations...)
		}
		return m
	}
	h.told(frame(1, 2), now)
	h.take()
	for _, x := range []struct {
		m    *message
		left int
	}{{frame(0, 1), 1}, {frame(1), 1}, {frame(2), 0}, {frame(2), 1}} {
		h.sift(x.m, now)
		if len(x.m.obs) != x.left {
			t.Errorf("%d observations left, want %d", len(x.m.obs), x.left)
		}
	}
}

// A state that was lost is not taken for reached because of what was read before it was found again.
func TestReach(t *testing.T) {
	var r reach
	r.begin()
	if r.got(7); !r.has(7) {
		t.Error("7 was reached")
	}
	r.lost()
	if r.got(9); r.has(7) {
		t.Error("reached without a state")
	}
	r.begin()
	if r.has(0) {
		t.Error("reached before anything was read")
	}
	if r.got(9); !r.has(9) || r.has(10) {
		t.Error("9 was reached")
	}
}

// A node that lost the links before anybody heard of what it had taken gets them back, and publishes it: it has heard all, and
// there is no gap.
func TestLostAndBack(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	dir := t.TempDir()
	a := newNode(t, "a", dir, log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	a.pen.away.Store(true)
	frames := talk(0, "a")
	for _, f := range frames[:4] {
		a.frames <- f
	}
	a.taken(t, 5)
	time.Sleep(overlap + 100*time.Millisecond)
	a.lose(t)
	for _, f := range frames[4:] {
		a.frames <- f
	}
	a.pen.away.Store(false)
	a.taken(t, 8)
	a.takeOver(t, 2)
	eventually(t, "the record", func() bool { return len(store.on(core.StreamRecords)) == 1 })
	a.end(t)
	wholeCalls(t, store.items)
	onlyOnce(t, store.items)
	if got, want := store.types(core.StreamSources), []call.EventType{call.SourceUp, call.SourceReconciled}; !reflect.DeepEqual(got, want) {
		t.Errorf("sources: %v", got)
	}
}

// A node that lost the links while a sink failed has no part in that any more: a healthy standby is ready.
func TestLostWhileASinkFailed(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a := newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	a.pen.shut.Store(true)
	for _, f := range talk(0, "a") {
		a.frames <- f
	}
	eventually(t, "the failure", func() bool { k := a.Status().Sinks[0]; return k.FailingSince != 0 && k.Queue > 0 })
	a.lose(t)
	eventually(t, "the log", func() bool { return a.Status().Ready })
	if k := a.Status().Sinks[0]; k.Queue != 0 || k.Behind != 0 || k.LastError != "" {
		t.Errorf("the sink of a standby: %+v", k)
	}
	a.pen.shut.Store(false)
	a.takeOver(t, 2)
	eventually(t, "the record", func() bool { return len(store.on(core.StreamRecords)) == 1 })
	a.end(t)
	wholeCalls(t, store.items)
	onlyOnce(t, store.items)
}

// A lone node is killed at every event while nobody hears it, and starts again: its journal has the rest.
func TestAloneAndKilled(t *testing.T) {
	frames := talk(0, "a")
	for cut := range len(frames) + 1 {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			log, store := newMemoryLog(), &resumer{}
			dir := t.TempDir()
			a := newNode(t, "a", dir, log, store)
			<-a.Joined()
			a.takeOver(t, 1)
			eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
			a.pen.away.Store(true)
			for _, f := range frames[:cut] {
				a.frames <- f
			}
			a.kept(t, cut+1)
			crashed := image(t, dir)
			a.lose(t)
			a.end(t)
			b := newNode(t, "a", crashed, log, store)
			b.takeOver(t, 2)
			eventually(t, "the link again", func() bool { return slices.Contains(store.types(core.StreamSources), call.SourceGap) })
			for _, f := range frames[cut:] {
				b.frames <- f
			}
			eventually(t, "what it heard then", func() bool { return len(b.frames) == 0 })
			b.taken(t, int(b.link.given.Load()))
			eventually(t, "no call", func() bool { return b.Status().ActiveCalls == 0 })
			b.end(t)
			wholeCalls(t, store.items)
			onlyOnce(t, store.items)
		})
	}
}

// A node that goes on from its own journal says when nobody owns the links: the group may still count on who is dead.
func TestNoSignOfLifeAfterARestart(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	dir := t.TempDir()
	a := newNode(t, "a", dir, log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	a.end(t)
	b := newNode(t, "a", dir, log, store)
	eventually(t, "a doubt", b.hung.Load)
	b.end(t)
}

// A node whose journal is full, because nothing gets through, loses the links: it stands down all the same.
func TestStandDownWithAFullJournal(t *testing.T) {
	for _, planned := range []bool{false, true} {
		t.Run(fmt.Sprint("planned ", planned), func(t *testing.T) {
			log, store := newMemoryLog(), &resumer{}
			a := newNodeWith(t, "a", t.TempDir(), log, store, journal.Options{MaxBytes: 1 << 20, SegmentBytes: 256 << 10})
			<-a.Joined()
			a.takeOver(t, 1)
			eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
			a.pen.away.Store(true)
			stop := make(chan struct{})
			go func() {
				for i := 0; ; i++ {
					for _, f := range talk(i, fmt.Sprint("c", i)) {
						select {
						case a.frames <- f:
						case <-stop:
							return
						}
					}
				}
			}()
			eventually(t, "a full journal, and nothing moves", func() bool { return a.Status().Journal.Full && a.Status().Queue >= 8192 })
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			a.owner.Store(planned)
			done := make(chan error, 1)
			go func() { done <- a.StandDown(ctx, planned) }()
			select {
			case err := <-done:
				if (err != nil) != planned {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it does not stand down")
			}
			close(stop)
			a.owner.Store(false)
			a.end(t)
		})
	}
}

// A node that was alone with a journal becomes the first of a cluster: the log has its state behind what is not delivered.
func TestFirstOfACluster(t *testing.T) {
	dir, store := t.TempDir(), &resumer{}
	frames := talk(0, "a")
	alone := newNode(t, "a", dir, newMemoryLog(), store)
	<-alone.Joined()
	alone.takeOver(t, 1)
	for _, f := range frames[:4] {
		alone.frames <- f
	}
	alone.taken(t, 5)
	alone.end(t)

	log := newMemoryLog() // as if it had had none
	must(t, os.RemoveAll(dir+"/cursors.0"), os.RemoveAll(dir+"/cursors.1"))
	a := newNode(t, "a", dir, log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "a checkpoint in the log", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return slices.ContainsFunc(log.entries, func(e core.LogEntry) bool {
			got, err := readEntry(e.Data)
			return err == nil && got.kind == entryState
		})
	})
	b := newNode(t, "b", t.TempDir(), log, store)
	<-b.Joined()
	follows(t, b, a)
	a.end(t)
	b.end(t)
}

// A node that another shut out says so, for who decides to give the links to somebody who is not.
func TestFencedIsTold(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a := newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the link", func() bool { return a.Status().Ready })
	log.mu.Lock()
	log.epoch++
	log.mu.Unlock()
	eventually(t, "word of it", a.fenced.Load)
	eventually(t, "that it is not ready", func() bool { return !a.Status().Ready })
	a.lose(t)
	a.end(t)
}

// The log lacks turns, which the journal had dropped: a standby waits for a checkpoint behind the hole, and does not read what
// lies before it again and again.
func TestHoleInTheLog(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a, b := ownerAndStandby(t, log, store)
	must(t, a.do(t.Context(), func() { a.loop.nth += 10 }))
	for _, f := range talk(0, "a")[:4] {
		a.frames <- f
	}
	eventually(t, "the hole", func() (found bool) {
		must(t, b.do(t.Context(), func() { found = b.follower.hole >= 0 && b.follower.need }))
		return found
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, b.readToEnd(ctx)) // it gets to the end without
	a.keeper.wantState.Store(true)
	eventually(t, "the state", func() bool { return b.Status().Cluster.Synced && b.Status().ActiveCalls == a.Status().ActiveCalls })
	a.end(t)
	b.end(t)
}

// The topic of the log is made anew while nodes run: a standby begins with it anew.
func TestLogMadeAnew(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a := newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	b := newNode(t, "b", t.TempDir(), log, store)
	b.taken(t, 1)
	frames := talk(0, "a")
	both(a, b, frames[:4])
	b.taken(t, 5)
	eventually(t, "the call", func() bool { return b.Status().ActiveCalls == 1 && b.Status().Cluster.Held == 0 })
	log.mu.Lock()
	alive := entry{kind: entryAlive, gen: 1, node: "a", turn: a.Status().Cluster.Turn, state: -1}
	for range 1000 { // so long that the new log is the shorter one for a while
		log.entries = append(log.entries, core.LogEntry{Offset: int64(2 * len(log.entries)), Data: alive.bytes()})
	}
	log.mu.Unlock()
	eventually(t, "that it is read", func() bool { return b.follower.next.Load() >= 2000 })
	log.mu.Lock()
	log.entries = nil
	log.mu.Unlock()
	both(a, b, frames[4:])
	eventually(t, "the state, and that nothing is held", func() bool {
		s := b.Status()
		return s.Cluster.Synced && s.ActiveCalls == 0 && s.Cluster.Held == 0
	})
	a.end(t)
	b.end(t)
	wholeCalls(t, store.items)
}

// A node starts with a journal from long ago, and the log has nothing any more: who owned the links since then is the group's
// to know.
func TestStaleJournal(t *testing.T) {
	for before, want := range map[string]int{"": 1, "a": 1, "b": 0} {
		t.Run("owner before "+before, func(t *testing.T) {
			dir, store := t.TempDir(), &resumer{}
			a := newNode(t, "a", dir, newMemoryLog(), store)
			<-a.Joined()
			a.takeOver(t, 1)
			eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
			for _, f := range talk(0, "a")[:4] {
				a.frames <- f
			}
			a.taken(t, 5)
			a.end(t)
			a = newNode(t, "a", dir, newMemoryLog(), store)
			<-a.Joined()
			a.before = before
			a.takeOver(t, 5)
			a.linked(t)
			a.end(t)
			if n := len(store.on(core.StreamRecords)); n != want {
				t.Errorf("%d records of the call, want %d", n, want)
			}
		})
	}
}

// The state of a journal whose turns do not follow each other is not taken for the log's.
func TestTornJournalIsNotTheLogs(t *testing.T) {
	dir, log, store := t.TempDir(), newMemoryLog(), &resumer{}
	a := newNode(t, "a", dir, log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	must(t, a.do(t.Context(), func() { a.loop.nth += 10 }))
	for _, f := range talk(0, "a")[:4] {
		a.frames <- f
	}
	a.kept(t, 5)
	crashed := image(t, dir)
	a.end(t)
	b := newNode(t, "a", crashed, log, store)
	<-b.Joined()
	must(t, b.do(t.Context(), func() {
		if b.follower.own {
			t.Error("it goes on from its own journal")
		}
	}))
	b.end(t)
}
