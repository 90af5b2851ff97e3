package esl

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestSessionHandsOverEventsInOrder(t *testing.T) {
	frames := recording(t, "freeswitch", "inbound_answered_caller_hangup")
	sw := newFakeSwitch(t)
	sw.after = func(p *peer) {
		for _, f := range frames[:10] { // before the snapshot is taken
			p.write(f.wire())
		}
	}
	sw.onCommand = func(p *peer, cmd string) bool {
		if cmd != "bgapi hostname" {
			return false
		}
		p.reply(cmd, "")
		for _, f := range frames[10:] {
			p.write(f.wire())
		}
		return true
	}
	r := run(t, testConfig(sw.listen()))
	inst := r.next(t, "up").inst
	if inst.Kind != "freeswitch" || inst.ID != testCore || inst.Version != "1.10.12-release+git~20240802T210227Z~a88d069d6f~64bit" {
		t.Errorf("instance %+v", inst)
	}
	if want := []string{"fifo queue events: mod_fifo is not loaded"}; !slices.Equal(inst.Missing, want) {
		t.Errorf("missing %q, want %q", inst.Missing, want)
	}
	if f := r.next(t, "frame").frame; f.Type != "snapshot" {
		t.Fatalf("first frame is %s, want the snapshot", f.Type)
	}
	for i, want := range frames {
		got := r.next(t, "frame").frame
		if string(got.Raw) != want.Body {
			t.Fatalf("frame %d is %.80q, want %.80q", i, got.Raw, want.Body)
		}
		if got.Received.IsZero() {
			t.Fatalf("frame %d has no time of receipt", i)
		}
	}
	r.stop()
	if err := r.ends(t); err != nil {
		t.Errorf("stopped session gave %v", err)
	}
	checkSubscription(t, sw.commands())
}

// checkSubscription holds that the events are asked for before anything else, and CUSTOM's subclasses last.
func checkSubscription(t *testing.T, commands []string) {
	t.Helper()
	words := strings.Fields(commands[2])
	if words[0] != "event" || words[1] != "json" {
		t.Fatalf("third command is %q, want the subscription", commands[2])
	}
	custom := slices.Index(words, "CUSTOM")
	for i, w := range words {
		if (i > custom) != strings.Contains(w, "::") {
			t.Errorf("%s stands on the wrong side of CUSTOM in %q", w, commands[2])
		}
	}
}

// TestSubscriptionIsWhatTheNormalizerReads holds that nothing the model needs is left out, and nothing else is asked for.
func TestSubscriptionIsWhatTheNormalizerReads(t *testing.T) {
	own := []string{"HEARTBEAT", "BACKGROUND_JOB"} // the session's own
	for name := range wanted {
		if !slices.Contains(subscribed, name) {
			t.Errorf("%s is not subscribed to", name)
		}
	}
	for _, name := range subscribed {
		if !want(name) && !slices.Contains(own, name) && !strings.Contains(name, "::") {
			t.Errorf("%s is subscribed to for nothing", name)
		}
	}
	n := newNormalizer(options{}, quietly)
	for _, scenario := range []string{"queue_answered", "conference", "hold_retrieve", "agent_states", "attended_transfer"} {
		for _, f := range recording(t, "freeswitch", scenario) {
			got, err := n.event([]byte(f.Body), true, 1)
			if err != nil {
				t.Fatal(err)
			}
			subclass := string(headerOf([]byte(f.Body), true, "Event-Subclass"))
			if len(got.Observations) > 0 && subclass != "" && !slices.Contains(subscribed, subclass) {
				t.Errorf("%s is not subscribed to", subclass)
			}
		}
	}
}

func TestBadEventInAGoodFrameIsADeadLetter(t *testing.T) {
	for _, bad := range []string{`{"Event-Name":"DTMF",`, `not json`, `[]`, "\xff\xfe", ``} {
		t.Run(bad, func(t *testing.T) {
			sw := newFakeSwitch(t)
			sw.afterStart(func(p *peer) {
				p.event(bad)
				p.event(event1("DTMF", 2))
			})
			r := run(t, testConfig(sw.listen()))
			r.next(t, "up")
			r.next(t, "frame")
			if d := r.next(t, "dead").dead; string(d.Raw) != bad || !strings.Contains(d.Reason, "reading event: ") || d.Received.IsZero() {
				t.Errorf("dead letter %+v", d)
			}
			if f := r.next(t, "frame").frame; f.Type != "DTMF" {
				t.Errorf("the event after it is %+v", f)
			}
		})
	}
}

func TestWrongPasswordIsPermanentAndSaysWhatToDo(t *testing.T) {
	sw := newFakeSwitch(t)
	cfg := testConfig(sw.listen())
	cfg.Password = core.NewSecret("wr0ng-one")
	err := run(t, cfg).ends(t)
	if !core.IsPermanent(err) || !strings.Contains(err.Error(), "event_socket.conf") {
		t.Errorf("got %v, want a permanent error that names event_socket.conf", err)
	}
	if strings.Contains(err.Error(), "wr0ng-one") {
		t.Errorf("the error shows the password: %v", err)
	}
}

func TestRefusedAddressIsPermanentAndSaysWhatToDo(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.greeting = "Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
	err := run(t, testConfig(sw.listen())).ends(t)
	if !core.IsPermanent(err) || !strings.Contains(err.Error(), "apply-inbound-acl") || !strings.Contains(err.Error(), "acl.conf") {
		t.Errorf("got %v, want a permanent error that names apply-inbound-acl and acl.conf", err)
	}
}

func TestUnreachableSwitchIsRetried(t *testing.T) {
	cfg := testConfig("127.0.0.1:1") // tcpmux: nobody listens
	err := run(t, cfg).ends(t)
	if err == nil || core.IsPermanent(err) || !strings.Contains(err.Error(), "connecting to the event socket 127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}

func TestMissingSecretIsPermanent(t *testing.T) {
	cfg := testConfig(newFakeSwitch(t).listen())
	cfg.Password = core.Secret{File: t.TempDir() + "/none"}
	if err := run(t, cfg).ends(t); !core.IsPermanent(err) {
		t.Errorf("got %v", err)
	}
}

// afterStart makes the switch send something when the gateway's last question before it is up has been answered: about
// calls, or about channels when those cannot be listed.
func (f *fakeSwitch) afterStart(send func(p *peer)) {
	once := false
	f.onCommand = func(p *peer, cmd string) bool {
		question := strings.TrimPrefix(cmd, "api ")
		unlisted := strings.HasPrefix(f.answer("show channels as json"), "-ERR") && question == "show channels as json"
		if once || cmd != "bgapi hostname" && !unlisted {
			return false
		}
		once = true
		if unlisted {
			p.response(f.answer(question))
		} else {
			p.reply(cmd, "")
		}
		send(p)
		return true
	}
}

func TestWhatIsNotUnderstoodBecomesADeadLetter(t *testing.T) {
	tests := []struct {
		name, wire, raw, reason string
		ends                    string // what the session's error says; empty when it goes on
	}{
		{"negative length", "Content-Length: -5\nContent-Type: text/event-json\n\n{}", "Content-Length: -5\n", `Content-Length "-5"`, `Content-Length "-5"`},
		{"huge length", "Content-Length: 9999999999999\n\n", "Content-Length: 9999999999999\n", "over the limit", "over the limit"},
		{"header flood", strings.Repeat("X-Flood: 1\n", 1000), "X-Flood: 1\n", "more than 256 headers", "more than 256 headers"},
		{"headers without end", strings.Repeat("x", 100<<10), "xxx", "headers longer than 65536", "headers longer than 65536"},
		{"no colon", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\n", "no name and colon", "no name and colon"},
		{"unknown frame", "Content-Type: text/odd\nContent-Length: 2\n\nhi", "Content-Type: text/odd\nContent-Length: 2\n\nhi", `"text/odd" is not known`, ""},
		{"xml", "Content-Type: text/event-xml\nContent-Length: 7\n\n<event>", "Content-Type: text/event-xml\n", `"text/event-xml" is not known`, ""},
		{"ten megabytes", "Content-Length: 10485760\nContent-Type: text/event-json\n\n" + strings.Repeat("y", 10<<20), "Content-Length: 10485760\nContent-Type: text/event-json\n\nyyy", "over the limit of 4194304", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sw := newFakeSwitch(t)
			sw.afterStart(func(p *peer) {
				p.event(event1("DTMF", 1))
				p.write(tt.wire)
				p.event(event1("DTMF", 2))
			})
			r := run(t, testConfig(sw.listen()))
			r.next(t, "up")
			r.next(t, "frame") // the snapshot
			r.next(t, "frame") // what came before is not lost
			d := r.next(t, "dead").dead
			if !strings.HasPrefix(string(d.Raw), tt.raw) || !strings.Contains(d.Reason, tt.reason) || d.Received.IsZero() {
				t.Errorf("dead letter %.100q, %q", d.Raw, d.Reason)
			}
			if tt.ends == "" {
				if f := r.next(t, "frame").frame; string(f.Raw) != event1("DTMF", 2) {
					t.Errorf("the event after it is %.100q", f.Raw)
				}
				return
			}
			if err := r.ends(t); err == nil || core.IsPermanent(err) || !strings.Contains(err.Error(), tt.ends) {
				t.Errorf("the session ended with %v", err)
			}
		})
	}
}

func TestLinkThatBreaksInsideAFrame(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.afterStart(func(p *peer) {
		p.event(event1("DTMF", 1))
		p.write("Content-Length: 100\nContent-Type: text/event-json\n\n{\"Event-Name\"")
		_ = p.Close()
	})
	r := run(t, testConfig(sw.listen()))
	r.next(t, "up")
	r.next(t, "frame")
	r.next(t, "frame")
	if d := r.next(t, "dead").dead; !strings.HasSuffix(string(d.Raw), `{"Event-Name"`) {
		t.Errorf("dead letter %+v", d)
	}
	if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "inside a frame") {
		t.Errorf("got %v", err)
	}
}

func TestDisconnectNotice(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.afterStart(func(p *peer) {
		p.write("Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n")
		p.write("Content-Type: log/data\nContent-Length: 3\n\nlog")
		p.write("Content-Type: text/disconnect-notice\nContent-Length: 39\n\nkilled listener because of lost events\n")
	})
	r := run(t, testConfig(sw.listen()))
	if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "killed listener because of lost events") {
		t.Errorf("got %v", err)
	}
	if r.counted("log_frames") != 1 {
		t.Errorf("counted %d log frames", r.counted("log_frames"))
	}
}

func TestAnotherProcessBehindTheLinkEndsTheSession(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.afterStart(func(p *peer) {
		p.event(strings.Replace(event1("DTMF", 1), testCore, "00000000-02df-4902-a4c3-17c2275ab1a2", 1))
	})
	r := run(t, testConfig(sw.listen()))
	r.next(t, "up")
	r.next(t, "frame")
	if g := r.next(t, "gap").gap; !strings.Contains(g, "Core-UUID changed") {
		t.Errorf("gap %q", g)
	}
	if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "Core-UUID changed") {
		t.Errorf("got %v", err)
	}
}

func TestPlainFormat(t *testing.T) {
	frames := recording(t, "freeswitch-plain", "queue_answered")
	sw := newFakeSwitch(t)
	sw.afterStart(func(p *peer) {
		for _, f := range frames {
			p.write(f.wire())
		}
	})
	cfg := testConfig(sw.listen())
	cfg.Format = FormatPlain
	r := run(t, cfg)
	r.next(t, "up")
	r.next(t, "frame")
	for i, want := range frames {
		if got := r.next(t, "frame").frame; string(got.Raw) != want.Body {
			t.Fatalf("frame %d is %.80q", i, got.Raw)
		}
	}
	if c := sw.commands()[2]; !strings.HasPrefix(c, "event plain CHANNEL_CREATE ") {
		t.Errorf("subscribed with %q", c)
	}
}

func TestSessionsFollowEachOther(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.afterStart(func(p *peer) { _ = p.Close() })
	r := run(t, testConfig(sw.listen()))
	r.next(t, "up")
	if err := r.ends(t); err == nil {
		t.Fatal("no error")
	}
	second := runAdapter(t, r.a, 100, r.patience)
	second.next(t, "up")
	second.next(t, "frame")
	second.stop()
	if err := second.ends(t); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestLastWordsAreReadAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newConn(brokenWriter{ours}, testConfig("fs"), quietly)
		if _, err := c.start("api status"); err == nil {
			t.Fatal("the write did not fail")
		}
		go func() {
			_, _ = theirs.Write([]byte("Content-Type: text/disconnect-notice\nContent-Length: 7\n\ngoodbye"))
		}()
		<-c.done
		if err := c.cause(); err == nil || !strings.Contains(err.Error(), "goodbye") {
			t.Errorf("the link ended with %v", err)
		}
		ours, _ = net.Pipe() // a switch with no last words
		c = newConn(brokenWriter{ours}, testConfig("fs"), quietly)
		_, err := c.start("api status")
		if err == nil {
			t.Fatal("the write did not fail")
		}
		<-c.done
		if !errors.Is(c.cause(), syscall.EPIPE) {
			t.Errorf("the link ended with %v", c.cause())
		}
	})
}

// brokenWriter is a connection that can be read only.
type brokenWriter struct{ net.Conn }

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// sink is an Emitter that only counts frames.
type sink struct {
	recorder
	want int
	all  chan struct{} // closed at frame number want
}

func (s *sink) Frame(core.Frame) error {
	if s.want--; s.want == 0 {
		close(s.all)
	}
	return nil
}
func (s *sink) Up(core.Instance) error       { return nil }
func (s *sink) Clock(core.ClockSample) error { return nil }
func (s *sink) Gap(string, call.Time) error  { return nil }

// BenchmarkSession is the way of an event from a loopback socket to the router's door, with its observations.
func BenchmarkSession(b *testing.B) {
	var wire []string
	for _, f := range recording(b, "freeswitch", "twenty_overlapping_calls") {
		if slices.Contains(subscribed, string(headerOf([]byte(f.Body), true, "Event-Name"))) {
			wire = append(wire, f.wire())
		}
	}
	all := strings.Join(wire, "")
	send := make(chan struct{})
	sw := newFakeSwitch(b)
	sw.afterStart(func(p *peer) {
		<-send
		for sent := 0; sent < b.N; sent += len(wire) {
			p.write(all)
		}
	})
	cfg := testConfig(sw.listen())
	a := newAdapter("fs1", cfg, core.Env{})
	ctx, stop := context.WithCancel(b.Context())
	s := &sink{want: b.N, all: make(chan struct{}), recorder: recorder{count: map[string]int{}}}
	done := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { done <- a.Run(ctx, s) }()
	close(send)
	<-s.all
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	stop()
	<-done
}
