package cluster

import (
	"context"
	"fmt"
	"time"
)

// declineFor is how long a unit that this node could not take over is left to others.
const declineFor = 5 * time.Second

// tell says to the host what changed, one thing after the other, until ctx ends. It looks at the state rather than at a
// queue of changes: what has passed meanwhile is not told.
func (m *Member) tell(ctx context.Context, host Host) {
	for ctx.Err() == nil {
		did := false
		for i := range m.units {
			did = m.tellUnit(ctx, host, i) || did
		}
		if did {
			continue
		}
		select {
		case <-m.news:
		case <-ctx.Done():
		}
	}
	for i := range m.units {
		m.tellLost(host, i)
	}
}

// tellUnit says the next thing about a unit, if there is one.
func (m *Member) tellUnit(ctx context.Context, host Host, i int) bool {
	m.mu.Lock()
	u, current := &m.units[i], m.owned[i].Load()
	told, releasing := u.told, u.releasing
	m.mu.Unlock()
	switch {
	case told != nil && told.Err() != nil:
		m.tellLost(host, i)
	case current == nil:
		return false
	case told == nil && releasing != nil:
		m.letGo(i, current)
	case told == nil:
		m.tellAcquire(ctx, host, current)
	case releasing != nil:
		m.tellRelease(releasing, host, told)
	default:
		return false
	}
	return true
}

func (m *Member) tellAcquire(ctx context.Context, host Host, o *Ownership) {
	m.mu.Lock()
	u := &m.units[o.unit]
	u.told, u.acquiring = o, true
	t := Takeover{Unit: o.unit, Generation: o.generation, Ownership: o, Previous: u.previous.Owner, Released: u.previous.Released}
	if o.notBefore > moment(m.clock()) {
		t.NotBefore = o.NotBefore()
	}
	m.mu.Unlock()
	m.log.Info("taking over a unit", "unit", o.unit, "generation", o.generation, "previous", t.Previous.Node, "released", t.Released)
	ctx, cancel := whileOwned(ctx, o)
	defer cancel()
	err := host.Acquire(ctx, t)
	m.mu.Lock()
	u.acquiring = false
	m.mu.Unlock()
	if err != nil {
		m.decline(o, fmt.Errorf("taking over unit %d: %w", o.unit, err))
	}
}

// whileOwned ends with the ownership, which then is its cause.
func whileOwned(ctx context.Context, o *Ownership) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		select {
		case <-o.Done():
			cancel(o.Err())
		case <-over:
		}
	}()
	return ctx, func() { close(over); cancel(nil) }
}

// GiveUp lets go of a unit that this node owns and cannot publish for, as when another node has shut it out: Lost follows, and
// this node leaves the unit to others for a while. Without the unit it does nothing. It does not block.
func (m *Member) GiveUp(unit int, why error) {
	if o, ours := m.Owned(unit); ours {
		m.decline(o, why)
		poke(m.news)
	}
}

// decline gives up a unit that could not be taken over, and does not want it for a while.
func (m *Member) decline(o *Ownership, why error) {
	m.mu.Lock()
	if m.owned[o.unit].Load() == o {
		m.log.Error("a unit cannot be published for: leaving it to others for a while", "unit", o.unit, "err", why)
		m.end(o.unit, why)
		m.units[o.unit].declined = m.clock().Add(declineFor)
		m.state.reason = "could not take over"
	}
	m.mu.Unlock()
	poke(m.wake)
}

func (m *Member) tellRelease(limit context.Context, host Host, o *Ownership) {
	ctx, cancel := whileOwned(limit, o)
	err := host.Release(ctx, o.unit)
	cancel()
	if err != nil {
		m.log.Warn("a unit was handed over unfinished", "unit", o.unit, "err", err)
	}
	m.letGo(o.unit, o)
}

// letGo ends an ownership by plan. The next owner need not wait, unless we still had to.
func (m *Member) letGo(i int, o *Ownership) {
	m.mu.Lock()
	u := &m.units[i]
	u.told = nil
	if m.owned[i].Load() == o {
		m.end(i, errReleased)
		u.freed, u.clean = m.state.generation, moment(m.clock()) >= o.notBefore
		m.state.counts.Released++
	}
	m.changed()
	m.mu.Unlock()
	poke(m.wake)
	m.checkStop()
}

func (m *Member) tellLost(host Host, i int) {
	m.mu.Lock()
	told := m.units[i].told
	m.units[i].told = nil
	if told != nil {
		m.end(i, errStopped)
		m.state.counts.Lost++
	}
	m.changed()
	m.mu.Unlock()
	if told != nil {
		m.log.Warn("a unit is lost", "unit", i, "err", told.Err())
		host.Lost(i, told.Err())
	}
	m.checkStop()
}
