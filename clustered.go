package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/cluster"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/sinks/kafka"
)

const (
	logRetention = 6 * time.Hour // of what the owner took: a joining node needs a few minutes of it
	kickTimeout  = 3 * time.Second
	kickEvery    = 300 * time.Millisecond
	deadFor      = 10 * time.Second // a node that died may still be the owner
	theUnit      = 0                // one unit holds all switches
	slowly       = 5                // how much longer than usual a takeover may take
)

// clustered is this gateway's part in a cluster. It is told by Kafka when the switches are its own.
type clustered struct {
	cfg    *cluster.Config
	log    *slog.Logger
	member *cluster.Member
	link   *cluster.Link
	ln     net.Listener
	router *router.Router
	kicks  chan kick

	// Of kicker.
	owners  string // the member that owns the switches
	ownedAt time.Time
}

// kick is an owner to be removed: the process of a node that died, by its member id where that is known, or, without a
// node, whoever owns the switches.
type kick struct {
	node, member, reason string
	at                   time.Time
}

// clusterKafka is the sink whose Kafka decides, prepared to shut out whoever owned the switches before.
func clusterKafka(c *configs.Config) *kafka.Config {
	for _, s := range c.Sinks {
		if k, is := s.Config.(*kafka.Config); is {
			k.TransactionalID = c.Cluster.GroupID(k.TopicPrefix)
			k.FenceTopics = []string{logTopic(k.TopicPrefix, c.Cluster)}
			return k
		}
	}
	return nil
}

func logTopic(prefix string, c *cluster.Config) string {
	return prefix + "cluster." + c.Group + ".log.v1"
}

func memberOptions(c *configs.Config, k *kafka.Config, log *slog.Logger) cluster.Options {
	return cluster.Options{Config: c.Cluster, Prefix: k.TopicPrefix, Brokers: k.Brokers, Dial: k.Dial, CreateTopic: k.CreateTopics,
		Replication: k.ReplicationFactor, StopTimeout: c.DrainTimeout, Log: log}
}

// newClustered makes this gateway's part. It connects to nothing, but listens for its peers.
func newClustered(ctx context.Context, c *configs.Config, k *kafka.Config, log *slog.Logger) (*clustered, error) {
	x := &clustered{cfg: c.Cluster, log: log, kicks: make(chan kick, 8)}
	var err error
	if x.member, err = cluster.NewMember(memberOptions(c, k, log)); err != nil {
		return nil, fmt.Errorf("joining the cluster: %w", err)
	}
	x.link, err = cluster.NewLink(cluster.LinkOptions{Config: c.Cluster, Version: buildVersion(), Log: log, PeerDead: x.peerDead,
		Report: func() cluster.Report { return x.member.Report(nil) }})
	if err != nil {
		return nil, fmt.Errorf("joining the cluster: %w", err)
	}
	if x.ln, err = x.link.Listen(ctx); err != nil {
		return nil, err
	}
	return x, nil
}

// options are what the router needs. log opens itself when it is first used.
func (x *clustered) options(log core.Log) *router.Cluster {
	return &router.Cluster{Node: x.cfg.Node, Log: log, Owner: x.owner, HungAfter: x.cfg.HungAfter,
		Hung:   func(reason string) { x.kick(kick{reason: reason}) },
		Fenced: func(err error) { x.member.GiveUp(theUnit, err) }}
}

func (x *clustered) owner() bool {
	o, ours := x.member.Owned(theUnit)
	return ours && o.Valid(time.Now())
}

// run takes part until ctx ends, and then hands over and leaves.
func (x *clustered) run(ctx context.Context, r *router.Router) {
	x.router = r
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var others sync.WaitGroup
	others.Go(func() { x.link.Run(life, x.ln) })
	others.Go(func() { x.kicker(life) })
	select {
	case <-r.Joined():
		if err := x.member.Run(ctx, x); err != nil {
			x.log.Error("leaving the cluster", "error", err)
		}
	case <-ctx.Done():
	}
	end()
	others.Wait()
}

// Acquire takes the switches over.
func (x *clustered) Acquire(ctx context.Context, t cluster.Takeover) error {
	return x.router.TakeOver(ctx, uint64(t.Generation), t.Previous.Node)
}

// Release hands them over.
func (x *clustered) Release(ctx context.Context, _ int) error { return x.router.StandDown(ctx, true) }

// Lost stops publishing.
func (x *clustered) Lost(_ int, why error) {
	if err := x.router.StandDown(context.Background(), false); err != nil {
		x.log.Error("standing down", "reason", why, "error", err)
	}
}

// peerDead has a node that has died removed, if the switches were its own.
func (x *clustered) peerDead(id, member string) {
	x.kick(kick{node: id, member: member, reason: "node " + id + " is dead", at: time.Now()})
}

// kick leaves a kick to kicker; when there are many to be done already, one more changes nothing.
func (x *clustered) kick(k kick) {
	select {
	case x.kicks <- k:
	default:
	}
}

// kicker removes owners, those that died until they are gone.
func (x *clustered) kicker(ctx context.Context) {
	look := time.NewTicker(kickEvery)
	defer look.Stop()
	dead := map[string]kick{} // by node
	for {
		select {
		case <-look.C:
			x.look()
		case k := <-x.kicks:
			if k.node != "" {
				dead[k.node] = k
			} else if x.begun() {
				x.remove(ctx, x.member.Owner(theUnit).Member, k.reason)
			}
		case <-ctx.Done():
			return
		}
		x.bury(ctx, dead)
	}
}

// bury removes the owner if its process is among the dead, and forgets those that are gone or were long ago. Where it is not
// known which process of a node died, it is none that became the owner since.
func (x *clustered) bury(ctx context.Context, dead map[string]kick) {
	x.look()
	o := x.member.Owner(theUnit)
	for node, k := range dead {
		ours := node == o.Node && (k.member == o.Member || k.member == "" && x.ownedAt.Before(k.at))
		if time.Since(k.at) > deadFor || ours && x.remove(ctx, o.Member, k.reason) {
			delete(dead, node)
		}
	}
}

// look notes since when the switches have had their owner.
func (x *clustered) look() {
	if o := x.member.Owner(theUnit); o.Member != x.owners {
		x.owners, x.ownedAt = o.Member, time.Now()
	}
}

// begun reports whether the present owner, another process, has had the time to wait for the lease of the one before, take
// over, and be heard of. One that has written nothing yet has more of it: Kafka may be slow, and would be for the next, too.
func (x *clustered) begun() bool {
	o := x.member.Owner(theUnit)
	id, _ := x.member.ID()
	patience := 2*x.cfg.Lease + x.cfg.HungAfter
	if x.router.LogWriter() != o.Node {
		patience *= slowly
	}
	return o.Member == x.owners && o.Member != id && time.Since(x.ownedAt) > patience
}

// remove reports whether the group is rid of a member.
func (x *clustered) remove(ctx context.Context, member, reason string) bool {
	if id, _ := x.member.ID(); member == "" || member == id {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, kickTimeout)
	defer cancel()
	x.log.Warn("cluster: removing the owner of the switches", "member", member, "reason", reason)
	err := x.member.KickMember(ctx, member, reason)
	if err != nil {
		x.log.Warn("cluster: the owner could not be removed", "reason", reason, "error", err)
	}
	return err == nil
}

// lateLog is the cluster's log, opened with its sink when it is first used.
type lateLog struct {
	sink  *late
	topic string

	mu  sync.Mutex
	log *kafka.Log
}

func (l *lateLog) opened(ctx context.Context) (*kafka.Log, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log != nil {
		return l.log, nil
	}
	s, err := l.sink.opened(ctx)
	if err != nil {
		return nil, err
	}
	l.log, err = s.(*kafka.Sink).OpenLog(ctx, kafka.LogConfig{Topic: l.topic, Retention: logRetention})
	return l.log, err
}

// Append appends to the log.
func (l *lateLog) Append(ctx context.Context, entries [][]byte) ([]int64, error) {
	log, err := l.opened(ctx)
	if err != nil {
		return nil, err
	}
	return log.Append(ctx, entries)
}

// pageEntries is how many entries one Read returns at most.
const pageEntries = 1000

// Read reads from the log.
func (l *lateLog) Read(ctx context.Context, from int64) (core.LogPage, error) {
	log, err := l.opened(ctx)
	if err != nil {
		return core.LogPage{}, err
	}
	page, err := log.ReadFrom(ctx, from, pageEntries)
	var off *kafka.OffsetError
	if errors.As(err, &off) && (from < off.First || from > off.End) { // it has grown old, or the topic was made anew
		page, err = log.ReadFrom(ctx, off.First, pageEntries)
	}
	if err != nil {
		return core.LogPage{}, err
	}
	out := core.LogPage{Next: page.Next, End: page.End}
	for _, e := range page.Entries {
		out.Entries = append(out.Entries, core.LogEntry{Offset: e.Offset, Data: e.Data})
	}
	return out, nil
}

// End looks at the log.
func (l *lateLog) End(ctx context.Context) (int64, error) {
	log, err := l.opened(ctx)
	if err != nil {
		return 0, err
	}
	return log.End(ctx)
}

func (l *lateLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log != nil {
		l.log.Close()
	}
}
