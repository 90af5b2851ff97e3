package adapters_test

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
)

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

// TestWire compares every connection with the packets of its SIP dialog. Where the switch itself stalled and acted on
// a packet more than 50 ms after it came (stalls.json, read from the captures: its ACK for a 200, its 200 for a BYE),
// the time it acted is the wire's.
func TestWire(t *testing.T) {
	var stalls map[string]map[string]adaptertest.Dialog
	readJSON(t, filepath.Join(traces, "stalls.json"), &stalls)
	for _, f := range folders(t) {
		t.Run(f.kind+"/"+f.name, func(t *testing.T) {
			var dialogs []adaptertest.Dialog
			readJSON(t, filepath.Join(f.dir, "wire.json"), &dialogs)
			byID := map[string]adaptertest.Dialog{}
			for _, d := range dialogs {
				if late, ok := stalls[filepath.Base(filepath.Dir(f.dir))+"/"+f.name][d.CallID]; ok {
					d.Answered, d.Ended = cmp.Or(late.Answered, d.Answered), cmp.Or(late.Ended, d.Ended)
				}
				byID[d.CallID] = d
			}
			seen := map[string]bool{}
			for _, s := range adaptertest.Stories(play(t, f.kind, f.dir).events) {
				for _, r := range s.Records {
					for _, c := range r.Connections {
						if d, ok := byID[c.SIPCallID]; ok {
							seen[c.SIPCallID] = true
							for _, fault := range d.Compare(c) {
								t.Error(fault)
							}
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
				for _, s := range adaptertest.Stories(play(t, f.kind, f.dir).events) {
					for _, r := range s.Records {
						for _, c := range r.Connections {
							if c.SIPCallID != h.CallID {
								continue
							}
							if len(c.Holds) != 1 || !adaptertest.Near(c.Holds[0].From, adaptertest.At(h.From)) || !adaptertest.Near(c.Holds[0].To, adaptertest.At(h.To)) {
								t.Errorf("%s held %v, on the wire %v to %v", c.Party.ID, c.Holds, adaptertest.At(h.From), adaptertest.At(h.To))
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
