package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/live"
	"github.com/ctigate/ctigate/core/router"
)

// watch shows a gateway at work: the live table on a terminal, log lines elsewhere.
type watch struct {
	title, hint string
	length      time.Duration // of the whole show; 0 for no end
	took        time.Duration // once it is over
	level       slog.LevelVar
	log         *slog.Logger
	table       *live.Table
	counts      counts
	also        func(*call.Event) // sees every event too; nil for nobody

	screen *live.Screen // nil: log lines
	recent *live.Log
	early  *earlyLog
	color  bool
	every  time.Duration // between log lines about progress
}

// counts are what a summary tells.
type counts struct {
	started, ended, records, events atomic.Uint64
}

func (c *counts) see(e *call.Event) {
	c.events.Add(1)
	switch e.Type {
	case call.CallOffered, call.CallInitiated:
		c.started.Add(1)
	case call.CallEnded:
		c.ended.Add(1)
	case call.CallRecord:
		c.records.Add(1)
	}
}

// newWatch decides how to show things: the table when standard output is a terminal and nothing else is to go there.
func newWatch(cmd *cobra.Command, cfg *configs.Config, plain bool) *watch {
	w := &watch{table: live.NewTable(time.Now), recent: &live.Log{}, every: time.Minute}
	out, isFile := cmd.OutOrStdout().(*os.File)
	errOut := cmd.ErrOrStderr()
	if plain || !isFile || !live.Usable(out) || prints(cfg) {
		w.log = newLog(errOut, cfg.Log, &w.level)
		return w
	}
	w.screen, w.color = live.NewScreen(out), live.Color(out)
	if f, ok := errOut.(*os.File); ok && !live.Usable(f) {
		// Standard error goes elsewhere: the full log too.
		w.log = newLog(io.MultiWriter(f, w.recent), cfg.Log, &w.level)
		return w
	}
	setLevel(&w.level, cfg.Log.Level)
	w.early = &earlyLog{out: errOut, kept: w.recent}
	w.log = newScreenLog(w.early, &w.level)
	return w
}

// earlyLog also writes trouble to the terminal until the table takes it over.
type earlyLog struct {
	mu   sync.Mutex
	out  io.Writer // nil once the table is on
	kept *live.Log
}

// Write takes one line.
func (l *earlyLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil && isTrouble(string(b)) {
		_, _ = l.out.Write(b)
	}
	return l.kept.Write(b)
}

func (l *earlyLog) quiet() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = nil
}

// prints says whether a sink writes to standard output.
func prints(cfg *configs.Config) bool {
	for _, s := range cfg.Sinks {
		if s.Kind == "stdout" {
			return true
		}
	}
	return false
}

// onEvent is for the router.
func (w *watch) onEvent(e *call.Event) {
	w.counts.see(e)
	if w.also != nil {
		w.also(e)
	}
	if w.screen != nil {
		w.table.See(e)
	}
}

// run shows g until ctx ends.
func (w *watch) run(ctx context.Context, g *gateway) {
	started := time.Now()
	if w.screen == nil {
		w.report(ctx, g)
		return
	}
	w.early.quiet()
	w.screen.Run(ctx, func(width, height int) []string {
		s := g.router.Status()
		hint := w.hint
		if s.Stopping {
			hint = "stopping: delivering what was received …"
		}
		return w.table.Render(live.View{
			Width: width, Height: height, Color: w.color, Title: w.title, Hint: hint, Now: time.Now(),
			Status: liveStatus(s, started, w.counts.events.Load()), Log: w.recent.Lines(),
		})
	})
}

// report logs how things go from time to time.
func (w *watch) report(ctx context.Context, g *gateway) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s := g.router.Status()
			args := []any{"calls", s.ActiveCalls, "ended", w.counts.ended.Load(), "events", w.counts.events.Load(), "ready", s.Ready}
			for _, k := range s.Sinks {
				args = append(args, slog.Group(k.Name, "acked", k.Acked, "waiting", k.Queue))
			}
			w.log.Info("at work", args...)
		}
	}
}

// tailLines bounds what tail prints.
const tailLines = 10

// tail prints, after the table is gone, what its log last said of trouble.
func (w *watch) tail(errOut io.Writer) {
	if w.screen == nil {
		return
	}
	var trouble []string
	for _, l := range w.recent.Lines() {
		if isTrouble(l) {
			trouble = append(trouble, l)
		}
	}
	for _, l := range trouble[max(0, len(trouble)-tailLines):] {
		_, _ = io.WriteString(errOut, l+"\n")
	}
}

func liveStatus(s router.Status, started time.Time, events uint64) live.Status {
	out := live.Status{Started: started, Events: events}
	for _, l := range s.Links {
		k := live.Link{ID: l.ID, Kind: l.Kind, Up: l.Up, Detail: linkDetail(l)}
		if l.OffsetMS != nil && l.UncertaintyMS != nil {
			k.ClockKnown, k.OffsetMS, k.UncertaintyMS = true, *l.OffsetMS, *l.UncertaintyMS
		}
		out.Links = append(out.Links, k)
	}
	for _, k := range s.Sinks {
		out.Sinks = append(out.Sinks, live.Sink{Name: k.Name, Acked: k.Acked, Waiting: k.Queue, Dropped: k.Dropped, Error: k.LastError})
	}
	return out
}

func linkDetail(l router.LinkStatus) string {
	switch {
	case !l.Up && l.LastError == "":
		return "connecting"
	case !l.Up:
		return l.LastError
	}
	about := l.Kind
	if v := shortVersion(l.Version); v != "" {
		about += " " + v
	}
	for _, m := range l.Missing {
		about += "   no " + m
	}
	return about
}

// shortVersion is a version without what the packager or the build added: 22.10.1, 1.10.12-release.
func shortVersion(v string) string {
	if i := strings.IndexAny(v, "+~ "); i >= 0 {
		v = v[:i]
	}
	return v
}
