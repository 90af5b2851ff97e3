package esl

import (
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// custom handles the events of modules.
func (n *normalizer) custom(e *event, id string, l *legState) {
	subclass := e.get("Event-Subclass")
	if subclass == "callcenter::info" {
		n.callcenter(e)
		return
	}
	if l == nil {
		l = n.legs[id] // the event names its channel and says no more of it
	}
	if l == nil || !l.created { // not a party's
		return
	}
	switch subclass {
	case "conference::maintenance":
		n.conference(e, id)
	case "fifo::info":
		n.fifo(e, id)
	case "valet_parking::info":
		n.valet(e, id)
	case "sofia::reinvite":
		n.reinvite(id, l)
	}
}

// callcenter handles mod_callcenter.
func (n *normalizer) callcenter(e *event) {
	caller, action := e.get("CC-Member-Session-UUID"), e.get("CC-Action")
	queue, agent := queueName(e.get("CC-Queue")), local(e.get("CC-Agent"))
	n.native.Type = "callcenter::info " + action
	about := func(kind call.Kind, result string) {
		if l := n.legs[caller]; l != nil && l.created {
			n.emit(kind, caller, func(o *call.Observation) {
				o.Queue, o.Agent, o.Value, o.Other = queue, agent, result, e.get("CC-Agent-UUID")
			})
		}
	}
	switch action {
	case "member-queue-start":
		about(call.QueueEnter, "")
	case "agent-offering":
		about(call.AgentOffer, "")
	case "bridge-agent-start":
		about(call.AgentAccept, "")
		about(call.QueueLeave, "answered")
	case "bridge-agent-fail":
		if kind := refusal(e.get("CC-Hangup-Cause")); kind != 0 {
			about(kind, "")
		}
	case "member-queue-end":
		about(call.QueueLeave, queueResult(e))
	case "agent-status-change":
		n.agentStatus(e.get("CC-Agent"), statuses[e.get("CC-Agent-Status")])
	case "agent-state-change":
		n.agentCall(e.get("CC-Agent"), e.get("CC-Agent-State"))
	}
}

// queueName drops mod_callcenter's default domain; another tells two tenants' queues apart.
func queueName(s string) string { return strings.TrimSuffix(s, "@default") }

func local(s string) string {
	s, _, _ = strings.Cut(s, "@")
	return s
}

// refusal tells an agent who refused from one who let it ring; 0 when the caller gave up.
func refusal(cause string) call.Kind {
	switch cause {
	case "ORIGINATOR_CANCEL", "LOSE_RACE", "PICKED_OFF":
		return 0
	case "NO_ANSWER", "ALLOTTED_TIMEOUT", "NO_USER_RESPONSE", "PROGRESS_TIMEOUT", "RECOVERY_ON_TIMER_EXPIRE":
		return call.AgentTimeout
	}
	return call.AgentReject
}

// queueResult is how a member left: mod_callcenter ends every stay with member-queue-end.
func queueResult(e *event) string {
	if e.get("CC-Cause") == "Terminated" {
		return "answered"
	}
	return canceled(e.get("CC-Cancel-Reason"))
}

// canceled is how a member left whom no agent took.
func canceled(reason string) string {
	switch reason {
	case "TIMEOUT", "NO_AGENT_TIMEOUT":
		return "timeout"
	case "EXIT_WITH_KEY":
		return "transferred"
	}
	return "abandoned"
}

// statuses maps mod_callcenter's agent status to the model's state.
var statuses = map[string]string{
	"Available": "ready", "Available (On Demand)": "ready", "On Break": "not_ready", "Logged Out": "logged_out",
}

// agentState is what is known of an agent, by full name: the same user may be an agent of two domains.
type agentState struct {
	status string // what the agent chose
	busy   bool   // in a queue call
}

func (n *normalizer) agent(name string) *agentState {
	a := n.agents[name]
	if a == nil {
		a = &agentState{status: "ready"}
		if len(n.agents) < maxLegs {
			n.agents[name] = a
		}
	}
	return a
}

func (n *normalizer) emitAgent(name, state string) {
	if name != "" && state != "" {
		n.emit(call.AgentStateChange, "", func(o *call.Observation) { o.Agent, o.Other, o.Value = local(name), name, state })
	}
}

func (n *normalizer) agentStatus(name, status string) {
	if status != "" {
		n.agent(name).status = status
		n.emitAgent(name, status)
	}
}

// agentCall follows an agent into a queue call and out of it, back to what the agent chose meanwhile. One who comes out of
// a call that began before this reader did is told of too: another reader of the switch has seen it begin.
func (n *normalizer) agentCall(name, state string) {
	_, known := n.agents[name]
	a := n.agent(name)
	switch {
	case state == "In a queue call":
		a.busy = true
		n.emitAgent(name, "busy")
	case (a.busy || !known) && (state == "Waiting" || state == "Idle"):
		a.busy = false
		n.emitAgent(name, a.status)
	}
}

func (n *normalizer) conference(e *event, id string) {
	action := e.get("Action")
	n.native.Type = "conference::maintenance " + action
	kind := call.LegBridged
	switch action {
	case "add-member":
	case "del-member":
		kind = call.LegUnbridged
	default:
		return
	}
	n.emit(kind, id, func(o *call.Observation) {
		o.Bridge, o.Conference = e.get("Conference-Unique-ID"), e.get("Conference-Name")
	})
}

// fifo handles mod_fifo's caller side.
func (n *normalizer) fifo(e *event, id string) {
	action := e.get("FIFO-Action")
	n.native.Type = "fifo::info " + action
	queue := queueName(e.get("FIFO-Name"))
	about := func(kind call.Kind, result string) {
		n.emit(kind, id, func(o *call.Observation) { o.Queue, o.Value = queue, result })
	}
	switch action {
	case "push":
		about(call.QueueEnter, "")
	case "bridge-caller-start", "bridge-caller":
		about(call.QueueLeave, "answered")
	case "abort":
		about(call.QueueLeave, "abandoned")
	case "timeout":
		about(call.QueueLeave, "timeout")
	}
}

// reinvite: a re-INVITE was answered. FreeSWITCH reports a hold when it is asked for one, a quarter of a second before
// it agrees, and its end when it agrees; both ends of a hold are taken at the agreement.
func (n *normalizer) reinvite(id string, l *legState) {
	if l.asked { // later ones refresh the session
		l.asked = false
		n.emit(call.LegHeld, id)
	}
}

// valet handles mod_valet_parking: a parked party is on hold until somebody picks it up.
func (n *normalizer) valet(e *event, id string) {
	action := e.get("Action")
	n.native.Type = "valet_parking::info " + action
	switch action {
	case "hold":
		n.emit(call.LegHeld, id)
	case "bridge", "exit":
		n.emit(call.LegRetrieved, id)
	}
}
