package esl

import (
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// normalizer turns the events of one event-socket link into observations. It does no I/O and reads no clock.
type normalizer struct {
	opt   options
	count func(name string, n int)
}

// options are what of the configuration matters to normalizing.
type options struct {
	IVRVariable string   // the channel variable that holds the menu path; default ivr_path
	Variables   []string // channel variables (without variable_) and SIP headers (sip_h_X-…) to carry into attributes
}

// newNormalizer makes one; count is told of unknown types.
func newNormalizer(opt options, count func(name string, n int)) *normalizer {
	return &normalizer{opt: opt, count: count}
}

// event reads one event body: JSON when json is true, else plain. An error means that the bytes are not an event; they
// belong in the dead-letter stream.
func (n *normalizer) event(body []byte, json bool, received call.Time) (core.Frame, error) {
	return core.Frame{Raw: body, Received: received}, nil
}

// snapshot reads what `uuid_dump UUID json` answered for every channel, by uuid, and the answer to `show calls as json`.
func (n *normalizer) snapshot(dumps map[string][]byte, calls []byte, received call.Time) ([]call.Observation, error) {
	return nil, nil
}

// meta reads the few headers the session itself needs from an event body, without building observations.
type meta struct {
	Name      string    // Event-Name
	Sequence  uint64    // Event-Sequence
	At        call.Time // Event-Date-Timestamp
	Core      string    // Core-UUID
	JobUUID   string    // Job-UUID of BACKGROUND_JOB
	Subclass  string    // Event-Subclass
	UpSince   string
	Processed bool
}
