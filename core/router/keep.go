package router

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
	"github.com/ctigate/ctigate/core/journal"
)

// Kinds of the journal's records. A turn of the core loop is one or two of them, in this order.
const (
	RecordInputs = 1 // what it took
	RecordItems  = 2 // what it made
)

const (
	keepTurns     = 256                   // at most, waiting for the journal
	keepBytes     = 64 << 20              // of them, approximately, or a sixteenth of the journal's bound
	fullPause     = 20 * time.Millisecond // between attempts while the journal is at its bound
	expireEvery   = 10 * time.Second
	maxNotes      = 100
	probeEvery    = time.Second // while the journal cannot be written
	stateEach     = time.Minute // between two checkpoints, or
	stateEachByte = 64 << 20    // of the journal, or a sixteenth of its bound: what is behind the latest but one stays
)

// turn is what the core loop took and made between two looks at its queue.
type turn struct {
	inputs inputs
	items  []core.Item
	state  []byte // of the loop after this turn, when a checkpoint is due
	at     call.Time
}

func (t *turn) size() int {
	return len(t.state) + t.inputs.size() + itemsSize(t.items)
}

// keeper is the stage between the core loop and the sinks where there is a journal: turns are on disk, synced in groups,
// before any sink is given their items. While the disk cannot be written, the sinks are given them all the same.
type keeper struct {
	r     *Router
	j     *journal.Journal
	turns *queue[turn]
	runs  sync.WaitGroup

	saveEach int // bytes between two checkpoints

	x *replicator // in a cluster, for one stint

	keeping   atomic.Bool // turns have been taken from the queue and are not passed on
	wantState atomic.Bool // the loop is to add its state to the next turn
	trouble   atomic.Pointer[string]
	blocked   atomic.Bool // the journal is at its bound
	bypassed  atomic.Int64
	lost      atomic.Int64 // items that neither the journal nor a sink's queue took before time ran out

	mu    sync.Mutex
	notes []lostNote

	// Of run.
	batch     []turn
	recs      []journal.Record
	buf       []byte
	pack      call.Pack
	saving    atomic.Bool
	savers    sync.WaitGroup
	saved     time.Time // the latest checkpoint
	sinceSave int       // bytes
	probed    time.Time
}

func newKeeper(r *Router, j *journal.Journal) *keeper {
	waiting, saveEach := keepBytes, stateEachByte
	if bound := int(j.Stats().MaxBytes); bound > 0 {
		waiting, saveEach = min(waiting, bound/16), min(saveEach, bound/16)
	}
	return &keeper{r: r, j: j, turns: newQueue(keepTurns, waiting, (*turn).size), saved: r.o.Now(), saveEach: saveEach}
}

// run keeps turns until their queue is closed and empty. hard is when sinks are not to be waited for any more; what the
// disk takes is kept even then.
func (k *keeper) run(hard context.Context) {
	defer k.savers.Wait()
	for {
		var open bool
		k.keeping.Store(true)
		k.batch, open = k.turns.take(k.batch[:0], keepTurns, k.turns.maxBytes)
		if len(k.batch) > 0 {
			k.keep(hard, k.batch)
			clear(k.batch)
			continue
		}
		k.keeping.Store(false)
		if !open || k.x != nil && hard.Err() != nil {
			return
		}
		k.idle(hard)
	}
}

// idle waits for turns, and lets the journal forget what is too old. Only a stint in a cluster ends before the queue is
// closed.
func (k *keeper) idle(stint context.Context) {
	old := time.NewTimer(expireEvery)
	defer old.Stop()
	over := stint.Done()
	if k.x == nil {
		over = nil
	}
	select {
	case <-k.turns.readable:
	case <-over:
	case <-old.C:
		k.j.Expire(call.At(k.r.o.Now()))
	}
}

// lostNote tells of items that a sink will not get from the journal.
type lostNote struct {
	text     string
	from, to call.Time // received time; 0 for when it is told
}

// gone notes, for a source.gap of every link, that sink cannot have what was from and to.
func (k *keeper) gone(sink, why string, from, to call.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.notes) < maxNotes {
		k.notes = append(k.notes, lostNote{fmt.Sprintf("sink %q: %s", sink, why), from, to})
	}
}

// takeNotes returns what was lost since it was asked last.
func (k *keeper) takeNotes() []lostNote {
	for _, d := range k.j.TakeDropped() {
		if d.Cursor != cursorCluster {
			k.gone(d.Cursor, fmt.Sprintf("%d records of the journal dropped, %s", d.Records, d.Reason), d.FirstAt, d.LastAt)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	notes := k.notes
	k.notes = nil
	return notes
}

// keep journals turns, and gives their items to the sinks.
func (k *keeper) keep(hard context.Context, turns []turn) {
	if k.trouble.Load() != nil && k.x == nil {
		turns = k.retry(hard, turns)
	}
	if len(turns) == 0 {
		return
	}
	last, err := k.append(hard, turns)
	for err != nil && k.x != nil { // another node takes over when it misses what came here
		if hard.Err() != nil {
			return
		}
		k.fail(err)
		sleep(hard, probeEvery)
		last, err = k.append(hard, turns)
	}
	if k.x != nil {
		k.trouble.Store(nil)
	}
	if err != nil {
		k.fail(err)
		k.bypass(hard, turns)
		return
	}
	for i, n := 0, 0; i < len(turns); i, n = i+1, n+turns[i].records() {
		k.feed(&turns[i], k.recs[n].Data, last[i])
		k.checkpoint(&turns[i], last[i])
	}
}

// append writes turns as one group and returns the last record of each.
func (k *keeper) append(hard context.Context, turns []turn) (last []uint64, err error) {
	k.encode(turns)
	end, err := k.j.Append(k.recs...)
	for errors.Is(err, journal.ErrFull) && k.waitRoom(hard) {
		end, err = k.j.Append(k.recs...)
	}
	k.blocked.Store(false)
	if err != nil {
		return nil, err
	}
	if _, err := k.j.Sync(); err != nil {
		return nil, err
	}
	last = make([]uint64, len(turns))
	for i := len(turns) - 1; i >= 0; i-- {
		last[i] = end
		end -= uint64(turns[i].records())
	}
	return last, nil
}

// records is how many of the journal t is.
func (t *turn) records() int {
	if len(t.items) > 0 {
		return 2
	}
	return 1
}

// encode makes the records of turns: one of inputs each, and one of items where there are any.
func (k *keeper) encode(turns []turn) {
	k.recs, k.buf = k.recs[:0], k.buf[:0]
	ends := make([]int, 0, 2*len(turns))
	for i := range turns {
		k.buf = turns[i].inputs.append(&k.pack, k.buf)
		ends = append(ends, len(k.buf))
		k.recs = append(k.recs, journal.Record{Kind: RecordInputs, At: turns[i].at})
		if len(turns[i].items) > 0 {
			k.buf = codec.AppendItems(k.buf, turns[i].items)
			ends = append(ends, len(k.buf))
			k.recs = append(k.recs, journal.Record{Kind: RecordItems, At: turns[i].at})
		}
	}
	start := 0
	for i, end := range ends {
		k.recs[i].Data = k.buf[start:end:end]
		start = end
	}
	k.sinceSave += len(k.buf)
	if cap(k.buf) > keepBytes {
		k.buf = nil
	}
}

// waitRoom waits a little for sinks to get on, so that the journal can let go of its oldest records.
func (k *keeper) waitRoom(hard context.Context) bool {
	if !k.blocked.Swap(true) {
		k.r.log.Warn("journal full: the links wait until a sink has caught up", "bytes", k.j.Stats().Bytes)
	}
	k.j.Trim(math.MaxUint64)
	return sleep(hard, fullPause)
}

// feed passes a turn, with its inputs as they are in the journal and its last record, on to every sink, in a cluster by
// way of the log.
func (k *keeper) feed(t *turn, data []byte, seq uint64) {
	for i := range t.items {
		t.items[i].Seq = seq
	}
	if k.x != nil {
		k.x.feed(t, data, seq)
		return
	}
	for _, w := range k.r.sinks {
		w.feed(t.items, seq)
	}
}

// checkpoint saves the loop's state with the turn that carries it, and asks for the next when it is due. Writing it is
// left to a goroutine, one at a time: it may be large, and events go on.
func (k *keeper) checkpoint(t *turn, seq uint64) {
	now := k.r.o.Now()
	if t.state != nil && !k.saving.Swap(true) {
		k.saved, k.sinceSave = now, 0
		state := t.state
		k.savers.Go(func() {
			defer k.saving.Store(false)
			k.save(seq, state)
		})
	}
	if k.sinceSave > k.saveEach || k.sinceSave > 0 && now.Sub(k.saved) > stateEach {
		k.wantState.Store(true)
	}
}

func (k *keeper) save(seq uint64, state []byte) {
	if err := k.j.SaveCheckpoint(seq, state); err != nil {
		k.r.log.Error("journal: saving a checkpoint failed; a restart reads more of the journal", "error", err)
		return
	}
	k.j.Trim(math.MaxUint64)
}

// fail notes that the journal cannot be written.
func (k *keeper) fail(err error) {
	why := err.Error()
	k.trouble.Store(&why)
	k.probed = k.r.o.Now()
	k.r.log.Error("journal cannot be written: delivering without it; what is received now is lost if the gateway ends before it is delivered", "error", err)
}

// retry tries once a second to go on with the journal after it could not be written. That needs a turn with the loop's
// state, for the inputs of the turns before are not there. It returns the turns that are still to be kept.
func (k *keeper) retry(hard context.Context, turns []turn) []turn {
	for i := range turns {
		state := turns[i].state
		k.bypass(hard, turns[i:i+1])
		if state == nil {
			continue
		}
		if err := k.start(state); err != nil {
			k.probed = k.r.o.Now()
			continue
		}
		k.trouble.Store(nil)
		k.saved, k.sinceSave = k.r.o.Now(), 0
		k.r.log.Info("journal written again", "items_without", k.bypassed.Load())
		return turns[i+1:]
	}
	if k.r.o.Now().Sub(k.probed) >= probeEvery {
		k.wantState.Store(true)
	}
	return nil
}

// start makes a journal that could not be written begin anew with state.
func (k *keeper) start(state []byte) error {
	seq, err := k.j.Sync()
	if err != nil {
		return err
	}
	return k.j.SaveCheckpoint(seq, state)
}

// bypass gives turns to the sinks from memory alone, in order behind what they still read from the journal.
func (k *keeper) bypass(hard context.Context, turns []turn) {
	for i := range turns {
		k.bypassed.Add(int64(len(turns[i].items)))
		for _, w := range k.r.sinks {
			k.lost.Add(int64(w.push(hard, turns[i].items)))
		}
	}
}

// hand gives the turn to the keeper. A turn of nothing but time that made nothing waits for the next.
func (p *loop) hand() {
	if len(p.items) == 0 && (len(p.inputs) == 0 || len(p.inputs) == 1 && p.inputs[0].kind == msgTick) && !p.r.keeper.wantState.Load() {
		return
	}
	p.nth++
	t := turn{inputs: inputs{gen: p.gen, turn: p.nth, msgs: p.inputs}, items: p.items, at: p.now}
	if p.r.keeper.wantState.Swap(false) {
		t.state = p.appendState(nil)
	}
	p.remember(t.inputs)
	if err := p.r.keeper.turns.push(p.r.stint.ctx, t); err != nil {
		p.r.log.Warn("a turn is left to another node", "inputs", len(t.inputs.msgs), "items", len(t.items), "reason", err)
	}
	p.inputs, p.items = nil, make([]core.Item, 0, len(p.items))
}

// note remembers an input of this turn. Of ticks that made nothing, one after the other, the last says it all.
func (p *loop) note(m *message, made bool) {
	if p.r.keeper == nil || p.mute {
		return
	}
	if n := len(p.inputs); !made && m.kind == msgTick && n > 0 && p.inputs[n-1].kind == msgTick && p.quiet {
		p.inputs[n-1] = *m
		return
	}
	p.inputs = append(p.inputs, *m)
	p.quiet = m.kind == msgTick && !made
}

// left tells the log what a stop leaves in the journal for the next start.
func (k *keeper) left() {
	for _, w := range k.r.sinks {
		if n := w.lag.records(); n > 0 {
			k.r.log.Warn("stopped: a sink has not been given all yet; the rest is in the journal for the next start", "sink", w.name, "records", n)
		}
	}
}
