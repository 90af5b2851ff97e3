package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/core/router"
)

// open opens the sinks, however long it takes, and then makes the router. When it fails, nothing is left open.
func (g *gateway) open(ctx context.Context, onEvent func(*call.Event)) error {
	sinks, err := g.openSinks(ctx)
	if err != nil {
		return err
	}
	g.router, err = router.New(router.Options{
		Links: g.links, Sinks: sinks, Enrichers: g.enrichers, Fresh: fresh.New(freshOptions(g.cfg)),
		Tracker: call.NewTracker(call.Options{}), Telemetry: g.tel, Log: g.log, OnEvent: onEvent,
		DrainTimeout: g.cfg.DrainTimeout,
	})
	if err != nil {
		closeSinks(sinks)
		return err
	}
	close(g.opened)
	return nil
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

// ready answers for the router, and before there is one with what is being waited for.
func (g *gateway) ready() (ok bool, detail any) {
	if g.isOpen() {
		return g.router.Ready()
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
	err := serverOf(g.cfg).Serve(ctx, g.tel, g.ready, func(a net.Addr) {
		g.log.Info("telemetry is served", "url", "http://"+a.String()+"/metrics")
	})
	if err != nil {
		g.log.Error("no telemetry is served", "error", err)
	}
}

func (g *gateway) openSinks(ctx context.Context) ([]router.NamedSink, error) {
	var sinks []router.NamedSink
	for _, s := range g.cfg.Sinks {
		sink, err := g.openSink(ctx, s, g.log.With("sink", s.Name))
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
