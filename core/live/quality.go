package live

import (
	"fmt"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// hearing is the latest report on one stream of a call.
type hearing struct {
	connection, direction string
	mos, loss             float64
	flags                 []string
}

// maxHearings bounds the reports kept of a call; what is beyond is not shown.
const maxHearings = 16

// hear takes note of what was measured of one of the call's streams.
func (r *row) hear(e *call.Event) {
	q := e.Quality
	h := hearing{connection: e.ConnectionID, direction: q.Direction, mos: q.MOS, loss: q.LossPercent, flags: q.Flags}
	i := slices.IndexFunc(r.heard, func(x hearing) bool { return x.connection == h.connection && x.direction == h.direction })
	switch {
	case i >= 0:
		r.heard[i] = h
	case len(r.heard) < maxHearings:
		r.heard = append(r.heard, h)
	}
}

// worst is the lowest MOS and the highest loss of the call's streams; a MOS of 0 is unknown.
func (r *row) worst() (mos, loss float64) {
	for _, h := range r.heard {
		if h.mos > 0 && (mos == 0 || h.mos < mos) {
			mos = h.mos
		}
		loss = max(loss, h.loss)
	}
	return mos, loss
}

func (r *row) flagged(flag string) bool {
	return slices.ContainsFunc(r.heard, func(h hearing) bool { return slices.Contains(h.flags, flag) })
}

// mos is the call's worst stream in a word or a number, and the colour for it (ITU-T G.107, annex B: below 3.6 many
// users are dissatisfied, below 3.1 nearly all).
func (r *row) mos() (text, code string) {
	mos, _ := r.worst()
	switch {
	case r.flagged(call.FlagOneWay):
		return "1-way", red
	case r.flagged(call.FlagNoMedia):
		return "none", red
	case mos == 0:
		return "", ""
	case mos < 3.1:
		code = red
	case mos < 3.6:
		code = yellow
	}
	return fmt.Sprintf("%.1f", mos), code
}

func (r *row) loss() (text, code string) {
	mos, loss := r.worst()
	switch {
	case mos == 0 && loss == 0:
		return "", ""
	case loss >= 5:
		code = red
	case loss >= 1:
		code = yellow
	}
	return fmt.Sprintf("%.1f%%", loss), code
}
