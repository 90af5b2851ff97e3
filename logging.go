package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

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

// screenHandler writes lines for people: the time of day, the level, what happened, and the rest as key=value.
type screenHandler struct {
	slog.Handler // writes the attributes to buf
	mu           *sync.Mutex
	buf          *bytes.Buffer
	out          io.Writer
}

func newScreenLog(out io.Writer, level *slog.LevelVar) *slog.Logger {
	buf := &bytes.Buffer{}
	inner := slog.NewTextHandler(buf, &slog.HandlerOptions{Level: level, ReplaceAttr: onlyAttrs})
	return slog.New(&screenHandler{inner, &sync.Mutex{}, buf, out})
}

// onlyAttrs drops what screenHandler writes itself.
func onlyAttrs(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

// Handle writes one line.
func (h *screenHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Reset()
	fmt.Fprintf(h.buf, "%s %-5s %s  ", r.Time.Format(time.TimeOnly), r.Level, r.Message)
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.Write(append(bytes.TrimRight(h.buf.Bytes(), " \n"), '\n'))
	return err
}

// WithAttrs keeps attrs for every line.
func (h *screenHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &screenHandler{h.Handler.WithAttrs(attrs), h.mu, h.buf, h.out}
}

// WithGroup puts what follows in a group.
func (h *screenHandler) WithGroup(name string) slog.Handler {
	return &screenHandler{h.Handler.WithGroup(name), h.mu, h.buf, h.out}
}

// durationText writes durations as 1.5s, as text logs do, and not as nanoseconds.
func durationText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}

func setLevel(v *slog.LevelVar, name string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(name))); err == nil {
		v.Set(l)
	}
}
