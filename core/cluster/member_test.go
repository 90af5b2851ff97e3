package cluster

import (
	"slices"
	"testing"
	"time"
)

func TestTwoMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("gw-a").run()
		within(t, 5*time.Second, "a owns", a.owns(0))
		b := w.start("gw-b").run()
		within(t, 5*time.Second, "b is a member", func() bool { return len(b.Status().Members) == 2 })
		time.Sleep(2 * time.Second)
		if !a.owns(0)() || b.owns(0)() {
			t.Fatal("the unit moved although its owner is alive")
		}
		took := within(t, 5*time.Second, "b owns", func() bool {
			if a.cancel != nil {
				a.cancel()
			}
			return b.owns(0)()
		})
		t.Logf("after a stopped: %s", took)
		<-a.stopped
		if got := a.host.heard(); !slices.Equal(got, []string{"acquire 0", "release 0"}) {
			t.Errorf("host a heard %q", got)
		}
		b.stop()
		if err := w.ledger.overlap(); err != nil {
			t.Error(err)
		}
	})
}
