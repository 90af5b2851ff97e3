package call

import "cmp"

func (t *Tracker) queueEnter(l *leg, o *Observation) {
	c := l.c
	c.waits = true
	if o.Synthetic && c.knowsStay(o) || !o.Synthetic && c.queueOpen && c.call.Queue.ID == o.Queue {
		return
	}
	switch {
	case c.queueOpen && o.Synthetic:
		t.leftUnseen(c, o)
	case c.queueOpen: // its end was not told
		t.leaveQueue(c, l, o, "timeout")
	}
	if o.Synthetic {
		c.miss("queue.entered")
	}
	c.queueOpen, c.waits, c.dirty = true, true, true
	c.call.Queue = &Queue{ID: o.Queue, EnteredAt: o.At, Position: o.Count}
	t.emit(c, QueueEntered, l, o).Queue = c.call.Queue
}

// knowsStay reports whether the stay in a queue that a snapshot names is the latest that is known: one that goes on, in
// which nobody can have answered, or one that has ended since. Switches tell its beginning to the second.
func (c *tracked) knowsStay(o *Observation) bool {
	const slack = 2 * Second
	q := c.call.Queue
	switch {
	case q == nil || q.ID != o.Queue:
		return false
	case c.queueOpen:
		same := o.At > q.EnteredAt-slack && o.At < q.EnteredAt+slack
		if same {
			c.stillWaits()
		}
		return same
	case o.At >= q.LeftAt:
		return false
	}
	c.waits = false
	if q.EnteredAt == 0 {
		begun := *q
		begun.EnteredAt = o.At
		c.call.Queue = &begun
		c.queueMS += q.LeftAt.Sub(o.At)
	}
	return true
}

// queueLeave ends the stay in a queue; o.Value is the result.
func (t *Tracker) queueLeave(l *leg, o *Observation) {
	c := l.c
	if c.queueOpen && o.Queue != "" && c.call.Queue.ID != o.Queue {
		return // of an earlier queue
	}
	if !c.queueOpen {
		if c.call.Queue != nil {
			return
		}
		c.call.Queue = &Queue{ID: o.Queue} // its entry was never seen
		c.miss("queue.entered")
	}
	if o.Value == "answered" && c.wasBlind() {
		o = c.answeredUnseen(o)
	}
	if o.Synthetic || o.Value == "" {
		c.miss("queue.left")
	}
	t.leaveQueue(c, l, o, o.Value)
}

// answeredUnseen: a switch that tells at the end of a call that an agent had taken it, tells all that is known of that.
func (c *tracked) answeredUnseen(o *Observation) *Observation {
	left := *o
	switch at := c.call.AnsweredAt; {
	case !c.answering:
		c.miss("queue.left")
		c.call.Outcome = Answered
	case at >= c.call.Queue.EnteredAt && at < o.At:
		c.miss("queue.left")
		left.At = at
	}
	return &left
}

func (t *Tracker) leaveQueue(c *tracked, l *leg, o *Observation, result string) {
	q := *c.call.Queue
	q.LeftAt, q.Result = max(o.At, q.EnteredAt), result
	if q.EnteredAt != 0 {
		c.queueMS += q.LeftAt.Sub(q.EnteredAt)
	}
	c.call.Queue, c.queueOpen, c.waits, c.dirty = &q, false, false, true
	t.emit(c, QueueLeft, l, o).Queue = &q
}

func (t *Tracker) agentEvent(l *leg, o *Observation) {
	typ := AgentOffered
	switch o.Kind {
	case AgentAccept:
		typ = AgentAccepted
	case AgentReject:
		typ = AgentRejected
	case AgentTimeout:
		typ = AgentNoAnswer
	}
	t.learnAgent(o.Agent)
	t.emit(l.c, typ, l, o).Agent = &AgentInfo{ID: o.Agent, Queue: o.Queue}
}

// agentState publishes an agent's change of state. It belongs to no call.
func (t *Tracker) agentState(o *Observation) {
	k := legKey{t.sw.ID, cmp.Or(o.Other, o.Agent)}
	now := o.Value + "\x00" + o.Reason
	if t.agents[k] == now || o.Agent == "" {
		return
	}
	if _, known := t.agents[k]; !known && len(t.agents) >= maxAgents {
		return
	}
	t.agents[k] = now
	e := &Event{
		Type: AgentState, Switch: t.sw, Native: o.Native, Synthetic: o.Synthetic,
		Time:  EventTime{Switch: o.At, Received: o.Received},
		Agent: &AgentInfo{ID: o.Agent, State: o.Value, Reason: o.Reason, Queue: o.Queue},
	}
	subject := k.id
	if o.Synthetic { // a switch that is asked twice may say the same words of two moments
		subject += "@" + o.Received.String()
	} else if o.Native.Seq == 0 { // and without a number or a time it says them each time that an agent comes or goes
		subject += "@" + o.At.String()
	}
	e.ID = EventID(t.sw, o.Native, AgentState, subject)
	t.out = append(t.out, e)
}
