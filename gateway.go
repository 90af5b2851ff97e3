package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/enrich"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/core/journal"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/core/telemetry"
)

// gateway is what a configuration becomes.
type gateway struct {
	cfg       *configs.Config
	log       *slog.Logger
	tel       *telemetry.T
	links     []router.Link
	enrichers []core.Enricher
	quit      context.CancelFunc // begins the drain

	waiting atomic.Pointer[string] // what open waits for
	opened  chan struct{}          // closed once router is there
	router  *router.Router
	journal *journal.Journal // nil: none

	cluster    *clustered // nil: alone
	clusterLog *lateLog
}

// assemble makes everything that cfg names but the sinks; open does those. No event is read before there is somewhere
// to put it. A gateway that calls quit wants its context ended.
func assemble(ctx context.Context, cfg *configs.Config, log *slog.Logger, quit context.CancelFunc) (*gateway, error) {
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
	return &gateway{cfg: cfg, log: log, tel: tel, links: links, enrichers: enrichers, quit: quit, opened: make(chan struct{})}, nil
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

func (g *gateway) shutdownTelemetry() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return g.tel.Shutdown(ctx)
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
