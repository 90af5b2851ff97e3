package ari

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// waitingAMI is an observation about a channel that ARI has not shown yet: the two links race.
type waitingAMI struct {
	o     call.Observation
	since call.Time
}

// manager reads one AMI event: what ARI does not tell, queues and agents.
func (n *normalizer) manager(m message, received call.Time) core.Frame {
	typ := m.get("Event")
	n.begin(typ, eventTime(m.get("Timestamp")), received)
	n.managerEvent(typ, m)
	if len(n.out) > 0 {
		id := digest(m.raw, "")
		for i := range n.out {
			if n.out[i].Native.ID == "" {
				n.out[i].Native.ID = id
			}
		}
	}
	return core.Frame{Type: typ, Raw: m.raw, Received: received, Observations: n.out}
}

// eventTime reads the Timestamp that manager.conf's timestampevents adds: Unix seconds with six decimals.
func eventTime(s string) call.Time {
	sec, frac, _ := strings.Cut(s, ".")
	v, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || v <= 0 || v > 1<<40 {
		return 0
	}
	us, _ := strconv.ParseInt((frac + "000000")[:6], 10, 64)
	return call.Time(v*1e6 + us)
}

func (n *normalizer) managerEvent(typ string, m message) {
	caller := m.get("Uniqueid")
	switch typ {
	case "QueueCallerJoin":
		pos, _ := strconv.Atoi(m.get("Position"))
		n.about(caller, call.Observation{Kind: call.QueueEnter, Queue: m.get("Queue"), Count: pos})
		if c := n.chans[caller]; c != nil {
			c.leftAt = 0
		}
	case "AgentCalled":
		n.about(caller, n.agent(call.AgentOffer, m))
	case "AgentConnect":
		n.about(caller, n.agent(call.AgentAccept, m))
		n.leave(caller, m.get("Queue"), "answered")
		delete(n.dialEnd, m.get("DestUniqueid"))
		n.agentState(m, "busy", "")
	case "AgentRingNoAnswer":
		n.about(caller, n.agent(n.refusal(m.get("DestUniqueid")), m))
	case "AgentComplete":
		n.agentState(m, "ready", "")
	case "DialEnd":
		n.dialEnded(m.get("DestUniqueid"), m.get("DialStatus"))
	case "HangupRequest": // a queue reports a busy member as NOANSWER: the member's own cause knows better
		if c := m.get("Cause"); c == "17" || c == "21" {
			n.dialEnded(caller, "BUSY")
		}
	case "Hangup":
		delete(n.dialEnd, caller)
	case "QueueCallerAbandon":
		n.leave(caller, m.get("Queue"), "abandoned")
	case "QueueCallerLeave":
		n.left(caller, m.get("Queue"))
	case "QueueMemberPause":
		if m.get("Paused") == "1" {
			n.agentState(m, "not_ready", m.get("PausedReason"))
		} else {
			n.agentState(m, "ready", "")
		}
	case "QueueMember": // an answer to QueueStatus, as are QueueEntry's
		n.member(m)
	case "QueueEntry":
		n.entry(caller, m)
	case "QueueMemberAdded":
		n.agentState(m, "logged_in", "")
	case "QueueMemberRemoved":
		n.agentState(m, "logged_out", "")
	}
}

// about emits o for a channel, or holds it until ARI has shown the channel.
func (n *normalizer) about(id string, o call.Observation) {
	o.Leg, o.At, o.Received, o.Native = id, n.at, n.received, n.native
	c := n.chans[id]
	switch {
	case id == "":
	case c != nil && c.held:
		n.release(c)
		n.out = append(n.out, o)
	case c != nil:
		n.out = append(n.out, o)
	case len(n.waiting) < maxWaiting:
		n.waiting = append(n.waiting, waitingAMI{o, n.received})
	default:
		n.count("ami_waiting_full", 1)
		n.out = append(n.out, o)
	}
}

// retryWaiting emits what AMI had said of a channel before ARI showed it.
func (n *normalizer) retryWaiting(id string) {
	n.waiting = slices.DeleteFunc(n.waiting, func(w waitingAMI) bool {
		if w.o.Leg == id {
			n.out = append(n.out, w.o)
		}
		return w.o.Leg == id
	})
}

// agentName is the member's user: PJSIP/agent1 is agent1, Local/1001@queue/n is 1001.
func agentName(m message) string {
	s := m.get("Interface")
	if s == "" {
		s = m.get("Location") // QueueMember's name for it
	}
	if s == "" {
		s = m.get("MemberName")
	}
	if _, r, ok := strings.Cut(s, "/"); ok {
		s = r
	}
	s, _, _ = strings.Cut(s, "@")
	return s
}

func (n *normalizer) agent(kind call.Kind, m message) call.Observation {
	return call.Observation{Kind: kind, Queue: m.get("Queue"), Agent: agentName(m), Other: m.get("DestUniqueid")}
}

func (n *normalizer) dialEnded(id, status string) {
	if id != "" && n.dialEnd[id] != "BUSY" && len(n.dialEnd) < maxChannels {
		n.dialEnd[id] = status
	}
}

// refusal tells an agent who refused from one who let it ring: AgentRingNoAnswer is sent for both.
func (n *normalizer) refusal(dest string) call.Kind {
	status := n.dialEnd[dest]
	delete(n.dialEnd, dest)
	switch status {
	case "BUSY", "CONGESTION", "CHANUNAVAIL":
		return call.AgentReject
	}
	return call.AgentTimeout
}

func (n *normalizer) agentState(m message, state, reason string) {
	n.emit(call.AgentStateChange, "", func(o *call.Observation) {
		o.Agent, o.Queue, o.Value, o.Reason = agentName(m), m.get("Queue"), state, reason
	})
}

// member reports an agent who was there before this session.
func (n *normalizer) member(m message) {
	state, reason := "ready", ""
	if m.get("Paused") == "1" {
		state, reason = "not_ready", m.get("PausedReason")
	}
	n.agentState(m, state, reason)
	n.out[len(n.out)-1].Synthetic = true
}

// entry reports a caller who was waiting before this session.
func (n *normalizer) entry(caller string, m message) {
	pos, _ := strconv.Atoi(m.get("Position"))
	wait, _ := strconv.Atoi(m.get("Wait"))
	n.at -= call.Time(min(max(wait, 0), 86400)) * call.Second
	n.about(caller, call.Observation{Kind: call.QueueEnter, Queue: m.get("Queue"), Count: pos, Synthetic: true})
}

// left notes that a caller left a queue; the next message says why.
func (n *normalizer) left(id, queue string) {
	if c := n.chans[id]; c != nil && c.leftAt == 0 && len(n.leaving) < maxWaiting {
		c.leftAt, c.queue = n.at, queue
		n.leaving = append(n.leaving, id)
	}
}

// leave ends a caller's stay in a queue.
func (n *normalizer) leave(id, queue, result string) {
	c := n.chans[id]
	if c != nil && c.leftAt != 0 {
		queue = c.queue
		n.leaving = slices.DeleteFunc(n.leaving, func(x string) bool { return x == id })
		c.leftAt = 0
	} else if queue == "" {
		return
	}
	n.about(id, call.Observation{Kind: call.QueueLeave, Queue: queue, Value: result})
}

// flushAMI ends the waiting of what no other message explained.
func (n *normalizer) flushAMI(now call.Time) {
	for len(n.waiting) > 0 && now-n.waiting[0].since >= waitForARI {
		n.out = append(n.out, n.waiting[0].o)
		n.waiting = n.waiting[1:]
	}
	for len(n.leaving) > 0 {
		c := n.chans[n.leaving[0]]
		if c != nil && c.leftAt != 0 {
			if now-c.leftAt < waitForARI {
				return
			}
			n.at = c.leftAt
			n.about(c.id, call.Observation{Kind: call.QueueLeave, Queue: c.queue, Value: "timeout"})
			n.out[len(n.out)-1].Native.ID = "left:" + c.id + ":" + c.queue
			c.leftAt = 0
		}
		n.leaving = n.leaving[1:]
	}
}
