package ari

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
)

// gated is an Emitter that takes no event before gate is closed, as the router while its queue is full, and then takes
// all but those after number most.
type gated struct {
	*recorder
	gate    chan struct{}
	held    chan struct{} // closed at the first event
	most    int
	refused int
}

func newGated(most int) *gated {
	return &gated{recorder: newRecorder(), gate: make(chan struct{}), held: make(chan struct{}), most: most}
}

func (g *gated) Frame(f core.Frame) error {
	if f.Type == "snapshot" {
		return g.recorder.Frame(f)
	}
	select {
	case <-g.held:
	default:
		close(g.held)
	}
	<-g.gate
	if len(g.raws("NobodyKnowsThis")) >= g.most {
		g.refused++
		return errors.New("the queue is closed")
	}
	return g.recorder.Frame(f)
}

// stopped has sent events read, with room for so many in the session's queue, stops the session, and opens the gate.
func stopped(t *testing.T, g *gated, sent, room int) {
	t.Helper()
	f := newFakeSwitch(t, httptest.NewServer)
	f.events = func(p *peer) {
		go p.listen(true)
		for i := range sent {
			p.text(fmt.Sprintf(`{"type":"NobodyKnowsThis","n":%d}`, i))
		}
		<-p.ended
	}
	cfg := testConfig(f.server.URL)
	cfg.Queue = room
	a := open(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, g) }()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(patience)
	defer tick.Stop()
	<-g.held
	for a.QueueDepth() < min(sent-1, room) { // one is in the emitter
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d events wait", a.QueueDepth())
		}
	}
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
}

func TestWhatWasReadBeforeTheStopIsHandedOver(t *testing.T) {
	for _, room := range []int{8192, 100} { // with room for all, and with a reader that waits for room
		g := newGated(1 << 30)
		stopped(t, g, 1000, room)
		got := g.raws("NobodyKnowsThis")
		for i, raw := range got {
			if !strings.Contains(raw, fmt.Sprintf(`"n":%d}`, i)) {
				t.Fatalf("room %d: number %d is %s", room, i, raw)
			}
		}
		if n := len(got); room > 1000 && n != 1000 || n <= room && room < 1000 {
			t.Errorf("room %d: %d of 1000 were handed over", room, n)
		}
	}
}

func TestWhatTheRouterRefusesAtTheStopIsCounted(t *testing.T) {
	g := newGated(300)
	stopped(t, g, 1000, 8192)
	got := len(g.raws("NobodyKnowsThis"))
	if got != 300 || got+g.refused+g.counts[core.CountDropped] != 1000 || g.refused > 2 {
		t.Errorf("%d handed over, %d refused, %d counted", got, g.refused, g.counts[core.CountDropped])
	}
}

// TestWhatIsMissingFollowsTheAMILink loses AMI in a session that had it, and has it come back.
func TestWhatIsMissingFollowsTheAMILink(t *testing.T) {
	drop := make(chan struct{})
	cfg := withAMI(t, func(c net.Conn, r *bufio.Reader) {
		go func() {
			if _, ok := <-drop; ok {
				c.Close()
			}
		}()
		goodAMI(nil)(c, r)
	})
	defer close(drop)
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "up", func() bool { return len(out.ups) == 1 })
	if m := out.ups[0].Missing; len(m) != 0 {
		t.Errorf("missing with AMI: %q", m)
	}
	drop <- struct{}{}
	out.until(t, "loss and return", func() bool { return len(out.missing) >= 2 && len(out.missing[len(out.missing)-1]) == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if m := out.missing[0]; len(m) != 1 || !strings.Contains(m[0], "queue and agent events, until AMI is back") {
		t.Errorf("missing after the loss: %q", m)
	}
}

// TestAMIThatComesLateIsSeen has AMI refuse at first, which Up says.
func TestAMIThatComesLateIsSeen(t *testing.T) {
	refuse := make(chan struct{})
	cfg := withAMI(t, func(c net.Conn, r *bufio.Reader) {
		select {
		case <-refuse:
			goodAMI(nil)(c, r)
		default:
		}
	})
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "up", func() bool { return len(out.ups) == 1 })
	if m := out.ups[0].Missing; len(m) != 1 || !strings.Contains(m[0], "until AMI is back") {
		t.Errorf("missing without AMI: %q", m)
	}
	close(refuse)
	out.until(t, "AMI", func() bool { return len(out.missing) > 0 && len(out.missing[len(out.missing)-1]) == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
