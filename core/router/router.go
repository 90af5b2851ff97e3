// Package router runs the gateway: it supervises the switch links, takes every frame through one queue into one
// goroutine (tracker, enrichers, freshness) and fans the items out to sinks that have a queue and a goroutine each.
//
//	link ─┐                                                               ┌─ queue ─ writer ─ sink
//	link ─┼─ queue ─ core loop: tracker → enrichers → fresh ── (journal) ─┼─ queue ─ writer ─ sink
//	link ─┘                                                               └─ queue ─ writer ─ sink
//
// Every queue is bounded. A full queue towards the core loop blocks the adapters. Without a journal, a full queue
// towards a sink blocks the core loop, or drops and counts, as that sink's WhenFull says. With one, the core loop's turns
// are on disk before any sink is given them; a sink whose queue is full goes on from there, by a cursor of its own; and
// the next start goes on with the same calls.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/core/journal"
	"github.com/ctigate/ctigate/core/telemetry"
)

// Tracker makes calls and events of observations; *call.Tracker is the one. Only the core loop calls it.
type Tracker interface {
	Apply(sw call.SwitchRef, o call.Observation) []*call.Event
	Tick(now call.Time) []*call.Event
	AppendState(dst []byte) []byte // all of it, for a checkpoint
	Adopt(c *call.Call, seq uint64, now call.Time) bool
	Active() int
	Calls() []*call.Call
}

// Link is one switch link.
type Link struct {
	ID      string // switch_id
	Kind    string // asterisk, freeswitch, sip; what the session's Instance says replaces it
	Adapter core.Adapter
	Raw     bool // every frame's bytes on the raw stream
}

// WhenFull says what happens to items for which a sink's queue has no room.
type WhenFull string

// Policies. Block, the default, makes the core loop wait: nothing is lost, but the other sinks and the links wait too.
// Drop gives the item up for this sink, counts it, and publishes a source.gap that says so.
const (
	Block WhenFull = "block"
	Drop  WhenFull = "drop"
)

// NamedSink is one sink and how it is fed.
type NamedSink struct {
	Name       string
	Sink       core.Sink
	Streams    []core.Stream // only these; all when empty
	WhenFull   WhenFull      // default Block
	QueueItems int           // default Options.SinkQueueLen
	QueueBytes int           // approximate memory; default 256 MB
	BatchItems int           // largest batch; default 500
}

// Backoff is the pause between attempts: uniform between a tenth of d and d (full jitter, without hammering), where d
// doubles from Min to Max. Zero fields take the default.
type Backoff struct {
	Min       time.Duration // default 500 ms
	Max       time.Duration // default 30 s
	Permanent time.Duration // after a permanent error; default 60 s
}

// Options are what New needs. Zero fields take the default.
type Options struct {
	Links     []Link
	Sinks     []NamedSink
	Enrichers []core.Enricher
	Fresh     *fresh.Judge      // default fresh.New(fresh.Options{})
	Tracker   Tracker           // required: call.NewTracker(call.Options{})
	Telemetry *telemetry.T      // nil: nobody collects
	Log       *slog.Logger      // default slog.Default()
	OnEvent   func(*call.Event) // sees every event in order, on the core loop: it must not block

	// Journal, when not nil, is where turns are kept; Opened is what opening it found. RestoreTracker makes a Tracker of
	// what AppendState gave. The journal is the caller's to close, after Run.
	Journal        *journal.Journal
	Opened         journal.Report
	RestoreTracker func(state []byte) (Tracker, error)
	// Cluster, when not nil, is how this node shares the links with others.
	Cluster *Cluster

	QueueLen     int           // frames waiting for the tracker; default 8192
	QueueBytes   int           // their bytes; default 64 MB
	SinkQueueLen int           // items waiting for a sink; default 100,000
	DrainTimeout time.Duration // from the end of Run's context to its return; default 10 s
	Backoff      Backoff       // of the links
	SinkBackoff  Backoff       // of failed writes; default 100 ms to 10 s

	// TombstoneAfter is how long after its record a call stays on the calls stream before a tombstone follows; default
	// 24 h, negative for never. Tombstones bounds how many calls wait for theirs (24 bytes each); default 500,000: when
	// there are more, the oldest get theirs early. What waits when the process stops gets none, so a compacted topic
	// should also have a retention (cleanup.policy=compact,delete).
	TombstoneAfter time.Duration
	Tombstones     int

	Now  func() time.Time // default time.Now
	Rand func() float64   // in [0,1) for jitter; default math/rand/v2.Float64
}

// Router is one gateway's engine. Make it with New, Run it once.
type Router struct {
	o        Options
	log      *slog.Logger
	in       *queue[message]
	ctl      chan func()
	loop     *loop
	keeper   *keeper   // nil without a journal
	follower *follower // nil without a cluster
	pauses   pauses
	current  atomic.Pointer[stint] // the same, for others than the loop
	stint    *stint                // of the core loop: the present one, or the last
	hard     context.Context       // ends when the drain has run out of time
	links    []*link
	sinks    []*writer

	ran        atomic.Bool
	draining   atomic.Bool
	drainStart chan struct{} // closed when draining begins
	stopped    chan struct{} // closed when the core loop has ended
	started    time.Time
}

// New checks o and makes a Router. It starts nothing.
func New(o Options) (*Router, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r := &Router{o: o, log: o.Log, ctl: make(chan func()), stopped: make(chan struct{}), drainStart: make(chan struct{}),
		in: newQueue(o.QueueLen, o.QueueBytes, (*message).size)}
	for i, l := range o.Links {
		r.links = append(r.links, newLink(r, l, uint16(i)))
	}
	for _, s := range o.Sinks {
		r.sinks = append(r.sinks, newWriter(r, s))
	}
	r.loop = newLoop(r)
	if err := r.openJournal(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	g := telemetry.Gauges{ActiveCalls: r.ActiveCalls, QueueDepth: r.in.len}
	if r.keeper != nil {
		g.Journal = func() (int64, bool) {
			s := r.keeper.status()
			return s.Bytes, s.Full || s.Trouble != ""
		}
	}
	if o.Cluster != nil {
		g.Owner = o.Cluster.Owner
	}
	o.Telemetry.SetGauges(g)
	return r, nil
}

// openJournal goes on where the journal ends.
func (r *Router) openJournal() (err error) {
	if r.o.Journal == nil {
		return nil
	}
	if err := r.openCursors(); err != nil {
		return err
	}
	if r.o.Cluster != nil {
		r.follower = newFollower(r, r.o.Cluster)
		r.follower.blank = r.loop.appendState(nil)
		r.loop.standby = true
	}
	r.keeper = newKeeper(r, r.o.Journal)
	return r.loop.restore(r.o.Journal, r.o.Opened)
}

// openCursors opens every sink's, and forgets those of sinks that are not configured any more: they would hold up
// everything.
func (r *Router) openCursors() (err error) {
	left := r.o.Journal.Cursors()
	for _, w := range r.sinks {
		if w.lag, err = newLag(r.o.Journal, w.name); err != nil {
			return err
		}
		delete(left, w.name)
	}
	if r.o.Cluster != nil {
		delete(left, cursorCluster)
	}
	for name := range left {
		r.log.Warn("journal: a sink is not configured any more; what it had not been given is given up", "sink", name)
		if err := r.o.Journal.RemoveCursor(name); err != nil {
			return fmt.Errorf("journal: removing the cursor of sink %s: %w", name, err)
		}
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Fresh == nil {
		o.Fresh = fresh.New(fresh.Options{})
	}
	o.Log = def(o.Log, slog.Default())
	o.QueueLen = def(o.QueueLen, 8192)
	o.QueueBytes = def(o.QueueBytes, 64<<20)
	o.SinkQueueLen = def(o.SinkQueueLen, 100_000)
	o.DrainTimeout = def(o.DrainTimeout, 10*time.Second)
	o.Backoff = o.Backoff.or(Backoff{500 * time.Millisecond, 30 * time.Second, time.Minute})
	o.SinkBackoff = o.SinkBackoff.or(Backoff{100 * time.Millisecond, 10 * time.Second, 30 * time.Second})
	o.TombstoneAfter = def(o.TombstoneAfter, 24*time.Hour)
	o.Tombstones = def(o.Tombstones, 500_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	return o
}

func def[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (b Backoff) or(d Backoff) Backoff {
	return Backoff{Min: def(b.Min, d.Min), Max: def(b.Max, d.Max), Permanent: def(b.Permanent, d.Permanent)}
}

// pause is the wait before the attempt after n failures in a row, n from 0.
func (b Backoff) pause(n int, rnd float64) time.Duration {
	d := b.Max
	if n < 30 && b.Min<<n < b.Max {
		d = b.Min << n
	}
	return d/10 + time.Duration(rnd*float64(d-d/10))
}

func (o Options) validate() error {
	var errs []error
	if o.Tracker == nil {
		errs = append(errs, errors.New("no tracker given"))
	}
	if o.Journal != nil && o.RestoreTracker == nil {
		errs = append(errs, errors.New("a journal without RestoreTracker"))
	}
	if o.Cluster != nil && o.Journal == nil {
		errs = append(errs, errors.New("a cluster without a journal"))
	}
	if len(o.Links) > 1<<16 {
		errs = append(errs, fmt.Errorf("%d links: at most %d", len(o.Links), 1<<16))
	}
	seen := map[string]bool{}
	for i, l := range o.Links {
		if l.ID == "" || l.Adapter == nil || seen["link "+l.ID] {
			errs = append(errs, fmt.Errorf("links[%d] (%q): needs an id of its own and an adapter", i, l.ID))
		}
		seen["link "+l.ID] = true
	}
	for i, s := range o.Sinks {
		if s.Name == "" || s.Sink == nil || seen["sink "+s.Name] {
			errs = append(errs, fmt.Errorf("sinks[%d] (%q): needs a name of its own and a sink", i, s.Name))
		}
		if s.WhenFull != "" && s.WhenFull != Block && s.WhenFull != Drop {
			errs = append(errs, fmt.Errorf("sinks[%d] (%q): when_full: %q is neither block nor drop", i, s.Name, s.WhenFull))
		}
		seen["sink "+s.Name] = true
	}
	return errors.Join(errs...)
}

// Run works until ctx ends, then drains: the adapters stop first, then the queue is emptied through the tracker, then
// the sinks take what is queued and are closed, all within DrainTimeout. It returns nil when everything received was
// delivered, else an error with the numbers. Sinks belong to Run: they are closed when it returns.
func (r *Router) Run(ctx context.Context) error {
	if r.ran.Swap(true) {
		return errors.New("router: Run was called twice")
	}
	r.started = r.o.Now()
	// hard ends when the drain has run out of time; it is independent of ctx until then.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	r.hard = hard
	r.adoptCalls(ctx)
	if r.o.Cluster == nil {
		r.begin(nil)
	}
	go func() {
		defer close(r.stopped)
		r.loop.run(hard)
	}()
	var links sync.WaitGroup
	links.Go(func() { r.runLinks(ctx) })
	<-ctx.Done()
	return r.drain(cut, &links)
}

// runLinks runs every link until ctx ends, in a cluster from when there is an owner: what a link brings from then on can be
// compared with what it tells.
func (r *Router) runLinks(ctx context.Context) {
	var links sync.WaitGroup
	defer links.Wait()
	if r.follower != nil {
		links.Go(func() { r.follower.run(ctx) })
		select {
		case <-r.follower.owned:
		case <-ctx.Done():
		}
	}
	links.Go(func() { r.pauses.watch(ctx) })
	for _, l := range r.links {
		links.Go(func() { l.supervise(ctx) })
	}
}

// drain ends everything in order. Adapters have four tenths of the time to hand over what they have read; then the
// queue is closed, and they have another tenth to count what is left and return. Delivering is cut at eight tenths, and
// the last tenth is for closing the sinks.
func (r *Router) drain(cut context.CancelFunc, links *sync.WaitGroup) error {
	r.draining.Store(true)
	close(r.drainStart)
	r.log.Info("stopping: draining", "timeout", r.o.DrainTimeout, "frames", r.in.len(), "items", r.queued())
	began, tenth := time.Now(), r.o.DrainTimeout/10
	defer time.AfterFunc(8*tenth, cut).Stop()
	returned := waitUntil(began.Add(4*tenth), links.Wait)
	r.in.close()
	if !returned && !waitUntil(began.Add(5*tenth), links.Wait) {
		r.log.Error("stopping: an adapter did not return; leaving it behind", "links", r.stillRunning())
	}
	waitUntil(began.Add(9*tenth), func() { <-r.stopped })
	waitUntil(began.Add(9*tenth), r.endStint)
	return errors.Join(r.closeSinks(began.Add(r.o.DrainTimeout)), r.undelivered(time.Since(began)))
}

// endStint lets the stages behind the core loop end, one after the other.
func (r *Router) endStint() {
	if r.stint == nil {
		return
	}
	if r.keeper != nil {
		r.keeper.turns.close()
		r.keeper.runs.Wait()
	}
	for _, w := range r.sinks {
		w.q.close()
	}
	r.stint.stages.Wait()
}

// waitUntil reports whether f returned in time.
func waitUntil(t time.Time, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	late := time.NewTimer(time.Until(t))
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	}
}

// closeSinks closes all sinks at once, except one whose Write has not returned: it may not be called concurrently.
func (r *Router) closeSinks(by time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), by)
	defer cancel()
	errs := make([]error, len(r.sinks))
	var wg sync.WaitGroup
	for i, w := range r.sinks {
		if !w.ended.Load() {
			errs[i] = fmt.Errorf("sink %s: a write did not return in time; not closed", w.name)
			continue
		}
		wg.Go(func() {
			if err := w.sink.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("closing sink %s: %w", w.name, err)
			}
		})
	}
	if !waitUntil(by, wg.Wait) {
		return errors.New("closing sinks: out of time")
	}
	return errors.Join(errs...)
}

// undelivered tells the log and the caller what was received and not delivered, in all of Run. What is in the journal is
// delivered by the next.
func (r *Router) undelivered(took time.Duration) error {
	frames := r.in.len() + int(r.loop.unprocessed.Load())
	for _, l := range r.links {
		frames += int(l.lost.Load())
	}
	items, lost := 0, []any{"took", took, "frames", frames}
	for _, w := range r.sinks {
		left, dropped, refused := w.undelivered()
		if r.keeper != nil {
			left = 0
		}
		items += left + dropped + refused
		if left+dropped+refused > 0 {
			lost = append(lost, slog.Group(w.name, "left", left, "dropped", dropped, "refused", refused))
		}
	}
	if r.keeper != nil {
		items += int(r.keeper.lost.Load())
		r.keeper.left()
	}
	if frames == 0 && items == 0 {
		r.log.Info("stopped: everything received was delivered", "took", took)
		return nil
	}
	r.log.Error("stopped: not everything was delivered", lost...)
	return fmt.Errorf("drain ended after %s with %d frames not processed and %d items not delivered", took.Round(time.Millisecond), frames, items)
}

// Reload is what can change while the router runs. A nil field changes nothing.
type Reload struct {
	Enrichers []core.Enricher
	Fresh     *fresh.Judge // takes over the measured clocks
}

// Apply puts c into effect between two frames. It waits for that, or until ctx or Run ends.
func (r *Router) Apply(ctx context.Context, c Reload) error {
	return r.do(ctx, func() {
		if c.Enrichers != nil {
			r.loop.enrichers = c.Enrichers
		}
		if c.Fresh != nil {
			c.Fresh.Adopt(r.loop.fresh)
			r.loop.fresh = c.Fresh
		}
	})
}

// Calls returns the active calls as they stand between two frames, oldest first.
func (r *Router) Calls(ctx context.Context) (calls []*call.Call, err error) {
	err = r.do(ctx, func() { calls = r.o.Tracker.Calls() })
	return calls, err
}

// do runs f on the core loop.
func (r *Router) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case r.ctl <- func() { f(); close(done) }:
		<-done
		return nil
	case <-r.stopped:
		return errors.New("router: not running any more")
	case <-ctx.Done():
		return fmt.Errorf("router: waiting for the core loop: %w", ctx.Err())
	}
}
