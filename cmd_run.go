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
restart is needed. A FILE with a fault changes nothing.

On a terminal a live table shows the calls; elsewhere, or with --plain, log lines go to standard error.`,
		Example: `  ctigate run -c ctigate.yaml
  ctigate run -c ctigate.yaml --plain --log-format json 2>ctigate.log`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if err := logs.apply(&cfg.Log); err != nil {
				return err
			}
			w := newWatch(cmd, cfg, plain)
			w.title, w.hint = "run", "Ctrl-C drains and ends"
			if cfg.FileSinkByDefault {
				w.hint = "no sink is configured: delivering to files in " + fileSinkDir + "   (" + w.hint + ")"
			}
			announce(w.log, cfg)
			_, err = serve(cmd.Context(), cfg, w, path)
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

// serve runs a gateway and shows it, until ctx ends or w's length is over. path, when given, is read again on SIGHUP. The gateway is nil
// when it could not be started.
func serve(ctx context.Context, cfg *configs.Config, w *watch, path string) (*gateway, error) {
	g, err := assemble(ctx, cfg, w.log, w.onEvent)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if w.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.length)
		defer cancel()
	}
	side, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { w.run(side, g) })
	if path != "" {
		helpers.Go(func() { reloads(side, g, w, path) })
	}
	err = g.run(ctx)
	w.took = time.Since(began)
	stop()
	helpers.Wait()
	if err != nil {
		return g, fmt.Errorf("running the gateway: %w", err)
	}
	return g, nil
}

// reloads reads the configuration again on every SIGHUP.
func reloads(ctx context.Context, g *gateway, w *watch, path string) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			reload(ctx, g, w, path)
		}
	}
}

func reload(ctx context.Context, g *gateway, w *watch, path string) {
	next, err := configs.Load(path, kinds())
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
