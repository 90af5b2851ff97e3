package ari

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// How long the AMI link waits before it tries again. A refused user is asked for slowly, so as not to hammer.
const (
	maxRetry     = 30 * time.Second
	refusedRetry = time.Minute
)

// amiLink keeps the AMI connection beside one ARI session: the session goes on without it. Its own losses are reported
// as gaps, and as what the session cannot see until it is back.
type amiLink struct {
	s     *session
	first chan struct{} // one token: the first attempt succeeded or failed
	retry time.Duration
	heard time.Time // all that was sent by then has been read
}

// run keeps the link until ctx ends. It returns an error only when the router is gone.
func (l *amiLink) run(ctx context.Context) error {
	for failed := 0; ; {
		up, err := l.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if up {
			failed = 0
			if err := l.lost(err); err != nil {
				return err
			}
		}
		if err := l.settle(withoutAMI(err)); err != nil {
			return err
		}
		failed++
		wait := l.wait(failed, err)
		l.s.log.Warn("AMI link is down: queue and agent events are missing", "err", err, "retry_in", wait.Round(time.Millisecond))
		l.s.out.Count("ami_failed", 1)
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// once connects, logs in and reads until the link drops. up tells whether the login succeeded.
func (l *amiLink) once(ctx context.Context) (up bool, err error) {
	push := func(in inbound) error { return l.s.queue.push(ctx, in) }
	c, err := dialAMI(ctx, l.s.cfg.AMI, l.s.cfg.ReadTimeout, push)
	if err != nil {
		return false, err
	}
	l.s.out.Count("ami_connected", 1)
	l.heard = time.Now()
	g := newGroup(ctx)
	g.start(c.run)
	g.start(func(ctx context.Context) error { return l.attend(ctx, c) })
	g.start(func(context.Context) error { return l.settle("") })
	<-g.ctx.Done()
	return true, g.stop(nil)
}

// attend asks for the queues' state, then pings: for the reader's deadline and for the clock.
func (l *amiLink) attend(ctx context.Context, c *amiClient) error {
	// The answer's events go the way of all others: they say who waits and which agents are logged in or paused.
	if _, err := c.send(nil, "QueueStatus", nil); err != nil {
		return fmt.Errorf("AMI QueueStatus: %w", err)
	}
	tick := time.NewTicker(l.s.cfg.PingInterval)
	defer tick.Stop()
	select { // a clock sample makes no sense before the session is up
	case <-l.s.up:
	case <-tick.C:
	case <-ctx.Done():
		return nil
	}
	var next time.Time // of the next clock sample
	for {
		var err error
		if next, err = l.ping(ctx, c, next); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ping keeps the link alive and, from next on, measures the clock. It returns when to measure again.
func (l *amiLink) ping(ctx context.Context, c *amiClient, next time.Time) (time.Time, error) {
	asked := time.Now()
	sample, err := c.ping(ctx)
	if err == nil {
		l.heard = asked
	}
	switch {
	case ctx.Err() != nil:
		return next, nil
	case err != nil:
		l.s.out.Count("ami_ping_failed", 1) // the reader's deadline decides whether the link is dead
		l.s.log.Debug("pinging AMI", "err", err)
		return next, nil
	case time.Now().Before(next):
		return next, nil
	}
	select {
	case <-l.s.up:
		return time.Now().Add(clockInterval), l.s.out.Clock(sample)
	default:
		return next, nil
	}
}

func (l *amiLink) lost(err error) error {
	return l.s.out.Gap(fmt.Sprintf("the AMI link was lost at %s (%v): queue and agent events are missing until it is back",
		call.At(time.Now()), err), call.At(core.ByClockNow(l.heard)))
}

// settle notes what an attempt's outcome leaves unseen.
func (l *amiLink) settle(missing string) error {
	err := l.s.sees(missing)
	signal(l.first)
	return err
}

// wait doubles with each failure up to maxRetry, and is spread so that links do not retry in step.
func (l *amiLink) wait(failed int, err error) time.Duration {
	if core.IsPermanent(err) {
		return refusedRetry
	}
	d := min(l.retry<<min(failed-1, 16), maxRetry)
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d and reports whether ctx lasted as long.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
