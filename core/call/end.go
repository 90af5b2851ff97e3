package call

import (
	"cmp"
	"slices"
)

// settle ends the call when nothing of it is left: at once, or, while it is still in a queue whose end may come on
// another link, after Options.EndGrace.
func (t *Tracker) settle(c *tracked, o *Observation) {
	if c.done || c.live > 0 {
		return
	}
	if c.queueOpen && c.endDue == 0 {
		c.endDue = t.now + t.opt.EndGrace
		t.waiting = append(t.waiting, c)
		return
	}
	if !c.queueOpen {
		t.end(c, o)
	}
}

// Tick lets time pass to now, by the receiving clock: calls that waited for the end of their stay in a queue end, and
// calls that ended long ago are forgotten. Call it about every 50 ms.
func (t *Tracker) Tick(now Time) []*Event {
	t.out = nil
	t.now = max(t.now, now)
	keep := t.waiting[:0]
	for _, c := range t.waiting {
		switch {
		case c.done || c.live > 0:
			c.endDue = 0
		case t.now < c.endDue:
			keep = append(keep, c)
		default:
			t.endWaiting(c)
		}
	}
	t.waiting = keep
	t.abandonBlind()
	t.forget()
	return t.out
}

// endWaiting ends a call whose stay in the queue was never closed by the switch, or whose end was not published before a
// restart.
func (t *Tracker) endWaiting(c *tracked) {
	t.sw = c.call.Switch
	at := c.lastCleared()
	if c.answering {
		at = c.call.AnsweredAt
	}
	o := &Observation{At: at, Received: t.now, Native: Native{Type: "ctigate.end_grace", ID: c.call.ID}, Synthetic: true}
	if c.queueOpen {
		result := "abandoned"
		switch {
		case c.answering:
			result = "answered"
		case c.unsure || slices.Contains(c.missing, "end"):
			result = "" // not known
		}
		c.miss("queue.left")
		t.leaveQueue(c, c.first, o, result)
	}
	o.At = c.lastCleared()
	t.end(c, o)
}

func (c *tracked) lastCleared() Time {
	var at Time
	for _, l := range c.legs {
		at = max(at, l.conn.ClearedAt)
	}
	return at
}

// end publishes the end of a call and its record, and remembers it for a while.
func (t *Tracker) end(c *tracked, o *Observation) {
	c.call.EndedAt = c.lastCleared()
	if c.call.MergedInto != "" || c.call.EndedAt == 0 {
		c.call.EndedAt = o.At
	}
	if c.queueOpen {
		t.leaveQueue(c, c.first, o, "transferred")
	}
	c.done, c.blind = true, false
	c.conclude()
	t.emit(c, CallEnded, nil, o).Cause = c.call.Cause
	t.emit(c, CallRecord, nil, o)
	t.bury(c)
}

// conclude works out outcome, who hung up, cause and durations.
func (c *tracked) conclude() {
	if l := c.first; c.passed && !c.answering && l != nil && l.conn.ConnectedAt != 0 { // no snapshot has settled it
		c.unsure = true
	}
	if c.first != nil && c.first.cleared {
		c.call.Cause = c.first.conn.Cause
	}
	switch {
	case c.call.MergedInto != "":
	case c.hangup != nil && slices.Contains(c.missing, "end") && !c.left(c.hangup): // the call may have gone on unseen
	case c.hangup != nil:
		c.call.HangupBy = c.hangup.name()
	case !c.wasBlind() && !c.hangupOpen && !slices.Contains(c.missing, "end"):
		c.call.HangupBy = "switch"
	}
	if c.call.Outcome == "" {
		c.call.Outcome = c.unanswered()
		if c.call.Outcome == OutcomeUnknown && c.wasBlind() {
			c.miss("answer")
		}
	}
	c.call.Durations = c.durations()
}

// wasBlind reports whether part of the call was not seen.
func (c *tracked) wasBlind() bool { return c.gaps > 0 || c.uncertain }

// left reports whether the call was over when l's party hung up: it was the first, had not passed the call on, and was not
// one of many.
func (c *tracked) left(l *leg) bool {
	passedOn := func(x Transfer) bool { return x.By == l.conn.Party.ID }
	return l == c.first && c.call.Conference == nil && !slices.ContainsFunc(c.call.Transfers, passedOn)
}

// unanswered is the outcome of a call that no second party took.
func (c *tracked) unanswered() Outcome {
	if c.unsure {
		return OutcomeUnknown
	}
	if c.hangup != nil && c.hangup == c.first && c.call.Direction != Outbound {
		return Abandoned
	}
	if c.call.Queue != nil && c.call.Queue.Result == "abandoned" {
		return Abandoned
	}
	if c.call.Cause != nil {
		if out := outcomeOf(c.call.Cause.Q850); out != OutcomeUnknown && !(out == Failed && c.wasBlind()) { // or abandoned unseen
			return out
		}
	}
	for _, l := range slices.Backward(c.legs) {
		if !c.wasBlind() && l != c.first && l.conn.Outcome != "" && l.conn.Outcome != Answered {
			return l.conn.Outcome
		}
	}
	return OutcomeUnknown
}

// durations measures the call in switch time. Ring is while any second party was alerting, talk while at least two
// parties were connected and nobody was on hold.
func (c *tracked) durations() *Durations {
	var ring, hold []Span
	connected := map[string][]Span{}
	for _, l := range append(c.legs[:len(c.legs):len(c.legs)], c.shedLegs...) {
		n := l.conn
		if l.secondParty() || l == c.first && !l.inbound {
			ring = append(ring, clip(Span{n.AlertingAt, firstOf(n.ConnectedAt, n.ClearedAt, c.call.EndedAt)}, l, c)...)
		}
		if l.secondParty() || l == c.first {
			who := cmp.Or(n.Party.ID, n.ID)
			connected[who] = append(connected[who], clip(Span{n.ConnectedAt, firstOf(n.ClearedAt, c.call.EndedAt)}, l, c)...)
		}
		for _, h := range n.Holds {
			hold = append(hold, clip(Span{h.From, firstOf(h.To, c.call.EndedAt)}, l, c)...)
		}
	}
	talk := together(connected)
	d := &Durations{RingMS: total(ring), QueueMS: c.queueMS, HoldMS: total(hold)}
	d.TalkMS = max(0, total(append(talk, hold...))-d.HoldMS)
	if c.call.StartedAt != 0 {
		d.TotalMS = max(0, c.call.EndedAt.Sub(c.call.StartedAt))
	}
	return d
}

// together returns when at least two of the parties were connected.
func together(parties map[string][]Span) (out []Span) {
	type edge struct {
		at   Time
		step int
	}
	var edges []edge
	for _, spans := range parties {
		for _, s := range union(spans) {
			edges = append(edges, edge{s.From, 1}, edge{s.To, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), a.step-b.step) })
	n, since := 0, Time(0)
	for _, e := range edges {
		if n += e.step; n == 2 && e.step > 0 {
			since = e.at
		} else if n == 1 && e.step < 0 && e.at > since {
			out = append(out, Span{since, e.at})
		}
	}
	return out
}

func firstOf(ts ...Time) Time {
	for _, t := range ts {
		if t != 0 {
			return t
		}
	}
	return 0
}

// clip cuts s to l's time in c; nothing remains of an empty or unknown span.
func clip(s Span, l *leg, c *tracked) []Span {
	if s.From == 0 {
		return nil
	}
	s.From = max(s.From, l.joined)
	s.To = min(s.To, c.call.EndedAt)
	if s.To <= s.From {
		return nil
	}
	return []Span{s}
}

// union returns the same time in spans that do not overlap, in order.
func union(spans []Span) []Span {
	s := slices.Clone(spans)
	slices.SortFunc(s, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	var out []Span
	for _, x := range s {
		if n := len(out); n > 0 && x.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, x.To)
		} else {
			out = append(out, x)
		}
	}
	return out
}

// total is the length in milliseconds of the union of spans.
func total(spans []Span) int64 {
	var sum Time
	for _, x := range union(spans) {
		sum += x.To - x.From
	}
	return sum.Sub(0)
}

// bury takes an ended call out of the active ones and remembers its legs for Options.Linger.
func (t *Tracker) bury(c *tracked) {
	t.unlink(c)
	legs := append(c.legs, c.shedLegs...)
	c.legs, c.shedLegs, c.queued = nil, nil, c.call.Queue != nil
	t.roots[c.call.ID] = c
	last := c.call
	c.call = Call{ID: last.ID, InteractionID: last.InteractionID, MergedInto: last.MergedInto, Switch: last.Switch, State: StateEnded}
	t.ended = append(t.ended, tombstone{due: t.now + t.opt.Linger, c: c, legs: legs})
	t.forget()
}

// forget drops the calls that ended longest ago.
func (t *Tracker) forget() {
	for len(t.ended)-t.endedHead > 0 {
		x := &t.ended[t.endedHead]
		if t.now < x.due && len(t.ended)-t.endedHead <= t.opt.MaxEnded {
			break
		}
		for _, l := range x.legs {
			delete(t.legs, l.key)
			for _, key := range [...]string{l.conn.SIPCallID, correlated + l.correlation} {
				if t.sip[key] == l {
					delete(t.sip, key)
				}
			}
		}
		if t.roots[x.c.call.ID] == x.c {
			delete(t.roots, x.c.call.ID)
			t.spent.add(x.c.call.ID)
		}
		*x = tombstone{}
		t.endedHead++
	}
	if t.endedHead > 1024 && t.endedHead*2 > len(t.ended) {
		t.ended = append([]tombstone(nil), t.ended[t.endedHead:]...)
		t.endedHead = 0
	}
}

// afterEnd publishes what arrived after its call had ended, flagged; it belongs on the stale stream only, because
// call.ended is a call's last event.
func (t *Tracker) afterEnd(l *leg, o *Observation) {
	typ, ok := lateTypes[o.Kind]
	if !ok || l.cleared && o.Kind == LegCleared {
		return
	}
	if o.Kind == LegAlerting && l.conn.AlertingAt != 0 || o.Kind == LegConnected && l.conn.ConnectedAt != 0 {
		return // a repetition
	}
	if o.Kind == QueueLeave && l.c.queued || l.c.repeated(o) {
		return
	}
	l.c.late++
	e := t.emit(l.c, typ, l, o)
	e.Flags = append(e.Flags, FlagLate)
}

var lateTypes = map[Kind]EventType{
	LegAlerting: ConnectionAlerting, LegConnected: ConnectionConnected, LegHeld: ConnectionHeld,
	LegRetrieved: ConnectionRetrieved, LegCleared: ConnectionCleared, DTMFDigit: DTMFReceived, IVRPath: IVRStep,
	QueueEnter: QueueEntered, QueueLeave: QueueLeft, AgentOffer: AgentOffered, AgentAccept: AgentAccepted,
	AgentReject: AgentRejected, AgentTimeout: AgentNoAnswer,
}

// AfterEnd reports whether e arrived after its call had ended: it goes to the stale stream alone.
func (e *Event) AfterEnd() bool {
	return e.Call != nil && e.Call.State == StateEnded && slices.Contains(e.Flags, FlagLate)
}
