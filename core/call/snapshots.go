package call

// linkDown marks the calls of a switch nobody listens to any more.
func (t *Tracker) linkDown() {
	for c := t.first; c != nil; c = c.next {
		if c.call.Switch.ID == t.sw.ID && !c.blind {
			c.blind, c.blindAt = true, t.now
			c.gaps++
		}
	}
}

// linkGap notes a blind interval in every call of the switch.
func (t *Tracker) linkGap() {
	for c := t.first; c != nil; c = c.next {
		if c.call.Switch.ID == t.sw.ID {
			c.gaps++
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

// snapshotKnown brings a leg to the state the snapshot says it is in.
func (t *Tracker) snapshotKnown(l *leg, o *Observation) {
	s := *o
	s.Synthetic = true
	l.seen = true
	l.c.blind = false
	t.updated(l, &s)
	switch ConnectionState(o.Value) {
	case Alerting:
		t.alerting(l, &s)
	case "up": // connected; whether on hold is not said
		t.connected(l, &s)
	case Connected:
		t.connected(l, &s)
		t.retrieved(l, &s)
	case Held:
		t.connected(l, &s)
		t.held(l, &s)
	}
	if o.Bridge != "" {
		t.bridged(l, &s)
	}
}

// snapshotEnd clears the legs of this switch that the snapshot did not name: they ended unseen.
func (t *Tracker) snapshotEnd(o *Observation) {
	s := *o
	s.Synthetic = true
	var next *tracked
	for c := t.first; c != nil; c = next {
		next = c.next
		if c.call.Switch.ID != t.sw.ID {
			continue
		}
		for _, l := range append([]*leg(nil), c.legs...) {
			if l.seen || l.cleared {
				l.seen = false
				continue
			}
			c.miss("end")
			s.Leg = l.key.id
			t.clear(l, &s)
		}
		c.blind = false
		if c.done {
			continue
		}
		if c.queueOpen && c.answering { // it left the queue while nobody listened
			left := s
			left.At = c.call.AnsweredAt
			t.leaveQueue(c, c.first, &left, "answered")
		}
		t.settle(c, &s)
	}
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

// clearCalls ends the calls that over picks: when is not known, only that they are over at o.At.
func (t *Tracker) clearCalls(o *Observation, over func(*tracked) bool) {
	s := *o
	s.Synthetic, s.ByParty, s.Q850, s.SIP = true, false, 0, 0
	sw := t.sw
	defer func() { t.sw = sw }()
	var next *tracked
	for c := t.first; c != nil; c = next {
		next = c.next
		if !over(c) {
			continue
		}
		t.sw = c.call.Switch
		c.miss("end")
		for _, l := range append([]*leg(nil), c.legs...) {
			s.Leg = l.key.id
			t.clear(l, &s)
		}
		if !c.done {
			t.settle(c, &s)
		}
	}
}
