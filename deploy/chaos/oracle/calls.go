package oracle

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// inOrder: the events of a call stand in the order of their numbers, and no number is missing or there twice.
func (j *judge) inOrder() {
	for _, id := range j.callIDs() {
		t := j.calls[id]
		last := map[int32]*event{}
		for _, e := range t.events {
			if p := last[e.m.Partition]; p != nil && e.Seq < p.Seq {
				j.violateCall(id, Disorder, messages(p, e), "call %s: %s (seq %d) stands behind seq %d", id, e.Type, e.Seq, p.Seq)
			}
			last[e.m.Partition] = e
		}
		j.unbroken(t)
	}
}

func (j *judge) unbroken(t *told) {
	all := slices.Concat(t.events, t.records)
	ids := map[string]bool{}
	for _, e := range all {
		ids[e.ID] = true
	}
	for _, e := range t.after {
		if !ids[e.ID] { // the others are copies
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, bySeq)
	want := uint64(1)
	for i, e := range all {
		switch {
		case e.Seq == want:
			want++
		case i > 0 && e.Seq == all[i-1].Seq:
			j.violateCall(t.id, Hole, messages(all[i-1], e), "call %s: seq %d is there twice: %s and %s", t.id, e.Seq, all[i-1].Type, e.Type)
		default:
			j.violateCall(t.id, Hole, messages(e), "call %s: seq %d is missing before %s (seq %d)", t.id, want, e.Type, e.Seq)
			want = e.Seq + 1
		}
	}
}

// ended: one call.ended, the last on events, and one call.record.
func (j *judge) ended() {
	for _, id := range j.callIDs() {
		t := j.calls[id]
		var ends []*event
		for _, e := range t.events {
			if e.Type == call.CallEnded {
				ends = append(ends, e)
			}
		}
		if len(ends) != 1 && len(t.events) > 0 {
			j.violateCall(id, Ends, append(messages(ends...), messages(t.tail())...), "call %s has %d call.ended%s", id, len(ends), j.about(t))
		} else if len(ends) == 1 && t.tail() != ends[0] {
			j.violateCall(id, Ends, messages(ends[0], t.tail()), "call %s goes on after call.ended with %s", id, t.tail().Type)
		}
		if len(t.records) != 1 {
			j.violateCall(id, Records, messages(t.records...), "call %s has %d call.record%s", id, len(t.records), j.about(t))
		}
	}
}

// about says what else is known of a call.
func (j *judge) about(t *told) string {
	s := fmt.Sprintf(" (%d events", len(t.events))
	if l := j.lives[t.id]; l == nil {
		s += ", unknown to the witness"
	} else if l.record == nil {
		s += ", not ended for the witness"
	}
	if j.touched(t) {
		s += ", touched by a gap"
	}
	return s + ")"
}

// tail is the event with the highest number, nil without any.
func (t *told) tail() *event {
	if len(t.events) == 0 {
		return nil
	}
	return slices.MaxFunc(t.events, bySeq)
}

// lastStates: what the compacted topic keeps of a call is its end.
func (j *judge) lastStates() {
	for _, id := range j.callIDs() {
		t := j.calls[id]
		switch {
		case t.state == nil && len(t.events) > 0:
			j.violateCall(id, State, messages(t.tail()), "call %s is not on calls", id)
		case t.state == nil || t.state.Value == nil: // its tombstone
		default:
			j.lastState(t)
		}
	}
}

func (j *judge) lastState(t *told) {
	var c call.Call
	if err := json.Unmarshal(t.state.Value, &c); err != nil {
		j.violate(Unreadable, []*Message{t.state}, "%s: %v", t.state.At(), err)
	} else if c.State != call.StateEnded {
		j.violateCall(t.id, State, []*Message{t.state}, "the last of call %s on calls says %s%s", t.id, c.State, j.about(t))
	}
}
