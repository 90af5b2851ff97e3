package call

import "unicode/utf8"

// Longest strings that are taken from a switch, in bytes: every event carries the call, so what is in a call is bounded.
const (
	maxNumber = 128
	maxName   = 256
	maxValue  = 4096
)

// clip cuts o's strings to their longest.
func (o *Observation) clip() {
	for _, s := range [...]*string{&o.Number, &o.Dialed, &o.User, &o.Evidence, &o.Queue, &o.Agent, &o.Conference, &o.Reason} {
		cut(s, maxNumber)
	}
	cut(&o.Name, maxName)
	cut(&o.SIPCallID, maxName) // a longer one is cut: that two share so much by chance is not to be feared
	cut(&o.Correlation, maxName)
	cut(&o.Device, maxName)
	cut(&o.Value, maxValue)
}

// cut shortens s to at most n bytes of whole characters.
func cut(s *string, n int) {
	if len(*s) <= n {
		return
	}
	for n > 0 && !utf8.RuneStart((*s)[n]) {
		n--
	}
	*s = (*s)[:n]
}

// spentIDs remembers call ids that were used, the newest of them, so that none is used again.
type spentIDs struct {
	max  int
	ids  map[string]struct{}
	list []string
	next int
}

func newSpentIDs(limit int) spentIDs {
	return spentIDs{max: limit, ids: map[string]struct{}{}}
}

func (s *spentIDs) has(id string) bool {
	_, ok := s.ids[id]
	return ok
}

func (s *spentIDs) add(id string) {
	if s.has(id) {
		return
	}
	if len(s.list) < s.max {
		s.list = append(s.list, id)
	} else {
		delete(s.ids, s.list[s.next])
		s.list[s.next] = id
		s.next = (s.next + 1) % s.max
	}
	s.ids[id] = struct{}{}
}
