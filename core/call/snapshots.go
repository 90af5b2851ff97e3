package call

import "slices"

// linkDown marks the calls of a switch nobody listens to any more.
func (t *Tracker) linkDown() {
	for c := t.first; c != nil; c = c.next {
		if c.call.Switch.ID != t.sw.ID || c.blind {
			continue
		}
		c.blind, c.blindAt, c.passed, c.waits = true, t.now, true, false
		c.gaps++
		for _, l := range c.legs {
			l.seen = false // by a snapshot that was not finished
			if n := len(l.conn.Holds); l.conn.State == Held && n > 0 && t.now-l.conn.Holds[n-1].From < Second {
				c.miss("hold") // asked for, and the switch may agree to it unseen
			}
		}
	}
}

// linkGap notes a blind interval in every call of the switch.
func (t *Tracker) linkGap() {
	for c := t.first; c != nil; c = c.next {
		if c.call.Switch.ID == t.sw.ID {
			c.gaps++
			c.waits = false
		}
	}
}

// snapshotNew starts a leg that began while nobody listened.
func (t *Tracker) snapshotNew(o *Observation) {
	first := *o
	first.Synthetic = true
	first.Unseen = true
	t.snapshotKnown(t.created(&first), o)
}

// snapshotKept spares a leg that events speak of.
func (t *Tracker) snapshotKept(l *leg, o *Observation) {
	l.seen = true
	l.c.blind = false
	if !l.cleared {
		s := *o
		s.Synthetic = true
		t.snapshotState(l, &s)
		if s.Bridge != "" {
			t.snapshotBridge(l, &s)
		}
	}
}

// snapshotKnown brings a leg to the state the snapshot says it is in. A time that the snapshot does not tell is a bound,
// the snapshot's own, and completeness says so.
func (t *Tracker) snapshotKnown(l *leg, o *Observation) {
	l.seen = true
	l.c.blind = false
	if l.cleared {
		return
	}
	s := *o
	s.Synthetic = true
	t.updated(l, &s)
	t.snapshotState(l, &s)
	if o.Reason == NeverBridged && l == l.c.first {
		l.c.passed = false // whoever was rung meanwhile did not answer
	}
	if o.Bridge != "" {
		t.snapshotBridge(l, &s)
	} else if !o.Unseen {
		t.leaveRoom(l)
	}
}

func (t *Tracker) snapshotState(l *leg, s *Observation) {
	state := ConnectionState(s.Value)
	if state == Alerting && l.conn.AlertingAt == 0 {
		l.c.miss("alerting")
		t.alerting(l, s)
	}
	if state != "up" && state != Connected && state != Held {
		return
	}
	if l.conn.ConnectedAt == 0 {
		l.c.miss("connected")
		t.connected(l, s)
	}
	switch held := l.conn.State == Held; {
	case state == Held && !held:
		t.held(l, s)
	case state == Connected && held:
		l.c.miss("hold")
		t.retrieved(l, s)
	case state == "up" && held:
		l.c.miss("hold")
	}
}

// snapshotBridge moves l to the bridge that the snapshot shows it in. Calls that have met there unseen were put together
// by somebody.
func (t *Tracker) snapshotBridge(l *leg, s *Observation) {
	order := t.merges
	t.bridged(l, s)
	if t.merges != order && s.Conference == "" {
		l.c.miss("transfers")
	}
}

// snapshotEnd clears the legs of this switch that the snapshot did not name: they ended unseen.
func (t *Tracker) snapshotEnd(o *Observation) {
	s := *o
	s.Synthetic, s.Unseen = true, true
	var next *tracked
	for c := t.first; c != nil; c = next {
		next = c.next
		if c.call.Switch.ID != t.sw.ID {
			continue
		}
		t.clearUnnamed(c, &s)
		c.blind, c.backAt = false, t.now
		if c.done {
			continue
		}
		c.settleBlind()
		if l := c.first; c.live > 0 && c.queueOpen && c.answering && l != nil && l.bridge != nil && len(l.bridge.legs) > 1 {
			t.leftUnseen(c, &s) // who talks waits no more
		}
		t.settle(c, &s)
	}
}

// clearUnnamed clears the legs of c that the snapshot did not name.
func (t *Tracker) clearUnnamed(c *tracked, s *Observation) {
	for _, l := range slices.Clone(c.legs) {
		if l.seen || l.cleared {
			l.seen = false
			continue
		}
		s.Leg = l.key.id
		t.clearLost(l, s)
	}
}

// clearLost ends a leg whose end nobody saw: it was over at s.At, and how is not known.
func (t *Tracker) clearLost(l *leg, s *Observation) {
	l.lost = true
	l.c.miss("end")
	t.clear(l, s)
}

// settleBlind notes what the snapshot leaves open of a blind interval.
func (c *tracked) settleBlind() {
	if !c.passed {
		return
	}
	c.passed = false
	if c.live > 0 && c.call.Conference != nil && c.hangup != nil && c.hangup.cleared {
		c.hangup = nil // others went on, and the next may have hung up unseen
	}
	if c.perhapsAnswered() {
		c.unsure = true
		c.miss("answer")
	}
	lost := func(l *leg) bool { return l.lost && l.conn.ConnectedAt != 0 }
	if c.live > 0 && c.call.Conference == nil && slices.ContainsFunc(c.legs, lost) {
		c.miss("transfers")
	}
}

// perhapsAnswered reports whether somebody may have talked to the first party while nobody listened. One who is not yet
// connected, or had hung up before, has talked to nobody.
func (c *tracked) perhapsAnswered() bool {
	l := c.first
	switch {
	case c.answering, l == nil, l.release != 0, l.cleared && !l.lost:
		return false
	}
	return l.lost || l.conn.ConnectedAt != 0
}

// hungUpUnseen reports whether l, which is cleared now, may have hung up before the snapshot that was just taken: a switch
// may need a moment to be done with it.
func (t *Tracker) hungUpUnseen(l *leg) bool {
	c := l.c
	return c.wasBlind() && c.hangup == nil && l.release == 0 && c.backAt != 0 && t.now-c.backAt < 2*Second
}

// stillWaits: the caller has been in one queue all the time, so nobody has answered.
func (c *tracked) stillWaits() {
	c.unsure = false
	c.unmiss("answer")
}

func (c *tracked) unmiss(what string) {
	c.missing = slices.DeleteFunc(slices.Clone(c.missing), func(m string) bool { return m == what })
}

// queueSnapshotEnd takes those who wait no more out of their queues.
func (t *Tracker) queueSnapshotEnd(o *Observation) {
	s := *o
	s.Synthetic = true
	for c := t.first; c != nil; c = c.next {
		if c.call.Switch.ID != t.sw.ID || !c.queueOpen || c.waits {
			continue
		}
		t.leftUnseen(c, &s)
	}
}

// leftUnseen ends a stay in a queue that ended unseen: answered when somebody has been connected since, else for a reason
// not known.
func (t *Tracker) leftUnseen(c *tracked, s *Observation) {
	left, result := *s, ""
	if c.answering && c.call.AnsweredAt >= c.call.Queue.EnteredAt {
		left.At, result = c.call.AnsweredAt, "answered"
	}
	c.miss("queue.left")
	t.leaveQueue(c, c.first, &left, result)
}

// newInstance notices that a switch was restarted or replaced: the calls of the process before are over.
func (t *Tracker) newInstance(o *Observation) {
	old := t.instances[t.sw.ID]
	if t.sw.Instance == "" || old == t.sw.Instance {
		return
	}
	t.instances[t.sw.ID] = t.sw.Instance
	if old == "" {
		return
	}
	t.clearCalls(o, func(c *tracked) bool { return c.call.Switch.ID == t.sw.ID && c.call.Switch.Instance == old })
}

// blindFor is how long a call that nobody listens to is kept without a word of it.
const blindFor = 6 * 3600 * Second

// abandonBlind ends the calls that no snapshot and no event has spoken of for blindFor.
func (t *Tracker) abandonBlind() {
	if t.now < t.blindDue {
		return
	}
	t.blindDue = t.now + 60*Second
	o := &Observation{At: t.now, Received: t.now, Native: Native{Type: "ctigate.blind", ID: t.now.String()}}
	t.clearCalls(o, func(c *tracked) bool { return c.blind && t.now-c.blindAt > blindFor })
}

// clearCalls ends the calls that over picks: when is not known, only that they are over at o.At, or, where that is the
// time of something that lay before, when o was received.
func (t *Tracker) clearCalls(o *Observation, over func(*tracked) bool) {
	s := *o
	s.Synthetic, s.Unseen, s.ByParty, s.Q850, s.SIP, s.At = true, true, false, 0, 0, max(o.At, o.Received)
	sw := t.sw
	defer func() { t.sw = sw }()
	var next *tracked
	for c := t.first; c != nil; c = next {
		next = c.next
		if !over(c) {
			continue
		}
		t.sw = c.call.Switch
		for _, l := range slices.Clone(c.legs) {
			if !l.cleared {
				s.Leg = l.key.id
				t.clearLost(l, &s)
			}
		}
		c.miss("end")
		if !c.done {
			c.passed = true
			c.settleBlind()
			t.settle(c, &s)
		}
	}
}
