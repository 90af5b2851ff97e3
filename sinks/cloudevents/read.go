package cloudevents

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ctigate/ctigate/core/call"
)

// ReadCallState reads a message of the calls stream, in the binary or the structured content mode: the call as it stood,
// and the sequence number of the event that said so, for call.Tracker.Adopt. A tombstone gives nil. It takes some tens of
// microseconds: it is for a start without a disk, not for every event.
func ReadCallState(value []byte, headers []Header) (c *call.Call, seq uint64, err error) {
	data, sequence := value, ""
	for _, h := range headers {
		if h.Name == headerName("sequence") {
			sequence = string(h.Value)
		}
	}
	if sequence == "" && len(value) > 0 {
		data, sequence, err = openStructured(value)
	}
	if err == nil && len(data) > 0 {
		c, seq, err = readCall(data, sequence)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading the state of a call from %d bytes: %w", len(value), err)
	}
	return c, seq, nil
}

func openStructured(value []byte) (data []byte, sequence string, err error) {
	var m struct {
		Type     string          `json:"type"`
		Sequence string          `json:"sequence"`
		Data     json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(value, &m); err != nil {
		return nil, "", err
	}
	if m.Type != TypeCallState && m.Type != TypeCallExpired {
		return nil, "", fmt.Errorf("type %q, not %q: it is of another stream", m.Type, TypeCallState)
	}
	return m.Data, m.Sequence, nil
}

func readCall(data []byte, sequence string) (*call.Call, uint64, error) {
	seq, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("sequence %q is no number: %w", sequence, err)
	}
	c := new(call.Call)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, 0, err
	}
	if c.ID == "" || c.Switch.ID == "" {
		return nil, 0, errors.New("it names no call or no switch")
	}
	return c, seq, nil
}
