package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/enrich"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/core/telemetry"
)

// gateway is what a configuration becomes.
type gateway struct {
	cfg    *configs.Config
	log    *slog.Logger
	tel    *telemetry.T
	router *router.Router
}

// assemble opens everything that cfg names. Sinks come first: no event is read before there is somewhere to put it.
func assemble(ctx context.Context, cfg *configs.Config, log *slog.Logger, onEvent func(*call.Event)) (*gateway, error) {
	links, err := openLinks(cfg, log)
	if err != nil {
		return nil, err
	}
	enrichers, err := enrichersOf(cfg.Enrich.DefaultRegion, cfg.Enrich.Numbers)
	if err != nil {
		return nil, err
	}
	tel, err := telemetry.New(ctx, telemetryOptions(cfg, log))
	if err != nil {
		return nil, fmt.Errorf("starting telemetry: %w", err)
	}
	g := &gateway{cfg: cfg, log: log, tel: tel}
	sinks, err := openSinks(ctx, cfg, log)
	if err != nil {
		return nil, errors.Join(err, g.shutdownTelemetry())
	}
	g.router, err = router.New(router.Options{
		Links: links, Sinks: sinks, Enrichers: enrichers, Fresh: fresh.New(freshOptions(cfg)),
		Tracker: call.NewTracker(call.Options{}), Telemetry: tel, Log: log, OnEvent: onEvent,
		DrainTimeout: cfg.DrainTimeout,
	})
	if err != nil {
		closeSinks(sinks)
		return nil, errors.Join(err, g.shutdownTelemetry())
	}
	return g, nil
}

// wantsRaw says whether this switch's native messages are to be delivered too.
func wantsRaw(s configs.Switch) bool {
	r, ok := s.Config.(interface{ RawPassthrough() bool })
	return ok && r.RawPassthrough()
}

func openLinks(cfg *configs.Config, log *slog.Logger) ([]router.Link, error) {
	var links []router.Link
	for _, s := range cfg.Switches {
		a, err := s.Config.Open(s.ID, core.Env{Log: log})
		if err != nil {
			return nil, fmt.Errorf("opening switch %s: %w", s.ID, err)
		}
		links = append(links, router.Link{ID: s.ID, Kind: switchKinds[s.Kind], Adapter: a, Raw: cfg.RawPassthrough || wantsRaw(s)})
	}
	return links, nil
}

func openSinks(ctx context.Context, cfg *configs.Config, log *slog.Logger) ([]router.NamedSink, error) {
	var sinks []router.NamedSink
	for _, s := range cfg.Sinks {
		sink, err := openSink(ctx, s, log.With("sink", s.Name))
		if err != nil {
			closeSinks(sinks)
			return nil, err
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
func openSink(ctx context.Context, s configs.Sink, log *slog.Logger) (core.Sink, error) {
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

func (g *gateway) shutdownTelemetry() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return g.tel.Shutdown(ctx)
}

// run works until ctx ends and everything is drained.
func (g *gateway) run(ctx context.Context) error {
	side, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := serverOf(g.cfg).Serve(side, g.tel, g.router.Ready, func(a net.Addr) {
			g.log.Info("telemetry is served", "url", "http://"+a.String()+"/metrics")
		}); err != nil {
			g.log.Error("no telemetry is served", "error", err)
		}
	}()
	err := g.router.Run(ctx)
	stop()
	<-served
	return errors.Join(err, g.shutdownTelemetry())
}

// reload puts into effect what of next can change while the gateway runs, and returns what cannot.
func (g *gateway) reload(ctx context.Context, next *configs.Config, level *slog.LevelVar) (kept []string, err error) {
	enrichers, err := enrichersOf(next.Enrich.DefaultRegion, next.Enrich.Numbers)
	if err != nil {
		return nil, err
	}
	if err := g.router.Apply(ctx, router.Reload{Enrichers: enrichers, Fresh: fresh.New(freshOptions(next))}); err != nil {
		return nil, err
	}
	setLevel(level, next.Log.Level)
	changed, err := configs.Changed(g.cfg, next)
	for _, key := range changed {
		if key != "enrich" && key != "freshness" && key != "log.level" {
			kept = append(kept, key)
		}
	}
	return kept, err
}

func enrichersOf(region string, numbers []configs.Number) ([]core.Enricher, error) {
	o := enrich.Options{DefaultRegion: region}
	for _, n := range numbers {
		o.Numbers = append(o.Numbers, enrich.Number{Dialed: n.Dialed, Prefix: n.Prefix, Tenant: n.Tenant, Queue: n.Queue, Label: n.Label})
	}
	return enrich.New(o)
}

func freshOptions(c *configs.Config) fresh.Options {
	f := c.Freshness
	o := fresh.Options{
		Thresholds: fresh.Thresholds{FreshFor: f.Fresh, LateFor: f.Late, FutureSlack: f.FutureSlack, MaxUncertainty: f.MaxUncertainty},
		PerType:    map[call.EventType]fresh.Thresholds{},
	}
	for name, t := range f.PerType {
		o.PerType[call.EventType(name)] = fresh.Thresholds{FreshFor: t.Fresh, LateFor: t.Late}
	}
	return o
}

func telemetryOptions(c *configs.Config, log *slog.Logger) telemetry.Options {
	o := c.Telemetry.OTLP
	return telemetry.Options{Version: buildVersion(), Log: log, OTLP: telemetry.OTLP{
		Endpoint: o.Endpoint, Headers: o.Headers, Interval: o.Interval, Metrics: &o.Metrics, Traces: &o.Traces,
	}}
}

func serverOf(c *configs.Config) telemetry.Server {
	return telemetry.Server{Listen: c.Telemetry.Listen, AllowRemote: c.Telemetry.AllowRemote, Token: c.Telemetry.Token}
}
