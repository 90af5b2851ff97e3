package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/sinktest"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hurt is a wire that does not carry everything: the next so many produce requests meet each fate.
type hurt struct {
	cutBefore  atomic.Int32 // the connection breaks before the broker has the request
	cutAfter   atomic.Int32 // it breaks after the broker has applied it, before the answer
	swallow    atomic.Int32 // the answer, and whatever follows on that connection, never comes
	requests   atomic.Int32
	unanswered atomic.Int32
}

type hurtConn struct {
	net.Conn
	h    *hurt
	fate atomic.Int32
}

const (
	fateCut = iota + 1
	fateSwallow
)

func (h *hurt) wrap(c net.Conn) net.Conn { return &hurtConn{Conn: c, h: h} }

func spend(n *atomic.Int32) bool { return n.Load() > 0 && n.Add(-1) >= 0 }

// Write recognizes a produce request by its header: size, api key 0, a version.
func (c *hurtConn) Write(b []byte) (int, error) {
	if len(b) > 8 && binary.BigEndian.Uint16(b[4:]) == 0 && b[6] == 0 && b[7] >= 3 && b[7] <= 13 {
		c.h.requests.Add(1)
		switch {
		case spend(&c.h.cutBefore):
			c.Close()
			return 0, net.ErrClosed
		case spend(&c.h.cutAfter):
			c.fate.Store(fateCut)
		case spend(&c.h.swallow):
			c.fate.Store(fateSwallow)
		}
	}
	return c.Conn.Write(b)
}

// Read waits for the answer, which the broker gives when it has applied the request, and keeps it.
func (c *hurtConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch fate := c.fate.Load(); {
	case err != nil || fate == 0:
		return n, err
	case fate == fateCut:
		c.h.unanswered.Add(1)
		c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	c.h.unanswered.Add(1)
	for err == nil {
		_, err = c.Conn.Read(b)
	}
	return 0, err
}

// ledger is what was offered, and how it went.
type ledger struct {
	sent     []string
	gaveUp   int // Writes
	writes   []time.Duration
	duration time.Duration
}

// drive offers n batches as the host does: what failed is offered again, together with what has come since, before
// anything later. spoil comes between two, mend when all has been offered once.
func drive(t testing.TB, s core.Sink, rng *rand.Rand, n int, spoil, mend func()) ledger {
	t.Helper()
	var l ledger
	next := make(map[string]int)
	var owed []core.Item
	began := time.Now()
	for i := 0; i < n || len(owed) > 0; i++ {
		if i > n+60 {
			t.Fatalf("%d items are still owed", len(owed))
		}
		if i < n {
			for range 1 + rng.IntN(40) {
				owed = append(owed, numbered(fmt.Sprint("key", rng.IntN(20)), next))
			}
			spoil()
		} else {
			mend()
		}
		at := time.Now()
		err := s.Write(t.Context(), owed)
		l.writes = append(l.writes, time.Since(at))
		var be *core.BatchError
		if err != nil && !errors.As(err, &be) {
			t.Fatal(err)
		}
		var failed []core.Item
		for j, it := range owed {
			if be != nil && be.Failed[j] != nil {
				failed = append(failed, it)
				continue
			}
			l.sent = append(l.sent, it.Event.ID)
		}
		if owed = failed; be != nil {
			l.gaveUp++
		}
	}
	l.duration = time.Since(began)
	return l
}

var template = sinktest.Events("p", 1, 1)[0]

// numbered is the next event of a key.
func numbered(key string, next map[string]int) core.Item {
	next[key]++
	it, e := template, *template.Event
	e.ID = fmt.Sprintf("%s-%06d", key, next[key])
	it.Key, it.Event = key, &e
	return it
}

// verdict compares what was offered with the log.
type verdict struct{ duplicates, passed, lost, invented int }

func judgeLog(log, sent []string) (v verdict) {
	offered, seen, last := make(map[string]bool), make(map[string]bool), make(map[string]string)
	for _, id := range sent {
		offered[id] = true
	}
	for _, id := range log {
		key, _, _ := strings.Cut(id, "-")
		switch {
		case seen[id]:
			v.duplicates++
			continue
		case !offered[id]:
			v.invented++
		case id < last[key]:
			v.passed++
		}
		seen[id], last[key] = true, max(last[key], id)
	}
	v.lost = len(offered) - len(seen) + v.invented
	return v
}

// evils are the faults between two Writes. Not all are there on a real broker.
func evils(f *fake, h *hurt) map[string]func(rng *rand.Rand) {
	all := map[string]func(rng *rand.Rand){
		"answers cut":       func(rng *rand.Rand) { h.cutAfter.Store(1 + rng.Int32N(2)) },
		"answers swallowed": func(rng *rand.Rand) { h.swallow.Store(1 + rng.Int32N(4)) },
		"requests cut":      func(rng *rand.Rand) { h.cutBefore.Store(1 + rng.Int32N(3)) },
	}
	if f == nil {
		return all
	}
	for _, e := range []*kerr.Error{kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotLeaderForPartition} {
		all[e.Message] = func(rng *rand.Rand) {
			f.mends = append(f.mends, f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: e, Count: 1 + rng.IntN(8)}).Remove)
		}
	}
	all["leaders move"] = func(*rand.Rand) { f.ShufflePartitionLeaders() }
	return all
}

// mixed is all evils at once, at random.
func mixed(all map[string]func(*rand.Rand)) func(*rand.Rand) {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return func(rng *rand.Rand) {
		for _, name := range names {
			if rng.IntN(6) == 0 {
				all[name](rng)
			}
		}
	}
}

// TestTwoProducers writes through faults with each library and prints what came of it (-v). It fails on what the sink
// promises: nothing lost, no later event of a key before an earlier one, nothing twice while the process lives.
func TestTwoProducers(t *testing.T) {
	onBrokers(t, func(t *testing.T, base *Config, f *fake) {
		h := &hurt{}
		all := evils(f, h)
		all["all of these"] = mixed(evils(f, h))
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		t.Logf("%-46s %-10s %6s %6s %5s %5s %5s %5s", "fault", "client", "items", "unans.", "gave", "twice", "passed", "lost")
		for i, name := range names {
			for _, client := range []string{clientKafkaGo, clientFranz} {
				cfg := *base
				cfg.Client, cfg.wrap = client, h.wrap
				cfg.TopicPrefix = fmt.Sprintf("%s%d.%s.", base.TopicPrefix, i, client)
				shut(t, open(t, &cfg)) // makes the topics, in its time
				cfg.RequestTimeout, cfg.WriteTimeout = 200*time.Millisecond, 500*time.Millisecond
				v := underFault(t, &cfg, openHasty(t, &cfg), f, h, name, all[name])
				if v != (verdict{}) {
					t.Errorf("%s, %s: %+v", name, client, v)
				}
			}
			if many() {
				cfg := *base
				cfg.Client, cfg.wrap, cfg.TopicPrefix = "Writer", h.wrap, fmt.Sprintf("%s%d.writer.", base.TopicPrefix, i)
				underFault(t, &cfg, newPlainWriter(t, &cfg), f, h, name, all[name])
			}
		}
	})
}

// many asks for long runs, and for the library's own Writer beside the two.
func many() bool { return os.Getenv("CTIGATE_TEST_KAFKA_LONG") != "" }

func underFault(t *testing.T, cfg *Config, s core.Sink, f *fake, h *hurt, name string, spoil func(*rand.Rand)) verdict {
	t.Helper()
	defer shut(t, s)
	batches := 15
	if many() {
		batches = 60
	}
	h.unanswered.Store(0)
	rng := rand.New(rand.NewPCG(1, 2))
	l := drive(t, s, rng, batches, func() {
		if rng.IntN(3) == 0 {
			spoil(rng)
		}
	}, func() { mendAll(f, h) })
	mendAll(f, h)
	log := consumed(t, cfg, map[string]int{cfg.TopicPrefix + "events.v1": cfg.Partitions}, kgo.ReadUncommitted())
	v := judgeLog(log, l.sent)
	t.Logf("%-46.46s %-10s %6d %6d %5d %5d %5d %5d", name, cfg.Client, len(l.sent), h.unanswered.Load(), l.gaveUp, v.duplicates, v.passed, v.lost)
	return v
}

// plainWriter is kafka-go's own Writer with settings that lose nothing, for comparison.
type plainWriter struct {
	w     *kafkago.Writer
	topic string
}

func newPlainWriter(t *testing.T, cfg *Config) *plainWriter {
	t.Helper()
	sinkCfg := *cfg
	sinkCfg.Client, sinkCfg.wrap = clientKafkaGo, nil
	shut(t, open(t, &sinkCfg)) // makes the topics
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) { return cfg.connect(ctx, addr) }
	return &plainWriter{&kafkago.Writer{
		Addr: kafkago.TCP(cfg.Brokers...), Balancer: kafkago.Murmur2Balancer{Consistent: true}, RequiredAcks: kafkago.RequireAll,
		BatchTimeout: time.Millisecond, ReadTimeout: 200 * time.Millisecond, WriteTimeout: 200 * time.Millisecond, MaxAttempts: 3,
		Transport: &kafkago.Transport{Dial: dial},
	}, cfg.topicOf(core.StreamEvents, "").name}
}

func (p *plainWriter) Write(ctx context.Context, batch []core.Item) error {
	var msgs []kafkago.Message
	for _, it := range batch {
		msgs = append(msgs, kafkago.Message{Topic: p.topic, Key: []byte(it.Key), Headers: []kafkago.Header{{Key: headerID, Value: []byte(it.Event.ID)}}})
	}
	var each kafkago.WriteErrors
	err := p.w.WriteMessages(ctx, msgs...)
	if err == nil {
		return nil
	}
	failed := make(map[int]error)
	for i := range batch {
		if !errors.As(err, &each) {
			failed[i] = err
		} else if each[i] != nil {
			failed[i] = each[i]
		}
	}
	return &core.BatchError{Failed: failed}
}

func (p *plainWriter) Close(context.Context) error {
	p.w.Transport.(*kafkago.Transport).CloseIdleConnections()
	return p.w.Close()
}

func mendAll(f *fake, h *hurt) {
	h.cutAfter.Store(0)
	h.cutBefore.Store(0)
	h.swallow.Store(0)
	if f == nil {
		return
	}
	for _, mend := range f.mends {
		mend()
	}
	f.mends = nil
}

// TestTwoProducersRestart kills the real broker in the middle of a run and starts it again, by the shell command in
// CTIGATE_TEST_KAFKA_RESTART.
func TestTwoProducersRestart(t *testing.T) {
	command := os.Getenv("CTIGATE_TEST_KAFKA_RESTART")
	if command == "" {
		t.Skip("CTIGATE_TEST_KAFKA_RESTART is not set: no command that restarts the broker")
	}
	for _, client := range []string{clientKafkaGo, clientFranz} {
		cfg := liveConfig(t)
		cfg.Client, cfg.Partitions = client, 6
		cfg.RequestTimeout, cfg.WriteTimeout = 2*time.Second, 4*time.Second
		s := open(t, cfg)
		rng := rand.New(rand.NewPCG(3, 4))
		done := make(chan error, 1)
		restart := func() {
			out, err := exec.CommandContext(context.Background(), "bash", "-c", command).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			done <- err
		}
		n := 0
		l := drive(t, s, rng, 300, func() {
			if n++; n%100 == 50 {
				go restart()
			}
			if n%100 == 54 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
		}, func() {})
		log := consumed(t, cfg, map[string]int{cfg.TopicPrefix + "events.v1": cfg.Partitions}, kgo.ReadUncommitted())
		v := judgeLog(log, l.sent)
		t.Logf("%-10s %d items, 3 kills of the broker, %d Writes gave up: %+v", client, len(l.sent), l.gaveUp, v)
		if v.lost+v.passed+v.invented > 0 {
			t.Errorf("%s: %+v", client, v)
		}
		shut(t, s)
	}
}

// TestTwoProducersSpeed takes turns between the libraries, so that what else the machine does hits both, and prints their
// ratio (-v).
func TestTwoProducersSpeed(t *testing.T) {
	if os.Getenv("CTIGATE_TEST_KAFKA_SPEED") == "" {
		t.Skip("CTIGATE_TEST_KAFKA_SPEED is not set")
	}
	onBrokers(t, func(t *testing.T, base *Config, _ *fake) {
		items := stampNow(sinkItems(2000))
		sinks := make(map[string]*Sink)
		for _, client := range []string{clientKafkaGo, clientFranz} {
			cfg := *base
			cfg.Client, cfg.Partitions, cfg.RequestTimeout, cfg.WriteTimeout = client, 12, 10*time.Second, 30*time.Second
			cfg.TopicPrefix = base.TopicPrefix + client + "."
			sinks[client] = open(t, &cfg)
			defer shut(t, sinks[client])
		}
		for _, size := range []int{1, 20, 200, 2000} {
			rate := make(map[string]float64)
			waits := make(map[string][]time.Duration)
			for range 6 {
				for client, s := range sinks {
					n, took := 0, time.Duration(0)
					for took < 700*time.Millisecond {
						at := time.Now()
						if err := s.Write(t.Context(), items[:size]); err != nil {
							t.Fatal(err)
						}
						waits[client] = append(waits[client], time.Since(at))
						took += time.Since(at)
						n += size
					}
					rate[client] += float64(n) / took.Seconds() / 6
				}
			}
			for client := range sinks {
				slices.Sort(waits[client])
				t.Logf("batches of %4d, %-8s: %8.0f items/s (%.2f of kafka-go), p50 %s, p99 %s", size, client, rate[client],
					rate[client]/rate[clientKafkaGo], waits[client][len(waits[client])/2], waits[client][len(waits[client])*99/100])
			}
		}
	})
}
