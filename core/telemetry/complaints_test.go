package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
)

func TestFailingExportsAreLoggedOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	at := time.Unix(1_790_000_000, 0)
	c := &complaints{log: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return at }}
	for range 100 {
		c.Handle(errors.New("no collector"))
		at = at.Add(time.Second)
	}
	c.Handle(nil)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], `error="no collector"`) ||
		!strings.Contains(lines[1], "not_logged_before=59") {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

func TestARefusedExportReachesTheLog(t *testing.T) {
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
	}))
	defer collector.Close()
	defer otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	lines := make(chan string, 10)
	tel, err := New(t.Context(), Options{OTLP: OTLP{Endpoint: collector.URL, Interval: 10 * time.Millisecond},
		Log: slog.New(slog.NewTextHandler(lineWriter(lines), nil))})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case l := <-lines:
		if !strings.Contains(l, "telemetry is not exported") || !strings.Contains(l, "401") {
			t.Errorf("logged %s", l)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was logged")
	}
	_ = tel.Shutdown(t.Context()) // the last export is refused too
}

type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	select {
	case w <- string(b):
	default:
	}
	return len(b), nil
}
