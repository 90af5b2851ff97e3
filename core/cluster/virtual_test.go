package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Kafka cluster and nodes in one bubble of fake time.
type world struct {
	t      *testing.T
	net    *kfake.VirtualNetwork
	kafka  *kfake.Cluster
	ledger *ledger
	seeds  []string
	prefix string
}

func newWorld(t *testing.T, opts ...kfake.Opt) *world {
	t.Helper()
	w := &world{t: t, net: &kfake.VirtualNetwork{}, ledger: &ledger{}, prefix: "cti."}
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.Ports(9001, 9002, 9003), kfake.ListenFn(w.net.Listen)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	w.kafka, w.seeds = k, k.ListenAddrs()
	return w
}

// lease is a stretch of time in which a node may have published.
type lease struct {
	node     string
	o        *Ownership
	from, to int64
}

// ledger records every lease granted.
type ledger struct {
	mu     sync.Mutex
	leases []lease
}

func (l *ledger) note(node string) func(*Ownership, int64, int64) {
	return func(o *Ownership, from, until int64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		from = max(from, o.notBefore)
		if from >= until {
			return
		}
		if n := len(l.leases); n > 0 && l.leases[n-1].o == o && l.leases[n-1].to >= from {
			l.leases[n-1].to = max(l.leases[n-1].to, until)
			return
		}
		l.leases = append(l.leases, lease{node, o, from, until})
	}
}

// overlap returns two leases of different ownerships of one unit that overlap.
func (l *ledger) overlap() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, a := range l.leases {
		for _, b := range l.leases[:i] {
			if a.o != b.o && a.o.unit == b.o.unit && a.from < b.over() && b.from < a.over() {
				return fmt.Errorf("unit %d: %s of generation %d [%s, %s] overlaps %s of generation %d [%s, %s]", a.o.unit,
					a.node, a.o.generation, time.Duration(a.from), time.Duration(a.over()),
					b.node, b.o.generation, time.Duration(b.from), time.Duration(b.over()))
			}
		}
	}
	return nil
}

// over is when the lease ended: at the latest when the ownership did.
func (l lease) over() int64 {
	if at := l.o.endedAt.Load(); at != 0 {
		return min(l.to, at)
	}
	return l.to
}

// node is one member with a host that notes what it is told.
type node struct {
	*Member
	w       *world
	host    *testHost
	cancel  context.CancelFunc
	stopped chan struct{}
}

type testHost struct {
	mu      sync.Mutex
	log     []string
	acquire func(context.Context, Takeover) error
	release func(context.Context, int) error
	last    Takeover
}

func (h *testHost) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *testHost) Acquire(ctx context.Context, t Takeover) error {
	h.note("acquire %d", t.Unit)
	h.mu.Lock()
	h.last = t
	do := h.acquire
	h.mu.Unlock()
	if do != nil {
		return do(ctx, t)
	}
	return nil
}

// takeover is the last that the host was told of.
func (h *testHost) takeover() Takeover {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *testHost) onAcquire(f func(context.Context, Takeover) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acquire = f
}

func (h *testHost) onRelease(f func(context.Context, int) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release = f
}

func (h *testHost) Release(ctx context.Context, unit int) error {
	h.note("release %d", unit)
	h.mu.Lock()
	do := h.release
	h.mu.Unlock()
	if do != nil {
		return do(ctx, unit)
	}
	return nil
}

func (h *testHost) Lost(unit int, _ error) { h.note("lost %d", unit) }

func (h *testHost) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.log...)
}

// dial is the virtual network.
func (w *world) dial(ctx context.Context, addr string) (net.Conn, error) {
	if w.net == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	return w.net.DialContext(ctx, "tcp", addr)
}

func (w *world) start(name string, adjust ...func(*Config, *Options)) *node {
	w.t.Helper()
	cfg := NewConfig()
	cfg.Node = name
	opts := Options{Config: cfg, Prefix: w.prefix, Brokers: w.seeds, Dial: w.dial, CreateTopic: true, Replication: -1}
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for _, a := range adjust {
		a(cfg, &opts)
	}
	m, err := NewMember(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	m.onRenew = w.ledger.note(name)
	n := &node{Member: m, w: w, host: &testHost{}, stopped: make(chan struct{})}
	return n
}

func (n *node) run() *node {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.w.t.Cleanup(n.stop)
	go func() {
		defer close(n.stopped)
		_ = n.Run(ctx, n.host)
	}()
	return n
}

func (n *node) stop() {
	n.cancel()
	<-n.stopped
}

// within waits in fake time until ok, and returns how long it took.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func (n *node) owns(unit int) func() bool {
	return func() bool {
		o, ok := n.Owned(unit)
		return ok && o.Valid(time.Now())
	}
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
