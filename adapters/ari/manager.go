package ari

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// feedAMI is AMI's; ARI's is the first.
const feedAMI call.Feed = 1

// waitingAMI is an observation about a channel that ARI has not shown yet: the two links race.
type waitingAMI struct {
	o     call.Observation
	since call.Time
}

// manager reads one AMI event: what ARI does not tell, queues and agents.
func (n *normalizer) manager(m message, received call.Time) core.Frame {
	typ := m.get("Event")
	n.begin(typ, cmp.Or(eventTime(m.get("Timestamp")), received+n.ahead), received)
	if n.since == 0 {
		n.since = received
	}
	n.raw = m.raw
	n.managerEvent(typ, m)
	n.raw = nil
	n.identify(m.raw, "")
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
		n.overflowed(caller)
		pos, _ := strconv.Atoi(m.get("Position"))
		n.about(caller, call.Observation{Kind: call.QueueEnter, Queue: m.get("Queue"), Count: pos})
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
		n.available(m)
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
		n.pause(m)
		n.available(m)
	case "QueueMember": // an answer to QueueStatus, as are QueueEntry's
		n.member(m)
	case "QueueEntry":
		n.entry(caller, m)
	case "QueueStatusComplete": // later, since what was told of a queue before may come after
		n.asked, n.since = n.received, n.received
	case "QueueMemberAdded":
		n.agentState(m, "logged_in", "")
		if n.pause(m); m.get("Paused") == "1" {
			n.available(m)
		}
	case "QueueMemberRemoved":
		n.agentState(m, "logged_out", "")
	}
}

// about emits o for a channel, or holds it until ARI has shown the channel.
func (n *normalizer) about(id string, o call.Observation) {
	o.Leg, o.At, o.Received, o.Native, o.Feed = id, n.at, n.received, n.native, feedAMI
	c := n.chans[id]
	switch {
	case id == "":
	case c != nil && c.held:
		n.release(c)
		n.out = append(n.out, o)
	case c != nil:
		n.out = append(n.out, o)
	case len(n.waiting) < maxWaiting:
		o.Native.ID = digest(n.raw, "") // its own, not that of the message it waits for
		n.waiting = append(n.waiting, waitingAMI{o, n.received})
	default:
		n.count("ami_waiting_full", 1)
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
		o.Agent, o.Queue, o.Value, o.Reason, o.Feed = agentName(m), m.get("Queue"), state, reason, feedAMI
	})
}

// pause remembers whether an agent is paused, and why.
func (n *normalizer) pause(m message) {
	who := agentName(m)
	if m.get("Paused") != "1" {
		delete(n.paused, who)
	} else if len(n.paused) < maxChannels {
		n.paused[who] = m.get("PausedReason")
	}
}

// available reports an agent who is in no call: ready, or paused.
func (n *normalizer) available(m message) {
	if reason, paused := n.paused[agentName(m)]; paused {
		n.agentState(m, "not_ready", reason)
	} else {
		n.agentState(m, "ready", "")
	}
}

// member reports an agent who was there before this session.
func (n *normalizer) member(m message) {
	n.pause(m)
	if m.get("InCall") == "1" {
		n.agentState(m, "busy", "")
	} else {
		n.available(m)
	}
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
		c.leftAt, c.leftRx, c.queue = n.at, n.received, queue
		n.leaving = append(n.leaving, id)
	}
}

// waitersTold says that those who wait have all been named.
func (n *normalizer) waitersTold(now call.Time) {
	if n.asked == 0 || !passed(waitForARI, n.asked, now) {
		return
	}
	n.emit(call.QueueSnapshotEnd, "", func(o *call.Observation) {
		o.At, o.Native.ID = n.asked+n.ahead, "queues:"+n.asked.String()
	})
	n.asked = 0
}

// overflowed ends the stay in the queue that a caller has just left for another.
func (n *normalizer) overflowed(id string) {
	c := n.chans[id]
	if c == nil || c.leftAt == 0 {
		return
	}
	at, result := n.at, "timeout"
	if c.leftRx < n.since+call.Second { // the word for it may have come before we listened
		result = ""
	}
	n.at = c.leftAt
	n.leave(id, c.queue, result)
	n.out[len(n.out)-1].Native.ID = "left:" + c.id + ":" + c.queue
	n.at = at
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

// flushAMI ends the waiting of what no other message explained. What ARI never showed is no party's, a Local channel's
// for one.
func (n *normalizer) flushAMI(now call.Time) {
	defer n.waitersTold(now)
	for len(n.waiting) > 0 && passed(waitForARI, n.waiting[0].since, now) {
		n.count("ami_unknown_channel", 1)
		n.waiting = n.waiting[1:]
	}
	for len(n.leaving) > 0 {
		c := n.chans[n.leaving[0]]
		if c != nil && c.leftAt != 0 {
			if !passed(waitForARI, c.leftRx, now) {
				return
			}
			n.overflowed(c.id)
			continue // it took itself off the list
		}
		n.leaving = n.leaving[1:]
	}
}
