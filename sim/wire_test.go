package sim

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const recordings = "../adapters/adaptertest/traces"

// shapes are what values can look like, the first that fits.
var shapes = []struct {
	name string
	re   *regexp.Regexp
}{
	{"empty", regexp.MustCompile(`^$`)},
	{"microseconds", regexp.MustCompile(`^1[0-9]{15}$`)},
	{"epoch", regexp.MustCompile(`^1[78][0-9]{8}$`)},
	{"uniqueid", regexp.MustCompile(`^1[0-9]{9}\.[0-9]+$`)},
	{"number", regexp.MustCompile(`^-?[0-9]+$`)},
	{"decimal", regexp.MustCompile(`^-?[0-9]+\.[0-9]+$`)},
	{"uuid", regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)},
	{"iso", regexp.MustCompile(`^[0-9-]{10}T[0-9:]{8}\.[0-9]{3}\+0000$`)},
	{"local", regexp.MustCompile(`^[0-9-]{10} [0-9:]{8}$`)},
	{"http", regexp.MustCompile(`^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT$`)},
	{"channel", regexp.MustCompile(`^(PJSIP|CBAnn)/[a-z0-9]+-[0-9a-f]{8}$`)},
	{"callid", regexp.MustCompile(`^\[C-[0-9a-f]{8}\]$`)},
	{"e164", regexp.MustCompile(`^\+[0-9]{11,12}$`)},
	{"token", regexp.MustCompile(`^[a-z0-9]{16}@lab$`)},
	{"mac", regexp.MustCompile(`^02:fc(:[0-9a-f]{2}){4}$`)},
	{"sofia", regexp.MustCompile(`^sofia/internal/[+a-z0-9]+@127\.0\.0\.1(:[0-9]+)?$`)},
	{"agent", regexp.MustCompile(`^(PJSIP/)?agent[0-9]+(@default)?$`)},
	{"bracket", regexp.MustCompile(`^<[^>]*>$`)},
	{"upper", regexp.MustCompile(`^[A-Z_]+$`)},
	{"text", regexp.MustCompile(`(?s)`)},
}

func shape(v string) string {
	for _, s := range shapes {
		if s.re.MatchString(v) {
			return s.name
		}
	}
	return "text"
}

// wireEvent is one event, flat: path → value. This file reads the wire with encoding/json and by hand, not with record.go.
type wireEvent map[string]string

func flatten(prefix string, v any, into wireEvent) {
	switch x := v.(type) {
	case map[string]any:
		for k, y := range x {
			flatten(prefix+"."+k, y, into)
		}
	case []any:
		for _, y := range x {
			flatten(prefix+"[]", y, into)
		}
	case string:
		into[prefix] = x
	default:
		b, _ := json.Marshal(x)
		into[prefix] = string(b)
	}
}

func jsonEvent(t *testing.T, b []byte) wireEvent {
	t.Helper()
	e := wireEvent{}
	flatten("", decode(t, b), e)
	return e
}

func messageEvent(lines []string) wireEvent {
	e := wireEvent{}
	for _, l := range lines {
		if k, v, ok := strings.Cut(l, ":"); ok {
			e["."+k] = strings.TrimPrefix(v, " ")
		}
	}
	return e
}

// kind is the event's type, with what makes its keys differ.
func (e wireEvent) kind() string {
	if n := e[".type"]; n != "" {
		return n
	}
	if n := e[".Event"]; n != "" {
		return n
	}
	k := e[".Event-Name"] + " " + e[".Event-Subclass"] + " " + e[".CC-Action"] + " " + e[".Action"]
	if e[".Event-Name"] == "CHANNEL_EXECUTE" || e[".Event-Name"] == "CHANNEL_EXECUTE_COMPLETE" {
		k = e[".Event-Name"]
	}
	return strings.TrimSpace(k)
}

// seen is what the recordings show of one kind of event.
type seen struct {
	n      int
	keys   map[string]int             // in how many of the events
	shapes map[string]map[string]bool // of each key's values
}

func learn(all map[string]*seen, e wireEvent) {
	k := e.kind()
	if k == "" {
		return
	}
	s := all[k]
	if s == nil {
		s = &seen{keys: map[string]int{}, shapes: map[string]map[string]bool{}}
		all[k] = s
	}
	s.n++
	for key, v := range e {
		s.keys[key]++
		if s.shapes[key] == nil {
			s.shapes[key] = map[string]bool{}
		}
		s.shapes[key][shape(v)] = true
	}
}

// recorded reads every recording of a switch.
func recorded(t *testing.T, kind string) map[string]*seen {
	t.Helper()
	all := map[string]*seen{}
	dirs, err := filepath.Glob(filepath.Join(recordings, kind, "*"))
	if err != nil || len(dirs) < 20 {
		t.Fatalf("recordings in %s: %d folders, %v", recordings, len(dirs), err)
	}
	for _, d := range dirs {
		frames, err := readRecording(os.DirFS(d), ".")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			switch f.proto {
			case protoAMI:
				learn(all, messageEvent(strings.Split(string(f.raw), "\r\n")))
			case protoARI, protoESL:
				learn(all, jsonEvent(t, f.raw))
			}
		}
	}
	return all
}

// everyScript is a run in which each script is played n times.
func everyScript(n int) (Options, []string) {
	all := slices.Repeat(Scripts(), n)
	o := unpaced(len(all), 3)
	o.Rate = 0
	return o, all
}

// check compares one simulated event with what was recorded of its kind.
func check(e wireEvent, all map[string]*seen, report func(key, what string)) {
	s := all[e.kind()]
	if s == nil {
		report("", "no such event was recorded")
		return
	}
	kind := s
	for k, v := range e {
		s := kind
		if s.keys[k] == 0 && strings.HasPrefix(k, ".variable_") && e[".variable_uuid"] != "" {
			s = all["CHANNEL_HANGUP_COMPLETE"] // a channel's variables are on each of its full events once they are set
		}
		if s.keys[k] == 0 {
			report(k, "key never recorded")
			continue
		}
		if got := shape(v); k != ".LastCall" && !s.shapes[k][got] && !s.shapes[k]["text"] {
			report(k, "value "+v+" is "+got+", recorded: "+strings.Join(slices.Sorted(maps.Keys(s.shapes[k])), " "))
		}
	}
	for k, n := range s.keys {
		if _, ok := e[k]; !ok && n == s.n {
			report(k, "missing, though every recorded one has it")
		}
	}
}

// once reports each fault once for a kind of event.
func once(t *testing.T, faults map[string]bool, e wireEvent) func(string, string) {
	return func(key, what string) {
		if id := e.kind() + " " + key; !faults[id] {
			faults[id] = true
			t.Errorf("%s%s: %s", e.kind(), key, what)
		}
	}
}

// Every event has the keys and the kinds of values that real switches send for its type, and lacks none.
func TestWireFormatAsterisk(t *testing.T) {
	all := recorded(t, "asterisk")
	opt, all3 := everyScript(3)
	got, a := playAsterisk(t, opt, all3...)
	scriptsPlayed(t, a.Truths())
	faults, kinds := map[string]bool{}, map[string]bool{}
	for _, b := range got.ari {
		e := jsonEvent(t, b)
		kinds[e.kind()] = true
		check(e, all, once(t, faults, e))
	}
	for _, b := range got.ami {
		e := messageEvent(strings.Split(string(b), "\r\n"))
		kinds[e.kind()] = true
		check(e, all, once(t, faults, e))
	}
	for _, k := range []string{"ChannelCreated", "Dial", "ChannelHold", "BridgeBlindTransfer", "BridgeAttendedTransfer", "ChannelDtmfReceived", "ChannelDestroyed",
		"QueueCallerJoin", "AgentCalled", "AgentConnect", "AgentComplete", "QueueCallerAbandon", "QueueMemberPause", "AgentRingNoAnswer", "Hangup"} {
		if !kinds[k] {
			t.Errorf("no %s in %d calls", k, len(a.Truths()))
		}
	}
	leaks(t, bytes.Join(append(got.ari, got.ami...), nil))
}

func TestWireFormatFreeSWITCH(t *testing.T) {
	all := recorded(t, "freeswitch")
	opt, all3 := everyScript(3)
	got, s := playFreeSWITCH(t, opt, "event json ALL", all3...)
	scriptsPlayed(t, s.Truths())
	faults, kinds := map[string]bool{}, map[string]bool{}
	for _, b := range got {
		e := jsonEvent(t, b)
		kinds[e.kind()] = true
		check(e, all, once(t, faults, e))
	}
	for _, k := range []string{"CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_HOLD", "CHANNEL_HANGUP_COMPLETE", "DTMF", "CHANNEL_PARK",
		"CUSTOM callcenter::info agent-offering", "CUSTOM callcenter::info bridge-agent-start", "CUSTOM callcenter::info member-queue-end",
		"CUSTOM conference::maintenance  add-member"} {
		if !kinds[k] {
			t.Errorf("no %s among %v", k, slices.Sorted(maps.Keys(kinds)))
		}
	}
	leaks(t, bytes.Join(got, nil))
}

func scriptsPlayed(t *testing.T, truths []Truth) {
	t.Helper()
	played := map[string]bool{}
	for _, x := range truths {
		played[x.Script] = true
	}
	for _, n := range Scripts() {
		if !played[n] {
			t.Errorf("script %s was not played", n)
		}
	}
}

// leaks looks for anything that belongs to the recorded calls.
func leaks(t *testing.T, wire []byte) {
	t.Helper()
	for _, s := range []string{"14155550100", "Alice", "C-1001", "16b894de-02df-4902-a4c3-17c2275ab1a2", "02:fc:00:00:00:01", "2026-11-2", "22 Nov 2026", "opt42\""} {
		if i := bytes.Index(wire, []byte(s)); i >= 0 {
			t.Errorf("%q of the recording is on the wire: …%s…", s, wire[max(0, i-80):min(len(wire), i+80)])
		}
	}
	if m := regexp.MustCompile(`[^0-9]17953[0-9]{5}[^0-9]`).Find(wire); m != nil {
		t.Errorf("a recorded time is on the wire: %s", m)
	}
}

// The scores are the project's recordings, so that the two cannot drift apart.
func TestScoresAreTheRecordings(t *testing.T) {
	for _, kind := range []string{"asterisk", "freeswitch"} {
		dirs, err := scoreFiles.ReadDir("scores/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			for _, name := range []string{"ari", "ami", "esl"} {
				p := kind + "/" + d.Name() + "/" + name + ".jsonl.gz"
				a, errA := scoreFiles.ReadFile("scores/" + p)
				b, errB := os.ReadFile(filepath.Join(recordings, p))
				if (errA == nil) != (errB == nil) || !bytes.Equal(a, b) {
					t.Errorf("%s differs from the recording: %v %v", p, errA, errB)
				}
			}
		}
	}
}
