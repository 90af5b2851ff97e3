// Package alarm is what one goroutine is to do later: timers without goroutines or channels of their own.
package alarm

import (
	"container/heap"
	"time"
)

// Alarm is one thing to do at a time.
type Alarm struct {
	at    time.Time
	do    func(now time.Time)
	index int // in the heap, -1 when not in it
}

// Alarms are what is to be done later, earliest first. What is stopped leaves at once. The zero value is ready; it is for
// one goroutine.
type Alarms struct{ heap alarms }

// Set makes do happen at at.
func (a *Alarms) Set(at time.Time, do func(now time.Time)) *Alarm {
	n := &Alarm{at: at, do: do}
	heap.Push(&a.heap, n)
	return n
}

// Stop takes n out; one that has rung, or nil, is left alone.
func (a *Alarms) Stop(n *Alarm) {
	if n != nil && n.index >= 0 {
		heap.Remove(&a.heap, n.index)
	}
}

// Ring does the first thing that is due at now, and reports whether there was one.
func (a *Alarms) Ring(now time.Time) bool {
	if len(a.heap) == 0 || a.heap[0].at.After(now) {
		return false
	}
	heap.Pop(&a.heap).(*Alarm).do(now)
	return true
}

// Len is how many are set.
func (a *Alarms) Len() int { return len(a.heap) }

// Next is when something is due; ok is false when nothing is.
func (a *Alarms) Next() (at time.Time, ok bool) {
	if len(a.heap) == 0 {
		return at, false
	}
	return a.heap[0].at, true
}

type alarms []*Alarm

func (t alarms) Len() int           { return len(t) }
func (t alarms) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t alarms) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is heap's.
func (t *alarms) Push(x any) {
	n := x.(*Alarm)
	n.index = len(*t)
	*t = append(*t, n)
}

// Pop is heap's.
func (t *alarms) Pop() any {
	old := *t
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	n.index = -1
	return n
}
