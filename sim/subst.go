package sim

import (
	"slices"
	"strconv"
	"strings"
)

// window is how far from its start a time in a recording may lie and still be of it.
const window = 2 * 3600 * second

// subst turns field x of step i into pieces. last is the variable that a ChannelVarset or VarSet event is about.
func (k *compiler) subst(i int, x field, fs []field, last string) []piece {
	if p, ok := k.special(i, x, fs, last); ok {
		return []piece{p}
	}
	var out []piece
	var lit []byte
	flush := func(p piece) {
		p.lit = lit
		out, lit = append(out, p), nil
	}
	for at := 0; at < len(x.val); {
		if p, n := k.match(i, x, at); n > 0 {
			flush(p)
			at += n
			continue
		}
		if p, n := k.timeAt(i, x, at, fs); n > 0 {
			flush(p)
			at += n
			continue
		}
		n := max(1, digits(x.val[at:]))
		lit = append(lit, x.val[at:at+n]...)
		at += n
	}
	if len(lit) > 0 || len(out) == 0 {
		flush(piece{})
	}
	return out
}

// match finds a literal of the call at x.val[at:].
func (k *compiler) match(i int, x field, at int) (piece, int) {
	v := x.val
	for _, l := range k.lits[v[at]] {
		if !strings.HasPrefix(v[at:], l.text) {
			continue
		}
		end := at + len(l.text)
		if l.anchor && (at > 0 && alnum(v[at-1]) && !k.branchBefore(v, at) || end < len(v) && alnum(v[end])) {
			continue
		}
		if l.plain && (reExt.MatchString(x.key) || at > 0 && v[at-1] == ':') {
			continue
		}
		if l.op == opSlot {
			k.shown(l.arg, i)
		}
		return piece{op: l.op, arg: l.arg}, len(l.text)
	}
	return piece{}, 0
}

// branchBefore lets a Via branch follow its magic cookie.
func (k *compiler) branchBefore(v string, at int) bool { return strings.HasSuffix(v[:at], "z9hG4bK") }

func (k *compiler) shown(slot, step int) {
	if s := &k.sc.slots[slot]; s.first < 0 {
		s.first = step
	}
}

// special handles fields that are one placeholder as a whole.
func (k *compiler) special(i int, x field, fs []field, last string) (piece, bool) {
	slotPiece := func(n int) (piece, bool) {
		k.shown(n, i)
		return piece{op: opSlot, arg: n}, true
	}
	switch x.key {
	case "application":
		return piece{op: opApp}, true
	case "Event-Sequence":
		return piece{op: opSeq}, true
	case "variable_Event-Sequence":
		return slotPiece(k.slotOf("#" + x.val))
	case "variable_session_id":
		return slotPiece(k.slotOf("session " + x.val))
	case "digit", "Digit", "DTMF-Digit":
		return slotPiece(k.slot(slotDigits, "digit "+x.val, strings.Index("42", x.val)))
	case "variable_choice", "variable_digits_dialed":
		if x.val == "42" {
			return slotPiece(k.slot(slotDigits, "digits", -1))
		}
	case "value", "Value":
		if last == "CHOICE" && x.val == "42" {
			return slotPiece(k.slot(slotDigits, "digits", -1))
		}
	case "LoginTime":
		return piece{op: opBoot}, true
	case "CallsTaken":
		return piece{op: opTaken, arg: agentOf(fs)}, true
	case "LastCall":
		return piece{op: opLast, arg: agentOf(fs)}, true
	}
	return k.duration(i, x, fs, last)
}

// agentOf says which of the call's agents an AMI message is about.
func agentOf(fs []field) int {
	for _, x := range fs {
		if x.key == "Interface" && strings.HasSuffix(x.val, "agent2") {
			return 1
		}
	}
	return 0
}

// timeAt recognises a time at x.val[at:] that lies within the recording.
func (k *compiler) timeAt(i int, x field, at int, fs []field) (piece, int) {
	v := x.val[at:]
	if at > 0 && alnum(x.val[at-1]) {
		return piece{}, 0
	}
	n := digits(v)
	switch {
	case n == 16:
		return k.timePiece(opMicro, x.key, parseInt(v[:16])-k.base, i, 16)
	case n == 10 && strings.Contains(x.val, "o=FreeSWITCH "): // SDP session ids are made of the time
		return piece{op: opSec, t: parseInt(v[:10])*second - k.base}, 10
	case n == 10:
		return k.secondPiece(opSec, x.key, parseInt(v[:10])*second-k.base, i, 10, fs)
	case n == 4 && len(v) >= 28 && v[4] == '-' && v[10] == 'T':
		if t := parseISO(v[:28]); t > 0 {
			return k.timePiece(opISO, x.key, t-k.base, i, 28)
		}
	case n == 4 && len(v) >= 19 && v[4] == '-' && v[10] == ' ':
		if t, err := parseLayout("2006-01-02 15:04:05", v[:19]); err == nil {
			return k.secondPiece(opLocal, x.key, t-k.base, i, 19, fs)
		}
	case n == 0 && len(v) >= 29 && v[3] == ',':
		if t, err := parseLayout("Mon, 02 Jan 2006 15:04:05 MST", v[:29]); err == nil {
			return k.secondPiece(opHTTP, x.key, t-k.base, i, 29, fs)
		}
	}
	return piece{}, 0
}

func (k *compiler) timePiece(o op, key string, t int64, i, n int) (piece, int) {
	if t < -window || t > window {
		return piece{}, 0
	}
	return piece{op: o, t: k.onLine(key, t, i), maybe: maybeKey(key)}, n
}

// secondPiece finds the precise time that t, cut to whole seconds, was made of.
func (k *compiler) secondPiece(o op, key string, t int64, i, n int, fs []field) (piece, int) {
	if t < -window || t > window {
		return piece{}, 0
	}
	if p, ok := k.sibling(key, fs); ok && p-mod(p+k.base, second) == t {
		return k.timePiece(o, siblingKey(key), p, i, n)
	}
	id := base(key) + strconv.FormatInt(t, 10)
	if p, ok := k.seconds[id]; ok {
		return k.timePiece(o, key, p, i, n)
	}
	p := k.precise(key, t, i)
	k.seconds[id] = p
	return k.timePiece(o, key, p, i, n)
}

// precise picks the last known time within second t that step i can know of.
func (k *compiler) precise(key string, t int64, i int) int64 {
	for part, action := range map[string]string{"oined": "member-queue-start", "alled": "agent-offering"} {
		if strings.Contains(key, part) {
			if own, ok := k.lastAction(action, i); ok && own >= t && own < t+second {
				return own
			}
		}
	}
	own := k.sc.steps[i].own
	if k.jump >= 0 && int64(i) >= k.jump {
		own -= second
	}
	if own >= t && own < t+second {
		return own
	}
	best := t + second/2
	for x := range k.known {
		if x >= t && x < t+second && x <= own && (best == t+second/2 || x > best) {
			best = x
		}
	}
	return best
}

// lastAction is the own time, as recorded, of the last callcenter action before step i.
func (k *compiler) lastAction(action string, i int) (int64, bool) {
	for j := i; j >= 0; j-- {
		if s := k.sc.steps[j]; s.action == action {
			if k.jump >= 0 && int64(j) >= k.jump {
				return s.own - second, true
			}
			return s.own, true
		}
	}
	return 0, false
}

// base drops what tells one key for the same time from another.
func base(key string) string {
	s, _ := cutSuffixes(strings.ToLower(strings.TrimPrefix(key, "variable_")), "_epoch", "_stamp", "-time", "_time")
	return strings.NewReplacer("-", "_", "cc_", "", "member_", "", "agent_", "").Replace(s)
}

// siblingKey is the key in the same event that holds the same time in full.
func siblingKey(key string) string {
	switch key {
	case "Event-Date-Local", "Event-Date-GMT":
		return "Event-Date-Timestamp"
	case "variable_Event-Date-Local", "variable_Event-Date-GMT":
		return "variable_Event-Date-Timestamp"
	case "variable_hold_stamp":
		return "variable_last_hold_uepoch"
	}
	s, suffix := cutSuffixes(key, "_epoch", "_stamp")
	if suffix == "" {
		return ""
	}
	return s + "_uepoch"
}

func (k *compiler) sibling(key string, fs []field) (int64, bool) {
	want := siblingKey(key)
	for _, x := range slices.Concat(k.after, fs) { // PRIVATE_COMMAND tells its times twice
		if want != "" && x.key == want && len(x.val) == 16 {
			return parseInt(x.val) - k.base, true
		}
	}
	return 0, false
}

// maybeKey reports whether a call cut short may never have come to what key tells the time of.
func maybeKey(key string) bool {
	for _, s := range []string{"nswer", "ridge", "rogress"} {
		if strings.Contains(key, s) {
			return true
		}
	}
	return false
}

func mod(a, b int64) int64 { return ((a % b) + b) % b }
