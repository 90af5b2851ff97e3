package router

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
	"github.com/ctigate/ctigate/core/journal"
)

const (
	aliveEvery    = 300 * time.Millisecond
	leasePause    = 5 * time.Millisecond
	stateItems    = 50_000   // a checkpoint waits while more items than this are on their way, or
	stateBytes    = 64 << 20 // of them, approximately
	windowTurns   = 64 << 10 // of which it is remembered one by one how far they are delivered
	replicaTurns  = 4096
	replicaBytes  = 64 << 20
	cursorCluster = "cluster.log" // no sink has a name like this
)

// replica is a turn on its way to the log.
type replica struct {
	turn  uint64
	data  []byte // its inputs
	items []core.Item
	at    call.Time // when they were made
	state []byte
	seq   uint64 // its last record
	bare  bool   // it has items, which are not here
	bytes int    // of items, once it is in the log
}

func (t *replica) size() int {
	return 128 + len(t.data) + len(t.state) + itemsSize(t.items)
}

// replicator is the stage of a cluster's owner between the journal and the sinks: what was taken is in the cluster's log
// before any sink is given what was made of it, so that another node can come to the same.
type replicator struct {
	r        *Router
	c        *Cluster
	lag      *lag
	q        *queue[replica]
	gen      uint64
	fenced   atomic.Bool
	finished atomic.Bool   // the last word is in the log
	next     atomic.Int64  // offset behind the latest entry of this stint
	logged   atomic.Uint64 // the latest turn that is in the log for sure

	sent core.Mark // the latest append
	late lateState // of a turn that is to be read from the journal; guarded by lag.mu

	begun uint64 // first turn of the stint: it and those up to first hold what of turns before may not have been delivered
	first uint64
	floor uint64 // the turn up to which all was delivered before it

	// Of run.
	turn    uint64    // the latest in the log
	state   int64     // offset of the latest checkpoint
	window  []replica // turns in the log of which not all is delivered, as far as that is known; without data
	items   int       // in window
	bytes   int       // of them
	bare    int       // turns in window whose items found no room there
	pending []byte    // the checkpoint of the latest turn
	owing   bool      // one was left out, since too much was on its way
}

// lateState is a checkpoint of the loop, and of which turn.
type lateState struct {
	turn  uint64
	state []byte
}

func newReplicator(r *Router, c *Cluster, gen uint64) (*replicator, error) {
	g, err := newLag(r.o.Journal, cursorCluster)
	if err != nil {
		return nil, err
	}
	return &replicator{r: r, c: c, lag: g, gen: gen, state: -1, q: newQueue(replicaTurns, replicaBytes, (*replica).size)}, nil
}

// feed queues a turn whose last record is seq, or has it read from the journal when there is no room.
func (x *replicator) feed(t *turn, data []byte, seq uint64) {
	g := x.lag
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tail = seq
	if g.behind && t.state != nil {
		x.late = lateState{t.inputs.turn, t.state}
	}
	if !g.behind && !x.q.offerAll([]replica{{turn: t.inputs.turn, data: bytes.Clone(data), items: t.items, at: t.at, state: t.state, seq: seq}}) {
		g.behind, g.next = true, seq
		if len(t.items) > 0 {
			g.next-- // the inputs are the record before
		}
		if t.state != nil {
			x.late = lateState{t.inputs.turn, t.state}
		}
	}
	signal(x.q.readable)
}

// run publishes turns until ctx ends.
func (x *replicator) run(ctx context.Context) {
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for ctx.Err() == nil {
		batch, open := x.q.take(nil, takeFrames, takeBytes)
		switch {
		case len(batch) > 0:
			x.publish(ctx, batch, func(w *writer, t *replica) { w.feed(t.items, t.seq) })
			continue
		case x.lag.isBehind():
			x.catchUp(ctx)
			continue
		case !open:
			_, ok := x.append(ctx, []entry{{kind: entryAlive}})
			x.finished.Store(ok)
			return
		}
		select {
		case <-x.q.readable:
		case <-alive.C:
			x.askAgain()
			if x.sent.Ago() >= aliveEvery {
				x.append(ctx, []entry{{kind: entryAlive}})
			}
		case <-ctx.Done():
		}
	}
}

// publish appends the inputs of batch to the log and then gives the sinks what was made of them, or lets them read it. A
// checkpoint stands directly behind its turn.
func (x *replicator) publish(ctx context.Context, batch []replica, give func(*writer, *replica)) {
	x.askAgain()
	for len(batch) > 0 {
		n := slices.IndexFunc(batch, func(t replica) bool { return t.state != nil }) + 1
		if n == 0 {
			n = len(batch)
		}
		if !x.publishTogether(ctx, batch[:n], give) {
			return
		}
		x.checkpoint(ctx)
		batch = batch[n:]
	}
}

func (x *replicator) publishTogether(ctx context.Context, batch []replica, give func(*writer, *replica)) bool {
	if _, ok := x.append(ctx, turnEntries(batch)); !ok {
		return false
	}
	x.logged.Store(x.turn)
	for i := range batch {
		x.passOn(&batch[i], give)
	}
	return true
}

func turnEntries(batch []replica) []entry {
	entries := make([]entry, 0, len(batch))
	for i := range batch {
		entries = append(entries, pieces(entryTurn, batch[i].data)...)
		entries[len(entries)-1].turn = batch[i].turn
	}
	return entries
}

// passOn lets every sink have a turn that is in the log.
func (x *replicator) passOn(t *replica, give func(*writer, *replica)) {
	for _, w := range x.r.sinks {
		give(w, t)
	}
	x.lag.cursor.Advance(t.seq)
	if t.state != nil {
		x.pending = t.state
	}
	t.data, t.state = nil, nil
	x.await(t)
}

// await remembers a turn until its items are delivered. Of too many, it remembers only when all of them are.
func (x *replicator) await(t *replica) {
	t.bytes = itemsSize(t.items)
	if len(t.items) > 0 && (x.items+len(t.items) > stateItems || x.bytes+t.bytes > stateBytes) {
		t.items, t.bytes, t.bare = nil, 0, true // no checkpoint is written before all this is delivered
	}
	if n := len(x.window); n >= windowTurns {
		last := &x.window[n-1]
		x.forget(last)
		last.seq, last.items, last.bytes, last.bare = t.seq, nil, 0, true
		x.bare++
		return
	}
	if t.bare {
		x.bare++
	}
	x.items += len(t.items)
	x.bytes += t.bytes
	x.window = append(x.window, *t)
}

// forget takes what a turn of window weighs off.
func (x *replicator) forget(t *replica) {
	x.items -= len(t.items)
	x.bytes -= t.bytes
	if t.bare {
		x.bare--
	}
}

// append writes entries to the log, for as long as it takes, while this node's lease runs. It reports false when ctx has
// ended or another owner has shut us out.
func (x *replicator) append(ctx context.Context, entries []entry) (first int64, ok bool) {
	raw, first := x.encode(entries), int64(-1)
	for failures := 0; x.c.wait(ctx); failures++ {
		offsets, err := x.c.Log.Append(ctx, raw)
		if n := len(offsets); n > 0 {
			if first < 0 {
				first = offsets[0]
			}
			if x.next.Swap(offsets[n-1]+1) > offsets[0] { // the log was made anew: it has no checkpoint
				x.state = -1
				x.r.keeper.wantState.Store(true)
			}
			raw = raw[n:]
			x.sent.Set()
		}
		switch {
		case err == nil:
			return first, true
		case errors.Is(err, core.ErrFenced):
			x.fenced.Store(true)
			x.r.log.Error("cluster: another node has taken over; publishing nothing more", "error", err)
			x.c.Fenced(err)
			<-ctx.Done()
		case ctx.Err() == nil:
			x.r.log.Warn("cluster: writing to the log: trying again", "error", err)
			sleep(ctx, x.r.o.SinkBackoff.pause(failures, x.r.o.Rand()))
		}
	}
	return 0, false
}

func (x *replicator) encode(entries []entry) [][]byte {
	raw, delivered := make([][]byte, len(entries)), x.delivered()
	for i := range entries {
		e := &entries[i]
		x.turn = max(x.turn, e.turn)
		e.gen, e.node, e.turn, e.delivered, e.state = x.gen, x.c.Node, x.turn, delivered, x.state
		raw[i] = e.bytes()
	}
	return raw
}

// delivered is the latest turn of which every sink has accepted everything.
func (x *replicator) delivered() uint64 {
	low := x.lag.cursor.Seq()
	for _, w := range x.r.sinks {
		low = min(low, w.lag.cursor.Seq())
	}
	for len(x.window) > 0 && x.window[0].seq <= low {
		x.forget(&x.window[0])
		x.window[0] = replica{}
		x.window = x.window[1:]
	}
	turn := x.turn
	if len(x.window) > 0 {
		turn = x.window[0].turn - 1
	}
	if turn < x.first {
		return x.floor
	}
	return turn
}

// checkpoint writes the checkpoint of the turn that was published last, if it has one, with the items that are on their
// way, for who joins has not made them. When there are too many of these, it is asked for anew later.
func (x *replicator) checkpoint(ctx context.Context) {
	if x.pending == nil {
		return
	}
	state := savedTurns{state: x.pending, gen: x.gen}
	x.pending = nil
	x.delivered()
	if x.bare > 0 {
		x.owing = true
		return
	}
	x.owing = false
	for _, t := range x.window {
		if len(t.items) > 0 {
			state.turns = append(state.turns, unsure{turn: t.turn, items: t.items, at: t.at})
		}
	}
	if first, ok := x.append(ctx, pieces(entryState, state.bytes())); ok {
		x.state = first
	}
}

// askAgain asks for a checkpoint in place of one that was left out, once there is room for it.
func (x *replicator) askAgain() {
	if x.delivered(); x.owing && x.bare == 0 {
		x.owing = false
		x.r.keeper.wantState.Store(true)
	}
}

// catchUp publishes from the journal what the queue had no room for.
func (x *replicator) catchUp(ctx context.Context) {
	rd, err := x.lag.j.Read(x.lag.next)
	if err != nil {
		x.r.log.Error("cluster: reading the journal", "error", err)
		sleep(ctx, x.r.o.SinkBackoff.Max)
		return
	}
	defer rd.Close()
	turns := turnReader{x: x, rd: rd, next: x.lag.next}
	for ctx.Err() == nil {
		batch, err := turns.read()
		if err != nil {
			x.r.log.Error("cluster: reading the journal", "error", err)
			return
		}
		x.publish(ctx, batch, func(w *writer, t *replica) { w.readTo(t.seq) })
		if ctx.Err() == nil && x.lag.caughtUp(turns.next) {
			return
		}
	}
}

// turnReader reads whole turns from the journal.
type turnReader struct {
	x     *replicator
	rd    *journal.Reader
	next  uint64   // record
	begun *replica // of which record next is the inputs, read already
}

// read returns turns up to the journal's tail, some at a time. A turn's last record is that of its items, where it has any.
func (r *turnReader) read() (batch []replica, err error) {
	size := 0
	if r.begun != nil {
		batch, size = append(batch, *r.begun), r.begun.size()
		r.next, r.begun = r.begun.seq+1, nil
	}
	for tail := r.x.lag.upTo(); r.next <= tail; {
		rec, err := r.rd.Next()
		switch {
		case passedOver(err):
			r.x.r.log.Error("cluster: records of the journal cannot be published", "error", err)
			r.x.r.keeper.wantState.Store(true) // nobody gets past the hole without a checkpoint behind it
			r.next = r.rd.Seq()
			continue
		case err == io.EOF:
			r.next = tail + 1
			return batch, nil
		case err != nil:
			return batch, err
		}
		size += len(rec.Data)
		n := len(batch)
		switch {
		case rec.Kind == RecordItems && n > 0 && batch[n-1].seq == rec.Seq-1:
			batch[n-1].seq = rec.Seq
			batch[n-1].items, _ = codec.ReadItems(rec.Data) // the sinks complain
		case rec.Kind == RecordInputs:
			in, err := readInputs(rec.Data, func(string) *link { return nil })
			if err != nil {
				r.x.r.log.Error("cluster: a turn of the journal cannot be published", "record", rec.Seq, "error", err)
				break
			}
			t := replica{turn: in.turn, data: rec.Data, at: rec.At, seq: rec.Seq, state: r.x.takeLate(in.turn)}
			if n >= takeFrames || n > 0 && size > takeBytes {
				r.next, r.begun = rec.Seq, &t
				return batch, nil
			}
			batch = append(batch, t)
		}
		r.next = rec.Seq + 1
	}
	return batch, nil
}

// takeLate returns the checkpoint of a turn that had no room in memory, if it had one.
func (x *replicator) takeLate(turn uint64) (state []byte) {
	x.lag.mu.Lock()
	defer x.lag.mu.Unlock()
	if x.late.turn == turn {
		state, x.late.state = x.late.state, nil
	}
	return state
}

// readTo lets the sink read from the journal up to record seq.
func (w *writer) readTo(seq uint64) {
	g := w.lag
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.behind {
		g.behind, g.next = true, g.tail+1
	}
	g.tail = seq
	signal(w.q.readable)
}
