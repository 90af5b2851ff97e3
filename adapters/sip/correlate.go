package sip

import (
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// A switch makes two dialogs of one call, and nothing in SIP says so. What shows it, best first: a header that names the
// other dialog or carries the same value in both; the caller's number, on its way into the switch and out of it, while
// the first waits; the dialed number likewise.

// relation is how a new dialog belongs to one that is there.
type relation struct {
	to       *dialog
	evidence string
	replaces bool // it takes the place of to (RFC 3891), which says nothing of who is a switch
}

// apply makes o's leg part of the call that rel names, and d of its group.
func (rel relation) apply(o *call.Observation, d *dialog) {
	if rel.to == nil {
		return
	}
	o.Parent, o.Evidence = rel.to.anyLeg(), rel.evidence
	if parent := rel.to.group.first(); parent != "" {
		o.Parent = parent
	}
	rel.to.group.merge(d.group)
}

// first is the oldest live leg of g, empty for none.
func (g *group) first() string {
	for _, d := range g.dialogs {
		if leg := d.anyLeg(); leg != "" && d.live() {
			return leg
		}
	}
	return ""
}

// index finds dialogs by what could relate them. Each list is bounded and oldest first.
type index map[string][]*dialog

// maxSame bounds how many dialogs are found under one key.
const maxSame = 256

func newIndex() index { return index{} }

// put files d under its numbers and tokens. Kinds of key are told apart by their first byte.
func (x index) put(d *dialog, tokens []string) {
	keys := append(tokens, "i"+d.callID)
	if k := numberKey(d.number); k != "" {
		keys = append(keys, "n"+k)
	}
	if k := numberKey(d.user); k != "" {
		keys = append(keys, "n"+k)
	}
	if k := numberKey(d.dialed); k != "" {
		keys = append(keys, "d"+k)
	}
	for _, k := range keys {
		list := x[k]
		if slices.Contains(list, d) {
			continue
		}
		if len(list) >= maxSame { // the newest can still have their other halves before them
			i := max(0, slices.IndexFunc(list, func(c *dialog) bool { return !c.live() }))
			list = slices.Delete(list, i, i+1)
		}
		x[k] = append(list, d)
		d.keys = append(d.keys, k)
	}
}

func (x index) drop(d *dialog) {
	for _, k := range d.keys {
		list := x[k]
		i := slices.Index(list, d)
		if i < 0 {
			continue
		}
		if len(list) == 1 {
			delete(x, k)
		} else {
			x[k] = slices.Delete(list, i, i+1)
		}
	}
	d.keys = nil
}

// namedHeaders carry the Call-ID of another dialog, or, X-CID, of the caller's.
var namedHeaders = [...]string{"replaces", "join", "target-dialog", "in-reply-to", "x-cid"}

// tokens are the values of m under which another dialog of the same call may be filed.
func (e *engine) tokens(m *message) (out []string) {
	for _, name := range e.o.CorrelationHeaders {
		if v := m.header(strings.ToLower(name)); v != "" {
			out = append(out, "h"+strings.ToLower(name)+"\x00"+v)
		}
	}
	if id := sessionID(m.header("session-id")); id != "" {
		out = append(out, "s"+id)
	}
	return out
}

// sessionID is the sender's half of a Session-ID (RFC 7989), which a switch passes on; empty for none.
func sessionID(h string) string {
	id, _, _ := strings.Cut(h, ";")
	id = strings.TrimSpace(id)
	if len(id) != 32 || strings.Trim(id, "0") == "" {
		return ""
	}
	return strings.ToLower(id)
}

// correlation is what other switches' calls may carry too: the first configured header that m has.
func (e *engine) correlation(m *message) string {
	for _, name := range e.o.CorrelationHeaders {
		if v := m.header(strings.ToLower(name)); v != "" {
			return v
		}
	}
	return ""
}

// relate finds the dialog to which d, begun by m, belongs.
func (e *engine) relate(d *dialog, m *message, id identity) relation {
	if rel := e.relateByName(d, m); rel.to != nil {
		return rel
	}
	best, score, evidence := (*dialog)(nil), 0, ""
	consider := func(key, what string, judge func(*dialog) int) {
		for _, c := range e.index[key] {
			if c.live() && c.anyLeg() != "" && c.callID != d.callID && (c.at(d) || e.roles.bothConfigured(c.ends[uas], d.ends[uac])) {
				if n := judge(c); n > score { // of equals, the one that has waited longest
					best, score, evidence = c, n, what
				}
			}
		}
	}
	if k := numberKey(id.number); k != "" {
		consider("n"+k, "number_and_time", func(c *dialog) int {
			if !sameNumber(c.number, id.number) && !sameNumber(c.user, id.number) {
				return 0
			}
			return e.byNumber(c)
		})
	}
	if k := numberKey(d.dialed); k != "" && score < ringing {
		consider("d"+k, "dialed_number_and_time", func(c *dialog) int {
			if !sameNumber(c.dialed, d.dialed) {
				return 0
			}
			return e.byDialed(c)
		})
	}
	if best == nil {
		return relation{}
	}
	switch score {
	case referred:
		evidence, best.group.referred = "refer_and_number", 0
	case diverted:
		evidence, best.group.diverted = "diversion_and_number", 0
	}
	return relation{to: best, evidence: evidence}
}

// relateByName finds the dialog that m names, or that carries the same value in a header.
func (e *engine) relateByName(d *dialog, m *message) relation {
	for _, name := range namedHeaders {
		id, _, _ := strings.Cut(m.header(name), ";")
		if id = strings.TrimSpace(id); id == "" {
			continue
		}
		if c := e.filed("i"+id, d); c != nil {
			return relation{to: c, evidence: name, replaces: name != "x-cid"}
		}
	}
	for c := e.dialogs[d.callID]; c != nil; c = c.next { // a border element may keep the Call-ID, with a tag of its own
		if c != d && c.live() && c.tags[uac] != d.tags[uac] && c.at(d) {
			return relation{to: c, evidence: "call_id"}
		}
	}
	if i := strings.LastIndex(d.callID, "_b2b-"); i > 0 {
		if c := e.filed("i"+d.callID[:i], d); c != nil {
			return relation{to: c, evidence: "call_id"}
		}
	}
	for _, token := range e.tokens(m) {
		if c := e.filed(token, d); c != nil {
			name := "session-id"
			if token[0] == 'h' {
				name, _, _ = strings.Cut(token[1:], "\x00")
			}
			return relation{to: c, evidence: "header:" + name}
		}
	}
	return relation{}
}

// filed is the newest live dialog under key, other than d.
func (e *engine) filed(key string, d *dialog) *dialog {
	for _, c := range slices.Backward(e.index[key]) {
		if c.live() && c != d {
			return c
		}
	}
	return nil
}

// at reports whether the sender of d is an end of c: the switch that c reached, or that called c's party. On loopback
// only the port tells addresses apart.
func (c *dialog) at(d *dialog) bool {
	x := d.ends[uac]
	if c.ends[uas] == x || c.ends[uac] == x && c.outbound() {
		return true
	}
	return !x.Addr().IsLoopback() && c.ends[uas].Addr() == x.Addr() && c.ends[uac].Addr() != x.Addr()
}

// How strong the evidence is; the higher one wins.
const (
	joinedTo = 30 + iota*10 // its caller talks already: another party is called in
	standing                // the party that the switch called first has just answered
	dialing                 // its caller waits while others are rung
	inside                  // its caller waits inside the switch: a menu, a queue
	ringing                 // its caller waits for an answer, and nobody has been called
	diverted                // its party has sent the call elsewhere
	referred                // its party has asked for the call to be passed on
)

// How long after a REFER or 3xx the switch may call its target; after the answer of a user whom it called first, the
// other party; and after a call came in, the one dialed.
const (
	referWithin  = 32 * call.Second
	divertWithin = 10 * call.Second
	standWithin  = call.Second
	callWithin   = 10 * call.Second
)

// byNumber judges a dialog with the same caller's number, or with the caller as its party.
func (e *engine) byNumber(c *dialog) int {
	g := c.group
	if g.referred != 0 && e.now-g.referred < referWithin {
		return referred
	}
	if g.diverted != 0 && e.now-g.diverted < divertWithin {
		return diverted
	}
	calling, talking := g.calling()
	if !c.inbound() {
		if c.phase == confirmed && len(g.dialogs) == 1 && !isPhoneNumber(c.user) && e.now-c.lag-c.answered < standWithin {
			return standing
		}
		return 0
	}
	switch {
	case talking:
		return joinedTo
	case calling:
		return dialing
	case c.phase == confirmed:
		return inside
	}
	return ringing
}

// byDialed judges a dialog with the same dialed number: a switch that shows another caller's number passes that on.
func (e *engine) byDialed(c *dialog) int {
	if !c.inbound() || c.phase == confirmed || e.now-c.heard > callWithin {
		return 0
	}
	if calling, _ := c.group.calling(); calling {
		return standing
	}
	return inside
}
