package live

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	linger   = 3 * time.Second // how long an ended call stays in sight
	maxCalls = 100_000         // kept at once; what is beyond is counted only
)

// Table keeps the calls in progress. It is a core.Sink; its methods may be called from any goroutine.
type Table struct {
	now func() time.Time

	mu      sync.Mutex
	calls   map[string]*row
	order   []string // ids, oldest first; those no longer in calls are skipped
	slots   []string // call id by visible line, so that a call stays on its line
	gone    []string // ids of ended calls still in sight, in the order of their ends
	active  int
	ended   uint64
	missed  uint64 // calls not kept because of maxCalls
	events  uint64
	samples []sample // recent event counts, for the rate
	audible bool     // some call's audio has been measured
}

type row struct {
	call    *call.Call
	offset  float64   // switch clock minus ours, ms
	lag     float64   // of the last event, ms
	first   time.Time // when we first saw it
	endedAt time.Time
	onLine  bool
	heard   []hearing
}

type sample struct {
	at     time.Time
	events uint64
}

// NewTable makes an empty table that reads the time from now.
func NewTable(now func() time.Time) *Table {
	return &Table{now: now, calls: map[string]*row{}}
}

// Write takes note of a batch.
func (t *Table) Write(_ context.Context, batch []core.Item) error {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range batch {
		if batch[i].Stream == core.StreamEvents && batch[i].Event != nil {
			t.see(batch[i].Event, now)
		}
	}
	return nil
}

// See takes note of one event. It is quick enough for the router's own goroutine.
func (t *Table) See(e *call.Event) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.see(e, now)
}

// Close does nothing: the last picture stays available.
func (t *Table) Close(context.Context) error { return nil }

func (t *Table) see(e *call.Event, now time.Time) {
	t.events++
	if e.Call == nil {
		return
	}
	r := t.calls[e.CallID]
	if r == nil {
		if e.Call.State == call.StateEnded { // its last word, or something that came too late
			if e.Type == call.CallEnded {
				t.ended++
			}
			return
		}
		if len(t.calls) >= maxCalls {
			t.missed++
			return
		}
		r = &row{first: now}
		t.calls[e.CallID] = r
		t.order = append(t.order, e.CallID)
		t.active++
	}
	r.call = e.Call
	if e.Type == call.MediaQuality && e.Quality != nil { // made at an interval's end: its age is no lag
		t.audible = true
		r.hear(e)
	} else {
		r.offset, r.lag = e.Time.OffsetMS, e.Time.AgeMS
	}
	over := e.Call.State == call.StateEnded || e.Type == call.CallMerged
	if over && r.endedAt.IsZero() {
		r.endedAt = now
		t.ended++
		t.active--
		t.gone = append(t.gone, e.CallID)
	}
}

// Counts returns the calls in progress, the calls that ended, and the events seen.
func (t *Table) Counts() (active int, ended, events uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active, t.ended, t.events
}

// sweep forgets calls that ended a while ago.
func (t *Table) sweep(now time.Time) {
	n := 0
	for _, id := range t.gone {
		if now.Sub(t.calls[id].endedAt) <= linger {
			break
		}
		delete(t.calls, id)
		n++
	}
	t.gone = t.gone[n:]
	if len(t.order) > 64 && len(t.order) > 2*len(t.calls) {
		t.order = slices.DeleteFunc(t.order, func(id string) bool { return t.calls[id] == nil })
	}
}

// visible returns the calls for n lines, nil for an empty one. A call keeps its line until it is swept.
func (t *Table) visible(n int) []*row {
	for _, id := range t.slots {
		if r := t.calls[id]; r != nil {
			r.onLine = false
		}
	}
	t.slots = append(t.slots, make([]string, max(0, n-len(t.slots)))...)[:n]
	rows := make([]*row, n)
	free := 0
	for i, id := range t.slots {
		if r := t.calls[id]; r != nil {
			rows[i], r.onLine = r, true
			continue
		}
		t.slots[i] = ""
		free++
	}
	waiting := t.waiting(free)
	for i := range rows {
		if rows[i] == nil && len(waiting) > 0 {
			id := waiting[0]
			waiting = waiting[1:]
			t.slots[i], rows[i] = id, t.calls[id]
			rows[i].onLine = true
		}
	}
	return compact(rows, t.slots, n)
}

// compact drops empty lines at the end.
func compact(rows []*row, slots []string, n int) []*row {
	for n > 0 && rows[n-1] == nil {
		n--
		slots[n] = ""
	}
	return rows[:n]
}

// waiting returns up to n calls in progress that have no line, oldest first.
func (t *Table) waiting(n int) []string {
	var ids []string
	for _, id := range t.order {
		if len(ids) == n {
			break
		}
		if r := t.calls[id]; r != nil && !r.onLine && r.endedAt.IsZero() {
			ids = append(ids, id)
		}
	}
	return ids
}

// rate returns events per second over the last two seconds or so.
func (t *Table) rate(now time.Time, events uint64) float64 {
	t.samples = append(t.samples, sample{now, events})
	for len(t.samples) > 2 && now.Sub(t.samples[0].at) > 2*time.Second {
		t.samples = t.samples[1:]
	}
	first := t.samples[0]
	if dt := now.Sub(first.at).Seconds(); dt > 0 && events >= first.events {
		return float64(events-first.events) / dt
	}
	return 0
}
