package call

import (
	"slices"
	"strings"
)

// Adopt takes over c, as it was last published with sequence number seq, when there is no other state to go on from. now
// is the receiving clock. The call goes on under its ids, its next event is number seq+1, and its legs are in the states
// that c says. What c does not say is unknown: bridges, whether a party had asked to hang up, earlier stays in a queue.
// The call is blind, which counts as one more gap in it, until the switch's snapshot or an event speaks of it. Of a call
// that has ended only the id is remembered, so that it is not used again. Nothing of c is changed.
//
// Adopt the calls in the order of their StartedAt, before the first Apply. It reports whether the call is in progress
// now: not when it has ended, or is known already.
func (t *Tracker) Adopt(c *Call, seq uint64, now Time) bool {
	t.now = max(t.now, now)
	if t.roots[c.ID] != nil {
		return false
	}
	if c.State == StateEnded || c.EndedAt != 0 {
		t.spent.add(c.ID)
		t.adoptMoved(c)
		return false
	}
	t.order++
	a := &tracked{call: *c, order: t.order, epoch: 1, seq: seq, dirty: true, blind: true, blindAt: t.now}
	a.call.Connections, a.call.Completeness, a.call.Durations = nil, nil, nil
	a.answering = c.AnsweredAt != 0
	a.adoptQueue(c.Queue)
	a.adoptCompleteness(c)
	t.roots[c.ID] = a
	t.link(a)
	if t.instances[c.Switch.ID] == "" && c.Switch.Instance != "" {
		t.instances[c.Switch.ID] = c.Switch.Instance
	}
	for i, n := range c.Connections {
		if n != nil {
			t.adoptLeg(a, n, i == 0 && c.OfferedAt != 0)
		}
	}
	if a.live == 0 { // its end is all that was not published
		a.endDue = t.now + t.opt.EndGrace
		t.waiting = append(t.waiting, a)
	}
	return true
}

func (c *tracked) adoptQueue(q *Queue) {
	if q == nil {
		return
	}
	c.queueOpen = q.LeftAt == 0
	if !c.queueOpen && q.EnteredAt != 0 {
		c.queueMS = q.LeftAt.Sub(q.EnteredAt)
	}
}

func (c *tracked) adoptCompleteness(was *Call) {
	if m := was.Completeness; m != nil {
		c.missing = m.Missing[:len(m.Missing):len(m.Missing)]
		c.synthetic, c.gaps, c.violations, c.late = m.SyntheticEvents, m.Gaps, m.Violations, m.Late
	}
	c.uncertain = slices.Contains(c.missing, "start")
	if was.State != StateUnknown {
		c.gaps++
	}
}

// adoptMoved gives the legs that a call had when it was merged to the call it was merged into, unless that one's last word
// has them.
func (t *Tracker) adoptMoved(c *Call) {
	into := t.roots[c.MergedInto]
	if into == nil || into.done {
		return
	}
	for _, n := range c.Connections {
		if n != nil && n.ClearedAt == 0 && t.legs[legKeyOf(c.Switch.ID, n)] == nil {
			t.adoptLeg(into, n, false)
		}
	}
}

func legKeyOf(sw string, n *Connection) legKey { return legKey{sw, strings.TrimPrefix(n.ID, sw+"/")} }

// adoptLeg makes n one of c's legs, and shows it among the connections. One that has gone over to another call, whose
// word of that was published and c's was not, is shown and not c's any more.
func (t *Tracker) adoptLeg(c *tracked, n *Connection, inbound bool) {
	c.call.Connections = append(c.call.Connections, n)
	l := &leg{key: legKeyOf(c.call.Switch.ID, n), c: c, conn: n, cleared: n.ClearedAt != 0, joined: n.OfferedAt}
	l.inbound = inbound || n.Party.Role == RoleCaller
	l.agreed = agreedBefore(n.Media)
	known := t.legs[l.key]
	if !l.cleared && (c.call.MergedInto != "" || known != nil && !known.cleared) {
		return
	}
	c.legs = append(c.legs, l)
	if c.first == nil {
		c.first = l
	}
	if known == nil || known.cleared {
		t.legs[l.key] = l
	}
	if n.SIPCallID != "" && t.sip[n.SIPCallID] == nil {
		t.sip[n.SIPCallID] = l
	}
	if l.cleared {
		if l == c.first && n.Outcome == Abandoned {
			c.hangup = l
		}
		return
	}
	c.live++
	if n.Party.Role == RoleAgent && !l.inbound {
		t.sw = c.call.Switch
		t.learnAgent(n.Party.ID)
	}
}

// agreedBefore is what was agreed last, as far as m says: not the sample rate of a codec that came after the first.
func agreedBefore(m *Media) *Media {
	if m == nil || m.Codec == "" || len(m.CodecsSeen) == 0 {
		return nil
	}
	a := &Media{Codec: m.Codec, SampleRate: m.SampleRate, ClockRate: m.ClockRate, PTimeMS: m.PTimeMS, Direction: m.Direction, Encryption: m.Encryption}
	if last := m.CodecsSeen[len(m.CodecsSeen)-1]; last != m.Codec {
		a.Codec, a.SampleRate, a.ClockRate = last, 0, 0
	}
	return a
}
