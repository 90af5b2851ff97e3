package kafka

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// sequence is where a partition's numbering stands, under one producer id and epoch.
type sequence struct {
	by   producer
	next int32
}

// sequence is the first sequence number of the partition's next batch, -1 without a producer id.
func (s *Sink) sequence(to target) int32 {
	switch seq := s.seqs[to]; {
	case s.by == noProducer:
		return -1
	case seq.by != s.by:
		return 0
	default:
		return seq.next
	}
}

// advance counts n records that were accepted under by, from the partition's next sequence number on.
func (s *Sink) advance(to target, by producer, n int) {
	seq := s.seqs[to]
	if seq.by != by {
		seq = sequence{by: by}
	}
	seq.next = int32((int64(seq.next) + int64(n)) & math.MaxInt32)
	s.seqs[to] = seq
}

// held is a batch that a Write gave back although it may have been applied. As it is, with its sequence number, the broker
// takes it at most once; so when the host offers its items again, it is sent again and not made anew.
type held struct {
	packed []byte
	sent   int
	by     producer
	digest [sha256.Size]byte
}

// hold keeps q's batch.
func (s *Sink) hold(q *queue) {
	if q.by != noProducer {
		s.held[q.to] = held{q.packed, q.sent, q.by, tailsDigest(q.recs[:q.sent])}
	}
}

func tailsDigest(recs []record) (sum [sha256.Size]byte) {
	h := sha256.New()
	var room [binary.MaxVarintLen64]byte
	for _, r := range recs {
		h.Write(binary.AppendVarint(room[:0], int64(len(r.tail))))
		h.Write(r.tail)
	}
	h.Sum(sum[:0])
	return sum
}

// recall puts the batches that are held back on their way, where the host offers what they hold. Where it offers something
// else for the partition, that must not be mistaken for the batch whose sequence number it would get: the epoch moves on,
// which also shuts the batch out if it is still under way.
func (d *delivery) recall(ctx context.Context) error {
	for to, q := range d.queues {
		h, ok := d.s.held[to]
		if !ok {
			continue
		}
		delete(d.s.held, to)
		if len(q.recs) >= h.sent && tailsDigest(q.recs[:h.sent]) == h.digest {
			q.packed, q.sent, q.by, q.tried, q.doubt = h.packed, h.sent, h.by, true, true
			continue
		}
		d.s.doubtful = true
	}
	return d.s.moveOn(ctx)
}

// moveOn goes on under the next epoch, if the present one is in doubt (KIP-360). With a transactional id only the
// coordinator gives it: by ourselves we might take the one that has shut us out.
func (s *Sink) moveOn(ctx context.Context) error {
	switch {
	case !s.doubtful:
		return nil
	case s.cfg.TransactionalID == "":
		s.adopt(s.who.bump())
		return nil
	}
	by, err := s.who.renew(ctx, s.cl, s.by)
	if err == nil {
		s.adopt(by)
	}
	return err
}
