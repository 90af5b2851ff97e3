package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/cluster"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/core/journal"
	"github.com/ctigate/ctigate/core/router"
)

// open opens the journal and the sinks, these however long it takes, and then makes the router. When it fails, nothing
// is left open. With a journal, sinks are not waited for.
func (g *gateway) open(ctx context.Context, onEvent func(*call.Event)) error {
	o := router.Options{
		Links: g.links, Enrichers: g.enrichers, Fresh: fresh.New(freshOptions(g.cfg)),
		Tracker: call.NewTracker(call.Options{}), Telemetry: g.tel, Log: g.log, OnEvent: onEvent,
		DrainTimeout: g.cfg.DrainTimeout, RestoreTracker: restoreTracker,
	}
	var err error
	if o.Journal, o.Opened, err = openJournal(g.cfg.Journal, g.log); err != nil {
		return err
	}
	g.journal = o.Journal
	if err := g.joinCluster(ctx, &o); err != nil {
		return errors.Join(err, g.closeJournal())
	}
	if o.Sinks, err = g.openSinks(ctx); err != nil {
		return errors.Join(err, g.closeJournal())
	}
	g.connectLog(&o)
	if g.router, err = router.New(o); err != nil {
		closeSinks(o.Sinks)
		return errors.Join(err, g.closeJournal())
	}
	close(g.opened)
	return nil
}

// joinCluster prepares this gateway's part in a cluster, if it has one.
func (g *gateway) joinCluster(ctx context.Context, o *router.Options) (err error) {
	if g.cfg.Cluster == nil {
		return nil
	}
	k := clusterKafka(g.cfg)
	if g.cluster, err = newClustered(ctx, g.cfg, k, g.log); err != nil {
		return err
	}
	g.clusterLog = &lateLog{topic: logTopic(k.TopicPrefix, g.cfg.Cluster)}
	o.Cluster = g.cluster.options(g.clusterLog)
	return nil
}

// connectLog tells the cluster's log which sink it is kept with.
func (g *gateway) connectLog(o *router.Options) {
	if g.cluster == nil {
		return
	}
	for i, s := range g.cfg.Sinks {
		if s.Kind == "kafka" {
			g.clusterLog.sink = o.Sinks[i].Sink.(*late)
		}
	}
}

// openJournal opens the journal that c names, if any, and tells what it found damaged.
func openJournal(c configs.Journal, log *slog.Logger) (*journal.Journal, journal.Report, error) {
	if c.Dir == "" {
		log.Warn("there is no journal: what was received and not delivered is lost when the gateway dies",
			"fix", "set journal.dir to a folder for this gateway alone")
		return nil, journal.Report{}, nil
	}
	policy := journal.Block
	if c.WhenFull == configs.DropOldest {
		policy = journal.DropOldest
	}
	j, found, err := journal.Open(journal.Options{Dir: c.Dir, SegmentBytes: c.SegmentBytes, MaxBytes: c.MaxBytes, MaxAge: c.MaxAge,
		WhenFull: policy, Log: log})
	if err != nil {
		return nil, found, fmt.Errorf("opening the journal: %w", err)
	}
	return j, found, nil
}

func restoreTracker(state []byte) (router.Tracker, error) {
	return call.RestoreTracker(call.Options{}, state)
}

// closeJournal comes after the router has ended.
func (g *gateway) closeJournal() error {
	if g.journal == nil {
		return nil
	}
	return g.journal.Close()
}

func (g *gateway) isOpen() bool {
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

// starting is what /readyz shows until every sink is open.
type starting struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason"` // starting: sink kafka: …
}

// clusteredStatus is what /readyz shows of a node of a cluster.
type clusteredStatus struct {
	router.Status
	Membership cluster.Status `json:"membership"`
}

// ready answers for the router, and before there is one with what is being waited for.
func (g *gateway) ready() (ok bool, detail any) {
	if g.isOpen() && g.cluster == nil {
		return g.router.Ready()
	}
	if g.isOpen() {
		s := g.router.Status()
		return s.Ready, clusteredStatus{s, g.cluster.status()}
	}
	reason := "starting"
	if w := g.waiting.Load(); w != nil {
		reason += ": " + *w
	}
	return false, starting{Reason: reason}
}

func (g *gateway) waitFor(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	g.waiting.Store(&s)
}

// serveTelemetry answers until ctx ends. Without it the gateway works all the same.
func (g *gateway) serveTelemetry(ctx context.Context) {
	err := serverOf(g.cfg).Serve(ctx, g.tel, g.ready, g.clusterHandlers(), func(a net.Addr) {
		g.log.Info("telemetry is served", "url", "http://"+a.String()+"/metrics")
	})
	if err != nil {
		g.log.Error("no telemetry is served", "error", err)
	}
}

func (g *gateway) openSinks(ctx context.Context) ([]router.NamedSink, error) {
	var sinks []router.NamedSink
	for _, s := range g.cfg.Sinks {
		sink, err := g.sinkFor(ctx, s)
		if err != nil {
			closeSinks(sinks)
			return nil, err
		}
		if s.Kind == "stdout" {
			sink = &piped{Sink: sink, log: g.log, quit: g.quit}
		}
		sinks = append(sinks, router.NamedSink{Name: s.Name, Sink: sink, WhenFull: router.WhenFull(s.WhenFull)})
	}
	return sinks, nil
}

// sinkFor opens a sink, or, where a journal keeps what it is to get, makes one that opens itself.
func (g *gateway) sinkFor(ctx context.Context, s configs.Sink) (core.Sink, error) {
	log := g.log.With("sink", s.Name)
	if g.journal == nil {
		return g.openSink(ctx, s, log)
	}
	return &late{open: func(ctx context.Context) (core.Sink, error) {
		attempt, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		return s.Config.Open(attempt, core.Env{Log: log})
	}}, nil
}

// late is a sink that opens itself when it is first used, so that switches are read and journaled from the start,
// whether or not it can be reached.
type late struct {
	open func(context.Context) (core.Sink, error)

	mu   sync.Mutex
	sink core.Sink
}

func (l *late) opened(ctx context.Context) (core.Sink, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		s, err := l.open(ctx)
		if err != nil {
			return nil, fmt.Errorf("opening the sink: %w", err)
		}
		l.sink = s
	}
	return l.sink, nil
}

// Write opens the sink if it is not open yet.
func (l *late) Write(ctx context.Context, batch []core.Item) error {
	s, err := l.opened(ctx)
	if err != nil {
		return err
	}
	return s.Write(ctx, batch)
}

// Missing asks the sink, if it is one that can tell.
func (l *late) Missing(ctx context.Context, items []core.Item) ([]core.Item, error) {
	s, err := l.opened(ctx)
	if err != nil {
		return nil, err
	}
	if r, can := s.(core.Resumer); can {
		return r.Missing(ctx, items)
	}
	return items, nil
}

// Calls has the sink tell of the calls in progress, if it is one that knows them.
func (l *late) Calls(ctx context.Context, tell func(c *call.Call, seq uint64, at call.Time)) error {
	s, err := l.opened(ctx)
	if err != nil {
		return err
	}
	if k, can := s.(core.CallKeeper); can {
		return k.Calls(ctx, tell)
	}
	return errors.ErrUnsupported
}

// Fence shuts out an earlier writer, where the sink can.
func (l *late) Fence(ctx context.Context) error {
	s, err := l.opened(ctx)
	if err != nil {
		return err
	}
	if f, can := s.(core.Fencer); can {
		return f.Fence(ctx)
	}
	return nil
}

// Close closes what was opened.
func (l *late) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		return nil
	}
	return l.sink.Close(ctx)
}

// Bounds of opening a sink: one attempt, and the pauses between attempts.
const (
	openTimeout  = 30 * time.Second
	openPauseMin = time.Second
	openPauseMax = 30 * time.Second
)

// openSink tries until it succeeds, ctx ends, or trying again cannot help.
func (g *gateway) openSink(ctx context.Context, s configs.Sink, log *slog.Logger) (core.Sink, error) {
	g.waitFor("sink %s: opening", s.Name)
	for pause := openPauseMin; ; pause = min(2*pause, openPauseMax) {
		attempt, cancel := context.WithTimeout(ctx, openTimeout)
		sink, err := s.Config.Open(attempt, core.Env{Log: log})
		cancel()
		if err == nil {
			return sink, nil
		}
		if ctx.Err() != nil || core.IsPermanent(err) {
			return nil, fmt.Errorf("opening sink %s: %w", s.Name, err)
		}
		g.waitFor("sink %s: %v", s.Name, err)
		log.Error("the sink is not ready: no switch is read before it is", "error", err, "retry_in", pause)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("opening sink %s: %w", s.Name, err)
		case <-time.After(pause):
		}
	}
}

func closeSinks(sinks []router.NamedSink) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, s := range sinks {
		_ = s.Sink.Close(ctx) // nothing was written
	}
}

// piped is a sink on standard output. Once the reader of the pipe is gone nothing can be delivered there any more: the
// gateway drains its other sinks and ends, and what is left for this one is given up.
type piped struct {
	core.Sink
	log  *slog.Logger
	quit context.CancelFunc
	gone bool
}

// Write prints the batch as long as somebody reads.
func (p *piped) Write(ctx context.Context, batch []core.Item) error {
	if p.gone {
		return nil
	}
	err := p.Sink.Write(ctx, batch)
	if !brokenPipe(err) {
		return err
	}
	p.gone = true
	p.log.Warn("the reader of standard output is gone: draining the other sinks and ending")
	p.quit()
	return nil
}

func brokenPipe(err error) bool {
	var batch *core.BatchError
	if errors.As(err, &batch) {
		for _, e := range batch.Failed {
			if errors.Is(e, syscall.EPIPE) {
				return true
			}
		}
	}
	return errors.Is(err, syscall.EPIPE)
}
