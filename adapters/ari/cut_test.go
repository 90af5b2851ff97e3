package ari

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/trace"
)

// TestReconcileCuts cuts the link at every message of every recording, for stretches of all lengths, and lets it come back
// with the snapshot that the switch would have shown then. The records hold what those of the whole recording do, or say
// what was not seen.
func TestReconcileCuts(t *testing.T) {
	losses := adaptertest.Losses{}
	dirs, _ := filepath.Glob("../adaptertest/traces/asterisk/*")
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			r := readRecording(t, dir)
			whole := r.run(adaptertest.Cut{At: len(r.lines)}, nil)
			for _, c := range adaptertest.Cuts(len(r.lines), r.says) {
				r.check(t, name, c, whole, losses)
				if t.Failed() {
					return
				}
			}
		})
	}
	t.Logf("what cuts of Asterisk's links cost:\n%s", losses)
}

// recording is the messages of a recorded scenario.
type recording struct {
	lines  []trace.Line
	events []*event // of ARI's
	joins  []stay   // of AMI's: who enters or leaves a queue
	speaks []bool   // whether a message made observations
}

func readRecording(t *testing.T, dir string) *recording {
	t.Helper()
	in, err := trace.Open(dir, trace.ARI, trace.AMI)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := &recording{}
	n := newNormalizer(options{}, ignore)
	for {
		l, err := in.Next()
		if err != nil {
			return r
		}
		n.flush(l.Received)
		r.lines = append(r.lines, l)
		f := normalized(n, l)
		var ev *event
		if l.Source == trace.ARI {
			ev, _ = decode(l.Event)
		} else {
			r.noteStay(l)
		}
		r.events = append(r.events, ev)
		r.speaks = append(r.speaks, len(f.Observations) > 0 || f.Type == "ChannelCreated")
	}
}

func (r *recording) says(i int) bool { return r.speaks[i] }

func normalized(n *normalizer, l trace.Line) core.Frame {
	if l.Source == trace.AMI {
		return n.manager(parseLines(l.Lines), l.Received)
	}
	f, _ := n.event(l.Event, l.Received)
	return f
}

func (r *recording) check(t *testing.T, name string, c adaptertest.Cut, whole *adaptertest.Host, losses adaptertest.Losses) {
	t.Helper()
	blind := adaptertest.Blind{}
	cut := r.run(c, &blind)
	lost, faults := blind.Check(whole.Events, cut.Events)
	for _, f := range faults {
		t.Errorf("cut %+v of %d (blind %s to %s): %s", c, len(r.lines), blind.From, blind.To, f)
	}
	losses.Add(name, lost)
}

// run plays the recording with the cut c; without one when blind is nil.
func (r *recording) run(c adaptertest.Cut, blind *adaptertest.Blind) *adaptertest.Host {
	h := adaptertest.NewHost("asterisk", "02:fc:00:00:00:01")
	n := newNormalizer(options{}, ignore)
	feed := func(n *normalizer, lines []trace.Line) {
		for _, l := range lines {
			h.Frame(core.Frame{Received: l.Received, Observations: n.flush(l.Received)})
			h.Frame(normalized(n, l))
		}
	}
	rest := func(n *normalizer, at call.Time) { h.Frame(core.Frame{Received: at, Observations: n.flush(at)}) }
	feed(n, r.lines[:c.At])
	last := r.time(c.At - 1)
	if blind == nil {
		rest(n, last+call.Second)
		h.Finish()
		return h
	}
	h.Frame(core.Frame{Received: last, Observations: n.last(last)}) // as drain does
	h.Down(last)
	back, shown := c.At+c.Lost, c.At+c.Lost+c.Shown
	n = newNormalizer(options{}, ignore)
	snap := r.snapshot(shown)
	blind.From, blind.To = last, snap.at
	window := r.lines[back : back+c.Window]
	snap.touched = touchedBy(options{}, inbounds(window))
	observed, err := n.snapshot(snap)
	if err != nil {
		panic(err)
	}
	h.Frame(core.Frame{Received: snap.received, Observations: observed})
	feed(n, window[:c.Shown])
	feed(n, r.queueStatus(shown, snap.received))
	feed(n, window[c.Shown:])
	feed(n, r.lines[back+c.Window:])
	end := max(r.time(len(r.lines)-1), snap.received)
	for at := end; at <= end+call.Second; at += 20 * call.Millisecond {
		rest(n, at)
	}
	h.Finish()
	return h
}

// time is when message i was received.
func (r *recording) time(i int) call.Time { return r.lines[min(max(i, 0), len(r.lines)-1)].Received }

func inbounds(lines []trace.Line) (out []inbound) {
	for _, l := range lines {
		if l.Source == trace.ARI {
			out = append(out, inbound{from: fromARI, raw: l.Event, received: l.Received})
		}
	}
	return out
}

// snapshot is what ARI would have answered after the first n messages.
func (r *recording) snapshot(n int) *snapshot {
	channels, asked := ordered[*channel]{}, map[string]details{}
	bridges, members := ordered[*bridge]{}, map[string]string{}
	for _, ev := range r.events[:n] {
		if ev == nil {
			continue
		}
		for _, ch := range []*channel{ev.Channel, ev.Caller, ev.Peer, ev.Forwarded} {
			if ch != nil {
				channels.put(ch.ID, ch)
			}
		}
		if ev.Bridge != nil {
			bridges.put(ev.Bridge.ID, ev.Bridge)
		}
		switch ev.Type {
		case "ChannelCreated":
			dialed := ""
			if ev.Channel.State == "Ring" {
				dialed = ev.Channel.Dialplan.Exten
			}
			asked[ev.Channel.ID] = details{Dialed: &dialed}
		case "ChannelDestroyed":
			channels.drop(ev.Channel.ID)
			delete(members, ev.Channel.ID)
		case "ChannelEnteredBridge":
			members[ev.Channel.ID] = ev.Bridge.ID
		case "ChannelLeftBridge":
			if members[ev.Channel.ID] == ev.Bridge.ID {
				delete(members, ev.Channel.ID)
			}
		case "BridgeDestroyed":
			bridges.drop(ev.Bridge.ID)
		case "ChannelHold", "ChannelUnhold":
			d := asked[ev.Channel.ID]
			d.Hold = map[string]string{"ChannelHold": "1", "ChannelUnhold": "0"}[ev.Type]
			asked[ev.Channel.ID] = d
		case "ChannelStateChange":
			if ev.Channel.State == "Up" {
				d := detailsAt(parseTime(ev.Channel.Created), parseTime(ev.Timestamp))
				d.Dialed = asked[ev.Channel.ID].Dialed
				asked[ev.Channel.ID] = d
			}
		}
	}
	var chs, brs []json.RawMessage
	for _, ch := range channels.values {
		chs = append(chs, marshal(ch))
	}
	for _, b := range bridges.values {
		row := *b
		row.Channels = nil
		for id, in := range members {
			if in == b.ID {
				row.Channels = append(row.Channels, id)
			}
		}
		slices.Sort(row.Channels)
		brs = append(brs, marshal(row))
	}
	at := r.time(n - 1)
	return &snapshot{channels: marshal(chs), bridges: marshal(brs), details: asked, at: at, received: at, marked: true}
}

func detailsAt(start, answer call.Time) details {
	seconds := func(t call.Time) string { return fmt.Sprintf("%d.%06d", t/call.Second, t%call.Second) }
	return details{Hold: "0", Start: seconds(start), Answer: seconds(answer)}
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if string(b) == "null" {
		return []byte("[]")
	}
	return b
}

// ordered keeps values in the order in which their keys came.
type ordered[V any] struct {
	keys   []string
	values []V
	gone   []string
}

func (o *ordered[V]) put(key string, v V) {
	if i := slices.Index(o.keys, key); i >= 0 {
		o.values[i] = v
	} else if !slices.Contains(o.gone, key) {
		o.keys, o.values = append(o.keys, key), append(o.values, v)
	}
}

func (o *ordered[V]) drop(key string) {
	if i := slices.Index(o.keys, key); i >= 0 {
		o.keys, o.values = slices.Delete(o.keys, i, i+1), slices.Delete(o.values, i, i+1)
	}
	o.gone = append(o.gone, key)
}

// stay is a caller who enters a queue by message i, or leaves it.
type stay struct {
	i                   int
	id, queue, position string
	since               call.Time
	over                bool
}

func (r *recording) noteStay(l trace.Line) {
	m := parseLines(l.Lines)
	if typ := m.get("Event"); typ == "QueueCallerJoin" || typ == "QueueCallerLeave" {
		r.joins = append(r.joins, stay{len(r.lines) - 1, m.get("Uniqueid"), m.get("Queue"), m.get("Position"), l.Received, typ == "QueueCallerLeave"})
	}
}

// queueStatus is what AMI would have answered after the first n messages, at the given time.
func (r *recording) queueStatus(n int, at call.Time) []trace.Line {
	waiting := ordered[stay]{}
	for _, s := range r.joins {
		if s.i < n && s.over {
			waiting.drop(s.id)
		} else if s.i < n {
			waiting.put(s.id, s)
		}
	}
	var out []trace.Line
	for _, w := range waiting.values {
		out = append(out, trace.Line{Source: trace.AMI, Received: at, Lines: []string{"Event: QueueEntry", "Queue: " + w.queue,
			"Position: " + w.position, "Uniqueid: " + w.id, fmt.Sprintf("Wait: %d", (at-w.since)/call.Second), "ActionID: 1"}})
	}
	return append(out, trace.Line{Source: trace.AMI, Received: at, Lines: strings.Split("Event: QueueStatusComplete|ActionID: 1|EventList: Complete", "|")})
}
