package sim

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func num(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Errorf("%q is no number", s)
	}
	return n
}

// What FreeSWITCH says of itself holds together: numbers, times, durations, and each leg's life.
func TestFreeSWITCHEventsAgree(t *testing.T) {
	opt := unpaced(60, 11)
	got, s := playFreeSWITCH(t, opt, "event json ALL")
	numbers, lastAt, lives := map[string]bool{}, map[string]int64{}, map[string][]string{}
	answered := map[string]map[string]bool{} // leg → agents
	for _, b := range got {
		e := jsonEvent(t, b)
		if n := e[".Event-Sequence"]; numbers[n] {
			t.Errorf("Event-Sequence %s twice", n)
		}
		numbers[e[".Event-Sequence"]] = true
		at := num(t, e[".Event-Date-Timestamp"])
		if want := time.UnixMicro(at).UTC().Format(time.DateTime); e[".Event-Date-Local"] != want {
			t.Errorf("Event-Date-Local %s of %d, want %s", e[".Event-Date-Local"], at, want)
		}
		id := e[".Unique-ID"]
		if at < lastAt[id] && id != "" {
			t.Errorf("%s of %s goes back by %d µs", e[".Event-Name"], id, lastAt[id]-at)
		}
		lastAt[id] = max(lastAt[id], at)
		if strings.HasPrefix(e[".Event-Name"], "CHANNEL_") {
			lives[id] = append(lives[id], e[".Event-Name"])
		}
		if n := e[".Channel-Name"]; e[".Event-Name"] == "CHANNEL_ANSWER" && strings.HasPrefix(n, "sofia/internal/agent") {
			if answered[id] == nil {
				answered[id] = map[string]bool{}
			}
			a, _, _ := strings.Cut(strings.TrimPrefix(n, "sofia/internal/"), "@")
			answered[id][a] = true
		}
		stampsAgree(t, e)
	}
	for id, l := range lives {
		if n := count(l, "CHANNEL_CREATE"); n != 1 || count(l, "CHANNEL_DESTROY") != 1 || count(l, "CHANNEL_HANGUP_COMPLETE") != 1 {
			t.Errorf("leg %s: %v", id, l)
		}
	}
	for _, x := range s.Truths() {
		var by []string
		for _, id := range x.Legs {
			for a := range answered[id] {
				if !slices.Contains(by, a) {
					by = append(by, a)
				}
			}
		}
		slices.Sort(by)
		want := slices.Sorted(slices.Values(x.AnsweredBy))
		if !slices.Equal(by, want) {
			t.Errorf("call %d (%s) was answered by %v, its truth says %v", x.Number, x.Script, by, want)
		}
	}
}

func count(l []string, s string) int {
	n := 0
	for _, x := range l {
		if x == s {
			n++
		}
	}
	return n
}

// stampsAgree compares the ways one event tells the same time.
func stampsAgree(t *testing.T, e wireEvent) {
	t.Helper()
	for k, v := range e {
		base, ok := strings.CutSuffix(k, "_uepoch")
		if !ok || v == "0" {
			continue
		}
		if got := e[base+"_epoch"]; got != v[:10] {
			t.Errorf("%s %s_epoch %s, uepoch %s", e[".Event-Name"], base, got, v)
		}
		if s := e[base+"_stamp"]; s != "" && s != time.UnixMicro(num(t, v)).UTC().Format(time.DateTime) {
			t.Errorf("%s %s_stamp %s, uepoch %s", e[".Event-Name"], base, s, v)
		}
	}
	end, start, answer := e[".variable_end_uepoch"], e[".variable_start_uepoch"], e[".variable_answer_uepoch"]
	if end == "" {
		return
	}
	for _, c := range [][3]string{{start, "duration", "mduration"}, {answer, "billsec", "billmsec"}} {
		if c[0] == "0" {
			continue
		}
		a, b := num(t, c[0]), num(t, end)
		if got, want := e[".variable_"+c[1]], fmt.Sprint(b/second-a/second); got != want {
			t.Errorf("%s %s, want %s", c[1], got, want)
		}
		if got, want := e[".variable_"+c[2]], fmt.Sprint(b/1000-a/1000); got != want {
			t.Errorf("%s %s, want %s", c[2], got, want)
		}
	}
}

// What Asterisk says through ARI and AMI holds together.
func TestAsteriskEventsAgree(t *testing.T) {
	got, a := playAsterisk(t, unpaced(60, 12))
	created, destroyed, ups := map[string]int{}, map[string]int{}, map[string]string{}
	for _, b := range got.ari {
		e := jsonEvent(t, b)
		id := e[".channel.id"]
		switch e.kind() {
		case "ChannelCreated":
			created[id]++
			sec, _, _ := strings.Cut(id, ".")
			if want := e[".channel.creationtime"]; time.Unix(num(t, sec), 0).UTC().Format("2006-01-02T15:04:05") != want[:19] {
				t.Errorf("channel %s was created at %s", id, want)
			}
		case "ChannelDestroyed":
			destroyed[id]++
		}
		if e[".channel.state"] == "Up" && strings.HasPrefix(e[".channel.name"], "PJSIP/agent") {
			n, _, _ := strings.Cut(strings.TrimPrefix(e[".channel.name"], "PJSIP/"), "-")
			ups[id] = n
		}
	}
	hungup, hold, talk := map[string]int{}, 0, 0
	for _, b := range got.ami {
		e := messageEvent(strings.Split(string(b), "\r\n"))
		switch e.kind() {
		case "Hangup":
			hungup[e[".Uniqueid"]]++
		case "AgentConnect":
			hold += int(num(t, e[".HoldTime"]))
		case "AgentComplete":
			talk += int(num(t, e[".TalkTime"]))
		}
	}
	for id := range created {
		if created[id] != 1 || destroyed[id] != 1 || hungup[id] != 1 {
			t.Errorf("channel %s: created %d, destroyed %d, hung up on AMI %d times", id, created[id], destroyed[id], hungup[id])
		}
	}
	if hold < 60 || talk < 600 {
		t.Errorf("callers held %d s and talked %d s: the waits are not stretched", hold, talk)
	}
	truthsHold(t, a.Truths(), ups)
}

func truthsHold(t *testing.T, truths []Truth, ups map[string]string) {
	t.Helper()
	for _, x := range truths {
		var by []string
		for _, id := range x.Legs {
			if u := ups[id]; u != "" && !slices.Contains(by, u) {
				by = append(by, u)
			}
		}
		slices.Sort(by)
		if want := slices.Sorted(slices.Values(x.AnsweredBy)); !slices.Equal(by, want) {
			t.Errorf("call %d (%s) was answered by %v, its truth says %v", x.Number, x.Script, by, want)
		}
	}
}

// Plain and JSON carry the same headers, in the same order.
func TestPlainAndJSONAgree(t *testing.T) {
	j, _ := playFreeSWITCH(t, unpaced(10, 5), "event json ALL")
	p, _ := playFreeSWITCH(t, unpaced(10, 5), "event plain ALL")
	if len(j) != len(p) {
		t.Fatalf("%d and %d events", len(j), len(p))
	}
	for i := range j {
		want := jsonEvent(t, j[i])
		head, rest, ok := bytes.Cut(p[i], []byte("\n\n"))
		if !ok || len(rest) > 0 {
			t.Fatalf("plain event %d does not end with one empty line: %q", i, rest)
		}
		lines := strings.Split(string(head), "\n")
		if len(lines) < len(want) {
			t.Fatalf("plain event %d has %d headers, %d in JSON", i, len(lines), len(want))
		}
		for _, l := range lines {
			k, v, _ := strings.Cut(l, ": ")
			u, err := url.PathUnescape(v)
			if err != nil || want["."+k] != u && count(lines, l) == 1 && !repeated(lines, k) {
				t.Errorf("event %d %s: plain %q, JSON %q, %v", i, k, u, want["."+k], err)
			}
		}
	}
}

// repeated reports whether a header comes more than once: JSON decoding keeps but the last.
func repeated(lines []string, key string) bool {
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l, key+": ") {
			n++
		}
	}
	return n > 1
}

// life is an output that follows legs.
type life struct {
	t       *testing.T
	up      map[string]bool
	born    map[string]bool
	over    bool
	last    int64
	after   []string
	cutting bool
}

func (l *life) send(c *simCall, s *step) {
	s.json.append(nil, c)
	if s.leg < 0 {
		return
	}
	id := c.vals[s.leg]
	switch s.typ {
	case "Newchannel", "CHANNEL_OUTGOING", "CHANNEL_CREATE":
		l.up[id], l.born[id] = true, true
	case "Hangup", "CHANNEL_DESTROY":
		if !l.up[id] {
			l.t.Errorf("%s %s: leg %s ends twice", c.sc.kind, c.sc.name, id)
		}
		delete(l.up, id)
	}
	if l.cutting {
		l.after = append(l.after, s.typ)
	}
	if c.due < l.last {
		l.t.Errorf("%s goes back in time", s.typ)
	}
	l.last = c.due
}
func (l *life) ended(*simCall) { l.over = true }

// A call can be hung up at any moment: all its legs end, each once, within a second.
func TestHangupAnywhere(t *testing.T) {
	now := time.Date(2027, 3, 1, 9, 0, 0, 0, time.UTC)
	for _, kind := range []string{"asterisk", "freeswitch"} {
		for _, name := range Scripts() {
			sc, err := loadScore(kind, name)
			if err != nil {
				t.Fatal(err)
			}
			for cut := 1; cut < len(sc.steps); cut += 5 {
				l := &life{t: t, up: map[string]bool{}, born: map[string]bool{}}
				e := newEngine(kind, Options{Unpaced: true, Now: func() time.Time { return now }}.withDefaults("x"), l)
				e.skew = func() time.Duration { return 0 }
				e.scores[name] = sc
				c, err := e.place(name, now.UnixMicro())
				if err != nil {
					t.Fatal(err)
				}
				for range cut {
					e.step(c)
				}
				at := c.due
				l.cutting = true
				e.hangup(c, at)
				for len(e.heap) > 0 {
					e.step(c)
				}
				if len(l.up) > 0 || !l.over {
					t.Fatalf("%s %s cut at %d: %d legs stay up; sent after it: %v", kind, name, cut, len(l.up), l.after)
				}
				if took := l.last - at; took > 2*second {
					t.Errorf("%s %s cut at %d: clearing took %d ms", kind, name, cut, took/1000)
				}
			}
		}
	}
}
