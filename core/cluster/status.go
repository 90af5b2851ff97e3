package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Status is the cluster as one node sees it, or, from Inspect, as Kafka has it. Times are in milliseconds.
type Status struct {
	Node       string         `json:"node,omitempty"` // who says so; "" from Inspect
	Group      string         `json:"group"`
	Topic      string         `json:"topic"`
	State      string         `json:"state"` // joining, member, stopped; from Inspect the state of the group
	Drained    bool           `json:"drained,omitempty"`
	Member     string         `json:"member,omitempty"`
	Generation int32          `json:"generation"` // -1 when not known
	HeardMS    int64          `json:"heard_ms"`   // since the last good heartbeat was sent; -1 when there was none
	Problem    string         `json:"problem,omitempty"`
	Members    []MemberStatus `json:"members"`
	Units      []UnitStatus   `json:"units"`
	Peers      []PeerStatus   `json:"peers,omitempty"`
	Counts     *Counts        `json:"counts,omitempty"`
}

// MemberStatus is one member of the group.
type MemberStatus struct {
	ID      string `json:"id"`
	Node    string `json:"node"`
	Host    string `json:"host,omitempty"` // from Inspect: as the broker sees it
	Drained bool   `json:"drained,omitempty"`
	Units   []int  `json:"units,omitempty"`
}

// UnitStatus is one unit.
type UnitStatus struct {
	Unit        int      `json:"unit"`
	Switches    []string `json:"switches,omitempty"` // none: all
	Owner       string   `json:"owner"`              // node; "" when nobody owns it
	Member      string   `json:"member,omitempty"`
	Since       int32    `json:"since,omitempty"` // generation in which it was assigned to the owner, where known
	Ours        bool     `json:"ours,omitempty"`
	LeaseLeftMS int64    `json:"lease_left_ms,omitempty"` // of ours; negative when it lapsed
	WaitMS      int64    `json:"wait_ms,omitempty"`       // until the predecessor's lease must be over
	Released    bool     `json:"released,omitempty"`      // nobody owns it, and Owner let go by plan
}

// Status is what this member knows; it asks nobody. Peers are the link's to add.
func (m *Member) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, now := &m.state, m.clock()
	counts := st.counts
	s := Status{
		Node: m.cfg.Node, Group: m.group, Topic: m.topic, State: st.phase, Drained: st.idle && st.settled,
		Member: st.id, Generation: st.generation, HeardMS: -1, Counts: &counts,
		Members: []MemberStatus{}, Units: make([]UnitStatus, len(m.units)),
	}
	if st.id == "" && st.phase == phaseMember {
		s.State = phaseJoining
	}
	if !st.heard.IsZero() {
		s.HeardMS = now.Sub(st.heard).Milliseconds()
	}
	if st.problem != nil {
		s.Problem = st.problem.Error()
	}
	for _, p := range st.plan.Members {
		s.Members = append(s.Members, MemberStatus{ID: p.ID, Node: p.Node, Drained: p.Idle, Units: p.Units})
	}
	for i := range s.Units {
		s.Units[i] = m.unitStatus(i, now)
	}
	return s
}

func (m *Member) unitStatus(i int, now time.Time) UnitStatus {
	u := UnitStatus{Unit: i, Switches: m.cfg.switches(i)}
	u.Member, u.Owner = m.state.plan.owner(i)
	o := m.owned[i].Load()
	switch {
	case o != nil:
		u.Ours, u.Owner, u.Member, u.Since = true, m.cfg.Node, m.state.id, o.generation
		u.LeaseLeftMS = time.Duration(o.until.Load() - moment(now)).Milliseconds()
		u.WaitMS = max(0, time.Duration(o.notBefore-moment(now)).Milliseconds())
	case u.Member == m.state.id:
		u.Owner, u.Member = "", "" // not ours yet, or not any more
	}
	return u
}

func (c *Config) switches(unit int) []string {
	if unit < len(c.Units) {
		return c.Units[unit]
	}
	return nil
}

// Owner is the member that has a unit according to the last plan, zero when nobody has. It may be this one.
func (m *Member) Owner(unit int) Owner {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, node := m.state.plan.owner(unit)
	return Owner{Node: node, Member: id, Generation: m.state.generation}
}

// ID is this process's member id and the generation it is in; "" and -1 when it is in none. It changes when the
// group dropped this node.
func (m *Member) ID() (id string, generation int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.id, m.state.generation
}

// Inspect asks Kafka alone, for a machine on which no gateway runs: the group's members with their assignments, and the
// owners as they were written down. It joins nothing and changes nothing.
func Inspect(ctx context.Context, opts Options) (Status, error) {
	m, err := NewMember(opts)
	if err != nil {
		return Status{}, err
	}
	defer m.outside.close()
	s := Status{Group: m.group, Topic: m.topic, Generation: -1, HeardMS: -1, Members: []MemberStatus{}}
	err = m.insist(ctx, func() error { return m.describe(ctx, &s) })
	if err != nil {
		return s, err
	}
	all := make([]int, len(m.units))
	for i := range all {
		all[i] = i
	}
	var owners map[int]record
	err = m.insist(ctx, func() (err error) { owners, err = m.fetchRecords(ctx, m.outside, all); return err })
	for i := range all {
		s.Units = append(s.Units, m.inspected(i, s.Members, owners[i]))
		if r, ok := owners[i]; ok {
			s.Generation = max(s.Generation, r.Generation)
		}
	}
	return s, err
}

// insist repeats what fails because the coordinator is not known yet.
func (m *Member) insist(ctx context.Context, ask func() error) error {
	var err error
	for range 5 {
		if err = ask(); err == nil || sleep(ctx, minBackoff) != nil {
			return err
		}
	}
	return err
}

func (m *Member) describe(ctx context.Context, s *Status) error {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{m.group}
	got, err := m.outside.coordinator(ctx, req)
	if err != nil {
		return err
	}
	s.Members = s.Members[:0]
	for _, g := range got.(*kmsg.DescribeGroupsResponse).Groups {
		err := kerr.ErrorForCode(g.ErrorCode)
		if err == kerr.GroupIDNotFound { // from version 6 on; "Dead" before
			s.State = "Dead"
			continue
		}
		if err != nil {
			m.outside.forget()
			return fmt.Errorf("describing group %s: %w", m.group, err)
		}
		s.State = g.State
		for _, gm := range g.Members {
			c, _ := readSubscription(gm.MemberID, gm.ProtocolMetadata) // none while a rebalance is on
			units, _, _ := readAssignment(m.topic, gm.MemberAssignment)
			s.Members = append(s.Members, MemberStatus{gm.MemberID, c.Node, gm.ClientHost, c.Idle, units})
		}
	}
	slices.SortFunc(s.Members, func(a, b MemberStatus) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID)) })
	return nil
}

func (m *Member) inspected(i int, members []MemberStatus, written record) UnitStatus {
	u := UnitStatus{Unit: i, Switches: m.cfg.switches(i)}
	for _, ms := range members {
		if slices.Contains(ms.Units, i) {
			u.Owner, u.Member = ms.Node, ms.ID
		}
	}
	if u.Member != "" && u.Member == written.Member {
		u.Since = written.Generation
	}
	u.Released = u.Member == "" && written.Released
	return u
}

// PeerStatus is one peer as the link sees it.
type PeerStatus struct {
	ID      string  `json:"id"`
	Address string  `json:"address"`
	State   string  `json:"state"`           // unknown, up, silent, dead
	AgeMS   int64   `json:"age_ms"`          // since it was last heard; -1 when never
	Error   string  `json:"error,omitempty"` // of the last attempt to connect
	Refused uint64  `json:"refused"`         // connections in its name that were turned away
	Report  *Report `json:"report,omitempty"`
}
