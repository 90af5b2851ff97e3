package cluster

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ensureTopic looks once whether the assignment topic is there, with a partition for each unit, and creates it if it may.
func (m *Member) ensureTopic(ctx context.Context) error {
	m.mu.Lock()
	there := m.state.topic
	m.mu.Unlock()
	if there {
		return nil
	}
	partitions, controller, err := m.partitions(ctx)
	if err != nil {
		return err
	}
	if partitions == 0 {
		if err := m.createTopic(ctx, controller); err != nil {
			return err
		}
		partitions, err = m.awaitTopic(ctx)
	}
	if err == nil && partitions < len(m.units) {
		err = fmt.Errorf("topic %s has %d partitions and there are %d units: give it as many", m.topic, partitions, len(m.units))
	}
	m.mu.Lock()
	m.state.topic = err == nil
	m.mu.Unlock()
	return err
}

// awaitTopic waits until a topic that was created shows in the metadata.
func (m *Member) awaitTopic(ctx context.Context) (partitions int, err error) {
	for range 40 {
		if partitions, _, err = m.partitions(ctx); err != nil || partitions > 0 {
			return partitions, err
		}
		if err := sleep(ctx, minBackoff); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("topic %s was created and is not in the brokers' metadata yet", m.topic)
}

// partitions is how many the topic has, 0 when it does not exist, and the address of the controller, which creates topics.
func (m *Member) partitions(ctx context.Context) (n int, controller string, err error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(m.topic)
	req.Topics = append(req.Topics, t)
	got, err := m.control.any(ctx, req)
	if err != nil {
		return 0, "", err
	}
	resp := got.(*kmsg.MetadataResponse)
	for _, b := range resp.Brokers {
		if b.NodeID == resp.ControllerID {
			controller = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		}
	}
	for _, t := range resp.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); err {
		case nil, kerr.LeaderNotAvailable:
			return len(t.Partitions), controller, nil
		case kerr.UnknownTopicOrPartition:
			return 0, controller, nil
		default:
			return 0, "", fmt.Errorf("looking up topic %s: %w", m.topic, err)
		}
	}
	return 0, "", fmt.Errorf("looking up topic %s: the broker says nothing of it", m.topic)
}

func (m *Member) createTopic(ctx context.Context, controller string) error {
	if !m.opts.CreateTopic {
		return fmt.Errorf("topic %s does not exist and topics are not to be created: create it with %d partitions; it carries no records",
			m.topic, len(m.units))
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(m.control.timeout.Milliseconds())
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = m.topic, int32(len(m.units)), int16(m.opts.Replication)
	req.Topics = append(req.Topics, t)
	ask := func() (kmsg.Response, error) { return m.control.any(ctx, req) } // on KRaft any broker passes it on
	if controller != "" {
		ask = func() (kmsg.Response, error) { return m.control.at(ctx, controller, req) }
	}
	got, err := ask()
	if err != nil {
		return err
	}
	for _, t := range got.(*kmsg.CreateTopicsResponse).Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && err != kerr.TopicAlreadyExists {
			return fmt.Errorf("creating topic %s: %w", m.topic, err)
		}
	}
	return nil
}
