package esl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// gated is an Emitter that takes no frame before gate is closed, as the router while its queue is full, and then takes
// all but those after number most.
type gated struct {
	recorder
	gate    chan struct{}
	held    chan struct{} // closed at the first frame
	most    int
	got     []string
	refused int
	dead    []string
}

func newGated(most int) *gated {
	return &gated{gate: make(chan struct{}), held: make(chan struct{}), most: most, recorder: recorder{count: map[string]int{}}}
}

func (g *gated) Frame(f core.Frame) error {
	if f.Type == "snapshot" {
		return nil
	}
	select {
	case <-g.held:
	default:
		close(g.held)
	}
	<-g.gate
	if len(g.got) >= g.most {
		g.refused++
		return errors.New("the queue is closed")
	}
	g.got = append(g.got, string(f.Raw))
	return nil
}
func (g *gated) DeadLetter(d core.DeadLetter) error {
	g.dead = append(g.dead, d.Reason)
	return nil
}
func (g *gated) Up(core.Instance) error       { return nil }
func (g *gated) Clock(core.ClockSample) error { return nil }
func (g *gated) Gap(string, call.Time) error  { return nil }

// stopped has sent events read, or as many as there is room for, stops the session, and then opens the gate.
func stopped(t *testing.T, g *gated, sent, room int) {
	t.Helper()
	sw := newFakeSwitch(t)
	sw.afterStart(func(p *peer) {
		for i := range sent {
			if i == sent/2 {
				<-g.held // so that the other half waits in the queue
			}
			p.event(event1("CHANNEL_CREATE", 100+i, "Unique-ID", fmt.Sprintf("n-%06d", i)))
		}
	})
	cfg := testConfig(sw.listen())
	cfg.Queue = room
	a := newAdapter("fs1", cfg, core.Env{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, g) }()
	a.waits(t, fmt.Sprintf("n-%06d", sent-1))
	stop()
	select {
	case err := <-done:
		t.Fatalf("Run returned %v while frames wait", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(g.gate)
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(g.dead) > 0 { // the stop cuts a frame in two when the reader waits for room
		t.Errorf("dead letters: %q", g.dead)
	}
}

// waits waits until the event named last is queued, or the reader waits for room.
func (a *Adapter) waits(t *testing.T, last string) {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it is not there")
		}
		a.mu.Lock()
		c := a.live
		a.mu.Unlock()
		if c == nil {
			continue
		}
		c.q.mu.Lock()
		n := len(c.q.items)
		there := n > 0 && strings.Contains(string(c.q.items[n-1].body), last)
		c.q.mu.Unlock()
		if there || c.blocked.Load() {
			return
		}
	}
}

func TestWhatWasReadBeforeTheStopIsHandedOver(t *testing.T) {
	for _, room := range []int{8192, 100} { // with room for all, and with a reader that waits for room
		g := newGated(1 << 30)
		stopped(t, g, 3000, room)
		for i, raw := range g.got {
			if !strings.Contains(raw, fmt.Sprintf("n-%06d", i)) {
				t.Fatalf("room %d: number %d is %s", room, i, raw)
			}
		}
		if n := len(g.got); room > 3000 && n != 3000 || n <= room && room < 3000 {
			t.Errorf("room %d: %d of 3000 were handed over", room, n)
		}
	}
}

func TestWhatTheRouterRefusesAtTheStopIsCounted(t *testing.T) {
	g := newGated(1000)
	stopped(t, g, 3000, 8192)
	if n := len(g.got) + g.refused + g.counted(core.CountDropped); n != 3000 || g.refused != 1 {
		t.Errorf("%d handed over, %d refused, %d counted", len(g.got), g.refused, g.counted(core.CountDropped))
	}
}
