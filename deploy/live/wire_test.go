//go:build live

package live_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// capturePackets captures the SIP packets until the function it returns is called, which gives the dialogs.
func capturePackets(t *testing.T, name string) func() []wireDialog {
	t.Helper()
	file := scratch(name)
	cmd := exec.Command("tcpdump", "-Z", "root", "-i", "lo", "-U", "--immediate-mode", "-B", "16384", "-w", file, "udp and port "+sipPort)
	var said lockedBuffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	eventually(t, "tcpdump listens", 20*time.Second, func() bool {
		select {
		case <-done:
			t.Fatalf("tcpdump ended: %s", said.String())
		default:
		}
		return strings.Contains(said.String(), "listening on")
	})
	return func() (all []wireDialog) {
		cmd.Process.Signal(syscall.SIGINT)
		<-done
		if err := json.Unmarshal([]byte(mustOutput(t, "./wire.py", file)), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
}

// wireDialog is a dialog as the packets have it, and when Asterisk acted on them if that was later.
type wireDialog struct {
	adaptertest.Dialog
	Acted struct {
		Answered float64 `json:"answered_at"`
		Ended    float64 `json:"ended_at"`
	} `json:"acted"`
}

// compare holds a connection against its dialog. A packet that waited more than 50 ms for a busy Asterisk counts from
// when it was acted on.
func (d wireDialog) compare(c *call.Connection) []string {
	late := func(came, acted float64) float64 {
		if acted-came > 0.05 {
			return acted
		}
		return came
	}
	w := d.Dialog
	w.Answered, w.Ended = late(w.Answered, d.Acted.Answered), late(w.Ended, d.Acted.Ended)
	return w.Compare(c)
}

// compareWire compares ring and talk times with the packets, connection by connection; every dialog must be in a record.
func compareWire(records []*call.Event, dialogs []wireDialog) (faults []string) {
	byID := map[string]wireDialog{}
	for _, d := range dialogs {
		byID[d.CallID] = d
	}
	for _, r := range records {
		for _, leg := range r.Call.Connections {
			if d, ok := byID[leg.SIPCallID]; ok {
				faults = append(faults, d.compare(leg)...)
			}
			delete(byID, leg.SIPCallID)
		}
	}
	for id := range byID {
		faults = append(faults, fmt.Sprintf("SIP dialog %s is in no record", id))
	}
	return faults
}
