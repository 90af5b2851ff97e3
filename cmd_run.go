package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
)

func newRun() *cobra.Command {
	var path string
	var plain bool
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the gateway",
		Long: `Read the switches that FILE names and deliver their calls to its sinks, until SIGTERM or SIGINT: then reading
stops, what was received is delivered within drain_timeout, and the command ends. A second signal ends it at once.

SIGHUP reads FILE again: enrich, freshness and log.level change at once; for everything else the log says that a
restart is needed. A FILE with a fault changes nothing, and --log-level and --log-format stay in force.

/healthz and /readyz answer from the start; /readyz says what is being waited for. A signal while a sink cannot be
opened yet ends the command with 0: nothing had been read.

With a sink of kind stdout, a reader that goes away, as in 'ctigate run … | head', is a wish to end: the other sinks
are drained and the command ends with 0.

On a terminal a live table shows the calls; elsewhere, or with --plain, log lines go to standard error.`,
		Example: `  ctigate run -c ctigate.yaml
  ctigate run -c ctigate.yaml --plain --log-format json 2>ctigate.log`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			src := newSource(path, &logs)
			defer src.close()
			cfg, err := load(path)
			if err != nil {
				return err
			}
			defer endOnSignal(cmd)()
			defer outliveReaders()()
			if err := logs.apply(&cfg.Log); err != nil {
				return err
			}
			w := newWatch(cmd, cfg, plain)
			w.title, w.hint = "run", "Ctrl-C drains and ends"
			if cfg.FileSinkByDefault {
				w.hint = "no sink is configured: delivering to files in " + fileSinkDir + "   (" + w.hint + ")"
			}
			announce(w.log, cfg)
			_, err = serve(cmd.Context(), cfg, w, src)
			w.tail(cmd.ErrOrStderr())
			return err
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&plain, "plain", false, "log lines instead of the live table, on a terminal too")
	logs.add(cmd)
	return cmd
}

// announce says what runs, and what stands in for what is not configured.
func announce(log *slog.Logger, cfg *configs.Config) {
	var switches, sinks []string
	for _, s := range cfg.Switches {
		switches = append(switches, s.ID)
	}
	for _, s := range cfg.Sinks {
		sinks = append(sinks, s.Name)
	}
	log.Info("starting", "version", buildVersion(), "switches", strings.Join(switches, ","), "sinks", strings.Join(sinks, ","))
	if cfg.FileSinkByDefault {
		log.Warn("no sink is configured: delivering to the file sink instead of Kafka", "folder", fileSinkDir,
			"fix", "add a sink of kind kafka to the configuration")
	}
}

// serve runs a gateway and shows it, until ctx ends or w's length is over. src, when given, is read again on SIGHUP.
// The gateway is nil when it did not get as far as reading: with an error, or with none when ctx ended before.
func serve(ctx context.Context, cfg *configs.Config, w *watch, src *source) (*gateway, error) {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	g, err := assemble(ctx, cfg, w.log, quit)
	if err != nil {
		return nil, err
	}
	side, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { g.serveTelemetry(side) })
	if src != nil {
		helpers.Go(func() { src.reloads(side, g, w) })
	}
	if err = g.open(ctx, w.onEvent); err == nil {
		err = errors.Join(runShown(ctx, g, w), g.closeJournal())
	}
	stop()
	helpers.Wait()
	switch err = errors.Join(err, g.shutdownTelemetry()); {
	case g.isOpen() && err != nil:
		return g, fmt.Errorf("running the gateway: %w", err)
	case g.isOpen():
		return g, nil
	case ctx.Err() != nil:
		w.log.Info("stopped before every sink was open: nothing had been read", "error", err)
		return nil, nil
	}
	return nil, err
}

// runShown runs an open gateway until everything is drained, and shows it meanwhile.
func runShown(ctx context.Context, g *gateway, w *watch) error {
	if w.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.length)
		defer cancel()
	}
	began := time.Now()
	side, stop := context.WithCancel(context.WithoutCancel(ctx))
	var shown sync.WaitGroup
	shown.Go(func() { w.run(side, g) })
	err := g.run(ctx)
	w.took = time.Since(began)
	stop()
	shown.Wait()
	return err
}

// run runs the router until ctx ends, in a cluster until the switches are handed over.
func (g *gateway) run(ctx context.Context) error {
	if g.cluster == nil {
		return g.router.Run(ctx)
	}
	defer g.clusterLog.close()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	var part sync.WaitGroup
	part.Go(func() {
		defer stop()
		g.cluster.run(ctx, g.router)
	})
	err := g.router.Run(run)
	part.Wait()
	return err
}

// source is where the configuration came from, and comes from again on SIGHUP.
type source struct {
	path string
	logs *logFlags // over what the file says, each time
	hup  chan os.Signal
}

// newSource takes SIGHUP from now on: unasked for, it would end the process.
func newSource(path string, logs *logFlags) *source {
	s := &source{path: path, logs: logs, hup: make(chan os.Signal, 1)}
	signal.Notify(s.hup, syscall.SIGHUP)
	return s
}

func (s *source) close() { signal.Stop(s.hup) }

// reloads reads the configuration again on every SIGHUP.
func (s *source) reloads(ctx context.Context, g *gateway, w *watch) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hup:
		}
		if !g.isOpen() {
			w.log.Info("the configuration is read again once every sink is open")
		}
		select {
		case <-ctx.Done():
			return
		case <-g.opened:
			s.reload(ctx, g, w)
		}
	}
}

// read is what the gateway would start with now.
func (s *source) read() (*configs.Config, error) {
	c, err := configs.Load(s.path, kinds())
	if err != nil {
		return nil, err
	}
	return c, s.logs.apply(&c.Log)
}

func (s *source) reload(ctx context.Context, g *gateway, w *watch) {
	next, err := s.read()
	var faults configs.Faults
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			w.log.Error("not reloaded: the configuration has a fault; nothing was changed", "fault", f.String())
		}
		return
	case err != nil:
		w.log.Error("not reloaded; nothing was changed", "error", err)
		return
	}
	kept, err := g.reload(ctx, next, &w.level)
	if err != nil {
		w.log.Error("not reloaded", "error", err)
		return
	}
	w.log.Info("reloaded", "in_effect", "enrich, freshness, log.level")
	if len(kept) > 0 {
		w.log.Warn("some changes need a restart", "keys", strings.Join(kept, ", "))
	}
}

// isTrouble tells warnings and errors among the lines of any log format.
func isTrouble(line string) bool {
	for _, mark := range []string{" WARN  ", " ERROR ", "level=WARN", "level=ERROR", `"level":"WARN"`, `"level":"ERROR"`} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}
