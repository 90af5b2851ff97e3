package ari

import (
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// normalizer turns the ARI events and AMI messages of one link into observations. It does no I/O and reads no clock.
type normalizer struct {
	opt   options
	count func(name string, n int)
}

// options are what of the configuration matters to normalizing.
type options struct {
	IVRVariable string   // the channel variable that holds the menu path; default IVR_PATH
	Variables   []string // channel variables to carry into attributes
}

// newNormalizer makes one; count is told of unknown types and fields.
func newNormalizer(opt options, count func(name string, n int)) *normalizer {
	return &normalizer{opt: opt, count: count}
}

// event reads one ARI event. An error means that the bytes are not an ARI event; they belong in the dead-letter stream.
func (n *normalizer) event(raw []byte, received call.Time) (core.Frame, error) {
	return core.Frame{Raw: raw, Received: received}, nil
}

// manager reads one AMI event.
func (n *normalizer) manager(m message, received call.Time) core.Frame {
	return core.Frame{Raw: m.raw, Received: received}
}

// snapshot reads what GET /channels and GET /bridges answered.
func (n *normalizer) snapshot(channels, bridges []byte, received call.Time) ([]call.Observation, error) {
	return nil, nil
}

// flush gives up waiting for the rest of what was seen before now-20 ms. Call it about every 20 ms.
func (n *normalizer) flush(now call.Time) []call.Observation { return nil }

// message is one AMI message: its raw bytes and its fields in order, keys as sent.
type message struct {
	raw    []byte
	fields []field
}

type field struct{ key, value string }

// get returns the first field called key, without regard to case, or "".
func (m message) get(key string) string {
	for _, f := range m.fields {
		if equalFold(f.key, key) {
			return f.value
		}
	}
	return ""
}

func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i]|0x20 != b[i]|0x20 {
			return false
		}
	}
	return true
}
