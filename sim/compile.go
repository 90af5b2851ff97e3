package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// second is a second of recorded time, which is in microseconds.
const second = 1_000_000

// minSpan is the shortest wait that counts as one; lead is how long before a step the times it states may lie.
const (
	minSpan = second * 15 / 100
	lead    = second * 45 / 1000
)

// compiler turns a recording into a score.
type compiler struct {
	sc      *score
	sp      script
	base    int64 // of the first frame: the zero of the score's time
	jump    int64 // step before which the queue wait is put in; -1: nowhere
	lits    map[byte][]literal
	known   map[int64]bool   // every precise time of the recording, since base
	seconds map[string]int64 // key and second → the precise time it was cut from
	sides   map[string]int   // key and time → step that first told it
	marks   marks
	after   []field // from the one being compiled on
}

// parts is a frame taken apart.
type parts struct {
	fields []field
	tail   string
}

func compile(kind, name string, sp script, frames []frame) (*score, error) {
	if len(frames) == 0 {
		return nil, fmt.Errorf("compiling %s/%s: the recording is empty", kind, name)
	}
	k := &compiler{sc: &score{name: name, kind: kind}, sp: sp, base: frames[0].at, jump: -1,
		lits: map[byte][]literal{}, known: map[int64]bool{}, seconds: map[string]int64{}, sides: map[string]int{}}
	parts := make([]parts, len(frames))
	for i, f := range frames {
		parts[i].fields, parts[i].tail = f.fields()
	}
	k.findSlots(parts)
	k.sc.steps = make([]step, len(frames))
	for i, f := range frames {
		k.sc.steps[i] = k.describe(f, parts[i].fields)
	}
	k.placeJump()
	k.numberSteps(parts)
	for i, f := range frames {
		k.compileStep(i, f.proto, parts[i])
	}
	k.sc.end = k.sc.steps[len(frames)-1].at
	k.firsts()
	return k.sc, k.findSpans()
}

// describe fills in what a step is, before its template.
func (k *compiler) describe(f frame, fs []field) step {
	s := step{at: f.at - k.base, own: f.at - k.base, proto: f.proto, typ: frameType(f), leg: -1, bridge: -1}
	s.float = floating[s.typ]
	for _, x := range fs {
		k.describeBy(&s, x)
	}
	if f.proto == protoARI {
		k.ariObjects(&s, f.raw)
	}
	if f.proto == protoESL && s.leg >= 0 {
		s.touches = []touch{{slot: s.leg}}
	}
	return s
}

func (k *compiler) describeBy(s *step, x field) {
	switch x.key {
	case "timestamp":
		s.own = parseISO(x.val) - k.base
	case "Event-Date-Timestamp":
		s.own = parseInt(x.val) - k.base
	case "Event-Subclass":
		s.sub = x.val
	case "CC-Action":
		s.action = x.val
	case "Unique-ID", "Uniqueid":
		if s.leg < 0 {
			s.leg = k.slotOf(x.val)
		}
	case "BridgeUniqueid":
		s.bridge = k.slotOf(x.val)
	case "Channel-State", "dialstatus", "DialStatus":
		s.vary = x.val
	case "variable_uuid":
		s.full = true
	case "variable", "Variable":
		s.varName = x.val
	case "value", "Value":
		s.varValue = x.val
	}
}

// placeJump makes room for a wait in the queue, before the agent's leg comes up.
func (k *compiler) placeJump() {
	if !k.sp.queued {
		return
	}
	joined := false
	for i, s := range k.sc.steps {
		switch {
		case s.typ == "QueueCallerJoin", s.action == "member-queue-start":
			joined = true
		case joined && (s.typ == "ChannelCreated" || s.typ == "Newchannel" || s.action == "agent-state-change"):
			k.jump = int64(i)
			k.shift(i)
			return
		}
	}
}

// shift moves the steps from i on one second later.
func (k *compiler) shift(i int) {
	for j := i; j < len(k.sc.steps); j++ {
		k.sc.steps[j].at += second
		k.sc.steps[j].own += second
	}
}

// onLine puts recorded time t (since base), told by step i under key, on the score's time line.
func (k *compiler) onLine(key string, t int64, i int) int64 {
	if k.jump < 0 {
		return t
	}
	id := key + strconv.FormatInt(t, 10)
	first, ok := k.sides[id]
	if own := key == "timestamp" || key == "Event-Date-Timestamp"; own || !ok {
		first = i
		if j := k.stepAt(t, i); j >= 0 && !own && key != "creationtime" {
			first = j
		}
		k.sides[id] = first
	}
	if int64(first) >= k.jump {
		return t + second
	}
	return t
}

// stepAt finds the step up to i whose own time is exactly t, or -1.
func (k *compiler) stepAt(t int64, i int) int {
	for j := 0; j <= i; j++ {
		own := k.sc.steps[j].own
		if int64(j) >= k.jump {
			own -= second
		}
		if own == t {
			return j
		}
	}
	return -1
}

// findSpans finds the waits between steps and names them as the script does.
func (k *compiler) findSpans() error {
	names := k.sp.waits[k.sc.kind]
	prev := k.sc.steps[0]
	for i := 1; i < len(k.sc.steps); i++ {
		s := k.sc.steps[i]
		if s.float {
			continue
		}
		if gap := s.at - prev.at; gap >= minSpan {
			sp := span{from: prev.at + 5_000, to: s.at - lead}
			if int64(i) == k.jump {
				sp.name, sp.from, sp.to = "wait", prev.at+second*3/10, prev.at+second*7/10
			} else if len(names) > 0 {
				sp.name, names = names[0], names[1:]
			} else {
				return fmt.Errorf("compiling %s/%s: wait of %d ms before %s has no name", k.sc.kind, k.sc.name, gap/1000, s.typ)
			}
			k.sc.spans = append(k.sc.spans, sp)
		}
		prev = s
	}
	k.sc.last = prev.at
	if len(names) > 0 {
		return fmt.Errorf("compiling %s/%s: waits %v are not in the recording", k.sc.kind, k.sc.name, names)
	}
	return nil
}

// numberSteps works out how event numbers run: holes before an event, and neighbours that were sent the wrong way
// round. A hole of more than two numbers belonged to other calls and is closed.
func (k *compiler) numberSteps(frames []parts) {
	if k.sc.kind != "freeswitch" {
		return
	}
	numbers := make([]int64, len(frames))
	for i, f := range frames {
		numbers[i] = eventNumber(f.fields)
	}
	closed, last := map[int64]int64{}, int64(0)
	for i, n := range slices.Sorted(slices.Values(numbers)) {
		gap := int64(1)
		if i > 0 {
			gap = min(n-last, 3)
		}
		closed[n], last = closed[last]+gap, n
	}
	var top int64
	for i, n := range numbers {
		s := &k.sc.steps[i]
		before := top
		top = max(top, closed[n])
		s.adv, s.back = top-before, top-closed[n]
		for h := int64(1); h < 3; h++ {
			if j := k.hole(n - h); j >= 0 && closed[n-h] == 0 {
				s.holes = append(s.holes, hole{j, h})
			}
		}
	}
}

// hole returns the slot for event number n if any event shows it.
func (k *compiler) hole(n int64) int {
	return k.slotOf("#" + strconv.FormatInt(n, 10))
}

func eventNumber(fs []field) int64 {
	for _, x := range fs {
		if x.key == "Event-Sequence" {
			n, _ := strconv.ParseInt(x.val, 10, 64)
			return n
		}
	}
	return 0
}

// firsts notes at each step the slots it brings to life.
func (k *compiler) firsts() {
	for i, s := range k.sc.slots {
		if s.first >= 0 {
			st := &k.sc.steps[s.first]
			st.begins = append(st.begins, i)
		}
	}
}

// compileStep makes the templates of step i.
func (k *compiler) compileStep(i int, p proto, in parts) {
	fs := in.fields
	k.marks.note(&k.sc.steps[i])
	s := &k.sc.steps[i]
	var wire, plain template
	last := ""
	for n, x := range fs {
		k.after = fs[n:]
		if x.key == "variable" || x.key == "Variable" {
			last = x.val
		}
		pieces := k.subst(i, x, fs, last)
		wire = wire.add(x.pre, pieces, p)
		if p == protoESL {
			plain = plain.add(x.key+": ", pieces, protoAnswer)
			plain = plain.lit("\n")
		}
	}
	wire = wire.lit(in.tail)
	if p == protoESL {
		s.plain = plain.lit("\n")
		k.spareEncoding(s.plain)
	}
	s.json = wire
}

// add appends pre and pieces, whose literals are encoded for the wire: protoAnswer stands for percent-encoding.
func (t template) add(pre string, pieces []piece, p proto) template {
	t = t.lit(pre)
	for _, x := range pieces {
		switch p {
		case protoAMI:
		case protoAnswer:
			x.lit, x.url = appendURL(nil, x.lit), true
		default:
			x.lit = appendJSONText(nil, string(x.lit))
		}
		t = t.lit(string(x.lit))
		if x.op != opNone {
			lit := t[len(t)-1].lit
			x.lit = lit
			t[len(t)-1] = x
		}
	}
	return t
}

// spareEncoding takes the mark off placeholders whose values never need percent-encoding.
func (k *compiler) spareEncoding(t template) {
	for i := range t {
		switch p := &t[i]; p.op {
		case opLocal, opHTTP, opISO:
		case opSlot:
			kind := k.sc.slots[p.arg].kind
			p.url = kind == slotName || kind == slotAgentName
		default:
			p.url = false
		}
	}
}

// lit appends literal bytes, to the last piece if that has no placeholder yet.
func (t template) lit(s string) template {
	if n := len(t); n > 0 && t[n-1].op == opNone {
		t[n-1].lit = append(t[n-1].lit, s...)
		return t
	}
	return append(t, piece{lit: []byte(s)})
}

// parseISO reads Asterisk's 2026-11-22T12:48:34.751+0000, in microseconds since the epoch; 0 if it is none.
func parseISO(s string) int64 {
	t, err := parseLayout("2006-01-02T15:04:05.000-0700", s)
	if err != nil {
		return 0
	}
	return t
}

// alnum reports whether c is a letter or a digit.
func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// hasSuffixes cuts the first suffix that fits, and says which.
func cutSuffixes(s string, suffixes ...string) (string, string) {
	for _, x := range suffixes {
		if r, ok := strings.CutSuffix(s, x); ok {
			return r, x
		}
	}
	return s, ""
}
