package esl

import (
	"fmt"

	"github.com/ctigate/ctigate/core/call"
)

// restartDistance is how far Event-Sequence may fall back before it means a new counter. Inversions on a loaded switch
// are a few dozen deep.
const restartDistance = 10_000

// continuity watches what the switch itself says about the order and completeness of its events.
//
// Event-Sequence counts every event of the switch, and is given out before the event is dispatched by one of several
// threads. A link that subscribes to some events therefore sees holes all the time, and a link that subscribes to all
// of them still sees inversions and holes (35 inversions in 2,175 recorded events; 251 and 450 holes in 19,803). No
// hole, however wide, proves a loss: a thousand phones that register put thousands of unsubscribed events between two
// of ours. So holes are not reported. What can be told:
//
//   - another Core-UUID, or a sequence far below the highest seen: the switch behind the link is another process. The
//     session ends, and the next one takes a snapshot.
//   - HEARTBEATs too far apart, by the switch's own time: they travel the same queue inside FreeSWITCH as every other
//     event (mod_event_socket drops up to 500 events in silence when it is full), so where one is missing others may
//     be. That is a suspected gap. The interval is learned, since event-heartbeat-interval sets it.
//
// Inversions are counted (sequence_inversions), as a sign of load on the switch.
type continuity struct {
	core     string // Core-UUID of the session
	highest  uint64 // Event-Sequence
	beat     call.Time
	interval call.Time // shortest time seen between two HEARTBEATs
}

// verdict is what one event says about continuity.
type verdict struct {
	inverted bool
	restart  string // why the session must end
	gap      string // why events may have been lost
}

func (c *continuity) see(body []byte, json bool) verdict {
	var v verdict
	core := headerOf(body, json, "Core-UUID")
	switch {
	case len(core) == 0:
	case c.core == "":
		c.core = string(core)
	case c.core != string(core):
		v.restart = fmt.Sprintf("Core-UUID changed from %s to %s: another FreeSWITCH process answers", c.core, shorten(core))
		return v
	}
	if seq := number(headerOf(body, json, "Event-Sequence")); seq > c.highest {
		c.highest = seq
	} else if seq > 0 {
		v.inverted = seq < c.highest
		if seq+restartDistance < c.highest {
			v.restart = fmt.Sprintf("Event-Sequence fell back from %d to %d: FreeSWITCH was restarted", c.highest, seq)
			return v
		}
	}
	if string(headerOf(body, json, "Event-Name")) == "HEARTBEAT" {
		v.gap = c.heartbeat(call.Time(number(headerOf(body, json, "Event-Date-Timestamp"))))
	}
	return v
}

// heartbeat compares a HEARTBEAT's time with the one before.
func (c *continuity) heartbeat(at call.Time) (gap string) {
	before := c.beat
	c.beat = at
	if before == 0 || at <= before {
		return ""
	}
	passed := at - before
	if c.interval > 0 && passed > c.interval*7/4 {
		return fmt.Sprintf("suspected: %d ms between two HEARTBEATs that come every %d ms; events of that time may be lost", at.Sub(before), c.interval.Sub(0))
	}
	if c.interval == 0 || passed < c.interval {
		c.interval = passed
	}
	return ""
}
