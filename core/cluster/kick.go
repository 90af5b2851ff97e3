package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	// ErrNoOwner says that nobody owns the unit as far as this member knows, so there is nobody to kick.
	ErrNoOwner = errors.New("no node owns the unit")
	// ErrOwnUnit says that this node owns the unit itself.
	ErrOwnUnit = errors.New("this node owns the unit itself")
	// ErrTooManyKicks says that more owners were kicked lately than can be right; try again in some seconds.
	ErrTooManyKicks = errors.New("too many kicks lately")
)

// Kick removes the member that owns a unit, as far as this member knows, from the group, so that another owner is found
// at once. It does no harm to safety when the owner lives: its lease is waited for, and it comes back as a newcomer.
// reason is for the broker's log. Kicks are limited to a burst of 5, then one every 5 s. It returns when the coordinator
// has confirmed, which takes one request, or when ctx ends.
func (m *Member) Kick(ctx context.Context, unit int, reason string) error {
	m.mu.Lock()
	id, node := m.state.plan.owner(unit)
	own := m.state.id
	m.mu.Unlock()
	switch id {
	case "":
		return ErrNoOwner
	case own:
		return ErrOwnUnit
	}
	m.log.Warn("removing the owner of a unit from the cluster's group", "unit", unit, "owner", node, "member", id, "reason", reason)
	return m.KickMember(ctx, id, reason)
}

// KickMember is Kick by member id, as the peer link tells it of a node that died.
func (m *Member) KickMember(ctx context.Context, id, reason string) error {
	select {
	case m.kicking <- struct{}{}:
		defer func() { <-m.kicking }()
	case <-ctx.Done():
		return fmt.Errorf("kicking member %s: another kick is under way, or this member has stopped: %w", id, ctx.Err())
	}
	if !m.limit.allow(m.clock()) {
		m.count(func(c *Counts) { c.KicksOver++ })
		return ErrTooManyKicks
	}
	if err := m.remove(ctx, m.outside, id, reason); err != nil {
		return fmt.Errorf("kicking member %s: %w", id, err)
	}
	m.mu.Lock()
	m.kicked[id] = m.clock()
	m.state.counts.Kicks++
	m.state.reason = "kicked " + id
	m.mu.Unlock()
	poke(m.beat) // it says that a rebalance is on, and the control loop joins
	return nil
}

func (m *Member) count(add func(*Counts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add(&m.state.counts)
}

// removeTimeout bounds the removal of a member with all its retries.
const removeTimeout = 3 * time.Second

// remove takes a member out of the group, itself or another. One that is not in it is fine.
func (m *Member) remove(ctx context.Context, b *brokers, id, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	for {
		code, err := m.askLeave(ctx, b, id, reason)
		switch {
		case err == nil && (code == nil || code == kerr.UnknownMemberID):
			return nil
		case err == nil && !code.Retriable:
			return code
		case err == nil:
			b.forget()
			err = code
		}
		if sleep(ctx, minBackoff) != nil {
			return err
		}
	}
}

// askLeave returns what the coordinator says of the member.
func (m *Member) askLeave(ctx context.Context, b *brokers, id, reason string) (*kerr.Error, error) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = m.group, id // by itself up to version 2
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID, member.Reason = id, &reason
	req.Members = append(req.Members, member)
	got, err := b.coordinator(ctx, req)
	if err != nil {
		return nil, err
	}
	resp := got.(*kmsg.LeaveGroupResponse)
	code := resp.ErrorCode
	for _, r := range resp.Members {
		if code == 0 {
			code = r.ErrorCode
		}
	}
	return kerr.TypedErrorForCode(code), nil
}

// limiter is a token bucket.
type limiter struct {
	spent int
	since time.Time
}

const (
	kickBurst = 5
	kickEvery = 5 * time.Second
)

func (l *limiter) allow(now time.Time) bool {
	back := int(now.Sub(l.since) / kickEvery)
	if l.since.IsZero() || back >= l.spent {
		l.spent, l.since = 0, now
	} else {
		l.spent, l.since = l.spent-back, l.since.Add(time.Duration(back)*kickEvery)
	}
	if l.spent >= kickBurst {
		return false
	}
	l.spent++
	return true
}
