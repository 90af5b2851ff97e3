package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
)

const (
	// transactionTimeout is when the coordinator gives up a fence that was begun and not ended.
	transactionTimeout = time.Minute

	// lastEpoch is the highest epoch that anything is written with. The coordinator hands out a new producer id after
	// epoch 32766, and no marker of a new id shuts out an old one: so each id keeps some epochs for its last fence.
	lastEpoch = math.MaxInt16 - 16

	codeOperationNotAttempted = kafkago.Error(55)
)

// coordinator talks to the transaction coordinator of one transactional id (KIP-98), which decides whose turn it is.
type coordinator struct {
	cl *cluster
	id string
}

// ask sends req to the coordinator until code gives an answer that is not a passing one, or ctx ends.
func (co coordinator) ask(ctx context.Context, doing string, req protocol.Message, code func(protocol.Message) kafkago.Error) (protocol.Message, error) {
	for wait := newBackoff(); ; {
		m, err := co.once(ctx, req)
		if err == nil {
			err = coordinatorError(co.id, code(m))
		}
		switch {
		case err == nil:
			return m, nil
		case core.IsPermanent(err) || errors.Is(err, core.ErrFenced):
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		if werr := wait.sleep(ctx); werr != nil {
			return nil, fmt.Errorf("%s: %w; last: %w", doing, werr, err)
		}
	}
}

func (co coordinator) once(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	m, err := co.cl.ask(ctx, &findcoordinator.Request{Key: co.id, KeyType: 1})
	if err != nil {
		return nil, fmt.Errorf("finding the coordinator of transactional id %s: %w", co.id, err)
	}
	res := m.(*findcoordinator.Response)
	if err := coordinatorError(co.id, kafkago.Error(res.ErrorCode)); err != nil {
		return nil, err
	}
	if _, known := co.cl.brokers[res.NodeID]; !known {
		if err := co.cl.refresh(ctx, nil); err != nil {
			return nil, err
		}
	}
	return co.cl.askBroker(ctx, res.NodeID, req)
}

// coordinatorError sorts the coordinator's answers: another has taken over, an administrator must help, or ask again.
func coordinatorError(id string, code kafkago.Error) error {
	switch code {
	case 0:
		return nil
	case kafkago.InvalidProducerEpoch, kafkago.ProducerFenced, kafkago.InvalidProducerIDMapping:
		return fmt.Errorf("%w (transactional id %s: %w)", core.ErrFenced, id, code)
	case kafkago.TransactionalIDAuthorizationFailed:
		return core.Permanent(fmt.Errorf("not allowed for this user; grant it Describe and Write on transactional id %s: %w", id, code))
	case kafkago.TopicAuthorizationFailed:
		return core.Permanent(fmt.Errorf("not allowed for this user; grant it Write on every topic of the sink: %w", code))
	case kafkago.InvalidTransactionTimeout:
		return core.Permanent(fmt.Errorf("set transaction.max.timeout.ms of the brokers to at least %d: %w", transactionTimeout.Milliseconds(), code))
	}
	return fmt.Errorf("coordinator of transactional id %s: %w", id, code)
}

// init gets the next epoch: of whoever had it last with noProducer, which shuts that one out at the coordinator; else
// only if old is still the last. It returns when no transaction is under way any more, its markers being on every
// partition that had been added.
func (co coordinator) init(ctx context.Context, old producer) (producer, error) {
	req := &initproducerid.Request{
		TransactionalID: co.id, TransactionTimeoutMs: int32(transactionTimeout.Milliseconds()),
		ProducerID: old.id, ProducerEpoch: old.epoch,
	}
	m, err := co.ask(ctx, "getting a producer epoch", req, func(m protocol.Message) kafkago.Error {
		return kafkago.Error(m.(*initproducerid.Response).ErrorCode)
	})
	if err != nil {
		return noProducer, err
	}
	res := m.(*initproducerid.Response)
	return producer{res.ProducerID, res.ProducerEpoch}, nil
}

// settled waits until the markers are written, which the coordinator shows by granting the next epoch. Where the epochs
// of by's id are nearly used up, it goes on to the first of a new id.
func (co coordinator) settled(ctx context.Context, by producer) (producer, error) {
	for {
		next, err := co.init(ctx, by)
		if err != nil || next.epoch <= lastEpoch {
			return next, err
		}
		by = next
	}
}

// mark makes the coordinator write a marker with by's epoch to partitions, by a transaction with nothing in it. From then
// on they refuse every older epoch. The markers may still be on their way when it returns.
func (co coordinator) mark(ctx context.Context, by producer, partitions map[string]int) error {
	add := &addpartitionstotxn.Request{TransactionalID: co.id, ProducerID: by.id, ProducerEpoch: by.epoch}
	for name, n := range partitions {
		t := addpartitionstotxn.RequestTopic{Name: name}
		for p := range int32(n) {
			t.Partitions = append(t.Partitions, p)
		}
		add.Topics = append(add.Topics, t)
	}
	if _, err := co.ask(ctx, "adding partitions to the fence", add, addCode); err != nil {
		return err
	}
	end := &endtxn.Request{TransactionalID: co.id, ProducerID: by.id, ProducerEpoch: by.epoch, Committed: true}
	_, err := co.ask(ctx, "ending the fence", end, func(m protocol.Message) kafkago.Error {
		return kafkago.Error(m.(*endtxn.Response).ErrorCode)
	})
	return err
}

// addCode is the first partition's error that is one of its own.
func addCode(m protocol.Message) kafkago.Error {
	var other kafkago.Error
	for _, t := range m.(*addpartitionstotxn.Response).Results {
		for _, p := range t.Results {
			switch code := kafkago.Error(p.ErrorCode); code {
			case 0:
			case codeOperationNotAttempted:
				other = code
			default:
				return code
			}
		}
	}
	return other
}
