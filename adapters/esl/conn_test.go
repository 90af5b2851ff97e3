package esl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
)

// quietly is a Count for tests that do not look at counters.
func quietly(string, int) {}

// connected is a logged-in conn to sw.
func connected(t *testing.T, sw *fakeSwitch) *conn {
	t.Helper()
	cfg := testConfig(sw.listen())
	c, err := dial(t.Context(), cfg, dialTCP, quietly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	if err := c.login(t.Context(), cfg.Password); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRepliesReachTheirCommands(t *testing.T) {
	sw := newFakeSwitch(t)
	for i := range 50 {
		sw.answers[fmt.Sprintf("echo %d", i)] = fmt.Sprintf("%d", i)
	}
	c := connected(t, sw)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			r, err := c.api(t.Context(), "echo", fmt.Sprint(i))
			if err != nil || r.text != fmt.Sprint(i) {
				t.Errorf("command %d got %q, %v", i, r.text, err)
			}
		})
	}
	all.Wait()
}

func TestAnAbandonedCommandTakesItsReplyWithIt(t *testing.T) {
	sw := newFakeSwitch(t)
	release := make(chan struct{})
	sw.onCommand = func(p *peer, cmd string) bool {
		if cmd == "api slow" {
			<-release
			p.response("slow")
			return true
		}
		return false
	}
	sw.answers["fast"] = "fast"
	c := connected(t, sw)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.api(ctx, "slow", "")
		gone <- err
	}()
	for len(sw.commands()) < 2 { // auth, then slow has arrived
		select {
		case err := <-gone:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(release)
	if r, err := c.api(t.Context(), "fast", ""); err != nil || r.text != "fast" {
		t.Errorf("the next command got %q, %v", r.text, err)
	}
}

func TestBackgroundJobsGetTheirOwnResults(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.answers["a"], sw.answers["b"] = "+OK \"a\"\n", "-ERR USER_BUSY\n"
	c := connected(t, sw)
	// another client's job with an id of its own is none of ours
	if err := c.event(arrival{body: []byte(event1("BACKGROUND_JOB", 1, "Job-UUID", "someone-elses", "_body", "x")), json: true}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if out, err := c.bgapi(t.Context(), "a", ""); err != nil || out != "+OK \"a\"\n" {
				t.Errorf("a gave %q, %v", out, err)
			}
		})
		all.Go(func() {
			var ce *CommandError
			if _, err := c.bgapi(t.Context(), "b", ""); !errors.As(err, &ce) || ce.Text != "USER_BUSY" {
				t.Errorf("b gave %v", err)
			}
		})
	}
	all.Wait()
	if len(c.jobs) != 0 {
		t.Errorf("%d jobs left", len(c.jobs))
	}
}

func TestPlainJobOutput(t *testing.T) {
	for _, f := range []struct {
		body string
		json bool
	}{
		{"Event-Name: BACKGROUND_JOB\nJob-UUID: x\nContent-Length: 4\n\n+OK\n", false},
		{`{"Event-Name":"BACKGROUND_JOB","_body":"+OK\n"}`, true},
	} {
		if out := jobOutput([]byte(f.body), f.json); out != "+OK\n" {
			t.Errorf("got %q of %q", out, f.body)
		}
	}
}

func TestLineBreaksAreRefused(t *testing.T) {
	sw := newFakeSwitch(t)
	c := connected(t, sw)
	for _, bad := range []string{"x\nexit", "x\r", "x\x00"} {
		if _, err := c.api(t.Context(), "echo", bad); !errors.Is(err, ErrLineBreak) {
			t.Errorf("api with %q gave %v", bad, err)
		}
		if _, err := c.bgapi(t.Context(), "echo", bad); !errors.Is(err, ErrLineBreak) {
			t.Errorf("bgapi with %q gave %v", bad, err)
		}
		if err := c.login(t.Context(), core.NewSecret(bad)); !core.IsPermanent(err) {
			t.Errorf("a password %q gave %v", bad, err)
		}
	}
	if got := sw.commands(); len(got) != 1 {
		t.Errorf("sent %q", got)
	}
}

func TestCommandsFailWhenTheLinkEnds(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.onCommand = func(p *peer, cmd string) bool {
		if strings.HasPrefix(cmd, "api") || strings.HasPrefix(cmd, "bgapi") {
			_ = p.Conn.Close()
			return true
		}
		return false
	}
	c := connected(t, sw)
	if _, err := c.api(t.Context(), "status", ""); err == nil {
		t.Error("no error")
	}
	if _, err := c.bgapi(t.Context(), "status", ""); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestUnaskedReplyIsCounted(t *testing.T) {
	sw := newFakeSwitch(t)
	c := connected(t, sw)
	counted := map[string]int{}
	c.count = func(name string, n int) { counted[name] += n }
	c.answer(reply{text: "+OK"})
	if counted["unexpected_replies"] != 1 {
		t.Errorf("counted %v", counted)
	}
}

// piped gives a link in the bubble of synctest: serve plays the switch at the other end.
func piped(t *testing.T, cfg Config, ahead int, serve func(f *fakeSwitch, c net.Conn)) *running {
	sw := newFakeSwitch(t)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the session's own end
	a := newAdapter("fs1", cfg, core.Env{})
	a.open = func(context.Context, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		serving.Go(func() { serve(sw, theirs) })
		return ours, nil
	}
	return runAdapter(t, a, ahead, time.Hour)
}

func TestSilentLinkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := piped(t, testConfig("fs:8021"), 1000, func(f *fakeSwitch, c net.Conn) { f.serve(c) }) // answers, and sends no event
		err := r.ends(t)
		if took := time.Since(began); took < 50*time.Second || took > 60*time.Second {
			t.Errorf("ended after %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "not even HEARTBEAT") {
			t.Errorf("got %v", err)
		}
	})
}

func TestHeartbeatsKeepTheLinkAndTheClockIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := piped(t, testConfig("fs:8021"), 1000, func(f *fakeSwitch, c net.Conn) {
			f.after = func(p *peer) {
				go func() {
					for i := range 10 {
						time.Sleep(20 * time.Second)
						p.event(event1("HEARTBEAT", 20_000*i+1))
					}
					time.Sleep(5 * time.Second)
					_ = c.Close()
				}()
			}
			f.serve(c)
		})
		err := r.ends(t)
		if err == nil || !strings.Contains(err.Error(), "closed the event-socket link") {
			t.Errorf("got %v", err)
		}
		clocks, beats := 0, 0
		for len(r.news) > 0 {
			switch h := <-r.news; {
			case h.what == "clock":
				clocks++
				if h.clock.Switch != 1795351509748907 || h.clock.Sent == 0 || h.clock.Answered < h.clock.Sent {
					t.Errorf("clock %+v", h.clock)
				}
			case h.what == "frame":
				beats++
			case h.what == "gap":
				t.Errorf("gap %s", h.gap)
			}
		}
		if clocks != 22 || beats != 11 {
			t.Errorf("%d clock samples and %d frames in 205 s", clocks, beats)
		}
	})
}

func TestSwitchThatStopsAnsweringEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := piped(t, testConfig("fs:8021"), 1000, func(f *fakeSwitch, c net.Conn) {
			asked := 0
			f.onCommand = func(_ *peer, cmd string) bool {
				if cmd == "api strmicroepoch" {
					asked++
				}
				return cmd == "api strmicroepoch" && asked > 1
			}
			f.serve(c)
		})
		err := r.ends(t)
		if err == nil || !strings.Contains(err.Error(), "has not answered a command for 10s") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOneByteASecondEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		cfg := testConfig("fs:8021")
		cfg.ReadTimeout = 5 * time.Second
		r := piped(t, cfg, 1000, func(_ *fakeSwitch, c net.Conn) {
			for _, b := range []byte("Content-Type: auth/request\n\n") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		err := r.ends(t)
		if err == nil || !strings.Contains(err.Error(), "read_timeout") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestSlowEventEndsTheSessionAndIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := piped(t, testConfig("fs:8021"), 1000, func(f *fakeSwitch, c net.Conn) {
			f.onCommand = func(p *peer, cmd string) bool {
				if cmd != "bgapi hostname" {
					return false
				}
				p.reply(cmd, "")
				for _, b := range []byte("Content-Length: 4\nContent-Type: text/event-json\n\n{}{}") {
					p.write(string(b))
					time.Sleep(time.Second)
				}
				return true
			}
			f.serve(c)
		})
		r.next(t, "up")
		r.next(t, "frame")
		d := r.next(t, "dead").dead
		if !strings.HasPrefix(string(d.Raw), "Content-Le") || !strings.Contains(d.Reason, "not whole after 10s") {
			t.Errorf("dead letter %+v", d)
		}
		if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "read_timeout") {
			t.Errorf("got %v", err)
		}
	})
}

func TestSilentServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := piped(t, testConfig("fs:8021"), 1000, func(_ *fakeSwitch, c net.Conn) {
			_, _ = c.Read(make([]byte, 1)) // until the gateway closes
		})
		if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "really an event socket") {
			t.Errorf("got %v", err)
		}
	})
}

func TestSlowRouterSlowsTheSwitchAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 500
		cfg := testConfig("fs:8021")
		cfg.Queue = 16
		r := piped(t, cfg, 0, func(f *fakeSwitch, c net.Conn) {
			f.after = func(p *peer) {
				go func() {
					for i := range events {
						time.Sleep(10 * time.Millisecond)
						p.event(event1("DTMF", i+1))
					}
				}()
			}
			f.serve(c)
		})
		time.Sleep(5 * time.Minute)
		select {
		case err := <-r.done:
			t.Fatalf("our own slowness ended the link: %v", err)
		default:
		}
		r.next(t, "up")
		r.next(t, "frame")
		for i := range events {
			f := r.next(t, "frame").frame
			if want := event1("DTMF", i+1); string(f.Raw) != want {
				t.Fatalf("event %d is %s", i, f.Raw)
			}
		}
		if r.counted("queue_full") == 0 {
			t.Error("the queue was never full")
		}
	})
}
