package router

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pauses
		began := time.Now()
		if p.look(began); p.lately() != 0 {
			t.Error("a pause at the beginning")
		}
		time.Sleep(pauseMin / 2)
		if p.lately() != 0 {
			t.Error("a busy machine is no pause")
		}
		before := time.Now()
		time.Sleep(3 * time.Second) // nobody looks
		if got := p.lately(); got != call.At(before) {
			t.Errorf("%v, not since %v", got, before)
		}
		time.Sleep(pauseMin / 2)
		if got := p.lately(); got != call.At(before) {
			t.Errorf("%v a little later, not since %v", got, before)
		}
		for range 30 {
			time.Sleep(pauseLook)
			p.look(time.Now())
		}
		if got := p.lately(); got != 0 {
			t.Errorf("%v long after", got)
		}
	})
}

// A link is lost just after the process had stood still: from then on nothing is sure, whatever was read since.
func TestGapReachesBackToAPause(t *testing.T) {
	st := linkState{up: true, heard: 5000}
	lost := func(from call.Time) { st.lost(&message{from: from, now: 6000}) }
	if lost(0); st.heard != 5000 {
		t.Errorf("without a pause heard is %v", st.heard)
	}
	if lost(3000); st.heard != 3000 {
		t.Errorf("heard is %v", st.heard)
	}
	if lost(4000); st.heard != 3000 {
		t.Errorf("heard went on to %v", st.heard)
	}
}
