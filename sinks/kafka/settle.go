package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	kafkago "github.com/segmentio/kafka-go"
)

// settle acts on a queue's answer and reports whether its batch was accepted.
func (d *delivery) settle(ctx context.Context, q *queue) bool {
	if q.err == errNextRound {
		return false
	}
	switch judge(q.err) {
	case accepted:
		d.accept(q)
		return true
	case again:
		q.doubt = q.doubt || mayBeApplied(q.err)
		d.trouble = q.err
	case resequence:
		if d.s.who.fencedBy(q.err, q.by) {
			d.s.who.shutOut()
			d.giveBack(q, refusal(q.to.topic, q.err))
			break
		}
		d.trouble, d.lostSequence = q.err, true
		q.packed = nil
	case tooLarge:
		d.split(ctx, q)
	case refused:
		d.giveBack(q, refusal(q.to.topic, q.err))
	}
	return false
}

// refusal says what to do about a topic's refusal.
func refusal(topic string, err error) error {
	var code kafkago.Error
	if errors.As(err, &code) && (code == kafkago.TopicAuthorizationFailed || code == kafkago.ClusterAuthorizationFailed) {
		err = fmt.Errorf("not allowed for this user; grant it Write on the topic: %w", err)
	}
	return fmt.Errorf("producing to %s: %w", topic, err)
}

// giveBack fails what a partition is still owed, to be offered again.
func (d *delivery) giveBack(q *queue, err error) {
	if q.doubt && q.packed != nil {
		d.s.hold(q)
	}
	for _, r := range q.recs {
		d.fail(r.item, err)
	}
	delete(d.queues, q.to)
}

// mayBeApplied reports whether a batch that was answered so can be in the log all the same.
func mayBeApplied(err error) bool {
	var code kafkago.Error
	if !errors.As(err, &code) {
		return true
	}
	switch code {
	case kafkago.NotLeaderForPartition, kafkago.UnknownTopicOrPartition, kafkago.LeaderNotAvailable, kafkago.NotEnoughReplicas:
		return false
	}
	return true
}

func (d *delivery) accept(q *queue) {
	if q.by != noProducer {
		d.s.advance(q.to, q.by, q.sent)
	}
	d.s.recycle(q.packed)
	q.recs, q.packed, q.sent, q.limit = q.recs[q.sent:], nil, 0, 0
	if len(q.recs) == 0 {
		delete(d.queues, q.to)
	}
}

// split halves a batch that is too large, or sets a single record aside.
func (d *delivery) split(ctx context.Context, q *queue) {
	q.packed = nil
	if q.sent > 1 {
		q.limit = q.sent / 2
		return
	}
	rec := q.recs[0]
	q.recs, q.limit = q.recs[1:], 0
	if len(q.recs) == 0 {
		delete(d.queues, q.to)
	}
	d.setAside(ctx, rec, q.to.topic, q.err)
}

// asideBytes is how much of a refused item is kept.
const asideBytes = 64 << 10

// setAside sends the head of an item that its topic will never take to the dead-letter topic, with the reason. If that
// is refused too, the item has failed for good.
func (d *delivery) setAside(ctx context.Context, rec record, topic string, cause error) {
	it := &d.batch[rec.item]
	reason := fmt.Sprintf("%s of %d bytes refused by topic %s: %v", describe(it), len(rec.tail), topic, cause)
	if d.aside[rec.item] {
		d.reject(rec.item, errors.New(reason))
		return
	}
	if d.aside == nil {
		d.aside = make(map[int]bool)
	}
	d.aside[rec.item] = true
	d.s.counts.setAside.Add(1)
	d.s.log.Error("kafka refuses an item; its head goes to the dead-letter topic", "item", describe(it), "bytes", len(rec.tail),
		"topic", topic, "err", cause)
	data, err := cloudevents.Data(*it)
	if err != nil {
		d.reject(rec.item, err)
		return
	}
	if len(data) > asideBytes {
		reason += fmt.Sprintf("; these are the first %d of %d bytes", asideBytes, len(data))
		data = data[:asideBytes]
	}
	dead := core.Item{
		Stream: core.StreamDeadLetter, Key: it.Switch.ID, Switch: it.Switch,
		Dead: &core.DeadLetter{Raw: data, Reason: reason, Received: call.Time(rec.time) * call.Millisecond},
	}
	d.add(ctx, rec.item, &dead)
}

// describe names an item in words.
func describe(it *core.Item) string {
	if it.Event != nil {
		return fmt.Sprintf("%s %s", it.Event.Type, it.Event.ID)
	}
	return fmt.Sprintf("%s of switch %s", it.Stream, it.Switch.ID)
}

// restart goes on under a new producer epoch or id: a broker's idea of our sequence numbers is not ours. Batches of other
// partitions that may have been applied stay as they are, for those partitions still know theirs.
func (d *delivery) restart(ctx context.Context) {
	d.lostSequence = false
	by, err := d.s.who.renew(ctx, d.s.cl, d.s.by)
	if err != nil {
		d.trouble = err
		return
	}
	d.s.log.Warn("the brokers lost our sequence numbers; going on under a new producer epoch", "err", d.trouble)
	d.s.adopt(by)
	for _, q := range d.queues {
		if !q.doubt {
			q.packed = nil
		}
	}
}

// recover looks for new leaders, makes deleted topics again, and waits. Where somebody must change something first, such
// as a password, all is given back: each further attempt would count as another failed login.
func (d *delivery) recover(ctx context.Context, wait *backoff) {
	d.complain(d.trouble)
	if wait.sleep(ctx) != nil {
		return
	}
	err := d.s.cl.refresh(ctx, nil)
	if err == nil {
		err = d.replace(ctx, d.lost())
	}
	if err == nil {
		return
	}
	d.trouble = err
	if !core.IsPermanent(err) {
		return
	}
	d.giveBackAll(err)
}

// complain logs the first of several failures in a row.
func (d *delivery) complain(err error) {
	if d.s.troubled {
		return
	}
	d.s.log.Warn("kafka does not accept a batch; retrying it before anything later", "err", err)
	d.s.troubled = true
}

// replace makes deleted topics again.
func (d *delivery) replace(ctx context.Context, lost []topic) error {
	if err := d.s.cl.ensure(ctx, lost); err != nil {
		return err
	}
	for _, t := range lost {
		delete(d.s.fenced, t.name)
		if err := d.s.enlist(ctx, t.name, len(d.s.cl.topics[t.name].leaders)); err != nil {
			return err
		}
	}
	return nil
}

// lost lists the topics we owe something that no longer exist.
func (d *delivery) lost() []topic {
	var ts []topic
	for _, q := range d.queues {
		if d.s.cl.topics[q.to.topic].err == kafkago.UnknownTopicOrPartition {
			it := &d.batch[q.recs[0].item]
			t := d.s.cfg.topicOf(it.Stream, it.Switch.ID)
			if t.name == q.to.topic && !slices.Contains(ts, t) {
				ts = append(ts, t)
			}
		}
	}
	return ts
}

// giveUp ends the Write: it fails what is left when time ran out.
func (d *delivery) giveUp(ctx context.Context) {
	for _, q := range d.sorted() {
		cause := q.err
		if cause == nil || cause == errNextRound {
			cause = d.trouble
		}
		err := fmt.Errorf("producing to %s, partition %d: %w", q.to.topic, q.to.partition, ctx.Err())
		if cause != nil {
			err = fmt.Errorf("%w; last: %w", err, cause)
		}
		d.giveBack(q, err)
	}
}

// giveBackAll ends the Write for a cause that all share.
func (d *delivery) giveBackAll(cause error) {
	for _, q := range d.sorted() {
		d.giveBack(q, cause)
	}
}

// fail names an item to be offered again. Whatever the cause, it does not come out as the item's own fault: the host
// discards an item that failed for good, and the next one would meet the same cause.
func (d *delivery) fail(item int, err error) {
	if core.IsPermanent(err) {
		d.lasting = true
		err = external{err}
	}
	d.note(item, err)
}

// reject names an item that cannot be delivered for what is in it, however often it is offered.
func (d *delivery) reject(item int, err error) { d.note(item, core.Permanent(err)) }

func (d *delivery) note(item int, err error) {
	if d.failed == nil {
		d.failed = make(map[int]error)
	}
	d.failed[item] = err
}

// encode gives an item's value and headers, valid until the next call.
func (d *delivery) encode(it *core.Item) (value []byte, headers []cloudevents.Header, err error) {
	s := d.s
	dead := it.Stream == core.StreamDeadLetter || it.Stream == core.StreamRaw
	switch {
	case cloudevents.Tombstone(it):
		return nil, nil, nil
	case s.cfg.Encoding == encodingStructured && !dead:
		s.value, err = s.enc.AppendStructured(s.value[:0], it)
		return s.value, structuredHeaders, err
	}
	s.value, s.headers, err = s.enc.AppendBinary(s.value[:0], s.headers[:0], it)
	if s.value == nil {
		s.value = []byte{} // an empty dead letter is not a tombstone
	}
	return s.value, s.headers, err
}

// structuredHeaders are those of the structured content mode (Kafka protocol binding, 3.3).
var structuredHeaders = []cloudevents.Header{{Name: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")}}
