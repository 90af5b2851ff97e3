package call

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func ids(t *testing.T, s *script) {
	seen := map[string]EventType{}
	for _, e := range s.events {
		if o, ok := seen[e.ID]; ok {
			t.Errorf("duplicate id %s: %s and %s", e.ID, o, e.Type)
		}
		seen[e.ID] = e.Type
	}
}

// F: outbound leg over trunk to a short number poisons the trunk as an "agent".
func TestTrunkPoison(t *testing.T) {
	s := newScript()
	s.do(Observation{Kind: LegCreated, Leg: "a", Link: "a", Inbound: true, Number: "1001", Dialed: "911", User: "1001"})
	s.do(Observation{Kind: LegCreated, Leg: "b", Link: "a", Parent: "a", Dialed: "911", User: "trunk", Device: "PJSIP/trunk"})
	s.do(is(LegConnected, "b")).do(is(LegConnected, "a")).do(cleared("b", 16)).do(cleared("a", 16))
	s.do(Observation{Kind: LegCreated, Leg: "c", Link: "c", Inbound: true, Number: "+14155550100", Dialed: "+18005550000", User: "trunk", Device: "PJSIP/trunk"})
	s.do(is(LegReleasing, "c")).do(cleared("c", 16))
	r := s.record(t)
	if r.Direction != Inbound || r.Connections[0].Party.Role != RoleCaller {
		t.Errorf("customer call over trunk after one 911 call: direction %s, role %s, party id %s, hangup_by %s", r.Direction, r.Connections[0].Party.Role, r.Connections[0].Party.ID, r.HangupBy)
	}
}

func TestOutboundByNeverRungAgent(t *testing.T) {
	s := newScript()
	s.do(Observation{Kind: LegCreated, Leg: "a", Link: "a", Inbound: true, Number: "1001", Dialed: "915551234567", User: "1001"})
	s.do(Observation{Kind: LegCreated, Leg: "b", Link: "a", Parent: "a", Dialed: "15551234567", User: "trunk"})
	s.do(is(LegConnected, "b")).do(is(LegConnected, "a")).do(cleared("b", 16)).do(cleared("a", 16))
	if r := s.record(t); r.Direction != Outbound {
		t.Errorf("1001 dials out: direction %s, roles %s/%s", r.Direction, r.Connections[0].Party.Role, r.Connections[1].Party.Role)
	}
}

// overflow: q1 open, then q2 entered
func TestOverflowQueue(t *testing.T) {
	s := newScript().do(caller("a", "+14155550100", "1000")).do(is(LegConnected, "a"))
	s.do(Observation{Kind: QueueEnter, Leg: "a", Queue: "q1"})
	for range 10 {
		s.do(Observation{Kind: DTMFDigit, Leg: "a", Value: "1"})
	}
	s.do(Observation{Kind: QueueEnter, Leg: "a", Queue: "q2"}).do(Observation{Kind: QueueLeave, Leg: "a", Queue: "q2", Value: "answered"})
	s.do(cleared("a", 16))
	left := 0
	for _, e := range s.events {
		if e.Type == QueueLeft {
			left++
		}
	}
	r := s.record(t)
	t.Logf("queue.left events %d, queue_ms %d", left, r.Durations.QueueMS)
	if left != 2 || r.Durations.QueueMS != 12000 {
		t.Errorf("want 2 queue.left and 12000 ms")
	}
}

// stale leave of q1 after entering q2 closes q2
func TestLeaveOfOtherQueue(t *testing.T) {
	s := newScript().do(caller("a", "+14155550100", "1000")).do(is(LegConnected, "a"))
	s.do(Observation{Kind: QueueEnter, Leg: "a", Queue: "q2"}).do(Observation{Kind: QueueLeave, Leg: "a", Queue: "q1", Value: "timeout"})
	last := s.events[len(s.events)-1]
	if last.Type == QueueLeft {
		t.Errorf("leave of q1 published as leave of %s/%s", last.Queue.ID, last.Queue.Result)
	}
}

func TestTwoVarsSameValue(t *testing.T) {
	s := newScript().do(caller("a", "+14155550100", "1000"))
	n := Native{Type: "CHANNEL_ANSWER", Seq: 77}
	s.do(Observation{Kind: LegVariable, Leg: "a", Native: n, Reason: "vip", Value: "true"})
	s.events = append(s.events, s.t.Apply(testSwitch, Observation{Kind: LegVariable, Leg: "a", Native: n, At: s.now, Received: s.now, Reason: "premium", Value: "true"})...)
	s.events = append(s.events, s.t.Apply(testSwitch, Observation{Kind: LegVariable, Leg: "a", Native: n, At: s.now, Received: s.now, Reason: "lang", Value: "de"})...)
	ids(t, s)
	s.do(cleared("a", 16))
	if r := s.record(t); r.Attributes["premium"] != "true" {
		t.Errorf("attributes %v: premium lost", r.Attributes)
	}
}

// Local-originated: every attempt has linkedid L; first attempt fails, second answered.
func TestSequentialAttempts(t *testing.T) {
	s := newScript()
	s.do(Observation{Kind: LegCreated, Leg: "b", Link: "L", Parent: "L2", User: "1001"}).do(is(LegAlerting, "b")).do(cleared("b", 19))
	k := len(s.events)
	s.do(Observation{Kind: LegCreated, Leg: "c", Link: "L", Parent: "L2", User: "1002"}).do(is(LegAlerting, "c")).do(is(LegConnected, "c"))
	s.do(Observation{Kind: LegCreated, Leg: "d", Link: "L", Parent: "L1", User: "trunk", Dialed: "+15551234567"}).do(is(LegConnected, "d")).do(cleared("c", 16)).do(cleared("d", 16))
	for _, e := range s.events[k:] {
		t.Logf("%s %v afterEnd=%v", e.Type, e.Flags, e.AfterEnd())
	}
	rec := 0
	for _, e := range s.events {
		if e.Type == CallRecord {
			rec++
			t.Logf("outcome %s conns %d", e.Call.Outcome, len(e.Call.Connections))
		}
	}
	live := 0
	for _, e := range s.events[k:] {
		if !e.AfterEnd() {
			live++
		}
	}
	if live == 0 {
		t.Errorf("the answered second attempt has no event on the main stream and no record")
	}
}

// same after linger: same call_id ends twice, seq restarts
func TestSameCallTwice(t *testing.T) {
	s := newScript()
	s.do(Observation{Kind: LegCreated, Leg: "b", Link: "L", User: "1001"}).do(cleared("b", 19))
	s.now += 400 * Second
	s.events = append(s.events, s.t.Tick(s.now)...)
	s.do(Observation{Kind: LegCreated, Leg: "c", Link: "L", User: "1001"}).do(cleared("c", 19))
	n := map[string]int{}
	for _, e := range s.events {
		if e.Type == CallEnded {
			n[e.CallID]++
		}
	}
	for id, k := range n {
		if k != 1 {
			t.Errorf("call %s ended %d times", id, k)
		}
	}
}

func TestAllDayConference(t *testing.T) {
	s := newScript()
	join := func(a string) {
		s.do(caller(a, "+1415"+a, "8000")).do(is(LegConnected, a)).do(Observation{Kind: LegBridged, Leg: a, Bridge: "R", Conference: "room"})
	}
	join("host")
	for i := range 500 {
		a := strconv.Itoa(i)
		join(a)
		s.do(cleared(a, 16))
		s.events = s.events[len(s.events)-1:]
	}
	c := s.t.Calls()[0]
	b, _ := json.Marshal(c)
	if len(c.Connections) > 64 {
		t.Errorf("%d connections, one event is %d bytes", len(c.Connections), len(b))
	}
}

func TestQueueMidReconnect(t *testing.T) {
	s := newScript().do(caller("a", "+14155550100", "1000")).do(is(LegConnected, "a")).do(Observation{Kind: QueueEnter, Leg: "a", Queue: "q1"})
	s.t.Apply(testSwitch, Observation{Kind: LinkDown, At: s.now, Received: s.now})
	s.now += 10 * Second
	// answered meanwhile
	s.do(Observation{Kind: SnapshotLeg, Leg: "a", Value: "connected", Bridge: "X"}).do(Observation{Kind: SnapshotLeg, Leg: "b", Link: "a", User: "agent1", Value: "connected", Bridge: "X"}).do(Observation{Kind: SnapshotEnd})
	s.now += 600 * Second
	s.do(cleared("b", 16)).do(cleared("a", 16))
	s.now += 5 * Second
	s.events = append(s.events, s.t.Tick(s.now)...)
	r := s.record(t)
	d, _ := json.Marshal(r.Durations)
	q, _ := json.Marshal(r.Queue)
	t.Logf("%s %s", d, q)
	if r.Durations.QueueMS > 60000 {
		t.Errorf("queue_ms %d: ten minutes of talk counted as waiting", r.Durations.QueueMS)
	}
}

func TestReconnectWithoutSnapshot(t *testing.T) {
	s := newScript()
	for i := range 100 {
		a := fmt.Sprint("x", i)
		s.do(caller(a, "1", "2"))
	}
	s.t.Apply(testSwitch, Observation{Kind: LinkDown, At: s.now, Received: s.now})
	s.now += 86400 * Second
	sw := testSwitch
	sw.Instance = "i2"
	s.t.Apply(sw, Observation{Kind: LegCreated, Leg: "n", Link: "n", Inbound: true, At: s.now, Received: s.now})
	s.t.Tick(s.now)
	if s.t.Active() > 1 {
		t.Errorf("%d calls of a dead switch process still active a day later", s.t.Active())
	}
}

func TestHugeName(t *testing.T) {
	s := newScript()
	s.do(Observation{Kind: LegCreated, Leg: "a", Link: "a", Inbound: true, Number: "1", Name: strings.Repeat("\x01", 60000), Dialed: "2"})
	b, _ := json.Marshal(s.events[0])
	if len(b) > 1<<20 {
		t.Errorf("60 kB display name makes an event of %d bytes", len(b))
	}
}

// A blind transfer by the caller: talk after it.
func TestCallerTransfers(t *testing.T) {
	s := newScript()
	s.t.agents[legKey{"pbx", "1001"}] = ""
	s.do(Observation{Kind: LegCreated, Leg: "a", Link: "a", Inbound: true, Number: "1001", Dialed: "15551234567", User: "1001"})
	s.do(Observation{Kind: LegCreated, Leg: "b", Link: "a", Parent: "a", Dialed: "15551234567", User: "trunk"})
	s.do(is(LegConnected, "b")).do(is(LegConnected, "a"))
	s.do(Observation{Kind: TransferDone, Leg: "a", Value: "blind", Dialed: "1002"}).do(is(LegReleasing, "a")).do(cleared("a", 16))
	s.do(Observation{Kind: LegCreated, Leg: "c", Link: "a", Parent: "b", User: "1002"}).do(is(LegConnected, "c"))
	s.now += 600 * Second
	s.do(is(LegReleasing, "b")).do(cleared("b", 16)).do(cleared("c", 16))
	r := s.record(t)
	t.Logf("%+v hangup %s", *r.Durations, r.HangupBy)
	if r.Durations.TalkMS < 600000 {
		t.Errorf("talk_ms %d of %d", r.Durations.TalkMS, r.Durations.TotalMS)
	}
	if r.HangupBy == "1001" {
		t.Errorf("hangup_by %s, who left ten minutes earlier", r.HangupBy)
	}
}

// session refresh during a hold
func TestHoldMoves(t *testing.T) {
	s := answered().do(is(LegHeld, "b"))
	s.now += 900 * Second
	s.do(is(LegHeld, "b"))
	s.now += 10 * Second
	s.do(is(LegRetrieved, "b")).do(cleared("b", 16)).do(cleared("a", 16))
	if d := s.record(t).Durations; d.HoldMS < 900000 {
		t.Errorf("hold_ms %d of 912 s on hold", d.HoldMS)
	}
}

func TestAbandonedOutbound(t *testing.T) {
	s := newScript()
	s.t.agents[legKey{"pbx", "1001"}] = ""
	s.do(Observation{Kind: LegCreated, Leg: "a", Link: "a", Inbound: true, Number: "1001", Dialed: "15551234567", User: "1001"})
	s.do(Observation{Kind: LegCreated, Leg: "b", Link: "a", Parent: "a", Dialed: "15551234567", User: "trunk"}).do(is(LegAlerting, "b"))
	s.do(is(LegReleasing, "a")).do(cleared("b", 0)).do(cleared("a", 16))
	if r := s.record(t); r.Outcome == Abandoned {
		t.Errorf("%s call has outcome %s (docs: an inbound call)", r.Direction, r.Outcome)
	}
}

// attended transfer into a queue before the agent answers
func TestConsultQueue(t *testing.T) {
	s := answered()
	s.do(Observation{Kind: LegCreated, Leg: "b2", Link: "b2", Inbound: true, Number: "agent1", Dialed: "600", User: "agent1"}).do(is(LegConnected, "b2"))
	s.do(Observation{Kind: QueueEnter, Leg: "b2", Queue: "q"})
	s.do(Observation{Kind: TransferDone, Leg: "b", Value: "attended", Other: "b2"})
	s.do(cleared("b", 16))
	s.now += 60 * Second
	s.do(agentLeg("c", "b2", "agent2")).do(is(LegConnected, "c"))
	s.do(Observation{Kind: QueueLeave, Leg: "b2", Queue: "q", Value: "answered"})
	s.do(cleared("c", 16)).do(cleared("b2", 16)).do(cleared("a", 16))
	for _, e := range s.events {
		if e.Queue != nil {
			t.Logf("%s call=%.8s %s", e.Type, e.CallID, e.Queue.Result)
		}
	}
	r := s.record(t)
	q, _ := json.Marshal(r.Queue)
	t.Logf("%+v queue %s %v", *r.Durations, q, r.Completeness)
	if r.Durations.QueueMS < 60000 {
		t.Errorf("survivor's queue_ms is %d", r.Durations.QueueMS)
	}
}

// TestStandingAgent: an agent with a standing leg (uuid-standby, AgentLogin, a conference all day) takes three customers,
// each of whom has a call and a record of their own.
func TestStandingAgent(t *testing.T) {
	s := newScript()
	s.do(Observation{Kind: LegCreated, Leg: "ag", Link: "ag", Inbound: true, Number: "1001", Dialed: "*22", User: "1001"}).do(is(LegConnected, "ag"))
	s.now += 3600 * Second
	for i := range 3 {
		a := "c" + strconv.Itoa(i)
		s.do(caller(a, "+1415555010"+strconv.Itoa(i), "1000")).do(is(LegConnected, a)).do(Observation{Kind: QueueEnter, Leg: a, Queue: "support"})
		s.do(Observation{Kind: LegBridged, Leg: a, Bridge: a + "+ag"}).do(Observation{Kind: LegBridged, Leg: "ag", Bridge: a + "+ag"})
		s.do(Observation{Kind: AgentAccept, Leg: a, Queue: "support", Agent: "1001"}).do(Observation{Kind: QueueLeave, Leg: a, Queue: "support", Value: "answered"})
		s.now += 60 * Second
		s.do(is(LegReleasing, a)).do(cleared(a, 16))
	}
	customers, interactions := 0, map[string]bool{}
	for _, e := range s.events {
		if e.Type != CallRecord || e.Call.Direction != Inbound {
			continue
		}
		customers++
		interactions[e.Call.InteractionID] = true
		r := e.Call
		if r.Outcome != Answered || r.HangupBy != "caller" || r.MergedInto != "" || r.Queue.Result != "answered" || r.Durations.TalkMS < 60_000 {
			t.Errorf("record %+v %+v %+v", r, r.Queue, r.Durations)
		}
	}
	if customers != 3 || len(interactions) != 3 {
		t.Errorf("%d customers in %d interactions", customers, len(interactions))
	}
	ids(t, s)
	calls := s.t.Calls()
	if len(calls) != 1 || len(calls[0].Connections) != 1 || calls[0].Connections[0].State != Connected || calls[0].Connections[0].Party.ID != "1001" {
		t.Errorf("the agent afterwards: %+v", calls)
	}
	if s.do(cleared("ag", 16)); s.t.Active() != 0 {
		t.Errorf("%d calls after the agent logged out", s.t.Active())
	}
}

// The first call of an interaction is forgotten while the second goes on: a third still joins.
func TestCorrelationOutlivesTheFirstCall(t *testing.T) {
	tr := NewTracker(Options{})
	sw := SwitchRef{ID: "s"}
	at := Time(1_800_000_000) * Second
	ids := map[string]bool{}
	apply := func(k Kind, leg string) {
		at += Second
		for _, e := range tr.Apply(sw, Observation{Kind: k, Leg: leg, At: at, Received: at, Inbound: true, Correlation: "ticket-1", Native: Native{ID: leg + string(rune('0'+k))}}) {
			ids[e.InteractionID] = true
		}
	}
	apply(LegCreated, "a")
	apply(LegCleared, "a")
	apply(LegCreated, "b")
	at += 400 * Second
	tr.Tick(at)
	apply(LegCreated, "c")
	if len(ids) != 1 {
		t.Errorf("%d interactions, want 1", len(ids))
	}
}

// Asterisk says the same words each time that an agent comes: AMI tells no time unless it is told to. Two events, two ids.
func TestAgentWhoComesTwiceInTheSameWordsIsTwoEvents(t *testing.T) {
	says := func(value string) Observation {
		return Observation{Kind: AgentStateChange, Agent: "agent1", Value: value, Native: Native{Type: "QueueMemberAdded", ID: value}}
	}
	s := newScript().do(says("logged_in")).do(says("logged_out")).do(says("logged_in"))
	if len(s.events) != 3 || s.events[0].ID == s.events[2].ID {
		t.Errorf("%d events, ids %s and %s", len(s.events), s.events[0].ID, s.events[2].ID)
	}
}

// An agent who is found ready by two snapshots, and was busy in between, became ready twice: two events, two ids.
func TestAgentFoundTwiceInOneStateIsTwoEvents(t *testing.T) {
	found := func(value string) Observation {
		return Observation{Kind: AgentStateChange, Agent: "agent1", Value: value, Synthetic: true, Native: Native{Type: "QueueMember", ID: value}}
	}
	s := newScript().do(found("ready")).do(found("busy")).do(found("ready"))
	if len(s.events) != 3 || s.events[0].ID == s.events[2].ID {
		t.Errorf("%d events, ids %s and %s", len(s.events), s.events[0].ID, s.events[2].ID)
	}
}
