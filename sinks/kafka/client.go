package kafka

import "context"

// client carries what a Write owes its partitions to the brokers. There are two: ownBatches on the protocol packages of
// kafka-go, and franz on the producer of franz-go.
type client interface {
	// deliver empties d's queues: each record is acknowledged by all in-sync replicas, or has failed, when it returns, which
	// is soon after ctx ends. Records of a partition are appended in their order, none before an earlier one.
	deliver(ctx context.Context, d *delivery)
	close()
}

const (
	clientKafkaGo = "kafka-go"
	clientFranz   = "franz-go"
)

// ownBatches packs the batches here and has one of each partition in flight.
type ownBatches struct{}

func (ownBatches) deliver(ctx context.Context, d *delivery) {
	if err := d.recall(ctx); err != nil {
		d.giveBackAll(err)
		return
	}
	d.run(ctx, d.round)
}

func (ownBatches) close() {}
