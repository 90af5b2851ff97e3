package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	oracleSeed = flag.Uint64("cluster.seed", 0, "replay one run of TestLeasesNeverOverlap")
	oracleRuns = flag.Int("cluster.runs", 300, "runs of TestLeasesNeverOverlap")
)

// gate is what stands between one node and the network.
type gate struct {
	mu     sync.Mutex
	frozen chan struct{} // closed when it thaws; nil when it is not frozen
	cut    bool          // nothing gets through, new connections are refused
	slow   time.Duration
	conns  map[net.Conn]bool
}

func (g *gate) pass() error {
	for {
		g.mu.Lock()
		frozen, cut, slow := g.frozen, g.cut, g.slow
		g.mu.Unlock()
		if frozen != nil {
			<-frozen
			continue
		}
		if cut {
			return errors.New("cut off")
		}
		time.Sleep(slow)
		return nil
	}
}

func (g *gate) freeze() (thaw func()) {
	c := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen != nil {
		return func() {}
	}
	g.frozen = c
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.frozen = nil
		close(c)
	}
}

// set cuts or mends; cutting closes what is open.
func (g *gate) set(cut bool, slow time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut, g.slow = cut, slow
	if cut {
		g.dropLocked()
	}
}

func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropLocked()
}

func (g *gate) dropLocked() {
	for c := range g.conns {
		c.Close()
	}
	clear(g.conns)
}

func (g *gate) dial(next DialFunc) DialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		if err := g.pass(); err != nil {
			return nil, err
		}
		c, err := next(ctx, addr)
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.conns[c] = true
		return &gatedConn{c, g}, nil
	}
}

type gatedConn struct {
	net.Conn
	g *gate
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if err := c.g.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if gone := c.g.pass(); gone != nil { // what came while it was frozen is read when it has thawed
		return 0, gone
	}
	return n, err
}

// trial is one run of the oracle test.
type trial struct {
	t     *testing.T
	w     *world
	rng   *rand.Rand
	units int
	nodes []*trialNode
	did   []string
	calm  atomic.Bool // hosts do not fail
}

type trialNode struct {
	*node
	gate *gate
	name string
}

func (tr *trial) start(name string) *trialNode {
	g := &gate{conns: map[net.Conn]bool{}}
	n := tr.w.start(name, func(c *Config, o *Options) {
		o.Dial = g.dial(o.Dial)
		o.StopTimeout = 3 * time.Second
		for u := range tr.units {
			c.Units = append(c.Units, []string{fmt.Sprint("pbx", u)})
		}
	})
	lag, weak := time.Duration(tr.rng.IntN(700))*time.Millisecond, tr.rng.IntN(8) == 0
	busy := func(ctx context.Context) error { return sleep(ctx, lag) }
	n.host.acquire = func(ctx context.Context, _ Takeover) error {
		if weak && !tr.calm.Load() {
			return errors.New("cannot read back")
		}
		return busy(ctx)
	}
	n.host.release = func(ctx context.Context, _ int) error { return busy(ctx) }
	n.run()
	return &trialNode{n, g, name}
}

func (tr *trial) note(format string, args ...any) {
	tr.did = append(tr.did, fmt.Sprintf("%s ", time.Since(epochOf(tr.t)).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// epochOf is when a bubble's time begins.
func epochOf(*testing.T) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func (tr *trial) later(limit time.Duration, f func()) {
	d := time.Duration(tr.rng.Int64N(int64(limit)))
	go func() {
		time.Sleep(d)
		f()
	}()
}

var oracleErrors = []*kerr.Error{kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress,
	kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.RequestTimedOut}

// fault does one thing to the cluster.
func (tr *trial) fault() {
	n := tr.nodes[tr.rng.IntN(len(tr.nodes))]
	switch tr.rng.IntN(12) {
	case 0, 1:
		tr.note("freeze %s", n.name)
		tr.later(9*time.Second, n.gate.freeze())
	case 2:
		tr.note("cut off %s", n.name)
		n.gate.set(true, 0)
		tr.later(9*time.Second, func() { n.gate.set(false, 0) })
	case 3:
		tr.note("slow %s", n.name)
		n.gate.set(false, time.Duration(tr.rng.IntN(600))*time.Millisecond)
		tr.later(5*time.Second, func() { n.gate.set(false, 0) })
	case 4:
		tr.note("drop connections of %s", n.name)
		n.gate.drop()
	case 5, 6:
		unit := tr.rng.IntN(tr.units)
		tr.note("%s kicks the owner of %d", n.name, unit)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = n.Kick(ctx, unit, "test") // it may be refused
		}()
	case 7:
		tr.note("coordinator moves")
		tr.w.kafka.RehashCoordinators()
	case 8:
		tr.note("drain %s", n.name)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = n.Drain(ctx) // it may be late
		}()
		tr.later(6*time.Second, n.Undrain)
	case 9:
		tr.restart(n)
	default:
		tr.injectError()
	}
}

func (tr *trial) injectError() {
	keys := []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.FindCoordinator, kmsg.LeaveGroup}
	key, err := keys[tr.rng.IntN(len(keys))], oracleErrors[tr.rng.IntN(len(oracleErrors))]
	count := 1 + tr.rng.IntN(4)
	tr.note("%s fails %d times: %s", key.Name(), count, err.Message)
	h := tr.w.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: count, TopLevel: tr.rng.IntN(2) == 0})
	tr.later(4*time.Second, h.Remove)
}

// restart stops a node by plan and starts it again; the old process may still be at it.
func (tr *trial) restart(n *trialNode) {
	tr.note("restart %s", n.name)
	for i := range tr.nodes {
		if tr.nodes[i] == n {
			n.cancel()
			tr.nodes[i] = tr.start(n.name)
		}
	}
}

func (tr *trial) run() error {
	for i := range 2 + tr.rng.IntN(2) {
		tr.nodes = append(tr.nodes, tr.start(fmt.Sprint("gw-", string(rune('a'+i)))))
	}
	for range 8 + tr.rng.IntN(8) {
		time.Sleep(time.Duration(tr.rng.IntN(3000)) * time.Millisecond)
		tr.fault()
	}
	time.Sleep(10 * time.Second) // what was done is mended by now
	tr.calm.Store(true)
	for _, n := range tr.nodes {
		n.Undrain()
	}
	if err := tr.settles(); err != nil {
		return err
	}
	return tr.check()
}

// settles waits until each unit has one owner that may publish.
func (tr *trial) settles() error {
	for range 400 {
		owned := 0
		for u := range tr.units {
			for _, n := range tr.nodes {
				if n.owns(u)() {
					owned++
				}
			}
		}
		if owned == tr.units {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	var all []string
	for _, n := range tr.nodes {
		all = append(all, string(mustJSON(n.Status())))
	}
	return fmt.Errorf("the units have no owners 20s after all was mended: %s", strings.Join(all, "\n"))
}

func (tr *trial) check() error {
	if err := tr.w.ledger.overlap(); err != nil {
		return err
	}
	for _, n := range tr.nodes {
		if err := inTurn(n.host.heard()); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
	}
	return nil
}

// inTurn checks that a host is told of a unit's end before it is told of its next beginning.
func inTurn(heard []string) error {
	has := map[string]bool{}
	for i, line := range heard {
		what, unit, _ := strings.Cut(line, " ")
		if has[unit] == (what == "acquire") {
			return fmt.Errorf("%q after %q", line, heard[:i])
		}
		has[unit] = what == "acquire"
	}
	return nil
}

func TestLeasesNeverOverlap(t *testing.T) {
	first, runs := uint64(1), *oracleRuns
	if testing.Short() {
		runs = min(runs, 30)
	}
	if *oracleSeed != 0 {
		first, runs = *oracleSeed, 1
	}
	for seed := first; seed < first+uint64(runs); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				tr := &trial{t: t, w: newWorld(t), rng: rng, units: 1 + rng.IntN(3)}
				if err := tr.run(); err != nil {
					t.Errorf("replay with -cluster.seed=%d: %v\n%s", seed, err, strings.Join(tr.did, "\n"))
				}
			})
		})
		if t.Failed() {
			return
		}
	}
}
