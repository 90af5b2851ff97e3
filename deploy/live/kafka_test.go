//go:build live

package live_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// topic and message are what confluent-kafka says: read.py.
type topic struct {
	Name       string            `json:"topic"`
	Partitions int               `json:"partitions"`
	Config     map[string]string `json:"config"`
}

type message struct {
	Topic     string            `json:"topic"`
	Partition int               `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       string            `json:"key"`
	Headers   map[string]string `json:"headers"`
	Value     *string           `json:"value"`
}

// content is all that is held under a prefix, by stream: events, calls, records …
type content struct {
	topics   map[string]topic
	messages map[string][]message
}

func readAll(t testing.TB, prefix string) content {
	t.Helper()
	c := content{map[string]topic{}, map[string][]message{}}
	stream := func(name string) string { return strings.TrimSuffix(strings.TrimPrefix(name, prefix), ".v1") }
	for line := range strings.Lines(mustOutput(t, "./read.py", kafkaAddr, prefix)) {
		var tp topic
		var m message
		if err := json.Unmarshal([]byte(line), &tp); err != nil {
			t.Fatal(err)
		}
		if tp.Config != nil {
			c.topics[stream(tp.Name)] = tp
			continue
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		c.messages[stream(m.Topic)] = append(c.messages[stream(m.Topic)], m)
	}
	return c
}

// event decodes a message of the events, records or sources stream, with what travels in its headers.
func (m message) event(t testing.TB) *call.Event {
	t.Helper()
	name := strings.TrimSuffix(strings.TrimPrefix(m.Headers["ce_type"], "cti."), ".v1")
	e := &call.Event{ID: m.Headers["ce_id"], Type: call.EventType(name)}
	var into any = e
	if e.Type == call.CallRecord {
		e.Call = &call.Call{}
		into = e.Call
	}
	m.decode(t, into)
	if e.Type == call.CallRecord {
		e.CallID, e.InteractionID = e.Call.ID, e.Call.InteractionID
		seq, err := strconv.ParseUint(m.Headers["ce_sequence"], 10, 64)
		if err != nil {
			t.Errorf("record %s: ce_sequence: %v", e.CallID, err)
		}
		e.Seq = seq
	}
	return e
}

func (m message) decode(t testing.TB, into any) {
	t.Helper()
	if m.Value == nil {
		t.Fatalf("%s/%d/%d has no value", m.Topic, m.Partition, m.Offset)
	}
	if err := json.Unmarshal([]byte(*m.Value), into); err != nil {
		t.Fatalf("%s/%d/%d: %v", m.Topic, m.Partition, m.Offset, err)
	}
}

// events decodes the messages of streams, in the order of their partitions.
func (c content) events(t testing.TB, streams ...string) (all []*call.Event) {
	t.Helper()
	for _, s := range streams {
		for _, m := range c.messages[s] {
			all = append(all, m.event(t))
		}
	}
	return all
}

// kcat reads a topic with kcat, as far as it goes.
func kcat(t testing.TB, topic string) (all []message) {
	t.Helper()
	out := mustOutput(t, "kcat", "-C", "-b", kafkaAddr, "-t", topic, "-o", "beginning", "-e", "-q", "-J",
		"-X", "check.crcs=true", "-X", "fetch.wait.max.ms=20")
	for line := range strings.Lines(out) {
		var m struct {
			message
			Headers []string `json:"headers"` // name, value, name, value …
			Payload *string  `json:"payload"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		m.message.Headers, m.Value = map[string]string{}, m.Payload
		for i := 0; i+1 < len(m.Headers); i += 2 {
			m.message.Headers[m.Headers[i]] = m.Headers[i+1]
		}
		all = append(all, m.message)
	}
	return all
}

// recordsOf reads, with kcat, the records of calls that began in a stretch of time.
func recordsOf(t testing.TB, prefix string, from, to time.Time) (all []*call.Event) {
	t.Helper()
	for _, m := range kcat(t, prefix+"records.v1") {
		if e := m.event(t); e.Call.StartedAt >= call.At(from) && e.Call.StartedAt <= call.At(to) {
			all = append(all, e)
		}
	}
	return all
}

// checkCalls holds for every call under a prefix: events numbered without holes, one call.ended, last, then one record.
// In a partition they stand in that order; a call that joined another interaction has events under two keys, and Kafka
// orders only within one.
func checkCalls(t testing.TB, c content) (calls int) {
	t.Helper()
	byCall, keys, order := map[string][]*call.Event{}, map[string]map[string]bool{}, []string{}
	for _, m := range append(c.messages["events"], c.messages["records"]...) {
		e := m.event(t)
		if e.CallID == "" {
			continue
		}
		if byCall[e.CallID] == nil {
			order, keys[e.CallID] = append(order, e.CallID), map[string]bool{}
		}
		byCall[e.CallID], keys[e.CallID][m.Key] = append(byCall[e.CallID], e), true
	}
	for _, id := range order {
		events := byCall[id]
		if len(keys[id]) > 1 {
			sortBySeq(events)
		}
		adaptertest.CheckStream(t, events)
		n := map[call.EventType]int{}
		for _, e := range events {
			n[e.Type]++
		}
		if n[call.CallEnded] != 1 || n[call.CallRecord] != 1 {
			t.Errorf("call %s has %d call.ended and %d records", id, n[call.CallEnded], n[call.CallRecord])
		}
	}
	return len(order)
}

// scratch is a path for a test's file in the lab's folder, which is kept when something fails.
func scratch(name string) string { return filepath.Join(lab.dir, name) }

func (m message) String() string {
	return fmt.Sprintf("%s/%d/%d %s", m.Topic, m.Partition, m.Offset, m.Headers["ce_type"])
}
