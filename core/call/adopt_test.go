package call

import (
	"reflect"
	"testing"
)

// lastWord is what was published last of each call, in the order of their beginnings, with the number of that event.
func lastWord(events []*Event) (calls []*Call, seqs map[string]uint64) {
	seqs = map[string]uint64{}
	at := map[string]int{}
	for _, e := range events {
		if e.Call == nil {
			continue
		}
		i, known := at[e.CallID]
		if !known {
			i = len(calls)
			at[e.CallID] = i
			calls = append(calls, nil)
		}
		calls[i], seqs[e.CallID] = e.Call, e.Seq
	}
	return calls, seqs
}

// onNewDisk is s after a restart that knows no more than what was published.
func onNewDisk(t *testing.T, s *script) *script {
	t.Helper()
	calls, seqs := lastWord(s.events)
	again := &script{t: NewTracker(Options{}), now: s.now}
	for _, c := range calls {
		before := *c
		again.t.Adopt(c, seqs[c.ID], s.now)
		if !reflect.DeepEqual(*c, before) {
			t.Error("what was published has changed")
		}
	}
	return again
}

func TestAdoptedCallGoesOn(t *testing.T) {
	s := answered()
	before := s.events[len(s.events)-1]
	again := onNewDisk(t, s)
	if c := again.t.Calls()[0]; c.State != StateUnknown || c.Completeness.Gaps != 1 || len(c.Connections) != 2 {
		t.Errorf("before the snapshot: %+v", c)
	}
	again.do(Observation{Kind: SnapshotLeg, Leg: "a", Value: "connected", Bridge: "b1"})
	again.do(Observation{Kind: SnapshotLeg, Leg: "b", Value: "held", Bridge: "b1"})
	again.do(Observation{Kind: SnapshotEnd}).do(cleared("b", 16)).do(cleared("a", 16))
	if e := again.events[0]; e.Type != ConnectionHeld || e.CallID != before.CallID || e.Seq != before.Seq+1 || e.Call.State != StateActive {
		t.Errorf("first event: %+v", e)
	}
	r := again.record(t)
	if r.ID != before.CallID || r.Outcome != Answered || r.AnsweredAt != before.Call.AnsweredAt || r.Durations.TalkMS == 0 {
		t.Errorf("record: %+v", r)
	}
}

func TestAdoptedCallEndedUnseen(t *testing.T) {
	again := onNewDisk(t, answered())
	again.do(Observation{Kind: SnapshotEnd})
	r := again.record(t)
	if r.HangupBy != "" || again.t.Active() != 0 || r.Completeness.Gaps != 1 {
		t.Errorf("record: %+v", r)
	}
}

func TestAdoptedCallOfAProcessThatIsGone(t *testing.T) {
	s := &script{t: NewTracker(Options{}), now: 1_700_000_000 * Second}
	sw := testSwitch
	sw.Instance = "one"
	s.events = s.t.Apply(sw, caller("a", "+1", "2"))
	again := onNewDisk(t, s)
	sw.Instance = "two"
	events := again.t.Apply(sw, Observation{Kind: SnapshotEnd, At: s.now, Received: s.now})
	if n := len(events); n == 0 || events[n-1].Type != CallRecord || events[n-1].Switch.Instance != "one" {
		t.Errorf("got %s", told(events))
	}
}

func TestOnlyTheEndWasNotPublished(t *testing.T) {
	s := answered().do(cleared("b", 16)).do(cleared("a", 16))
	for i, e := range s.events {
		if e.Type == CallEnded {
			s.events = s.events[:i]
			break
		}
	}
	again := onNewDisk(t, s)
	if got := again.t.Tick(s.now + Second); len(got) != 2 || got[0].Type != CallEnded || got[0].Seq != uint64(len(s.events))+1 {
		t.Errorf("got %s", told(got))
	}
}

func TestEndedCallIsNotAdopted(t *testing.T) {
	s := answered().do(cleared("b", 16)).do(cleared("a", 16))
	again := onNewDisk(t, s)
	if again.t.Active() != 0 {
		t.Error("an ended call goes on")
	}
	again.do(caller("a", "+1", "2"))
	if again.events[0].CallID == s.events[0].CallID {
		t.Error("an id was used again")
	}
	if c := again.t.Calls()[0]; again.t.Adopt(c, 1, s.now) || again.t.Active() != 1 {
		t.Error("a known call was adopted")
	}
}

// TestMergedCallsAdopted: the merger was published in full, or of one of the two calls only.
func TestMergedCallsAdopted(t *testing.T) {
	s := answered()
	s.do(caller("c", "agent1", "agent2")).do(agentLeg("d", "c", "agent2")).do(is(LegConnected, "d")).do(is(LegConnected, "c"))
	apart := len(s.events)
	s.do(Observation{Kind: LegBridged, Leg: "a", Bridge: "b1"}).do(Observation{Kind: LegBridged, Leg: "d", Bridge: "b1"})
	old, young := s.events[0].CallID, s.events[len(s.events)-1].CallID
	for _, e := range s.events[apart:] {
		if e.Type == CallMerged {
			young = e.CallID
		}
	}
	for name, keep := range map[string]func(i int, e *Event) bool{
		"in full":      func(int, *Event) bool { return true },
		"older only":   func(i int, e *Event) bool { return i < apart || e.CallID == old },
		"younger only": func(i int, e *Event) bool { return i < apart || e.CallID == young },
		"but its end":  func(i int, e *Event) bool { return i < apart || e.Type != CallEnded && e.Type != CallRecord },
		"not at all":   func(i int, e *Event) bool { return i < apart },
	} {
		cut := &script{now: s.now}
		for i, e := range s.events {
			if keep(i, e) {
				cut.events = append(cut.events, e)
			}
		}
		again := onNewDisk(t, cut)
		for _, leg := range []string{"a", "d"} {
			again.do(Observation{Kind: SnapshotLeg, Leg: leg, Value: "connected", Bridge: "b1"})
		}
		again.do(Observation{Kind: SnapshotEnd}).do(cleared("d", 16)).do(cleared("a", 16))
		again.events = append(again.events, again.t.Tick(again.now+Second)...)
		ended := map[string]int{}
		for _, e := range append(cut.events, again.events...) {
			if e.Type == CallEnded {
				ended[e.CallID]++
			}
		}
		if len(ended) != 2 || ended[old] != 1 || ended[young] != 1 || again.t.Active() != 0 {
			t.Errorf("%s: ended %v, %d active", name, ended, again.t.Active())
		}
	}
}
