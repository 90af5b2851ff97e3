package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// cluster is what we know of the brokers and our connections to them. It starts no goroutine of its own.
type cluster struct {
	cfg *Config
	log *slog.Logger

	seed       *conn // to any broker: metadata and administration
	nextSeed   int   // which configured broker to try first
	controller int32
	brokers    map[int32]string // addresses by id
	topics     map[string]topicInfo
	learned    time.Time // when the metadata was last read

	mu    sync.Mutex // guards conns: brokers are asked concurrently
	conns map[int32]*conn
}

// topicInfo is a topic's last metadata.
type topicInfo struct {
	err     kafkago.Error
	leaders []int32 // broker id by partition, -1 for none
	replica []metadata.ResponsePartition
	allowed int32 // operations, as a bit field; noOperations when the broker did not say
}

const noOperations = -1 << 31

// led reports whether every partition has a leader.
func (t topicInfo) led() bool {
	for _, id := range t.leaders {
		if id < 0 {
			return false
		}
	}
	return len(t.leaders) > 0
}

func newCluster(cfg *Config, log *slog.Logger) *cluster {
	return &cluster{
		cfg: cfg, log: log, controller: -1,
		brokers: make(map[int32]string), topics: make(map[string]topicInfo), conns: make(map[int32]*conn),
	}
}

func (cl *cluster) close() {
	if cl.seed != nil {
		cl.seed.close()
	}
	for _, cn := range cl.conns {
		cn.close()
	}
	cl.seed, cl.conns = nil, map[int32]*conn{}
}

// ask sends req to any broker. A broken connection is replaced once: brokers drop idle ones.
func (cl *cluster) ask(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	reused := cl.seed.usable()
	m, err := cl.askOnce(ctx, req)
	if err != nil && reused && ctx.Err() == nil {
		return cl.askOnce(ctx, req)
	}
	return m, err
}

func (cl *cluster) askOnce(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	if err := cl.connectSeed(ctx); err != nil {
		return nil, err
	}
	return cl.seed.ask(ctx, cl.cfg, req)
}

// connectSeed keeps the seed connection, or connects to the first configured broker, then the first discovered one,
// that answers.
func (cl *cluster) connectSeed(ctx context.Context) error {
	if cl.seed.usable() {
		return nil
	}
	if cl.seed != nil {
		cl.seed.close()
	}
	var errs []error
	for _, addr := range cl.candidates() {
		cn, err := dial(ctx, cl.cfg, addr)
		if err == nil {
			cl.seed = cn
			return nil
		}
		errs = append(errs, err)
		if core.IsPermanent(err) || ctx.Err() != nil {
			break // the next broker would say the same, and count another failed login
		}
	}
	cl.nextSeed++
	return fmt.Errorf("no kafka broker could be used: %w", errors.Join(errs...))
}

// candidates lists the addresses to try, a different configured one first each time.
func (cl *cluster) candidates() []string {
	n := len(cl.cfg.Brokers)
	addrs := make([]string, 0, n+len(cl.brokers))
	for i := range n {
		addrs = append(addrs, cl.cfg.Brokers[(cl.nextSeed+i)%n])
	}
	for _, addr := range cl.brokers {
		addrs = append(addrs, addr)
	}
	return addrs
}

// askController sends req to the controller; on KRaft any broker passes it on, so the seed will do where it is unknown.
func (cl *cluster) askController(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	if _, known := cl.brokers[cl.controller]; !known {
		return cl.ask(ctx, req)
	}
	return cl.askBroker(ctx, cl.controller, req)
}

// askBroker sends req to one broker, within request_timeout. It may be called concurrently for different brokers.
func (cl *cluster) askBroker(ctx context.Context, id int32, req protocol.Message) (protocol.Message, error) {
	cn, err := cl.broker(ctx, id)
	if err != nil {
		return nil, err
	}
	return cn.ask(ctx, cl.cfg, req)
}

func (cl *cluster) broker(ctx context.Context, id int32) (*conn, error) {
	cl.mu.Lock()
	cn, addr := cl.conns[id], cl.brokers[id]
	cl.mu.Unlock()
	if cn.usable() && cn.addr == addr {
		return cn, nil
	}
	if cn != nil {
		cn.close()
	}
	cn, err := dial(ctx, cl.cfg, addr)
	if err != nil {
		return nil, err
	}
	cl.mu.Lock()
	cl.conns[id] = cn
	cl.mu.Unlock()
	return cn, nil
}

// refresh asks for the metadata of the topics given and of those already known, without creating any.
func (cl *cluster) refresh(ctx context.Context, also []topic) error {
	names := make([]string, 0, len(cl.topics)+len(also))
	for name := range cl.topics {
		names = append(names, name)
	}
	for _, t := range also {
		if _, known := cl.topics[t.name]; !known {
			names = append(names, t.name)
		}
	}
	m, err := cl.ask(ctx, &metadata.Request{TopicNames: names, IncludeTopicAuthorizedOperations: true})
	if err != nil {
		return fmt.Errorf("reading kafka metadata: %w", err)
	}
	cl.learn(m.(*metadata.Response))
	return nil
}

// maxAge is how old metadata may get: a topic may have been given more partitions.
const maxAge = 5 * time.Minute

// refreshOld reads metadata that is due. A failure shows soon enough in what is produced next.
func (cl *cluster) refreshOld(ctx context.Context) {
	if time.Since(cl.learned) < maxAge {
		return
	}
	if err := cl.refresh(ctx, nil); err != nil {
		cl.log.Debug("could not refresh kafka metadata", "err", err)
	}
}

func (cl *cluster) learn(m *metadata.Response) {
	cl.controller, cl.learned = m.ControllerID, time.Now()
	clear(cl.brokers)
	for _, b := range m.Brokers {
		cl.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	for _, t := range m.Topics {
		info := topicInfo{err: kafkago.Error(t.ErrorCode), replica: t.Partitions, allowed: t.TopicAuthorizedOperations}
		info.leaders = make([]int32, len(t.Partitions))
		for i := range info.leaders {
			info.leaders[i] = -1
		}
		for _, p := range t.Partitions {
			if i := int(p.PartitionIndex); i >= 0 && i < len(info.leaders) {
				info.leaders[i] = p.LeaderID
			}
		}
		if old := cl.topics[t.Name]; info.err != 0 && len(old.leaders) > 0 {
			info.leaders = old.leaders // a passing error must not change where a key goes
		}
		cl.topics[t.Name] = info
	}
}

// producer is what makes a producer idempotent (KIP-98): its id and epoch. Without them, id is -1.
type producer struct {
	id    int64
	epoch int16
}

var noProducer = producer{-1, -1}

// producerID asks for a new producer id. A cluster that does not know or does not grant them gives noProducer.
func (cl *cluster) producerID(ctx context.Context) (producer, error) {
	req := &initproducerid.Request{ProducerID: -1, ProducerEpoch: -1}
	for wait := newBackoff(); ; {
		if err := cl.connectSeed(ctx); err != nil {
			return noProducer, err
		}
		if !cl.seed.knows[protocol.InitProducerId] {
			cl.log.Warn("this Kafka cluster knows no producer ids: a lost acknowledgement makes a duplicate")
			return noProducer, nil
		}
		m, err := cl.ask(ctx, req)
		if err != nil {
			return noProducer, fmt.Errorf("asking for a producer id: %w", err)
		}
		res := m.(*initproducerid.Response)
		code := kafkago.Error(res.ErrorCode)
		switch {
		case code == 0:
			return producer{res.ProducerID, res.ProducerEpoch}, nil
		case code == kafkago.ClusterAuthorizationFailed:
			cl.log.Warn("this user may not get a producer id: a lost acknowledgement makes a duplicate; grant it IdempotentWrite on the cluster")
			return noProducer, nil
		case !code.Temporary() && code != kafkago.ConcurrentTransactions:
			return noProducer, fmt.Errorf("asking for a producer id: %w", code)
		}
		if err := wait.sleep(ctx); err != nil {
			return noProducer, fmt.Errorf("asking for a producer id: %w (%w)", err, code)
		}
	}
}
