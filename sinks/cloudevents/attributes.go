package cloudevents

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Types of what is not a call.Event, and where the data's schemas are named.
const (
	TypeCallState   = "cti.call.state.v1"   // calls stream: a call as it stands
	TypeCallExpired = "cti.call.expired.v1" // calls stream: a tombstone, in structured mode
	TypeDeadLetter  = "cti.deadletter.v1"
	TypeRaw         = "cti.raw.v1"

	SchemaEvent = "urn:ctigate:schema:event:v1" // data is call.Event
	SchemaCall  = "urn:ctigate:schema:call:v1"  // data is call.Call: records and calls

	contentJSON  = "application/json"
	contentText  = "text/plain; charset=utf-8"
	contentBytes = "application/octet-stream"
)

// attributes are the context attributes of one item, in the order they are written. Empty ones are left out.
type attributes struct {
	id, source, typ, subject  string
	time, recorded            call.Time
	contentType, schema       string
	sequence                  uint64
	partitionKey, traceparent string
	reason, switchID          string // of dead letters
}

// each calls f for every attribute that is set. val is only valid during the call.
func (a *attributes) each(f func(name string, val []byte)) {
	var room [64]byte
	str := func(name, v string) {
		if v != "" {
			f(name, append(room[:0], v...))
		}
	}
	str("specversion", "1.0")
	str("id", a.id)
	str("source", a.source)
	str("type", a.typ)
	str("subject", a.subject)
	if a.time != 0 {
		f("time", appendTime(room[:0], a.time))
	}
	str("datacontenttype", a.contentType)
	str("dataschema", a.schema)
	if a.sequence != 0 {
		f("sequence", appendSequence(room[:0], a.sequence))
	}
	if a.recorded != 0 {
		f("recordedtime", appendTime(room[:0], a.recorded))
	}
	str("partitionkey", a.partitionKey)
	str("traceparent", a.traceparent)
	str("reason", a.reason)
	str("switch", a.switchID)
}

// appendSequence pads to twenty digits, so that sequences compare as strings too.
func appendSequence(b []byte, n uint64) []byte {
	const zeros = "00000000000000000000"
	var room [20]byte
	digits := strconv.AppendUint(room[:0], n, 10)
	b = append(b, zeros[len(digits):]...)
	return append(b, digits...)
}

// ErrInvalid is wrapped by the errors of items that break the contract of core.Item.
var ErrInvalid = errors.New("item cannot be encoded")

// attributesOf derives the attributes, or says what is wrong with the item.
func (e *Encoder) attributesOf(it *core.Item) (attributes, error) {
	switch {
	case it.Event != nil:
		return e.eventAttributes(it)
	case it.Dead != nil:
		return e.deadAttributes(it), nil
	case it.Stream == core.StreamCalls:
		return e.tombstoneAttributes(it), nil
	}
	return attributes{}, fmt.Errorf("%w: stream %q, key %q: neither an event nor a dead letter", ErrInvalid, it.Stream, it.Key)
}

func (e *Encoder) eventAttributes(it *core.Item) (attributes, error) {
	ev := it.Event
	a := attributes{
		id: ev.ID, source: e.source(ev.Switch.ID), typ: e.cloudType(ev.Type), subject: subject(ev),
		time: ev.Time.Switch, recorded: ev.Time.Received, contentType: contentJSON, schema: SchemaEvent,
		sequence: ev.Seq, partitionKey: it.Key, traceparent: e.traceparent(ev.InteractionID, ev.CallID),
	}
	if a.time == 0 {
		a.time = ev.Time.Received
	}
	if !isRow(it) {
		return a, nil
	}
	if ev.Call == nil {
		return a, fmt.Errorf("%w: stream %q, event %s: it carries no call", ErrInvalid, it.Stream, ev.ID)
	}
	a.schema = SchemaCall
	if it.Stream == core.StreamCalls {
		// The same event is on the events stream under its own id; this is another message about it.
		a.id, a.typ = ev.ID+"-state", TypeCallState
	}
	return a, nil
}

// isRow reports whether the item's data is the call alone.
func isRow(it *core.Item) bool {
	return it.Stream == core.StreamCalls || it.Event.Type == call.CallRecord
}

func (e *Encoder) tombstoneAttributes(it *core.Item) attributes {
	return attributes{
		id: it.Key + "-expired", source: e.source(it.Switch.ID), typ: TypeCallExpired, subject: it.Key, partitionKey: it.Key,
	}
}

func (e *Encoder) deadAttributes(it *core.Item) attributes {
	d := it.Dead
	a := attributes{
		id: deadID(it), source: e.source(it.Switch.ID), typ: TypeDeadLetter, subject: it.Switch.ID,
		time: d.Received, contentType: contentBytes, recorded: d.Received, partitionKey: it.Key,
		reason: d.Reason, switchID: it.Switch.ID,
	}
	if it.Stream == core.StreamRaw {
		a.typ = TypeRaw
	}
	if utf8.Valid(d.Raw) {
		a.contentType = contentText
	}
	return a
}

// deadID is a digest, for native bytes have no id of their own.
func deadID(it *core.Item) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%d\x00", it.Stream, it.Switch.ID, it.Dead.Received)
	h.Write(it.Dead.Raw)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// subject is the call; where there is none, the agent or the switch.
func subject(ev *call.Event) string {
	switch {
	case ev.CallID != "":
		return ev.CallID
	case ev.Agent != nil && ev.Agent.ID != "":
		return ev.Agent.ID
	}
	return ev.Switch.ID
}

// source is the URI-reference of a switch link.
func (e *Encoder) source(switchID string) string {
	if s, ok := e.sources[switchID]; ok {
		return s
	}
	s := "/ctigate/switch/" + url.PathEscape(switchID)
	if e.sources == nil || len(e.sources) >= maxCached {
		e.sources = make(map[string]string)
	}
	e.sources[switchID] = s
	return s
}

func (e *Encoder) cloudType(t call.EventType) string {
	if s, ok := e.types[t]; ok {
		return s
	}
	if e.types == nil || len(e.types) >= maxCached {
		e.types = make(map[call.EventType]string)
	}
	s := t.CloudType()
	e.types[t] = s
	return s
}

// traceparent is the W3C Trace Context header, sampled, naming the call's own span as the parent; events outside a call have none.
func (e *Encoder) traceparent(interactionID, callID string) string {
	if interactionID == "" {
		return ""
	}
	trace, span := call.TraceID(interactionID), call.SpanID(callID, "")
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, trace[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, span[:])
	return string(append(b, "-01"...))
}
