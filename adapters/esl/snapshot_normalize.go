package esl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// rowHeaders are the headers that only a snapshot's rows are asked for.
var rowHeaders = []string{
	"Caller-Channel-Bridged-Time", "variable_cc_side", "variable_cc_queue", "variable_cc_queue_joined_epoch",
	"variable_cc_queue_answered_epoch", "variable_cc_queue_canceled_epoch", "variable_cc_queue_terminated_epoch",
	"variable_cc_cancel_reason", "variable_conference_name", "variable_conference_uuid", "variable_current_application",
}

// snapshot reads what `uuid_dump UUID json` answered for every channel, by uuid, and the answer to `show calls as
// json`. A dump that cannot be read is an error that names it. What the events that came meanwhile tell of a leg is left
// to them.
func (n *normalizer) snapshot(s *snapshot) ([]call.Observation, error) {
	rows, err := n.rows(s.dumps)
	if err != nil {
		return nil, err
	}
	pairs, err := pairsOf([]byte(s.Calls))
	if err != nil {
		return nil, err
	}
	n.out, n.native, n.at, n.received = nil, call.Native{Type: "snapshot"}, cmp.Or(s.at, s.received), s.received
	order := "time"
	for _, e := range rows {
		if e.raw("Event-Sequence") != nil {
			order = "sequence"
		}
		if !s.touched.by(e.get("Unique-ID"), call.LegCreated) {
			n.snapshotLeg(e, pairs, s.touched)
		}
	}
	n.keep(s)
	if s.marked {
		order = "event"
	}
	n.emit(call.SnapshotEnd, "", func(o *call.Observation) { o.Value = order })
	for i := range n.out {
		o := &n.out[i]
		o.Synthetic = true
		o.Native.ID = fmt.Sprintf("snapshot:%s:%d:%s", o.Leg, o.Kind, s.received)
	}
	return n.out, nil
}

// rows reads the dumps, the oldest channel first, and of two of one age the inbound one.
func (n *normalizer) rows(dumps map[string][]byte) ([]*event, error) {
	set := newHeaderSet(slices.Concat(n.watched, rowHeaders)...)
	rows := make([]*event, 0, len(dumps))
	for uuid, body := range dumps {
		e, err := set.parse(body, true, func(string) bool { return true })
		if err != nil {
			return nil, fmt.Errorf("reading uuid_dump %s: %w", uuid, err)
		}
		rows = append(rows, &e)
	}
	slices.SortFunc(rows, func(a, b *event) int {
		return cmp.Or(cmp.Compare(a.micros("Caller-Channel-Created-Time"), b.micros("Caller-Channel-Created-Time")),
			cmp.Compare(a.get("Call-Direction"), b.get("Call-Direction")),
			cmp.Compare(a.get("Unique-ID"), b.get("Unique-ID")))
	})
	return rows, nil
}

// snapshotLeg reports one channel: its beginning, and what has happened to it since, at the times the switch kept.
func (n *normalizer) snapshotLeg(e *event, pairs map[string]string, touched touches) {
	id := e.get("Unique-ID")
	if id == "" {
		return
	}
	l := n.see(e, "snapshot")
	if l == nil {
		return
	}
	l.row = number(e.raw("Event-Sequence"))
	state := n.history(e, id, l, touched)
	if e.get("variable_cc_side") == "member" {
		n.snapshotQueue(e, id)
	}
	n.emit(call.SnapshotLeg, id, func(o *call.Observation) {
		o.Value = state
		o.Bridge, o.Conference, o.Unseen = place(e, pairs[id])
		if touched.by(id, call.LegBridged, call.LegUnbridged) {
			o.Bridge, o.Conference, o.Unseen = "", "", true
		}
		if string(e.raw("Caller-Channel-Bridged-Time")) == "0" && e.raw("variable_conference_name") == nil && e.get("variable_current_application") != "conference" {
			o.Reason = call.NeverBridged
		}
	})
}

// history reports what e says has happened to its channel, at the times the switch kept, but for what other events tell.
// It returns the channel's state, for call.SnapshotLeg.
func (n *normalizer) history(e *event, id string, l *legState, touched touches) string {
	at := func(header string, kind call.Kind) bool {
		t := e.micros(header)
		if t == 0 || touched.by(id, kind) {
			return false
		}
		n.emit(kind, id, func(o *call.Observation) { o.At, o.Synthetic = t, true })
		return true
	}
	if !l.inbound {
		at("Caller-Channel-Progress-Time", call.LegAlerting)
	}
	if !at("Caller-Channel-Answered-Time", call.LegConnected) {
		return string(call.Initiated)
	}
	switch {
	case touched.by(id, call.LegHeld, call.LegRetrieved):
		return "up"
	case e.get("Channel-Call-State") != "HELD":
		return string(call.Connected)
	}
	at("Caller-Channel-Last-Hold", call.LegHeld)
	return string(call.Held)
}

// snapshotQueue reports the stay in a queue of mod_callcenter that a caller's variables tell of: times to the second.
func (n *normalizer) snapshotQueue(e *event, id string) {
	joined := n.epoch(e, "variable_cc_queue_joined_epoch")
	if joined == 0 {
		return
	}
	stay := func(kind call.Kind, at call.Time, result string) {
		n.emit(kind, id, func(o *call.Observation) {
			o.At, o.Queue, o.Value, o.Synthetic = at, queueName(e.get("variable_cc_queue")), result, true
		})
	}
	stay(call.QueueEnter, joined, "")
	if at := cmp.Or(n.epoch(e, "variable_cc_queue_answered_epoch"), n.epoch(e, "variable_cc_queue_terminated_epoch")); at >= joined {
		stay(call.QueueLeave, at, "answered")
	} else if at := n.epoch(e, "variable_cc_queue_canceled_epoch"); at >= joined {
		stay(call.QueueLeave, at, canceled(e.get("variable_cc_cancel_reason")))
	}
}

// epoch reads a header of seconds since the epoch.
func (n *normalizer) epoch(e *event, header string) call.Time { return e.micros(header) * call.Second }

// place is where a channel is: with another one, in a conference, or nowhere; unknown when in a conference that is not
// named.
func place(e *event, pair string) (bridge, room string, unknown bool) {
	if e.get("variable_current_application") != "conference" {
		return pair, "", false
	}
	bridge, room = e.get("variable_conference_uuid"), e.get("variable_conference_name")
	return bridge, room, bridge == ""
}

// pairsOf reads who talks to whom: FreeSWITCH names a bridge by its two ends.
func pairsOf(calls []byte) (map[string]string, error) {
	if len(calls) == 0 {
		return nil, nil
	}
	var answer struct {
		Rows []struct {
			A string `json:"uuid"`
			B string `json:"b_uuid"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(calls, &answer); err != nil {
		return nil, fmt.Errorf("reading the answer to show calls as json: %w", err)
	}
	pairs := map[string]string{}
	for _, r := range answer.Rows {
		if r.A != "" && r.B != "" {
			pairs[r.A], pairs[r.B] = r.A+"+"+r.B, r.A+"+"+r.B
		}
	}
	return pairs, nil
}

// keep spares the channels that events speak of, or that went away while they were asked for: their events tell.
func (n *normalizer) keep(s *snapshot) {
	all := maps.Clone(s.touched)
	if all == nil {
		all = touches{}
	}
	for _, id := range s.gone {
		all[id] |= 0
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if s.dumps[id] == nil || s.touched.by(id, call.LegCreated) {
			n.emit(call.SnapshotKept, id)
		}
	}
}

// touches says which kinds of observations the events that came while a snapshot was taken hold of each leg.
type touches map[string]uint64

// touchedBy reads the waiting events with a normalizer of their own.
func touchedBy(opt options, window []arrival) touches {
	n, t := newNormalizer(opt, func(string, int) {}), touches{}
	for _, a := range window {
		f, err := n.event(a.body, a.json, a.received)
		if a.dead != "" || err != nil {
			continue
		}
		for _, o := range f.Observations {
			switch {
			case o.Leg == "":
			case o.Synthetic, o.Kind == call.LegCreated && o.Unseen:
				t[o.Leg] |= 0 // something is said of it
			default:
				t[o.Leg] |= 1 << o.Kind
			}
		}
	}
	return t
}

// by reports whether one of kinds was observed of leg.
func (t touches) by(leg string, kinds ...call.Kind) bool {
	for _, k := range kinds {
		if t[leg]&(1<<k) != 0 {
			return true
		}
	}
	return false
}
