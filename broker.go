package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// broker is the demo's Kafka: in this process, on 127.0.0.1, in memory, for trying out.
type broker struct {
	cluster *kfake.Cluster
	addr    string
	wanted  bool // the address is the one that was asked for
}

// Bounds of what the broker keeps, so that a demo may run for days.
const (
	brokerPartitions = 4
	brokerKeeps      = "16777216" // bytes of a partition
	brokerCleans     = "15000"    // ms between cleanings
)

// startBroker listens on port, or on any when another program has it.
func startBroker(port int) (*broker, error) {
	c, err := newCluster(port)
	if err == nil {
		return &broker{cluster: c, addr: c.ListenAddrs()[0], wanted: true}, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
		return nil, fmt.Errorf("starting the demo's broker on 127.0.0.1:%d: %w", port, err)
	}
	if c, err = newCluster(0); err != nil {
		return nil, fmt.Errorf("starting the demo's broker on 127.0.0.1: %w", err)
	}
	return &broker{cluster: c, addr: c.ListenAddrs()[0]}, nil
}

func newCluster(port int) (*kfake.Cluster, error) {
	return kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.BrokerConfigs(map[string]string{
		"log.retention.bytes":    brokerKeeps,
		"log.cleaner.backoff.ms": brokerCleans,
	}))
}

// messages is how many messages topic has ever taken.
func (b *broker) messages(topic string) (n int64) {
	for _, p := range b.cluster.PartitionInfos(topic) {
		n += p.HighWatermark
	}
	return n
}
