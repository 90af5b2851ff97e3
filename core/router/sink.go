package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/telemetry"
)

const (
	batchBytes   = 4 << 20   // of a batch, approximately
	maxRefused   = 256 << 10 // bytes of a refused event in its dead letter
	complainEach = time.Minute
	touchEvery   = time.Hour // of a sink that gets nothing, in a cluster
	// A note about dropped items is published when drops pause this long, or have gone on so long.
	dropPause, dropMax = call.Second, 10 * call.Second
)

// writer feeds one sink: a bounded queue and the goroutine that empties it.
type writer struct {
	r       *Router
	name    string
	sink    core.Sink
	streams []core.Stream
	policy  WhenFull
	batch   int
	q       *queue[core.Item]
	tel     *telemetry.Sink
	lag     *lag // nil without a journal

	full    atomic.Bool
	ended   atomic.Bool  // run is not running: no Write is under way
	lost    atomic.Int64 // items that found no room before the drain ran out of time
	given   atomic.Int64 // items given up since the queue was full
	gone    atomic.Int64 // items that the sink refused for good and that became no dead letter either
	lastAck atomic.Int64 // call.Time

	// Of the core loop.
	pending []core.Item // of this turn, waiting for room
	drops   map[string]*drop
	dropped call.Time // last

	writing atomic.Int64 // call.Time since when a Write has been under way; 0: none is

	mu           sync.Mutex
	failingSince call.Time
	lastErr      string
	complained   time.Time

	refusals refusals // of run
	resumed  bool     // of run: what is read from the journal was not delivered before
}

// refusals are items refused for good that the log has not told of yet.
type refusals struct {
	n    int
	last error
	item core.Item // the last one
	said time.Time // when the log was told
}

// drop is what was dropped of one switch.
type drop struct {
	n        int
	from, to call.Time
}

func newWriter(r *Router, s NamedSink) *writer {
	w := &writer{r: r, name: s.Name, sink: s.Sink, streams: s.Streams, policy: def(s.WhenFull, Block),
		batch: def(s.BatchItems, 500), tel: r.o.Telemetry.Sink(s.Name), drops: map[string]*drop{},
		q: newQueue(def(s.QueueItems, r.o.SinkQueueLen), def(s.QueueBytes, 256<<20), itemSize)}
	w.ended.Store(true)
	return w
}

// accept queues those of items that the sink wants and that find room. The rest waits in pending or is dropped.
// items must stay as they are until waitAccepted has returned.
func (w *writer) accept(items []core.Item, now call.Time) {
	w.pending = w.offer(w.wanted(items))
	if len(w.pending) == 0 {
		return
	}
	if !w.full.Swap(true) {
		w.r.log.Warn("sink queue full", "sink", w.name, "items", w.q.len(), "policy", w.policy)
	}
	if w.policy == Drop {
		w.drop(w.pending, now)
		w.pending = nil
	}
}

// takes reports whether the sink is to have what is on s.
func (w *writer) takes(s core.Stream) bool {
	return len(w.streams) == 0 || slices.Contains(w.streams, s)
}

func (w *writer) wanted(items []core.Item) []core.Item {
	if len(w.streams) == 0 {
		return items
	}
	var some []core.Item
	for _, i := range items {
		if w.takes(i.Stream) {
			some = append(some, i)
		}
	}
	return some
}

// offer queues what finds room and returns the rest.
func (w *writer) offer(items []core.Item) []core.Item {
	w.tel.Depth.Add(int64(len(items)))
	n, _ := w.q.offer(items) // the core loop ends before the queue is closed
	w.tel.Depth.Add(int64(n - len(items)))
	w.tel.Produced.Add(uint64(n))
	return items[n:]
}

// waitAccepted waits until pending is queued, or hard ends.
func (w *writer) waitAccepted(hard context.Context) {
	if len(w.pending) == 0 {
		return
	}
	for len(w.pending) > 0 {
		if err := w.q.waitRoom(hard); err != nil {
			w.lost.Add(int64(len(w.pending)))
			w.tel.Dropped.Add(uint64(len(w.pending)))
			w.pending = nil
			return
		}
		w.pending = w.offer(w.pending)
	}
	w.full.Store(false)
}

func (w *writer) drop(items []core.Item, now call.Time) {
	w.tel.Dropped.Add(uint64(len(items)))
	w.given.Add(int64(len(items)))
	w.dropped = now
	for i := range items {
		d := w.drops[items[i].Switch.ID]
		if d == nil {
			d = &drop{from: now}
			w.drops[items[i].Switch.ID] = d
		}
		d.n++
		d.to = now
	}
}

// takeDrops returns what is to be said about dropped items, by switch, once drops pause or have gone on for a while, or
// at once when there will be no more.
func (w *writer) takeDrops(now call.Time, last bool) map[string]*drop {
	ripe := last || now-w.dropped >= dropPause
	for _, d := range w.drops {
		ripe = ripe || now-d.from >= dropMax
	}
	if len(w.drops) == 0 || !ripe {
		return nil
	}
	d := w.drops
	w.drops = map[string]*drop{}
	return d
}

// run writes what is queued until the queue is closed and empty, or hard ends.
func (w *writer) run(hard context.Context) {
	w.ended.Store(false)
	defer w.ended.Store(true)
	defer w.tellRefusals(true)
	alive := time.NewTicker(touchEvery)
	defer alive.Stop()
	for hard.Err() == nil {
		batch, open := w.q.take(nil, w.batch, batchBytes)
		if w.policy == Drop && w.q.halfEmpty() {
			w.full.Store(false)
		}
		switch {
		case len(batch) > 0:
			if !w.deliver(hard, batch) {
				return
			}
			w.delivered(batch)
		case w.lag != nil && w.lag.isBehind():
			w.catchUp(hard)
		case !open:
			return
		default:
			w.settled()
			select {
			case <-w.q.readable:
			case <-alive.C:
				w.touch(hard)
			case <-hard.Done():
				return
			}
		}
	}
}

// touch lets the sink of a cluster's owner renew what it has at its destination, which forgets those that are silent for
// days: nothing is written.
func (w *writer) touch(hard context.Context) {
	if w.r.o.Cluster == nil {
		return
	}
	if err := w.sink.Write(hard, nil); err != nil {
		w.r.log.Warn("sink could not be touched", "sink", w.name, "error", err)
	}
}

// delivered moves the cursor in the journal behind what batch has completed: the last turn in it may go on in the next.
func (w *writer) delivered(batch []core.Item) {
	if w.lag == nil {
		return
	}
	if seq := batch[len(batch)-1].Seq; seq > 1 {
		w.lag.cursor.Advance(seq - 1)
	}
	w.tel.Behind.Store(w.lag.records())
}

// deliver writes batch, and what failed of it again until it is accepted, before anything later is offered. It
// reports whether all of it was settled before hard ended.
func (w *writer) deliver(hard context.Context, batch []core.Item) bool {
	for failures := 0; ; failures++ {
		if c := w.r.o.Cluster; c != nil && !c.wait(hard) {
			return false
		}
		w.writing.Store(int64(call.At(w.r.o.Now())))
		err := w.sink.Write(hard, batch)
		w.writing.Store(0)
		left := w.settle(batch, err)
		if err == nil || len(left) == 0 {
			w.recovered()
			return true
		}
		if hard.Err() != nil {
			return false // that is why
		}
		if len(left) < len(batch) {
			failures = 0
		}
		batch = left
		pause := w.r.o.SinkBackoff.pause(failures, w.r.o.Rand())
		if core.IsPermanent(err) {
			pause = w.r.o.SinkBackoff.Permanent
		}
		w.failing(err, len(left), pause)
		if !w.rest(hard, pause) {
			return false
		}
		w.tel.Retried.Add(uint64(len(left)))
	}
}

// rest pauses before the next attempt. The start of a drain cuts a long pause short, once for each attempt: what could
// not be delivered may be deliverable by now, and there is no later. It reports false when hard has ended.
func (w *writer) rest(hard context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-hard.Done():
		return false
	case <-w.r.drainStart:
		return sleep(hard, min(pause, w.r.o.SinkBackoff.Min))
	}
}

// settle counts what was accepted, turns what the sink will never accept into dead letters, and returns what is to be
// offered again, in order.
func (w *writer) settle(batch []core.Item, err error) (left []core.Item) {
	defer w.tellRefusals(false)
	if err == nil {
		w.ack(batch, nil)
		return nil
	}
	var be *core.BatchError
	if !errors.As(err, &be) {
		return batch
	}
	w.ack(batch, be.Failed)
	var dead []core.Item
	for i := range batch {
		switch e, failed := be.Failed[i]; {
		case !failed:
		case core.IsPermanent(e):
			dead = w.refused(dead, &batch[i], e)
		default:
			left = append(left, batch[i])
		}
	}
	return append(left, dead...)
}

// ack counts the items of batch that did not fail.
func (w *writer) ack(batch []core.Item, failed map[int]error) {
	now := w.r.o.Now()
	n := 0
	for i := range batch {
		if _, bad := failed[i]; bad {
			continue
		}
		n++
		if e := batch[i].Event; e != nil && batch[i].Stream == core.StreamEvents && e.Time.Received != 0 {
			w.tel.ToAcked(now.Sub(e.Time.Received.Std()))
		}
	}
	if n > 0 {
		w.tel.Acked.Add(uint64(n))
		w.tel.Depth.Add(int64(-n))
		w.lastAck.Store(int64(call.At(now)))
	}
}

// refused counts an item that the sink will never accept, and appends a dead letter in its place when it was an event
// and the sink takes dead letters.
func (w *writer) refused(dead []core.Item, i *core.Item, why error) []core.Item {
	w.tel.DeadLettered.Add(1)
	w.tel.Depth.Add(-1)
	w.refusals.n++
	w.refusals.last, w.refusals.item = why, *i
	if i.Event == nil || !w.takes(core.StreamDeadLetter) {
		w.gone.Add(1)
		return dead
	}
	raw, err := json.Marshal(i.Event)
	if err != nil {
		raw = []byte(err.Error())
	}
	reason := fmt.Sprintf("sink %s refused event %s (%s) on stream %s: %v", w.name, i.Event.ID, i.Event.Type, i.Stream, why)
	if len(raw) > maxRefused {
		reason += fmt.Sprintf("; the first %d of %d bytes", maxRefused, len(raw))
		raw = raw[:maxRefused]
	}
	w.tel.Depth.Add(1)
	w.tel.Produced.Add(1)
	return append(dead, core.Item{Stream: core.StreamDeadLetter, Key: i.Switch.ID, Switch: i.Switch,
		Dead: &core.DeadLetter{Raw: raw, Reason: reason, Received: i.Event.Time.Received}})
}

// tellRefusals logs what was refused for good since the last time, a line a minute at most.
func (w *writer) tellRefusals(last bool) {
	r, now := &w.refusals, w.r.o.Now()
	if r.n == 0 || !last && now.Sub(r.said) < complainEach {
		return
	}
	w.r.log.Error("sink refuses items for good", "sink", w.name, "items", r.n, "stream", r.item.Stream, "key", r.item.Key,
		"error", r.last, "lost", w.gone.Load())
	*r = refusals{said: now}
}

func (w *writer) failing(err error, items int, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.r.o.Now()
	if w.failingSince == 0 {
		w.failingSince, w.complained = call.At(now), time.Time{}
		w.tel.Failing.Store(true)
	}
	w.lastErr = err.Error()
	if now.Sub(w.complained) >= complainEach {
		w.complained = now
		w.r.log.Warn("sink not accepting: trying again", "sink", w.name, "items", items, "error", err,
			"in", pause.Round(time.Millisecond), "queued", w.tel.Depth.Load())
	}
}

func (w *writer) recovered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failingSince == 0 {
		return
	}
	w.r.log.Info("sink accepting again", "sink", w.name, "failed_since", w.failingSince)
	w.fine()
}

// fine notes that nothing is wrong that is known of; w.mu is held.
func (w *writer) fine() {
	w.failingSince, w.lastErr = 0, ""
	w.tel.Failing.Store(false)
}

// undelivered is what the sink was to get and did not: what is left now, what was dropped while its queue was full, and
// what it refused.
func (w *writer) undelivered() (left, dropped, refused int) {
	return int(w.tel.Depth.Load() + w.lost.Load()), int(w.given.Load()), int(w.gone.Load())
}

func (r *Router) queued() (n int64) {
	for _, w := range r.sinks {
		n += w.tel.Depth.Load()
	}
	return n
}
