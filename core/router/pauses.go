package router

import (
	"context"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	pauseLook = 100 * time.Millisecond
	pauseMin  = 5 * pauseLook // less is a busy machine
)

// pauses knows when this process, or its machine, stood still. What had piled up in its sockets by then may be lost with
// a link, although what came later by another of its channels was read.
type pauses struct {
	mu         sync.Mutex
	seen       time.Time // when it last looked
	from, till time.Time // of the latest pause
}

// watch looks until ctx ends.
func (p *pauses) watch(ctx context.Context) {
	for sleep(ctx, pauseLook) {
		p.look(time.Now())
	}
}

func (p *pauses) look(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.seen.IsZero() && now.Sub(p.seen) > pauseMin {
		p.from, p.till = p.seen, now
	}
	p.seen = now
}

// lately is when the pause began that ended so lately that what was read since may come from before; 0 without one.
func (p *pauses) lately() call.Time {
	now := time.Now()
	p.look(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from.IsZero() || now.Sub(p.till) > time.Duration(pile)*time.Microsecond {
		return 0
	}
	return call.At(core.ByClockNow(p.from))
}
