package ari

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// see returns a channel's state, having emitted its creation if this event completes it. It returns nil for channels
// that are not parties, and for those whose creation is still held back.
func (n *normalizer) see(ch *channel, typ string) *chanState {
	c := n.know(ch, typ)
	switch {
	case c == nil:
		return nil
	case c.early && !complete(c, ch, typ): // a reader that still holds it back hears nothing either
		return nil
	case !c.held:
		c.early = false
		n.learnSIP(ch, c)
		return c
	}
	if c.create.SIPCallID == "" {
		c.create.SIPCallID = ch.ProtocolID
	}
	if ch.Caller.Number != "" && c.create.Number == "" {
		c.create.Number, c.create.Name = ch.Caller.Number, ch.Caller.Name
	}
	if !complete(c, ch, typ) {
		return nil
	}
	n.release(c)
	return c
}

// learnSIP tells the SIP Call-ID of a channel whose creation lacked it.
func (n *normalizer) learnSIP(ch *channel, c *chanState) {
	if c.sip || c.gone || ch.ProtocolID == "" {
		return
	}
	c.sip = true
	n.emit(call.LegUpdated, c.id, func(o *call.Observation) { o.SIPCallID = ch.ProtocolID })
}

// complete reports whether an event of this type means that no more will become known of a held-back creation.
func complete(c *chanState, ch *channel, typ string) bool {
	switch typ {
	case "ChannelCreated":
		return false
	case "ChannelVarset":
		return c.inbound && (c.sip || ch.ProtocolID != "" || c.create != nil && c.create.SIPCallID != "")
	case "ChannelDialplan", "ChannelCallerId", "ChannelConnectedLine", "DeviceStateChanged":
		return c.inbound
	}
	return true
}

// know returns a channel's state, beginning it when the channel is new.
func (n *normalizer) know(ch *channel, typ string) *chanState {
	if c := n.chans[ch.ID]; c != nil {
		if c.held && c.create.SIPCallID == "" {
			c.create.SIPCallID = ch.ProtocolID
		}
		return c
	}
	if ch.ID == "" || !isParty(ch.Name) {
		return nil
	}
	if len(n.chans) >= maxChannels {
		n.count("channels_over_limit", 1)
		return nil
	}
	c := &chanState{id: ch.ID, held: true, since: n.received, told: n.at, create: n.creation(ch)}
	c.inbound = c.create.Inbound
	if typ != "ChannelCreated" {
		c.create.Unseen = true
		c.inbound = ch.State != "Down" && ch.State != "Ringing" && !outgoing(ch)
		c.create.Inbound = c.inbound
		if at := parseTime(ch.Created); at != 0 {
			c.create.At = at
		}
		if typ != "ChannelStateChange" && typ != "snapshot" { // which say it themselves
			c.found = snapshotState(ch, c)
		}
	}
	n.chans[ch.ID], n.pending[ch.ID] = c, c
	return c
}

// outgoing reports whether a channel's looks say that Asterisk has dialed it.
func outgoing(ch *channel) bool {
	return ch.Dialplan.AppData == "(Outgoing Line)" || strings.HasPrefix(ch.Dialplan.AppName, "AppDial")
}

// creation is the observation of a channel's beginning, as far as the channel shows it.
func (n *normalizer) creation(ch *channel) *call.Observation {
	o := &call.Observation{
		Kind: call.LegCreated, Leg: ch.ID, Link: ch.Vars.LinkedID, At: n.at, Received: n.received, Native: n.native,
		Number: ch.Caller.Number, Name: ch.Caller.Name, SIPCallID: ch.ProtocolID, Inbound: ch.State == "Ring" || ch.State == "Rsrvd",
	}
	o.Device, o.User = endpoint(ch.Name)
	if o.Inbound || o.Link == ch.ID || o.Link == "" {
		if e := ch.Dialplan.Exten; dialedExten(e) {
			o.Dialed = e
		}
	}
	o.Native.ID = "created:" + ch.ID
	return o
}

// release emits a held-back creation, and what AMI said of the channel meanwhile.
func (n *normalizer) release(c *chanState) {
	c.held = false
	delete(n.pending, c.id)
	c.named, c.sip = c.create.Number != "", c.create.SIPCallID != ""
	c.root = c.create.Parent == "" && !c.inbound
	c.create.Unseen = c.create.Unseen || n.ghost(c.create.Parent) || n.ghost(c.create.Link)
	n.out = append(n.out, *c.create)
	c.create = nil
	n.found(c)
	n.retryWaiting(c.id)
}

// ghost reports whether a channel was over before the snapshot: what it began is known in part alone.
func (n *normalizer) ghost(id string) bool {
	c := n.chans[id]
	return c != nil && c.ghost
}

// destroyed forgets a channel, but for its id, which AMI may still speak of.
func (n *normalizer) destroyed(c *chanState) {
	if c.gone {
		return
	}
	c.gone = true
	n.quickly.drop(c.id)
	n.gone = append(n.gone, c.id)
	if len(n.gone) > maxGone {
		for _, id := range n.gone[:maxGone/2] {
			delete(n.chans, id)
		}
		n.gone = append(n.gone[:0], n.gone[maxGone/2:]...)
	}
}

// passed reports whether d has passed since from. A clock that was set back since does not tell: then nobody waits for it.
func passed(d, from, now call.Time) bool { return now-from >= d || from-now > call.Second }

// flush gives up waiting for the rest of what was seen before. Call it about every 20 ms.
func (n *normalizer) flush(now call.Time) []call.Observation {
	n.begin("ctigate.flush", now, now)
	n.releaseHeld(func(c *chanState) bool { return n.latest-c.told >= holdFor || passed(holdSilent, c.since, now) })
	n.flushAMI(now)
	return n.out
}

// last gives up waiting for the rest of creations, when nothing more will come: they were not seen whole. Why a caller has
// left a queue stays open.
func (n *normalizer) last(now call.Time) []call.Observation {
	n.begin("ctigate.flush", now, now)
	n.releaseHeld(func(c *chanState) bool { c.create.Unseen = true; return true })
	return n.out
}

// releaseHeld emits the creations that are due, in the order of their coming.
func (n *normalizer) releaseHeld(isDue func(*chanState) bool) {
	if len(n.pending) == 0 {
		return
	}
	due := make([]*chanState, 0, len(n.pending))
	for _, c := range n.pending {
		if isDue(c) {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, func(a, b *chanState) int {
		return cmp.Or(cmp.Compare(a.since, b.since), strings.Compare(a.id, b.id))
	})
	for _, c := range due {
		n.release(c)
		c.early = true
	}
}

// found tells the state that a channel is in when it is first heard of, in the middle of its life: what led there was
// never seen.
func (n *normalizer) found(c *chanState) {
	if c.found == "" || c.found == string(call.Initiated) {
		return
	}
	n.emit(call.SnapshotLeg, c.id, func(o *call.Observation) {
		o.Inbound, o.Value, o.Unseen, o.Synthetic, o.Native.ID = c.inbound, c.found, true, true, "found:"+c.id
	})
	c.found = ""
}
