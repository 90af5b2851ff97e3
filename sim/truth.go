package sim

import (
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Truth is what a person watching one simulated call would say happened. It is what the gateway must come to.
type Truth struct {
	Number     int64 // of the call on its switch: 1, 2, 3 …
	Script     string
	Legs       []string // the switch's own leg ids, first leg first
	From       string   // "+14155550100"; empty for a call nobody dialed in
	FromName   string
	Queue      string // empty: never in a queue
	Digits     string // pressed in the IVR
	Agents     []string
	AnsweredBy []string
	Outcome    call.Outcome // empty: no call at all (agents changed state)
	HangupBy   string       // caller, switch or an agent's id; empty where each left by himself
	Started    time.Time    // by the switch's clock
	Ended      time.Time
	Cut        bool // hung up through the control interface: outcome and hang-up differ from the script's
}

// describe fills in what the script promises.
func (t *Truth) describe(c *simCall, sp script) {
	t.Number, t.Script, t.Outcome, t.HangupBy = c.number, c.sc.name, sp.outcome, sp.hangupBy
	for i, a := range c.staff {
		t.Agents = append(t.Agents, a.user())
		for _, n := range sp.answered {
			if n == i {
				t.AnsweredBy = append(t.AnsweredBy, a.user())
			}
		}
	}
	if sp.hangupBy == "agent1" {
		t.HangupBy = c.agent(0).user()
	}
	if !sp.queued && !sp.idle {
		t.Queue = ""
	}
	if !pressesDigits(sp) {
		t.Digits = ""
	}
	if sp.direction == call.Internal || sp.idle {
		t.From, t.FromName = "", ""
	}
	t.Started = time.UnixMicro(c.sw.stamp(c.start)).UTC()
}

func pressesDigits(sp script) bool { return sp.intro != "" || sp.recording == "ivr_dtmf" }

// close adds what is known only at the end.
func (t *Truth) close(c *simCall) {
	t.Ended = time.UnixMicro(c.sw.stamp(c.warp(c.sc.last))).UTC()
	t.Cut = c.order != nil
	seen := map[string]bool{}
	for s := range c.played {
		if s.leg >= 0 && !seen[c.vals[s.leg]] {
			seen[c.vals[s.leg]] = true
			t.Legs = append(t.Legs, c.vals[s.leg])
		}
	}
}
