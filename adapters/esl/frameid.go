package esl

import (
	"cmp"

	"github.com/cespare/xxhash/v2"
)

// Where the headers that name an event stand among the known ones.
const (
	coreIndex     = 2
	sequenceIndex = 4
)

// eventID is core.Frame's ID of e, whose bytes are body and whose name is name: XXH64 over Core-UUID, Event-Sequence and
// Event-Name, which every reader of a switch is told alike, in either format. 0 when the event has no sequence; otherwise
// never 0.
func eventID(e *event, body []byte, name string) uint64 {
	core, seq := e.vals[coreIndex], e.vals[sequenceIndex]
	if len(seq) == 0 { // nobody wanted more than its name
		core, seq = headerOf(body, e.json, "Core-UUID"), headerOf(body, e.json, "Event-Sequence")
	}
	if len(seq) == 0 {
		return 0
	}
	var buf [128]byte
	b := append(buf[:0], core...)
	b = append(append(b, 0), seq...)
	b = append(append(b, 0), name...)
	return cmp.Or(xxhash.Sum64(b), 1)
}
