package sim

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

var firstNames = []string{"Ada", "Agnes", "Amir", "Beatriz", "Ben", "Carla", "Chen", "Dana", "Emil", "Fatima", "Grace", "Hugo", "Ines", "Jonas",
	"Keiko", "Lena", "Marco", "Nadia", "Omar", "Priya", "Quinn", "Rosa", "Sam", "Tariq", "Uma", "Viktor", "Wanda", "Ximena", "Yusuf", "Zoe"}

var lastNames = []string{"Adams", "Berg", "Costa", "Dubois", "Evans", "Fischer", "Garcia", "Haddad", "Ito", "Jensen", "Khan", "Lopez", "Meyer",
	"Novak", "Okafor", "Patel", "Reyes", "Silva", "Tanaka", "Ueda", "Vargas", "Weber", "Young", "Zhang"}

var areaCodes = []string{"201", "206", "212", "215", "303", "305", "312", "404", "415", "503", "512", "602", "617", "702", "713", "801", "808", "916"}

// callerNumber is a fictional number without its +: North American 555-01xx, or a United Kingdom drama number.
func callerNumber(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return "447700900" + pad(r.IntN(1000), 3)
	}
	return "1" + areaCodes[r.IntN(len(areaCodes))] + "55501" + pad(1+r.IntN(99), 2)
}

func callerName(r *rand.Rand) string {
	n := firstNames[r.IntN(len(firstNames))]
	if r.IntN(3) == 0 {
		return n
	}
	return n + " " + lastNames[r.IntN(len(lastNames))]
}

func pad(n, width int) string {
	s := strconv.Itoa(n)
	for len(s) < width {
		s = "0" + s
	}
	return s
}

// agent is one member of the staff. Its calls never overlap unless they have to.
type agent struct {
	number int   // from 1
	free   int64 // from when on it is free, scripted microseconds
	taken  int
	last   int64 // when its last call ended
}

func (a *agent) user() string { return "agent" + strconv.Itoa(a.number) }

func (a *agent) display() string {
	return firstNames[(a.number*7)%len(firstNames)] + " " + lastNames[(a.number*5)%len(lastNames)]
}

// ext is the agent's extension: 1001 for agent1.
func (a *agent) ext() string {
	if a.number < 1000 {
		return "1" + pad(a.number, 3)
	}
	return "1" + pad(a.number, 6)
}

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
