package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	protocolType = "consumer"
	protocolName = "ctigate.v1"

	// rebalanceTimeout bounds how long a rebalance waits for a member that hangs, which is then dropped.
	rebalanceTimeout = 2 * time.Second
	// joinTimeout is longer than Kafka can want to take: group.initial.rebalance.delay.ms (3 s), extended up to the
	// rebalance timeout by each newcomer.
	joinTimeout = 15 * time.Second

	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// join is the control loop: into the group, and again whenever there is a reason to, until ctx ends.
func (m *Member) join(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		err := m.round(ctx)
		if err == nil {
			backoff = minBackoff
			continue
		}
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		m.trouble(err)
		m.mu.Unlock()
		_ = sleep(ctx, backoff) // ctx is looked at above
		backoff = min(2*backoff, maxBackoff)
	}
}

// round is one generation: join, sync, take what was assigned, and wait for a reason to join again.
func (m *Member) round(ctx context.Context) error {
	if err := m.ensureTopic(ctx); err != nil {
		return err
	}
	m.writeReleases(ctx)
	joined, idle, err := m.enter(ctx)
	if err != nil {
		return err
	}
	mine, err := m.sync(ctx, joined, idle)
	if err != nil || mine == nil {
		return err
	}
	if err := m.adopt(ctx, *mine); err != nil {
		return err
	}
	m.wait(ctx)
	return nil
}

// enter joins. The heartbeats of the old generation go on until the answer is here.
func (m *Member) enter(ctx context.Context) (resp *kmsg.JoinGroupResponse, idle bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.mu.Lock()
	reason := m.state.reason
	m.state.reason, m.state.cancelJoin = "", cancel
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.state.cancelJoin = nil
		m.mu.Unlock()
	}()
	for range 8 { // a new id, a longer session: each takes one more try
		w := m.wishNow()
		resp, err = m.askJoin(ctx, w, reason)
		if err != nil {
			return nil, false, err
		}
		again, err := m.joined(resp)
		if err != nil || !again {
			return resp, w.Idle, err
		}
	}
	return nil, false, fmt.Errorf("joining group %s: refused time and again: %w", m.group, kerr.ErrorForCode(resp.ErrorCode))
}

func (m *Member) wishNow() wish {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.wished = m.wish()
	return m.state.wished
}

func (m *Member) askJoin(ctx context.Context, w wish, reason string) (*kmsg.JoinGroupResponse, error) {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.ProtocolType = m.group, protocolType
	m.mu.Lock()
	req.MemberID = m.state.id
	m.mu.Unlock()
	req.SessionTimeoutMillis = int32(m.cfg.Session.Milliseconds())
	req.RebalanceTimeoutMillis = int32(rebalanceTimeout.Milliseconds())
	if reason != "" {
		req.Reason = &reason
	}
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = protocolName, subscription(m.topic, w)
	req.Protocols = append(req.Protocols, p)
	resp, err := m.control.coordinatorWithin(ctx, joinTimeout, req)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.JoinGroupResponse), nil
}

// joined reports whether to ask again at once. After a good answer the old generation is over: its heartbeats cease.
func (m *Member) joined(resp *kmsg.JoinGroupResponse) (again bool, err error) {
	switch err := kerr.ErrorForCode(resp.ErrorCode); {
	case err == nil:
		m.became(resp.MemberID)
		m.mu.Lock()
		m.state.beating, m.state.rebalance = false, false
		m.mu.Unlock()
		return false, nil
	case err == kerr.MemberIDRequired:
		m.became(resp.MemberID)
		return true, nil
	case err == kerr.UnknownMemberID || err == kerr.FencedInstanceID:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.state.cancelJoin = nil // it is this join that says so
		m.lose(err)
		return true, nil
	case err == kerr.InvalidSessionTimeout:
		return false, fmt.Errorf("joining group %s: cluster.session %s is not within the brokers' group.min.session.timeout.ms "+
			"and group.max.session.timeout.ms: change one of them: %w", m.group, m.cfg.Session, err)
	default:
		if moved(resp.ErrorCode) {
			m.control.forget()
		}
		return false, fmt.Errorf("joining group %s: %w", m.group, err)
	}
}

// share is what this member got in a generation.
type share struct {
	generation int32
	units      []int
	plan       plan
	idle       bool      // as the group knows
	sent       time.Time // when the sync was asked for, from which leases run
	received   time.Time // when it was answered: by then earlier owners were out
}

// sync gives the plan, if this member leads, and gets its share. No share and no error: join again at once.
func (m *Member) sync(ctx context.Context, joined *kmsg.JoinGroupResponse, idle bool) (*share, error) {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.Generation, req.MemberID = m.group, joined.Generation, joined.MemberID
	kind, name := protocolType, protocolName
	req.ProtocolType, req.Protocol = &kind, &name
	if joined.LeaderID == joined.MemberID {
		req.GroupAssignment = m.lead(joined)
	}
	sent := m.clock()
	m.mu.Lock()
	m.state.generation = joined.Generation
	m.mu.Unlock()
	got, err := m.control.coordinatorWithin(ctx, rebalanceTimeout+m.control.timeout, req)
	if err != nil {
		return nil, err
	}
	resp := got.(*kmsg.SyncGroupResponse)
	switch err := kerr.ErrorForCode(resp.ErrorCode); {
	case err == nil:
	case err == kerr.RebalanceInProgress || err == kerr.IllegalGeneration:
		return nil, nil
	case err == kerr.UnknownMemberID:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lose(err)
		return nil, nil
	default:
		if moved(resp.ErrorCode) {
			m.control.forget()
		}
		return nil, fmt.Errorf("getting an assignment from group %s: %w", m.group, err)
	}
	units, plan, err := readAssignment(m.topic, resp.MemberAssignment)
	if err != nil {
		return nil, err
	}
	return &share{joined.Generation, units, plan, idle, sent, m.clock()}, nil
}

// lead plans for all members. One whose subscription cannot be read gets nothing, nor does an earlier process of this node
// that the group has not dropped yet.
func (m *Member) lead(joined *kmsg.JoinGroupResponse) (all []kmsg.SyncGroupRequestGroupAssignment) {
	members := make([]candidate, 0, len(joined.Members))
	for _, jm := range joined.Members {
		c, err := readSubscription(jm.MemberID, jm.ProtocolMetadata)
		if err != nil {
			m.log.Warn("a member of the cluster's group is none of ours: it gets nothing", "member", jm.MemberID, "err", err)
		}
		if c.Node == m.cfg.Node && c.id != joined.MemberID {
			c.wish = wish{Node: c.Node, Idle: true}
		}
		members = append(members, c)
	}
	p := spread(len(m.units), members)
	for _, pm := range p.Members {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = pm.ID, assignment(m.topic, p, pm.Units)
		all = append(all, a)
	}
	return all
}

// wait returns when there is a reason to join again.
func (m *Member) wait(ctx context.Context) {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for !m.mustRejoin() {
		if d := m.untilWanted(); d > 0 {
			retry.Reset(d)
		}
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		case <-m.wake:
		}
	}
}

// mustRejoin reports whether the group wants everybody back, or does not know any more what this member wants.
func (m *Member) mustRejoin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.wish()
	if m.state.rebalance || now.Idle != m.state.wished.Idle || !slices.Equal(now.Declined, m.state.wished.Declined) {
		return true
	}
	for i := range m.units {
		if m.units[i].assigned && m.owned[i].Load() == nil {
			return true // let go of
		}
	}
	return false
}

// untilWanted is how long until a declined unit is wanted again; 0 when none is declined.
func (m *Member) untilWanted() (d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	for i := range m.units {
		if left := m.units[i].declined.Sub(now); left > 0 && (d == 0 || left < d) {
			d = left
		}
	}
	return d
}

// leave writes down what was released and leaves, so that the others go on at once.
func (m *Member) leave(ctx context.Context) {
	m.writeReleases(ctx)
	m.mu.Lock()
	id := m.state.id
	for i := range m.units {
		m.end(i, errStopped)
	}
	m.state.phase, m.state.beating = phaseStopped, false
	m.changed()
	m.mu.Unlock()
	if id == "" {
		return
	}
	if err := m.remove(ctx, m.control, id, "stopping"); err != nil {
		m.log.Warn("could not leave the cluster's group: the others will notice later", "group", m.group, "err", err)
	}
}
