package adapters_test

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// tolerance between what a switch says and what the packets show: FreeSWITCH stamps events on a 20 ms grid.
const tolerance = 60 // ms

// dialog is one SIP dialog as wire.json has it: Unix seconds at the capture point.
type dialog struct {
	CallID   string  `json:"call_id"`
	Ringing  float64 `json:"ringing_at"`
	Answered float64 `json:"answered_at"`
	Ended    float64 `json:"ended_at"`
	Code     int     `json:"final_code"`
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// at converts Unix seconds, zero for none.
func at(f float64) call.Time { return call.Time(f * 1e6) }

func near(a, b call.Time) bool {
	d := (a - b) / call.Millisecond
	return d <= tolerance && d >= -tolerance
}

// TestWire compares every connection with the packets of its SIP dialog. Where the switch itself stalled and acted on
// a packet more than 50 ms after it came (stalls.json, read from the captures: its ACK for a 200, its 200 for a BYE),
// the time it acted is the wire's.
func TestWire(t *testing.T) {
	var stalls map[string]map[string]dialog
	readJSON(t, filepath.Join(traces, "stalls.json"), &stalls)
	for _, f := range folders(t) {
		t.Run(f.kind+"/"+f.name, func(t *testing.T) {
			var dialogs []dialog
			readJSON(t, filepath.Join(f.dir, "wire.json"), &dialogs)
			byID := map[string]dialog{}
			for _, d := range dialogs {
				if late, ok := stalls[filepath.Base(filepath.Dir(f.dir))+"/"+f.name][d.CallID]; ok {
					d.Answered, d.Ended = cmp.Or(late.Answered, d.Answered), cmp.Or(late.Ended, d.Ended)
				}
				byID[d.CallID] = d
			}
			seen := map[string]bool{}
			for _, s := range stories(play(t, f.kind, f.dir).events) {
				for _, r := range s.records {
					for _, c := range r.Connections {
						if d, ok := byID[c.SIPCallID]; ok {
							seen[c.SIPCallID] = true
							compare(t, c, d)
						}
					}
				}
			}
			for id := range byID {
				if !seen[id] {
					t.Errorf("dialog %s is in no record", id)
				}
			}
		})
	}
}

// compare holds one connection against its dialog: when it rang, was answered and ended, and so how long it rang and
// talked.
func compare(t *testing.T, c *call.Connection, d dialog) {
	t.Helper()
	if c.AlertingAt != 0 && d.Ringing != 0 && !near(c.AlertingAt, at(d.Ringing)) {
		t.Errorf("%s rang at %v, on the wire at %v", c.Party.ID, c.AlertingAt, at(d.Ringing))
	}
	if d.Answered != 0 != (c.ConnectedAt != 0) || !near(c.ConnectedAt, at(d.Answered)) {
		t.Errorf("%s was connected at %v, on the wire at %v", c.Party.ID, c.ConnectedAt, at(d.Answered))
	}
	if d.Ended != 0 && c.ClearedAt != 0 && !near(c.ClearedAt, at(d.Ended)) {
		t.Errorf("%s was cleared at %v, on the wire at %v", c.Party.ID, c.ClearedAt, at(d.Ended))
	}
	if d.Answered != 0 && d.Ringing != 0 && c.AlertingAt != 0 && !near(c.ConnectedAt-c.AlertingAt, at(d.Answered)-at(d.Ringing)) {
		t.Errorf("%s rang for %d ms, on the wire %d", c.Party.ID, c.ConnectedAt.Sub(c.AlertingAt), at(d.Answered).Sub(at(d.Ringing)))
	}
	if d.Answered != 0 && d.Ended != 0 && c.ClearedAt != 0 && !near(c.ClearedAt-c.ConnectedAt, at(d.Ended)-at(d.Answered)) {
		t.Errorf("%s was connected for %d ms, on the wire %d", c.Party.ID, c.ClearedAt.Sub(c.ConnectedAt), at(d.Ended).Sub(at(d.Answered)))
	}
}

// TestHolds compares every hold with the packets: from the answer to the re-INVITE that asks for it to the answer to
// the one that ends it (holds.json, read from the captures).
func TestHolds(t *testing.T) {
	var want map[string][]struct {
		CallID string  `json:"call_id"`
		From   float64 `json:"from"`
		To     float64 `json:"to"`
	}
	readJSON(t, filepath.Join(traces, "holds.json"), &want)
	for _, f := range folders(t) {
		for _, h := range want[filepath.Base(filepath.Dir(f.dir))+"/"+f.name] {
			t.Run(f.kind+"/"+f.name, func(t *testing.T) {
				for _, s := range stories(play(t, f.kind, f.dir).events) {
					for _, r := range s.records {
						for _, c := range r.Connections {
							if c.SIPCallID != h.CallID {
								continue
							}
							if len(c.Holds) != 1 || !near(c.Holds[0].From, at(h.From)) || !near(c.Holds[0].To, at(h.To)) {
								t.Errorf("%s held %v, on the wire %v to %v", c.Party.ID, c.Holds, at(h.From), at(h.To))
							}
							return
						}
					}
				}
				t.Errorf("dialog %s is in no record", h.CallID)
			})
		}
	}
}
