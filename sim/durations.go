package sim

import (
	"strconv"
	"strings"
)

// marks are the moments that queue durations run from.
type marks struct{ called, joined, connected int64 }

func (m *marks) note(s *step) {
	switch s.typ {
	case "QueueCallerJoin":
		m.joined = s.at
	case "AgentCalled":
		m.called = s.at
	case "AgentConnect":
		m.connected = s.at
	}
}

// duration recognises a field that tells how long something took.
func (k *compiler) duration(i int, x field, fs []field, last string) (piece, bool) {
	if k.sc.kind == "freeswitch" {
		return k.cdrDuration(i, x, fs)
	}
	return k.asteriskDuration(i, x, last)
}

func (k *compiler) asteriskDuration(i int, x field, last string) (piece, bool) {
	s := k.sc.steps[i]
	v, err := strconv.ParseInt(x.val, 10, 64)
	if err != nil {
		return piece{}, false
	}
	m := k.marks
	switch x.key {
	case "HoldTime":
		if s.typ == "AgentComplete" {
			return piece{op: opDurSec, t: m.joined, t2: m.connected}, true
		}
		return piece{op: opDurSec, t: m.joined, t2: s.at}, true
	case "TalkTime":
		return piece{op: opDurSec, t: m.connected, t2: s.at}, true
	case "RingTime":
		return piece{op: opTookSec, t: m.called, t2: s.at}, true
	case "value", "Value":
		return k.variableDuration(i, last, v)
	}
	return piece{}, false
}

// variableDuration handles DIALEDTIME, ANSWEREDTIME, RINGTIME … and their twins in milliseconds.
func (k *compiler) variableDuration(i int, name string, v int64) (piece, bool) {
	s := k.sc.steps[i]
	if name == "QUEUEWAIT" || name == "QUEUEWAIT_MS" {
		o := opDurSec
		if name == "QUEUEWAIT_MS" {
			o = opWaitMilli
		}
		return piece{op: o, t: k.marks.joined, t2: s.at}, k.marks.joined > 0
	}
	if !strings.HasSuffix(strings.TrimSuffix(name, "_MS"), "TIME") {
		return piece{}, false
	}
	ms := v
	if !strings.HasSuffix(name, "_MS") {
		var ok bool
		if ms, ok = k.twin(i, name); !ok {
			return piece{}, false
		}
	}
	t := s.own - ms*1000
	return piece{op: unit(name), t: t, t2: s.own}, true
}

func unit(name string) op {
	if strings.HasSuffix(name, "_MS") {
		return opTookMilli
	}
	return opTookSec
}

// twin finds the value in milliseconds that belongs to a variable in seconds.
func (k *compiler) twin(i int, name string) (int64, bool) {
	s := k.sc.steps[i]
	for j := i + 1; j < min(i+12, len(k.sc.steps)); j++ {
		n := k.sc.steps[j]
		if n.proto == s.proto && n.leg == s.leg && n.varName == name+"_MS" {
			v, err := strconv.ParseInt(n.varValue, 10, 64)
			return v, err == nil
		}
	}
	return 0, false
}

// cdrDuration handles FreeSWITCH's billsec family: duration, billsec, progresssec … in seconds, milliseconds and microseconds.
func (k *compiler) cdrDuration(i int, x field, fs []field) (piece, bool) {
	name, ok := strings.CutPrefix(x.key, "variable_")
	if x.key == "Caller-Channel-Hold-Accum" || strings.HasPrefix(name, "hold_accum_") {
		return k.holdDuration(i, x, fs)
	}
	if !ok {
		return piece{}, false
	}
	stem, o := cdrName(name)
	if stem == "" {
		return piece{}, false
	}
	v := parseInt(value(fs, "variable_"+cdrMicro(stem)))
	if v <= 0 {
		return piece{}, false
	}
	t1, t2, found := k.pair(fs, v)
	if !found {
		return piece{}, false
	}
	return piece{op: o, t: k.onLine("", t1, i), t2: k.onLine("", t2, i), maybe: stem != "duration"}, true
}

func cdrName(name string) (string, op) {
	switch name {
	case "duration":
		return name, opDurSec
	case "mduration":
		return "duration", opDurMilli
	case "uduration":
		return "duration", opDurMicro
	}
	for suffix, o := range map[string]op{"msec": opDurMilli, "usec": opDurMicro} {
		if stem, ok := strings.CutSuffix(name, suffix); ok && cdrStems[stem] {
			return stem, o
		}
	}
	if stem, ok := strings.CutSuffix(name, "sec"); ok && cdrStems[stem] {
		return stem, opDurSec
	}
	return "", opNone
}

var cdrStems = map[string]bool{"bill": true, "progress": true, "answer": true, "wait": true, "progress_media": true, "flow_bill": true}

func cdrMicro(stem string) string {
	if stem == "duration" {
		return "uduration"
	}
	return stem + "usec"
}

// pair finds two moments of the event that lie v microseconds apart.
func (k *compiler) pair(fs []field, v int64) (int64, int64, bool) {
	var times []int64
	for _, x := range fs {
		if strings.HasSuffix(x.key, "_uepoch") && len(x.val) == 16 {
			times = append(times, parseInt(x.val)-k.base)
		}
	}
	for _, a := range times {
		for _, b := range times {
			if b-a == v {
				return a, b, true
			}
		}
	}
	return 0, 0, false
}

func (k *compiler) holdDuration(i int, x field, fs []field) (piece, bool) {
	o := map[string]op{"variable_hold_accum_seconds": opTookSec, "variable_hold_accum_ms": opTookMilli}[x.key]
	if o == opNone {
		o = opDurMicro
	}
	v, last := parseInt(value(fs, "Caller-Channel-Hold-Accum")), value(fs, "Caller-Channel-Last-Hold")
	if v <= 0 || len(last) != 16 {
		return piece{}, false
	}
	t := parseInt(last) - k.base
	return piece{op: o, t: k.onLine("", t, i), t2: k.onLine("", t+v, i), maybe: true}, true
}

func value(fs []field, key string) string {
	for _, x := range fs {
		if x.key == key {
			return x.val
		}
	}
	return ""
}
