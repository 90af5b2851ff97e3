package sim

import (
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/sim/people"
)

// agent is one member of the staff. Its calls never overlap unless they have to.
type agent struct {
	number int   // from 1
	free   int64 // from when on it is free, scripted microseconds
	taken  int
	last   int64 // when its last call ended
}

func (a *agent) user() string { return people.Agent(a.number) }

func (a *agent) display() string { return people.AgentName(a.number) }

// ext is the agent's extension: 1001 for agent1.
func (a *agent) ext() string { return people.Extension(a.number) }

// staff is the agents of a switch and when each is free: a calendar, since all of a call is known when it begins.
type staff struct {
	all   []*agent
	limit int
}

func newStaff(n int) *staff {
	s := &staff{limit: n}
	for i := range n {
		s.all = append(s.all, &agent{number: i + 1})
	}
	return s
}

// pick returns the agent who is free soonest at or after at, other than not.
func (s *staff) pick(at int64, not *agent) *agent {
	var best *agent
	for _, a := range s.all {
		if a == not {
			continue
		}
		if a.free <= at {
			return a
		}
		if best == nil || a.free < best.free {
			best = a
		}
	}
	if best == nil || s.limit == 0 {
		best = &agent{number: len(s.all) + 1}
		s.all = append(s.all, best)
	}
	return best
}

// maxNamed bounds the agents that are made because somebody asked for one by name.
const maxNamed = 10_000

// named finds an agent by its user name; nil if there is none.
func (s *staff) named(user string) *agent {
	n, err := strconv.Atoi(strings.TrimPrefix(user, "agent"))
	if err != nil || !strings.HasPrefix(user, "agent") || n < 1 || n > maxNamed {
		return nil
	}
	for s.limit == 0 && len(s.all) < n {
		s.all = append(s.all, &agent{number: len(s.all) + 1})
	}
	if n > len(s.all) {
		return nil
	}
	return s.all[n-1]
}
