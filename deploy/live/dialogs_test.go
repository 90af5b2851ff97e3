//go:build live

package live_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// dialogLink is a gateway that subscribes to the agents' extensions at Asterisk.
func dialogLink(dir string) settings {
	return settings{whole: fmt.Sprintf(`switches:
  - id: hints
    kind: sip
    dialogs:
      server: sip:127.0.0.1:%s
      username: ctigate
      password: {env: LIVE_PASSWORD}
      resources: ["1001", "1002"]
sinks:
  - kind: file
    dir: %q
telemetry:
  listen: "127.0.0.1:0"
`, sipPort, dir)}
}

// TestDialogEvents: RFC 4235 subscriptions to a real Asterisk, with digest authentication, while calls go through it.
func TestDialogEvents(t *testing.T) {
	dir := t.TempDir()
	g := start(t, dialogLink(dir))
	g.waitReady()
	for _, name := range []string{"inbound_answered_caller_hangup", "no_answer", "blind_transfer"} {
		play(t, name)
		g.waitIdle()
	}
	g.stopClean()
	records := fileRecords(t, filepath.Join(dir, "records.jsonl"))
	// Asterisk says who calls an extension and how that goes, but neither who hangs up nor that a call was passed on.
	want := []struct {
		agent   string
		outcome call.Outcome
	}{{"1001", call.Answered}, {"1001", call.NoAnswer}, {"1001", call.Answered}, {"1002", call.Answered}}
	if len(records) != len(want) {
		t.Fatalf("%d records, want %d", len(records), len(want))
	}
	for i, r := range records {
		w := want[i]
		if r.Direction != call.Inbound || r.Outcome != w.outcome || r.HangupBy != "" || len(r.Connections) != 2 || r.From == nil || r.From.Number != "+14155550100" {
			t.Errorf("record %d: %s, %s, hung up by %q, from %+v, %d connections", i, r.Direction, r.Outcome, r.HangupBy, r.From, len(r.Connections))
			continue
		}
		agent := r.Connections[1]
		if agent.Party.ID != w.agent || agent.Party.Role != call.RoleAgent || agent.AlertingAt == 0 || (agent.ConnectedAt != 0) != (w.outcome == call.Answered) {
			t.Errorf("record %d: agent %+v, rang at %s, answered at %s", i, agent.Party, agent.AlertingAt, agent.ConnectedAt)
		}
		if r.Completeness != nil {
			t.Errorf("record %d: %+v", i, *r.Completeness)
		}
	}
}

// fileRecords reads the records that the file sink wrote.
func fileRecords(t *testing.T, file string) (out []*call.Call) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var r struct{ Data *call.Call }
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r.Data)
	}
	return out
}
