package router

import (
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// What a standby keeps since the owner may not have delivered it is bounded.
const (
	maxUnsure      = 500_000   // items
	maxUnsureBytes = 256 << 20 // of them, approximately
	unsurePart     = 4 << 20   // likewise, in one turn of a new owner
)

// unsure is a turn's items that may or may not have been delivered.
type unsure struct {
	turn  uint64
	items []core.Item
	at    call.Time // when the turn made them
	bytes int
}

// unsures are those of all turns that a standby has followed, the oldest first.
type unsures struct {
	turns []unsure
	n     int // items
	bytes int
	lost  drop
	until uint64 // turn of the last lost
}

// set begins with turns, of a checkpoint.
func (u *unsures) set(turns []unsure) {
	*u = unsures{}
	for _, t := range turns {
		u.add(t.turn, t.items, t.at)
	}
}

// add notes what a turn made at a time. When there is too much, the oldest is given up.
func (u *unsures) add(turn uint64, items []core.Item, at call.Time) {
	if len(items) == 0 {
		return
	}
	t := unsure{turn, items, at, itemsSize(items)}
	u.turns = append(u.turns, t)
	u.n += len(items)
	for u.bytes += t.bytes; (u.n > maxUnsure || u.bytes > maxUnsureBytes) && len(u.turns) > 1; {
		old := &u.turns[0]
		if u.lost.n == 0 {
			u.lost.from = old.at
		}
		u.lost.n += len(old.items)
		u.lost.to, u.until = old.at, old.turn
		u.pop()
	}
}

func (u *unsures) pop() {
	u.n -= len(u.turns[0].items)
	u.bytes -= u.turns[0].bytes
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

// take returns the items, in parts that a turn has room for, and how many are not there any more, and begins anew.
func (u *unsures) take() (parts [][]core.Item, lost drop) {
	size := 0
	for _, t := range u.turns {
		for i := range t.items {
			n := itemSize(&t.items[i])
			if len(parts) == 0 || size+n > unsurePart {
				parts, size = append(parts, nil), 0
			}
			last := len(parts) - 1
			parts[last] = append(parts[last], t.items[i])
			size += n
		}
	}
	lost = u.lost
	*u = unsures{}
	return parts, lost
}
