package call

import (
	"cmp"
	"slices"
)

// bridged puts l into a bridge or conference room. Calls that meet in one are one call from then on.
func (t *Tracker) bridged(l *leg, o *Observation) {
	if l.cleared {
		return
	}
	id := legKey{t.sw.ID, o.Bridge}
	if l.bridge != nil && l.bridge.id != id {
		t.leaveRoom(l)
	}
	r := t.rooms[id]
	if r == nil {
		r = &room{id: id}
		t.rooms[id] = r
	}
	if l.bridge == nil {
		l.bridge = r
		r.legs = append(r.legs, l)
	}
	if l.c.hangup != nil && l.c.hangup.cleared {
		l.c.hangup = nil // the call went on
	}
	conference := o.Conference != "" && l.c.conference(o.Conference, l)
	for _, other := range r.legs {
		if other.c != l.c {
			conference = o.Conference != ""
			t.merge(l.c, other.c, o)
		}
	}
	if o.Conference != "" {
		for _, other := range r.legs {
			l.c.conference(o.Conference, other)
		}
	}
	if conference && len(l.c.call.Conference.Participants) > 1 {
		t.emit(l.c, CallConferenced, l, o).Conference = l.c.call.Conference
	}
}

// conference notes that l is in the room called id; it reports whether that is news.
func (c *tracked) conference(id string, l *leg) bool {
	return c.participant(id, l.name())
}

// participant adds who to the room called id; it reports whether that is news.
func (c *tracked) participant(id, who string) bool {
	old := c.call.Conference
	if old == nil {
		old = &Conference{}
	}
	if old.ID == id && (slices.Contains(old.Participants, who) || len(old.Participants) >= maxLegs) {
		return false
	}
	c.call.Conference = &Conference{ID: id, Participants: append(old.Participants[:len(old.Participants):len(old.Participants)], who)}
	return true
}

// name is how records call l's party: a call's caller is "caller", everybody else goes by their id.
func (l *leg) name() string {
	p := l.conn.Party
	if p.ID == "" || p.Role == RoleCaller && l == l.c.first {
		return string(RoleCaller)
	}
	return p.ID
}

func (t *Tracker) unbridged(l *leg, o *Observation) {
	if l.bridge != nil && (o.Bridge == "" || l.bridge.id.id == o.Bridge) {
		t.leaveRoom(l)
	}
}

func (t *Tracker) leaveRoom(l *leg) {
	r := l.bridge
	if r == nil {
		return
	}
	l.bridge = nil
	for i, x := range r.legs {
		if x == l {
			r.legs = append(r.legs[:i], r.legs[i+1:]...)
			break
		}
	}
	if len(r.legs) == 0 {
		delete(t.rooms, r.id)
	}
}

// merge makes one call of two: the older goes on with the live legs of both, the younger ends, and its record says
// where it went.
func (t *Tracker) merge(a, b *tracked, o *Observation) {
	if a == b || a.done || b.done {
		return
	}
	t.merges++
	old, young := a, b
	if b.call.StartedAt < a.call.StartedAt || b.call.StartedAt == a.call.StartedAt && b.order < a.order {
		old, young = b, a
	}
	if old.standing() && !young.standing() { // the customer's call goes on, though the agent's is the older
		old, young = young, old
		young.first.standing = true
	}
	if o.Synthetic || young.wasBlind() || old.wasBlind() { // it may have been one before
		young.miss("end")
	}
	t.move(young, old, o)
	young.call.MergedInto = old.call.ID
	t.emit(young, CallMerged, nil, o).MergedInto = old.call.ID
	young.call.InteractionID = old.call.InteractionID
	t.end(young, o)
	if o.Conference == "" {
		e := t.emit(old, CallUpdated, nil, o)
		e.ID = EventID(e.Switch, o.Native, CallUpdated, old.call.ID+"+"+young.call.ID) // one native event may merge several
	}
}

// move hands young's live legs and what it knows to old.
func (t *Tracker) move(young, old *tracked, o *Observation) {
	live := young.has(Connected, false) || young.has(Held, false)
	answered := live && (old.has(Connected, false) || old.has(Held, false))
	legs := young.legs
	young.legs, young.live = nil, 0
	young.dirty, old.dirty = true, true
	for _, l := range legs {
		if l.cleared {
			young.legs = append(young.legs, l)
			continue
		}
		young.call.Connections = append([]*Connection(nil), young.call.Connections...)
		l.epoch = 0 // the younger call's record keeps the connection as it is now
		l.c, l.joined = old, o.At
		old.attach(l)
		old.live++
	}
	if answered {
		for _, c := range [...]*tracked{old, young} {
			if !c.answering {
				c.answering = true
				c.call.AnsweredAt, c.call.Outcome = o.At, Answered
				if o.Synthetic {
					c.miss("connected")
				}
			}
		}
	}
	for _, what := range [...]string{"alerting", "connected", "hold"} { // of its legs
		if slices.Contains(young.missing, what) {
			old.miss(what)
		}
	}
	if young.call.Conference != nil {
		for _, who := range young.call.Conference.Participants {
			if who != string(RoleCaller) { // the younger call's caller is a party like others here
				old.participant(young.call.Conference.ID, who)
			}
		}
	}
	if young.queueOpen && !old.queueOpen { // the caller goes on waiting, in the older call
		old.call.Queue, old.queueOpen, young.queueOpen = young.call.Queue, true, false
		old.queueMS += young.queueMS
	}
	if old.call.IVRPath == "" {
		old.call.IVRPath = young.call.IVRPath
	}
	if old.call.To == nil {
		old.call.To = young.call.To
	}
}

// transferred: l's party passed the call on.
func (t *Tracker) transferred(l *leg, o *Observation) {
	tr := Transfer{Kind: o.Value, By: l.conn.Party.ID, To: o.Dialed, At: o.At, Result: "success"}
	if second := t.legs[legKey{t.sw.ID, o.Other}]; second != nil && o.Other != "" {
		if tr.To == "" {
			tr.To = second.dialed
		}
		t.merge(l.c, second.c, o)
	}
	c := l.c
	if c.done { // its call was the younger
		return
	}
	if n := len(c.call.Transfers); n < maxItems {
		c.call.Transfers = append(c.call.Transfers[:n:n], tr)
	} else {
		c.miss("transfers")
	}
	t.emit(c, CallTransferred, l, o).Transfer = &tr
}

// diverted: l's party sent the offered call elsewhere.
func (t *Tracker) diverted(l *leg, o *Observation) {
	c, d := l.c, Diversion{By: cmp.Or(o.Other, l.conn.Party.ID), To: o.Dialed, At: o.At}
	if n := len(c.call.Diversions); n < maxItems {
		c.call.Diversions = append(c.call.Diversions[:n:n], d)
	} else {
		c.miss("diversions")
	}
	t.emit(c, CallDiverted, l, o).Diversion = &d
}
