package adaptertest

import (
	"fmt"

	"github.com/ctigate/ctigate/core/call"
)

// Tolerance between what a switch says and what the packets show: FreeSWITCH stamps events on a 20 ms grid.
const Tolerance = 60 // ms

// Dialog is one SIP dialog as wire.json has it: Unix seconds at the capture point.
type Dialog struct {
	CallID   string  `json:"call_id"`
	Ringing  float64 `json:"ringing_at"`
	Answered float64 `json:"answered_at"`
	Ended    float64 `json:"ended_at"`
	Code     int     `json:"final_code"`
}

// At converts Unix seconds, zero for none.
func At(f float64) call.Time { return call.Time(f * 1e6) }

// Near reports whether two times agree within Tolerance.
func Near(a, b call.Time) bool {
	d := (a - b) / call.Millisecond
	return d <= Tolerance && d >= -Tolerance
}

// Compare holds one connection against its dialog: when it rang, was answered and ended, and so how long it rang and
// talked.
func (d Dialog) Compare(c *call.Connection) (faults []string) {
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if c.AlertingAt != 0 && d.Ringing != 0 && !Near(c.AlertingAt, At(d.Ringing)) {
		bad("%s rang at %v, on the wire at %v", c.Party.ID, c.AlertingAt, At(d.Ringing))
	}
	if d.Answered != 0 != (c.ConnectedAt != 0) || !Near(c.ConnectedAt, At(d.Answered)) {
		bad("%s was connected at %v, on the wire at %v", c.Party.ID, c.ConnectedAt, At(d.Answered))
	}
	if d.Ended != 0 && c.ClearedAt != 0 && !Near(c.ClearedAt, At(d.Ended)) {
		bad("%s was cleared at %v, on the wire at %v", c.Party.ID, c.ClearedAt, At(d.Ended))
	}
	if d.Answered != 0 && d.Ringing != 0 && c.AlertingAt != 0 && !Near(c.ConnectedAt-c.AlertingAt, At(d.Answered)-At(d.Ringing)) {
		bad("%s rang for %d ms, on the wire %d", c.Party.ID, c.ConnectedAt.Sub(c.AlertingAt), At(d.Answered).Sub(At(d.Ringing)))
	}
	if d.Answered != 0 && d.Ended != 0 && c.ClearedAt != 0 && !Near(c.ClearedAt-c.ConnectedAt, At(d.Ended)-At(d.Answered)) {
		bad("%s was connected for %d ms, on the wire %d", c.Party.ID, c.ClearedAt.Sub(c.ConnectedAt), At(d.Ended).Sub(At(d.Answered)))
	}
	return faults
}
