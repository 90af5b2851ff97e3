package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim"
)

// truth: records say what the witness's say, and what the switch says happened. Those of calls that a gap touched are
// counted when they say something else.
func (j *judge) truth() {
	for _, id := range j.callIDs() {
		t, l := j.calls[id], j.lives[id]
		if l == nil || l.record == nil || len(t.records) == 0 {
			continue
		}
		diffs := differences(t.records[0].Call, l.record)
		if !j.late(l) {
			diffs = append(diffs, stretches(t.records[0].Call.Durations, l.record.Durations)...)
		}
		switch {
		case len(diffs) == 0:
		case l.touched, j.late(l) && l.sw == t.records[0].Switch.ID && t.records[0].Switch.Kind == "asterisk":
			j.rep.Off++ // two links that are read late are not in step
		default:
			j.violateCall(id, Untrue, messages(t.records[0]), "record of call %s: %s", id, short(diffs))
		}
	}
	for _, sw := range slices.Sorted(maps.Keys(j.c.Truths)) {
		for i := range j.c.Truths[sw] {
			j.happened(sw, &j.c.Truths[sw][i])
		}
	}
}

// differences lists what of a record differs from the witness's, but for times.
func differences(got, want *call.Call) (out []string) {
	say := func(what string, g, w any) {
		if g != w {
			out = append(out, fmt.Sprintf("%s is %v, the witness says %v", what, g, w))
		}
	}
	say("outcome", got.Outcome, want.Outcome)
	say("hangup_by", got.HangupBy, want.HangupBy)
	say("direction", got.Direction, want.Direction)
	say("from", number(got.From), number(want.From))
	say("digits", got.Digits, want.Digits)
	say("merged_into", got.MergedInto, want.MergedInto)
	say("queue", queue(got.Queue), queue(want.Queue))
	say("transfers", transfers(got), transfers(want))
	say("connections", connections(got), connections(want))
	return out
}

// late reports whether what was sent of the call may have been read late: then times that no switch tells are late too.
func (j *judge) late(l *life) bool {
	return slices.ContainsFunc(j.c.Troubles, func(t Trouble) bool { return t.during(l.sw, l.from, l.to) })
}

// wrongClock reports whether the call lived while its switch told wrong times: which of two calls is the older, and so goes
// on when they become one, is then not known.
func (j *judge) wrongClock(l *life) bool {
	return slices.ContainsFunc(j.c.Troubles, func(t Trouble) bool { return t.Clock && t.during(l.sw, l.from, l.to) })
}

// stretches lists the durations that differ by more than two readers' clocks explain.
func stretches(g, w *call.Durations) (out []string) {
	if g == nil || w == nil {
		return nil
	}
	for _, d := range []struct {
		what        string
		g, w, bound int64
	}{{"ring_ms", g.RingMS, w.RingMS, tolerance}, {"queue_ms", g.QueueMS, w.QueueMS, untold}, {"talk_ms", g.TalkMS, w.TalkMS, tolerance},
		{"hold_ms", g.HoldMS, w.HoldMS, tolerance}, {"total_ms", g.TotalMS, w.TotalMS, tolerance}} {
		if d.g-d.w > d.bound || d.w-d.g > d.bound {
			out = append(out, fmt.Sprintf("%s is %d, the witness says %d", d.what, d.g, d.w))
		}
	}
	return out
}

// How much durations may differ, in milliseconds: where the switch tells the times, and where the gateway's clock does, as
// for the queue events of AMI.
const (
	tolerance = 60
	untold    = 700
)

func number(a *call.Address) string {
	if a == nil {
		return ""
	}
	return a.Number
}

func queue(q *call.Queue) string {
	if q == nil {
		return ""
	}
	return q.ID + " " + q.Result
}

func transfers(c *call.Call) string {
	var s []string
	for _, t := range c.Transfers {
		s = append(s, t.Kind+" by "+t.By+" to "+t.To+" "+t.Result)
	}
	return strings.Join(s, "; ")
}

func connections(c *call.Call) string {
	var s []string
	for _, x := range c.Connections {
		s = append(s, fmt.Sprintf("%s %s %s %s", x.ID, x.Party.ID, x.Party.Role, x.Outcome))
	}
	slices.Sort(s)
	return strings.Join(s, "; ")
}

// happened compares the records of a simulated call with what its switch says of it.
func (j *judge) happened(sw string, x *sim.Truth) {
	if x.Outcome == "" || x.Cut || len(x.Legs) == 0 {
		return
	}
	recs := j.recordsOf(sw, x.Legs)
	for _, r := range recs {
		if l := j.lives[r.CallID]; l == nil || l.touched || j.late(l) && r.Switch.Kind == "asterisk" || j.wrongClock(l) {
			return
		}
	}
	main := j.survivor(recs, call.ConnectionIDOf(sw, x.Legs[0]))
	if main == nil {
		if l := j.lives[j.legs[call.ConnectionIDOf(sw, x.Legs[0])]]; l == nil || !l.touched {
			j.violateCall(j.legs[call.ConnectionIDOf(sw, x.Legs[0])], Missing, nil, "%s call %d (%s, legs %v): no record", sw, x.Number, x.Script, x.Legs)
		}
		return
	}
	if strangers(main.Call, sw, x.Legs) {
		return // calls that met, as in one conference room: whose it is then is not the switch's to say
	}
	if wrong := wrongs(main.Call, recs, x); len(wrong) > 0 {
		j.violateCall(main.CallID, Untrue, messages(main), "%s call %d (%s): %s", sw, x.Number, x.Script, short(wrong))
	}
}

// recordsOf returns the records with one of the legs.
func (j *judge) recordsOf(sw string, legs []string) (out []*event) {
	for _, r := range j.by["records"] {
		if slices.ContainsFunc(r.Call.Connections, func(c *call.Connection) bool {
			return slices.ContainsFunc(legs, func(l string) bool { return c.ID == call.ConnectionIDOf(sw, l) })
		}) {
			out = append(out, r)
		}
	}
	return out
}

// survivor is the record of the call with that connection, or of the call it was merged into.
func (j *judge) survivor(recs []*event, connection string) *event {
	var found *event
	for _, r := range recs {
		if r.Call.MergedInto == "" && slices.ContainsFunc(r.Call.Connections, func(c *call.Connection) bool { return c.ID == connection }) {
			found = r
		}
	}
	return found
}

// strangers reports whether a call has legs beside those of one simulated call.
func strangers(c *call.Call, sw string, legs []string) bool {
	return slices.ContainsFunc(c.Connections, func(k *call.Connection) bool {
		return !slices.ContainsFunc(legs, func(l string) bool { return k.ID == call.ConnectionIDOf(sw, l) })
	})
}

func wrongs(c *call.Call, recs []*event, x *sim.Truth) (out []string) {
	say := func(what, got, want string) {
		if got != want {
			out = append(out, fmt.Sprintf("%s is %q, the switch says %q", what, got, want))
		}
	}
	say("outcome", string(c.Outcome), string(x.Outcome))
	if x.From != "" {
		say("from", digits(number(c.From)), digits(x.From))
	}
	var by []string
	for _, r := range recs {
		for _, k := range r.Call.Connections {
			if k.ConnectedAt != 0 && k.Party.Role == call.RoleAgent && !slices.Contains(by, k.Party.ID) {
				by = append(by, k.Party.ID)
			}
		}
	}
	want := slices.Clone(x.AnsweredBy)
	slices.Sort(by)
	slices.Sort(want)
	say("answered by", strings.Join(by, " "), strings.Join(want, " "))
	if c.Queue != nil || x.Queue != "" {
		say("queue", cmp.Or(c.Queue, &call.Queue{}).ID, x.Queue)
	}
	return out
}

// digits are those of a telephone number.
func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}
