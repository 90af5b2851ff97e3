//go:build live

package live_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
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
	capture := capturePackets(t)
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
	t.Run("wire", func(t *testing.T) { checkWire(t, c, capture()) })
}

func playScenario(t *testing.T, g *gateway, name string, want adaptertest.Scenario) {
	from := time.Now()
	play(t, name)
	g.waitIdle()
	to := time.Now()
	records := recordsOf(t, "cti.", from, to)
	stories := adaptertest.Stories(records)
	if len(stories) != len(want.Interactions) {
		t.Fatalf("%d interactions, want %d", len(stories), len(want.Interactions))
	}
	for i, s := range stories {
		for _, fault := range s.Check("asterisk", want.Interactions[i]) {
			t.Error(fault)
		}
		for _, r := range s.Records {
			if r.Completeness != nil {
				t.Errorf("call %s was seen whole, and its record says %+v", r.ID, *r.Completeness)
			}
		}
	}
	if name == "agent_states" {
		checkAgents(t, from)
	}
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

// capturePackets captures the SIP packets until the function it returns is called, which gives the dialogs.
func capturePackets(t *testing.T) func() []wireDialog {
	file := scratch("sip.pcap")
	cmd := exec.Command("tcpdump", "-Z", "root", "-i", "lo", "-U", "--immediate-mode", "-B", "16384", "-w", file, "udp and port "+sipPort)
	var said lockedBuffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	eventually(t, "tcpdump listens", 20*time.Second, func() bool {
		select {
		case <-done:
			t.Fatalf("tcpdump ended: %s", said.String())
		default:
		}
		return strings.Contains(said.String(), "listening on")
	})
	return func() (all []wireDialog) {
		cmd.Process.Signal(syscall.SIGINT)
		<-done
		if err := json.Unmarshal([]byte(mustOutput(t, "./wire.py", file)), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
}

// wireDialog is a dialog as the packets have it, and when Asterisk acted on them if that was later.
type wireDialog struct {
	adaptertest.Dialog
	Acted struct {
		Answered float64 `json:"answered_at"`
		Ended    float64 `json:"ended_at"`
	} `json:"acted"`
}

// compare holds a connection against its dialog. A packet that waited more than 50 ms for a busy Asterisk counts from
// when it was acted on.
func (d wireDialog) compare(c *call.Connection) []string {
	late := func(came, acted float64) float64 {
		if acted-came > 0.05 {
			return acted
		}
		return came
	}
	w := d.Dialog
	w.Answered, w.Ended = late(w.Answered, d.Acted.Answered), late(w.Ended, d.Acted.Ended)
	return w.Compare(c)
}

// checkWire compares ring and talk times with the packets, connection by connection.
func checkWire(t *testing.T, c content, dialogs []wireDialog) {
	byID, seen := map[string]wireDialog{}, map[string]bool{}
	for _, d := range dialogs {
		byID[d.CallID] = d
	}
	for _, r := range c.events(t, "records") {
		for _, leg := range r.Call.Connections {
			if d, ok := byID[leg.SIPCallID]; ok {
				seen[leg.SIPCallID] = true
				for _, fault := range d.compare(leg) {
					t.Errorf("%s to %s: %s", leg.ID, r.Call.To.Number, fault)
				}
			}
		}
	}
	for id := range byID {
		if !seen[id] {
			t.Errorf("SIP dialog %s is in no record", id)
		}
	}
	t.Logf("%d SIP dialogs agree with the records", len(seen))
}
