package ari

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

type as struct {
	n         *normalizer
	t         *call.Tracker
	now, skew call.Time
	ev        []*call.Event
}

var swr = call.SwitchRef{ID: "pbx", Kind: "asterisk", Instance: "i"}

func newAS() *as {
	return &as{n: newNormalizer(options{}, func(string, int) {}), t: call.NewTracker(call.Options{}), now: 1_700_000_000 * call.Second}
}
func (a *as) apply(os []call.Observation) {
	for _, o := range os {
		a.ev = append(a.ev, a.t.Apply(swr, o)...)
	}
}
func (a *as) step(d call.Time) {
	for end := a.now + d; a.now < end; {
		a.now += 20 * call.Millisecond
		a.apply(a.n.flush(a.now))
		a.ev = append(a.ev, a.t.Tick(a.now)...)
	}
}
func chn(id, name, state, link, num, exten string) map[string]any {
	return map[string]any{"id": id, "name": name, "state": state, "caller": map[string]any{"number": num, "name": ""}, "dialplan": map[string]any{"exten": exten}, "channelvars": map[string]any{"CHANNEL(linkedid)": link}}
}
func (a *as) ari(m map[string]any) {
	a.now += call.Millisecond
	m["timestamp"] = time.UnixMicro(int64(a.now + a.skew)).UTC().Format("2006-01-02T15:04:05.000-0700")
	b, _ := json.Marshal(m)
	f, err := a.n.event(b, a.now)
	if err != nil {
		panic(err)
	}
	a.apply(f.Observations)
}
func (a *as) ami(kv ...string) {
	a.now += call.Millisecond
	m := message{raw: []byte(fmt.Sprint(a.now, kv))}
	kv = append(kv, "Timestamp", fmt.Sprintf("%d.%06d", (a.now+a.skew)/call.Second, (a.now+a.skew)%call.Second))
	for i := 0; i+1 < len(kv); i += 2 {
		m.fields = append(m.fields, field{kv[i], kv[i+1]})
	}
	a.apply(a.n.manager(m, a.now).Observations)
}
func (a *as) evs(t *testing.T) (q []string) {
	for _, e := range a.ev {
		if e.Queue != nil {
			q = append(q, string(e.Type)+":"+e.Queue.ID+":"+e.Queue.Result)
		}
	}
	return
}
func (a *as) caller() {
	a.ari(map[string]any{"type": "ChannelCreated", "channel": chn("1.1", "PJSIP/trunk-1", "Ring", "1.1", "+14155550100", "2000")})
	a.step(100 * call.Millisecond)
	a.ari(map[string]any{"type": "ChannelStateChange", "channel": chn("1.1", "PJSIP/trunk-1", "Up", "1.1", "+14155550100", "2000")})
}

func TestSkewedSwitch(t *testing.T) {
	a := newAS()
	a.skew = -300 * call.Millisecond
	a.caller()
	a.ami("Event", "QueueCallerJoin", "Uniqueid", "1.1", "Queue", "support", "Position", "1")
	a.step(2 * call.Second)
	a.ami("Event", "QueueCallerLeave", "Uniqueid", "1.1", "Queue", "support")
	a.step(20 * call.Millisecond) // one flush between the two messages
	a.ami("Event", "AgentConnect", "Uniqueid", "1.1", "Queue", "support", "Interface", "PJSIP/agent1")
	q := a.evs(t)
	if q[len(q)-1] != "queue.left:support:answered" {
		t.Errorf("switch clock 300 ms behind: %v", q)
	}
}

func TestOverflow(t *testing.T) {
	a := newAS()
	a.caller()
	a.ami("Event", "QueueCallerJoin", "Uniqueid", "1.1", "Queue", "first")
	a.step(5 * call.Second)
	a.ami("Event", "QueueCallerLeave", "Uniqueid", "1.1", "Queue", "first")
	a.ami("Event", "QueueCallerJoin", "Uniqueid", "1.1", "Queue", "second")
	a.step(5 * call.Second)
	a.ami("Event", "QueueCallerLeave", "Uniqueid", "1.1", "Queue", "second")
	a.ami("Event", "AgentConnect", "Uniqueid", "1.1", "Queue", "second", "Interface", "PJSIP/agent1")
	a.ari(map[string]any{"type": "ChannelDestroyed", "cause": 16, "channel": chn("1.1", "PJSIP/trunk-1", "Up", "1.1", "", "")})
	t.Logf("%v queue_ms %d", a.evs(t), a.ev[len(a.ev)-1].Call.Durations.QueueMS)
	if len(a.evs(t)) != 4 {
		t.Errorf("no queue.left for the first queue")
	}
}

// Originate Local/600@queues: the queue's caller is a Local channel, which ARI events about are passed over.
func TestLocalInQueue(t *testing.T) {
	a := newAS()
	a.ari(map[string]any{"type": "ChannelCreated", "channel": chn("1.2", "Local/600@queues-00000001;2", "Ring", "1.1", "", "600")})
	a.ami("Event", "QueueCallerJoin", "Uniqueid", "1.2", "Queue", "support", "Channel", "Local/600@queues-00000001;2")
	a.step(2 * call.Second)
	a.ami("Event", "QueueCallerAbandon", "Uniqueid", "1.2", "Queue", "support")
	a.ami("Event", "QueueCallerLeave", "Uniqueid", "1.2", "Queue", "support")
	a.ari(map[string]any{"type": "ChannelDestroyed", "cause": 16, "channel": chn("1.2", "Local/600@queues-00000001;2", "Up", "1.1", "", "")})
	a.ami("Event", "Hangup", "Uniqueid", "1.2")
	a.step(5 * call.Second)
	a.t.Tick(a.now + 86400*call.Second)
	for _, c := range a.t.Calls() {
		t.Logf("still active %s %s direction %s", c.Connections[0].ID, c.State, c.Direction)
	}
	if a.t.Active() != 0 {
		t.Errorf("%d calls never end", a.t.Active())
	}
}

func TestPausedDuringCall(t *testing.T) {
	a := newAS()
	a.caller()
	a.ami("Event", "AgentConnect", "Uniqueid", "1.1", "Queue", "support", "Interface", "PJSIP/agent1")
	a.ami("Event", "QueueMemberPause", "Queue", "support", "Interface", "PJSIP/agent1", "Paused", "1", "PausedReason", "lunch")
	a.ami("Event", "AgentComplete", "Uniqueid", "1.1", "Queue", "support", "Interface", "PJSIP/agent1")
	if s := a.ev[len(a.ev)-1].Agent.State; s != "not_ready" {
		t.Errorf("agent paused for lunch is told as %s", s)
	}
}

func TestMemberInCall(t *testing.T) {
	a := newAS()
	a.ami("Event", "QueueMember", "Queue", "support", "Location", "PJSIP/agent1", "Status", "2", "Paused", "0", "InCall", "1")
	if s := a.ev[0].Agent.State; s != "busy" {
		t.Errorf("member InCall: 1 is told as %s", s)
	}
}

func TestOtherTechTrunks(t *testing.T) {
	for _, x := range [][2]string{{"SIP/trunk-0000001", "trunk/15551234567"}, {"DAHDI/i1/15551234567-2", "g1/15551234567"}, {"IAX2/peer-77", "me@peer/15551234567"}} {
		a := newAS()
		a.caller()
		a.ari(map[string]any{"type": "ChannelCreated", "channel": chn("1.3", x[0], "Down", "1.1", "", "s")})
		a.ari(map[string]any{"type": "Dial", "dialstring": x[1], "caller": chn("1.1", "PJSIP/trunk-1", "Up", "1.1", "", ""), "peer": chn("1.3", x[0], "Down", "1.1", "", "")})
		k := a.ev[len(a.ev)-1].Call.Connections
		if p := k[len(k)-1].Party; p.Role != call.RoleExternal {
			t.Errorf("%s dialed %s: role %s id %s", x[0], x[1], p.Role, p.ID)
		}
	}
}

// features/AMI atxfer: both transferer legs are one channel; target is a third field.
func TestFeatureAtxfer(t *testing.T) {
	a := newAS()
	a.caller()
	a.ari(map[string]any{"type": "BridgeAttendedTransfer", "result": "Success", "transferer_first_leg": chn("1.1", "PJSIP/trunk-1", "Up", "1.1", "", ""),
		"transferer_second_leg": chn("1.1", "PJSIP/trunk-1", "Up", "1.1", "", ""), "transfer_target": chn("1.9", "PJSIP/1002-9", "Up", "1.1", "1002", "")})
	tr := a.ev[len(a.ev)-1].Transfer
	if tr.To != "1002" {
		t.Errorf("transfer by DTMF to 1002 is told as to %q (what the transferer itself once dialed)", tr.To)
	}
}
