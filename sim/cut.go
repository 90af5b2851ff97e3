package sim

import (
	"container/heap"
	"slices"
)

// breath is how long the steps of a cut call take apart at most, in microseconds.
const breath = 20_000

// hangup cuts call c short at scripted time now: what is left of it is only the clearing of what is up.
func (e *engine) hangup(c *simCall, now int64) {
	if c.order != nil {
		return
	}
	up := c.alive()
	order := make([]int32, 0, len(c.sc.steps))
	for i := range c.next {
		order = append(order, int32(i))
	}
	for i := c.next; i < len(c.sc.steps); i++ {
		if up.clears(&c.sc.steps[i]) {
			order = append(order, int32(i))
		}
	}
	c.repin(order, now)
	c.order = order
	for _, a := range c.staff {
		a.free = min(a.free, now+second)
	}
	e.reschedule(c, now)
}

// repin lets the cut call's remaining steps follow one another from now on.
func (c *simCall) repin(order []int32, now int64) {
	c.cutFrom = -second
	if c.next > 0 {
		c.cutFrom = c.sc.steps[c.next-1].at
	}
	c.cutTo = c.sc.end + second
	keep := c.knots[:0:0]
	for _, k := range c.knots {
		if k.rec < c.cutFrom {
			keep = append(keep, k)
		}
	}
	keep = append(keep, knot{c.cutFrom, max(c.warp(c.cutFrom), min(now, c.warp(c.cutFrom+second)))})
	at, last := now, int64(-1)
	for _, i := range order[c.next:] {
		s := &c.sc.steps[i]
		if last < 0 {
			c.cutTo = s.at - lead
			keep = append(keep, knot{max(c.cutTo, c.cutFrom), now}, knot{s.at, now + min(lead, s.at-c.cutFrom)})
			at = now + min(lead, s.at-c.cutFrom)
		} else if s.at > last {
			at += min(s.at-last, breath)
			keep = append(keep, knot{s.at, at})
		}
		last = s.at
	}
	c.knots = slices.Clip(keep)
}

// reschedule moves the call's event in the heap to its next step.
func (e *engine) reschedule(c *simCall, now int64) {
	s := c.current()
	c.due = now
	if s != nil {
		c.due = max(now, c.warp(s.at))
	}
	for i := range e.heap {
		if e.heap[i].call == c {
			e.heap[i].at = c.due
			heap.Fix(&e.heap, i)
			return
		}
	}
}

// told is a leg or bridge as one protocol told of it: ARI and AMI each have their own order.
type told struct {
	p    proto
	slot int
}

// living is what is up at some point of a call.
type living struct {
	legs, bridges, members, hungup map[told]bool
	queued, offered, bridged       bool
}

// alive walks what was sent of the call.
func (c *simCall) alive() living {
	up := living{legs: map[told]bool{}, bridges: map[told]bool{}, members: map[told]bool{}, hungup: map[told]bool{}}
	for s := range c.played {
		up.see(s)
	}
	return up
}

func (l *living) see(s *step) {
	leg, bridge := told{s.proto, s.leg}, told{s.proto, s.bridge}
	switch s.typ {
	case "ChannelCreated", "Newchannel", "CHANNEL_CREATE", "CHANNEL_OUTGOING":
		l.legs[leg] = true
	case "ChannelDestroyed", "Hangup", "CHANNEL_DESTROY":
		l.hungup[leg] = true
	case "BridgeCreated", "BridgeCreate":
		l.bridges[bridge] = true
	case "BridgeDestroyed", "BridgeDestroy":
		delete(l.bridges, bridge)
	case "ChannelEnteredBridge", "BridgeEnter":
		l.members[leg] = true
	case "CHANNEL_BRIDGE":
		l.bridged = true
	case "QueueCallerJoin":
		l.queued = true
	case "QueueCallerLeave":
		l.queued = false
	case "AgentConnect":
		l.offered = true
	}
	switch s.action {
	case "member-queue-start":
		l.queued = true
	case "bridge-agent-start":
		l.offered = true
	}
}

// clears reports whether a later step belongs to the clearing of what is up now.
func (l *living) clears(s *step) bool {
	id, bridge := told{s.proto, s.leg}, told{s.proto, s.bridge}
	leg := l.legs[id] && !l.hungup[id]
	switch s.typ {
	case "ChannelHangupRequest", "HangupRequest", "SoftHangupRequest", "ChannelDestroyed", "Hangup",
		"CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY":
		return leg
	case "ChannelLeftBridge", "BridgeLeave":
		return leg && l.members[id] && l.bridges[bridge]
	case "BridgeDestroyed", "BridgeDestroy":
		return l.bridges[bridge]
	case "CHANNEL_UNBRIDGE":
		return leg && l.bridged
	case "CHANNEL_STATE", "CHANNEL_CALLSTATE":
		return leg && (s.vary == "CS_HANGUP" || s.vary == "CS_REPORTING" || s.vary == "CS_DESTROY")
	case "QueueCallerLeave", "QueueCallerAbandon":
		return l.queued
	case "AgentComplete":
		return l.offered
	}
	return s.action == "member-queue-end" && l.queued || s.action == "bridge-agent-end" && l.offered
}
