package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

const (
	offsetEnd   = -1 // ListOffsets: the high watermark
	offsetFirst = -2 // the first that is still there
)

// span is a stretch of one partition that is to be read.
type span struct {
	target
	at, end int64
	see     func(logRecord) error // errEnough: nothing further is wanted
}

// spans are from where offsets finds each partition's time to its present end; none where there is nothing.
func (cl *cluster) spans(ctx context.Context, times map[target]int64, see func(target) func(logRecord) error) ([]*span, error) {
	end := make(map[target]int64, len(times))
	for to := range times {
		end[to] = offsetEnd
	}
	ends, err := cl.offsets(ctx, end)
	if err != nil {
		return nil, err
	}
	begins, err := cl.offsets(ctx, times)
	if err != nil {
		return nil, err
	}
	var spans []*span
	for to, begin := range begins {
		if begin >= 0 {
			spans = append(spans, &span{target: to, at: begin, end: ends[to], see: see(to)})
		}
	}
	return spans, nil
}

// errEnough ends the reading of a span.
var errEnough = errors.New("enough")

// scan reads the spans to their ends, one answer of each leader at a time. It gives up when nothing has come for
// write_timeout.
func (cl *cluster) scan(ctx context.Context, spans []*span) error {
	left := slices.Clone(spans)
	wait, moved := newBackoff(), time.Now()
	for {
		left = slices.DeleteFunc(left, func(s *span) bool { return s.at >= s.end })
		if len(left) == 0 {
			return nil
		}
		before := position(left)
		err := cl.scanRound(ctx, left)
		if position(left) != before {
			wait, moved = newBackoff(), time.Now()
		}
		switch {
		case err == nil && time.Since(moved) < cl.cfg.WriteTimeout:
			continue
		case err == nil || time.Since(moved) > cl.cfg.WriteTimeout:
			return fmt.Errorf("reading %s, partition %d: nothing came for %s at offset %d of %d: %w",
				left[0].topic, left[0].partition, cl.cfg.WriteTimeout, left[0].at, left[0].end, errors.Join(err, ctx.Err()))
		case core.IsPermanent(err) || errors.Is(err, errBatch) || ctx.Err() != nil:
			return err
		}
		if err := cl.retryAfter(ctx, wait, err); err != nil {
			return err
		}
	}
}

func position(spans []*span) (sum int64) {
	for _, s := range spans {
		sum += s.at
	}
	return sum
}

// retryAfter waits and looks for new leaders.
func (cl *cluster) retryAfter(ctx context.Context, wait *backoff, cause error) error {
	if err := wait.sleep(ctx); err != nil {
		return fmt.Errorf("%w; last: %w", err, cause)
	}
	if err := cl.refresh(ctx, nil); core.IsPermanent(err) {
		return err
	}
	return nil // a passing failure shows again in what is asked next
}

// scanRound asks each leader once, concurrently, and returns the first error.
func (cl *cluster) scanRound(ctx context.Context, spans []*span) error {
	groups, err := byLeaderOf(cl, spans, func(s *span) target { return s.target })
	errs := make(chan error, len(groups)+1)
	errs <- err
	var wg sync.WaitGroup
	for id, group := range groups {
		wg.Go(func() { errs <- cl.scanLeader(ctx, id, group) })
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

// byLeaderOf groups things by the broker that leads their partition. The error is of those that have none, which are left
// out.
func byLeaderOf[T any](cl *cluster, things []T, of func(T) target) (map[int32][]T, error) {
	groups, err := make(map[int32][]T), error(nil)
	for _, thing := range things {
		to, leader := of(thing), int32(-1)
		if leaders := cl.topics[to.topic].leaders; int(to.partition) < len(leaders) {
			leader = leaders[to.partition]
		}
		if _, known := cl.brokers[leader]; !known {
			err = fmt.Errorf("%s, partition %d: %w", to.topic, to.partition, kafkago.LeaderNotAvailable)
			continue
		}
		groups[leader] = append(groups[leader], thing)
	}
	return groups, err
}

func (cl *cluster) scanLeader(ctx context.Context, leader int32, spans []*span) error {
	parts := make([]fetchPart, len(spans))
	for i, s := range spans {
		parts[i] = fetchPart{s.target, s.at}
	}
	answers, err := cl.fetch(ctx, leader, time.Second, parts)
	if err != nil {
		return err
	}
	byTarget := make(map[target]fetched, len(answers))
	for _, a := range answers {
		byTarget[a.target] = a
	}
	for _, s := range spans {
		if err := s.take(byTarget[s.target]); err != nil {
			return err
		}
	}
	return nil
}

// take reads what came. An answer with an error leaves the span as it is, but for what has been deleted meanwhile, which
// cannot be waited for.
func (s *span) take(f fetched) error {
	switch f.code {
	case 0:
	case kafkago.OffsetOutOfRange:
		if f.logStart > s.at {
			s.at = f.logStart
			return nil
		}
		fallthrough
	default:
		return fmt.Errorf("reading %s, partition %d, offset %d: %w", s.topic, s.partition, s.at, f.code)
	}
	next, err := eachRecord(f.batches, s.at, func(r logRecord) error {
		if r.offset >= s.end {
			return errEnough
		}
		return s.see(r)
	})
	s.at = next
	if errors.Is(err, errEnough) {
		s.at, err = s.end, nil
	}
	if err != nil {
		return fmt.Errorf("reading %s, partition %d: %w", s.topic, s.partition, err)
	}
	return nil
}

// offsets asks for the first offset with a record of at least each partition's time, in Unix milliseconds, or for
// offsetFirst or offsetEnd; -1 where there is none. It gives up after write_timeout.
func (cl *cluster) offsets(ctx context.Context, times map[target]int64) (map[target]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.cfg.WriteTimeout)
	defer cancel()
	got := make(map[target]int64, len(times))
	for wait := newBackoff(); ; {
		err := cl.offsetsRound(ctx, times, got)
		if err == nil {
			return got, nil
		}
		if core.IsPermanent(err) {
			return nil, err
		}
		if err := cl.retryAfter(ctx, wait, err); err != nil {
			return nil, fmt.Errorf("looking up offsets: %w", err)
		}
	}
}

// offsetsRound asks each leader once for what is not in got.
func (cl *cluster) offsetsRound(ctx context.Context, times, got map[target]int64) error {
	var open []target
	for to := range maps.Keys(times) {
		if _, there := got[to]; !there {
			open = append(open, to)
		}
	}
	groups, missing := byLeaderOf(cl, open, func(to target) target { return to })
	for leader, group := range groups {
		m, err := cl.askBroker(ctx, leader, offsetRequest(group, times))
		if err != nil {
			return err
		}
		for _, t := range m.(*listoffsets.Response).Topics {
			for _, p := range t.Partitions {
				if code := kafkago.Error(p.ErrorCode); code != 0 {
					missing = topicError(t.Topic, code, "looking up an offset")
					continue
				}
				got[target{t.Topic, p.Partition}] = p.Offset
			}
		}
	}
	return missing
}

func offsetRequest(group []target, times map[target]int64) *listoffsets.Request {
	req := &listoffsets.Request{ReplicaID: -1}
	for _, to := range group {
		req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: to.topic, Partitions: []listoffsets.RequestPartition{
			{Partition: to.partition, CurrentLeaderEpoch: -1, Timestamp: times[to]},
		}})
	}
	return req
}
