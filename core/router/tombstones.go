package router

import (
	"time"

	"github.com/google/uuid"

	"github.com/ctigate/ctigate/core/call"
)

// tombstones is the bounded list of ended calls that wait for their tombstone: 24 bytes each, oldest first, all with
// the same delay.
type tombstones struct {
	after time.Duration // negative: never
	max   int
	ring  []tomb
	head  int
	n     int
}

type tomb struct {
	id   [16]byte // call ids are UUIDs
	due  uint32   // seconds since the Unix epoch, rounded up
	link uint16
}

// add schedules callID's tombstone. When the list is full, the oldest call makes room and is returned for an early one.
func (t *tombstones) add(callID string, link uint16, now call.Time) (early string, of uint16, full bool) {
	id, err := uuid.Parse(callID)
	if t.after < 0 || err != nil {
		return "", 0, false
	}
	if t.n == t.max {
		early, of = t.pop()
		full = true
	}
	due := now + call.Time(t.after.Microseconds()) + call.Second - 1
	t.put(tomb{id: id, due: uint32(due / call.Second), link: link})
	return early, of, full
}

// put appends x, if there is room.
func (t *tombstones) put(x tomb) {
	if t.n == t.max {
		return
	}
	if t.n == len(t.ring) {
		t.grow()
	}
	t.ring[(t.head+t.n)%len(t.ring)] = x
	t.n++
}

func (t *tombstones) grow() {
	bigger := make([]tomb, min(max(64, 2*len(t.ring)), t.max))
	for i := range t.n {
		bigger[i] = t.ring[(t.head+i)%len(t.ring)]
	}
	t.ring, t.head = bigger, 0
}

func (t *tombstones) pop() (callID string, link uint16) {
	x := t.ring[t.head]
	t.head = (t.head + 1) % len(t.ring)
	t.n--
	return uuid.UUID(x.id).String(), x.link
}

// due calls f for every call whose time has come.
func (t *tombstones) due(now call.Time, f func(callID string, link uint16)) {
	for t.n > 0 && call.Time(t.ring[t.head].due)*call.Second <= now {
		f(t.pop())
	}
}
