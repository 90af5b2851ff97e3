package call

import (
	"slices"
	"testing"
)

// down loses the link; back is a snapshot of rows, half a second later.
func (s *script) down() *script { return s.do(Observation{Kind: LinkDown}) }

func (s *script) back(rows ...Observation) *script {
	for _, r := range rows {
		s.do(r)
	}
	return s.do(Observation{Kind: SnapshotEnd})
}

func row(leg, state string) Observation {
	return Observation{Kind: SnapshotLeg, Leg: leg, Value: state}
}

func missing(c *Call) []string {
	if c.Completeness == nil {
		return nil
	}
	return c.Completeness.Missing
}

func TestEndedUnseen(t *testing.T) {
	s := answered().down().back()
	r := s.record(t)
	switch {
	case r.EndedAt != s.now || !slices.Contains(missing(r), "end"):
		t.Errorf("ended at %s, the snapshot was at %s; missing %v", r.EndedAt, s.now, missing(r))
	case r.Outcome != Answered || r.HangupBy != "" || r.Cause != nil:
		t.Errorf("outcome %s, hung up by %q, cause %+v", r.Outcome, r.HangupBy, r.Cause)
	case !s.events[len(s.events)-1].Synthetic || s.t.Active() != 0:
		t.Errorf("not synthetic, or %d calls are left", s.t.Active())
	}
}

// Nobody knows whether a phone that rang when the link was lost was answered.
func TestRingingLost(t *testing.T) {
	r := newScript().do(caller("a", "1", "2")).do(agentLeg("b", "a", "agent1")).do(is(LegAlerting, "b")).down().back().record(t)
	if r.Outcome != OutcomeUnknown || !slices.Contains(missing(r), "answer") || r.Connections[1].Outcome != OutcomeUnknown {
		t.Errorf("outcome %s, of the agent %s, missing %v", r.Outcome, r.Connections[1].Outcome, missing(r))
	}
}

// A caller who had hung up before the link was lost has abandoned the call, whatever came after.
func TestHungUpBeforeTheLinkWasLost(t *testing.T) {
	r := newScript().do(caller("a", "1", "2")).do(agentLeg("b", "a", "agent1")).do(is(LegAlerting, "b")).do(is(LegReleasing, "a")).down().back().record(t)
	if r.Outcome != Abandoned || r.HangupBy != "caller" {
		t.Errorf("outcome %s, hung up by %q", r.Outcome, r.HangupBy)
	}
	r = answered().do(is(LegReleasing, "b")).down().back().record(t)
	if r.Outcome != Answered || r.HangupBy != "" {
		t.Errorf("an agent may have left a call that went on: outcome %s, hung up by %q", r.Outcome, r.HangupBy)
	}
}

func TestHoldsAcrossAGap(t *testing.T) {
	types := func(s *script) []EventType { return s.types()[len(answered().events):] }
	s := answered().down().back(row("a", string(Connected)), row("b", string(Held)))
	if got := types(s); !slices.Equal(got, []EventType{ConnectionHeld}) {
		t.Errorf("held while blind: %v", got)
	}
	if s.down().back(row("a", string(Connected)), row("b", string(Connected))); s.types()[len(s.events)-1] != ConnectionRetrieved {
		t.Errorf("retrieved while blind: %v", types(s))
	}
	if c := s.t.Calls()[0]; !slices.Contains(missing(c), "hold") || c.State != StateActive || c.Completeness.Gaps != 2 {
		t.Errorf("%s, %+v", c.State, c.Completeness)
	}
	ids := map[string]bool{}
	for range 3 { // the same again makes events of their own
		s.down().back(row("a", string(Connected)), row("b", string(Held)))
		s.down().back(row("a", string(Connected)), row("b", string(Connected)))
	}
	for i, e := range s.events {
		if ids[e.ID] || e.Seq != uint64(i+1) {
			t.Errorf("event %d: id %s, seq %d", i, e.ID, e.Seq)
		}
		ids[e.ID] = true
	}
}

func TestKeptLegsAreNotCleared(t *testing.T) {
	s := answered().down().back(Observation{Kind: SnapshotKept, Leg: "a"}, Observation{Kind: SnapshotKept, Leg: "b"}, Observation{Kind: SnapshotKept, Leg: "nobody"})
	if s.t.Active() != 1 || len(missing(s.t.Calls()[0])) != 0 {
		t.Fatalf("%d calls, %+v", s.t.Active(), s.t.Calls())
	}
	r := s.do(is(LegReleasing, "a")).do(cleared("b", 16)).do(cleared("a", 16)).record(t)
	if r.HangupBy != "caller" || r.Cause.Q850 != 16 {
		t.Errorf("hung up by %q, cause %+v", r.HangupBy, r.Cause)
	}
}

// What a session heard of a leg's end is not undone by its snapshot.
func TestNothingIsResurrected(t *testing.T) {
	s := answered().down().do(cleared("b", 16))
	n := len(s.events)
	s.back(row("a", "up"), row("b", "up"))
	if c := s.t.Calls()[0]; len(s.events) != n || c.Connections[1].State != Null {
		t.Errorf("%v, %+v", s.types()[n:], c.Connections[1])
	}
}

func TestASnapshotThatBreaksOff(t *testing.T) {
	s := answered().down().do(row("a", "up")).do(row("b", "up")).down().back(row("a", "up"))
	if c := s.t.Calls()[0]; c.Connections[1].State != Null {
		t.Errorf("a leg of the first snapshot is taken for one of the second: %+v", c.Connections[1])
	}
}

func TestQueuesAcrossAGap(t *testing.T) {
	waiting := func() *script {
		return newScript().do(caller("a", "1", "2")).do(is(LegConnected, "a")).do(Observation{Kind: QueueEnter, Leg: "a", Queue: "q"})
	}
	entry := func(at Time) Observation {
		return Observation{Kind: QueueEnter, Leg: "a", Queue: "q", At: at, Synthetic: true}
	}
	end := Observation{Kind: QueueSnapshotEnd}

	s := waiting()
	entered, n := s.now, len(s.events)
	s.down().back(row("a", "up")).do(entry(entered + Second/2)).do(end)
	if c := s.t.Calls()[0]; len(s.events) != n || c.State != StateQueued || len(missing(c)) != 0 {
		t.Errorf("who still waits: %v, %s, missing %v", s.types()[n:], c.State, missing(c))
	}
	if r := s.do(Observation{Kind: QueueLeave, Leg: "a", Value: "abandoned"}).do(cleared("a", 16)).record(t); r.Outcome != Abandoned {
		t.Errorf("who waited all the time has been answered by nobody: outcome %s, missing %v", r.Outcome, missing(r))
	}

	s = waiting().down().back(row("a", "up")).do(end)
	if c := s.t.Calls()[0]; c.Queue.LeftAt == 0 || c.Queue.Result != "" || !slices.Contains(missing(c), "queue.left") || c.State != StateIVR {
		t.Errorf("who waits no more: %+v, %s, missing %v", c.Queue, c.State, missing(c))
	}
	if r := s.do(is(LegReleasing, "a")).do(cleared("a", 16)).record(t); r.Outcome != OutcomeUnknown {
		t.Errorf("an agent may have answered: outcome %s", r.Outcome)
	}

	s = waiting().down()
	s.now += 60 * Second
	s.back(row("a", "up")).do(entry(s.now)).do(end)
	if got := s.types()[n:]; !slices.Equal(got, []EventType{QueueLeft, QueueEntered}) {
		t.Errorf("who left and came again: %v", got)
	}
}

// Parties who meet unseen were put together by somebody: by whom is not known.
func TestTransferredUnseen(t *testing.T) {
	s := answered().do(Observation{Kind: LegBridged, Leg: "a", Bridge: "x"}).do(Observation{Kind: LegBridged, Leg: "b", Bridge: "x"}).down()
	other := Observation{Kind: SnapshotLeg, Leg: "c", Link: "a", Parent: "a", User: "agent2", Value: string(Connected), Bridge: "x"}
	s.back(Observation{Kind: SnapshotLeg, Leg: "a", Value: string(Connected), Bridge: "x"}, other)
	c := s.t.Calls()[0]
	if len(c.Transfers) != 0 || !slices.Contains(missing(c), "transfers") || c.State != StateActive {
		t.Errorf("%s, transfers %+v, missing %v", c.State, c.Transfers, missing(c))
	}
}

// A leg whose call's beginning is gone is nobody's caller.
func TestWhatIsLeftOfACall(t *testing.T) {
	s := newScript().back(Observation{Kind: SnapshotLeg, Leg: "b", Link: "a", User: "agent1", Number: "1001", Dialed: "1001", Value: "up"})
	c := s.t.Calls()[0]
	if c.ID != NewID(testSwitch.ID, "a") || c.From != nil || c.To != nil || c.Direction != "" {
		t.Errorf("%+v", c)
	}
	if r := s.do(cleared("b", 16)).record(t); r.Outcome != OutcomeUnknown || r.HangupBy != "" {
		t.Errorf("outcome %s, hung up by %q", r.Outcome, r.HangupBy)
	}
}

// The process behind a link is another: what its predecessor's calls came to is not known, and they were over by now.
func TestAnotherInstance(t *testing.T) {
	s := answered()
	sw := testSwitch
	sw.Instance = "i2"
	s.now += 10 * Second
	s.events = append(s.events, s.t.Apply(sw, Observation{Kind: LegCreated, Leg: "n", Link: "n", Inbound: true, At: s.now - 5*Second, Received: s.now})...)
	r := s.record(t)
	if r.EndedAt != s.now || !slices.Contains(missing(r), "end") || r.Outcome != Answered || r.HangupBy != "" {
		t.Errorf("ended at %s, it is %s: %+v", r.EndedAt, s.now, r)
	}
}
