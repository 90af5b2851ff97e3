package ari

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	unknownEvent = `{"type":"NobodyKnowsThis","timestamp":"2026-11-23T05:41:57.557+0000","extra":{"a":[1,2]},"application":"ctigate"}`
	queueEvent   = "Event: QueueMemberPause\r\nQueue: support\r\nInterface: PJSIP/agent1\r\nPaused: 1\r\n\r\n"
)

func TestSessionBringsEverythingInOrder(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.events = func(p *peer) {
		go p.listen(true)
		for i := range 50 {
			p.text(fmt.Sprintf(`{"type":"NobodyKnowsThis","n":%d}`, i))
		}
		<-p.ended
	}
	cfg := testConfig(f.server.URL)
	cfg.AMI = &AMI{Username: "gw", Password: core.NewSecret(password), Address: fakeAMI(t, goodAMI(func(a map[string]string, c net.Conn) {
		if a["Action"] == "QueueStatus" {
			c.Write([]byte(queueEvent))
		}
	}))}
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "every frame and clock", func() bool {
		return len(out.raws("NobodyKnowsThis")) == 50 && len(out.raws("QueueMemberPause")) == 1 && len(out.clocks) >= 2
	})
	if err := stop(); err != nil {
		t.Fatalf("Run ended with %v after its context, not nil", err)
	}
	want := core.Instance{Kind: "asterisk", ID: "02:fc:00:00:00:01", Version: "22.10.1"}
	if len(out.ups) != 1 || out.ups[0].ID != want.ID || out.ups[0].Version != want.Version || out.ups[0].Kind != want.Kind || len(out.ups[0].Missing) != 0 {
		t.Errorf("up is %+v", out.ups)
	}
	if !slices.Equal(out.order[:2], []string{"up", "snapshot"}) {
		t.Errorf("order begins %v", out.order[:2])
	}
	for i, raw := range out.raws("NobodyKnowsThis") {
		if want := fmt.Sprintf(`{"type":"NobodyKnowsThis","n":%d}`, i); raw != want {
			t.Fatalf("event %d is %s", i, raw)
		}
	}
	if got := out.raws("QueueMemberPause")[0]; got != queueEvent {
		t.Errorf("AMI bytes are %q", got)
	}
	if got := out.raws("snapshot"); len(got) != 1 || got[0] != `{"channels":[],"bridges":[]}` {
		t.Errorf("snapshot is %q", got)
	}
	if !slices.ContainsFunc(f.seen(), func(s string) bool {
		return strings.HasPrefix(s, "GET /ari/events?app=ctigate&subscribeAll=true ")
	}) {
		t.Errorf("requests: %v", f.seen())
	}
}

func TestClockSamplesClaimNoMoreThanIsKnown(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	cfg := testConfig(f.server.URL)
	cfg.AMI = &AMI{Username: "gw", Password: core.NewSecret(password), Address: fakeAMI(t, goodAMI(nil))}
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "two clock samples", func() bool { return len(out.clocks) >= 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ari := call.At(time.Date(2026, 11, 23, 5, 41, 57, 557_000_000, time.UTC)) + 500
	for _, c := range out.clocks {
		switch c.Switch {
		case ari:
			if c.Answered-c.Sent < call.Millisecond {
				t.Errorf("the ARI interval is %d µs; its clock has whole milliseconds", c.Answered-c.Sent)
			}
		case 1795412518687879:
			if c.Answered < c.Sent {
				t.Errorf("answered before sent: %+v", c)
			}
		default:
			t.Errorf("switch time %s", c.Switch)
		}
	}
}

func TestRefusedUserIsPermanent(t *testing.T) {
	for _, status := range []int{401, 403} {
		f := newFakeSwitch(t, httptest.NewServer)
		f.answer = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true }
		out := newRecorder()
		_, result := start(t, testConfig(f.server.URL), out)
		err := result()
		if !core.IsPermanent(err) || !strings.Contains(err.Error(), `refused user "gw"`) || !strings.Contains(err.Error(), "[gw] in ari.conf") {
			t.Errorf("%d: %v", status, err)
		}
		if strings.Contains(err.Error(), password) {
			t.Error("the password is in the error")
		}
		if len(out.ups) != 0 {
			t.Error("came up")
		}
	}
}

func TestUnreadableFramesBecomeDeadLetters(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.events = func(p *peer) {
		go p.listen(true)
		p.text("{not json")
		p.text("")
		p.text("[]")
		p.frame(0x82, []byte{1, 2, 3})
		p.text(unknownEvent)
		<-p.ended
	}
	out := newRecorder()
	stop, _ := start(t, testConfig(f.server.URL), out)
	out.until(t, "the good event", func() bool { return len(out.raws("NobodyKnowsThis")) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range out.dead {
		got = append(got, string(d.Raw))
		if d.Reason == "" || d.Received == 0 {
			t.Errorf("dead letter without reason or time: %+v", d)
		}
	}
	if want := []string{"{not json", "", "[]", "\x01\x02\x03"}; !slices.Equal(got, want) {
		t.Errorf("dead letters %q, want %q", got, want)
	}
}

func TestHugeFrame(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	huge := append([]byte(`{"type":"Huge","x":"`), bytes.Repeat([]byte("0123456789"), 1<<20)...)
	f.events = func(p *peer) {
		go p.listen(true)
		p.text(unknownEvent)
		p.frame(0x81, huge)
		<-p.ended
	}
	out := newRecorder()
	_, result := start(t, testConfig(f.server.URL), out)
	err := result()
	if err == nil || core.IsPermanent(err) || !strings.Contains(err.Error(), "max_frame_bytes (4194304)") {
		t.Errorf("Run: %v", err)
	}
	if len(out.raws("NobodyKnowsThis")) != 1 {
		t.Error("the event before it was lost")
	}
	if len(out.dead) != 1 || !bytes.Equal(out.dead[0].Raw, huge[:keptBytes]) || !strings.Contains(out.dead[0].Reason, "max_frame_bytes") {
		t.Fatalf("%d dead letters", len(out.dead))
	}
	if !strings.Contains(out.dead[0].Reason, "first 65536 bytes") {
		t.Errorf("reason: %s", out.dead[0].Reason)
	}
}

func TestPeerThatClosesMidFrame(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.events = func(p *peer) {
		for range 100 {
			p.text(unknownEvent)
		}
		p.bytes(append([]byte{0x81, 100}, `{"type":"Cut`...))
	}
	out := newRecorder()
	_, result := start(t, testConfig(f.server.URL), out)
	if err := result(); err == nil || core.IsPermanent(err) {
		t.Errorf("Run: %v", err)
	}
	if n := len(out.raws("NobodyKnowsThis")); n != 100 {
		t.Errorf("%d of 100 events that came before", n)
	}
	if len(out.dead) != 1 || string(out.dead[0].Raw) != `{"type":"Cut` {
		t.Errorf("dead letters: %q", out.dead)
	}
}

func TestSlowOrDeadPeerHitsADeadline(t *testing.T) {
	trickle := func(p *peer, write func() error) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if write() != nil {
				return
			}
		}
	}
	for name, play := range map[string]func(p *peer){
		"one byte of a frame at a time": func(p *peer) {
			go p.listen(true)
			p.bytes([]byte{0x81, 126, 0xff, 0xff})
			trickle(p, func() error { return p.bytes([]byte("x")) })
			<-p.ended
		},
		"one byte a fragment, pings answered": func(p *peer) {
			go p.listen(true)
			p.frame(0x01, []byte("{"))
			trickle(p, func() error { return p.frame(0x00, []byte("x")) })
			<-p.ended
		},
		"half a header": func(p *peer) { p.bytes([]byte{0x81}); p.listen(false) },
		"no pong":       func(p *peer) { p.listen(false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeSwitch(t, httptest.NewServer)
			f.events = play
			cfg := testConfig(f.server.URL)
			cfg.ReadTimeout = shortRead
			_, result := start(t, cfg, newRecorder())
			if err := result(); err == nil || !strings.Contains(err.Error(), "read_timeout") {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func TestAnotherReaderTookTheApplication(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.events = func(p *peer) {
		go p.listen(true)
		p.text(`{"type":"ChannelVarset","variable":"X","value":"ApplicationReplaced","application":"ctigate"}`)
		p.text(`{"type":"ApplicationReplaced","application":"another"}`)
		p.text(`{"type":"ApplicationReplaced","application":"ctigate"}`)
		<-p.ended
	}
	out := newRecorder()
	_, result := start(t, testConfig(f.server.URL), out)
	err := result()
	if !core.IsPermanent(err) || !strings.Contains(err.Error(), `ARI application "ctigate"`) {
		t.Errorf("Run: %v", err)
	}
	if len(out.raws("ApplicationReplaced")) != 2 {
		t.Errorf("order: %v", out.order)
	}
}

func TestFullQueueHoldsTheSocketAndLosesNothing(t *testing.T) {
	const events = 500
	f := newFakeSwitch(t, httptest.NewServer)
	f.events = func(p *peer) {
		go p.listen(true)
		for i := range events {
			p.text(fmt.Sprintf(`{"type":"NobodyKnowsThis","n":%d}`, i))
		}
		<-p.ended
	}
	cfg := testConfig(f.server.URL)
	cfg.Queue = 16
	out := newRecorder()
	out.gate = make(chan struct{})
	stop, _ := start(t, cfg, out)
	out.until(t, "a full queue", func() bool { return out.counts["queue_full"] > 0 })
	close(out.gate)
	out.until(t, "every event", func() bool { return len(out.raws("NobodyKnowsThis")) == events })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, raw := range out.raws("NobodyKnowsThis") {
		if want := fmt.Sprintf(`{"type":"NobodyKnowsThis","n":%d}`, i); raw != want {
			t.Fatalf("event %d is %s", i, raw)
		}
	}
	if got := out.counts["queue_highest"]; got != 16 {
		t.Errorf("queue_highest is %d", got)
	}
}

func TestSnapshotThatCannotBeReadIsAGap(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/ari/channels" {
			return false
		}
		w.Write([]byte(`{"oops"`))
		return true
	}
	f.events = func(p *peer) {
		go p.listen(true)
		p.text(unknownEvent)
		<-p.ended
	}
	out := newRecorder()
	stop, _ := start(t, testConfig(f.server.URL), out)
	out.until(t, "the event after it", func() bool { return len(out.raws("NobodyKnowsThis")) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"up", "dead", "gap", "NobodyKnowsThis"}; !slices.Equal(out.order, want) {
		t.Errorf("order %v, want %v", out.order, want)
	}
}

func TestSnapshotRefusedByServerEndsTheSession(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/ari/bridges" {
			w.WriteHeader(500)
		}
		return r.URL.Path == "/ari/bridges"
	}
	_, result := start(t, testConfig(f.server.URL), newRecorder())
	if err := result(); err == nil || !strings.Contains(err.Error(), "asking ARI for bridges") {
		t.Errorf("Run: %v", err)
	}
}

func TestTLS(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewTLSServer)
	f.server.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(f.server.URL)
	cfg.TLS.CAFile = ca
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "up", func() bool { return len(out.ups) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	strict := testConfig(f.server.URL)
	_, result := start(t, strict, newRecorder())
	var unknown x509.UnknownAuthorityError
	if err := result(); err == nil || !strings.Contains(err.Error(), unknown.Error()) {
		t.Errorf("an unknown authority: %v", err)
	}
}

func FuzzEventIntake(f *testing.F) {
	f.Add([]byte(unknownEvent))
	f.Add([]byte(`{"type":"ChannelDestroyed","channel":{"id":"1.2"},"cause":16}`))
	f.Add([]byte(`{"type":"ApplicationReplaced","application":"ctigate"}`))
	f.Add([]byte("{\"type\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		out := newRecorder()
		s := &session{out: out, norm: newNormalizer(options{IVRVariable: "IVR_PATH"}, out.Count)}
		_ = replaced(raw, "ctigate")
		if err := s.handle(inbound{from: fromARI, raw: raw, received: 1}); err != nil {
			t.Fatal(err)
		}
		if len(out.frames)+len(out.dead) != 1 {
			t.Fatalf("%d frames and %d dead letters of one message", len(out.frames), len(out.dead))
		}
	})
}
