package esl

import (
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core"
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
		if cmd != "api strmicroepoch" {
			return false
		}
		p.response(sw.answer("strmicroepoch"))
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
	words := strings.Fields(commands[1])
	if words[0] != "event" || words[1] != "json" {
		t.Fatalf("second command is %q, want the subscription", commands[1])
	}
	custom := slices.Index(words, "CUSTOM")
	for i, w := range words {
		if (i > custom) != strings.Contains(w, "::") {
			t.Errorf("%s stands on the wrong side of CUSTOM in %q", w, commands[1])
		}
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
