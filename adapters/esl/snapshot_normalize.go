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
	"variable_cc_cancel_reason", "variable_last_bridge_to", "variable_sip_req_user", "variable_sip_to_user",
	"Caller-Orig-Caller-ID-Number", "variable_conference_name", "variable_conference_uuid", "variable_current_application",
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
	n.snapshotAgents(s.Agents)
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
	if touched[id] == nil { // of others the events decide, in their order
		l.row = number(e.raw("Event-Sequence"))
	}
	state := n.history(e, id, l, touched)
	if e.get("variable_cc_side") == "member" {
		n.snapshotQueue(e, id)
	}
	n.emit(call.SnapshotLeg, id, func(o *call.Observation) {
		o.Value = state
		o.Bridge, o.Conference, o.Unseen = touched.place(e, id, pairs[id])
		if neverBridged(e) {
			o.Reason = call.NeverBridged
		}
	})
}

// neverBridged reports whether a channel has never talked to another. A transfer sets the time of its bridging back.
func neverBridged(e *event) bool {
	return string(e.raw("Caller-Channel-Bridged-Time")) == "0" && e.raw("variable_last_bridge_to") == nil &&
		e.raw("variable_conference_name") == nil && e.get("variable_current_application") != "conference"
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
	switch held, first := e.get("Channel-Call-State") == "HELD", touched.hold(id); {
	case held && first != call.LegHeld: // as it was before, even if it has ended since
		since := e.micros("Caller-Channel-Last-Hold")
		l.asked = n.at-since < call.Second
		at("Caller-Channel-Last-Hold", call.LegHeld)
		return string(call.Held)
	case !held && first != call.LegRetrieved, first == call.LegHeld:
		return string(call.Connected)
	}
	return "up"
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
// named, or when it moved while the snapshot was taken.
func (t touches) place(e *event, id, pair string) (bridge, room string, unknown bool) {
	if x := t[id]; x != nil && x.left != nil {
		return x.left.Bridge, x.left.Conference, false
	}
	if t.by(id, call.LegBridged) {
		return "", "", true
	}
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

// keep spares the channels that events speak of, or that went away while they were asked for: their events tell. They are
// only of interest if they are known: of others it is over.
func (n *normalizer) keep(s *snapshot) {
	all := maps.Clone(s.touched)
	if all == nil {
		all = touches{}
	}
	for _, id := range s.gone {
		if all[id] == nil {
			all[id] = &touch{}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		begun := s.touched.by(id, call.LegCreated)
		if s.dumps[id] != nil && !begun {
			continue
		}
		x := all[id]
		n.out = append(n.out, x.history...)
		n.emit(call.SnapshotKept, id, func(o *call.Observation) {
			if x.left != nil {
				o.Bridge, o.Conference = x.left.Bridge, x.left.Conference
			}
		})
		if !begun && n.legs[id] == nil && len(n.legs) < maxLegs {
			n.legs[id] = &legState{created: true, ghost: true, inbound: x.inbound, vars: make([]string, len(n.opt.Variables)+1)}
		}
	}
}

// touches is what the events that came while a snapshot was taken tell of each leg.
type touches map[string]*touch

type touch struct {
	kinds   uint64             // of the observations
	hold    call.Kind          // the first that tells of a hold: LegHeld or LegRetrieved
	left    *call.Observation  // the first that tells of a bridge, when it says that the leg left it
	history []call.Observation // what had happened before, by the first event
	inbound bool
}

// touchedBy reads the waiting events with a normalizer of their own.
func touchedBy(opt options, window []arrival) touches {
	n, t := newNormalizer(opt, func(string, int) {}), touches{}
	for _, a := range window {
		if a.dead != "" {
			continue
		}
		if f, err := n.event(a.body, a.json, a.received); err == nil {
			t.add(f.Observations)
		}
	}
	return t
}

func (t touches) add(observed []call.Observation) {
	for i := range observed {
		o := &observed[i]
		if o.Leg == "" {
			continue
		}
		x := t[o.Leg]
		if x == nil {
			x = &touch{}
			t[o.Leg] = x
		}
		switch {
		case o.Kind == call.LegCreated && o.Unseen:
			x.inbound = o.Inbound
		case o.Synthetic:
			x.history = append(x.history, *o)
		default:
			x.note(o)
		}
	}
}

func (x *touch) note(o *call.Observation) {
	if o.Kind == call.LegUnbridged && x.kinds&(1<<call.LegBridged|1<<call.LegUnbridged) == 0 {
		x.left = o
	}
	if x.hold == 0 && (o.Kind == call.LegHeld || o.Kind == call.LegRetrieved) {
		x.hold = o.Kind
	}
	x.kinds |= 1 << o.Kind
}

// hold is what tells first of a hold of leg; 0 when nothing does.
func (t touches) hold(leg string) call.Kind {
	if t[leg] == nil {
		return 0
	}
	return t[leg].hold
}

// by reports whether one of kinds was observed of leg.
func (t touches) by(leg string, kinds ...call.Kind) bool {
	x := t[leg]
	return x != nil && slices.ContainsFunc(kinds, func(k call.Kind) bool { return x.kinds&(1<<k) != 0 })
}
