package kafka

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The known values are from org.apache.kafka.common.utils.UtilsTest.
func TestMurmur2IsJavas(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string":                       -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2(key)); got != want {
			t.Errorf("murmur2(%q): got %d, want %d", key, got, want)
		}
	}
}

func FuzzPartitionAgreesWithOtherClients(f *testing.F) {
	f.Add("", 1)
	f.Add("0f6f8d2e-5b1c-5e7e-9a55-6f1f5c1d0a01", 12)
	franz := kgo.StickyKeyPartitioner(nil)
	balancer := kafkago.Murmur2Balancer{Consistent: true}
	f.Fuzz(func(t *testing.T, key string, n int) {
		if n < 1 || n > 1000 || key == "" {
			return
		}
		parts := make([]int, n)
		for i := range parts {
			parts[i] = i
		}
		got := int(partition(key, n))
		if want := franz.ForTopic("t").Partition(&kgo.Record{Key: []byte(key)}, n); got != want {
			t.Errorf("%q of %d: got %d, franz-go says %d", key, n, got, want)
		}
		if want := balancer.Balance(kafkago.Message{Key: []byte(key)}, parts...); got != want {
			t.Errorf("%q of %d: got %d, kafka-go says %d", key, n, got, want)
		}
	})
}

// Every codec is read back by another client.
func TestCompressions(t *testing.T) { eachClient(t, testCompressions) }

func testCompressions(t *testing.T, client string) {
	for name := range compressions {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.client = client
			defer f.Close()
			cfg := f.config()
			cfg.Compression = name
			s := open(t, cfg)
			defer shut(t, s)
			items := sinkItems(40)
			if err := s.Write(t.Context(), items); err != nil {
				t.Fatal(err)
			}
			got, err := f.records()
			if err != nil || len(got) != len(items) {
				t.Fatalf("read %d records, %v, want %d", len(got), err, len(items))
			}
			data := map[string]string{}
			for _, it := range items {
				b, _ := cloudevents.Data(it)
				data[it.Event.ID] = string(b)
			}
			for _, r := range got {
				if want := data[header(r, "ce_id")]; string(r.Value) != want {
					t.Errorf("%s: got %q, want %q", header(r, "ce_id"), r.Value, want)
				}
			}
		})
	}
}

func TestRecordTimeIsWhenWeReceivedIt(t *testing.T) { eachClient(t, testRecordTimeIsWhenWeReceivedIt) }

func testRecordTimeIsWhenWeReceivedIt(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	s := open(t, f.config())
	defer shut(t, s)
	items := sinkItems(4)
	for i := range items[:3] {
		items[i].Event.Time.Received = call.At(time.Date(2025, 1, 2, 3, 4, i, 5e6, time.UTC))
	}
	items[3].Event.Time.Received = call.At(time.Now().Add(48 * time.Hour))
	if err := s.Write(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	got, err := f.records()
	if err != nil || len(got) != 4 {
		t.Fatalf("got %d records, %v", len(got), err)
	}
	for _, r := range got {
		if header(r, "ce_id") == items[3].Event.ID {
			if r.Timestamp.After(time.Now()) {
				t.Errorf("record time %s is ahead of now, which brokers refuse", r.Timestamp)
			}
			continue
		}
		want := header(r, "ce_recordedtime")
		if have := r.Timestamp.UTC().Format("2006-01-02T15:04:05.000"); !strings.HasPrefix(want, have) {
			t.Errorf("record time %s, recordedtime %s", have, want)
		}
	}
}

func TestStructuredEncoding(t *testing.T) { eachClient(t, testStructuredEncoding) }

func testStructuredEncoding(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	cfg := f.config()
	cfg.Encoding = encodingStructured
	s := open(t, cfg)
	defer shut(t, s)
	items := sinkItems(1)
	dead := core.Item{Stream: core.StreamDeadLetter, Key: "pbx1", Dead: &core.DeadLetter{Reason: "empty frame"}}
	if err := s.Write(t.Context(), append(items, dead)); err != nil {
		t.Fatal(err)
	}
	got, err := f.records()
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d records, %v", len(got), err)
	}
	for _, r := range got {
		if r.Topic == "cti.deadletter.v1" {
			if r.Value == nil || len(r.Value) != 0 || header(r, "reason") != "empty frame" {
				t.Errorf("dead letter: value %q, reason %q", r.Value, header(r, "reason"))
			}
			continue
		}
		want, _ := cloudevents.Structured(items[0])
		if string(r.Value) != string(want) || !strings.HasPrefix(header(r, "content-type"), "application/cloudevents+json") {
			t.Errorf("got %s, content-type %q", r.Value, header(r, "content-type"))
		}
	}
}

func BenchmarkPack(b *testing.B) {
	for _, name := range []string{"none", "lz4", "snappy", "zstd", "gzip"} {
		for _, n := range []int{2, 300} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { benchPack(b, compressions[name], n) })
		}
	}
}

func benchPack(b *testing.B, c compress.Compression, n int) {
	p, err := newPacker(c)
	if err != nil {
		b.Fatal(err)
	}
	recs := sampleRecords(b, n)
	size := 0
	for _, r := range recs {
		size += len(r.tail)
	}
	var out []byte
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if out, err = p.pack(out[:0], recs, noProducer, -1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)/float64(len(out)), "ratio")
}

func sampleRecords(b *testing.B, n int) []record {
	var enc cloudevents.Encoder
	var recs []record
	for i, it := range sinkItems(n) {
		value, headers, err := enc.AppendBinary(nil, nil, &it)
		if err != nil {
			b.Fatal(err)
		}
		recs = append(recs, record{item: i, time: timestamp(&it), tail: appendTail(nil, it.Key, value, headers)})
	}
	return recs
}
