package kafka

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
)

// LogConfig is the settings of a Log.
type LogConfig struct {
	Topic     string        // made with one partition if it does not exist
	Retention time.Duration // of a topic that is made; 0: for ever
	MaxEntry  int           // bytes of one entry; 0: DefaultMaxEntry. A topic that is made takes batches of that size.
}

// DefaultMaxEntry is the largest entry a Log takes unless told otherwise, in bytes: what a topic takes that has Kafka's
// default.
const DefaultMaxEntry = 1<<20 - batchOverhead

// batchOverhead is what a record batch of one record adds to it at most, uncompressed or not compressible.
const batchOverhead = 64 << 10

// Entry is one record of a Log.
type Entry struct {
	Offset int64
	Time   time.Time // when it was appended, by the writer's clock, in milliseconds
	Data   []byte
}

// Page is what one ReadFrom found.
type Page struct {
	Entries []Entry
	Next    int64 // the offset to go on from: behind the last entry, and behind markers that follow it
	End     int64 // behind all that was there; Next equals it when all has been read
}

// Log is a topic with one partition, strictly in order. It writes as its sink: what shuts out the one shuts out the other,
// if the topic is among the sink's FenceTopics. One goroutine may append while another reads and a third asks for the end.
type Log struct {
	cfg  LogConfig
	sink *Config
	who  *identity
	to   target

	base context.Context
	stop context.CancelFunc

	write, read, look *lease

	pack    *packer
	by      producer
	seq     int32      // of the next batch
	pending *appending // its outcome is unknown
}

// appending is a batch on its way.
type appending struct {
	queue
	digest [sha256.Size]byte // of its entries
	by     producer
	reign  int
}

// lease is connections that are used by one goroutine at a time.
type lease struct {
	turn chan struct{}
	cl   *cluster
}

func (s *Sink) lease() *lease {
	l := &lease{turn: make(chan struct{}, 1), cl: newCluster(s.cfg, s.log)}
	l.turn <- struct{}{}
	return l
}

// use waits for its turn and returns a context that also ends when the log is closed, and what to call in the end.
func (l *Log) use(ctx context.Context, ls *lease) (context.Context, func(), error) {
	select {
	case <-ls.turn:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if l.base.Err() != nil {
		ls.turn <- struct{}{}
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, l.sink.WriteTimeout)
	stop := context.AfterFunc(l.base, cancel)
	return ctx, func() { stop(); cancel(); ls.turn <- struct{}{} }, nil
}

var (
	// ErrEntryTooLarge is wrapped by Append's error about an entry that is larger than MaxEntry or the topic's
	// max.message.bytes. Nothing is cut into pieces.
	ErrEntryTooLarge = errors.New("the entry is too large")

	// ErrUndecided is wrapped by Append's error when the outcome of an earlier Append is not known yet: repeat that one.
	ErrUndecided = errors.New("an earlier append is undecided: append the same entries again first")
)

// OffsetError says that an offset is not, or no longer, in a log.
type OffsetError struct{ Asked, First, End int64 }

func (e *OffsetError) Error() string {
	return fmt.Sprintf("offset %d is not there: the log has %d to %d", e.Asked, e.First, e.End)
}

// OpenLog makes the topic if it does not exist, and refuses one with more than a partition. Close the log before its sink.
func (s *Sink) OpenLog(ctx context.Context, cfg LogConfig) (*Log, error) {
	if s.cfg.Client != clientKafkaGo {
		return nil, core.Permanent(fmt.Errorf("opening the log %s: the sink's client must be kafka-go", cfg.Topic))
	}
	if cfg.MaxEntry == 0 {
		cfg.MaxEntry = DefaultMaxEntry
	}
	pack, err := newPacker(compressions[s.cfg.Compression])
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, sink: s.cfg, who: s.who, to: target{cfg.Topic, 0}, pack: pack, by: noProducer,
		write: s.lease(), read: s.lease(), look: s.lease(),
	}
	l.base, l.stop = context.WithCancel(s.base)
	if err := l.prepare(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("opening the log %s: %w", cfg.Topic, err)
	}
	return l, nil
}

func (l *Log) prepare(ctx context.Context) error {
	want := []topic{{name: l.cfg.Topic, log: &l.cfg}}
	cl := l.write.cl
	if err := cl.ensure(ctx, want); err != nil {
		return err
	}
	if n := len(cl.topics[l.cfg.Topic].leaders); n != 1 {
		return core.Permanent(fmt.Errorf("it has %d partitions, and order is kept in one only: name another topic, or make it anew", n))
	}
	settings, err := cl.describe(ctx, want, configPolicy, configMaxMessage)
	if err != nil {
		return nil // not allowed to see them; what is wrong shows on writing
	}
	if p := settings[l.cfg.Topic][configPolicy]; p != "" && p != policyDelete {
		return core.Permanent(fmt.Errorf("it has cleanup.policy=%s, which would take entries out: set it to delete", p))
	}
	if n, err := strconv.Atoi(settings[l.cfg.Topic][configMaxMessage]); err == nil {
		if n < l.cfg.MaxEntry {
			cl.log.Warn("the topic takes smaller entries than may be written: raise its max.message.bytes", "topic", l.cfg.Topic,
				"max.message.bytes", n, "want", l.cfg.MaxEntry+batchOverhead)
		}
		l.cfg.MaxEntry = min(l.cfg.MaxEntry, max(n-batchOverhead, n/2))
	}
	return nil
}

// Close hangs up; what is in progress ends with an error.
func (l *Log) Close() {
	l.stop()
	for _, ls := range []*lease{l.write, l.read, l.look} {
		<-ls.turn
		ls.cl.close()
		ls.turn <- struct{}{}
	}
}

// Append writes the entries in order and returns their offsets once all in-sync replicas have them. With an error it
// returns the offsets of those that are there; whether the next ones are is then not known, unless the error wraps
// core.ErrFenced or ErrEntryTooLarge. Repeating the rest finds out and writes nothing twice; anything else is refused
// with ErrUndecided, until the sink is fenced in anew. It gives up after write_timeout.
func (l *Log) Append(ctx context.Context, entries [][]byte) (offsets []int64, err error) {
	for i, e := range entries {
		if len(e) > l.cfg.MaxEntry {
			return nil, core.Permanent(fmt.Errorf("appending to %s: %w: entry %d has %d bytes, %d are allowed", l.cfg.Topic, ErrEntryTooLarge, i, len(e), l.cfg.MaxEntry))
		}
	}
	ctx, done, err := l.use(ctx, l.write)
	if err != nil {
		return nil, fmt.Errorf("appending to %s: %w", l.cfg.Topic, err)
	}
	defer done()
	for limit := len(entries); len(offsets) < len(entries); {
		n, first, err := l.appendSome(ctx, entries[len(offsets):], limit)
		switch {
		case errors.Is(err, ErrEntryTooLarge) && n > 1:
			limit = n / 2
			continue
		case err != nil:
			return offsets, fmt.Errorf("appending to %s: %w", l.cfg.Topic, err)
		}
		for i := range n {
			offsets = append(offsets, first+int64(i))
		}
	}
	return offsets, nil
}

// appendSome appends one batch, of limit entries at most, and returns how many it holds and the offset of the first.
func (l *Log) appendSome(ctx context.Context, entries [][]byte, limit int) (n int, first int64, err error) {
	if l.pending == nil || l.pending.reign != l.who.reigns() {
		if err := l.next(entries, limit); err != nil {
			return 0, 0, err
		}
	}
	a := l.pending
	if n = a.sent; n > len(entries) || digestOf(entries[:n]) != a.digest {
		return 0, 0, ErrUndecided
	}
	first, err = l.deliver(ctx, a)
	return n, first, err
}

// next packs the next batch.
func (l *Log) next(entries [][]byte, limit int) error {
	by, err := l.who.now()
	if err != nil {
		return err
	}
	if by != l.by {
		l.by, l.seq = by, 0
	}
	now, size := time.Now().UnixMilli(), 0
	var recs []record
	for i, e := range entries[:min(len(entries), limit)] {
		if size += len(e) + recordExtra; i > 0 && size > l.sink.BatchBytes {
			break
		}
		recs = append(recs, record{item: i, time: now, tail: appendTail(nil, "", e, nil)})
	}
	a := &appending{queue: queue{to: l.to, sent: len(recs)}, digest: digestOf(entries[:len(recs)]), by: by, reign: l.who.reigns()}
	seq := l.seq
	if by == noProducer {
		seq = -1
	}
	if a.packed, err = l.pack.pack(nil, recs, by, seq); err != nil {
		return err
	}
	l.pending = a
	return nil
}

// digestOf tells entries from others.
func digestOf(entries [][]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, e := range entries {
		fmt.Fprintf(h, "%d:", len(e))
		h.Write(e)
	}
	h.Sum(sum[:0])
	return sum
}

// deliver sends the batch until its outcome is known, or ctx ends.
func (l *Log) deliver(ctx context.Context, a *appending) (first int64, err error) {
	cl := l.write.cl
	cl.refreshOld(ctx)
	for wait := newBackoff(); ; {
		l.send(ctx, a)
		switch judge(a.err) {
		case accepted:
			l.pending, l.seq = nil, int32((int64(l.seq)+int64(a.sent))&math.MaxInt32)
			return a.first, a.err
		case tooLarge:
			l.pending = nil
			return 0, fmt.Errorf("%w: %w", ErrEntryTooLarge, a.err)
		case refused:
			return 0, refusal(l.cfg.Topic, a.err)
		case resequence:
			return 0, l.outOfSequence(ctx, a)
		}
		if err := cl.retryAfter(ctx, wait, a.err); err != nil {
			return 0, err
		}
	}
}

// outOfSequence ends an append that the broker refuses for its producer, epoch or sequence number: it is not there.
func (l *Log) outOfSequence(ctx context.Context, a *appending) error {
	l.pending = nil
	if l.who.fencedBy(a.err, a.by) {
		l.who.shutOut()
		return fmt.Errorf("%w (%w)", core.ErrFenced, a.err)
	}
	if _, err := l.who.renew(ctx, l.write.cl, a.by); err != nil {
		return err
	}
	return fmt.Errorf("the broker lost our sequence numbers: %w", a.err)
}

func (l *Log) send(ctx context.Context, a *appending) {
	groups, err := byLeaderOf(l.write.cl, []*queue{&a.queue}, func(q *queue) target { return q.to })
	a.err = err
	for leader, qs := range groups {
		l.write.cl.produce(ctx, leader, qs)
	}
}

// ReadFrom returns up to limit entries from offset on, at once if there are any, else as soon as one is appended or after
// half a second. An offset that is not there, or no longer, is an *OffsetError. Data is the caller's to keep.
func (l *Log) ReadFrom(ctx context.Context, offset int64, limit int) (Page, error) {
	ctx, done, err := l.use(ctx, l.read)
	if err != nil {
		return Page{}, fmt.Errorf("reading %s: %w", l.cfg.Topic, err)
	}
	defer done()
	for wait := newBackoff(); ; {
		page, err := l.readOnce(ctx, offset, limit)
		var off *OffsetError
		if err == nil {
			return page, nil
		}
		if !core.IsPermanent(err) && !errors.Is(err, errBatch) && !errors.As(err, &off) {
			if werr := l.read.cl.retryAfter(ctx, wait, err); werr == nil {
				continue
			}
		}
		return Page{}, fmt.Errorf("reading %s from offset %d: %w", l.cfg.Topic, offset, err)
	}
}

// pollWait is how long the broker waits for something to be appended.
const pollWait = 500 * time.Millisecond

func (l *Log) readOnce(ctx context.Context, offset int64, limit int) (Page, error) {
	cl := l.read.cl
	if len(cl.topics) == 0 {
		if err := cl.refresh(ctx, []topic{{name: l.cfg.Topic}}); err != nil {
			return Page{}, err
		}
	}
	groups, err := byLeaderOf(cl, []fetchPart{{l.to, offset}}, func(p fetchPart) target { return p.target })
	for leader, parts := range groups {
		var got []fetched
		if got, err = cl.fetch(ctx, leader, pollWait, parts); err == nil {
			return l.page(ctx, got, offset, limit)
		}
	}
	return Page{}, err
}

func (l *Log) page(ctx context.Context, got []fetched, offset int64, limit int) (Page, error) {
	if len(got) != 1 {
		return Page{}, fmt.Errorf("%w: %d partitions instead of one", errFetch, len(got))
	}
	f := got[0]
	switch f.code {
	case 0:
	case kafkago.OffsetOutOfRange:
		return Page{}, l.outOfRange(ctx, offset)
	default:
		return Page{}, f.code
	}
	p := Page{End: f.highWatermark}
	next, err := eachRecord(f.batches, offset, func(r logRecord) error {
		if len(p.Entries) == limit {
			return errEnough
		}
		p.Entries = append(p.Entries, Entry{Offset: r.offset, Time: time.UnixMilli(r.time), Data: r.value})
		return nil
	})
	p.Next = next
	if errors.Is(err, errEnough) {
		p.Next, err = p.Entries[limit-1].Offset+1, nil
	}
	return p, err
}

func (l *Log) outOfRange(ctx context.Context, offset int64) error {
	first, err := l.read.cl.offsets(ctx, map[target]int64{l.to: offsetFirst})
	if err != nil {
		return err
	}
	end, err := l.read.cl.offsets(ctx, map[target]int64{l.to: offsetEnd})
	if err != nil {
		return err
	}
	return &OffsetError{Asked: offset, First: first[l.to], End: end[l.to]}
}

// First is the offset of the oldest entry that retention has left.
func (l *Log) First(ctx context.Context) (int64, error) { return l.lookUp(ctx, offsetFirst) }

// End is the offset behind the last entry that all in-sync replicas have: of the next one, but for markers.
func (l *Log) End(ctx context.Context) (int64, error) { return l.lookUp(ctx, offsetEnd) }

func (l *Log) lookUp(ctx context.Context, which int64) (int64, error) {
	ctx, done, err := l.use(ctx, l.look)
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w", l.cfg.Topic, err)
	}
	defer done()
	cl := l.look.cl
	if len(cl.topics) == 0 {
		if err := cl.refresh(ctx, []topic{{name: l.cfg.Topic}}); err != nil {
			return 0, fmt.Errorf("looking at %s: %w", l.cfg.Topic, err)
		}
	}
	got, err := cl.offsets(ctx, map[target]int64{l.to: which})
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w", l.cfg.Topic, err)
	}
	return got[l.to], nil
}
