package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// splicer joins an IVR's recording, up to the dialing of an agent, and a queue's, from its set-up on, into one call:
// the second part's first leg takes the ids and the past of the first part's.
type splicer struct {
	kind  string
	shift int64             // of the second part, whole seconds in microseconds
	renum int64             // of its event numbers
	ids   map[string]string // second part's → first part's
	times map[int64]int64   // the first leg's own past
	past  map[string]int64  // key part → that past, for times in whole seconds
	leg   string            // the first leg, in the second part
	extra []field           // variables it brings along
	path  string
}

func splice(kind string, intro, main []frame) ([]frame, error) {
	end := slices.IndexFunc(intro, func(f frame) bool { return runs(f, "Dial", "bridge") })
	from := slices.IndexFunc(main, func(f frame) bool { return runs(f, "Set", "set") })
	if end < 0 || from < 0 {
		return nil, fmt.Errorf("splicing %s recordings: no dialing in the first or no set-up in the second", kind)
	}
	s := &splicer{kind: kind, ids: map[string]string{}, times: map[int64]int64{}, past: map[string]int64{}}
	gap := intro[end].at + second/5 - main[from].at
	s.shift = (gap/second + 1) * second
	if gap < 0 {
		s.shift = -((-gap) / second) * second
	}
	a, _ := intro[end-1].fields()
	b, _ := main[from].fields()
	s.renum = eventNumber(a) + 1 - eventNumber(b)
	s.learn(intro[:end], main)
	out := slices.Clone(intro[:end])
	for i := range out {
		out[i].raw = s.dial(out[i])
	}
	for _, f := range main[from:] {
		f.raw = s.rewrite(f)
		f.at += s.shift
		out = append(out, f)
	}
	return out, nil
}

// runs reports whether the frame starts one of the dialplan applications.
func runs(f frame, apps ...string) bool {
	fs, _ := f.fields()
	for _, x := range fs {
		switch x.key {
		case "dialplan_app", "Application":
			typ := frameType(f)
			if slices.Contains(apps, x.val) && (typ == "Newexten" || typ == "ChannelDialplan" || typ == "CHANNEL_EXECUTE") {
				return true
			}
		}
	}
	return false
}

// dial lets the first part dial the queue's number.
func (s *splicer) dial(f frame) []byte {
	fs, tail := f.fields()
	for i, x := range fs {
		if x.val == "6000" && !reExt.MatchString(x.key) {
			fs[i].val = "2000"
		}
	}
	return encode(f.proto, fs, tail)
}

// learn compares the two first legs.
func (s *splicer) learn(intro, main []frame) {
	if s.kind == "asterisk" {
		s.learnAsterisk(intro, main)
		return
	}
	a := lastFull(intro)
	b, _ := firstFull(main).fields()
	s.leg = value(b, "Unique-ID")
	for _, x := range a {
		v := value(b, x.key)
		switch {
		case v == "" && strings.HasPrefix(x.key, "variable_") && !strings.HasPrefix(x.key, "variable_current_app"):
			s.extra = append(s.extra, field{key: x.key, val: x.val})
		case len(v) == 16 && len(x.val) == 16 && digits(v) == 16 && strings.HasSuffix(x.key, "-Time"):
			s.times[parseInt(v)] = parseInt(x.val)
		case v != "" && v != x.val:
			s.learnID(x.key, v, x.val)
		}
	}
	s.past["start"] = parseInt(value(a, "Caller-Channel-Created-Time"))
	s.past["answer"] = parseInt(value(a, "Caller-Channel-Answered-Time"))
	s.learnAnswer(main)
}

// learnAnswer maps when the second part's first leg was answered to when the first part's was.
func (s *splicer) learnAnswer(main []frame) {
	for _, f := range main {
		fs, _ := f.fields()
		if value(fs, "Unique-ID") != s.leg {
			continue
		}
		for _, key := range []string{"Caller-Channel-Progress-Time", "Caller-Channel-Answered-Time"} {
			if t := value(fs, key); len(t) == 16 {
				s.times[parseInt(t)] = s.past["answer"]
			}
		}
	}
}

func (s *splicer) learnID(key, from, to string) {
	switch {
	case reUUID.MatchString(from) && len(from) == 36, randomKeys[key]:
		s.ids[from] = to
	case key == "variable_session_id":
		s.ids["session"] = to
	case strings.HasSuffix(key, "_via"):
		a, b := reBranch.FindStringSubmatch(from), reBranch.FindStringSubmatch(to)
		if a != nil && b != nil {
			s.ids[a[1]] = b[1]
		}
	}
}

func (s *splicer) learnAsterisk(intro, main []frame) {
	a, b := allOf(intro), allOf(main)
	for key, vals := range a {
		if len(vals) > 0 && len(b[key]) > 0 {
			s.ids[b[key][0]] = vals[0]
		}
	}
	for from, to := range s.ids {
		if x, y := parseISO(from), parseISO(to); x > 0 {
			s.times[x] = y
			delete(s.ids, from)
		}
	}
	s.path = "main>opt42"
}

// allOf finds the ids of the first leg in order of appearance: by kind.
func allOf(frames []frame) map[string][]string {
	out := map[string][]string{}
	for _, f := range frames {
		fs, _ := f.fields()
		for _, x := range fs {
			switch {
			case x.key == "id" && reUnique.MatchString(x.val):
				out["id"] = append(out["id"], x.val)
			case x.key == "name" && reChan.MatchString(x.val):
				out["chan"] = append(out["chan"], reChan.FindStringSubmatch(x.val)[1])
			case x.key == "protocol_id" && x.val != "":
				out["sip"] = append(out["sip"], x.val)
			case x.key == "creationtime":
				out["creationtime"] = append(out["creationtime"], x.val)
			case x.key == "CallID":
				out["call"] = append(out["call"], strings.Trim(x.val, "[]"))
			}
		}
	}
	return out
}

func lastFull(frames []frame) []field {
	for _, f := range slices.Backward(frames) {
		if fs, _ := f.fields(); value(fs, "variable_uuid") != "" {
			return fs
		}
	}
	return nil
}

func firstFull(frames []frame) frame {
	for _, f := range frames {
		if fs, _ := f.fields(); value(fs, "variable_uuid") != "" {
			return f
		}
	}
	return frame{}
}

// rewrite makes a frame of the second part one of the whole.
func (s *splicer) rewrite(f frame) []byte {
	fs, tail := f.fields()
	mine := value(fs, "Unique-ID") == s.leg && s.leg != ""
	old := slices.Clone(fs)
	for i, x := range fs {
		fs[i].val = s.value(x, mine, frameType(f))
	}
	if mine {
		s.durations(old, fs)
		fs = s.bring(fs)
	}
	return encode(f.proto, fs, tail)
}

func (s *splicer) value(x field, mine bool, typ string) string {
	if x.key == "IVR_PATH" && s.path != "" && typ != "ChannelCreated" {
		return s.path
	}
	if mine && x.key == "variable_session_id" {
		return s.ids["session"]
	}
	switch x.key {
	case "Event-Sequence", "variable_Event-Sequence":
		return strconv.FormatInt(parseInt(x.val)+s.renum, 10)
	case "Event-Date-Timestamp":
		return strconv.FormatInt(parseInt(x.val)+s.shift, 10)
	}
	v := x.val
	for from, to := range s.ids {
		v = strings.ReplaceAll(v, from, to)
	}
	if mine {
		for part, t := range s.past {
			if strings.HasPrefix(x.key, "variable_"+part+"_") || strings.HasPrefix(x.key, "variable_profile_"+part+"_") {
				return restamp(v, t)
			}
		}
	}
	return s.moveTimes(v, x.key == "creationtime")
}

// restamp writes t in the format of v.
func restamp(v string, t int64) string {
	switch {
	case v == "0" || v == "":
		return v
	case len(v) == 16:
		return strconv.FormatInt(t, 10)
	case len(v) == 10:
		return strconv.FormatInt(t/second, 10)
	}
	return string(appendTime(nil, opLocal, t, &clockText{}))
}

// moveTimes shifts every time in v, or puts it where the first leg's past was.
func (s *splicer) moveTimes(v string, creation bool) string {
	move := func(t int64) int64 {
		if to, ok := s.times[t]; ok {
			return to
		}
		return t + s.shift
	}
	whole := map[int]op{10: opSec, 19: opLocal, 29: opHTTP}
	var b []byte
	for at := 0; at < len(v); {
		t, n := anyTime(v, at)
		switch {
		case n == 0:
			n = max(1, digits(v[at:]))
			b = append(b, v[at:at+n]...)
		case n == 16:
			b = strconv.AppendInt(b, move(t), 10)
		case n == 28 && creation:
			b = appendTime(b, opISO, move(t), &clockText{})
		case n == 28:
			b = appendTime(b, opISO, t+s.shift, &clockText{})
		default:
			b = appendTime(b, whole[n], t+s.shift, &clockText{})
		}
		at += n
	}
	return string(b)
}

// anyTime recognises a time of the recordings' year at v[at:] and returns its length, 0 for none.
func anyTime(v string, at int) (int64, int) {
	if at > 0 && alnum(v[at-1]) {
		return 0, 0
	}
	r := v[at:]
	switch n := digits(r); {
	case n == 16 && r[:3] == "179":
		return parseInt(r[:16]), 16
	case n == 10 && r[:5] == "17953" && !reUnique.MatchString(r[:min(14, len(r))]):
		return parseInt(r[:10]) * second, 10
	case n == 4 && len(r) >= 28 && r[10] == 'T':
		return parseISO(r[:28]), 28
	case n == 4 && len(r) >= 19 && r[4] == '-' && r[10] == ' ':
		if t, err := parseLayout("2006-01-02 15:04:05", r[:19]); err == nil {
			return t, 19
		}
	case n == 0 && len(r) >= 29 && r[3] == ',':
		if t, err := parseLayout("Mon, 02 Jan 2006 15:04:05 MST", r[:29]); err == nil {
			return t, 29
		}
	}
	return 0, 0
}

// durations sets the microsecond durations of the leg to what its new times say.
func (s *splicer) durations(old, fs []field) {
	for i, x := range old {
		stem, o := cdrName(strings.TrimPrefix(x.key, "variable_"))
		if stem == "" || o != opDurMicro || x.val == "0" {
			continue
		}
		for a := range old {
			for b := range old {
				if !strings.HasSuffix(old[a].key, "_uepoch") || !strings.HasSuffix(old[b].key, "_uepoch") || len(old[a].val) != 16 || len(old[b].val) != 16 {
					continue
				}
				if parseInt(old[b].val)-parseInt(old[a].val) == parseInt(x.val) {
					fs[i].val = strconv.FormatInt(parseInt(fs[b].val)-parseInt(fs[a].val), 10)
				}
			}
		}
	}
}

// bring adds the variables that the first part set, after the leg's own.
func (s *splicer) bring(fs []field) []field {
	last := -1
	for i, x := range fs {
		if strings.HasPrefix(x.key, "variable_") {
			last = i
		}
	}
	if last < 0 || value(fs, "variable_uuid") == "" {
		return fs
	}
	var add []field
	for _, x := range s.extra {
		if value(fs, x.key) == "" {
			add = append(add, field{pre: `","` + x.key + `":"`, key: x.key, val: x.val})
		}
	}
	return slices.Insert(fs, last+1, add...)
}

// encode writes fields back as a frame.
func encode(p proto, fs []field, tail string) []byte {
	var b []byte
	for _, x := range fs {
		b = append(b, x.pre...)
		if p == protoAMI {
			b = append(b, x.val...)
		} else {
			b = appendJSONText(b, x.val)
		}
	}
	return append(b, tail...)
}
