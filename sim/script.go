package sim

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// script is one kind of call and what is to be expected of it.
type script struct {
	recording string
	intro     string              // recording of the IVR that comes before, if any
	waits     map[string][]string // switch kind → names of the waits in the recording, in order; "": left as recorded
	queued    bool                // a wait in the queue is put in before the first offer
	agents    int                 // how many it needs
	outcome   call.Outcome
	hangupBy  string // caller, switch, or agent and which: agent1
	answered  []int  // which of its agents answer
	direction call.Direction
	idle      bool // no call: agents change state
}

// both gives the same waits to both switches.
func both(w ...string) map[string][]string {
	return map[string][]string{"asterisk": w, "freeswitch": w}
}

func each(asterisk, freeswitch []string) map[string][]string {
	return map[string][]string{"asterisk": asterisk, "freeswitch": freeswitch}
}

type w = []string

var scripts = map[string]script{
	"ivr_queue": {recording: "queue_answered", intro: "ivr_dtmf", agents: 1, queued: true, outcome: call.Answered, hangupBy: "caller", answered: []int{0},
		waits: each(w{"menu", "digit", "ivr", "ring", "talk"}, w{"", "menu", "digit", "ivr", "ring", "talk"})},
	"queue_answered": {recording: "queue_answered", agents: 1, queued: true, outcome: call.Answered, hangupBy: "caller", answered: []int{0},
		waits: both("ring", "talk")},
	"queue_abandoned": {recording: "queue_abandoned", agents: 1, queued: true, outcome: call.Abandoned, hangupBy: "caller",
		waits: each(w{"ring"}, w{"ring", "", ""})},
	"queue_rejected_then_answered": {recording: "queue_wait_then_answered", agents: 1, queued: true, outcome: call.Answered, hangupBy: "caller", answered: []int{0},
		waits: each(w{"retry", "ring", "talk"}, w{"retry", "ring", "talk"})},
	"ivr_agent": {recording: "ivr_dtmf", agents: 1, outcome: call.Answered, hangupBy: "caller", answered: []int{0},
		waits: each(w{"menu", "digit", "ring", "talk"}, w{"", "menu", "digit", "ring", "talk"})},
	"inbound_answered": {recording: "inbound_answered_caller_hangup", agents: 1, outcome: call.Answered, hangupBy: "caller", answered: []int{0},
		waits: both("ivr", "ring", "talk")},
	"inbound_agent_hangup": {recording: "inbound_answered_agent_hangup", agents: 1, outcome: call.Answered, hangupBy: "agent1", answered: []int{0},
		waits: both("ivr", "ring", "talk")},
	"hold_retrieve": {recording: "hold_retrieve", agents: 1, outcome: call.Answered, hangupBy: "caller", answered: []int{0},
		waits: both("ring", "talk", "hold", "talk2")},
	"blind_transfer": {recording: "blind_transfer", agents: 2, outcome: call.Answered, hangupBy: "caller", answered: []int{0, 1},
		waits: both("ring", "talk", "ring2", "talk2")},
	"attended_transfer": {recording: "attended_transfer", agents: 2, outcome: call.Answered, hangupBy: "caller", answered: []int{0, 1},
		waits: each(w{"ring", "talk", "", "ring2", "consult", "talk2"}, w{"ring", "talk", "", "ring2", "consult", "", "talk2"})},
	"ring_group":  {recording: "ring_group", agents: 2, outcome: call.Answered, hangupBy: "caller", answered: []int{1}, waits: both("ring", "talk")},
	"abandoned":   {recording: "abandoned_while_ringing", agents: 1, outcome: call.Abandoned, hangupBy: "caller", waits: both("ring")},
	"busy":        {recording: "busy", agents: 1, outcome: call.Busy, hangupBy: "switch", waits: both()},
	"declined":    {recording: "declined", agents: 1, outcome: call.Rejected, hangupBy: "switch", waits: both("ring")},
	"no_answer":   {recording: "no_answer", agents: 1, outcome: call.NoAnswer, hangupBy: "switch", waits: both("ring")},
	"unallocated": {recording: "unallocated", outcome: call.Failed, hangupBy: "switch", waits: both()},
	"click_to_call": {recording: "originate_click_to_call", agents: 2, outcome: call.Answered, hangupBy: "agent1", answered: []int{0, 1}, direction: call.Internal,
		waits: both("ring", "ring2", "talk")},
	"conference": {recording: "conference", agents: 2, outcome: call.Answered, answered: []int{0, 1},
		waits: each(w{"room", "ring", "room", "ring2", "", "talk", "", "", ""}, w{"room", "ring", "room", "ring2", "talk", "", ""})},
	"agent_break": {recording: "agent_states", agents: 2, idle: true,
		waits: each(w{"break", "break", "break"}, w{"break", "break", "break", "break"})},
}

// Scripts returns the names of all scripts, sorted.
func Scripts() []string { return slices.Sorted(maps.Keys(scripts)) }

// DefaultMix is the traffic of a contact centre's ordinary day.
func DefaultMix() map[string]int {
	return map[string]int{
		"ivr_queue": 30, "queue_answered": 14, "queue_abandoned": 7, "queue_rejected_then_answered": 5, "ivr_agent": 6,
		"inbound_answered": 8, "inbound_agent_hangup": 6, "hold_retrieve": 6, "blind_transfer": 4, "attended_transfer": 3,
		"ring_group": 3, "abandoned": 2, "busy": 2, "declined": 1, "no_answer": 2, "unallocated": 1, "click_to_call": 2,
		"conference": 1, "agent_break": 1,
	}
}

// draw returns how long the wait name lasts, in microseconds at speed 1.
func draw(r *rand.Rand, name string) int64 {
	uniform := func(lo, hi float64) float64 { return lo + r.Float64()*(hi-lo) }
	var s float64
	switch name {
	case "ivr":
		s = uniform(2, 8)
	case "menu":
		s = uniform(2, 7)
	case "digit":
		s = uniform(0.3, 1.2)
	case "wait":
		s = math.Min(r.ExpFloat64()*12, 120)
	case "ring", "ring2":
		s = uniform(2, 12)
	case "retry":
		s = uniform(3, 6)
	case "talk":
		s = clamp(math.Exp(math.Log(110)+0.7*r.NormFloat64()), 8, 900)
	case "talk2":
		s = clamp(math.Exp(math.Log(60)+0.7*r.NormFloat64()), 5, 600)
	case "hold":
		s = uniform(5, 60)
	case "consult":
		s = uniform(5, 40)
	case "room":
		s = uniform(5, 30)
	case "break":
		s = uniform(60, 600)
	}
	return int64(s * second)
}

func clamp(v, lo, hi float64) float64 { return math.Max(lo, math.Min(hi, v)) }

// mixer draws scripts by weight.
type mixer struct {
	names []string
	upTo  []int
}

func newMixer(mix map[string]int) mixer {
	var m mixer
	sum := 0
	for _, n := range slices.Sorted(maps.Keys(mix)) {
		if mix[n] > 0 {
			sum += mix[n]
			m.names, m.upTo = append(m.names, n), append(m.upTo, sum)
		}
	}
	return m
}

func (m mixer) draw(r *rand.Rand) string {
	if len(m.names) == 0 {
		return ""
	}
	i, _ := slices.BinarySearch(m.upTo, 1+r.IntN(m.upTo[len(m.upTo)-1]))
	return m.names[i]
}
