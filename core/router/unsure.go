package router

import (
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// maxUnsure bounds the items that a standby keeps since the owner may not have delivered them.
const maxUnsure = 500_000

// unsure is a turn's items that may or may not have been delivered.
type unsure struct {
	turn  uint64
	items []core.Item
}

// unsures are those of all turns that a standby has followed, the oldest first.
type unsures struct {
	turns []unsure
	n     int // items
	lost  drop
	until uint64 // turn of the last lost
}

// set begins with turns, of a checkpoint.
func (u *unsures) set(turns []unsure) {
	*u = unsures{turns: turns}
	for i := range turns {
		u.n += len(turns[i].items)
	}
}

// add notes what a turn made at a time. When there is too much, the oldest is given up.
func (u *unsures) add(turn uint64, items []core.Item, at call.Time) {
	u.turns = append(u.turns, unsure{turn, items})
	for u.n += len(items); u.n > maxUnsure && len(u.turns) > 1; {
		if u.lost.n == 0 {
			u.lost.from = at
		}
		u.lost.n += len(u.turns[0].items)
		u.lost.to, u.until = at, u.turns[0].turn
		u.pop()
	}
}

func (u *unsures) pop() {
	u.n -= len(u.turns[0].items)
	u.turns[0] = unsure{}
	u.turns = u.turns[1:]
}

// delivered forgets what was delivered: all up to a turn.
func (u *unsures) delivered(turn uint64) {
	for len(u.turns) > 0 && u.turns[0].turn <= turn {
		u.pop()
	}
	if u.until <= turn {
		u.lost = drop{}
	}
}

// take returns the items, and how many are not there any more, and begins anew.
func (u *unsures) take() (items []core.Item, lost drop) {
	for i := range u.turns {
		items = append(items, u.turns[i].items...)
	}
	lost = u.lost
	*u = unsures{}
	return items, lost
}
