//go:build live

package live_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/sip/siprec"
	"github.com/ctigate/ctigate/core/call"
)

// TestSIPREC: Debian's sipp as a session recording client, over UDP and TCP, with real RTP of both parties.
func TestSIPREC(t *testing.T) {
	for _, transport := range []string{"u1", "t1"} {
		t.Run(transport, func(t *testing.T) { recordWithSipp(t, transport) })
	}
}

func recordWithSipp(t *testing.T, transport string) {
	s, err := siprec.New(&siprec.Config{Listen: "127.0.0.1:23085", RTPPorts: "29000-29099", QualityInterval: 2 * time.Second,
		CallIDHeaders: []string{"X-Original-Call-ID"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	rec := adaptertest.NewRecorder(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, rec) }()
	t.Cleanup(func() { cancel() })
	sippRecordingClient(t, transport, s.Addr(siprec.UDP).String(), "original-1@pbx")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	checkRecording(t, rec.Log())
}

// sippRecordingClient runs siprec.xml once.
func sippRecordingClient(t *testing.T, transport, server, original string) {
	t.Helper()
	dir := t.TempDir()
	folder, err := filepath.Abs("sipp")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("python3", filepath.Join(folder, "siprec-media.py"), filepath.Join(dir, "siprec.pcap")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("sipp", "-sf", filepath.Join(folder, "siprec.xml"), "-t", transport, "-m", "1", "-i", "127.0.0.1",
		"-mi", "127.0.0.1", "-mp", "28000", "-key", "original", original,
		"-nostdin", "-timeout", "30s", "-timeout_error", "-trace_err", server)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sipp: %v\n%s", err, out[max(0, len(out)-2000):])
	}
}

// checkRecording holds what was observed against what siprec.xml and siprec-media.py send.
func checkRecording(t *testing.T, l adaptertest.Log) {
	t.Helper()
	final := map[string]*call.Quality{}
	kinds := map[call.Kind]int{}
	for _, f := range l.Frames {
		for _, o := range f.Observations {
			kinds[o.Kind]++
			if o.Kind == call.LegQuality && o.Quality.Final {
				final[o.Quality.Stream] = o.Quality
			}
			if o.Kind == call.LegCreated && o.Inbound && (o.Number != "+14155550177" || o.Dialed != "agent1" || o.SIPCallID != "original-1@pbx") {
				t.Errorf("caller: %+v", o)
			}
			if o.Kind == call.DTMFDigit && (o.Value != "5" || o.Count != 100) {
				t.Errorf("digit: %+v", o)
			}
		}
	}
	for kind, want := range map[call.Kind]int{call.LegCreated: 3, call.LegConnected: 3, call.LegHeld: 1, call.LegRetrieved: 1, call.DTMFDigit: 1, call.LegCleared: 3} {
		if kinds[kind] != want {
			t.Errorf("%d observations of kind %d, want %d", kinds[kind], kind, want)
		}
	}
	if q := final["ca11e401"]; q == nil || q.Packets != 237 || q.Lost != 13 || q.Codec != "PCMA" {
		t.Errorf("caller's stream: %+v", q)
	}
	if q := final["a6e27001"]; q == nil || q.Packets != 250 || q.Lost != 0 {
		t.Errorf("agent's stream: %+v", q)
	}
	if len(l.DeadLetters) > 0 {
		t.Errorf("dead letters: %+v", l.DeadLetters)
	}
}
