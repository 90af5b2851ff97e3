package call

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

var testSwitch = SwitchRef{ID: "pbx", Kind: "asterisk", Instance: "i1"}

// script applies observations a second apart and returns the events.
type script struct {
	t      *Tracker
	now    Time
	n      int
	events []*Event
}

func newScript() *script { return &script{t: NewTracker(Options{}), now: 1_700_000_000 * Second} }

func (s *script) do(o Observation) *script {
	s.now += Second
	s.n++
	if o.At == 0 {
		o.At = s.now
	}
	o.Received = s.now
	if o.Native.ID == "" {
		o.Native = Native{Type: "test", ID: strconv.Itoa(s.n)}
	}
	s.events = append(s.events, s.t.Apply(testSwitch, o)...)
	return s
}

func (s *script) types() (out []EventType) {
	for _, e := range s.events {
		out = append(out, e.Type)
	}
	return out
}

func (s *script) record(t *testing.T) *Call {
	t.Helper()
	for _, e := range slices.Backward(s.events) {
		if e.Type == CallRecord {
			return e.Call
		}
	}
	t.Fatalf("no record in %v", s.types())
	return nil
}

func caller(leg, number, dialed string) Observation {
	return Observation{Kind: LegCreated, Leg: leg, Link: leg, Inbound: true, Number: number, Dialed: dialed, User: "trunk"}
}

func agentLeg(leg, parent, user string) Observation {
	return Observation{Kind: LegCreated, Leg: leg, Link: parent, Parent: parent, User: user}
}

func is(kind Kind, leg string) Observation { return Observation{Kind: kind, Leg: leg} }

func cleared(leg string, q850 int) Observation {
	return Observation{Kind: LegCleared, Leg: leg, Q850: q850}
}

func answered() *script {
	return newScript().do(caller("a", "+14155550100", "1000")).do(agentLeg("b", "a", "agent1")).
		do(is(LegAlerting, "b")).do(is(LegConnected, "b")).do(is(LegConnected, "a"))
}

func TestAnsweredCall(t *testing.T) {
	s := answered().do(is(LegHeld, "b")).do(is(LegRetrieved, "b")).do(is(LegReleasing, "a")).do(cleared("b", 16)).do(cleared("a", 16))
	want := []EventType{CallOffered, ConnectionInitiated, ConnectionInitiated, ConnectionAlerting, ConnectionConnected,
		ConnectionConnected, ConnectionHeld, ConnectionRetrieved, ConnectionCleared, ConnectionCleared, CallEnded, CallRecord}
	if got := s.types(); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	r := s.record(t)
	if r.Outcome != Answered || r.HangupBy != "caller" || r.Direction != Inbound || r.State != StateEnded {
		t.Errorf("record %+v", r)
	}
	if d := *r.Durations; d != (Durations{RingMS: 1000, TalkMS: 2000, HoldMS: 1000, TotalMS: 8000}) {
		t.Errorf("durations %+v", d)
	}
	if s.t.Active() != 0 || len(s.t.Calls()) != 0 {
		t.Errorf("%d calls still active", s.t.Active())
	}
}

func TestOutcomes(t *testing.T) {
	for _, x := range []struct {
		name string
		s    *script
		want Outcome
		by   string
	}{
		{"abandoned", newScript().do(caller("a", "1", "2")).do(is(LegReleasing, "a")).do(cleared("a", 16)), Abandoned, "caller"},
		{"busy", newScript().do(caller("a", "1", "2")).do(agentLeg("b", "a", "x")).do(cleared("b", 17)).do(cleared("a", 17)), Busy, "switch"},
		{"rejected", newScript().do(caller("a", "1", "2")).do(agentLeg("b", "a", "x")).do(is(LegReleasing, "b")).do(cleared("b", 21)).do(cleared("a", 21)), Rejected, "switch"},
		{"no answer, normal cause", newScript().do(caller("a", "1", "2")).do(agentLeg("b", "a", "x")).do(is(LegAlerting, "b")).do(cleared("b", 0)).do(cleared("a", 16)), NoAnswer, "switch"},
		{"unallocated", newScript().do(caller("a", "1", "2")).do(cleared("a", 1)), Failed, "switch"},
		{"self service", newScript().do(caller("a", "1", "2")).do(is(LegConnected, "a")).do(cleared("a", 16)), OutcomeUnknown, "switch"},
	} {
		t.Run(x.name, func(t *testing.T) {
			if r := x.s.record(t); r.Outcome != x.want || r.HangupBy != x.by {
				t.Errorf("outcome %s by %s, want %s by %s", r.Outcome, r.HangupBy, x.want, x.by)
			}
		})
	}
}

// TestTransitions walks the one table: what it calls illegal is published flagged, counted, and changes nothing.
func TestTransitions(t *testing.T) {
	states := []ConnectionState{Null, Initiated, Alerting, Connected, Held, Queued, FailedC}
	for _, from := range states {
		for _, to := range states {
			s := answered()
			l := s.t.legs[legKey{"pbx", "b"}]
			l.write().State = from
			ok := s.t.enter(l, to)
			if allowed := transitions[from][to] != illegal; ok != allowed {
				t.Errorf("%s to %s: %v", from, to, ok)
			} else if !ok && (l.conn.State != from || l.c.violations != 1) {
				t.Errorf("%s to %s: state %s, %d violations", from, to, l.conn.State, l.c.violations)
			}
		}
	}
	if transitions[Connected][Alerting] != illegal || transitions[Alerting][Connected] != moves {
		t.Error("the table lost its teeth")
	}
}

func TestIllegalIsPublished(t *testing.T) {
	s := newScript().do(caller("a", "1", "2")).do(agentLeg("b", "a", "x")).do(is(LegConnected, "b")).do(is(LegAlerting, "b"))
	e := s.events[len(s.events)-1]
	if e.Type != ConnectionAlerting || !slices.Contains(e.Flags, FlagTransition) || e.Call.Completeness.Violations != 1 {
		t.Errorf("got %+v", e)
	}
}

func TestAttendedTransferMerges(t *testing.T) {
	s := answered()
	s.do(caller("c", "agent1", "1002")).do(agentLeg("d", "c", "agent2")).do(is(LegConnected, "d")).do(is(LegConnected, "c"))
	first, consult := s.events[0].CallID, NewID("pbx", "c")
	s.do(Observation{Kind: TransferDone, Leg: "b", Other: "c", Value: "attended"})
	s.do(cleared("b", 16)).do(cleared("c", 16)).do(is(LegReleasing, "a")).do(cleared("a", 16)).do(cleared("d", 16))
	var merged *Call
	for _, e := range s.events {
		if e.Type == CallRecord && e.CallID == consult {
			merged = e.Call
		}
	}
	if merged == nil || merged.MergedInto != first || merged.InteractionID != first || merged.Direction != Internal {
		t.Fatalf("consultation record %+v", merged)
	}
	r := s.record(t)
	if r.ID != first || len(r.Transfers) != 1 || r.Transfers[0] != (Transfer{"attended", "agent1", "1002", r.Transfers[0].At, "success"}) {
		t.Errorf("record %+v", r)
	}
	if len(r.Connections) != 4 {
		t.Errorf("%d connections, want the caller's, agent1's two and agent2's", len(r.Connections))
	}
}

func TestSecondEndOfOneDialogJoinsTheInteraction(t *testing.T) {
	s := newScript()
	o := agentLeg("b", "a", "agent1")
	o.SIPCallID = "x@pbx"
	s.do(caller("a", "1", "1001")).do(o)
	c := caller("c", "1", "1002")
	c.SIPCallID = "x@pbx"
	s.do(c)
	last := s.events[len(s.events)-1]
	if last.CallID == last.InteractionID || last.InteractionID != s.events[0].CallID {
		t.Errorf("interaction %s, want %s", last.InteractionID, s.events[0].CallID)
	}
}

func TestQueueEndsWithoutAWord(t *testing.T) {
	s := newScript().do(caller("a", "1", "2000")).do(Observation{Kind: QueueEnter, Leg: "a", Queue: "support"}).
		do(is(LegReleasing, "a")).do(cleared("a", 16))
	if s.types()[len(s.events)-1] == CallRecord {
		t.Fatal("ended without waiting for the queue")
	}
	s.events = append(s.events, s.t.Tick(s.now+100*Millisecond)...)
	if s.types()[len(s.events)-1] == CallRecord {
		t.Fatal("did not wait long enough")
	}
	s.events = append(s.events, s.t.Tick(s.now+Second)...)
	r := s.record(t)
	if r.Queue.Result != "abandoned" || r.Outcome != Abandoned || !slices.Contains(r.Completeness.Missing, "queue.left") {
		t.Errorf("record %+v %+v", r.Queue, r)
	}
}

func TestBlindInterval(t *testing.T) {
	s := answered().do(caller("z", "9", "2")).do(Observation{Kind: LinkDown})
	if got := s.t.Calls()[0].State; got != StateUnknown {
		t.Fatalf("state %s while nobody listens", got)
	}
	s.do(Observation{Kind: SnapshotLeg, Leg: "a", Inbound: true, Value: "up"}).
		do(Observation{Kind: SnapshotLeg, Leg: "b", Value: string(Held)}).
		do(Observation{Kind: SnapshotLeg, Leg: "n", Link: "n", Inbound: true, Number: "5", Dialed: "6", Value: "connected"}).
		do(Observation{Kind: SnapshotEnd})
	if r := s.record(t); r.From.Number != "9" || r.Completeness.Gaps != 1 || !slices.Contains(r.Completeness.Missing, "end") {
		t.Errorf("the call that ended unseen: %+v", r)
	}
	calls := s.t.Calls()
	if len(calls) != 2 || calls[0].State != StateActive || calls[0].Connections[1].State != Held {
		t.Fatalf("calls after the snapshot: %+v", calls)
	}
	if c := calls[1].Completeness; c == nil || c.SyntheticEvents == 0 || !slices.Contains(c.Missing, "start") {
		t.Errorf("the call that began unseen: %+v", calls[1])
	}
}

func TestGapIsNoted(t *testing.T) {
	s := answered().do(Observation{Kind: LinkGap}).do(is(LegReleasing, "a")).do(cleared("b", 16)).do(cleared("a", 16))
	if c := s.record(t).Completeness; c == nil || c.Gaps != 1 {
		t.Errorf("completeness %+v", c)
	}
}

func TestLateAfterEnd(t *testing.T) {
	s := newScript().do(caller("a", "1", "2")).do(cleared("a", 16)).do(Observation{Kind: DTMFDigit, Leg: "a", Value: "1"})
	e := s.events[len(s.events)-1]
	if e.Type != DTMFReceived || !e.AfterEnd() {
		t.Errorf("got %+v", e)
	}
	n := len(s.events)
	if s.do(cleared("a", 16)); len(s.events) != n {
		t.Errorf("a repeated end gave %v", s.types()[n:])
	}
	if s.do(caller("a", "1", "2")); len(s.events) != n {
		t.Errorf("a repeated beginning gave %v", s.types()[n:])
	}
}

func TestSameInputSameEvents(t *testing.T) {
	a, b := answered(), answered()
	for i := range a.events {
		if a.events[i].ID != b.events[i].ID || a.events[i].CallID != b.events[i].CallID {
			t.Fatalf("event %d differs: %+v and %+v", i, a.events[i], b.events[i])
		}
	}
}

func TestForgets(t *testing.T) {
	s := newScript()
	s.t.opt.MaxEnded = 10
	for i := range 100 {
		id := strconv.Itoa(i)
		s.do(caller(id, "1", "2")).do(cleared(id, 16))
	}
	if len(s.t.legs) > 11 || len(s.t.roots) > 11 || len(s.t.ended)-s.t.endedHead > 11 {
		t.Errorf("%d legs, %d calls, %d ended remembered", len(s.t.legs), len(s.t.roots), len(s.t.ended)-s.t.endedHead)
	}
	s.t.Tick(s.now + 1000*Second)
	if len(s.t.legs)+len(s.t.roots)+len(s.t.sip)+len(s.t.rooms) != 0 {
		t.Errorf("something stays: %d legs, %d calls", len(s.t.legs), len(s.t.roots))
	}
}

// FuzzTracker applies observations in any order: no panic, seq without holes, at most one end a call, and last.
func FuzzTracker(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint16(200))
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint16) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newScript()
		s.t.opt.Linger = 1e6 * Second // nothing is forgotten
		leg := func() string { return strconv.Itoa(r.IntN(8)) }
		for range n % 2000 {
			s.do(Observation{
				Kind: Kind(r.IntN(int(LinkGap) + 2)), Leg: leg(), Link: leg(), Other: leg(), Parent: leg(),
				At: s.now + Time(r.IntN(5)-2)*Second, Inbound: r.IntN(2) == 0, Unseen: r.IntN(4) == 0, ByParty: r.IntN(2) == 0,
				Number: "+1415555010" + leg(), Dialed: leg(), User: "u" + leg(), Bridge: leg(), Queue: "q", Agent: "u" + leg(),
				Conference: []string{"", "", "room"}[r.IntN(3)], SIPCallID: leg(), Q850: r.IntN(130),
				Value: []string{"", "held", "connected", "alerting", "up", "attended", "ready"}[r.IntN(7)],
			})
			if r.IntN(10) == 0 {
				s.events = append(s.events, s.t.Tick(s.now)...)
			}
			for c := s.t.first; c != nil; c = c.next {
				if !c.dirty && c.settled != "" && c.settled != c.derive() {
					t.Fatalf("state %s was kept, it is %s", c.settled, c.derive())
				}
			}
		}
		seq, ended := map[string]uint64{}, map[string]bool{}
		for _, e := range s.events {
			if e.CallID == "" || e.AfterEnd() {
				continue
			}
			if seq[e.CallID]++; seq[e.CallID] != e.Seq {
				t.Fatalf("%s: seq %d, want %d", e.Type, e.Seq, seq[e.CallID])
			}
			if ended[e.CallID] && e.Type != CallRecord || e.Type == CallEnded && ended[e.CallID] {
				t.Fatalf("%s after the end of %s", e.Type, e.CallID)
			}
			ended[e.CallID] = ended[e.CallID] || e.Type == CallEnded
		}
	})
}
