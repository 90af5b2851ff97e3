package esl

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

type fs struct {
	n   *normalizer
	t   *call.Tracker
	seq int
	at  call.Time
	ev  []*call.Event
}

func newFS(vars ...string) *fs {
	return &fs{n: newNormalizer(options{Variables: vars}, func(string, int) {}), t: call.NewTracker(call.Options{}), at: 1_700_000_000 * call.Second}
}
func (f *fs) do(kv ...string) *fs {
	f.seq++
	f.at += call.Second
	m := map[string]string{}
	for i := 0; i+1 < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	m["Event-Sequence"] = strconv.Itoa(f.seq)
	m["Event-Date-Timestamp"] = strconv.FormatInt(int64(f.at), 10)
	m["Core-UUID"] = "core"
	b, _ := json.Marshal(m)
	fr, err := f.n.event(b, true, f.at)
	if err != nil {
		panic(err)
	}
	for _, o := range fr.Observations {
		f.ev = append(f.ev, f.t.Apply(call.SwitchRef{ID: "fs", Kind: "freeswitch", Instance: "core"}, o)...)
	}
	return f
}
func ch(typ, id, name, dir, num, dest string, more ...string) []string {
	return append([]string{"Event-Name", typ, "Unique-ID", id, "Channel-Call-UUID", id, "Channel-Name", name, "Call-Direction", dir, "Caller-Caller-ID-Number", num, "Caller-Destination-Number", dest}, more...)
}

// bridge(loopback/1001/default): the loopback leg is named in CHANNEL_BRIDGE.
func TestLoopbackBridge(t *testing.T) {
	f := newFS()
	a := func(typ string, more ...string) {
		f.do(ch(typ, "A", "sofia/external/+14155550100@x", "inbound", "+14155550100", "2000", more...)...)
	}
	a("CHANNEL_CREATE")
	a("CHANNEL_ANSWER")
	f.do(ch("CHANNEL_CREATE", "LA", "loopback/1001-a", "outbound", "+14155550100", "1001", "Other-Type", "originator", "Other-Leg-Unique-ID", "A")...)
	a("CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "A", "Bridge-B-Unique-ID", "LA")
	f.do(ch("CHANNEL_HANGUP_COMPLETE", "LA", "loopback/1001-a", "outbound", "", "1001", "Hangup-Cause", "NORMAL_CLEARING")...)
	f.do(ch("CHANNEL_DESTROY", "LA", "loopback/1001-a", "outbound", "", "1001")...)
	a("CHANNEL_HANGUP_COMPLETE", "Hangup-Cause", "NORMAL_CLEARING", "variable_hangup_cause_q850", "16")
	a("CHANNEL_DESTROY")
	f.t.Tick(f.at + 86400*call.Second)
	for _, c := range f.t.Calls() {
		for _, k := range c.Connections {
			t.Logf("still active: call %.8s %s state %s role %s", c.ID, k.ID, k.State, k.Party.Role)
		}
	}
	if f.t.Active() != 0 {
		t.Errorf("%d calls active a day after everything hung up", f.t.Active())
	}
}

func TestWebRTCUser(t *testing.T) {
	f := newFS()
	f.do(ch("CHANNEL_CREATE", "B", "sofia/internal/k5pmvkn3@df7jal23ls0d.invalid", "outbound", "+14155550100", "k5pmvkn3", "variable_dialed_user", "1001", "Other-Type", "originator", "Other-Leg-Unique-ID", "A")...)
	if p := f.ev[0].Call.Connections[0].Party; p.ID != "1001" {
		t.Errorf("party id %q for user/1001 on a WebRTC phone", p.ID)
	}
}

func TestBreakDuringCall(t *testing.T) {
	f := newFS()
	cc := func(kv ...string) {
		f.do(append([]string{"Event-Name", "CUSTOM", "Event-Subclass", "callcenter::info", "CC-Agent", "1001@a"}, kv...)...)
	}
	cc("CC-Action", "agent-status-change", "CC-Agent-Status", "Available")
	cc("CC-Action", "agent-state-change", "CC-Agent-State", "In a queue call")
	cc("CC-Action", "agent-status-change", "CC-Agent-Status", "On Break")
	cc("CC-Action", "agent-state-change", "CC-Agent-State", "Waiting")
	if s := f.ev[len(f.ev)-1].Agent.State; s != "not_ready" {
		t.Errorf("agent on break is told as %s", s)
	}
}

func TestTenants(t *testing.T) {
	f := newFS()
	for _, a := range []string{"1001@tenant-a", "1001@tenant-b"} {
		f.do("Event-Name", "CUSTOM", "Event-Subclass", "callcenter::info", "CC-Agent", a, "CC-Action", "agent-status-change", "CC-Agent-Status", "Available")
	}
	if len(f.ev) != 2 {
		t.Errorf("two tenants' agents 1001 log in: %d agent.state events", len(f.ev))
	}
}

func TestTwoVars(t *testing.T) {
	f := newFS("vip", "premium", "lang")
	f.do(ch("CHANNEL_CREATE", "A", "sofia/external/x@y", "inbound", "+14155550100", "2000")...)
	f.do(ch("CHANNEL_ANSWER", "A", "sofia/external/x@y", "inbound", "+14155550100", "2000", "variable_vip", "true", "variable_premium", "true", "variable_lang", "de")...)
	t.Logf("attributes %v", f.t.Calls()[0].Attributes)
	if len(f.t.Calls()[0].Attributes) != 3 {
		t.Errorf("attribute lost")
	}
	seen := map[string]bool{}
	for _, e := range f.ev {
		if seen[e.ID] {
			t.Errorf("two events %s with id %s", e.Type, e.ID)
		}
		seen[e.ID] = true
	}
}
