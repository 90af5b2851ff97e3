package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// onBrokers runs a test against the in-process cluster, and against the broker named by CTIGATE_TEST_KAFKA if there is
// one. fake is nil there.
func onBrokers(t *testing.T, test func(t *testing.T, cfg *Config, fake *fake)) {
	t.Run("kfake", func(t *testing.T) {
		f := newFake(t)
		defer f.Close()
		test(t, f.config(), f)
	})
	t.Run("live", func(t *testing.T) {
		cfg := liveConfig(t)
		cfg.Partitions = 3
		test(t, cfg, nil)
	})
}

// as is cfg under a transactional id.
func (c *Config) as(id string) *Config {
	other := *c
	other.TransactionalID = c.TopicPrefix + id
	return &other
}

func fenceIn(t testing.TB, s *Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Fence(ctx); err != nil {
		t.Fatal(err)
	}
}

// admin is a client that is not ours.
func admin(t testing.TB, cfg *Config) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// ends are the end offsets of all partitions, as a consumer of the isolation level sees them.
func ends(t testing.TB, cfg *Config, topics map[string]int, level int8) map[target]int64 {
	t.Helper()
	cl := admin(t, cfg)
	defer cl.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, level
	for name, n := range topics {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = name
		for p := range int32(n) {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = p, -1, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	got := make(map[target]int64)
	for _, shard := range cl.RequestSharded(t.Context(), req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, rt := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, rp := range rt.Partitions {
				if rp.ErrorCode != 0 {
					t.Fatalf("%s/%d: %d", rt.Topic, rp.Partition, rp.ErrorCode)
				}
				got[target{rt.Topic, rp.Partition}] = rp.Offset
			}
		}
	}
	return got
}

// consumed are the ce_ids that a consumer of the isolation level gets.
func consumed(t testing.TB, cfg *Config, topics map[string]int, level kgo.IsolationLevel) []string {
	t.Helper()
	left := make(map[target]bool)
	for to, end := range ends(t, cfg, topics, 1) {
		left[to] = end > 0
	}
	var names []string
	for name := range topics {
		names = append(names, name)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.ConsumeTopics(names...), kgo.FetchIsolationLevel(level),
		kgo.FetchMaxWait(20*time.Millisecond), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	stop := ends(t, cfg, topics, 1)
	for to, end := range stop {
		if end == 0 {
			delete(stop, to)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var ids []string
	for len(stop) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("not read to the end: %v", stop)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			to := target{r.Topic, r.Partition}
			if r.Offset >= stop[to]-1 {
				delete(stop, to)
			}
			if !r.Attrs.IsControl() {
				ids = append(ids, header(r, headerID))
			}
		})
	}
	return ids
}

// everywhere makes items for every partition of every stream, and what the topics are.
func everywhere(cfg *Config, prefix string) (items []core.Item, topics map[string]int) {
	topics = make(map[string]int)
	for _, stream := range streams {
		topics[cfg.topicOf(stream, "").name] = cfg.Partitions
		seen := make(map[int32]bool)
		for i := 0; len(seen) < cfg.Partitions; i++ {
			key := fmt.Sprintf("%s-%s-%d", prefix, stream, i)
			if p := partition(key, cfg.Partitions); seen[p] {
				continue
			} else {
				seen[p] = true
			}
			it := sinkItems(1)[0]
			e := *it.Event
			e.ID = key
			it.Key, it.Stream, it.Event = key, stream, &e
			if stream == core.StreamDeadLetter {
				it.Event, it.Dead = nil, &core.DeadLetter{Raw: []byte(key), Received: 1}
			}
			items = append(items, it)
		}
	}
	return items, topics
}

// old speaks as a writer that does not know that it has been shut out: its next batch for a partition, as it may lie in a
// socket.
func (s *Sink) blindly(t testing.TB, to target) error {
	t.Helper()
	packed, err := s.pack.pack(nil, []record{{time: time.Now().UnixMilli(), tail: appendTail(nil, "late", []byte("late"), nil)}}, s.by, s.sequence(to))
	if err != nil {
		t.Fatal(err)
	}
	q := &queue{to: to, packed: packed}
	if err := s.cl.refresh(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.cl.produce(t.Context(), s.cl.topics[to.topic].leaders[to.partition], []*queue{q})
	return q.err
}

func TestFence(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, fake *fake) {
		cfg = cfg.as("unit")
		first, second := open(t, cfg), open(t, cfg)
		defer shut(t, first)
		defer shut(t, second)
		items, topics := everywhere(cfg, "a")
		if err := first.Write(t.Context(), items); !errors.Is(err, errNotFenced) {
			t.Fatalf("written without a fence: %v", err)
		}
		fenceIn(t, first)
		for part := range slices.Chunk(items, 5) {
			if err := first.Write(t.Context(), part); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		fenceIn(t, second)
		t.Logf("fenced %d partitions in %s", len(items), time.Since(began))
		for name, n := range topics {
			for p := range int32(n) {
				err := first.blindly(t, target{name, p})
				var code kafkago.Error
				if !errors.As(err, &code) || code != kafkago.InvalidProducerEpoch && code != kafkago.ProducerFenced {
					t.Errorf("%s/%d took a batch of the writer that is shut out: %v", name, p, err)
				}
			}
		}
		for _, doubtful := range []bool{false, true, false} { // whatever it thinks of its sequence
			first.doubtful = doubtful
			if err := first.Write(t.Context(), sinkItems(20)); !errors.Is(err, core.ErrFenced) {
				t.Errorf("the writer that is shut out: %v", err)
			}
		}
		more, _ := everywhere(cfg, "b")
		if err := second.Write(t.Context(), more); err != nil {
			t.Fatal(err)
		}
		want := idsOf(t, append(items, more...))
		for _, level := range []kgo.IsolationLevel{kgo.ReadCommitted(), kgo.ReadUncommitted()} {
			if got := consumed(t, cfg, topics, level); !equalSets(got, want) {
				t.Errorf("level %v: %d records, want %d: %q", level, len(got), len(want), got)
			}
		}
		stable, high := ends(t, cfg, topics, 1), ends(t, cfg, topics, 0)
		for to := range high {
			if stable[to] != high[to] {
				t.Errorf("%v: last stable offset %d, high watermark %d", to, stable[to], high[to])
			}
		}
	})
}

func idsOf(t testing.TB, items []core.Item) (ids []string) {
	t.Helper()
	var enc cloudevents.Encoder
	for i := range items {
		id, err := enc.ID(&items[i])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func equalSets(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// A writer that finds its batch refused, or its sequence lost, asks the coordinator and learns that its turn is over.
func TestFencedWriterDoesNotComeBack(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, _ *fake) {
		cfg = cfg.as("unit")
		for name, spoil := range map[string]func(*Sink){
			"as it was":           func(*Sink) {},
			"in doubt":            func(s *Sink) { s.doubtful = true },
			"out of sequence":     func(s *Sink) { s.advance(target{cfg.topicOf(core.StreamEvents, "").name, 0}, s.by, 17) },
			"long not confirmed":  func(s *Sink) { s.who.confirmed = time.Now().Add(-2 * confirmAfter) },
			"with a topic of new": func(s *Sink) { delete(s.fenced, cfg.topicOf(core.StreamEvents, "").name) },
		} {
			first, second := open(t, cfg), open(t, cfg)
			fenceIn(t, first)
			if err := first.Write(t.Context(), sinkItems(50)); err != nil {
				t.Fatal(err)
			}
			fenceIn(t, second)
			spoil(first)
			if err := first.Write(t.Context(), sinkItems(50)); !errors.Is(err, core.ErrFenced) {
				t.Errorf("%s: %v", name, err)
			}
			if err := second.Write(t.Context(), sinkItems(50)); err != nil {
				t.Errorf("%s: the new writer: %v", name, err)
			}
			fenceIn(t, first) // a planned return
			if err := first.Write(t.Context(), sinkItems(50)); err != nil {
				t.Errorf("%s: back again: %v", name, err)
			}
			if err := second.Write(t.Context(), sinkItems(50)); !errors.Is(err, core.ErrFenced) {
				t.Errorf("%s: %v", name, err)
			}
			shut(t, first)
			shut(t, second)
		}
	})
}

// The writer that is in goes on through all that may befall it.
func TestFencedInWriterGoesOn(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, _ *fake) {
		s := open(t, cfg.as("unit"))
		defer shut(t, s)
		fenceIn(t, s)
		events := cfg.topicOf(core.StreamEvents, "").name
		for name, spoil := range map[string]func(){
			"in doubt":           func() { s.doubtful = true },
			"out of sequence":    func() { s.advance(target{events, 0}, s.by, 17); s.advance(target{events, 1}, s.by, 17) },
			"long not confirmed": func() { s.who.confirmed = time.Now().Add(-2 * confirmAfter) },
			"a new topic":        func() { delete(s.fenced, events) },
			"fenced again":       func() { fenceIn(t, s) },
		} {
			if err := s.Write(t.Context(), sinkItems(50)); err != nil {
				t.Fatal(err)
			}
			spoil()
			if err := s.Write(t.Context(), sinkItems(50)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			raw := core.Item{Stream: core.StreamRaw, Key: "pbx", Dead: &core.DeadLetter{Raw: []byte(name), Received: 1}}
			raw.Switch.ID = "pbx " + name
			if err := s.Write(t.Context(), []core.Item{raw}); err != nil {
				t.Errorf("%s: raw frame: %v", name, err)
			}
		}
	})
}

// A raw topic that the earlier writer made is fenced too, and one that it makes afterwards it does not get to write to.
func TestFenceOfRawTopics(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, _ *fake) {
		cfg = cfg.as("unit")
		first, second := open(t, cfg), open(t, cfg)
		defer shut(t, first)
		defer shut(t, second)
		fenceIn(t, first)
		raw := func(id string) []core.Item {
			it := core.Item{Stream: core.StreamRaw, Key: id, Dead: &core.DeadLetter{Raw: []byte("x"), Received: 1}}
			it.Switch.ID = id
			return []core.Item{it}
		}
		if err := first.Write(t.Context(), raw("pbx1")); err != nil {
			t.Fatal(err)
		}
		fenceIn(t, second)
		for p := range int32(cfg.Partitions) {
			if err := first.blindly(t, target{cfg.topicOf(core.StreamRaw, "pbx1").name, p}); err == nil {
				t.Errorf("raw topic, partition %d, took a batch", p)
			}
		}
		if err := first.Write(t.Context(), raw("pbx2")); !errors.Is(err, core.ErrFenced) {
			t.Errorf("a topic it made itself: %v", err)
		}
	})
}

// Every producer id keeps epochs for its last fence; the next id begins when they are used up. The in-process cluster
// forgets the old id then, which a real one does not.
func TestFenceWhenTheEpochsAreUsedUp(t *testing.T) {
	if os.Getenv("CTIGATE_TEST_KAFKA_LONG") == "" {
		t.Skip("CTIGATE_TEST_KAFKA_LONG is not set: 32,000 fences take a minute")
	}
	cfg := liveConfig(t).as("unit")
	cfg.Partitions = 1
	first, second := open(t, cfg), open(t, cfg)
	defer shut(t, first)
	defer shut(t, second)
	fenceIn(t, first)
	id := first.by.id
	co := first.who.coordinator(first.cl)
	for first.by.epoch < lastEpoch {
		by, err := co.init(t.Context(), first.by)
		if err != nil {
			t.Fatal(err)
		}
		first.by = by
	}
	first.who.become(first.by)
	clear(first.seqs)
	if first.by != (producer{id, math.MaxInt16 - 16}) {
		t.Fatalf("at %+v", first.by)
	}
	if err := first.Write(t.Context(), sinkItems(5)); err != nil {
		t.Fatal(err)
	}
	fenceIn(t, second)
	if second.by.id == id {
		t.Fatalf("the second is %+v, want a new producer id", second.by)
	}
	for _, stream := range streams {
		if err := first.blindly(t, target{cfg.topicOf(stream, "").name, 0}); err == nil {
			t.Errorf("%s took a batch of the last producer id", stream)
		}
	}
	if err := second.Write(t.Context(), sinkItems(5)); err != nil {
		t.Error(err)
	}
}
