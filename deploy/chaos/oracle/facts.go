package oracle

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// judged reports whether the witness's event is one that must be there: what is about the link itself is each
// gateway's own.
func judged(e *call.Event) bool {
	return !strings.HasPrefix(string(e.Type), "source.") && e.Type != call.MediaQuality
}

// published counts what the messages say, by id and by fact.
func (j *judge) published() (ids map[string]bool, facts map[string]int) {
	ids, facts = map[string]bool{}, map[string]int{}
	for _, stream := range []string{"events", "records", "stale"} {
		for _, e := range j.by[stream] {
			if !ids[e.ID] {
				ids[e.ID] = true
				facts[e.fact()]++
			}
		}
	}
	return ids, facts
}

// nothingMissing: all that the witness heard is there, by id or as the same fact, or lies inside a gap.
func (j *judge) nothingMissing() {
	ids, facts := j.published()
	var open []*call.Event
	for _, e := range j.c.Witness {
		if judged(e) {
			if ids[e.ID] {
				facts[Fact(e)]--
			} else {
				open = append(open, e)
			}
		}
	}
	for _, e := range open {
		f := Fact(e)
		if facts[f] > 0 {
			facts[f]--
		} else if j.excuses(e) {
			j.rep.Excused++
		} else if j.overtaken(e) {
			j.rep.Overtaken++
		} else {
			j.violateCall(e.CallID, Missing, nil, "%s %s of call %s, connection %q, seq %d for the witness, received %s (native %s %s %d)", e.ID, e.Type,
				e.CallID, e.ConnectionID, e.Seq, e.Time.Received.Std().Format(stamp), e.Native.Type, e.Native.ID, e.Native.Seq)
		}
	}
}

const stamp = "15:04:05.000"

// excuses reports whether a gap explains that e is not there. Of a call that a gap touched, what was seen later may say
// less; but each leg that ended after the gap must be cleared, and the call ended.
func (j *judge) excuses(e *call.Event) bool {
	at := e.Time.Received.Std()
	if j.inGap(e.Switch.ID, at, at) {
		return true
	}
	if e.CallID == "" { // a change is told where the state before it was known: agentsAgree holds the last
		return j.inGap(e.Switch.ID, time.Time{}, at)
	}
	l := j.lives[e.CallID]
	if l == nil || !l.touched {
		return false
	}
	switch e.Type {
	case call.ConnectionCleared:
		return j.cleared(e.ConnectionID) || j.neverShown(e)
	case call.ConnectionRetrieved: // of a hold that nobody saw begin, Asterisk's word means nothing
		held := *e
		held.Type = call.ConnectionHeld
		return j.toldOf(e) || !j.toldOf(&held)
	case call.ConnectionAlerting, call.ConnectionConnected, call.ConnectionHeld, call.DTMFReceived:
		return j.toldOf(e) || j.neverShown(e)
	}
	return true
}

// neverShown reports whether e's leg began in a gap and was over before the snapshot that followed was told of: no snapshot
// shows it, and what is heard of it since does not tell what it was.
func (j *judge) neverShown(e *call.Event) bool {
	began, ended := j.began[e.ConnectionID], j.over[e.ConnectionID]
	if ended.IsZero() {
		return false
	}
	return slices.ContainsFunc(j.gaps, func(g gap) bool {
		if g.sw != e.Switch.ID || !g.overlaps(began, began) {
			return false
		}
		return !slices.ContainsFunc(j.by["sources"], func(x *event) bool {
			at := x.Time.Received.Std()
			return x.Type == call.SourceReconciled && x.Switch.ID == g.sw && at.After(g.to) && at.Before(ended.Add(-Slack))
		})
	})
}

// toldOf reports whether what e says of its leg is there, be it of another call, for which calls legs belong to may not
// have been seen.
func (j *judge) toldOf(e *call.Event) bool {
	return slices.ContainsFunc(j.by["events"], func(x *event) bool { return x.Type == e.Type && x.ConnectionID == e.ConnectionID })
}

// overtaken reports whether e is about a queue of Asterisk, of which AMI tells, and its call's legs, of which ARI tells,
// while the two, which nothing keeps in step, were read late: then some say another thing or nothing. A caller's number
// that is told within some milliseconds of a call's beginning is in its beginning, or follows it, as the reader came to it;
// the records must agree.
func (j *judge) overtaken(e *call.Event) bool {
	if e.Type == call.CallUpdated && e.Native.Type == "ChannelCallerId" {
		return true
	}
	l := j.lives[e.CallID]
	return l != nil && e.Switch.Kind == "asterisk" && (strings.HasPrefix(string(e.Type), "agent.") || strings.HasPrefix(string(e.Type), "queue.") || e.Type == call.CallUpdated) && j.late(l)
}

// agentsAgree: the last state of each agent is the one that the witness heard last.
func (j *judge) agentsAgree() {
	last := map[string]*event{}
	for _, e := range j.by["events"] {
		if e.Type == call.AgentState && e.Agent != nil {
			k := e.Switch.ID + " " + e.Agent.ID
			if p := last[k]; p == nil || e.m.Offset > p.m.Offset {
				last[k] = e
			}
		}
	}
	want := map[string]*call.Event{}
	for _, e := range j.c.Witness {
		if e.Type == call.AgentState && e.Agent != nil {
			want[e.Switch.ID+" "+e.Agent.ID] = e
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		at := want[k].Time.Received.Std()
		got := last[k]
		if got != nil && got.Synthetic {
			continue // the switch itself said so, when it was asked
		}
		if (got == nil || got.Agent.State != want[k].Agent.State) && !j.inGap(want[k].Switch.ID, at, at) {
			j.violateCall("", Missing, messages(got), "agent %s was %s last, by the witness at %s", k, want[k].Agent.State, at.Format(stamp))
		}
	}
}

// cleared reports whether the leg's end is told anywhere.
func (j *judge) cleared(connection string) bool {
	return slices.ContainsFunc(j.by["records"], func(r *event) bool {
		return slices.ContainsFunc(r.Call.Connections, func(c *call.Connection) bool { return c.ID == connection && c.ClearedAt != 0 })
	})
}

// nothingInvented: each event that is there was heard by the witness, or was made up because a gap touched its call; and
// each leg is one that its switch told of.
func (j *judge) nothingInvented() {
	ids, facts := map[string]bool{}, map[string]int{}
	for _, e := range j.c.Witness {
		ids[e.ID] = true
		facts[Fact(e)]++
	}
	var open []*event
	seen := map[string]bool{}
	for _, stream := range []string{"events", "records", "stale"} {
		for _, e := range j.by[stream] {
			if seen[e.ID] {
				continue
			}
			seen[e.ID] = true
			j.knownLeg(e)
			if ids[e.ID] {
				facts[e.fact()]--
			} else {
				open = append(open, e)
			}
		}
	}
	for _, e := range open {
		f := e.fact()
		if facts[f] > 0 {
			facts[f]--
		} else if j.overtaken(e.Event) {
			j.rep.Overtaken++
		} else if j.told(e) {
			j.rep.Otherwise++
		} else if !j.madeUp(e) {
			j.violateCall(e.CallID, Invented, messages(e), "%s %s of call %s, connection %q: the witness heard nothing of it", e.ID, e.Type, e.CallID, e.ConnectionID)
		}
	}
}

func (j *judge) knownLeg(e *event) {
	sw, leg, ok := strings.Cut(e.ConnectionID, "/")
	if ok && !j.c.Legs[sw][leg] {
		j.violate(Invented, messages(e), "%s %s: switch %s never told of leg %s", e.ID, e.Type, sw, leg)
	}
}

// told reports whether a switch told what e tells of. Two readers of a switch get the same in each channel, and not in the
// same order across channels: what they make of it may differ.
func (j *judge) told(e *event) bool {
	return !e.Synthetic && j.c.Natives[Native{e.Switch.ID, e.Native.ID, e.Native.Seq}]
}

// madeUp reports whether a gap explains an event that the witness has not.
func (j *judge) madeUp(e *event) bool {
	if e.CallID != "" {
		return j.touched(j.call(e.CallID))
	}
	return slices.ContainsFunc(j.readings(e.Time.Received.Std()), func(at time.Time) bool { return j.inGap(e.Switch.ID, at.Add(-5*time.Second), at) })
}

// Suspected begins the reason of a gap that a switch's own times suggest: a stepped clock is enough.
const Suspected = "suspected"

// TakenOver begins the reason of a gap that a node publishes when it took over and had not listened for long enough to
// know that it heard all.
const TakenOver = "taken over"

// takeoverTime is how long after what led to it a takeover may be done.
const takeoverTime = 10 * time.Second

// causes: a gap is published only where a link was disturbed.
func (j *judge) causes() {
	for _, g := range j.gaps {
		if !slices.ContainsFunc(j.c.Troubles, func(t Trouble) bool {
			switch {
			case t.Blind, t.Clock && strings.HasPrefix(g.reason, Suspected):
				return slices.ContainsFunc(g.spans, func(s [2]time.Time) bool { return t.during(g.sw, s[0], s[1]) })
			case strings.HasPrefix(g.reason, TakenOver): // whatever led to it
				return slices.ContainsFunc(g.spans, func(s [2]time.Time) bool { return t.overlaps(s[0].Add(-takeoverTime), s[1]) })
			}
			return false
		}) {
			j.violate(Causeless, []*Message{g.m}, "a gap on %s from %s to %s (%s): nothing disturbed its link then", g.sw,
				g.from.Format(stamp), g.to.Format(stamp), g.reason)
		}
	}
}
