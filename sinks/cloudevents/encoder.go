package cloudevents

import (
	"encoding/base64"
	"unicode/utf8"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// maxCached bounds the encoder's small tables; switches and event types are few.
const maxCached = 1024

// Header is one Kafka message header.
type Header struct {
	Name  string
	Value []byte
}

// Encoder encodes items. It remembers the last call it encoded, because one event goes to several streams. The zero
// value is ready; an Encoder is for one goroutine. Reset it after each batch so that it does not keep a call alive.
type Encoder struct {
	call     *call.Call
	callJSON []byte
	room     []byte // the last item's header values
	sources  map[string]string
	types    map[call.EventType]string
}

// Reset forgets the last call.
func (e *Encoder) Reset() { e.call = nil }

// encodedCall returns c as JSON, valid until the next call of a different c.
func (e *Encoder) encodedCall(c *call.Call) []byte {
	if c == nil {
		return nil
	}
	if e.call != c {
		e.callJSON = AppendCall(e.callJSON[:0], c)
		e.call = c
	}
	return e.callJSON
}

// ID is the item's CloudEvents id: the same for the same item on every run, and no two items on one topic share one. Native
// bytes, which have no id of their own, get a digest of the stream, the switch, the time of receipt and the bytes.
func (e *Encoder) ID(it *core.Item) (string, error) {
	a, err := e.attributesOf(it)
	return a.id, err
}

// AppendData appends the item's data alone: the event as JSON, the call's row on the records and calls streams, the
// native bytes of a dead letter, nothing for a tombstone.
func (e *Encoder) AppendData(dst []byte, it *core.Item) ([]byte, error) {
	if _, err := e.attributesOf(it); err != nil {
		return dst, err
	}
	return e.appendData(dst, it), nil
}

func (e *Encoder) appendData(dst []byte, it *core.Item) []byte {
	switch {
	case it.Event == nil && it.Dead == nil:
		return dst
	case it.Event == nil:
		return append(dst, it.Dead.Raw...)
	case isRow(it):
		return append(dst, e.encodedCall(it.Event.Call)...)
	}
	return appendEvent(dst, it.Event, e.encodedCall(it.Event.Call))
}

// AppendBinary appends the item's data to dst and returns it with the headers of the binary content mode, appended to
// headers: ce_* and content-type, and for dead letters also reason, switch and received. The header values are valid until
// the next call. A tombstone has neither: the returned slices are as given.
func (e *Encoder) AppendBinary(dst []byte, headers []Header, it *core.Item) ([]byte, []Header, error) {
	a, err := e.attributesOf(it)
	if err != nil {
		return dst, headers, err
	}
	if Tombstone(it) {
		return dst, headers, nil
	}
	return e.appendData(dst, it), e.appendHeaders(headers, &a), nil
}

// Tombstone reports whether the item deletes its key: its value is null.
func Tombstone(it *core.Item) bool {
	return it.Stream == core.StreamCalls && it.Event == nil && it.Dead == nil
}

// appendHeaders keeps the values in one buffer. When that grows, earlier values stay where they were.
func (e *Encoder) appendHeaders(headers []Header, a *attributes) []Header {
	room := e.room[:0]
	a.each(func(name string, val []byte) {
		start := len(room)
		room = append(room, val...)
		headers = append(headers, Header{Name: headerName(name), Value: room[start:len(room):len(room)]})
	})
	if a.typ == TypeDeadLetter && a.time != 0 {
		headers = append(headers, Header{"received", appendTime(nil, a.time)})
	}
	e.room = room
	return headers
}

// headerName follows the Kafka protocol binding (3.2.3); a dead letter's reason and switch keep their plain names.
func headerName(attribute string) string {
	switch attribute {
	case "specversion":
		return "ce_specversion"
	case "id":
		return "ce_id"
	case "source":
		return "ce_source"
	case "type":
		return "ce_type"
	case "subject":
		return "ce_subject"
	case "time":
		return "ce_time"
	case "datacontenttype":
		return "content-type"
	case "dataschema":
		return "ce_dataschema"
	case "sequence":
		return "ce_sequence"
	case "recordedtime":
		return "ce_recordedtime"
	case "partitionkey":
		return "ce_partitionkey"
	}
	return attribute // traceparent (W3C), reason, switch
}

// AppendStructured appends the item as one JSON object on one line, without a newline. Attributes come first and in a
// fixed order. Native bytes are a JSON string where they are UTF-8, data_base64 where they are not.
func (e *Encoder) AppendStructured(dst []byte, it *core.Item) ([]byte, error) {
	a, err := e.attributesOf(it)
	if err != nil {
		return dst, err
	}
	b := buf(dst)
	b.open('{')
	a.each(func(name string, val []byte) {
		b.key(name)
		b = appendString(b, string(val))
	})
	switch {
	case Tombstone(it):
	case it.Event != nil:
		b.key("data")
		b = e.appendData(b, it)
	case utf8.Valid(it.Dead.Raw):
		b.str("data", string(it.Dead.Raw))
	default:
		b.key("data_base64")
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, it.Dead.Raw)
		b = append(b, '"')
	}
	b.close('}')
	return b, nil
}

// Binary is the item in the binary content mode: key, value (nil for a tombstone) and headers.
func Binary(it core.Item) (key, value []byte, headers []Header, err error) {
	var e Encoder
	value, headers, err = e.AppendBinary(nil, nil, &it)
	if it.Key != "" {
		key = []byte(it.Key)
	}
	return key, value, headers, err
}

// Structured is the item as one JSON object, without a newline.
func Structured(it core.Item) ([]byte, error) {
	var e Encoder
	return e.AppendStructured(nil, &it)
}

// Data is the item's data alone, as AppendData gives it.
func Data(it core.Item) ([]byte, error) {
	var e Encoder
	return e.AppendData(nil, &it)
}
