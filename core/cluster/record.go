package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// record is what the group's committed offsets say of a unit, as the metadata of its partition's offset. The coordinator
// takes it only from a member of the present generation: an owner that lost the unit cannot write over its successor.
type record struct {
	Owner
	Released bool `json:"released,omitempty"` // it let go by itself, and no lease can be running
}

var (
	errStopped  = errors.New("this node stopped")
	errReleased = errors.New("released by plan")
	errMoved    = errors.New("assigned to another node")
)

// adopt takes this member's share: it ends what is not in it, goes on with what was owned before, and for what is new
// finds out whose it was and writes down that it is ours now, before it may be used. An error, or a newer generation,
// leaves the rest to the next round.
func (m *Member) adopt(ctx context.Context, s share) error {
	fresh := m.take(s)
	if len(fresh) == 0 {
		return nil
	}
	was, err := m.readRecords(ctx, s.generation, fresh)
	if err != nil {
		return err
	}
	m.remember(s, fresh, was)
	if err := m.write(ctx, s.generation, m.ours(s.generation, fresh)); err != nil {
		return err
	}
	m.begin(s, fresh)
	return nil
}

// take moves this member to the generation and returns the units that it did not own before.
func (m *Member) take(s share) (fresh []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := &m.state
	st.phase, st.generation, st.beating, st.plan, st.problem, st.heard = phaseMember, s.generation, true, s.plan, nil, s.sent
	st.settled = s.idle
	st.counts.Rebalances++
	for i := range m.units {
		u := &m.units[i]
		u.pending, u.assigned = 0, slices.Contains(s.units, i)
		switch o := m.owned[i].Load(); {
		case o != nil && !u.assigned:
			m.end(i, errMoved)
		case o == nil && u.freed != 0 && u.assigned:
			u.freed = s.generation // let go of while the join was under way; nobody else has it yet
		case o == nil && u.assigned && !(st.idle || st.stopping):
			u.pending = s.generation
			fresh = append(fresh, i)
		}
	}
	m.renew(s.sent)
	m.changed()
	poke(m.beat)
	return fresh
}

// remember notes until when each fresh unit must stay quiet. What was noted before stands: the record may be our own by
// now, written by an attempt whose answer was lost.
func (m *Member) remember(s share, fresh []int, was map[int]record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range fresh {
		u, r := &m.units[i], was[i]
		if !u.begun {
			u.previous, u.begun = r, true
		}
		if r.Member == "" || r.Released || m.isPast(r.Member) {
			continue
		}
		since := s.received
		if at, ok := m.kicked[r.Member]; ok {
			since = at
		}
		u.quiet = max(u.quiet, moment(since.Add(m.cfg.Lease+margin(m.cfg.Lease))))
	}
}

// margin is added to a predecessor's lease for clocks that run at different speeds and for what it had on its way.
func margin(lease time.Duration) time.Duration { return max(lease/5, 100*time.Millisecond) }

func (m *Member) ours(generation int32, units []int) map[int]record {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := make(map[int]record, len(units))
	for _, i := range units {
		records[i] = record{Owner: Owner{m.cfg.Node, m.state.id, generation}}
	}
	return records
}

// begin makes fresh units owned, if the generation still stands.
func (m *Member) begin(s share, fresh []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.generation != s.generation || !m.state.beating {
		return
	}
	for _, i := range fresh {
		m.units[i].pending, m.units[i].begun = 0, false
		m.owned[i].Store(newOwnership(i, s.generation, m.units[i].quiet))
		m.state.counts.Acquired++
	}
	m.renew(m.state.heard)
	m.changed()
}

// writeReleases writes down what was released in this generation, before the next is joined. It is an optimization:
// without it the next owner waits for the end of a lease.
func (m *Member) writeReleases(ctx context.Context) {
	m.mu.Lock()
	generation := m.state.generation
	records := map[int]record{}
	for i := range m.units {
		u := &m.units[i]
		if u.freed == generation && u.clean && m.state.id != "" {
			records[i] = record{Owner{m.cfg.Node, m.state.id, generation}, true}
		}
		u.freed = 0
	}
	m.mu.Unlock()
	if len(records) > 0 {
		ctx, cancel := context.WithTimeout(ctx, m.control.timeout)
		defer cancel()
		if err := m.write(ctx, generation, records); err != nil {
			m.log.Warn("could not write down that units were released: their next owner waits for the end of the lease", "err", err)
		}
	}
	m.checkStop()
}

// write commits records, fenced by the generation. It tries again until the coordinator has decided, this generation
// has passed, or ctx ends.
func (m *Member) write(ctx context.Context, generation int32, records map[int]record) error {
	for {
		err := m.commit(ctx, generation, records)
		if err == nil || !m.worthAgain(ctx, generation, err) {
			return err
		}
		_ = sleep(ctx, minBackoff) // worthAgain looks at ctx
	}
}

// worthAgain reports whether a request to the coordinator is to be repeated: neither it has decided, nor has the
// generation passed.
func (m *Member) worthAgain(ctx context.Context, generation int32, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var code *kerr.Error
	decided := errors.As(err, &code) && !code.Retriable
	return !decided && ctx.Err() == nil && m.state.generation == generation && m.state.beating
}

func (m *Member) commit(ctx context.Context, generation int32, records map[int]record) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = m.group, generation
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = m.topic
	for unit, r := range records {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		text := string(mustJSON(r))
		p.Partition, p.Offset, p.Metadata = int32(unit), int64(generation), &text
		t.Partitions = append(t.Partitions, p)
		req.MemberID = r.Member
	}
	req.Topics = append(req.Topics, t)
	got, err := m.control.coordinator(ctx, req)
	if err != nil {
		return err
	}
	for _, t := range got.(*kmsg.OffsetCommitResponse).Topics {
		for _, p := range t.Partitions {
			if err := m.refused(p.ErrorCode, "writing down the owner", int(p.Partition)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Member) refused(code int16, what string, unit int) error {
	err := kerr.ErrorForCode(code)
	if err == nil {
		return nil
	}
	if moved(code) {
		m.control.forget()
	}
	return fmt.Errorf("%s of unit %d in group %s: %w", what, unit, m.group, err)
}

func (m *Member) readRecords(ctx context.Context, generation int32, units []int) (map[int]record, error) {
	for {
		records, err := m.fetchRecords(ctx, m.control, units)
		if err == nil || !m.worthAgain(ctx, generation, err) {
			return records, err
		}
		_ = sleep(ctx, minBackoff) // worthAgain looks at ctx
	}
}

func (m *Member) fetchRecords(ctx context.Context, b *brokers, units []int) (map[int]record, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = m.group
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic = m.topic
	for _, u := range units {
		t.Partitions = append(t.Partitions, int32(u))
	}
	req.Topics = append(req.Topics, t)
	got, err := b.coordinator(ctx, req)
	if err != nil {
		return nil, err
	}
	resp := got.(*kmsg.OffsetFetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil && err != kerr.GroupIDNotFound {
		if moved(resp.ErrorCode) {
			b.forget()
		}
		return nil, fmt.Errorf("reading the owners in group %s: %w", m.group, err)
	}
	return m.records(resp)
}

// records reads what was committed. What is not readable counts as an owner that is not known and may still publish.
func (m *Member) records(resp *kmsg.OffsetFetchResponse) (map[int]record, error) {
	records := map[int]record{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := m.refused(p.ErrorCode, "reading the owner", int(p.Partition)); err != nil {
				return nil, err
			}
			if p.Offset < 0 {
				continue // none yet
			}
			r := record{Owner: Owner{Member: "unknown"}}
			if p.Metadata != nil {
				if err := json.Unmarshal([]byte(*p.Metadata), &r); err != nil {
					m.log.Warn("the record of a unit's owner is not readable", "unit", p.Partition, "record", *p.Metadata, "err", err)
					r = record{Owner: Owner{Member: "unknown"}}
				}
			}
			records[int(p.Partition)] = r
		}
	}
	return records, nil
}
