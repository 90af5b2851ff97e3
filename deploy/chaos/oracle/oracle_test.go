package oracle

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim"
)

var pbx = call.SwitchRef{ID: "fs", Kind: "freeswitch", Instance: "i1"}

const start = call.Time(1_800_000_000) * call.Second

// story lets the tracker make two answered calls and one agent's change of state: what a witness has.
func story() []*call.Event {
	var out []*call.Event
	tr := call.NewTracker(call.Options{})
	now, n := start, 0
	do := func(o call.Observation) {
		n++
		now += call.Second
		o.At, o.Received, o.Native = now, now, call.Native{Type: "test", ID: strconv.Itoa(n)}
		out = append(out, tr.Apply(pbx, o)...)
	}
	for _, c := range []string{"a", "x"} {
		do(call.Observation{Kind: call.LegCreated, Leg: c, Link: c, Inbound: true, Number: "+14155550100", Dialed: "1000", User: "trunk"})
		do(call.Observation{Kind: call.LegCreated, Leg: c + "2", Link: c, Parent: c, User: "agent1"})
		do(call.Observation{Kind: call.LegAlerting, Leg: c + "2"})
		do(call.Observation{Kind: call.LegConnected, Leg: c + "2"})
		do(call.Observation{Kind: call.LegConnected, Leg: c})
		do(call.Observation{Kind: call.AgentStateChange, Agent: "agent1", Value: map[string]string{"a": "busy", "x": "ready"}[c]})
		do(call.Observation{Kind: call.LegReleasing, Leg: c})
		do(call.Observation{Kind: call.LegCleared, Leg: c + "2", Q850: 16})
		do(call.Observation{Kind: call.LegCleared, Leg: c, Q850: 16})
	}
	return out
}

// publish writes events as the gateway does.
func publish(events []*call.Event) (all []Message) {
	offsets := map[string]int64{}
	put := func(stream string, e *call.Event, id, typ string, v any, key string) {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		all = append(all, Message{Stream: stream, Offset: offsets[stream], Key: key, ID: id, Type: typ, Seq: e.Seq, Value: b, Writer: "7/0",
			Appended: e.Time.Received.Std()})
		offsets[stream]++
	}
	for _, e := range events {
		switch {
		case strings.HasPrefix(string(e.Type), "source."):
			put("sources", e, e.ID, string(e.Type), e, e.Switch.ID)
		case e.Type == call.CallRecord:
			put("records", e, e.ID, string(e.Type), e.Call, e.InteractionID)
		default:
			put("events", e, e.ID, string(e.Type), e, e.InteractionID)
			if e.Call != nil {
				put("calls", e, e.ID+"-state", "call.state", e.Call, e.CallID)
			}
		}
	}
	return all
}

func gapEvent(from, to call.Time) *call.Event {
	e := &call.Event{ID: "gap-" + from.String(), Type: call.SourceGap, Switch: pbx, Source: &call.Source{From: from, To: to, Reason: "reset"}}
	e.Time.Received = to
	return e
}

func healthy() *Case {
	w := story()
	legs := map[string]bool{"a": true, "a2": true, "x": true, "x2": true}
	truth := func(n int64, leg string, from call.Time) sim.Truth {
		return sim.Truth{Number: n, Script: "inbound", Legs: []string{leg, leg + "2"}, From: "+14155550100", AnsweredBy: []string{"agent1"},
			Outcome: call.Answered, HangupBy: "caller", Started: from.Std(), Ended: (from + 9*call.Second).Std()}
	}
	return &Case{Messages: publish(w), Witness: w, Legs: map[string]map[string]bool{"fs": legs},
		Truths: map[string][]sim.Truth{"fs": {truth(1, "a", start), truth(2, "x", start+9*call.Second)}}}
}

// at finds the nth message of a type on a stream.
func (c *Case) at(t *testing.T, stream, typ string, nth int) int {
	t.Helper()
	for i := range c.Messages {
		if m := &c.Messages[i]; m.Stream == stream && (typ == "" || m.Type == typ) {
			if nth--; nth < 0 {
				return i
			}
		}
	}
	t.Fatalf("no %s on %s", typ, stream)
	return 0
}

func (c *Case) remove(i int) { c.Messages = slices.Delete(c.Messages, i, i+1) }

// edit changes a message's payload.
func (c *Case) edit(t *testing.T, i int, old, new string) {
	t.Helper()
	v := string(c.Messages[i].Value)
	if !strings.Contains(v, old) {
		t.Fatalf("no %s in %s", old, v)
	}
	c.Messages[i].Value = []byte(strings.Replace(v, old, new, 1))
}

func TestHealthyStreams(t *testing.T) {
	c := healthy()
	if rep := Judge(c); len(rep.Violations) > 0 || rep.Calls != 2 || rep.Writers != 1 {
		t.Errorf("%+v", rep)
	}
	c.Messages = append(c.Messages, c.Messages...) // all of it once more, as a crash may leave it
	for i := range c.Messages {
		c.Messages[i].Offset = int64(i)
	}
	if rep := Judge(c); len(rep.Violations) > 0 || rep.Repeats != len(c.Messages)/2 {
		t.Errorf("%+v", rep)
	}
}

// TestPlantedFaults damages healthy streams in every way the oracle knows and wants each found.
func TestPlantedFaults(t *testing.T) {
	for _, x := range []struct {
		name  string
		plant func(t *testing.T, c *Case)
		want  []string
	}{
		{"a missing event", func(t *testing.T, c *Case) { c.remove(c.at(t, "events", "connection.alerting", 0)) }, []string{Hole, Missing}},
		{"a missing first event", func(t *testing.T, c *Case) { c.remove(c.at(t, "events", "call.offered", 1)) }, []string{Hole, Missing}},
		{"a missing end", func(t *testing.T, c *Case) { c.remove(c.at(t, "events", "call.ended", 0)) }, []string{Hole, Ends, Missing}},
		{"a missing record", func(t *testing.T, c *Case) { c.remove(c.at(t, "records", "", 1)) }, []string{Records, Missing}},
		{"a missing last state", func(t *testing.T, c *Case) {
			i := len(c.Messages) - 1
			for c.Messages[i].Stream != "calls" {
				i--
			}
			c.remove(i)
		}, []string{State}},
		{"a call that is not there at all", func(t *testing.T, c *Case) {
			id := c.Witness[0].CallID
			c.Messages = slices.DeleteFunc(c.Messages, func(m Message) bool { return strings.Contains(string(m.Value), id) })
		}, []string{Missing}},
		{"a missing change of an agent", func(t *testing.T, c *Case) { c.remove(c.at(t, "events", "agent.state", 1)) }, []string{Missing}},
		{"an invented event", func(t *testing.T, c *Case) {
			m := c.Messages[c.at(t, "events", "connection.alerting", 0)]
			m.ID, m.Offset = "0123", 1000
			c.Messages = append(c.Messages, m)
		}, []string{Disorder, Hole, Invented}},
		{"an invented leg", func(t *testing.T, c *Case) {
			c.edit(t, c.at(t, "events", "connection.alerting", 0), `"connection_id":"fs/a2"`, `"connection_id":"fs/nobody"`)
		}, []string{Invented}},
		{"an invented state of an agent", func(t *testing.T, c *Case) {
			m := c.Messages[c.at(t, "events", "agent.state", 0)]
			m.ID, m.Offset = "4567", 1000
			c.Messages = append(c.Messages, m)
		}, []string{Invented, Missing}},
		{"one id, two payloads", func(t *testing.T, c *Case) {
			c.Messages = append(c.Messages, c.Messages[c.at(t, "events", "connection.alerting", 0)])
			c.edit(t, len(c.Messages)-1, `"seq":`, `"seq":1`)
		}, []string{Conflict}},
		{"one id, two keys", func(t *testing.T, c *Case) {
			m := c.Messages[c.at(t, "records", "", 0)]
			m.Key, m.Partition = "other", 1
			c.Messages = append(c.Messages, m)
		}, []string{Conflict}},
		{"swapped order", func(t *testing.T, c *Case) {
			i, k := c.at(t, "events", "connection.initiated", 0), c.at(t, "events", "connection.alerting", 0)
			c.Messages[i], c.Messages[k] = c.Messages[k], c.Messages[i]
		}, []string{Disorder}},
		{"a number twice", func(t *testing.T, c *Case) {
			i := c.at(t, "events", "connection.alerting", 0)
			c.edit(t, i, `"seq":4`, `"seq":3`)
		}, []string{Hole}},
		{"two ends", func(t *testing.T, c *Case) {
			m := c.Messages[c.at(t, "events", "call.ended", 0)]
			m.ID, m.Offset = "89ab", 1000
			c.Messages = append(c.Messages, m)
		}, []string{Hole, Ends, Invented}},
		{"two records", func(t *testing.T, c *Case) {
			m := c.Messages[c.at(t, "records", "", 0)]
			m.ID, m.Seq, m.Offset = "cdef", m.Seq+1, 1000
			c.Messages = append(c.Messages, m)
		}, []string{Records, Invented}},
		{"a record that lies", func(t *testing.T, c *Case) {
			c.edit(t, c.at(t, "records", "", 0), `"outcome":"answered"`, `"outcome":"abandoned"`)
		}, []string{Untrue}},
		{"a record with a wrong duration", func(t *testing.T, c *Case) {
			c.edit(t, c.at(t, "records", "", 0), `"talk_ms":`, `"talk_ms":9`)
		}, []string{Untrue}},
		{"a record that the switch contradicts", func(t *testing.T, c *Case) { c.Truths["fs"][0].AnsweredBy = []string{"agent2"} }, []string{Untrue}},
		{"a message that is no JSON", func(t *testing.T, c *Case) {
			c.Messages[c.at(t, "events", "connection.alerting", 0)].Value = []byte("{")
		}, []string{Unreadable, Hole, Missing}},
		{"an old writer that writes again", func(t *testing.T, c *Case) {
			for i := range c.Messages {
				if i > len(c.Messages)/2 {
					c.Messages[i].Writer = "8/0"
				}
			}
			i := len(c.Messages) - 1
			for c.Messages[i].Stream != "events" {
				i--
			}
			c.Messages[i].Writer = "7/0"
		}, []string{Owners}},
		{"two writers at a time", func(t *testing.T, c *Case) {
			for i := range c.Messages {
				if c.Messages[i].Stream == "calls" {
					c.Messages[i].Writer = "8/0"
				}
			}
		}, []string{Owners}},
		{"a gap nobody caused", func(t *testing.T, c *Case) {
			c.Messages = append(c.Messages, publish([]*call.Event{gapEvent(start+3*call.Second, start+4*call.Second)})...)
		}, []string{Causeless}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := healthy()
			x.plant(t, c)
			rep := Judge(c)
			for _, kind := range x.want {
				if !slices.ContainsFunc(rep.Violations, func(v Violation) bool { return v.Kind == kind }) {
					t.Errorf("no violation %q", kind)
				}
			}
			for _, v := range rep.Violations {
				if !slices.Contains(x.want, v.Kind) {
					t.Errorf("besides: %s", v)
				}
			}
		})
	}
}

// TestGapsExcuse: inside a published gap that a fault caused, events may be missing; outside they may not.
func TestGapsExcuse(t *testing.T) {
	for _, x := range []struct {
		name     string
		from, to call.Time // of the gap, after start
		want     []string
	}{
		{"around it", 12 * call.Second, 13 * call.Second, nil}, // x2 alerts at 12 s
		{"elsewhere", 2 * call.Second, 3 * call.Second, []string{Missing}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := healthy()
			i := c.at(t, "events", "connection.alerting", 1)
			gone := c.Messages[i]
			c.remove(i)
			for i := range c.Messages { // what follows is numbered on, as a gateway that did not see it would
				m := &c.Messages[i]
				if m.Key == gone.Key && m.Seq > gone.Seq && m.Stream != "calls" {
					old := m.Seq
					m.Seq--
					if m.Stream == "events" {
						c.edit(t, i, `"seq":`+strconv.FormatUint(old, 10), `"seq":`+strconv.FormatUint(m.Seq, 10))
					}
				}
			}
			c.Messages = append(c.Messages, publish([]*call.Event{gapEvent(start+x.from, start+x.to)})...)
			c.Troubles = []Trouble{{Switch: "fs", From: (start + x.from).Std(), To: (start + x.to).Std(), Blind: true}}
			rep := Judge(c)
			var got []string
			for _, v := range rep.Violations {
				got = append(got, v.Kind)
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("%v, want %v", rep.Violations, x.want)
			}
		})
	}
}

func TestTroubleHasSlack(t *testing.T) {
	now := time.Now()
	x := Trouble{Switch: "fs", From: now, To: now.Add(time.Second)}
	if !x.during("fs", now.Add(-time.Minute), now) || x.during("ast", now, now) || x.during("fs", now.Add(time.Minute), now.Add(time.Hour)) {
		t.Error("wrong")
	}
}

// Nothing need be told of legs that began in a gap and were over before the snapshot; of those that it shows, everything since.
func TestLegsThatNoSnapshotShows(t *testing.T) {
	for reconciled, missing := range map[call.Time]bool{25 * call.Second: false, 12 * call.Second: true} { // the second call lives from 10 s to 18 s
		c := healthy()
		second := c.Witness[slices.IndexFunc(c.Witness, func(e *call.Event) bool { return strings.HasSuffix(e.ConnectionID, "/x") })].CallID
		c.Messages = slices.DeleteFunc(c.Messages, func(m Message) bool { return m.subject() == second })
		told := &call.Event{ID: "reconciled", Type: call.SourceReconciled, Switch: pbx, Source: &call.Source{}}
		told.Time.Received = start + reconciled
		from, to := start+10*call.Second, start+11*call.Second
		c.Messages = append(c.Messages, publish([]*call.Event{gapEvent(from, to), told})...)
		c.Troubles = []Trouble{{Switch: "fs", From: from.Std(), To: to.Std(), Blind: true}}
		rep := Judge(c)
		if found := slices.ContainsFunc(rep.Violations, func(v Violation) bool { return v.Kind == Missing }); found != missing {
			t.Errorf("with a snapshot at %d s: %v", reconciled/call.Second, rep.Violations)
		}
	}
}
