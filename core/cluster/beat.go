package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pulse sends heartbeats until ctx ends, also while a join or a sync of the same generation is waited for.
func (m *Member) pulse(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-m.beat:
		}
		sent := m.clock()
		m.heartbeat(ctx, sent)
		t.Reset(max(0, m.cfg.Heartbeat-m.clock().Sub(sent)))
	}
}

func (m *Member) heartbeat(ctx context.Context, sent time.Time) {
	m.mu.Lock()
	id, generation, beating := m.state.id, m.state.generation, m.state.beating
	m.mu.Unlock()
	if !beating {
		return
	}
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = m.group, id, generation
	resp, err := m.beats.coordinator(ctx, req)
	if err != nil {
		m.beatFailed(err)
		return
	}
	m.beaten(id, generation, sent, resp.(*kmsg.HeartbeatResponse).ErrorCode)
}

func (m *Member) beatFailed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.counts.BeatErrors++
	m.trouble(err)
}

// trouble notes what is wrong, and logs it when it is new; m.mu is held.
func (m *Member) trouble(err error) {
	if m.state.problem == nil || m.state.problem.Error() != err.Error() {
		m.log.Warn("trouble with the cluster's group", "group", m.group, "err", err)
	}
	m.state.problem = err
}

// beaten takes the answer to a heartbeat. REBALANCE_IN_PROGRESS says that the member and its generation still stand, and
// that the next generation is being formed: the lease goes on, since nobody else can have been assigned anything yet.
func (m *Member) beaten(id string, generation int32, sent time.Time, code int16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := &m.state; !s.beating || s.id != id || s.generation != generation {
		return // the answer is about the past
	}
	err := kerr.ErrorForCode(code)
	if err == nil || err == kerr.RebalanceInProgress {
		m.state.heard, m.state.problem = sent, nil
		m.renew(sent)
	} else {
		m.state.counts.BeatErrors++
	}
	switch {
	case err == nil:
	case err == kerr.RebalanceInProgress || err == kerr.IllegalGeneration:
		m.state.rebalance = true
		poke(m.wake)
	case err == kerr.UnknownMemberID || err == kerr.FencedInstanceID:
		m.lose(err)
	case moved(code):
		m.beats.forget()
	default:
		m.trouble(fmt.Errorf("sending heartbeats to group %s: %w", m.group, err))
	}
}

// renew lets all leases run for Lease from the moment at which a good heartbeat was sent; m.mu is held.
func (m *Member) renew(sent time.Time) {
	until := moment(sent.Add(m.cfg.Lease))
	for i := range m.owned {
		if o := m.owned[i].Load(); o != nil {
			o.renew(until)
			if m.onRenew != nil {
				m.onRenew(o, moment(m.clock()), until)
			}
		}
	}
}
