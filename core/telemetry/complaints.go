package telemetry

import (
	"log/slog"
	"sync"
	"time"
)

// complainEach is the shortest time between two lines about exports that fail.
const complainEach = time.Minute

// complaints writes what OpenTelemetry cannot return to anybody, failing exports above all, to the log: a line a minute
// at most. It implements otel.ErrorHandler.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	said   time.Time
	silent int // errors since then
}

// Handle logs err, or counts it for the next line.
func (c *complaints) Handle(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if !c.said.IsZero() && now.Sub(c.said) < complainEach {
		c.silent++
		return
	}
	c.log.Warn("telemetry is not exported; calls are not affected", "error", err, "not_logged_before", c.silent)
	c.said, c.silent = now, 0
}
