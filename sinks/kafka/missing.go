package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	kafkago "github.com/segmentio/kafka-go"
)

// timeSlack is how far before the oldest item of a partition the log is read. The time of a record is when its frame was
// received, by the clock of the gateway that wrote it.
const timeSlack = 5 * time.Second

// Missing reads what the topics hold, from a little before the oldest of items to the end offsets of now, and returns those
// of items that are not there, in their order. An item is there if a record on its partition has its CloudEvents id. On the
// calls topic it is also there if a later one of its call is, for compaction takes away what is superseded; tombstones,
// which carry no id, are always missing.
//
// What is still under way from an earlier writer may yet arrive: only after Fence is the answer final. An item that was set
// aside for its size is missing from its topic. Memory is that of items and of one answer of each broker. The error is nil
// only if everything was read.
func (s *Sink) Missing(ctx context.Context, items []core.Item) (missing []core.Item, err error) {
	err = s.alone(ctx, "looking up in kafka what was delivered", func(ctx context.Context) (err error) {
		missing, err = s.missing(ctx, items)
		return err
	})
	return missing, err
}

// search looks for items on their partitions.
type search struct {
	items []core.Item
	there []bool
	lanes map[target]*lane

	partitions map[string]int // how many each topic has
}

// lane is what is looked for on one partition.
type lane struct {
	since  int64            // Unix milliseconds, of the oldest item
	wanted map[string][]int // items by id, in their order
	open   int
}

func (s *Sink) missing(ctx context.Context, items []core.Item) ([]core.Item, error) {
	if err := s.cl.refresh(ctx, s.cfg.topics()); err != nil {
		return nil, err
	}
	se := search{items: items, there: make([]bool, len(items)), lanes: make(map[target]*lane), partitions: make(map[string]int)}
	oldest := oldestOf(items)
	for i := range items {
		if err := se.want(ctx, s, i, oldest); err != nil {
			return nil, err
		}
	}
	spans, err := se.spans(ctx, s.cl)
	if err != nil {
		return nil, err
	}
	if err := s.cl.scan(ctx, spans); err != nil {
		return nil, err
	}
	se.superseded()
	var missing []core.Item
	for i, there := range se.there {
		if !there {
			missing = append(missing, items[i])
		}
	}
	return missing, nil
}

// oldestOf is the time of the oldest item that has one, in Unix milliseconds; 0 for none.
func oldestOf(items []core.Item) (oldest int64) {
	for i := range items {
		if t := received(&items[i]); t != 0 && (oldest == 0 || t < oldest) {
			oldest = t
		}
	}
	return oldest
}

// want files the i'th item under its partition. One without a time may be anywhere behind the oldest of the others.
func (se *search) want(ctx context.Context, s *Sink, i int, oldest int64) error {
	it := &se.items[i]
	id, err := s.enc.ID(it)
	if err != nil || cloudevents.Tombstone(it) || !delivers(it.Stream) {
		return nil // Write says what is wrong with it
	}
	on := s.cfg.topicOf(it.Stream, it.Switch.ID)
	n, asked := se.partitions[on.name]
	if !asked {
		if n, err = s.cl.partitions(ctx, on); err != nil {
			return err
		}
		se.partitions[on.name] = n
	}
	if n == 0 {
		return nil // no topic, nothing there
	}
	since := received(it)
	if since == 0 {
		since = oldest
	}
	to := target{on.name, partition(it.Key, n)}
	l := se.lanes[to]
	if l == nil {
		l = &lane{since: since, wanted: make(map[string][]int)}
		se.lanes[to] = l
	}
	l.since = min(l.since, since)
	l.wanted[id] = append(l.wanted[id], i)
	l.open++
	return nil
}

// partitions counts a topic's partitions; 0 if it does not exist. A switch's raw passthrough may not have been asked for
// before. That a topic is unknown is believed the third time, for a broker may not have heard of it yet.
func (cl *cluster) partitions(ctx context.Context, t topic) (int, error) {
	info, known := cl.topics[t.name]
	wait := newBackoff()
	for try := 0; !known || try < 3 && info.err == kafkago.UnknownTopicOrPartition; try++ {
		if err := wait.sleep(ctx); err != nil {
			return 0, err
		}
		if err := cl.refresh(ctx, []topic{t}); err != nil {
			return 0, err
		}
		info, known = cl.topics[t.name]
	}
	switch info.err {
	case 0, kafkago.LeaderNotAvailable:
		return len(info.leaders), nil
	case kafkago.UnknownTopicOrPartition:
		return 0, nil
	}
	return 0, topicError(t.name, info.err, "looking it up")
}

// spans are what must be read, from the oldest item of each partition to its present end.
func (se *search) spans(ctx context.Context, cl *cluster) ([]*span, error) {
	since := make(map[target]int64, len(se.lanes))
	for to, l := range se.lanes {
		since[to] = max(0, l.since-timeSlack.Milliseconds())
	}
	return cl.spans(ctx, since, func(to target) func(logRecord) error {
		l := se.lanes[to]
		return func(r logRecord) error { return se.see(l, &r) }
	})
}

// see ticks off the item that a record is. Lanes are nobody else's while their partition is read.
func (se *search) see(l *lane, r *logRecord) error {
	waiting := l.wanted[recordID(r)]
	if len(waiting) == 0 {
		return nil
	}
	se.there[waiting[0]] = true
	l.wanted[recordID(r)] = waiting[1:]
	if l.open--; l.open == 0 {
		return errEnough
	}
	return nil
}

// recordID is the CloudEvents id of a record in either content mode; empty for a tombstone or what is not ours.
func recordID(r *logRecord) string {
	if id := r.header(headerID); id != nil {
		return string(id)
	}
	if !bytes.HasPrefix(r.header(headerContent), []byte("application/cloudevents+json")) {
		return ""
	}
	var envelope struct{ ID string }
	if json.Unmarshal(r.value, &envelope) != nil {
		return ""
	}
	return envelope.ID
}

// superseded ticks off states of calls that are gone because a later one is there.
func (se *search) superseded() {
	later := make(map[string]bool)
	for i, it := range slices.Backward(se.items) {
		if it.Stream != core.StreamCalls {
			continue
		}
		later[it.Key] = later[it.Key] || se.there[i]
		se.there[i] = se.there[i] || later[it.Key] && !cloudevents.Tombstone(&it)
	}
}
