package adapters_test

import (
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/core/call"
)

// playPackets replays the packets of a recording, of whichever switch.
func playPackets(t testing.TB, dir string) *collector {
	t.Helper()
	c := newCollector("wire")
	if err := sip.Replay(filepath.Join(dir, "sip-rtp.pcap.gz"), sip.ReplayOptions{}, c); err != nil {
		t.Fatal(err)
	}
	c.finish()
	return c
}

// unseen takes out of a scenario's truth what no packet shows.
func unseen(name string, w adaptertest.Interaction) adaptertest.Interaction {
	w.Queue, w.IVRPath = nil, "" // queues and menus are inside the switch
	if name == "originate_click_to_call" {
		w.To = "" // the switch was asked for 1002 and dials agent2
	}
	return w
}

// TestPackets plays the packets of every recording and compares what comes out with what happened, as far as packets
// can tell.
func TestPackets(t *testing.T) {
	truth := readTruth(t)
	for _, f := range folders(t) {
		t.Run(filepath.Base(filepath.Dir(f.dir))+"/"+f.name, func(t *testing.T) {
			c := playPackets(t, f.dir)
			adaptertest.CheckStream(t, c.events)
			if len(c.dead) > 0 || c.t.Active() > 0 {
				t.Errorf("%d dead letters (%.200v), %d calls never ended", len(c.dead), c.dead, c.t.Active())
			}
			want := truth[f.name].Interactions
			got := adaptertest.Stories(c.events)
			if f.name == "conference" { // three calls that meet inside the switch: no packet says so
				if len(got) != 3 {
					t.Errorf("%d interactions, want the 3 that packets show", len(got))
				}
				return
			}
			if len(got) != len(want) {
				t.Fatalf("%d interactions, want %d", len(got), len(want))
			}
			for i, s := range got {
				for _, fault := range s.Check(f.kind, unseen(f.name, want[i])) {
					t.Error(fault)
				}
				for _, r := range s.Records {
					if r.Completeness != nil {
						t.Errorf("call %s of a whole recording is incomplete: %+v", r.ID, *r.Completeness)
					}
				}
			}
		})
	}
}

// TestPacketTimes compares every connection with what tshark read of its dialog: they are the same packets, so that they
// agree within 5 ms.
func TestPacketTimes(t *testing.T) {
	for _, f := range folders(t) {
		t.Run(filepath.Base(filepath.Dir(f.dir))+"/"+f.name, func(t *testing.T) {
			var dialogs []adaptertest.Dialog
			readJSON(t, filepath.Join(f.dir, "wire.json"), &dialogs)
			byID := map[string]*call.Connection{}
			for _, s := range adaptertest.Stories(playPackets(t, f.dir).events) {
				for _, r := range s.Records {
					for _, c := range r.Connections {
						if old := byID[c.SIPCallID]; old == nil || old.ClearedAt == 0 { // a merged call's record has its legs as they were then
							byID[c.SIPCallID] = c
						}
					}
				}
			}
			for _, d := range dialogs {
				c := byID[d.CallID]
				if c == nil {
					if f.name != "diverted_302" { // there Asterisk calls itself, which is nobody's leg
						t.Errorf("dialog %s is in no record", d.CallID)
					}
					continue
				}
				same := func(what string, got call.Time, want float64) {
					if off := got - adaptertest.At(want); want != 0 && (off > 5*call.Millisecond || off < -5*call.Millisecond) {
						t.Errorf("%s of %s: %s at %s, in the packets at %s", d.CallID, c.Party.ID, what, got, adaptertest.At(want))
					}
				}
				if !c.AlertingAt.IsZero() {
					same("rang", c.AlertingAt, d.Ringing)
				}
				same("connected", c.ConnectedAt, d.Answered)
				same("cleared", c.ClearedAt, d.Ended)
				if (d.Answered != 0) != (c.ConnectedAt != 0) {
					t.Errorf("%s of %s: connected at %s, in the packets at %s", d.CallID, c.Party.ID, c.ConnectedAt, adaptertest.At(d.Answered))
				}
			}
		})
	}
}

// TestAttendedTransfersOverHEP plays five attended transfers as Asterisk's HEP showed them: the switch ends the
// consultation before it tells how the transfer went, or after.
func TestAttendedTransfersOverHEP(t *testing.T) {
	c := newCollector("wire")
	if err := sip.Replay("sip/testdata/attended-transfers.pcap.gz", sip.ReplayOptions{}, c); err != nil {
		t.Fatal(err)
	}
	c.finish()
	stories := adaptertest.Stories(c.events)
	if len(stories) != 5 {
		t.Fatalf("%d interactions, want 5", len(stories))
	}
	want := readTruth(t)["attended_transfer"].Interactions[0]
	for _, s := range stories {
		for _, fault := range s.Check("asterisk", want) {
			t.Error(fault)
		}
	}
}
