package sim

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// literal is a recorded text that stands for something of the call or of the switch.
type literal struct {
	text   string
	op     op
	arg    int
	anchor bool // only where no letter or digit is next to it
	plain  bool // only under keys that cannot be a line number, a port or a count
}

// Globals of a switch.
const (
	globalCore    = iota // FreeSWITCH Core-UUID
	globalEntity         // Asterisk asterisk_id
	globalsNumber        // how many there are
)

var (
	reUUID   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	reUnique = regexp.MustCompile(`\b1[0-9]{9}\.[0-9]{1,7}\b`)
	reChan   = regexp.MustCompile(`[A-Za-z]+/[A-Za-z0-9_.]+-([0-9a-f]{8})\b`)
	reCallID = regexp.MustCompile(`\bC-[0-9a-f]{8}\b`)
	reBranch = regexp.MustCompile(`branch=z9hG4bK([A-Za-z0-9]+)`)
	reSSRC   = regexp.MustCompile(`ssrc=([0-9]{5,})`)
	reExt    = regexp.MustCompile(`Line-Number|AppLine|(?i:port|byte|count|msec|usec|sdp|sequence|session_id|length)`)
)

// randomKeys are the keys whose values are made anew for each call, wherever they turn up.
var randomKeys = map[string]bool{
	"variable_sip_from_tag": true, "variable_sip_to_tag": true, "variable_sip_call_id": true,
	"variable_local_media_port": true, "variable_rtp_use_ssrc": true, "protocol_id": true,
}

// findSlots lists what the call's own values are, before anything is compiled.
func (k *compiler) findSlots(frames []parts) {
	for _, f := range frames {
		for _, x := range f.fields {
			k.slotsIn(x)
		}
	}
	k.fixedSlots()
	for _, l := range k.lits {
		slices.SortStableFunc(l, func(a, b literal) int { return len(b.text) - len(a.text) })
	}
}

func (k *compiler) slotsIn(x field) {
	switch {
	case x.key == "Core-UUID":
		k.literal(literal{text: x.val, op: opGlobal, arg: globalCore})
	case x.key == "asterisk_id":
		k.literal(literal{text: x.val, op: opGlobal, arg: globalEntity})
	case x.key == "variable_session_id":
		k.slot(slotSession, "session "+x.val, 0)
	case x.key == "variable_Event-Sequence":
		k.slot(slotSession, "#"+x.val, 1)
	case randomKeys[x.key] && x.val != "" && !reUUID.MatchString(x.val):
		token, _, _ := strings.Cut(x.val, "@")
		k.slotLiteral(slotRandom, token, 0)
	}
	if len(x.val) < 9 { // no id is shorter
		return
	}
	k.preciseTimes(x.val)
	for kind, re := range map[slotKind]*regexp.Regexp{slotUnique: reUnique, slotCallID: reCallID} {
		for _, m := range re.FindAllString(x.val, -1) {
			k.slotLiteral(kind, m, 0)
		}
	}
	for _, m := range reUUID.FindAllString(x.val, -1) {
		if !k.isLiteral(m) {
			k.slotLiteral(slotRandom, m, 0)
		}
	}
	for _, m := range reChan.FindAllStringSubmatch(x.val, -1) {
		k.slotLiteral(slotChan, m[1], 0)
	}
	for _, re := range []*regexp.Regexp{reBranch, reSSRC} {
		for _, m := range re.FindAllStringSubmatch(x.val, -1) {
			k.slotLiteral(slotRandom, m[1], 0)
		}
	}
}

// preciseTimes notes the times of full precision in v.
func (k *compiler) preciseTimes(v string) {
	for i := 0; i < len(v); i++ {
		n := digits(v[i:])
		if n == 16 {
			if t := parseInt(v[i:i+n]) - k.base; t > -window && t < window {
				k.known[t] = true
			}
		}
		if n > 0 {
			i += n
		}
	}
}

// fixedSlots are the names and numbers that all recordings use.
func (k *compiler) fixedSlots() {
	k.slotLiteral(slotCaller, "14155550100", 0)
	k.slotLiteral(slotName, "Alice", 0)
	k.slotLiteral(slotCRM, "C-1001", 0)
	for i, a := range []string{"agent1", "agent2"} {
		k.slotLiteral(slotAgent, a, i)
		k.slotLiteral(slotAgentName, []string{"Agent One", "Agent Two"}[i], i)
	}
	for ext, a := range map[string]int{"1001": 0, "1002": 1, "1003": 0} {
		k.plainLiteral(slotExt, ext, a)
	}
	k.slotLiteral(slotQueue, "support", 0)
	k.plainLiteral(slotQueueExt, "2000", 0)
	k.slotLiteral(slotDigits, "opt42", 0)
}

func (k *compiler) slotLiteral(kind slotKind, text string, arg int) {
	if !k.isLiteral(text) {
		k.literal(literal{text: text, op: opSlot, arg: k.slot(kind, text, arg), anchor: true})
	}
}

func (k *compiler) plainLiteral(kind slotKind, text string, arg int) {
	k.literal(literal{text: text, op: opSlot, arg: k.slot(kind, text, arg), anchor: true, plain: true})
}

func (k *compiler) literal(l literal) {
	if !k.isLiteral(l.text) {
		k.lits[l.text[0]] = append(k.lits[l.text[0]], l)
	}
}

func (k *compiler) isLiteral(text string) bool {
	return slices.ContainsFunc(k.lits[text[0]], func(l literal) bool { return l.text == text })
}

// slot returns the number of the slot recorded as rec, made if need be.
func (k *compiler) slot(kind slotKind, rec string, arg int) int {
	if n := k.slotOf(rec); n >= 0 {
		return n
	}
	k.sc.slots = append(k.sc.slots, slot{kind: kind, rec: rec, arg: arg, first: -1})
	return len(k.sc.slots) - 1
}

// slotOf returns the slot recorded as rec, or -1.
func (k *compiler) slotOf(rec string) int {
	return slices.IndexFunc(k.sc.slots, func(s slot) bool { return s.rec == rec })
}

// ariObjects notes the channels and the bridge that an ARI event shows.
func (k *compiler) ariObjects(s *step, raw []byte) {
	var top map[string]json.RawMessage
	if json.Unmarshal(raw, &top) != nil {
		return
	}
	for _, key := range []string{"channel", "peer", "caller", "replace_channel", "transferee", "transferer_first_leg", "transferer_second_leg", "bridge"} {
		var o struct {
			ID     string `json:"id"`
			State  string `json:"state"`
			Class  string `json:"bridge_class"`
			Status string `json:"dialstatus"`
		}
		if top[key] == nil || json.Unmarshal(top[key], &o) != nil {
			continue
		}
		n := k.slotOf(o.ID)
		if n < 0 {
			continue
		}
		if o.Class != "" {
			s.bridge = n
		} else if s.leg < 0 {
			s.leg = n
		}
		s.touches = append(s.touches, touch{n, key})
	}
}

func parseLayout(layout, s string) (int64, error) {
	t, err := time.Parse(layout, s)
	return t.UnixMicro(), err
}

func parseInt(s string) int64 {
	var n int64
	for i := 0; i < len(s); i++ {
		n = n*10 + int64(s[i]-'0')
	}
	return n
}
