package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/trace"
)

func newRecord() *cobra.Command {
	var path, dir string
	var only []string
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "record -c FILE -o DIR",
		Short: "Record the traffic of live switches as traces",
		Long: `Connect to the switches that FILE names and write what they send to DIR/SWITCH-ID, in the format that
'ctigate replay' reads: ari.jsonl and ami.jsonl, or esl.jsonl. Ends with Ctrl-C or after --for.

Traces hold everything the switch said: numbers, names, variables. Treat them as call data.`,
		Example: `  ctigate record -c ctigate.yaml -o traces --for 5m
  ctigate record -c ctigate.yaml --switch pbx1 -o traces && ctigate replay --kind ari traces/pbx1`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			switches, err := choose(cfg.Switches, only)
			if err != nil {
				return err
			}
			for _, s := range switches {
				if s.Kind == "sip" {
					return usageError{fmt.Errorf("recording switch %s: of SIP links, packets are recorded: use tcpdump -w %s.pcap, which 'ctigate replay --kind sip' reads; or name others with --switch", s.ID, s.ID)}
				}
			}
			defer endOnSignal(cmd)()
			ctx := cmd.Context()
			if length > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, length)
				defer cancel()
			}
			log := newLog(cmd.ErrOrStderr(), cfg.Log, new(slog.LevelVar))
			return record(ctx, switches, dir, log)
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVarP(&dir, "output", "o", "", "`DIR` to write to")
	cmd.Flags().StringSliceVar(&only, "switch", nil, "record only the switch `ID`; may be repeated")
	cmd.Flags().DurationVar(&length, "for", 0, "end after `TIME`, such as 5m; default until Ctrl-C")
	_ = cmd.MarkFlagRequired("output")
	_ = cmd.MarkFlagDirname("output")
	return cmd
}

// choose returns the switches with the given ids, all when none is given.
func choose(all []configs.Switch, ids []string) ([]configs.Switch, error) {
	if len(ids) == 0 {
		return all, nil
	}
	var chosen []configs.Switch
	var known []string
	for _, s := range all {
		known = append(known, s.ID)
		for _, id := range ids {
			if id == s.ID {
				chosen = append(chosen, s)
			}
		}
	}
	if len(chosen) < len(ids) {
		return nil, usageError{fmt.Errorf("recording: --switch %s: the configuration has %s", strings.Join(ids, ","), strings.Join(known, ", "))}
	}
	return chosen, nil
}

// record records every switch until ctx ends; the first that cannot be recorded ends all.
func record(ctx context.Context, switches []configs.Switch, dir string, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(switches))
	var wg sync.WaitGroup
	for i, s := range switches {
		wg.Go(func() {
			if errs[i] = recordSwitch(ctx, s, filepath.Join(dir, s.ID), log); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func recordSwitch(ctx context.Context, s configs.Switch, dir string, log *slog.Logger) (err error) {
	adapter, err := s.Config.Open(s.ID, core.Env{Log: log})
	if err != nil {
		return fmt.Errorf("recording switch %s: %w", s.ID, err)
	}
	w, err := trace.Create(dir)
	if err != nil {
		return fmt.Errorf("recording switch %s: %w", s.ID, err)
	}
	log = log.With("switch", s.ID)
	r := &recorder{kind: s.Kind, out: w, log: log}
	ctx, cancel := context.WithCancel(ctx)
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		r.flushes(ctx, cancel)
	}()
	defer func() {
		cancel()
		<-flushed
		err = errors.Join(err, w.Close())
		log.Info("recorded", "messages", r.written.Load(), "folder", dir)
	}()
	return r.sessions(ctx, adapter)
}

// flushEvery bounds what of a recording is lost when the process is killed.
const flushEvery = time.Second

// flushes hands what is recorded to the operating system until ctx ends; when that fails, it ends the recording.
func (r *recorder) flushes(ctx context.Context, end context.CancelFunc) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.out.Flush(); err != nil {
			r.fail(err)
			end()
			return
		}
	}
}

// sessions runs one session after the other until ctx ends or trying again cannot help.
func (r *recorder) sessions(ctx context.Context, a core.Adapter) error {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		before := r.written.Load()
		err := a.Run(ctx, r)
		switch {
		case r.err() != nil:
			return r.err()
		case ctx.Err() != nil:
			return nil
		case core.IsPermanent(err):
			return fmt.Errorf("recording: %w", err)
		}
		if r.written.Load() > before {
			pause = time.Second
		}
		r.log.Warn("the link is down: what the switch sends now is not recorded", "error", err, "retry_in", pause)
		select {
		case <-ctx.Done():
			return r.err()
		case <-time.After(pause):
		}
	}
}

// recorder is an Emitter that keeps the native bytes only.
type recorder struct {
	kind    string
	out     *trace.Writer
	log     *slog.Logger
	written atomic.Uint64

	mu     sync.Mutex
	failed error
}

func (r *recorder) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Frame writes the frame's bytes; a snapshot was asked for and is not traffic.
func (r *recorder) Frame(f core.Frame) error {
	if len(f.Raw) == 0 || f.Type == "snapshot" {
		return nil
	}
	l, err := trace.Native(r.kind, f.Raw, f.Received)
	if err == nil {
		err = r.out.Write(l)
	}
	if err != nil {
		r.fail(err)
		return err
	}
	r.written.Add(1)
	return nil
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = fmt.Errorf("recording: %w", err)
}

// DeadLetter says what is left out: a trace holds what can be read.
func (r *recorder) DeadLetter(d core.DeadLetter) error {
	r.log.Warn("not recorded: not understood", "reason", d.Reason, "bytes", len(d.Raw))
	return r.err()
}

// Up logs.
func (r *recorder) Up(i core.Instance) error {
	r.log.Info("recording", "kind", i.Kind, "version", i.Version)
	return nil
}

// Clock does nothing.
func (r *recorder) Clock(core.ClockSample) error { return nil }

// Gap logs.
func (r *recorder) Gap(reason string, _ call.Time) error {
	r.log.Warn("the recording has a gap", "reason", reason)
	return nil
}

// Missing logs.
func (r *recorder) Missing(what []string) error {
	r.log.Info("what cannot be seen has changed", "missing", what)
	return nil
}

// Count does nothing.
func (r *recorder) Count(string, int) {}
