package router

import (
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// What is not in the log is remembered up to a bound, and what has no room is counted.
func TestUnloggedIsBounded(t *testing.T) {
	var u unlogged
	l := &link{}
	turn := func(nth uint64) inputs {
		return inputs{turn: nth, msgs: []message{{kind: msgFrame, link: l, at: call.Time(nth), raw: make([]byte, 4096), obs: make([]call.Observation, 40_000)}}}
	}
	for nth := range uint64(30) {
		u.add(turn(1+nth), 5)
	}
	if u.bytes > maxUnlogged || len(u.turns) == 0 || u.turns[len(u.turns)-1].turn != 30 || u.turns[0].msgs[0].raw != nil {
		t.Errorf("%d bytes of %d turns", u.bytes, len(u.turns))
	}
	if d := u.lost[l]; d == nil || d.from != 1 && d.from != 6 || uint64(d.to) != u.until || u.until+1 != u.turns[0].turn {
		t.Errorf("lost %+v, until turn %d", d, u.until)
	}
	u.add(inputs{turn: 31}, 30)
	if len(u.turns) != 1 || u.bytes != 0 {
		t.Errorf("%d turns, %d bytes, when all is logged", len(u.turns), u.bytes)
	}
}

// What may not have been delivered is kept up to a bound, and what has no room is counted, until it is known to be delivered.
func TestUnsureIsBounded(t *testing.T) {
	var u unsures
	for nth := range uint64(6) {
		u.add(1+nth, make([]core.Item, maxUnsure/4), call.Time(nth))
	}
	if u.n != maxUnsure || len(u.turns) != 4 || u.lost.n != maxUnsure/2 || u.until != 2 || u.lost.from != 0 || u.lost.to != 1 {
		t.Errorf("%d items of %d turns, lost %+v until %d", u.n, len(u.turns), u.lost, u.until)
	}
	if u.delivered(1); u.lost.n == 0 {
		t.Error("turn 2 was lost and is not delivered")
	}
	u.delivered(3)
	parts, lost := u.take()
	n := 0
	for _, p := range parts {
		n += len(p)
		if size := itemsSize(p); size > unsurePart {
			t.Errorf("a part of %d bytes", size)
		}
	}
	if lost.n != 0 || n != 3*maxUnsure/4 || u.n != 0 || u.bytes != 0 {
		t.Errorf("%d items, lost %+v, %+v", n, lost, u)
	}
}

// Frames that are passed through may be large.
func TestUnsureIsBoundedInBytes(t *testing.T) {
	var u unsures
	raw := core.Item{Stream: core.StreamRaw, Dead: &core.DeadLetter{Raw: make([]byte, maxUnsureBytes/10)}}
	for nth := range uint64(12) {
		u.add(1+nth, []core.Item{raw}, call.Time(nth))
		u.add(100, nil, 0) // it made nothing
	}
	if len(u.turns) != 9 || u.bytes > maxUnsureBytes || u.lost.n != 3 || u.until != 3 {
		t.Errorf("%d turns, %d bytes, lost %+v until %d", len(u.turns), u.bytes, u.lost, u.until)
	}
}
