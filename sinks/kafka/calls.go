package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

const (
	endedFor    = time.Hour // how long after its end a call is still told of: so late may a switch speak of it
	statesBytes = 512 << 20 // of states kept while the topic is read
)

// errStates says that the calls topic holds more than fits.
var errStates = errors.New("more states of calls in progress than fit into memory")

// Calls reads the calls topic from its beginning to its present end, and tells of the last state of each call that is in
// progress or has ended within the last hour before the newest. What cannot be decoded is counted in the error, which is
// then permanent, and nil only if everything was read and told.
func (s *Sink) Calls(ctx context.Context, tell func(c *call.Call, seq uint64, at call.Time)) error {
	return s.alone(ctx, "reading the calls in progress from kafka", func(ctx context.Context) error { return s.calls(ctx, tell) })
}

func (s *Sink) calls(ctx context.Context, tell func(c *call.Call, seq uint64, at call.Time)) error {
	on := s.cfg.topicOf(core.StreamCalls, "")
	if err := s.cl.refresh(ctx, s.cfg.topics()); err != nil {
		return err
	}
	n, err := s.cl.partitions(ctx, on)
	if err != nil {
		return err
	}
	lasts, from := make([]*lastStates, n), make(map[target]int64, n)
	for i := range n {
		from[target{on.name, int32(i)}] = offsetFirst
		lasts[i] = &lastStates{states: map[string]lastState{}, room: statesBytes / n}
	}
	spans, err := s.cl.spans(ctx, from, func(to target) func(logRecord) error { return lasts[to.partition].see })
	if err != nil {
		return err
	}
	if err := s.cl.scan(ctx, spans); err != nil {
		return err
	}
	return tellAll(lasts, tell)
}

// lastStates are those of the calls of one partition.
type lastStates struct {
	states map[string]lastState // by key
	room   int                  // bytes
	newest int64                // Unix milliseconds
}

type lastState struct {
	record logRecord
	ended  bool
}

var isEnded = []byte(`"state":"ended"`)

// see notes a record. Of a call that has ended only what may still matter is kept.
func (l *lastStates) see(r logRecord) error {
	key := string(r.key)
	l.room += l.states[key].size()
	delete(l.states, key)
	l.newest = max(l.newest, r.time)
	x := lastState{record: r, ended: bytes.Contains(r.value, isEnded)}
	if r.value == nil || x.over(l.newest) {
		return nil
	}
	x.record.key, x.record.value, x.record.headers = nil, bytes.Clone(r.value), bytes.Clone(r.headers)
	if l.room -= x.size(); l.room < 0 {
		return core.Permanent(errStates)
	}
	l.states[key] = x
	return nil
}

// over reports whether the call had ended long before newest.
func (x lastState) over(newest int64) bool {
	return x.ended && newest-x.record.time > endedFor.Milliseconds()
}

func (x lastState) size() int { return len(x.record.value) + len(x.record.headers) }

func tellAll(lasts []*lastStates, tell func(c *call.Call, seq uint64, at call.Time)) error {
	newest, bad, why := int64(0), 0, error(nil)
	for _, l := range lasts {
		newest = max(newest, l.newest)
	}
	for _, l := range lasts {
		for _, x := range l.states {
			if x.over(newest) {
				continue
			}
			c, seq, err := cloudevents.ReadCallState(x.record.value, x.record.all())
			if err != nil {
				bad, why = bad+1, err
			} else if c != nil {
				tell(c, seq, call.Time(x.record.time*1000))
			}
		}
	}
	if bad > 0 {
		return core.Permanent(fmt.Errorf("%d states are not readable, the last: %w", bad, why))
	}
	return nil
}

// all decodes the headers.
func (r *logRecord) all() (headers []cloudevents.Header) {
	for k, v := range r.eachHeader {
		headers = append(headers, cloudevents.Header{Name: string(k), Value: v})
	}
	return headers
}
