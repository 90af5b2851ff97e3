package call

// Some agents keep one leg up all day and have customers put onto it (FreeSWITCH uuid-standby, Asterisk AgentLogin, an
// agent who sits in a conference). Such a leg belongs to the customer's call while both talk, and afterwards to a call
// of its own again.

// standing reports whether c is an agent who waits alone, for customers to be put onto the leg.
func (c *tracked) standing() bool {
	return c.live == 1 && !c.answering && c.first != nil && !c.first.cleared &&
		c.first.conn.Party.Role == RoleAgent && c.first.conn.ConnectedAt != 0
}

// giveBack ends the part that standing legs have in c once nobody else is left in it, and gives each a call of its own.
func (t *Tracker) giveBack(c *tracked, o *Observation) {
	if c.done || c.live == 0 {
		return
	}
	for _, l := range c.legs {
		if !l.cleared && !l.standing {
			return
		}
	}
	for i, l := range c.legs {
		if l.cleared {
			continue
		}
		ghost := *l // what remains of it in c
		c.legs[i] = &ghost
		w := ghost.write()
		w.ClearedAt, w.State = o.At, Null
		ghost.cleared, ghost.bridge = true, nil
		c.live--
		t.emit(c, ConnectionCleared, &ghost, o)
		t.alone(l, o)
	}
}

// alone gives a standing leg a call of its own.
func (t *Tracker) alone(l *leg, o *Observation) {
	first := *o
	first.Leg, first.Link, first.Parent, first.Inbound = l.key.id, "", "", l.inbound
	c := t.newCall(&first, nil)
	conn := &Connection{ID: l.conn.ID, SIPCallID: l.conn.SIPCallID, Party: l.conn.Party, OfferedAt: o.At}
	l.c, l.conn, l.epoch, l.joined, l.standing, l.release = c, conn, c.epoch, o.At, false, 0
	c.first, c.live = l, 1
	c.attach(l)
	c.call.StartedAt, c.call.Direction = o.At, Internal
	conn.State = Initiated
	t.emit(c, CallInitiated, nil, o)
	w := l.write()
	w.State, w.ConnectedAt, w.Outcome = Connected, o.At, Answered
	t.emit(c, ConnectionConnected, l, o)
}
