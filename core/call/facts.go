package call

import "cmp"

// enter moves l's connection to state s. It reports whether the transition table allows it; when not, the event is
// published all the same, flagged and counted, and the state stays.
func (t *Tracker) enter(l *leg, s ConnectionState) bool {
	if l.cleared || transitions[l.conn.State][s] == illegal {
		l.c.violations++
		return false
	}
	if l.conn.State != s {
		l.write().State = s
	}
	return true
}

// publish emits a connection event, flagged when its transition was not allowed.
func (t *Tracker) publish(l *leg, typ EventType, o *Observation, allowed bool) *Event {
	e := t.emit(l.c, typ, l, o)
	if !allowed {
		flag := FlagTransition
		if l.cleared {
			flag = FlagLate
		}
		e.Flags = append(e.Flags, flag)
	}
	return e
}

func (t *Tracker) alerting(l *leg, o *Observation) {
	if l.conn.AlertingAt != 0 {
		return
	}
	l.write().AlertingAt = o.At
	t.publish(l, ConnectionAlerting, o, t.enter(l, Alerting))
}

func (t *Tracker) connected(l *leg, o *Observation) {
	if l.conn.ConnectedAt != 0 {
		return
	}
	if l.conn.AlertingAt == 0 && !l.inbound && l.c.wasBlind() {
		l.c.miss("alerting")
	}
	w := l.write()
	w.ConnectedAt, w.Outcome = o.At, Answered
	allowed := t.enter(l, Connected)
	t.noteAnswer(l, o)
	t.publish(l, ConnectionConnected, o, allowed)
	if l.agreed != nil {
		t.negotiated(l, o)
	}
}

// noteAnswer marks the call answered when l is its second party.
func (t *Tracker) noteAnswer(l *leg, o *Observation) {
	c := l.c
	if c.hangup != nil && !c.hangup.cleared { // a late answer after the hang-up began changes nothing
		return
	}
	c.hangup = nil
	if l.secondParty() && !c.answering {
		c.answering, c.dirty = true, true
		c.call.AnsweredAt, c.call.Outcome = o.At, Answered
	}
}

func (t *Tracker) held(l *leg, o *Observation) {
	if l.conn.State == Held {
		l.startHold(o.At)
		return
	}
	allowed := t.enter(l, Held)
	if o.Synthetic { // switches remember when it was asked for, and not when they agreed to it
		l.c.miss("hold")
	}
	if allowed && len(l.conn.Holds) >= maxItems {
		l.c.miss("holds")
	} else if allowed {
		w := l.write()
		w.Holds = append(w.Holds[:len(w.Holds):len(w.Holds)], Span{From: o.At})
	}
	t.publish(l, ConnectionHeld, o, allowed)
}

func (t *Tracker) retrieved(l *leg, o *Observation) {
	if l.conn.State != Held { // Asterisk says so before every transfer
		if l.c.wasBlind() {
			l.c.miss("hold")
		}
		return
	}
	allowed := t.enter(l, Connected)
	l.endHold(o.At)
	t.publish(l, ConnectionRetrieved, o, allowed)
}

// startHold corrects the beginning of an open hold to when the switch agreed to it.
func (l *leg) startHold(at Time) {
	n := len(l.conn.Holds)
	if n == 0 || l.conn.Holds[n-1].To != 0 || at <= l.conn.Holds[n-1].From || at > l.conn.Holds[n-1].From+2*Second {
		return
	}
	w := l.write()
	w.Holds = append([]Span(nil), w.Holds...)
	w.Holds[n-1].From = at
}

// endHold closes an open hold at the given time.
func (l *leg) endHold(at Time) {
	n := len(l.conn.Holds)
	if n == 0 || l.conn.Holds[n-1].To != 0 {
		return
	}
	w := l.write()
	w.Holds = append([]Span(nil), w.Holds...)
	w.Holds[n-1].To = max(at, w.Holds[n-1].From)
}

func (t *Tracker) ivrPath(l *leg, o *Observation) {
	c := l.c
	if l != c.first || o.Value == "" || c.call.IVRPath == o.Value {
		return
	}
	c.call.IVRPath = o.Value
	t.emit(c, IVRStep, l, o).IVRPath = o.Value
}

func (t *Tracker) dtmf(l *leg, o *Observation) {
	const maxDigits = 256
	c := l.c
	if l == c.first && len(c.call.Digits) < maxDigits {
		c.call.Digits += o.Value
	}
	t.emit(c, DTMFReceived, l, o).DTMF = &DTMF{Digit: o.Value, DurationMS: o.Count}
}

// releasing notes which party asked to hang up. A refusal of an unanswered offer is not a hang-up of the call.
func (t *Tracker) releasing(l *leg, o *Observation) {
	if l.cleared || (!l.inbound && l.conn.ConnectedAt == 0) {
		return
	}
	l.release = o.At
	if c := l.c; c.hangup == nil || c.hangup.cleared {
		c.hangup = l
	}
}

// clear ends a leg: Q.850 cause, SIP status, and whether its own party did it.
func (t *Tracker) clear(l *leg, o *Observation) {
	if l.cleared {
		return
	}
	if o.ByParty {
		t.releasing(l, o)
	}
	l.c.hangupOpen = l.c.hangupOpen || o.Unseen
	at := o.At
	if l.release != 0 && l.release < at {
		at = l.release // when the party hung up, rather than when the switch was done with it
	}
	if o.Synthetic || t.hungUpUnseen(l) {
		l.c.miss("end")
	}
	l.endHold(at)
	w := l.write()
	w.ClearedAt = at
	w.Outcome = cmp.Or(w.Outcome, legOutcome(l, o))
	if !l.lost {
		w.Cause = &Cause{CSTA: cstaCause(o.Q850), Q850: o.Q850, SIP: o.SIP}
	}
	if failed(w.Outcome) && !l.inbound {
		w.State = FailedC
		t.emit(l.c, ConnectionFailed, l, o).Cause = w.Cause
		w = l.write()
	}
	w.State = Null
	l.cleared = true
	l.c.live--
	t.leaveRoom(l)
	t.emit(l.c, ConnectionCleared, l, o).Cause = w.Cause
	t.giveBack(l.c, o)
}

func failed(o Outcome) bool { return o == Busy || o == Rejected || o == Failed }

// legOutcome is how an unanswered leg ended, for its own party.
func legOutcome(l *leg, o *Observation) Outcome {
	switch {
	case l.inbound && l.release != 0:
		return Abandoned
	case l.lost:
		return OutcomeUnknown
	case l.inbound && l.c.wasBlind() && outcomeOf(o.Q850) == Failed: // its party may have hung up unseen
		return OutcomeUnknown
	case l.inbound:
		return outcomeOf(o.Q850)
	}
	switch o.Q850 {
	case 17:
		return Busy
	case 21:
		return Rejected
	case 0, 16, 18, 19, 26, 31, 127: // given up on by the switch or the caller
		return NoAnswer
	case 23:
		return NoAnswer // diverted: the call went on elsewhere
	}
	return Failed
}

// outcomeOf maps a Q.850 cause to the outcome of a call that nobody answered.
func outcomeOf(q850 int) Outcome {
	switch q850 {
	case 17:
		return Busy
	case 21:
		return Rejected
	case 18, 19:
		return NoAnswer
	case 0, 16, 31:
		return OutcomeUnknown
	}
	return Failed
}

// cstaCause maps a Q.850 cause to the ECMA-269 event cause of the same meaning.
func cstaCause(q850 int) string {
	switch q850 {
	case 0:
		return ""
	case 1, 2, 3, 22, 28:
		return "destNotObtainable"
	case 16, 31:
		return "normalClearing"
	case 17:
		return "busy"
	case 18, 19:
		return "noAnswer"
	case 20, 27:
		return "destOutOfOrder"
	case 21:
		return "callNotAnswered"
	case 23:
		return "redirected"
	case 26:
		return "callPickup"
	case 34, 38, 41, 42, 44, 47:
		return "networkCongestion"
	case 55, 57, 58:
		return "blocked"
	case 65, 69, 79, 88:
		return "incompatibleDestination"
	}
	return "normal"
}
