package call

// linkDown marks the calls of a switch nobody listens to any more.
func (t *Tracker) linkDown() {
	for c := t.first; c != nil; c = c.next {
		if c.call.Switch.ID == t.sw.ID && !c.blind {
			c.blind = true
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
	l := t.created(&first, true)
	if l.c.done {
		return
	}
	t.snapshotKnown(l, o)
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
		if !c.done {
			t.settle(c, &s)
		}
	}
}
