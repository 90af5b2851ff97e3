package dialoginfo

import (
	"container/heap"
	"time"
)

// timer runs do when it is due.
type timer struct {
	at    time.Time
	do    func()
	index int // in the heap; -1 when it is not set
}

// timers is what is to be done later, the first on top.
type timers []*timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	e := x.(*timer)
	e.index = len(*t)
	*t = append(*t, e)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	old := *t
	e := old[len(old)-1]
	e.index = -1
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return e
}

// set makes do happen at at.
func (t *timers) set(at time.Time, do func()) *timer {
	e := &timer{at: at, do: do}
	heap.Push(t, e)
	return e
}

// stop unsets e, which may be nil or over.
func (t *timers) stop(e *timer) {
	if e != nil && e.index >= 0 {
		heap.Remove(t, e.index)
	}
}

// due takes the first timer that is due at now.
func (t *timers) due(now time.Time) *timer {
	if len(*t) == 0 || (*t)[0].at.After(now) {
		return nil
	}
	return heap.Pop(t).(*timer)
}
