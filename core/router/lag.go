package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/codec"
	"github.com/ctigate/ctigate/core/journal"
)

// lag is how a writer stands to the journal. While it keeps up, it is fed from memory. When its queue has no room for a
// turn, and when the gateway starts, it reads from its cursor on, until it has read what was journaled last.
type lag struct {
	j      *journal.Journal
	cursor *journal.Cursor
	resume uint64 // the last record of an earlier run: what is up to it may have been delivered
	caught chan struct{}

	mu     sync.Mutex
	tail   uint64 // the last record that the sink is to have
	behind bool
	next   uint64 // the first record to read, while behind
}

// newLag makes the sink called name go on where it was.
func newLag(j *journal.Journal, name string) (*lag, error) {
	c, err := j.Cursor(name)
	if err != nil {
		return nil, fmt.Errorf("journal: opening the cursor of sink %s: %w", name, err)
	}
	last := j.Stats().Last
	return &lag{j: j, cursor: c, resume: last, tail: last, next: c.Seq() + 1, behind: c.Seq() < last, caught: make(chan struct{}, 1)}, nil
}

// isBehind reports whether what comes next is to be read from the journal.
func (g *lag) isBehind() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.behind
}

// caughtUp ends reading from the journal when nothing is left to be read, and reports whether it did.
func (g *lag) caughtUp(next uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = next
	if next <= g.tail || g.tail < g.resume {
		return false
	}
	g.behind = false
	signal(g.caught)
	return true
}

func (g *lag) upTo() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tail
}

// records is how many are journaled and not delivered yet.
func (g *lag) records() int64 { return int64(g.upTo()) - int64(g.cursor.Seq()) }

// feed queues the items of record seq, all or none: then the sink reads them from the journal.
func (w *writer) feed(items []core.Item, seq uint64) {
	g := w.lag
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tail = seq
	if !g.behind && !w.offerAll(w.wanted(items)) {
		g.behind, g.next = true, seq
		w.full.Store(true)
		w.r.log.Info("sink lags: it goes on from the journal", "sink", w.name, "queued", w.q.len())
	}
	signal(w.q.readable)
}

// offerAll queues all of items, or none.
func (w *writer) offerAll(items []core.Item) bool {
	if len(items) == 0 {
		return true
	}
	if !w.q.offerAll(items) {
		return false
	}
	w.tel.Depth.Add(int64(len(items)))
	w.tel.Produced.Add(uint64(len(items)))
	return true
}

// push queues items that are not in the journal, once the sink has read what is. It returns how many found no room
// before hard ended.
func (w *writer) push(hard context.Context, items []core.Item) (lost int) {
	items = w.wanted(items)
	for w.lag.isBehind() {
		select {
		case <-w.lag.caught:
		case <-hard.Done():
			return len(items)
		}
	}
	w.pending = w.offer(items)
	lost = len(w.pending)
	w.waitAccepted(hard)
	if hard.Err() == nil {
		return 0
	}
	return lost
}

// settled moves the cursor when everything that the sink was given is delivered.
func (w *writer) settled() {
	g := w.lag
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.behind && w.q.len() == 0 {
		g.cursor.Advance(g.tail)
	}
	w.tel.Behind.Store(int64(g.tail) - int64(g.cursor.Seq()))
}

// catchUp delivers from the journal until the sink has caught up, or hard ends.
func (w *writer) catchUp(hard context.Context) {
	rd := &lagReader{w: w, next: w.lag.next}
	defer rd.close()
	for hard.Err() == nil {
		items, err := rd.read()
		switch {
		case err != nil:
			w.failing(fmt.Errorf("reading the journal: %w", err), 0, w.r.o.SinkBackoff.Max)
			rd.close()
			if !sleep(hard, w.r.o.SinkBackoff.Min) {
				return
			}
		case len(items) > 0:
			if !w.deliverRead(hard, items) {
				return
			}
		}
		w.lag.cursor.Advance(rd.next - 1)
		w.tel.Behind.Store(w.lag.records())
		if err == nil && w.lag.caughtUp(rd.next) {
			w.full.Store(false)
			return
		}
		if err == nil && len(items) == 0 {
			w.waitMore(hard)
		}
	}
}

// waitMore waits for records that are to be read and not there yet.
func (w *writer) waitMore(hard context.Context) {
	select {
	case <-w.q.readable:
	case <-hard.Done():
	}
}

// deliverRead delivers items that were read, less those that an earlier run has delivered, in batches.
func (w *writer) deliverRead(hard context.Context, items []core.Item) bool {
	items, ok := w.missing(hard, items)
	if !ok {
		return false
	}
	w.tel.Depth.Add(int64(len(items)))
	w.tel.Produced.Add(uint64(len(items)))
	for len(items) > 0 {
		n := min(len(items), w.batch)
		if !w.deliver(hard, items[:n:n]) {
			return false
		}
		items = items[n:]
	}
	return true
}

// missing leaves out what was delivered before the gateway started. At most one Write was under way then, so that once
// more than a Write's items are all missing, everything later is.
func (w *writer) missing(hard context.Context, items []core.Item) ([]core.Item, bool) {
	sink, can := w.sink.(core.Resumer)
	if w.resumed || !can || items[0].Seq > w.lag.resume {
		w.resumed = true
		return items, true
	}
	for failures := 0; ; failures++ {
		left, err := sink.Missing(hard, items)
		if err == nil {
			w.recovered()
			w.resumed = len(left) == len(items) && len(items) >= 2*w.batch
			w.r.log.Info("sink asked what it has", "sink", w.name, "items", len(items), "missing", len(left))
			return left, true
		}
		pause := w.r.o.SinkBackoff.pause(failures, w.r.o.Rand())
		w.failing(fmt.Errorf("asking what was delivered before: %w", err), len(items), pause)
		if !w.rest(hard, pause) {
			return nil, false
		}
	}
}

// passedOver reports whether err stands for records that are damaged or gone, behind which reading goes on.
func passedOver(err error) bool {
	var damage *journal.DamageError
	var gone *journal.GoneError
	return errors.As(err, &damage) || errors.As(err, &gone)
}

// lagReader reads a sink's items from the journal.
type lagReader struct {
	w    *writer
	rd   *journal.Reader
	next uint64 // record
}

func (l *lagReader) close() {
	if l.rd != nil {
		l.rd.Close()
		l.rd = nil
	}
}

// read returns the items of some records, for two batches if there are so many; none at the tail.
func (l *lagReader) read() (items []core.Item, err error) {
	if l.rd == nil {
		if l.rd, err = l.w.lag.j.Read(l.next); err != nil {
			return nil, err
		}
	}
	for tail := l.w.lag.upTo(); l.next <= tail && len(items) < 2*l.w.batch; {
		rec, err := l.rd.Next()
		switch {
		case passedOver(err):
			l.skip(err)
			continue
		case err == io.EOF: // damaged up to the end
			l.skip(err)
			l.next = tail + 1
			return items, nil
		case err != nil:
			return items, err
		}
		items = l.take(items, rec)
		l.next = rec.Seq + 1
	}
	return items, nil
}

// take appends the items of rec that the sink wants.
func (l *lagReader) take(items []core.Item, rec journal.Record) []core.Item {
	if rec.Kind != RecordItems {
		return items
	}
	read, err := codec.ReadItems(rec.Data)
	if err != nil {
		l.skip(fmt.Errorf("record %d: %w", rec.Seq, err))
		return items
	}
	for i := range read {
		read[i].Seq = rec.Seq
	}
	return append(items, l.w.wanted(read)...)
}

// skip has it told that records cannot be read.
func (l *lagReader) skip(why error) {
	l.w.r.keeper.gone(l.w.name, why.Error(), 0, 0)
	l.w.r.log.Error("sink skips records of the journal", "sink", l.w.name, "after", l.next, "error", why)
}
