package kafka

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/twmb/franz-go/pkg/kgo"
)

// liveConfig points at the broker named by CTIGATE_TEST_KAFKA (host:port), under topics of the test's own.
func liveConfig(t testing.TB) *Config {
	t.Helper()
	addr := os.Getenv("CTIGATE_TEST_KAFKA")
	if addr == "" {
		t.Skip("CTIGATE_TEST_KAFKA is not set: no Kafka to test with")
	}
	cfg := NewConfig()
	cfg.Brokers = strings.Split(addr, ",")
	cfg.TopicPrefix = "test" + time.Now().UTC().Format("150405.000000") + "."
	return cfg
}

func TestLiveCheckOpenWriteRead(t *testing.T) {
	cfg := liveConfig(t)
	if fails := findings(cfg.Check(t.Context()), core.Fail); len(fails) != 0 {
		t.Fatalf("before the topics exist: %q", fails)
	}
	s := open(t, cfg)
	defer shut(t, s)
	if fails := findings(cfg.Check(t.Context()), core.Fail); len(fails) != 0 {
		t.Fatalf("after Open: %q", fails)
	}
	items := sinkItems(5000)
	for batch := range slices.Chunk(items, 700) {
		if err := s.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if s.by == noProducer {
		t.Error("no producer id")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.ConsumeTopics(cfg.TopicPrefix+"events.v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next := map[string]int{}
	for n := 0; n < len(items); {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d", n, len(items))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			key := string(r.Key)
			if want := items[keyIndex(items, key)+50*next[key]].Event.ID; header(r, "ce_id") != want {
				t.Errorf("key %s: got %s, want %s", key, header(r, "ce_id"), want)
			}
			next[key]++
			n++
		})
	}
}

func keyIndex(items []core.Item, key string) int {
	return slices.IndexFunc(items[:50], func(it core.Item) bool { return it.Key == key })
}

// BenchmarkLiveThroughput writes batches as a busy host would.
func BenchmarkLiveThroughput(b *testing.B) {
	s := open(b, liveConfig(b))
	defer shut(b, s)
	items := sinkItems(2000)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Write(b.Context(), items); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(items))/b.Elapsed().Seconds(), "items/s")
}

// BenchmarkLiveLatency offers an item each millisecond; each Write takes what has come meanwhile. It reports how long
// items waited for their acknowledgement.
func BenchmarkLiveLatency(b *testing.B) {
	s := open(b, liveConfig(b))
	defer shut(b, s)
	items := sinkItems(1000)
	if err := s.Write(b.Context(), items); err != nil { // connections, topics
		b.Fatal(err)
	}
	var waits []time.Duration
	for b.Loop() {
		waits = append(waits, paced(b, s, items)...)
	}
	slices.Sort(waits)
	b.ReportMetric(waits[len(waits)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(waits[len(waits)*99/100].Seconds()*1000, "p99-ms")
	b.ReportMetric(waits[len(waits)-1].Seconds()*1000, "max-ms")
}

func paced(b *testing.B, s *Sink, items []core.Item) (waits []time.Duration) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for done := 0; done < len(items); {
		<-tick.C
		due := min(int(time.Since(began)/time.Millisecond), len(items))
		if due == done {
			continue
		}
		if err := s.Write(b.Context(), items[done:due]); err != nil {
			b.Fatal(err)
		}
		for i := done; i < due; i++ {
			waits = append(waits, time.Since(began)-time.Duration(i+1)*time.Millisecond)
		}
		done = due
	}
	return waits
}
