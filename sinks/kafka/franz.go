package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// franz delivers by franz-go's idempotent producer, which has up to five batches of a partition in flight and keeps them in
// order. It never takes back a record that may have been applied; so one whose outcome a Write did not live to see stays
// with it, and is not given to it again when the host offers it again.
type franz struct {
	cl      *kgo.Client
	flights map[target][]*flight // of earlier Writes, in their order, that nobody has heard of yet
}

// flight is one record on its way.
type flight struct {
	tail []byte        // as in record
	done chan struct{} // closed when err is known
	err  error
}

func (f *flight) landed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

const (
	franzBufferedRecords = 1 << 17   // of Writes that gave up, and of the present one
	franzBufferedBytes   = 256 << 20 // likewise
)

// newFranz connects to nothing yet. Without a producer id, which the cluster may refuse, one request is in flight at a time.
func newFranz(c *Config, idempotent bool) (*franz, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID(c.ClientID), kgo.DialTimeout(c.DialTimeout),
		kgo.Dialer(func(ctx context.Context, _, host string) (net.Conn, error) { return c.connect(ctx, host) }),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ManualFlushing(),
		kgo.ProducerBatchCompression(franzCodec(c.Compression)), kgo.ProducerBatchMaxBytes(int32(c.BatchBytes)),
		kgo.MaxBufferedRecords(franzBufferedRecords), kgo.MaxBufferedBytes(franzBufferedBytes),
		kgo.ProduceRequestTimeout(c.RequestTimeout * 9 / 10), kgo.RequestTimeoutOverhead(max(c.RequestTimeout/10, 100*time.Millisecond)),
		kgo.MetadataMaxAge(maxAge), kgo.MetadataMinAge(100 * time.Millisecond), kgo.ConnIdleTimeout(maxIdle),
		kgo.RetryBackoffFn(func(try int) time.Duration { return min(20*time.Millisecond<<min(try, 10), 2*time.Second) }),
	}
	if c.SASL.Mechanism != "" {
		opts = append(opts, kgo.SASL(c.SASL.franz()))
	}
	if !idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("setting up franz-go: %w", err)
	}
	return &franz{cl: cl, flights: make(map[target][]*flight)}, nil
}

func franzCodec(name string) kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[name]
}

// franz reads the password at each login, so that a rotated one is picked up.
func (s *SASL) franz() sasl.Mechanism {
	reveal := func(context.Context) (string, error) {
		password, err := s.Password.Reveal()
		if err != nil {
			return "", fmt.Errorf("sasl.password: %w", err)
		}
		return password, nil
	}
	login := func(ctx context.Context) (scram.Auth, error) {
		password, err := reveal(ctx)
		return scram.Auth{User: s.Username, Pass: password}, err
	}
	switch s.Mechanism {
	case mechanismSCRAM256:
		return scram.Sha256(login)
	case mechanismSCRAM512:
		return scram.Sha512(login)
	}
	return plain.Plain(func(ctx context.Context) (plain.Auth, error) {
		password, err := reveal(ctx)
		return plain.Auth{User: s.Username, Pass: password}, err
	})
}

func (f *franz) close() { f.cl.Close() }

func (f *franz) deliver(ctx context.Context, d *delivery) {
	d.run(ctx, func(ctx context.Context) bool { return f.round(ctx, d) })
}

// round gives the producer what each partition is owed, waits for the outcomes, and settles them. It reports whether any
// record was accepted.
func (f *franz) round(ctx context.Context, d *delivery) (progress bool) {
	d.trouble = nil
	var under []*flight
	for _, q := range d.sorted() {
		under = append(under, f.launch(d.s.cfg, q)...)
	}
	err := f.await(ctx, d, under)
	for _, q := range d.sorted() {
		progress = f.settle(ctx, d, q) || progress
	}
	if err != nil {
		d.giveBackAll(err)
	}
	return progress
}

// launch puts q's next records on their way and returns those under way; or only finds those that are from an earlier
// Write: what follows them waits for their outcome, for if they fail it must not be there before them.
func (f *franz) launch(c *Config, q *queue) []*flight {
	q.err = errSlow
	if known := f.recognize(q); len(known) > 0 {
		q.sent = len(known)
		return known
	}
	if q.sent = franzBatch(c, q); q.sent == 0 { // it would refuse this one and take the next
		q.sent, q.err = 1, kafkago.MessageSizeTooLarge
		return nil
	}
	under := make([]*flight, q.sent)
	for i, r := range q.recs[:q.sent] {
		fl := &flight{tail: bytes.Clone(r.tail), done: make(chan struct{})}
		under[i] = fl
		f.cl.Produce(context.Background(), franzRecord(q.to, r.time, fl.tail), func(_ *kgo.Record, err error) {
			fl.err = err
			close(fl.done)
		})
	}
	f.flights[q.to] = under
	return under
}

// franzBatch counts the records of q that go together: none, if the first is too large for a batch.
func franzBatch(c *Config, q *queue) (n int) {
	for _, r := range q.recs {
		if len(r.tail)+batchHeader+recordExtra > c.BatchBytes || q.limit > 0 && n == q.limit {
			break
		}
		n++
	}
	return n
}

// recognize returns the flights of an earlier Write that q begins with. When q is about something else they are left to
// themselves, ahead of it.
func (f *franz) recognize(q *queue) []*flight {
	known := f.flights[q.to]
	for i, fl := range known {
		if i == len(q.recs) || !bytes.Equal(fl.tail, q.recs[i].tail) {
			known = known[:i]
			break
		}
	}
	if len(known) == 0 {
		delete(f.flights, q.to)
	}
	return known
}

func franzRecord(to target, unixMilli int64, tail []byte) *kgo.Record {
	w := wire{b: tail}
	r := &kgo.Record{Topic: to.topic, Partition: to.partition, Timestamp: time.UnixMilli(unixMilli)}
	r.Key, r.Value = w.bytes(), w.bytes()
	for range w.varint() {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(w.bytes()), Value: w.bytes()})
	}
	return r
}

// await lets the producer send until all have landed, or ctx ends. Its error says what somebody must change first: the
// producer would retry a refused login for ever.
func (f *franz) await(ctx context.Context, d *delivery, under []*flight) error {
	ctx, cancel := context.WithCancel(ctx)
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		_ = f.cl.Flush(ctx) // its only error is ctx's
	}()
	defer func() { cancel(); <-flushed }()
	tick := time.NewTicker(d.s.cfg.RequestTimeout)
	defer tick.Stop()
	for _, fl := range under {
		for !fl.landed() {
			select {
			case <-fl.done:
			case <-ctx.Done():
				return nil
			case <-tick.C:
				d.complain(errSlow)
				if err := d.s.cl.refresh(ctx, nil); core.IsPermanent(err) {
					return err
				}
			}
		}
	}
	return nil
}

var errSlow = errors.New("no answer within request_timeout")

// settle acts on the outcomes of q's records and reports whether any was accepted. Those behind one that failed have failed
// with it; those behind one that is still on its way are, too.
func (f *franz) settle(ctx context.Context, d *delivery, q *queue) (progress bool) {
	under := f.flights[q.to]
	n := 0
	for n < len(under) && n < q.sent && under[n].landed() && under[n].err == nil {
		n++
	}
	f.flights[q.to] = under[n:]
	if n > 0 {
		q.recs, q.sent, q.err = q.recs[n:], q.sent-n, errSlow
	}
	if len(q.recs) == 0 {
		delete(d.queues, q.to)
	}
	if q.sent == 0 {
		q.limit = 0
		return n > 0
	}
	if n < len(under) && under[n].landed() {
		q.err = franzError(under[n].err)
		delete(f.flights, q.to)
		f.forget(q)
	}
	switch judge(q.err) {
	case tooLarge:
		d.split(ctx, q)
	case refused:
		d.giveBack(q, refusal(q.to.topic, q.err))
	default:
		d.trouble = q.err
	}
	return n > 0
}

// forget drops what the producer knows of a topic that was deleted, and perhaps made again under another topic id.
func (f *franz) forget(q *queue) {
	if code := q.err; errors.Is(code, kafkago.UnknownTopicOrPartition) || errors.Is(code, kafkago.UnknownTopicID) {
		f.cl.PurgeTopicsFromProducing(q.to.topic)
	}
}

// franzError has the error codes that judge knows.
func franzError(err error) error {
	var code *kerr.Error
	if errors.As(err, &code) {
		return kafkago.Error(code.Code)
	}
	return err
}
