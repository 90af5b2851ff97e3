package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokers are the Kafka of a run: brokers that can fail, each behind a proxy, and a way past the proxies for the reader.
type brokers interface {
	addrs() []string               // that the nodes are given
	past(addr string) string       // the broker behind a proxy
	proxies() []*proxy             // by broker
	stop(i int) error              // broker i is gone, and another leads its partitions
	start(i int) error             // it is back
	restart(d time.Duration) error // all at once, with their data kept
	fail(why string, n int)        // the next n requests of that kind fail
	close()
}

// fake is kfake in this process.
type fake struct {
	dir string
	ps  []*proxy

	mu sync.Mutex
	c  *kfake.Cluster
}

const fakeBrokers = 3

// defaultPrefix is that of topics where each run has brokers of its own.
const defaultPrefix = "cti."

func startFake(dir, host string) (*fake, error) {
	f := &fake{dir: filepath.Join(dir, "kafka")}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, err
	}
	for i := range fakeBrokers {
		p, err := newProxy(host, fmt.Sprint("broker ", i), "")
		if err != nil {
			return nil, err
		}
		f.ps = append(f.ps, p)
	}
	return f, f.open()
}

// advertised listens on one address and says another.
type advertised struct {
	net.Listener
	addr net.Addr
}

func (a *advertised) Addr() net.Addr { return a.addr }

// open starts the cluster on f's folder. Each broker advertises its proxy.
func (f *fake) open() error {
	i := 0
	c, err := kfake.NewCluster(kfake.NumBrokers(fakeBrokers), kfake.DataDir(f.dir),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
		kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			ln, err := net.Listen(network, "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			p := f.ps[i%fakeBrokers]
			i++
			p.to(ln.Addr().String())
			return &advertised{ln, p.ln.Addr()}, nil
		}))
	if err != nil {
		return fmt.Errorf("starting the brokers: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.c = c
	return nil
}

func (f *fake) proxies() []*proxy { return f.ps }

func (f *fake) addrs() (all []string) {
	for _, p := range f.ps {
		all = append(all, p.addr())
	}
	return all
}

func (f *fake) past(addr string) string {
	for _, p := range f.ps {
		if p.addr() == addr {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.target
		}
	}
	return addr
}

// stop makes a broker unreachable and lets the others lead what it led.
func (f *fake) stop(i int) error {
	f.ps[i].down()
	return f.lead(int32((i+1)%fakeBrokers), int32(i))
}

func (f *fake) start(i int) error {
	f.ps[i].up()
	return nil
}

// lead moves partitions from one broker to another.
func (f *fake) lead(to, from int32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range streams {
		topic := defaultPrefix + s + ".v1"
		for _, p := range f.c.PartitionInfos(topic) {
			if p.Leader == from {
				if err := f.c.MoveTopicPartition(topic, p.Partition, to); err != nil {
					return fmt.Errorf("moving %s/%d: %w", topic, p.Partition, err)
				}
			}
		}
	}
	return nil
}

// restart closes all brokers and opens them again on their data after d.
func (f *fake) restart(d time.Duration) error {
	for _, p := range f.ps {
		p.down()
	}
	f.mu.Lock()
	f.c.Close()
	f.mu.Unlock()
	time.Sleep(d)
	err := f.open()
	for _, p := range f.ps {
		p.up()
	}
	return err
}

// failures are what can be ordered of a broker's answers: before anything is done, or after.
var failures = map[string]kfake.Fault{
	"not leader":        {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition},
	"too few replicas":  {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas},
	"applied, time-out": {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut},
	"applied, replicas": {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend},
	"coordinator":       {Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetCommit, kmsg.InitProducerID, kmsg.LeaveGroup}, Err: kerr.NotCoordinator, TopLevel: true},
	"loading":           {Keys: []kmsg.Key{kmsg.FindCoordinator, kmsg.InitProducerID}, Err: kerr.CoordinatorLoadInProgress, TopLevel: true},
}

func failureNames() (all []string) {
	for name := range failures {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func (f *fake) fail(why string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := failures[why]
	x.Count = n
	f.c.Fault(x)
}

func (f *fake) close() {
	for _, p := range f.ps {
		p.close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.c != nil {
		f.c.Close()
	}
}
