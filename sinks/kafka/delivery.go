package kafka

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// maxRequest bounds one produce request, in bytes; brokers refuse 100 MiB.
const maxRequest = 32 << 20

// maxArena is the largest record buffer kept from one Write to the next, in bytes.
const maxArena = 32 << 20

// target is one partition.
type target struct {
	topic     string
	partition int32
}

// queue is what one partition is still owed, in order. Its first sent records are packed into the one batch that is,
// or will be, in flight.
type queue struct {
	to     target
	recs   []record
	packed []byte
	sent   int
	by     producer // that the packed batch is of
	limit  int      // records in the next batch at most, after one was too large; 0: no limit
	tried  bool     // the packed batch was sent before
	doubt  bool     // it may have been applied although no acknowledgement came
	err    error    // the last answer
	first  int64    // the offset of the packed batch's first record, once it is accepted
}

// delivery is one Write.
type delivery struct {
	s       *Sink
	batch   []core.Item
	queues  map[target]*queue
	unknown map[string]error // topics that could not be made known
	aside   map[int]bool     // items that are on their way to the dead-letter topic instead
	failed  map[int]error
	trouble error // the last thing that made a round wait
	lasting bool  // an item failed for what only somebody outside can mend

	lostSequence bool // a broker does not know our sequence numbers
}

// enqueue encodes the items and sorts them into partitions.
func (d *delivery) enqueue(ctx context.Context) {
	s := d.s
	s.arena = s.arena[:0]
	if cap(s.arena) > maxArena {
		s.arena = nil
	}
	for i := range d.batch {
		d.add(ctx, i, &d.batch[i])
	}
}

// add encodes one item, which stands for the item'th of the batch, and queues it, or fails it.
func (d *delivery) add(ctx context.Context, item int, it *core.Item) {
	s := d.s
	if !delivers(it.Stream) {
		d.reject(item, fmt.Errorf("no topic for stream %q", it.Stream))
		return
	}
	to := s.cfg.topicOf(it.Stream, it.Switch.ID)
	info := s.cl.topics[to.name]
	if len(info.leaders) == 0 {
		if err := d.discover(ctx, to); err != nil {
			d.fail(item, err)
			return
		}
		info = s.cl.topics[to.name]
	}
	if err := s.enlist(ctx, to.name, len(info.leaders)); err != nil {
		d.fail(item, err)
		return
	}
	value, headers, err := d.encode(it)
	if err != nil {
		d.reject(item, err)
		return
	}
	start := len(s.arena)
	s.arena = appendTail(s.arena, it.Key, value, headers)
	q := d.queue(target{to.name, partition(it.Key, len(info.leaders))})
	q.recs = append(q.recs, record{item: item, time: timestamp(it), tail: s.arena[start:len(s.arena):len(s.arena)]})
}

// discover makes a topic known that was not when the sink was opened: a switch's raw passthrough.
func (d *delivery) discover(ctx context.Context, t topic) error {
	if err := d.unknown[t.name]; err != nil {
		return err
	}
	err := d.s.cl.ensure(ctx, []topic{t})
	if err != nil {
		d.unknown[t.name] = err
	}
	return err
}

func (d *delivery) queue(to target) *queue {
	q := d.queues[to]
	if q == nil {
		q = &queue{to: to}
		d.queues[to] = q
	}
	return q
}

// timestamp is when the gateway received what the record tells of: the switch's clock may be anywhere. It is never
// ahead of now, for brokers refuse what is.
func timestamp(it *core.Item) int64 {
	now := time.Now().UnixMilli()
	if t := received(it); t != 0 {
		return min(t, now)
	}
	return now
}

// received is when the gateway received what the item tells of, in Unix milliseconds; 0 if that is not known.
func received(it *core.Item) int64 {
	switch {
	case it.Event != nil:
		return int64(it.Event.Time.Received / call.Millisecond)
	case it.Dead != nil:
		return int64(it.Dead.Received / call.Millisecond)
	}
	return 0
}

// run makes rounds until all is acknowledged, failed, or ctx ends.
func (d *delivery) run(ctx context.Context, round func(context.Context) (progress bool)) {
	wait := newBackoff()
	for len(d.queues) > 0 && ctx.Err() == nil {
		progress := round(ctx)
		if out := d.s.who.refuses(); out != nil {
			d.giveBackAll(out)
			return
		}
		if d.trouble == nil {
			wait = newBackoff()
			continue
		}
		if progress {
			wait = newBackoff()
		}
		d.recover(ctx, wait)
	}
	d.giveUp(ctx)
	if d.trouble == nil && d.s.troubled && len(d.failed) == 0 {
		d.s.log.Info("kafka accepts batches again")
		d.s.troubled = false
	}
}

// round sends each partition its next batch and settles the answers. It reports whether any was accepted.
func (d *delivery) round(ctx context.Context) (progress bool) {
	d.trouble = nil
	d.packAll()
	var wg sync.WaitGroup
	for id, qs := range d.byLeader() {
		wg.Go(func() { d.produce(ctx, id, qs) })
	}
	wg.Wait()
	for _, q := range d.sorted() {
		progress = d.settle(ctx, q) || progress
	}
	if d.lostSequence {
		d.restart(ctx)
	}
	return progress
}

// packAll packs the next batch of each partition that has none in flight.
func (d *delivery) packAll() {
	for _, q := range d.queues {
		if q.packed != nil || len(q.recs) == 0 {
			continue
		}
		q.sent = d.take(q)
		q.tried, q.doubt, q.by = false, false, d.s.by
		q.packed, q.err = d.s.pack.pack(d.s.buffer(), q.recs[:q.sent], q.by, d.s.sequence(q.to))
	}
}

// buffer gives an empty buffer for a batch, one that was used before if there is one.
func (s *Sink) buffer() []byte {
	if n := len(s.free); n > 0 {
		b := s.free[n-1]
		s.free = s.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 64<<10)
}

// recycle keeps up to 64 buffers of up to 1 MiB for later batches.
func (s *Sink) recycle(b []byte) {
	if len(s.free) < 64 && cap(b) <= 1<<20 {
		s.free = append(s.free, b)
	}
}

// take counts the records of q's next batch.
func (d *delivery) take(q *queue) int {
	size, n := 0, 0
	for _, r := range q.recs {
		size += len(r.tail) + recordExtra
		if n > 0 && (size > d.s.cfg.BatchBytes || n == q.limit) {
			break
		}
		n++
	}
	return n
}

// byLeader groups the partitions by the broker to send them to, in one request each.
func (d *delivery) byLeader() map[int32][]*queue {
	groups := make(map[int32][]*queue)
	size := make(map[int32]int)
	for _, q := range d.sorted() {
		leaders := d.s.cl.topics[q.to.topic].leaders
		leader := int32(-1)
		if int(q.to.partition) < len(leaders) {
			leader = leaders[q.to.partition]
		}
		_, known := d.s.cl.brokers[leader]
		switch {
		case q.packed == nil: // could not be packed; the error is there already
		case !known:
			q.err = kafkago.LeaderNotAvailable
		case size[leader] > 0 && size[leader]+len(q.packed) > maxRequest:
			q.err = errNextRound
		default:
			groups[leader] = append(groups[leader], q)
			size[leader] += len(q.packed)
		}
	}
	return groups
}

// errNextRound marks a batch that did not fit into this round's request.
var errNextRound = fmt.Errorf("not sent yet")

// sorted lists the queues in a fixed order, so that requests are the same on every run.
func (d *delivery) sorted() []*queue {
	qs := make([]*queue, 0, len(d.queues))
	for _, q := range d.queues {
		qs = append(qs, q)
	}
	slices.SortFunc(qs, func(a, b *queue) int {
		return cmp.Or(cmp.Compare(a.to.topic, b.to.topic), cmp.Compare(a.to.partition, b.to.partition))
	})
	return qs
}

// produce sends one broker its batches.
func (d *delivery) produce(ctx context.Context, broker int32, qs []*queue) {
	for _, q := range qs {
		if q.tried {
			d.s.counts.retried.Add(1)
		}
		q.tried = true
	}
	d.s.cl.produce(ctx, broker, qs)
}

// produce sends one broker the packed batches of partitions it leads and leaves the answers in the queues, which are
// nobody else's meanwhile.
func (cl *cluster) produce(ctx context.Context, broker int32, qs []*queue) {
	m, err := cl.askBroker(ctx, broker, cl.cfg.produceRequest(qs))
	if err != nil {
		for _, q := range qs {
			q.err = err
		}
		return
	}
	answers := make(map[target]produce.ResponsePartition)
	for _, t := range m.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			answers[target{t.Topic, p.Partition}] = p
		}
	}
	for _, q := range qs {
		q.err = errNoAnswer
		if p, ok := answers[q.to]; ok {
			q.err, q.first = partitionError(p), p.BaseOffset
		}
	}
}

var errNoAnswer = fmt.Errorf("the broker's answer does not mention the partition")

func partitionError(p produce.ResponsePartition) error {
	if p.ErrorCode == 0 {
		return nil
	}
	return fmt.Errorf("%w%s", kafkago.Error(p.ErrorCode), detail(p.ErrorMessage))
}

// produceRequest is one of one batch for each queue; acknowledged by all in-sync replicas.
func (c *Config) produceRequest(qs []*queue) *rawproduce.Request {
	req := &rawproduce.Request{Acks: -1, Timeout: int32(c.RequestTimeout.Milliseconds() * 9 / 10)}
	for _, q := range qs { // sorted by topic
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != q.to.topic {
			req.Topics = append(req.Topics, rawproduce.RequestTopic{Topic: q.to.topic})
		}
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, rawproduce.RequestPartition{
			Partition: q.to.partition, RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(q.packed)},
		})
	}
	return req
}
