package siprec

import (
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// TestOneInteraction: a recorded call joins the one that its switch told of, by the Call-ID in the INVITE, and its
// record says who spoke, how it sounded and that it was answered.
func TestOneInteraction(t *testing.T) {
	s := serve(t, func(c *Config) { c.CallIDHeaders = []string{"X-Original-Call-ID"} })
	tr := call.NewTracker(call.Options{})
	pbx := call.SwitchRef{ID: "pbx1", Kind: "asterisk"}
	at := call.At(time.Now())
	var interaction string
	for _, e := range tr.Apply(pbx, call.Observation{Kind: call.LegCreated, Leg: "1.1", At: at, Received: at, Inbound: true,
		Number: "5551230001", Dialed: "700", SIPCallID: "trunk-1@sbc", Native: call.Native{ID: "1"}}) {
		interaction = e.InteractionID
	}
	c := s.udp("tracked")
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa), newPhone(t, "127.0.0.1", 0xb)}
	answered(t, c.invite("X-Original-Call-ID: trunk-1@sbc\r\n", offer(1, phones), metadata("complete", "")), phones)
	for range 25 {
		phones[0].sendRTP(t, phones[0].next(0))
		phones[1].sendRTP(t, phones[1].next(0))
	}
	c.do("BYE", "", "", "")
	l := s.until("the end", func(l adaptertest.Log) bool { return len(of(l, "tracked;pb", call.LegCleared)) > 0 })
	var record *call.Call
	ids := map[string]bool{}
	for _, f := range l.Frames {
		for _, o := range f.Observations {
			for _, e := range tr.Apply(call.SwitchRef{ID: "sbc", Kind: "sip"}, o) {
				if e.InteractionID != interaction {
					t.Fatalf("%s is of interaction %s, the switch's is %s", e.Type, e.InteractionID, interaction)
				}
				if ids[e.ID] {
					t.Errorf("%s has the id of another event", e.Type)
				}
				ids[e.ID] = true
				if e.Type == call.CallRecord {
					record = e.Call
				}
			}
		}
	}
	if record == nil || record.Outcome != call.Answered || record.Direction != call.Inbound || len(record.Connections) != 2 || record.Completeness != nil && record.Completeness.Violations > 0 {
		t.Fatalf("record: %+v", record)
	}
	a, b := record.Connections[0], record.Connections[1]
	if a.Party.Role != call.RoleCaller || a.Party.Number != "5551230001" || a.Media.Packets != 25 || a.LinkedBy != "siprec" {
		t.Errorf("caller: %+v, %+v", a, a.Media)
	}
	if b.Party.Role != call.RoleAgent || b.Party.ID != "agent1" || b.Media.Packets != 25 || len(b.Media.Streams) != 1 {
		t.Errorf("agent: %+v, %+v", b, b.Media)
	}
}
