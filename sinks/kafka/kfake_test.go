package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/sinktest"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an in-process cluster whose connections can be cut after a request was applied and before it is answered.
type fake struct {
	*kfake.Cluster
	cutAnswer atomic.Int32 // this many answers are replaced by a hang-up
	login     []kgo.Opt    // of the client that reads back
	mends     []func()     // of faults that a test left
	client    string       // of config; empty: kafka-go
}

// eachClient runs a test with both libraries.
func eachClient(t *testing.T, test func(t *testing.T, client string)) {
	for _, client := range []string{clientKafkaGo, clientFranz} {
		t.Run(client, func(t *testing.T) { test(t, client) })
	}
}

func newFake(t testing.TB, opts ...kfake.Opt) *fake {
	t.Helper()
	f := &fake{}
	opts = append([]kfake.Opt{kfake.NumBrokers(3), kfake.ListenFn(func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		return &cutter{l, f}, err
	})}, opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	f.Cluster = c
	return f
}

type cutter struct {
	net.Listener
	f *fake
}

func (l *cutter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &cutConn{c, l.f}, err
}

type cutConn struct {
	net.Conn
	f *fake
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.f.cutAnswer.Load() > 0 && c.f.cutAnswer.Add(-1) >= 0 {
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// config is for tests: few partitions, and time for a busy machine.
func (f *fake) config() *Config {
	cfg := NewConfig()
	cfg.Brokers = f.ListenAddrs()
	if f.client != "" {
		cfg.Client = f.client
	}
	cfg.Partitions = 3
	cfg.RequestTimeout = 5 * time.Second
	return cfg
}

func open(t testing.TB, cfg *Config) *Sink {
	t.Helper()
	if errs := cfg.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	s, err := cfg.Open(context.Background(), core.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Sink)
}

// openHasty is open for a config whose requests end soon, on a busy machine also those of Open: the host tries again, too.
func openHasty(t testing.TB, cfg *Config) *Sink {
	t.Helper()
	for range 10 {
		if s, err := cfg.Open(context.Background(), core.Env{}); err == nil {
			return s.(*Sink)
		}
	}
	return open(t, cfg)
}

// shut closes a sink. The test's own context may be over by then.
func shut(t testing.TB, s core.Sink) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// records reads every topic from its beginning to its present end, with a client that is not ours.
func (f *fake) records() ([]*kgo.Record, error) {
	var total int64
	var topics []string
	for _, name := range f.topicNames() {
		topics = append(topics, name)
		for _, p := range f.PartitionInfos(name) {
			total += p.HighWatermark
		}
	}
	if total == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(append(f.login, kgo.SeedBrokers(f.ListenAddrs()...), kgo.ConsumeTopics(topics...),
		kgo.FetchMaxWait(10*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var got []*kgo.Record
	for int64(len(got)) < total {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return got, err
		}
		got = append(got, fetches.Records()...)
	}
	return got, nil
}

func (f *fake) topicNames() (names []string) {
	for _, s := range append(slices.Clone(streams), "raw.pbx1") {
		if name := "cti." + string(s) + ".v1"; f.TopicInfo(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// delivered turns records of the binary content mode into what the conformance suite compares.
func (f *fake) delivered() ([]sinktest.Delivered, error) {
	recs, err := f.records()
	var ds []sinktest.Delivered
	for _, r := range recs {
		stream, _, _ := strings.Cut(strings.TrimPrefix(r.Topic, "cti."), ".")
		d := sinktest.Delivered{Stream: core.Stream(stream), Key: string(r.Key), ID: header(r, "ce_id"), Data: r.Value}
		if r.Value == nil {
			d.ID = sinktest.Tombstone
		}
		ds = append(ds, d)
	}
	return ds, err
}

// fail answers produce requests with a code until mended.
func (f *fake) fail(err *kerr.Error, count int) func() (mend func()) {
	return func() func() {
		return f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: count}).Remove
	}
}

// control runs on produce requests until mended; it returns whether the connection is to be cut, and whether the
// request is to be left unanswered.
func (f *fake) control(fn func() (cut, silent bool)) func() (mend func()) {
	return func() func() {
		var mended atomic.Bool
		f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			if mended.Load() {
				f.DropControl()
				return nil, nil, false
			}
			f.KeepControl()
			cut, silent := fn()
			if cut {
				return nil, errors.New("cut"), true
			}
			return nil, nil, silent
		})
		return func() { mended.Store(true); f.cutAnswer.Store(0) }
	}
}

// times returns true n times.
func times(n int32) func() bool {
	var used atomic.Int32
	return func() bool { return used.Add(1) <= n }
}

// hastily has Write give up soon while a fault lasts.
func hastily(cfg *Config, fault func() (mend func())) func() (mend func()) {
	patient := cfg.WriteTimeout
	return func() func() {
		cfg.WriteTimeout = 2 * time.Second
		mend := fault()
		return func() { cfg.WriteTimeout = patient; mend() }
	}
}

func (f *fake) faults(cfg *Config) map[string]func() (mend func()) {
	cutTwice, cutAfter, silentOnce := times(2), times(2), times(1)
	return map[string]func() (mend func()){
		"a moved leader":                       f.fail(kerr.NotLeaderForPartition, 3),
		"too few replicas":                     f.fail(kerr.NotEnoughReplicas, 2),
		"a time-out after the append":          f.fail(kerr.RequestTimedOut, 2),
		"too few replicas after the append":    f.fail(kerr.NotEnoughReplicasAfterAppend, 2),
		"a disk error":                         f.fail(kerr.KafkaStorageError, 1),
		"a missing right":                      f.fail(kerr.TopicAuthorizationFailed, -1),
		"a policy that forbids":                f.fail(kerr.PolicyViolation, -1),
		"a clock that is off":                  f.fail(kerr.InvalidTimestamp, -1),
		"a fenced producer":                    f.fail(kerr.ProducerFenced, 1),
		"lost sequence numbers":                f.fail(kerr.OutOfOrderSequenceNumber, 1),
		"brokers that refuse everything":       hastily(cfg, f.fail(kerr.NotEnoughReplicas, -1)),
		"appends that are never acknowledged":  hastily(cfg, f.fail(kerr.RequestTimedOut, -1)),
		"a connection cut before the append":   f.control(func() (bool, bool) { return cutTwice(), false }),
		"a broker that does not answer once":   f.control(func() (bool, bool) { return false, silentOnce() }),
		"a broker that does not answer at all": hastily(cfg, f.control(func() (bool, bool) { return false, true })),
		"a connection cut after the append": f.control(func() (bool, bool) {
			if cutAfter() {
				f.cutAnswer.Store(1)
			}
			return false, false
		}),
		"leaders that really move": func() func() { f.ShufflePartitionLeaders(); return func() {} },
	}
}

func TestConformance(t *testing.T) { eachClient(t, testConformance) }

func testConformance(t *testing.T, client string) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		f := newFake(t)
		f.client = client
		cfg := f.config()
		cfg.RequestTimeout = 500 * time.Millisecond
		return &sinktest.Harness{Sink: openHasty(t, cfg), Read: f.delivered, Stop: f.Close, Faults: f.faults(cfg), Always: true}
	})
}
