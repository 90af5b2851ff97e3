package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
)

var discard = slog.New(slog.DiscardHandler)

// logFlags override the configuration.
type logFlags struct{ level, format string }

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "", "`debug|info|warn|error`; default as configured")
	cmd.Flags().StringVar(&f.format, "log-format", "", "`text|json`; default as configured")
	choices(cmd, "log-level", "debug", "info", "warn", "error")
	choices(cmd, "log-format", "text", "json")
}

// apply puts the flags over c.
func (f logFlags) apply(c *configs.Log) error {
	if f.level != "" {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, f.level) {
			return usageError{fmt.Errorf("--log-level %q is unknown: use debug, info, warn or error", f.level)}
		}
		c.Level = f.level
	}
	if f.format != "" {
		if f.format != "text" && f.format != "json" {
			return usageError{fmt.Errorf("--log-format %q is unknown: use text or json", f.format)}
		}
		c.Format = f.format
	}
	return nil
}

func newLog(out io.Writer, c configs.Log, level *slog.LevelVar) *slog.Logger {
	setLevel(level, c.Level)
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		o.ReplaceAttr = durationText
		return slog.New(slog.NewJSONHandler(out, o))
	}
	return slog.New(slog.NewTextHandler(out, o))
}

// newScreenLog is for the few lines under a table: the time of day, the level when it matters, and what happened.
func newScreenLog(out io.Writer, level *slog.LevelVar) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: shortTime}))
}

// durationText writes durations as 1.5s, as text logs do, and not as nanoseconds.
func durationText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}

func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.String("time", a.Value.Time().Format("15:04:05"))
	}
	return a
}

func setLevel(v *slog.LevelVar, name string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(name))); err == nil {
		v.Set(l)
	}
}
