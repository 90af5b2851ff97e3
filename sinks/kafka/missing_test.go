package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/sinktest"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// received sets the times of items to now and onwards, a millisecond each.
func stampNow(items []core.Item) []core.Item {
	at := call.At(time.Now().Add(-time.Duration(len(items)) * time.Millisecond))
	for i := range items {
		switch {
		case items[i].Event != nil:
			e := *items[i].Event
			e.Time.Received = at + call.Time(i)*call.Millisecond
			items[i].Event = &e
		case items[i].Dead != nil:
			d := *items[i].Dead
			d.Received = at + call.Time(i)*call.Millisecond
			items[i].Dead = &d
		}
	}
	return items
}

func wantMissing(t testing.TB, s *Sink, items, want []core.Item) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := s.Missing(ctx, items)
	if err != nil {
		t.Fatal(err)
	}
	if gotIDs, wantIDs := idsOf(t, got), idsOf(t, want); !slices.Equal(gotIDs, wantIDs) {
		t.Errorf("missing %d, want %d:\n got %q\nwant %q", len(gotIDs), len(wantIDs), gotIDs, wantIDs)
	}
}

// Every codec and content mode, with fences, with another gateway's messages and with messages that nobody knows between.
func TestMissing(t *testing.T) {
	onBrokers(t, func(t *testing.T, base *Config, _ *fake) {
		for compression := range compressions {
			for _, encoding := range []string{encodingBinary, encodingStructured} {
				cfg := base.as("unit")
				cfg.TopicPrefix = base.TopicPrefix + compression + "." + encoding + "."
				cfg.Compression, cfg.Encoding = compression, encoding
				t.Run(compression+" "+encoding, func(t *testing.T) { findsMissing(t, cfg) })
			}
		}
	})
}

func findsMissing(t *testing.T, cfg *Config) {
	s := open(t, cfg)
	defer shut(t, s)
	fenceIn(t, s)
	items := stampNow(append(sinkItems(300), sinktest.Everything("m")...))
	wantMissing(t, s, nil, nil)
	wantMissing(t, s, items, items)
	var there, gone []core.Item
	for i, it := range items {
		if i%3 == 0 || it.Event == nil && it.Dead == nil {
			gone = append(gone, it)
		} else {
			there = append(there, it)
		}
	}
	another := *cfg
	another.TransactionalID, another.Client, another.Encoding, another.Compression = "", clientFranz, encodingStructured, "none"
	other := open(t, &another)
	defer shut(t, other)
	strange := admin(t, cfg)
	defer strange.Close()
	for part := range slices.Chunk(there, 40) {
		if err := s.Write(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		if err := other.Write(t.Context(), sinktest.Events("other", 20, 5)); err != nil {
			t.Fatal(err)
		}
		if err := strange.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.TopicPrefix + "events.v1", Value: []byte("{")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		fenceIn(t, s)
	}
	wantMissing(t, s, items, gone)
	if err := s.Write(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, items, slices.DeleteFunc(slices.Clone(items), func(it core.Item) bool { return it.Event != nil || it.Dead != nil }))
}

// What another gateway wrote is not missing; two equal frames are two.
func TestMissingCountsEqualFrames(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, _ *fake) {
		s, other := open(t, cfg), open(t, cfg)
		defer shut(t, s)
		defer shut(t, other)
		dead := core.Item{Stream: core.StreamDeadLetter, Key: "pbx1", Dead: &core.DeadLetter{Raw: []byte("x"), Received: call.At(time.Now())}}
		if err := other.Write(t.Context(), []core.Item{dead}); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s, []core.Item{dead, dead}, []core.Item{dead})
	})
}

// Items without a time, and topics that are not there.
func TestMissingWithoutTimesAndTopics(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, f *fake) {
		s := open(t, cfg)
		defer shut(t, s)
		items := sinkItems(20)
		for i := range items {
			e := *items[i].Event
			e.Time.Received = 0
			items[i].Event = &e
		}
		if err := s.Write(t.Context(), items[:10]); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s, items, items[10:])
		if f == nil {
			return
		}
		if err := f.DeleteTopic(cfg.topicOf(core.StreamEvents, "").name); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s, items, items)
	})
}

// Compaction takes superseded states away: they are not missing, and writing them would undo the later one.
func TestMissingOnACompactedTopic(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	s := open(t, f.config())
	defer shut(t, s)
	items := stampNow(sinktest.Events("c", 30, 3))
	for i := range items {
		items[i].Stream = core.StreamCalls
	}
	if err := s.Write(t.Context(), append(slices.Clone(items[3:12]), items[15:21]...)); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, items, items[21:])
	wantMissing(t, s, append(slices.Clone(items[:21]), core.Item{Stream: core.StreamCalls, Key: items[0].Key}),
		[]core.Item{{Stream: core.StreamCalls, Key: items[0].Key}})
}

// Missing rides out leaders that move and answers that fail, and says what stopped it.
func TestMissingUnderFaults(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	s := open(t, f.config())
	defer shut(t, s)
	items := stampNow(sinkItems(200))
	if err := s.Write(t.Context(), items[:150]); err != nil {
		t.Fatal(err)
	}
	for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets} {
		for _, e := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError} {
			fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: e, Count: 3})
			f.ShufflePartitionLeaders()
			wantMissing(t, s, items, items[150:])
			fault.Remove()
		}
	}
	f.cutAnswer.Store(2)
	wantMissing(t, s, items, items[150:])

	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1})
	s.cfg.WriteTimeout = 2 * time.Second
	if _, err := s.Missing(t.Context(), items); err == nil || !strings.Contains(err.Error(), "nothing came for 2s") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Missing(ctx, items); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// No bytes of a broker may bring the gateway down.
func FuzzReadBatches(f *testing.F) {
	for name, c := range compressions {
		p, err := newPacker(c)
		if err != nil {
			f.Fatal(err)
		}
		recs := []record{{time: 1, tail: appendTail(nil, "key", []byte("value"), structuredHeaders)}, {time: 2, tail: appendTail(nil, "", nil, nil)}}
		b, err := p.pack(nil, recs, producer{1, 2}, 3)
		if err != nil {
			f.Fatal(name, err)
		}
		f.Add(b[sizeLen:], int64(0), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, offset int64, mend bool) {
		if mend && len(b) >= batchHeader { // so that the checksum does not stop everything
			b = slices.Clone(b)
			mendBatch(b)
		}
		next, _ := eachRecord(b, offset, func(r logRecord) error {
			_ = recordID(&r)
			return nil
		})
		if next < offset {
			t.Errorf("went back from %d to %d", offset, next)
		}
		if a, err := decodeFetch(b); err == nil && a == nil {
			t.Error("neither an answer nor an error")
		}
	})
}

func TestReadBatchesTellsWhatIsDamaged(t *testing.T) {
	p, err := newPacker(compressions["none"])
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.pack(nil, []record{{time: 1, tail: appendTail(nil, "key", []byte("value"), nil)}}, noProducer, -1)
	if err != nil {
		t.Fatal(err)
	}
	b = b[sizeLen:]
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 1
		n := 0
		_, err := eachRecord(bad, 0, func(r logRecord) error {
			n++
			if string(r.key) != "key" || string(r.value) != "value" || r.time != 1 {
				return fmt.Errorf("a wrong record: %q %q %d", r.key, r.value, r.time)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errBatch) {
			t.Errorf("byte %d: %v", i, err)
		}
		if i >= 21 && err == nil {
			t.Errorf("byte %d changed and not noticed", i)
		}
	}
}

func mendBatch(b []byte) {
	put := binary.BigEndian
	put.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	put.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}
