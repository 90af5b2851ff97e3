package oracle

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Message is one Kafka message in the binary content mode of CloudEvents.
type Message struct {
	Stream    string // topic without prefix and version: events, calls, records …
	Partition int32
	Offset    int64
	Key       string
	ID        string    // ce_id; empty on tombstones
	Type      string    // ce_type without "cti." and ".v1"
	Seq       uint64    // ce_sequence, 0 where there is none
	Value     []byte    // nil on tombstones
	Writer    string    // who wrote it, such as producer id and epoch; empty when the batch does not tell
	Appended  time.Time // by the broker's clock; zero where it does not tell
}

// At is where the message stands.
func (m *Message) At() string { return fmt.Sprintf("%s/%d/%d", m.Stream, m.Partition, m.Offset) }

// String is one line about it, with the beginning of its payload.
func (m *Message) String() string {
	v := m.Value
	if len(v) > 300 {
		v = v[:300]
	}
	return fmt.Sprintf("%s id=%s type=%s seq=%d key=%s writer=%s %s", m.At(), m.ID, m.Type, m.Seq, m.Key, m.Writer, v)
}

// subject is the call that the message is about, empty where it tells of none.
func (m *Message) subject() string {
	if m.Stream == "calls" {
		return m.Key
	}
	if e, err := m.decode(); err == nil && e != nil {
		return e.CallID
	}
	return ""
}

// event is a message of the events, stale, media or sources stream, or of records, understood.
type event struct {
	*call.Event
	m *Message
}

// fact is what an event says, whoever says it and in whatever order: two gateways that see one Asterisk may learn of it
// by ARI or by AMI first.
func (e event) fact() string { return Fact(e.Event) }

// Fact names what e says happened: its type, call and connection, and what tells it apart from others of that type.
func Fact(e *call.Event) string {
	parts := []string{string(e.Type), e.Switch.ID, e.CallID, e.ConnectionID}
	if e.DTMF != nil {
		parts = append(parts, e.DTMF.Digit)
	}
	if e.Agent != nil {
		parts = append(parts, e.Agent.ID, e.Agent.State, e.Agent.Queue)
	}
	if e.Queue != nil {
		parts = append(parts, e.Queue.ID, e.Queue.Result)
	}
	return strings.Join(append(parts, e.IVRPath), "|")
}

// decode reads the message's payload. It returns nil for messages that are no event of a call or source.
func (m *Message) decode() (*event, error) {
	e := &call.Event{ID: m.ID, Type: call.EventType(m.Type)}
	switch m.Stream {
	case "events", "stale", "media", "sources":
		if err := json.Unmarshal(m.Value, e); err != nil {
			return nil, err
		}
	case "records":
		e.Call, e.Seq = &call.Call{}, m.Seq
		if err := json.Unmarshal(m.Value, e.Call); err != nil {
			return nil, err
		}
		e.CallID, e.InteractionID, e.Switch = e.Call.ID, e.Call.InteractionID, e.Call.Switch
	default:
		return nil, nil
	}
	return &event{e, m}, nil
}
