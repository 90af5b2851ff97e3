package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

// Sink delivers to one Kafka cluster. Make one with Config.Open.
type Sink struct {
	cfg *Config
	log *slog.Logger
	cl  *cluster
	via client

	turn   chan struct{} // holds one token: Write and Close take turns
	base   context.Context
	stop   context.CancelFunc // makes a Write in progress give up
	closed bool

	enc     cloudevents.Encoder
	pack    *packer
	value   []byte               // scratch for one item's value
	headers []cloudevents.Header // and for its headers
	arena   []byte               // the records of one Write
	free    [][]byte             // buffers for packed batches

	who      *identity
	by       producer // who's, as this Write began
	doubtful bool     // a batch with our next sequence numbers may have been applied
	seqs     map[target]sequence
	held     map[target]held
	fenced   map[string]int // how many partitions of each topic are known to be closed to earlier writers
	troubled bool           // the last Write had to retry: log changes only

	counts counters
}

type counters struct {
	acknowledged, retried, setAside atomic.Uint64
}

// Stats are running totals since the sink was opened.
type Stats struct {
	Acknowledged uint64 // items that all in-sync replicas have
	Retried      uint64 // batches sent again
	SetAside     uint64 // items too large for their topic, sent to the dead-letter topic instead
}

// Stats may be called at any time, from any goroutine.
func (s *Sink) Stats() Stats {
	return Stats{s.counts.acknowledged.Load(), s.counts.retried.Load(), s.counts.setAside.Load()}
}

// ErrClosed is returned by Write after Close.
var ErrClosed = errors.New("the kafka sink is closed")

var (
	_ core.SinkConfig = (*Config)(nil)
	_ core.Checker    = (*Config)(nil)
	_ core.Sink       = (*Sink)(nil)
	_ core.Resumer    = (*Sink)(nil)
	_ core.Fencer     = (*Sink)(nil)
	_ core.Checker    = (*Sink)(nil)
)

// Open connects, creates the topics that are missing (with create_topics) or refuses to go on without them, and gets a
// producer id, unless that is left to Fence. A refused password is a permanent error; an unreachable cluster is not.
func (c *Config) Open(ctx context.Context, env core.Env) (core.Sink, error) {
	s, err := c.open(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("opening the kafka sink: %w", err)
	}
	return s, nil
}

func (c *Config) open(ctx context.Context, env core.Env) (*Sink, error) {
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	pack, err := newPacker(compressions[c.Compression])
	if err != nil {
		return nil, err
	}
	base, stop := context.WithCancel(context.Background())
	s := &Sink{
		cfg: c, log: log, cl: newCluster(c, log), via: ownBatches{}, turn: make(chan struct{}, 1), base: base, stop: stop, pack: pack,
		who: newIdentity(c.TransactionalID), by: noProducer, seqs: make(map[target]sequence), held: make(map[target]held), fenced: make(map[string]int),
	}
	s.turn <- struct{}{}
	if err := s.start(ctx); err != nil {
		stop()
		s.cl.close()
		return nil, err
	}
	return s, nil
}

func (s *Sink) start(ctx context.Context) error {
	want := s.cfg.topics()
	if err := s.cl.ensure(ctx, want); err != nil {
		return err
	}
	if err := s.cl.policies(ctx, want); err != nil {
		return err
	}
	if s.cfg.TransactionalID != "" {
		return nil // a sink that only stands by must not shut out the one that writes
	}
	by, err := s.cl.producerID(ctx)
	if err != nil || s.cfg.Client != clientFranz {
		s.who.become(by)
		return err
	}
	s.via, err = newFranz(s.cfg, by != noProducer) // it gets an id of its own
	return err
}

// Write delivers the batch and returns nil once every item is acknowledged by all in-sync replicas, else a
// *core.BatchError. It retries in place for up to write_timeout; what it returns as failed may be offered again. Only an
// item that cannot be delivered for what is in it is permanently failed. Missing rights, quotas and policies fail their
// items at once and retryably. So do refused passwords, certificates and topics that somebody must create, which also make
// the error as a whole a permanent one: the host is to wait longer, not to discard. An item that is too large for its topic is set aside: its first 64 KiB go to the dead-letter topic with the reason, and
// it counts as delivered, for no retry would help it. Once another sink with the same TransactionalID has been fenced in,
// the error wraps core.ErrFenced.
func (s *Sink) Write(ctx context.Context, batch []core.Item) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	defer context.AfterFunc(s.base, cancel)()

	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("writing to kafka: %w", err)
	}
	s.cl.refreshOld(ctx)
	d := delivery{s: s, batch: batch, queues: make(map[target]*queue), unknown: make(map[string]error)}
	d.enqueue(ctx)
	s.via.deliver(ctx, &d)
	s.enc.Reset()
	s.counts.acknowledged.Add(uint64(len(batch) - len(d.failed)))
	return d.outcome()
}

// outcome is what Write returns. A permanent error around the *core.BatchError tells the host to take its time, so that
// failed logins do not lock the user out. Nothing is lost by that: the items themselves are to be offered again.
func (d *delivery) outcome() error {
	if len(d.failed) == 0 {
		return nil
	}
	err := &core.BatchError{Failed: d.failed}
	if out := d.s.who.refuses(); out != nil {
		return fmt.Errorf("writing to kafka: %w (%w)", out, err)
	}
	if d.lasting {
		return core.Permanent(err)
	}
	return err
}

func (s *Sink) enter(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("writing to kafka: %w", ctx.Err())
	case <-s.turn:
	}
	if s.closed || ctx.Err() != nil {
		defer s.leave()
		if s.closed {
			return ErrClosed
		}
		return fmt.Errorf("writing to kafka: %w", ctx.Err())
	}
	return nil
}

func (s *Sink) leave() { s.turn <- struct{}{} }

// alone does something while no Write is under way, until the sink is closed. what is for the error.
func (s *Sink) alone(ctx context.Context, what string, do func(context.Context) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.base, cancel)()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Close waits for a Write in progress until ctx ends, then makes it give up. Nothing is buffered between Writes.
func (s *Sink) Close(ctx context.Context) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		s.stop()
		<-s.turn
	}
	defer s.leave()
	s.stop()
	s.closed = true
	s.via.close()
	s.cl.close()
	return nil
}

// Check probes the cluster over connections of its own and changes nothing.
func (s *Sink) Check(ctx context.Context) []core.Finding { return s.cfg.Check(ctx) }
