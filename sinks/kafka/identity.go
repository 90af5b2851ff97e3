package kafka

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
)

// identity is who a sink and its logs write as. They use it from goroutines of their own.
type identity struct {
	transactionalID string // empty: a producer id of this process alone

	renewing chan struct{} // holds one token: renewals take turns

	mu        sync.Mutex
	by        producer
	out       error // why nothing may be written; nil: it may
	confirmed time.Time
	reign     int // how often we have fenced others out
}

// errNotFenced is what a sink with a transactional id answers before Fence.
var errNotFenced = errors.New("this sink stands by: call Fence before the first write")

func newIdentity(transactionalID string) *identity {
	id := &identity{transactionalID: transactionalID, by: noProducer, renewing: make(chan struct{}, 1)}
	id.renewing <- struct{}{}
	if transactionalID != "" {
		id.out = errNotFenced
	}
	return id
}

// become makes the identity one that may write.
func (id *identity) become(by producer) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.by, id.out, id.confirmed = by, nil, time.Now()
}

// takeOver is become after a fence.
func (id *identity) takeOver(by producer) {
	id.become(by)
	id.mu.Lock()
	defer id.mu.Unlock()
	id.reign++
}

func (id *identity) reigns() int {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.reign
}

// shutOut notes that another has taken over.
func (id *identity) shutOut() {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.out = core.ErrFenced
}

// confirm notes that nobody had taken over by now.
func (id *identity) confirm() {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.confirmed = time.Now()
}

// refuses says why nothing may be written, or nil.
func (id *identity) refuses() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.out
}

func (id *identity) now() (producer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.by, id.out
}

func (id *identity) sinceConfirmed() time.Duration {
	id.mu.Lock()
	defer id.mu.Unlock()
	return time.Since(id.confirmed)
}

func (id *identity) coordinator(cl *cluster) coordinator { return coordinator{cl, id.transactionalID} }

// exclusively runs f while no other renewal or mark is under way, and notes if it finds us shut out.
func (id *identity) exclusively(ctx context.Context, f func(by producer) error) error {
	select {
	case <-id.renewing:
		defer func() { id.renewing <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	by, err := id.now()
	if err != nil {
		return err
	}
	if err = f(by); errors.Is(err, core.ErrFenced) {
		id.shutOut()
	}
	return err
}

// mark has markers of ours written to partitions, and thereby confirms that nobody has taken over.
func (id *identity) mark(ctx context.Context, cl *cluster, partitions map[string]int) error {
	return id.exclusively(ctx, func(by producer) error {
		err := id.coordinator(cl).mark(ctx, by, partitions)
		if err == nil {
			id.confirm()
		}
		return err
	})
}

// renew replaces old, whose sequence numbers are lost, unless that has happened already: by the next epoch, or by a new
// producer id where there is no coordinator to ask. It never takes a turn back that another has taken.
func (id *identity) renew(ctx context.Context, cl *cluster, old producer) (by producer, err error) {
	err = id.exclusively(ctx, func(now producer) error {
		switch {
		case now != old:
			by = now
			return nil
		case id.transactionalID == "":
			by, err = cl.producerID(ctx)
		default:
			by, err = id.renewAtCoordinator(ctx, cl, old)
		}
		if err == nil {
			id.become(by)
		}
		return err
	})
	return by, err
}

// renewAtCoordinator first has the old epoch marked where it was used last, for not every coordinator checks it when it is
// asked for the next one.
func (id *identity) renewAtCoordinator(ctx context.Context, cl *cluster, old producer) (producer, error) {
	co := id.coordinator(cl)
	some := map[string]int{cl.cfg.topics()[0].name: 1}
	if err := co.mark(ctx, old, some); err != nil {
		return noProducer, err
	}
	if old.epoch < lastEpoch {
		return co.init(ctx, old)
	}
	// The last epoch of this id: close every partition to it before the next id.
	all, err := cl.outputs(ctx)
	if err != nil {
		return noProducer, err
	}
	by, err := co.init(ctx, old)
	if err != nil {
		return noProducer, err
	}
	if err := co.mark(ctx, by, all); err != nil {
		return noProducer, err
	}
	return co.settled(ctx, by)
}

// bump is KIP-360's way on for a producer of this process alone, after a batch of unknown fate. When the epochs are used up
// the brokers refuse the next batch, and a new producer id is fetched.
func (id *identity) bump() producer {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.by != noProducer && id.by.epoch < math.MaxInt16 {
		id.by.epoch++
	}
	return id.by
}

// fencedBy reports whether a broker's answer to a batch written as by means that another has taken over. With a transactional id
// the epoch is never raised but by the coordinator, so an epoch that is too old has no other reason.
func (id *identity) fencedBy(err error, by producer) bool {
	var code kafkago.Error
	if now, _ := id.now(); id.transactionalID == "" || now != by || !errors.As(err, &code) {
		return false
	}
	return code == kafkago.InvalidProducerEpoch || code == kafkago.ProducerFenced || code == kafkago.InvalidProducerIDMapping
}
