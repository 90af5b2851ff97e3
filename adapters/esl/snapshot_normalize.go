package esl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// snapshot reads what `uuid_dump UUID json` answered for every channel, by uuid, and the answer to `show calls as
// json`. A dump that cannot be read is an error that names it.
func (n *normalizer) snapshot(dumps map[string][]byte, calls []byte, received call.Time) ([]call.Observation, error) {
	events := make([]*event, 0, len(dumps))
	for uuid, body := range dumps {
		e, err := n.headers.parse(body, true, func(string) bool { return true })
		if err != nil {
			return nil, fmt.Errorf("reading uuid_dump %s: %w", uuid, err)
		}
		events = append(events, &e)
	}
	slices.SortFunc(events, func(a, b *event) int {
		return cmp.Or(cmp.Compare(a.micros("Caller-Channel-Created-Time"), b.micros("Caller-Channel-Created-Time")),
			cmp.Compare(a.get("Call-Direction"), b.get("Call-Direction")), // inbound before outbound
			cmp.Compare(a.get("Unique-ID"), b.get("Unique-ID")))
	})
	n.out, n.native, n.at, n.received = nil, call.Native{Type: "snapshot"}, received, received
	for _, e := range events {
		n.snapshotLeg(e)
	}
	if err := n.snapshotPairs(calls); err != nil {
		return nil, err
	}
	n.emit(call.SnapshotEnd, "")
	for i := range n.out {
		o := &n.out[i]
		o.Synthetic = true
		o.Native.ID = fmt.Sprintf("snapshot:%s:%d:%s", o.Leg, o.Kind, received)
	}
	return n.out, nil
}

// snapshotLeg reports one channel: its beginning, and what has happened to it since, at the times the switch kept.
func (n *normalizer) snapshotLeg(e *event) {
	id := e.get("Unique-ID")
	if id == "" {
		return
	}
	l := n.see(e, "snapshot")
	if l == nil {
		return
	}
	at := func(header string, kind call.Kind) {
		if t := e.micros(header); t != 0 {
			n.emit(kind, id, func(o *call.Observation) { o.At = t })
		}
	}
	if !l.inbound {
		at("Caller-Channel-Progress-Time", call.LegAlerting)
	}
	at("Caller-Channel-Answered-Time", call.LegConnected)
	held := e.get("Channel-Call-State") == "HELD"
	if held {
		at("Caller-Channel-Last-Hold", call.LegHeld)
	}
	n.emit(call.SnapshotLeg, id, func(o *call.Observation) {
		switch {
		case held:
			o.Value = string(call.Held)
		case e.micros("Caller-Channel-Answered-Time") != 0:
			o.Value = string(call.Connected)
		default:
			o.Value = string(call.Initiated)
		}
	})
}

// snapshotPairs reports who talks to whom.
func (n *normalizer) snapshotPairs(calls []byte) error {
	if len(calls) == 0 {
		return nil
	}
	var answer struct {
		Rows []struct {
			A string `json:"uuid"`
			B string `json:"b_uuid"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(calls, &answer); err != nil {
		return fmt.Errorf("reading the answer to show calls as json: %w", err)
	}
	for _, r := range answer.Rows {
		if r.A == "" || r.B == "" {
			continue
		}
		for _, leg := range [...]string{r.A, r.B} {
			n.emit(call.LegBridged, leg, func(o *call.Observation) { o.Bridge = r.A + "+" + r.B })
		}
	}
	return nil
}
