package cluster

import "time"

// Report is what a node tells its peers every 200 ms.
type Report struct {
	Member     string       `json:"member"`
	Generation int32        `json:"generation"`
	Units      []UnitReport `json:"units,omitempty"`
}

// UnitReport is the state of one unit at a node.
type UnitReport struct {
	Unit        int    `json:"unit"`
	State       string `json:"state"`         // standby, taking over, owner, draining
	LeaseLeftMS int64  `json:"lease_left_ms"` // negative when lapsed, 0 on standby
	Published   uint64 `json:"published"`     // sequence of the last input published, as the host counts
}

// States of a unit at a node.
const (
	StateStandby    = "standby"
	StateTakingOver = "taking over"
	StateOwner      = "owner"
	StateDraining   = "draining"
)

// Report is what to tell the peers now. published gives the sequence of the last input published for a unit; nil for 0.
func (m *Member) Report(published func(unit int) uint64) Report {
	r := m.report()
	for i := range r.Units {
		if published != nil {
			r.Units[i].Published = published(i)
		}
	}
	return r
}

func (m *Member) report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Report{Member: m.state.id, Generation: m.state.generation, Units: make([]UnitReport, len(m.units))}
	now := m.clock()
	for i := range m.units {
		r.Units[i] = UnitReport{Unit: i, State: m.stateOf(i)}
		if o := m.owned[i].Load(); o != nil {
			r.Units[i].LeaseLeftMS = time.Duration(o.until.Load() - moment(now)).Milliseconds()
		}
	}
	return r
}

func (m *Member) stateOf(i int) string {
	u := &m.units[i]
	switch {
	case m.owned[i].Load() == nil:
		return StateStandby
	case u.releasing != nil:
		return StateDraining
	case u.told == nil || u.acquiring:
		return StateTakingOver
	}
	return StateOwner
}
