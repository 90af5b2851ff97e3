//go:build live

package live_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// TestScenarios plays every scenario of truth.json through Asterisk and compares what Kafka then holds with the truth,
// with the promises about order and CloudEvents, and with the packets.
func TestScenarios(t *testing.T) {
	truth, err := adaptertest.ReadTruth(truthFile)
	if err != nil {
		t.Fatal(err)
	}
	delete(truth, "idle") // nothing happens in it
	g := start(t, settings{})
	g.waitReady()
	for _, name := range slices.Sorted(maps.Keys(truth)) {
		t.Run(name, func(t *testing.T) { playScenario(t, g, name, truth[name]) })
	}
	t.Run("link", func(t *testing.T) {
		for _, l := range g.status().Links {
			if l.Dead != 0 || len(l.Missing) != 0 {
				t.Errorf("the link has %d dead letters and misses %v", l.Dead, l.Missing)
			}
		}
	})
	t.Run("stop", func(t *testing.T) { g.stopClean() })
	c := readAll(t, "cti.")
	t.Run("topics", func(t *testing.T) { checkTopics(t, c) })
	t.Run("order", func(t *testing.T) {
		if calls := checkCalls(t, c); calls < len(truth) {
			t.Errorf("only %d calls", calls)
		}
	})
	t.Run("cloudevents", func(t *testing.T) { checkCloudEvents(t, c) })
	t.Run("calls topic", func(t *testing.T) { checkCallsTopic(t, c) })
}

// attempts is how often a scenario is played when only its times are wrong: on a busy machine phones oversleep, and
// Asterisk sends a packet long after the event that tells of it. What happened must be right each time.
const attempts = 3

func playScenario(t *testing.T, g *gateway, name string, want adaptertest.Scenario) {
	for n := 1; ; n++ {
		from := time.Now()
		capture := capturePackets(t, fmt.Sprintf("%s-%d.pcap", name, n))
		play(t, name)
		g.waitIdle()
		records := recordsOf(t, "cti.", from, time.Now())
		wrong, late := compareStories(records, want)
		late = append(late, compareWire(records, capture())...)
		for _, fault := range wrong {
			t.Error(fault)
		}
		if name == "agent_states" {
			checkAgents(t, from)
		}
		if t.Failed() || len(late) == 0 {
			return
		}
		if n == attempts {
			t.Errorf("the times were wrong %d times:\n%s", n, strings.Join(late, "\n"))
			return
		}
		t.Logf("playing it again, for its times:\n%s", strings.Join(late, "\n"))
	}
}

// compareStories compares with the truth. Faults in how long a hold was are apart: the phones' own.
func compareStories(records []*call.Event, want adaptertest.Scenario) (wrong, late []string) {
	stories := adaptertest.Stories(records)
	if len(stories) != len(want.Interactions) {
		return []string{fmt.Sprintf("%d interactions, want %d", len(stories), len(want.Interactions))}, nil
	}
	for i, s := range stories {
		for _, fault := range s.Check("asterisk", want.Interactions[i]) {
			if strings.HasPrefix(fault, "hold is ") {
				late = append(late, fault)
			} else {
				wrong = append(wrong, fault)
			}
		}
		for _, r := range s.Records {
			if r.Completeness != nil {
				wrong = append(wrong, fmt.Sprintf("call %s was seen whole, and its record says %+v", r.ID, *r.Completeness))
			}
		}
	}
	return wrong, late
}

// checkAgents reads what became of the agents since from.
func checkAgents(t *testing.T, from time.Time) {
	var got []string
	for _, m := range kcat(t, "cti.events.v1") {
		if e := m.event(t); e.Type == call.AgentState && e.Time.Switch >= call.At(from) {
			got = append(got, strings.TrimSpace(fmt.Sprint(e.Agent.ID, " ", e.Agent.State, " ", e.Agent.Reason)))
		}
	}
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(a[:6], b[:6]) }) // agents have keys of their own
	want := []string{"agent1 not_ready lunch", "agent1 ready", "agent2 logged_in", "agent2 logged_out"}
	if !slices.Equal(got, want) {
		t.Errorf("agent events are %q, want %q", got, want)
	}
}

func sortBySeq(events []*call.Event) {
	slices.SortStableFunc(events, func(a, b *call.Event) int { return int(a.Seq) - int(b.Seq) })
}

// checkTopics holds the settings the sink makes topics with.
func checkTopics(t *testing.T, c content) {
	for _, stream := range []string{"events", "calls", "records", "media", "sources", "stale", "deadletter"} {
		tp, ok := c.topics[stream]
		want := "delete"
		if stream == "calls" {
			want = "compact"
		}
		if !ok || tp.Partitions != 12 || tp.Config["cleanup.policy"] != want {
			t.Errorf("topic of %s: there is %v, %d partitions, cleanup.policy=%s", stream, ok, tp.Partitions, tp.Config["cleanup.policy"])
		}
	}
	if n := len(c.messages["deadletter"]); n > 0 {
		t.Errorf("%d dead letters: %s", n, c.messages["deadletter"][0])
	}
	if e := c.events(t, "sources"); len(e) == 0 || e[0].Type != call.SourceUp {
		t.Errorf("the sources topic does not begin with source.up: %d events", len(e))
	}
}

var (
	eventType   = regexp.MustCompile(`^cti\.[a-z_]+\.[a-z_]+\.v1$`)
	traceParent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
)

// checkCloudEvents holds the headers of every message against the CloudEvents Kafka binding and the model.
func checkCloudEvents(t *testing.T, c content) {
	ids, places, old := map[string]bool{}, map[string]int{}, 0
	for _, stream := range []string{"events", "records", "sources"} {
		for _, m := range c.messages[stream] {
			e, h := m.event(t), m.Headers
			bad := func(what string) { t.Errorf("%s: %s: headers %v", m, what, h) }
			if h["ce_specversion"] != "1.0" || h["content-type"] != "application/json" || h["ce_source"] == "" {
				bad("not a CloudEvent")
			}
			if !eventType.MatchString(h["ce_type"]) {
				bad("type")
			}
			if ids[h["ce_source"]+h["ce_id"]] || h["ce_id"] == "" {
				bad("an id that was there before")
			}
			ids[h["ce_source"]+h["ce_id"]] = true
			if p, known := places[stream+m.Key]; known && p != m.Partition || m.Key == "" || m.Key != h["ce_partitionkey"] {
				bad("its key has no partition of its own")
			}
			places[stream+m.Key] = m.Partition
			for _, name := range []string{"ce_time", "ce_recordedtime"} {
				if _, err := time.Parse(time.RFC3339Nano, h[name]); err != nil {
					bad(name)
				}
			}
			if e.CallID != "" && (h["ce_subject"] != e.CallID || h["ce_sequence"] != fmt.Sprintf("%020d", e.Seq) ||
				m.Key != e.InteractionID || !traceParent.MatchString(h["traceparent"])) {
				bad("not of its call")
			}
			if stream == "events" && e.Time.Freshness != call.Fresh {
				old++
			}
		}
	}
	if n := len(c.messages["events"]); old*20 > n {
		t.Errorf("%d of %d events are not fresh", old, n)
	}
}

// checkCallsTopic holds that what compaction would leave is each call's end, as in its record.
func checkCallsTopic(t *testing.T, c content) {
	last := map[string]message{}
	for _, m := range c.messages["calls"] {
		last[m.Key] = m
	}
	records := c.events(t, "records")
	for _, r := range records {
		var got call.Call
		m, ok := last[r.CallID]
		if !ok {
			t.Errorf("call %s is not in the calls topic", r.CallID)
			continue
		}
		m.decode(t, &got)
		if !reflect.DeepEqual(&got, r.Call) {
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(r.Call)
			t.Errorf("the calls topic ends with\n%s\nand the record is\n%s", a, b)
		}
	}
	if len(last) != len(records) {
		t.Errorf("%d calls in the calls topic, %d records", len(last), len(records))
	}
}
