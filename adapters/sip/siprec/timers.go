package siprec

import (
	"container/heap"
	"time"
)

// timer is one thing to do at a time.
type timer struct {
	at    time.Time
	do    func(now time.Time)
	index int // in the heap, -1 when not in it
}

// timers are what is to be done later, earliest first. What is stopped leaves at once, so that there are never more than
// live sessions and transactions need.
type timers []*timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is heap's.
func (t *timers) Push(x any) {
	n := x.(*timer)
	n.index = len(*t)
	*t = append(*t, n)
}

// Pop is heap's.
func (t *timers) Pop() any {
	old := *t
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	n.index = -1
	return n
}

func (t *timers) start(at time.Time, do func(now time.Time)) *timer {
	n := &timer{at: at, do: do}
	heap.Push(t, n)
	return n
}

// stop takes a timer out; one that has fired, or nil, is left alone.
func (t *timers) stop(n *timer) {
	if n != nil && n.index >= 0 {
		heap.Remove(t, n.index)
	}
}

// run does what is due.
func (t *timers) run(now time.Time) {
	for len(*t) > 0 && !(*t)[0].at.After(now) {
		heap.Pop(t).(*timer).do(now)
	}
}

// next is when run should be called again; ok is false when nothing waits.
func (t timers) next() (at time.Time, ok bool) {
	if len(t) == 0 {
		return at, false
	}
	return t[0].at, true
}
