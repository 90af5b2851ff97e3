package call

import (
	"cmp"
	"slices"
	"strings"
)

// created starts a leg, and its call when it belongs to none that goes on.
func (t *Tracker) created(o *Observation) *leg {
	c := t.callFor(o)
	fresh := c == nil || c.done
	if fresh {
		c = t.newCall(o, c)
		c.passed, c.headless = o.Unseen, o.Unseen && root(o) != o.Leg
	}
	l := t.addLeg(c, o)
	c.live++
	if o.Unseen {
		l.inferred, c.uncertain = true, true
		c.miss("start")
	}
	if fresh {
		t.startCall(c, l, o)
	} else {
		c.direct(l)
	}
	l.write().State = Initiated
	t.emit(c, ConnectionInitiated, l, o)
	return l
}

// callFor finds the call a new leg belongs to: by the leg that caused it, then by the switch's own link. It may return
// an ended one, or nil.
func (t *Tracker) callFor(o *Observation) *tracked {
	c := t.linked(o)
	for c != nil && c.done && c.call.MergedInto != "" && t.roots[c.call.MergedInto] != nil {
		c = t.roots[c.call.MergedInto]
	}
	return c
}

func (t *Tracker) linked(o *Observation) *tracked {
	for _, id := range [...]string{o.Parent, o.Link} {
		if id == "" || id == o.Leg {
			continue
		}
		if l := t.legs[legKey{t.sw.ID, id}]; l != nil {
			return l.c
		}
	}
	return t.roots[NewID(t.sw.ID, root(o))]
}

// root is the native id of the first leg of o's call, as far as o tells.
func root(o *Observation) string {
	if o.Link != "" {
		return o.Link
	}
	if o.Parent != "" {
		return o.Parent
	}
	return o.Leg
}

// newCall begins a call. over is the ended call that the leg belongs to by the switch's link, if any: what goes on after
// it, a second attempt of a dialer for one, is another call of the same interaction.
func (t *Tracker) newCall(o *Observation, over *tracked) *tracked {
	id, native := NewID(t.sw.ID, root(o)), o.Leg
	for t.roots[id] != nil || t.spent.has(id) {
		id = NewID(t.sw.ID, native)
		native += "+"
	}
	t.order++
	c := &tracked{order: t.order, epoch: 1}
	c.call = Call{ID: id, InteractionID: id, Switch: t.sw, State: StateNew}
	if over != nil {
		c.call.InteractionID = over.call.InteractionID
	}
	t.roots[id] = c
	t.link(c)
	return c
}

func (t *Tracker) link(c *tracked) {
	if t.last == nil {
		t.first = c
	} else {
		t.last.next, c.prev = c, t.last
	}
	t.last = c
	t.active++
}

func (t *Tracker) unlink(c *tracked) {
	if c.prev == nil {
		t.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		t.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	t.active--
	delete(t.roots, c.call.ID)
}

// addLeg attaches a leg to c, with its party.
func (t *Tracker) addLeg(c *tracked, o *Observation) *leg {
	l := &leg{key: legKey{t.sw.ID, o.Leg}, c: c, epoch: c.epoch, inbound: o.Inbound, dialed: o.Dialed, joined: o.At}
	l.conn = &Connection{ID: ConnectionIDOf(t.sw.ID, o.Leg), State: Null, SIPCallID: o.SIPCallID, LinkedBy: o.Evidence, OfferedAt: o.At}
	l.conn.Party = t.party(o)
	t.legs[l.key] = l
	c.attach(l)
	if c.first == nil {
		c.first = l
	}
	l.correlation = o.Correlation
	t.joinInteraction(l, o)
	return l
}

// What a call carries is bounded, because every event carries the call. Beyond these, completeness says what is missing.
const (
	maxLegs  = 64
	maxItems = 64 // holds of a connection, transfers and diversions of a call
)

// attach makes l one of c's legs, and shows it among the connections if there is room.
func (c *tracked) attach(l *leg) {
	if len(c.call.Connections) >= maxLegs {
		c.shed()
	}
	c.legs = append(c.legs, l)
	c.dirty = true
	if len(c.call.Connections) < maxLegs {
		c.call.Connections = append(c.call.Connections, l.conn)
	}
}

// shed drops the oldest cleared leg, rather one that was offered in vain: a queue may ring agents, and people come and
// go in a conference, for hours.
func (c *tracked) shed() {
	c.miss("connections")
	i := slices.IndexFunc(c.legs, func(l *leg) bool { return l != c.first && l.cleared && l.conn.ConnectedAt == 0 })
	if i < 0 {
		i = slices.IndexFunc(c.legs, func(l *leg) bool { return l != c.first && l.cleared })
	}
	if i < 0 {
		return
	}
	l := c.legs[i]
	c.legs = slices.Delete(c.legs, i, i+1)
	c.call.Connections = slices.DeleteFunc(slices.Clone(c.call.Connections), func(n *Connection) bool { return n == l.conn })
	c.shedLegs = append(c.shedLegs, l)
}

// joinInteraction gives l's call the interaction of another that has the other end of the same SIP dialog, or carries the
// same correlation header.
func (t *Tracker) joinInteraction(l *leg, o *Observation) {
	if l.conn.SIPCallID != "" {
		t.joinBy(l.conn.SIPCallID, l, o)
	}
	if l.correlation != "" {
		t.joinBy(correlated+l.correlation, l, o)
	}
}

// correlated tells correlation values from SIP Call-IDs in the tracker's index.
const correlated = "\x00"

func (t *Tracker) joinBy(key string, l *leg, o *Observation) {
	other := t.sip[key]
	switch {
	case other == nil:
		t.sip[key] = l
	case other.c != l.c:
		t.unite(other.c, l.c, o)
		if other.c.done { // it is forgotten before l is
			t.sip[key] = l
		}
	}
}

// unite puts two calls into the older one's interaction. A call that has been spoken of already says so.
func (t *Tracker) unite(a, b *tracked, o *Observation) {
	old, young := a, b
	if b.order < a.order {
		old, young = b, a
	}
	if young.done || young.call.InteractionID == old.call.InteractionID {
		return
	}
	young.call.InteractionID = old.call.InteractionID
	if young.seq == 0 {
		return
	}
	at := *o
	at.Reason = "interaction" // tells this event from another update by the same native event
	t.emit(young, CallUpdated, nil, &at)
}

// startCall publishes the beginning of a call.
func (t *Tracker) startCall(c *tracked, l *leg, o *Observation) {
	c.call.StartedAt = o.At
	if c.headless { // whose call it was, and to whom, is not known
		t.emit(c, CallInitiated, nil, o)
		return
	}
	if o.Number != "" || o.Name != "" {
		c.call.From = &Address{Number: o.Number, Name: o.Name}
	}
	if o.Dialed != "" && o.Inbound {
		c.call.To = &Address{Number: o.Dialed}
	}
	typ := CallInitiated
	if o.Inbound {
		typ = CallOffered
		c.call.OfferedAt = o.At
	}
	c.direct(l)
	t.emit(c, typ, nil, o)
}

// direct works out the call's direction when leg l joins it.
func (c *tracked) direct(l *leg) {
	role := l.conn.Party.Role
	switch {
	case c.headless:
	case l == c.first && l.inbound && role == RoleCaller:
		c.call.Direction = Inbound
	case l == c.first && role == RoleExternal:
		c.call.Direction = Outbound
	case l == c.first:
		c.call.Direction = Internal
	case c.call.Direction == Internal && role == RoleExternal:
		c.call.Direction = Outbound
	}
}

// party says who is at the far end of a new leg.
func (t *Tracker) party(o *Observation) Party {
	p := Party{ID: o.User, Number: o.Number, Name: o.Name, Device: o.Device}
	switch {
	case o.Forward:
		p.ID, p.Number, p.Role = o.Dialed, o.Dialed, RoleExternal
	case o.Inbound && t.knownAgent(o.Number):
		p.ID, p.Role = o.Number, RoleAgent
	case o.Inbound && (t.knownAgent(o.User) || o.Local || o.User != "" && o.User == o.Number):
		p.Role = RoleAgent // an endpoint of the switch's own
	case o.Inbound:
		p.ID, p.Role = o.Number, RoleCaller
	case external(o):
		if p.Number != o.Dialed { // the identity that the leg presents is the caller's
			p.Name = ""
		}
		p.ID, p.Number, p.Role = o.Dialed, o.Dialed, RoleExternal
	default:
		t.dialedAgent(&p, o)
	}
	return p
}

// dialedAgent is the party of an outbound leg that stays inside. It presents the caller's identity, not its own.
func (t *Tracker) dialedAgent(p *Party, o *Observation) {
	p.Role, p.Number, p.Name = RoleAgent, "", ""
	if o.Dialed != "" { // a user asked for through an endpoint: the endpoint is nobody
		p.ID = o.Dialed
	}
	t.learnAgent(p.ID)
}

// external reports whether an outbound leg leads outside: it asks another endpoint for a number, or dials what looks
// like a public one.
func external(o *Observation) bool {
	d := strings.TrimPrefix(o.Dialed, "+")
	for i := range len(d) {
		if d[i] < '0' || d[i] > '9' {
			return false
		}
	}
	return len(d) >= 7 || d != "" && o.Dialed != o.User
}

// maxAgents bounds the directory of agents that have been seen.
const maxAgents = 100_000

func (t *Tracker) knownAgent(user string) bool {
	_, ok := t.agents[legKey{t.sw.ID, user}]
	return ok && user != ""
}

func (t *Tracker) learnAgent(user string) {
	k := legKey{t.sw.ID, user}
	if _, ok := t.agents[k]; !ok && user != "" && len(t.agents) < maxAgents {
		t.agents[k] = ""
	}
}

// createdAgain fills in what was unknown of a leg first heard of by something later than its creation.
func (t *Tracker) createdAgain(l *leg, o *Observation) {
	if l.inferred && !o.Unseen {
		t.settleStart(l, o)
	}
	t.updated(l, o)
}

// settleStart takes the true beginning of a leg that had been inferred.
func (t *Tracker) settleStart(l *leg, o *Observation) {
	c := l.c
	l.inferred, l.inbound = false, o.Inbound
	w := l.write()
	w.OfferedAt = min(w.OfferedAt, o.At)
	w.Party = t.party(o)
	if l == c.first {
		c.call.StartedAt = min(c.call.StartedAt, o.At)
		if o.Inbound {
			c.call.OfferedAt = c.call.StartedAt
		}
		c.direct(l)
	}
	for _, x := range c.legs {
		if x.inferred {
			return
		}
	}
	c.uncertain = false
	c.missing = slices.DeleteFunc(slices.Clone(c.missing), func(m string) bool { return m == "start" })
}

// updated learns more of a leg. It never replaces what is known: a blind transfer changes the number a leg dials, and
// the call is still the one that was made to the first.
func (t *Tracker) updated(l *leg, o *Observation) {
	c, changed := l.c, false
	if news := o.SIPCallID != "" && l.conn.SIPCallID == "" || o.Correlation != "" && l.correlation == ""; news {
		l.write().SIPCallID = cmp.Or(l.conn.SIPCallID, o.SIPCallID)
		l.correlation = cmp.Or(l.correlation, o.Correlation)
		t.joinInteraction(l, o)
	}
	if o.Dialed != "" && l.dialed == "" {
		l.dialed = o.Dialed
	}
	if l != c.first || c.headless {
		return
	}
	if c.call.From == nil && (o.Number != "" || o.Name != "") {
		c.call.From = &Address{Number: o.Number, Name: o.Name}
		changed = true
	}
	if c.call.To == nil && o.Dialed != "" {
		c.call.To = &Address{Number: o.Dialed}
		changed = true
	}
	if changed {
		t.emit(c, CallUpdated, nil, o)
	}
}

// miss notes that what was never seen.
func (c *tracked) miss(what string) {
	for _, m := range c.missing {
		if m == what {
			return
		}
	}
	c.missing = append(c.missing[:len(c.missing):len(c.missing)], what)
}

// variable carries a configured variable or header into the call's attributes.
func (t *Tracker) variable(l *leg, o *Observation) {
	c := l.c
	if o.Reason == "" || c.call.Attributes[o.Reason] == o.Value {
		return
	}
	m := make(map[string]string, len(c.call.Attributes)+1)
	for k, v := range c.call.Attributes {
		m[k] = v
	}
	if o.Value == "" {
		delete(m, o.Reason)
	} else {
		m[o.Reason] = o.Value
	}
	c.call.Attributes = m
	t.emit(c, CallUpdated, nil, o)
}
