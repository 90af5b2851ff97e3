package adaptertest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// Blind is a stretch in which nobody listened: From the last event before it To the snapshot that ended it, in switch time.
type Blind struct{ From, To call.Time }

// slack is how far times of one thing may lie apart that a switch tells in different ways (events and snapshots; calls
// records to the second are allowed for where they are used).
const slack = 60 * call.Millisecond

// Check compares the events of a run that was blind for a while with those of one that heard everything. Faults are
// statements that are wrong, and things left out without a word; losses are what completeness owns up to, by names that
// can be counted.
//
// What counts as owned up: a bound in place of a time needs its entry in missing and must lie on the right side; an
// absent or unknown value is no statement; what came and went wholly inside the stretch leaves no trace, and is covered
// by gaps.
func (b Blind) Check(whole, cut []*call.Event) (losses, faults []string) {
	faults = StreamFaults(cut)
	want, got := recordsByID(whole), recordsByID(cut)
	for id, r := range got {
		w := want[id]
		if w == nil {
			faults = append(faults, fmt.Sprintf("call %s was never made", id))
			continue
		}
		c := comparison{b: b, r: r, w: w}
		c.record()
		faults = append(faults, c.faults...)
		losses = append(losses, c.losses...)
	}
	for id, w := range want {
		if inside := w.StartedAt >= b.From-slack && w.EndedAt <= b.To+slack; got[id] == nil && !inside {
			faults = append(faults, fmt.Sprintf("call %s (%s to %s) has no record", id, w.StartedAt, w.EndedAt))
		} else if got[id] == nil {
			losses = append(losses, "call")
		}
	}
	return losses, faults
}

func recordsByID(events []*call.Event) map[string]*call.Call {
	out := map[string]*call.Call{}
	for _, e := range events {
		if e.Type == call.CallRecord {
			out[e.CallID] = e.Call
		}
	}
	return out
}

// comparison is one record of the blind run, r, beside that of the other, w.
type comparison struct {
	b              Blind
	r, w           *call.Call
	losses, faults []string
}

func (c *comparison) wrong(format string, a ...any) {
	c.faults = append(c.faults, fmt.Sprintf("call %.8s: ", c.r.ID)+fmt.Sprintf(format, a...)+fmt.Sprintf(" (missing %v)", c.missing()))
}

func (c *comparison) lost(what string) {
	if !slices.Contains(c.losses, what) {
		c.losses = append(c.losses, what)
	}
}

func (c *comparison) missing() []string {
	if c.r.Completeness == nil {
		return nil
	}
	return c.r.Completeness.Missing
}

// told reports whether completeness names one of what.
func (c *comparison) told(what ...string) bool {
	return slices.ContainsFunc(c.missing(), func(m string) bool { return slices.Contains(what, m) })
}

func (c *comparison) record() {
	r, w := c.r, c.w
	if r.Completeness == nil {
		if a, b := c.sameParties(r), *w; !reflect.DeepEqual(a, b) {
			c.wrong("says that nothing is missing, and differs: %s", difference(&a, &b))
		}
		return
	}
	if v := r.Completeness.Violations + r.Completeness.Late; v > 0 {
		c.wrong("%d events were applied backwards", v)
	}
	c.facts()
	c.bound("started_at", r.StartedAt, w.StartedAt, "start")
	if !c.unmerged() {
		c.fact("hangup_by", r.HangupBy, w.HangupBy)
		c.fact("cause", q850(r.Cause), q850(w.Cause))
		if r.MergedInto == "" || !c.told("end", "start", "transfers") { // a leg that is found later may be known at once for what it became
			c.bound("ended_at", r.EndedAt, w.EndedAt, "end")
		}
	}
	if r.AnsweredAt != 0 {
		c.bound("answered_at", r.AnsweredAt, w.AnsweredAt, "connected", "answer", "start")
	}
	c.queue()
	c.items()
	for _, n := range r.Connections {
		c.connection(n)
	}
	c.durations()
}

// facts are values that are right or absent.
func (c *comparison) facts() {
	r, w := c.r, c.w
	if r.Outcome != w.Outcome {
		if r.Outcome != call.OutcomeUnknown || !c.told("answer", "end", "start") {
			c.wrong("outcome is %s, was %s", r.Outcome, w.Outcome)
		}
		c.lost("outcome")
	}
	c.fact("direction", string(r.Direction), string(w.Direction))
	c.fact("from", address(r.From).Number, address(w.From).Number)
	c.fact("to", address(r.To).Number, address(w.To).Number)
	if r.MergedInto != w.MergedInto {
		if r.MergedInto != "" || !c.told("end", "answer", "transfers", "start") {
			c.wrong("merged into %q, was %q", r.MergedInto, w.MergedInto)
		}
		c.lost("merge")
	}
	if r.IVRPath != w.IVRPath {
		if !strings.HasPrefix(w.IVRPath, r.IVRPath) {
			c.wrong("ivr_path is %q, was %q", r.IVRPath, w.IVRPath)
		}
		c.lost("ivr_path")
	}
	if r.Digits != w.Digits {
		if !subsequence(r.Digits, w.Digits) {
			c.wrong("digits are %q, were %q", r.Digits, w.Digits)
		}
		c.lost("digits")
	}
}

// byEndpoint reports whether one of two views of a leg goes by its endpoint, since what was dialed there was not seen, or
// came too late: two readers of a busy switch need not agree on that.
func byEndpoint(n, w *call.Connection) bool {
	return (w.Party.Role == call.RoleExternal || n.Party.Role == call.RoleExternal) && n.Party.Device == w.Party.Device
}

// sameParties is r with the parties of c.w where those of r go by their endpoints.
func (c *comparison) sameParties(r *call.Call) call.Call {
	out := *r
	out.Connections = slices.Clone(r.Connections)
	for i, n := range out.Connections {
		if i < len(c.w.Connections) && n.ID == c.w.Connections[i].ID && n.Party != c.w.Connections[i].Party && byEndpoint(n, c.w.Connections[i]) {
			same := *n
			same.Party = c.w.Connections[i].Party
			out.Connections[i] = &same
			c.lost("party")
		}
	}
	return out
}

// fact compares a value that is right or absent.
func (c *comparison) fact(name, got, want string) {
	if got != "" && got != want {
		c.wrong("%s is %q, was %q", name, got, want)
	}
	if got != want {
		c.lost(name)
	}
}

// unmerged reports whether two calls were found to be one, and the run that was blind did not see it.
func (c *comparison) unmerged() bool { return c.r.MergedInto == "" && c.w.MergedInto != "" }

// inside reports whether something lay wholly in the stretch.
func (c *comparison) inside(from, to call.Time) bool {
	return from >= c.b.From-slack && to <= c.b.To+slack
}

func q850(c *call.Cause) string {
	if c == nil || c.Q850 == 0 {
		return ""
	}
	return fmt.Sprint(c.Q850)
}

func subsequence(a, b string) bool {
	for _, x := range a {
		i := strings.IndexRune(b, x)
		if i < 0 {
			return false
		}
		b = b[i+1:]
	}
	return true
}

// bound compares a time. One that differs has to be owned up to, and is not before what it bounds.
func (c *comparison) bound(name string, got, want call.Time, owned ...string) {
	if d := got - want; d >= -slack && d <= slack {
		return
	}
	c.lost(name)
	switch {
	case got == 0 && name != "ended_at":
	case !c.told(owned...):
		c.wrong("%s is %s, was %s, and nothing says that it is a bound", name, got, want)
	case got < want-slack && want != 0:
		c.wrong("%s is %s, before the %s that it bounds", name, got, want)
	case got > want && want < c.b.From-slack && want != 0 && got > c.b.To+slack:
		c.wrong("%s is %s, after the snapshot", name, got)
	}
}

func (c *comparison) queue() {
	r, w := c.r.Queue, c.w.Queue
	switch {
	case r == nil && w == nil:
	case r == nil:
		c.lost("queue")
	case w == nil || r.ID != w.ID:
		c.wrong("queue is %+v, was %+v", r, w)
	default:
		c.stay(r, w)
	}
}

func (c *comparison) stay(r, w *call.Queue) {
	if r.Result != w.Result {
		if r.Result != "" || !c.told("queue.left") {
			c.wrong("queue result is %q, was %q", r.Result, w.Result)
		}
		c.lost("queue result")
	}
	for _, x := range []struct {
		name      string
		got, want call.Time
	}{{"queue.entered", r.EnteredAt, w.EnteredAt}, {"queue.left", r.LeftAt, w.LeftAt}} {
		if d := x.got - x.want; d < -slack || d > slack {
			c.lost(x.name)
			if !c.told(x.name) {
				c.wrong("%s at %s, was %s", x.name, x.got, x.want)
			}
		}
	}
}

// items are lists of which some may be missing, and none may be made up.
func (c *comparison) items() {
	r, w := c.r, c.w
	for _, x := range r.Transfers {
		if !slices.ContainsFunc(w.Transfers, func(y call.Transfer) bool { return y.Kind == x.Kind && y.By == x.By && y.To == x.To }) {
			c.wrong("transfer %+v was not among %+v", x, w.Transfers)
		}
	}
	if len(r.Transfers) < len(w.Transfers) {
		c.lost("transfer")
		unseen := !slices.ContainsFunc(w.Transfers, func(x call.Transfer) bool { return !c.inside(x.At, x.At) })
		if !unseen && !c.told("transfers", "end", "start") {
			c.wrong("transfers are %+v, were %+v", r.Transfers, w.Transfers)
		}
	}
	for _, x := range r.Diversions {
		if !slices.ContainsFunc(w.Diversions, func(y call.Diversion) bool { return y.By == x.By && y.To == x.To }) {
			c.wrong("diversion %+v was not among %+v", x, w.Diversions)
		}
	}
	if len(r.Diversions) < len(w.Diversions) {
		c.lost("diversion")
	}
	if r.Conference == nil && w.Conference != nil {
		c.lost("conference")
	} else if r.Conference != nil {
		c.conference()
	}
}

func (c *comparison) conference() {
	if c.w.Conference == nil || c.r.Conference.ID != c.w.Conference.ID {
		c.wrong("conference is %+v, was %+v", c.r.Conference, c.w.Conference)
		return
	}
	for _, p := range c.r.Conference.Participants {
		if !slices.Contains(c.w.Conference.Participants, p) {
			c.wrong("%s was not in the conference of %v", p, c.w.Conference.Participants)
		}
	}
	if len(c.r.Conference.Participants) < len(c.w.Conference.Participants) {
		c.lost("participant")
	}
}

func (c *comparison) connection(n *call.Connection) {
	i := slices.IndexFunc(c.w.Connections, func(x *call.Connection) bool { return x.ID == n.ID })
	if i < 0 {
		if c.r.MergedInto == c.w.MergedInto {
			c.wrong("leg %s was never there", n.ID)
		}
		return
	}
	w := c.w.Connections[i]
	if n.Party.ID != w.Party.ID || n.Party.Role != w.Party.Role {
		c.lost("party")
		if byEndpoint(n, w) {
			return
		}
		c.wrong("the party of %s is %s %s, was %s %s", n.ID, n.Party.Role, n.Party.ID, w.Party.Role, w.Party.ID)
	}
	if n.Outcome != w.Outcome {
		c.lost("leg outcome")
		if n.Outcome != call.OutcomeUnknown && n.Outcome != "" {
			c.wrong("the outcome of %s is %s, was %s", n.ID, n.Outcome, w.Outcome)
		}
	}
	if n.ConnectedAt != 0 {
		c.bound("connected_at", n.ConnectedAt, w.ConnectedAt, "connected", "start")
	}
	if n.AlertingAt != 0 {
		c.bound("alerting_at", n.AlertingAt, w.AlertingAt, "alerting", "start")
	}
	if c.r.MergedInto == "" && c.w.MergedInto == "" && n.ClearedAt != 0 {
		c.bound("cleared_at", n.ClearedAt, w.ClearedAt, "end")
	}
	c.holds(n, w)
}

func (c *comparison) holds(n, w *call.Connection) {
	for _, h := range n.Holds {
		near := func(x call.Span) bool {
			const asked = 300 * call.Millisecond // FreeSWITCH remembers when a hold was asked for
			return h.From >= x.From-asked && h.From <= x.To+slack && h.To >= x.From-slack
		}
		exact := func(x call.Span) bool {
			return max(h.From-x.From, x.From-h.From) <= slack && max(h.To-x.To, x.To-h.To) <= slack
		}
		if slices.ContainsFunc(w.Holds, exact) {
			continue
		}
		c.lost("hold")
		if !slices.ContainsFunc(w.Holds, near) || !c.told("hold", "end", "start") {
			c.wrong("%s held the call %v, and had %v", n.ID, h, w.Holds)
		}
	}
	if len(n.Holds) < len(w.Holds) {
		c.lost("hold")
		for _, x := range w.Holds {
			if !c.inside(x.From, x.To) && len(n.Holds) == 0 && !c.told("hold", "end", "start") {
				c.wrong("the hold %v of %s is nowhere", x, n.ID)
			}
		}
	}
}

// durations follow from the times: one that differs needs a word on one of them, or lies inside the stretch.
func (c *comparison) durations() {
	r, w := c.r.Durations, c.w.Durations
	if r == nil || w == nil {
		c.wrong("durations are %v", r)
		return
	}
	for _, x := range []struct {
		name      string
		got, want int64
		owned     []string
	}{
		{"ring_ms", r.RingMS, w.RingMS, []string{"alerting", "connected", "start", "end", "answer"}},
		{"talk_ms", r.TalkMS, w.TalkMS, []string{"connected", "hold", "start", "end", "answer", "transfers"}},
		{"hold_ms", r.HoldMS, w.HoldMS, []string{"hold", "start", "end"}},
		{"queue_ms", r.QueueMS, w.QueueMS, []string{"queue.entered", "queue.left", "start", "end"}},
		{"total_ms", r.TotalMS, w.TotalMS, []string{"start", "end"}},
	} {
		d := max(x.got-x.want, x.want-x.got)
		if d <= slack.Sub(0) {
			continue
		}
		c.lost(x.name)
		if !c.told(x.owned...) && d > (c.b.To-c.b.From+slack).Sub(0) {
			c.wrong("%s is %d, was %d: more than can have happened unseen", x.name, x.got, x.want)
		}
	}
}

// difference names the first field in which two calls differ.
func difference(a, b *call.Call) string {
	x, y := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			return fmt.Sprintf("%s is %+v, was %+v", x.Type().Field(i).Name, x.Field(i).Interface(), y.Field(i).Interface())
		}
	}
	return "nothing"
}
