package alarm

import (
	"slices"
	"testing"
	"time"
)

func TestAlarmsRingInOrder(t *testing.T) {
	var a Alarms
	var rung []int
	at := func(i int) time.Time { return time.Unix(int64(i), 0) }
	set := func(i int) *Alarm { return a.Set(at(i), func(time.Time) { rung = append(rung, i) }) }
	five, _, three := set(5), set(1), set(3)
	set(2)
	a.Stop(three)
	a.Stop(three)
	a.Stop(nil)
	for a.Ring(at(4)) {
	}
	if next, ok := a.Next(); !slices.Equal(rung, []int{1, 2}) || !ok || !next.Equal(at(5)) {
		t.Errorf("rung %v, next at %v %v", rung, next, ok)
	}
	a.Stop(five)
	if _, ok := a.Next(); ok || a.Ring(at(9)) {
		t.Error("something is left")
	}
}
