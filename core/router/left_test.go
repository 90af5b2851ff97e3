package router

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
	"github.com/ctigate/ctigate/core/journal"
)

// unloggedJournal is a node's journal with what frames show, of which the cluster's log has nothing; when empty is set, the log has
// nothing at all.
func unloggedJournal(t *testing.T, log *memoryLog, store *resumer, frames []core.Frame, empty bool) (dir string) {
	t.Helper()
	dir = t.TempDir()
	a := newNode(t, "a", dir, log, store)
	<-a.Joined()
	a.pen.away.Store(empty)
	a.takeOver(t, 1)
	if !empty {
		eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	}
	a.pen.away.Store(true)
	for _, f := range frames {
		a.frames <- f
	}
	a.kept(t, len(frames)+1)
	crashed := image(t, dir)
	a.lose(t)
	a.end(t)
	return crashed
}

// A node starts with a journal that the log has not all of, becomes the owner, and loses the links before it has logged
// anything: what the journal has is published when it is the owner again.
func TestJournalOutlivesALostStint(t *testing.T) {
	for _, empty := range []bool{false, true} {
		for _, heard := range []int{4, 7} {
			t.Run(fmt.Sprintf("empty log %v, %d frames", empty, heard), func(t *testing.T) {
				log, store, frames := newMemoryLog(), &resumer{}, talk(0, "a")
				b := newNode(t, "a", unloggedJournal(t, log, store, frames[:heard], empty), log, store)
				b.pen.away.Store(true) // the lease comes and goes, and the log takes nothing
				b.takeOver(t, 2)
				b.lose(t)
				b.pen.away.Store(false)
				b.takeOver(t, 3)
				b.linked(t)
				for _, f := range append(snapshotOf(frames[:heard]), frames[heard:]...) {
					b.frames <- f
				}
				eventually(t, "the record", func() bool { return len(store.on(core.StreamRecords)) == 1 })
				b.end(t)
				if n := wholeCalls(t, store.items); n != 1 {
					t.Errorf("%d calls", n)
				}
				onlyOnce(t, store.items)
			})
		}
	}
}

// The same, but another node owns the links in between, and had not heard the call before.
func TestJournalOfALostStintAndAnotherOwner(t *testing.T) {
	log, store, frames := newMemoryLog(), &resumer{}, talk(0, "a")
	b := newNode(t, "a", unloggedJournal(t, log, store, frames[:4], false), log, store)
	b.pen.away.Store(true)
	b.takeOver(t, 2)
	b.lose(t)
	b.pen.away.Store(false)
	c := newNode(t, "c", t.TempDir(), log, store)
	<-c.Joined()
	c.takeOver(t, 3)
	c.linked(t)
	for _, f := range append(snapshotOf(frames[:4]), frames[4:]...) {
		c.frames <- f
	}
	eventually(t, "the record", func() bool { return len(store.on(core.StreamRecords)) == 1 })
	b.end(t)
	c.end(t)
	wholeCalls(t, store.items)
	onlyOnce(t, store.items)
}

// The same, but the node finds the log as it left it first, and goes on from its own journal: when another node turns out to
// own the links, what the log has not is held.
func TestJournalOfALostStintIsHeldLater(t *testing.T) {
	log, store, frames := newMemoryLog(), &resumer{}, talk(0, "a")
	b := newNode(t, "a", unloggedJournal(t, log, store, frames[:4], false), log, store)
	b.pen.away.Store(true)
	b.takeOver(t, 2)
	b.lose(t)
	eventually(t, "its own state", func() (own bool) {
		must(t, b.do(t.Context(), func() { own = b.follower.own }))
		return own
	})
	must(t, b.do(t.Context(), func() {
		f := b.follower
		if f.held.n > 0 {
			t.Errorf("%d are held though they are in the state", f.held.n)
		}
		b.loop.lose(f)
		f.begin(&entry{node: "c", gen: 3, turn: f.last.turn + 1}, 1)
		if f.held.n == 0 {
			t.Error("what the log has not is not held")
		}
	}))
	b.pen.away.Store(false)
	b.end(t)
}

// A node goes on from its journal while the log takes nothing: no sink is given what the log has not.
func TestNothingIsDeliveredBeforeItIsLogged(t *testing.T) {
	log, store, frames := newMemoryLog(), &resumer{}, talk(0, "a")
	b := newNode(t, "a", unloggedJournal(t, log, store, frames[:4], false), log, store)
	b.pen.mute.Store(true)
	n := len(store.items)
	b.takeOver(t, 2)
	time.Sleep(300 * time.Millisecond)
	if more := len(store.on(core.StreamEvents)); more > 0 {
		t.Errorf("%d events of turns that are not in the log", more)
	}
	b.pen.mute.Store(false)
	eventually(t, "the call", func() bool { return len(store.on(core.StreamEvents)) > 0 && b.Status().Sinks[0].Behind == 0 })
	b.end(t)
	if len(store.items) == n {
		t.Error("nothing was delivered")
	}
}

// A new owner is unsure of more than one record of the journal holds.
func TestUnsureOfMuch(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a, b := ownerAndStandby(t, log, store)
	a.pen.shut.Store(true) // the sink is away; the log is not
	const n, size = 23, 3 << 20
	for range n {
		must(t, a.in.push(t.Context(), message{kind: msgDead, link: a.links[0], at: now(), text: "no JSON", raw: make([]byte, size)}))
	}
	eventually(t, "that it is followed", func() bool {
		s, unsure := a.Status(), 0
		must(t, b.do(t.Context(), func() { unsure = b.follower.unsure.n }))
		return s.Queue == 0 && b.turn(t) == a.turn(t) && unsure >= n
	})
	a.owner.Store(false)
	b.takeOver(t, 2)
	a.lose(t)
	eventually(t, "all of it", func() bool { return len(store.on(core.StreamDeadLetter)) >= n && b.Status().Ready })
	if sent := len(store.on(core.StreamDeadLetter)); sent != n || n*size <= journal.MaxData {
		t.Errorf("%d dead letters", sent)
	}
	follows(t, a, b)
	a.end(t)
	b.end(t)
}

// A turn that is too large for an entry of the log goes there in pieces.
func TestLargeTurns(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a, b := ownerAndStandby(t, log, store)
	must(t, a.do(t.Context(), func() { // three in the queue, as a busy loop finds them
		for range 3 {
			must(t, a.in.push(t.Context(), message{kind: msgDead, link: a.links[0], at: now(), text: "no JSON", raw: make([]byte, 3<<20)}))
		}
	}))
	eventually(t, "the dead letters", func() bool { return len(store.on(core.StreamDeadLetter)) == 3 })
	follows(t, b, a)
	log.mu.Lock()
	for _, e := range log.entries {
		if len(e.Data) > pieceBytes+1024 {
			t.Errorf("an entry of the log has %d bytes", len(e.Data))
		}
	}
	log.mu.Unlock()
	a.end(t)
	b.end(t)
}

// The owner dies with a part of a turn in the log: that turn never was.
func TestHalfATurnInTheLog(t *testing.T) {
	log, store, frames := newMemoryLog(), &resumer{}, talk(0, "a")
	a, b := ownerAndStandby(t, log, store)
	for _, f := range frames[:4] {
		a.frames <- f
	}
	a.taken(t, 5)
	follows(t, b, a)
	turn := a.turn(t)
	a.owner.Store(false)
	log.mu.Lock()
	half := entry{kind: entryTurn, gen: 1, node: "a", turn: turn, delivered: turn - 1, state: 0, piece: 0, pieces: 2, data: []byte("half")}
	log.entries = append(log.entries, core.LogEntry{Offset: int64(2 * len(log.entries)), Data: half.bytes()})
	log.mu.Unlock()
	b.takeOver(t, 2)
	a.lose(t)
	eventually(t, "the link", func() bool { return b.Status().Ready })
	follows(t, a, b)
	a.end(t)
	b.end(t)
	onlyOnce(t, store.items)
}

// flood sends calls until it is stopped.
func flood(n *node) (stop func()) {
	over := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			for _, f := range talk(7*i, fmt.Sprint("c", i)) {
				select {
				case n.frames <- f:
				case <-over:
					return
				}
			}
		}
	}()
	return func() { close(over) }
}

// A stint ends while the journal is full, which is small: the node is well as a standby, and as the owner again.
func TestFullJournalAndLost(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a := newNodeWith(t, "a", t.TempDir(), log, store, journal.Options{MaxBytes: 16 << 20, SegmentBytes: 1 << 20})
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the link", func() bool { return len(store.on(core.StreamSources)) == 2 })
	a.pen.away.Store(true)
	stop := flood(a)
	eventually(t, "a full journal", func() bool { return a.Status().Journal.Full && a.Status().Queue >= 8192 })
	stop()
	a.lose(t)
	a.pen.away.Store(false)
	eventually(t, "a standby that is ready", func() bool { return a.Status().Ready })
	a.takeOver(t, 2)
	eventually(t, "an owner that has caught up", func() bool {
		s := a.Status()
		return s.Ready && s.Queue == 0 && s.Sinks[0].Behind == 0 && len(a.frames) == 0
	})
	a.end(t)
}

// A takeover waits for a full journal when the links are lost: it ends.
func TestTakeOverEnds(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a := newNode(t, "a", t.TempDir(), log, store)
	<-a.Joined()
	a.takeOver(t, 1)
	b := newNodeWith(t, "b", t.TempDir(), log, store, journal.Options{MaxBytes: 4 << 20, SegmentBytes: 256 << 10})
	b.taken(t, 1)
	b.pen.shut.Store(true)
	for i := range 300 {
		f := core.Frame{Type: "test"}
		for k := range 300 {
			g := observed(300*i+k, call.Observation{Kind: call.AgentStateChange, Agent: fmt.Sprint("agent", k), Value: fmt.Sprint("state", i)})
			f.Received = g.Received
			f.Observations = append(f.Observations, g.Observations...)
		}
		b.frames <- f
	}
	eventually(t, "what is held", func() bool { return b.Status().Cluster.Held == 90_000 })
	b.owner.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.TakeOver(ctx, 2, "a") }()
	eventually(t, "a full journal", func() bool { return b.Status().Journal.Full })
	select {
	case err := <-done:
		t.Fatalf("took over: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	b.owner.Store(false)
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it took over all the same")
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	must(t, b.StandDown(t.Context(), false))
	eventually(t, "what is held again", func() bool { return b.Status().Cluster.Held > 60_000 }) // less what got into the log
	a.lose(t)
	a.end(t)
	must(t, b.stop(), b.j.Close())
}

// A node without the state takes over from nobody, as the log's checkpoint is gone: one that has the state goes on with the
// new owner's.
func TestBlankOwnerIsFollowed(t *testing.T) {
	log, store := newMemoryLog(), &resumer{}
	a, b := ownerAndStandby(t, log, store)
	for _, f := range talk(0, "a")[:4] {
		a.frames <- f
	}
	eventually(t, "the state", func() bool { return b.Status().Cluster.Synced && b.Status().ActiveCalls == 1 })
	log.mu.Lock()
	for i := range log.entries {
		if e, err := readEntry(log.entries[i].Data); err == nil && e.kind == entryState {
			e.kind, e.data, e.piece, e.pieces = entryAlive, nil, 0, 0
			log.entries[i].Data = e.bytes()
		}
	}
	log.mu.Unlock()
	c := newNode(t, "c", t.TempDir(), log, store)
	<-c.Joined()
	turn := a.Status().Cluster.Turn
	a.owner.Store(false)
	c.takeOver(t, 2)
	a.lose(t)
	eventually(t, "the new owner's state", func() bool {
		var seqs [2]uint64
		for i, n := range []*node{b, c} {
			must(t, n.do(t.Context(), func() { seqs[i] = n.links[0].state.seq }))
		}
		return seqs[0] == seqs[1] && c.Status().Cluster.Turn > turn && b.Status().Cluster.Synced && b.Status().Cluster.Turn == c.Status().Cluster.Turn
	})
	if n := b.Status().ActiveCalls; n != 0 {
		t.Errorf("%d calls", n)
	}
	a.end(t)
	b.end(t)
	c.end(t)
}

// A turn is read whole, wherever a batch of them ends.
func TestTurnsAreReadWhole(t *testing.T) {
	a := newNode(t, "a", t.TempDir(), newMemoryLog(), &resumer{})
	<-a.Joined()
	var pack call.Pack
	items := codec.AppendItems(nil, []core.Item{{Stream: core.StreamDeadLetter, Key: "x", Dead: &core.DeadLetter{Reason: "x"}}})
	var last uint64
	for i := range 3 * takeFrames {
		in := inputs{gen: 1, turn: uint64(i + 1)}
		recs := []journal.Record{{Kind: RecordInputs, At: 1, Data: in.append(&pack, nil)}}
		if i%(takeFrames/2) == takeFrames/2-1 || i > 2*takeFrames {
			recs = append(recs, journal.Record{Kind: RecordItems, At: 1, Data: items})
		}
		n, err := a.j.Append(recs...)
		must(t, err)
		last = n
	}
	_, err := a.j.Sync()
	must(t, err)
	x, err := newReplicator(a.Router, a.o.Cluster, 1)
	must(t, err)
	rd, err := a.j.Read(1)
	must(t, err)
	defer rd.Close()
	turns, seq, turn := turnReader{x: x, rd: rd, next: 1}, uint64(0), uint64(0)
	for turns.next <= last {
		batch, err := turns.read()
		must(t, err)
		for _, got := range batch {
			records := uint64(1 + len(got.items))
			if seq, turn = seq+records, turn+1; got.seq != seq || got.turn != turn {
				t.Fatalf("turn %d up to record %d, want %d up to %d", got.turn, got.seq, turn, seq)
			}
		}
	}
	if seq != last || turn != 3*takeFrames {
		t.Errorf("read up to record %d, turn %d", seq, turn)
	}
	a.end(t)
}

// One sink is away for long while the log is not: what is remembered of turns is bounded, and none counts as delivered before
// it is.
func TestWindowIsBounded(t *testing.T) {
	a := newNode(t, "a", t.TempDir(), newMemoryLog(), &resumer{})
	<-a.Joined()
	x, err := newReplicator(a.Router, a.o.Cluster, 1)
	must(t, err)
	item := []core.Item{{Stream: core.StreamDeadLetter, Dead: &core.DeadLetter{Reason: "x"}}}
	const turns = windowTurns + 1000
	_, err = a.j.Append(make([]journal.Record, 2*turns)...)
	must(t, err)
	_, err = a.j.Sync()
	must(t, err)
	for i := range uint64(turns) {
		x.turn = i + 1
		x.await(&replica{turn: i + 1, items: item, seq: 2 * (i + 1)})
	}
	if len(x.window) != windowTurns || x.items != stateItems || x.bare != windowTurns-stateItems {
		t.Errorf("%d turns, %d items, %d bare", len(x.window), x.items, x.bare)
	}
	x.lag.cursor.Advance(2 * turns)
	for seq, want := range map[uint64]uint64{2 * 100: 100, 2*turns - 1: windowTurns - 1, 2 * turns: turns} {
		w := slices.Clone(x.window)
		items, bytes, bare := x.items, x.bytes, x.bare
		c, err := a.j.Cursor(fmt.Sprint(seq))
		must(t, err)
		c.Advance(seq)
		a.sinks[0].lag.cursor = c
		if got := x.delivered(); got != want {
			t.Errorf("up to record %d, turn %d, want %d", seq, got, want)
		}
		x.window, x.items, x.bytes, x.bare = w, items, bytes, bare
	}
	a.end(t)
}

// Status may be asked for at any time.
func TestStatusWhileTakingOver(t *testing.T) {
	a := newNode(t, "a", t.TempDir(), newMemoryLog(), &resumer{})
	<-a.Joined()
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-over:
				return
			default:
				a.sinks[0].status(0)
			}
		}
	}()
	for gen := range uint64(20) {
		a.takeOver(t, gen+1)
		a.lose(t)
	}
	close(over)
	a.end(t)
}

// What was read before the owner's session began is not held, what was read since is, also by a standby whose clock was set
// meanwhile.
func TestHeldSinceTheOwnerBegan(t *testing.T) {
	began := time.Now()
	now := began.Add(2 * time.Second)
	for read, want := range map[time.Time]int{began.Add(-time.Second): 0, began.Add(time.Second): 1, began.Add(-30 * time.Minute): 1, began.Add(30 * time.Minute): 1} {
		h, l := newHeld(), &link{}
		h.before(l, began)
		m := &message{kind: msgFrame, link: l, at: call.At(read), obs: observed(1, call.Observation{Kind: call.LegHeld, Leg: "a"}).Observations}
		if h.hold(m, now); h.n != want {
			t.Errorf("read at %s: %d are held, want %d", read.Sub(began), h.n, want)
		}
	}
}

// What finds no room while what was not logged is held again is counted.
func TestHeldAgainIsCounted(t *testing.T) {
	a := newNode(t, "a", t.TempDir(), newMemoryLog(), &resumer{})
	<-a.Joined()
	must(t, a.do(t.Context(), func() {
		h, l := a.follower.held, a.links[0]
		hold := func(i int) {
			h.hold(&message{kind: msgFrame, link: l, at: call.Time(i), obs: observed(i, call.Observation{Kind: call.LegHeld, Leg: "a"}).Observations}, time.Now())
		}
		for i := range heldMax + 100 {
			hold(i)
		}
		a.loop.holdAgain(0, []unlogged{{until: 7, lost: map[*link]*drop{l: {n: 5, from: 1, to: 2}}}})
		if d := h.dropped[l]; d == nil || d.n != 105 || h.n != heldMax {
			t.Errorf("%d held, dropped %+v", h.n, d)
		}
	}))
	a.end(t)
}

// A node takes over, and its own session, which it ends for a snapshot, brings calls until then: a gap touches them as well,
// and those that the next snapshot does not name are over.
func TestCallsBetweenDownAndUp(t *testing.T) {
	j, found := openJournal(t, t.TempDir(), journal.Options{})
	m := &memory{}
	o := kept(j, found)
	o.Links, o.Sinks = pbx(sessions()), []NamedSink{{Name: "m", Sink: m}}
	r, stop := start(t, o)
	must(t, r.do(t.Context(), func() {
		p, l, at := r.loop, r.links[0], now()
		step := func(kind msgKind, obs ...call.Observation) {
			at += call.Millisecond
			for i := range obs {
				obs[i].At, obs[i].Received, obs[i].Native = at, at, call.Native{Type: "test", ID: at.String()}
			}
			p.handle(&message{kind: kind, link: l, at: at, obs: obs, text: "taken over", inst: &core.Instance{Kind: "asterisk", ID: "aa:bb"}})
		}
		step(msgUp)
		step(msgDown)
		step(msgFrame, call.Observation{Kind: call.LegCreated, Leg: "a", Link: "a", Inbound: true}, call.Observation{Kind: call.SnapshotLeg, Leg: "a", Value: "up"})
		step(msgFrame, call.Observation{Kind: call.LegCreated, Leg: "b", Link: "b", Inbound: true})
		step(msgDown)
		step(msgFrame, call.Observation{Kind: call.LegCreated, Leg: "c", Link: "c", Inbound: true})
		step(msgUp)
		step(msgFrame, call.Observation{Kind: call.SnapshotEnd})
		p.flush(t.Context())
	}))
	eventually(t, "the records", func() bool { return len(m.on(core.StreamRecords)) == 3 })
	for _, i := range m.on(core.StreamRecords) {
		if c := i.Event.Call.Completeness; c == nil || c.Gaps != 1 {
			t.Errorf("call %s: %+v", i.Event.CallID, c)
		}
	}
	must(t, stop(), j.Close())
}

// A new owner ends its session for a snapshot. What that session's own snapshot says comes too late.
func TestSnapshotOfASessionThatEnds(t *testing.T) {
	a := newNode(t, "a", t.TempDir(), newMemoryLog(), &resumer{})
	<-a.Joined()
	a.takeOver(t, 1)
	eventually(t, "the link", func() bool { return a.Status().Ready })
	must(t, a.do(t.Context(), func() {
		l := a.links[0]
		l.ending = true
		said := func(o call.Observation) message {
			return message{kind: msgFrame, link: l, at: now(), obs: observed(1, o).Observations}
		}
		for _, x := range []struct {
			m    message
			left int
		}{
			{said(call.Observation{Kind: call.AgentStateChange, Agent: "agent1", Value: "busy", Synthetic: true}), 0},
			{said(call.Observation{Kind: call.SnapshotEnd}), 0},
			{said(call.Observation{Kind: call.AgentStateChange, Agent: "agent1", Value: "busy"}), 1},
		} {
			if a.loop.take(&x.m); len(x.m.obs) != x.left {
				t.Errorf("%d observations left, want %d", len(x.m.obs), x.left)
			}
		}
		end := message{kind: msgDown, link: l}
		if a.loop.watch(&end); l.ending {
			t.Error("the session has ended, and what the next says would be left out")
		}
	}))
	a.end(t)
}
