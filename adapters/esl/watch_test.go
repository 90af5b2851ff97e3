package esl

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestContinuityOnTheRecordings(t *testing.T) {
	dirs, err := os.ReadDir("../adaptertest/traces/freeswitch")
	if err != nil {
		t.Fatal(err)
	}
	events, inversions := 0, 0
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		var c continuity
		for i, f := range recording(t, "freeswitch", d.Name()) {
			if name := headerOf([]byte(f.Body), true, "Event-Name"); !slices.Contains(subscribed, string(name)) {
				continue
			}
			v := c.see([]byte(f.Body), true)
			if v.gap != "" || v.restart != "" {
				t.Errorf("%s, event %d: %+v", d.Name(), i, v)
			}
			if events++; v.inverted {
				inversions++
			}
		}
		if c.core == "" || c.highest == 0 {
			t.Errorf("%s: nothing read: %+v", d.Name(), c)
		}
	}
	if events != 1037 || inversions != 10 {
		t.Errorf("%d subscribed events with %d inversions, want 1037 with 10", events, inversions)
	}
}

func TestContinuityReadsPlainToo(t *testing.T) {
	for _, scenario := range []string{"inbound_answered_caller_hangup", "queue_answered"} {
		var c continuity
		for _, f := range recording(t, "freeswitch-plain", scenario) {
			if v := c.see([]byte(f.Body), false); v.gap != "" || v.restart != "" {
				t.Errorf("%+v", v)
			}
		}
		if c.core != testCore || c.highest < 42673 {
			t.Errorf("%s: %+v", scenario, c)
		}
	}
}

func TestContinuityTellsRestarts(t *testing.T) {
	var c continuity
	c.see([]byte(event1("DTMF", 50_000)), true)
	if v := c.see([]byte(event1("DTMF", 49_900)), true); !v.inverted || v.restart != "" {
		t.Errorf("an inversion is %+v", v)
	}
	if v := c.see([]byte(event1("DTMF", 70_000)), true); v != (verdict{}) {
		t.Errorf("a wide hole is %+v, and holes prove nothing", v)
	}
	if v := c.see([]byte(event1("DTMF", 12)), true); !strings.Contains(v.restart, "fell back from 70000 to 12") {
		t.Errorf("a new counter is %+v", v)
	}
	other := strings.Replace(event1("DTMF", 70_001), testCore, "ffffffff-02df-4902-a4c3-17c2275ab1a2", 1)
	if v := c.see([]byte(other), true); !strings.Contains(v.restart, "Core-UUID changed") {
		t.Errorf("another process is %+v", v)
	}
}

func TestContinuityTellsLostHeartbeats(t *testing.T) {
	beat := func(second int) []byte {
		return []byte(fmt.Sprintf(`{"Event-Name":"HEARTBEAT","Core-UUID":%q,"Event-Date-Timestamp":"%d","Event-Sequence":"%d"}`, testCore, 1795351500000000+second*1_000_000, 100+second))
	}
	var c continuity
	for _, second := range []int{0, 20, 40, 61, 80} {
		if v := c.see(beat(second), true); v.gap != "" {
			t.Fatalf("gap at %d s: %s", second, v.gap)
		}
	}
	v := c.see(beat(120), true)
	if !strings.Contains(v.gap, "40000 ms between two HEARTBEATs that come every 19000 ms") {
		t.Errorf("a lost heartbeat is %+v", v)
	}
	if v := c.see(beat(140), true); v.gap != "" {
		t.Errorf("told twice: %s", v.gap)
	}
}

func TestHeaderOf(t *testing.T) {
	tests := []struct {
		name, body string
		json       bool
		header     string
		want       string
	}{
		{"json", `{"Event-Name":"DTMF","Job-UUID":"x"}`, true, "Job-UUID", "x"},
		{"json with blanks", `{ "Event-Name" : "DTMF" }`, true, "Event-Name", "DTMF"},
		{"json, in a value", `{"a":"\"Job-UUID\":\"no\"","Job-UUID":"yes"}`, true, "Job-UUID", "yes"},
		{"json, part of a name", `{"Other-Job-UUID":"no","Job-UUID":"yes"}`, true, "Job-UUID", "yes"},
		{"json, absent", `{"Event-Name":"DTMF"}`, true, "Job-UUID", ""},
		{"json, cut off", `{"Event-Name":"DT`, true, "Event-Name", ""},
		{"json, a number", `{"Event-Name":5}`, true, "Event-Name", ""},
		{"plain", "Event-Name: DTMF\nJob-UUID: x\n\n", false, "Job-UUID", "x"},
		{"plain, first", "Event-Name: DTMF\n", false, "Event-Name", "DTMF"},
		{"plain, part of a name", "Other-Job-UUID: no\nJob-UUID: yes\n", false, "Job-UUID", "yes"},
		{"plain, longer name", "Job-UUID-2: no\nJob-UUID: yes\n", false, "Job-UUID", "yes"},
		{"plain, absent", "Event-Name: DTMF\n", false, "Job-UUID", ""},
		{"empty", "", true, "Job-UUID", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := headerOf([]byte(tt.body), tt.json, tt.header); string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzHeaderOf(f *testing.F) {
	f.Add([]byte(event1("DTMF", 1)), true)
	f.Add([]byte("Event-Name: DTMF\nEvent-Sequence: 12\n\n"), false)
	f.Fuzz(func(_ *testing.T, body []byte, json bool) {
		var c continuity
		c.see(body, json)
		c.see(body, json)
	})
}

func BenchmarkContinuity(b *testing.B) {
	frames := recording(b, "freeswitch", "twenty_overlapping_calls")
	bodies := make([][]byte, len(frames))
	for i, f := range frames {
		bodies[i] = []byte(f.Body)
	}
	var c continuity
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.see(bodies[i%len(bodies)], true)
	}
}
