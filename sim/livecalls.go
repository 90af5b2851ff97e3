package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"
)

// active returns the calls that are up, oldest first.
func (e *engine) active() []*simCall {
	out := make([]*simCall, 0, len(e.calls))
	for _, c := range e.calls {
		if c.next > 0 {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *simCall) int { return cmp.Compare(a.number, b.number) })
	return out
}

// shows is where a leg or a bridge of a call was last shown.
type shows struct {
	slot int
	step *step
	key  string
}

// last lists what of the call is up, in order of appearance, with where it was last shown. Only steps of p count, and
// only such as pick says.
func (c *simCall) last(p proto, pick func(*step, touch) bool) []shows {
	var out []shows
	at := map[int]int{}
	for s := range c.played {
		if s.proto != p {
			continue
		}
		for _, t := range s.touches {
			i, ok := at[t.slot]
			switch {
			case ends(s, t):
				if ok {
					out[i].step = nil
				}
				at[t.slot] = -1
			case ok && i < 0, !pick(s, t):
			case ok:
				out[i].step, out[i].key = s, t.key
			default:
				at[t.slot] = len(out)
				out = append(out, shows{t.slot, s, t.key})
			}
		}
	}
	return slices.DeleteFunc(out, func(x shows) bool { return x.step == nil })
}

// ends reports whether s is the last that is heard of what t shows.
func ends(s *step, t touch) bool {
	switch s.typ {
	case "ChannelDestroyed":
		return t.slot == s.leg
	case "BridgeDestroyed":
		return t.slot == s.bridge
	case "CHANNEL_DESTROY":
		return true
	}
	return false
}

// objects renders the channels, or the bridges, that are up.
func (a *Asterisk) objects(ctx context.Context, bridges bool) []json.RawMessage {
	out := []json.RawMessage{}
	a.eng.do(ctx, func() {
		for _, c := range a.eng.active() {
			for _, x := range c.last(protoARI, func(s *step, t touch) bool { return (t.slot == s.bridge) == bridges }) {
				var top map[string]json.RawMessage
				if json.Unmarshal(x.step.json.append(nil, c), &top) == nil && top[x.key] != nil {
					out = append(out, top[x.key])
				}
			}
		}
	})
	return out
}

func (a *Asterisk) channels(ctx context.Context) []json.RawMessage { return a.objects(ctx, false) }
func (a *Asterisk) bridges(ctx context.Context) []json.RawMessage  { return a.objects(ctx, true) }
func (a *Asterisk) entity() string                                 { return a.eng.globals[globalEntity] }
func (a *Asterisk) queues() []string                               { return a.opt.Queues }

func (a *Asterisk) booted() time.Time { return time.UnixMicro(a.eng.boot).Add(a.clockSkew()) }

func (a *Asterisk) hangupLeg(ctx context.Context, id string) bool { return a.eng.hangupByID(ctx, id) }

func (a *Asterisk) originate(ctx context.Context, user string) bool {
	return a.eng.placeFor(ctx, user)
}

// hangupByID ends the call that leg id belongs to.
func (e *engine) hangupByID(ctx context.Context, id string) (found bool) {
	e.do(ctx, func() {
		for _, c := range e.calls {
			up := c.alive()
			for x := range up.legs {
				if x.slot >= 0 && c.vals[x.slot] == id && !up.hungup[x] {
					found = true
					e.at(e.now(), func() { e.hangup(c, e.heap[0].at) })
					return
				}
			}
		}
	})
	return found
}

// placeFor lets agent user place a call.
func (e *engine) placeFor(ctx context.Context, user string) (ok bool) {
	e.do(ctx, func() {
		if a := e.staff.named(user); a != nil {
			_, err := e.place("click_to_call", e.now(), a)
			ok = err == nil
		}
	})
	return ok
}

// member is one agent as member of one queue.
type member struct {
	queue, user string
	taken       int
	last        int64 // seconds
	busy        bool
}

func (a *Asterisk) queueMembers(ctx context.Context) []member {
	var out []member
	a.eng.do(ctx, func() {
		now := a.eng.now()
		for _, q := range a.opt.Queues {
			for _, g := range a.eng.staff.all {
				out = append(out, member{q, g.user(), g.taken, g.last / second, g.free > now})
			}
		}
	})
	return out
}

// waiting returns the callers waiting in each queue.
func (e *engine) waiting(ctx context.Context) map[string][]waiter {
	out := map[string][]waiter{}
	e.do(ctx, func() {
		for _, c := range e.active() {
			if w, ok := c.waiter(); ok {
				out[w.queue] = append(out[w.queue], w)
			}
		}
	})
	return out
}

// waiter is one caller in a queue.
type waiter struct {
	queue, id, number, name string
	joined                  int64
	message                 []byte // the QueueCallerJoin or member-queue-start event
}

func (c *simCall) waiter() (w waiter, ok bool) {
	for s := range c.played {
		switch {
		case s.typ == "QueueCallerJoin", s.action == "member-queue-start":
			ok = true
			w = waiter{id: c.vals[s.leg], joined: c.warp(s.at), message: s.json.append(nil, c)}
		case s.typ == "QueueCallerLeave", s.action == "bridge-agent-start", s.action == "member-queue-end":
			ok = false
		}
	}
	w.queue, w.number, w.name = c.truth.Queue, c.truth.From, c.truth.FromName
	return w, ok
}
