// Package ari reads call events from Asterisk: the ARI websocket for calls, the AMI beside it for queues and agents.
//
// One session is one websocket, one snapshot of channels and bridges, and, where configured, one AMI link that the
// session keeps up by itself. Frames of both links go through one bounded queue and one goroutine, in the order of
// their arrival. configs/asterisk shows what Asterisk must be told; Check says what of it is missing on a live switch.
package ari

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core"
)

var (
	_ core.AdapterConfig = (*Config)(nil)
	_ core.Adapter       = (*Adapter)(nil)
	_ core.Checker       = (*Adapter)(nil)
)

// Adapter reads one Asterisk. It implements core.Adapter and core.Checker.
type Adapter struct {
	id       string
	cfg      Config
	log      *slog.Logger
	control  *Control
	amiRetry time.Duration // first wait of the AMI link
	queue    atomic.Pointer[queue]
	highest  int // most frames ever queued, as counted so far; Run's
}

func newAdapter(id string, cfg Config, log *slog.Logger) (*Adapter, error) {
	control, err := NewControl(&cfg)
	if err != nil {
		return nil, err
	}
	if cfg.AMI != nil && cfg.AMI.TLS != nil {
		if _, err := cfg.AMI.TLS.Client("ami.tls", ""); err != nil {
			return nil, err
		}
	}
	return &Adapter{id: id, cfg: cfg, log: log, control: control, amiRetry: time.Second}, nil
}

// Control steers calls on this switch. It is the same for the adapter's life.
func (a *Adapter) Control() *Control { return a.control }

// QueueDepth is how many frames of the present session were read and wait to be handled.
func (a *Adapter) QueueDepth() int {
	q := a.queue.Load()
	if q == nil {
		return 0
	}
	n, _ := q.depth()
	return n
}

// Run is one session. See core.Adapter.
func (a *Adapter) Run(ctx context.Context, out core.Emitter) error {
	s, err := a.newSession(out)
	if err != nil {
		return err
	}
	defer s.rest.close()
	a.queue.Store(s.queue)
	defer a.queue.Store(nil)
	err = s.run(ctx)
	a.countHighest(s)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// countHighest keeps the counter queue_highest at the most frames that were ever queued.
func (a *Adapter) countHighest(s *session) {
	if _, h := s.queue.depth(); h > a.highest {
		s.out.Count("queue_highest", h-a.highest)
		a.highest = h
	}
}
