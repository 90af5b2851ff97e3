package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// Fence shuts out whoever wrote before under the same TransactionalID, and makes this sink the one that may write. It
// raises the epoch of the producer id at the transaction coordinator, and has a marker with the new epoch written to
// every partition of every topic of the sink, of raw passthrough topics that exist, and of FenceTopics, by a transaction
// with nothing in it. From then on each partition's leader refuses a batch with an older epoch, also one that lay in a
// socket of a process that was stopped meanwhile. The markers are replicated when Fence returns, and everything that was
// accepted before lies below the end offsets of that moment. What is written afterwards is not transactional: consumers
// need no setting and wait for nothing.
//
// It does not return nil before all of this has happened. Never call it concurrently with Write.
func (s *Sink) Fence(ctx context.Context) error {
	if s.cfg.TransactionalID == "" {
		return core.Permanent(errors.New("fencing at kafka: the sink has no transactional id"))
	}
	return s.alone(ctx, "fencing at kafka", s.fence)
}

func (s *Sink) fence(ctx context.Context) error {
	co := s.who.coordinator(s.cl)
	by, err := co.init(ctx, noProducer)
	if err != nil {
		return err
	}
	// Only now: a topic that the other one makes from here on, it may not write to (see enlist).
	partitions, err := s.cl.outputs(ctx)
	if err != nil {
		return err
	}
	if err := co.mark(ctx, by, partitions); err != nil {
		return err
	}
	if by, err = co.settled(ctx, by); err != nil {
		return err
	}
	s.who.takeOver(by)
	s.adopt(by)
	s.fenced = partitions
	clear(s.held) // shut out, too; Missing tells what became of them
	return nil
}

// adopt writes as by from here on: every partition's next batch begins its numbering anew.
func (s *Sink) adopt(by producer) { s.by, s.doubtful = by, false }

// confirmAfter is how long a fenced sink goes on without asking the coordinator whether it is still the last. Partition
// leaders forget an epoch that nobody used for producer.id.expiration.ms (a day), and the coordinator forgets a
// transactional id that nobody used for transactional.id.expiration.ms (a week).
const confirmAfter = time.Hour

// begin finds out who this Write writes as.
func (s *Sink) begin(ctx context.Context) error {
	by, err := s.who.now()
	if err != nil {
		return err
	}
	if by != s.by {
		s.adopt(by)
	}
	if s.cfg.TransactionalID != "" && s.who.sinceConfirmed() > confirmAfter {
		if err := s.who.mark(ctx, s.cl, map[string]int{s.cfg.topics()[0].name: 1}); err != nil {
			return err
		}
	}
	return s.moveOn(ctx)
}

// enlist closes partitions that Fence has not seen to earlier writers, and finds out whether we are one, before the first
// batch to them. A writer that is shut out does not get past it; a later one's Fence finds the topic.
func (s *Sink) enlist(ctx context.Context, topic string, partitions int) error {
	if s.cfg.TransactionalID == "" || s.fenced[topic] >= partitions {
		return nil
	}
	if err := s.who.mark(ctx, s.cl, map[string]int{topic: partitions}); err != nil {
		return err
	}
	s.fenced[topic] = partitions
	return nil
}

// outputs counts the partitions of every topic that an earlier writer may write to.
func (cl *cluster) outputs(ctx context.Context) (map[string]int, error) {
	m, err := cl.ask(ctx, &metadata.Request{}) // no names: all topics
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	ours := make(map[string]bool)
	for _, t := range cl.cfg.topics() {
		ours[t.name] = true
	}
	for _, name := range cl.cfg.FenceTopics {
		ours[name] = true
	}
	found := make(map[string]int)
	for _, t := range m.(*metadata.Response).Topics {
		if (ours[t.Name] || strings.HasPrefix(t.Name, cl.cfg.TopicPrefix+"raw.")) && len(t.Partitions) > 0 {
			found[t.Name] = len(t.Partitions)
		}
	}
	for name := range ours {
		if found[name] == 0 {
			return nil, fmt.Errorf("topic %s: it does not exist, or this user may not see it; create it, or grant Describe", name)
		}
	}
	return found, nil
}
