package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/core/cluster"
	"github.com/ctigate/ctigate/deploy/chaos/oracle"
)

// Native events of an average call of the ordinary mix, on both switches together.
const eventsPerCall = (115.0 + 60.0) / 2

// takeovers measures, under load, how long it takes from an owner's kill -9, or SIGSTOP in turn, to the first event that
// the other node publishes, and judges all that was published.
type takeovers struct {
	*run
	perSecond float64 // native events offered

	quit context.CancelFunc // ends the load

	mu     sync.Mutex
	writer string // of the newest message
	wait   chan time.Time
	past   map[string]bool // writers whose messages are not what is waited for
	killed []time.Duration
	hung   []time.Duration
}

// measure does n takeovers and prints what it found. It returns how many promises were broken.
func measure(ctx context.Context, s *settings, n int, out io.Writer) (int, error) {
	p := &plan{seed: s.seed, nodes: []string{"n1", "n2"}}
	res := &result{plan: p, dir: s.keep + "/takeovers", faults: map[string]int{}}
	r := &run{plan: p, s: s, dir: res.dir, nodes: map[string]*node{}, done: map[string]int{}, began: time.Now(), started: time.Now(), straight: !s.namespaces}
	t := &takeovers{run: r, perSecond: s.load, past: map[string]bool{}}
	defer r.close()
	if err := fresh(r.dir); err != nil {
		return 0, err
	}
	if err := r.setUp(ctx); err != nil {
		return 0, err
	}
	r.reader.watch(t.saw)
	if err := r.published(30 * time.Second); err != nil {
		return 0, err
	}
	t.begin(ctx)
	for i := range n {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err := t.once(ctx, i%2 == 1); err != nil {
			return 0, fmt.Errorf("takeover %d: %w", i+1, err)
		}
		fmt.Fprintf(out, "\r%d of %d takeovers", i+1, n)
	}
	fmt.Fprintln(out)
	rep, err := t.finish(ctx)
	if err != nil {
		return 0, err
	}
	res.report, res.diary = rep, r.diary
	t.print(out, rep)
	if res.failed() {
		text := res.tell(s)
		fmt.Fprint(out, text)
		if err := os.WriteFile(filepath.Join(r.dir, "failure.txt"), []byte(text), 0o600); err != nil {
			return 0, err
		}
	}
	return len(rep.Violations), nil
}

// begin starts the load.
func (t *takeovers) begin(ctx context.Context) {
	ctx, t.quit = context.WithCancel(ctx)
	go t.sw.offer(ctx, t.seed, t.perSecond/eventsPerCall)
	time.Sleep(3 * time.Second)
}

// saw follows who writes.
func (t *takeovers) saw(m *oracle.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Writer == "" || m.Stream == "sources" {
		return
	}
	t.writer = m.Writer
	if t.wait != nil && !t.past[m.Writer] {
		at := m.Appended
		if at.IsZero() {
			at = time.Now()
		}
		t.wait <- at
		t.wait = nil
	}
	t.past[m.Writer] = true
}

// once kills or stops the owner, and notes how long it takes until another writes.
func (t *takeovers) once(ctx context.Context, hang bool) error {
	owner, err := t.owner(ctx)
	if err != nil {
		return err
	}
	first := make(chan time.Time, 1)
	t.mu.Lock()
	t.wait = first
	t.mu.Unlock()
	n, at := t.nodes[owner], time.Now()
	if hang {
		n.signal(syscall.SIGSTOP)
	} else {
		n.kill()
	}
	t.note("%s is gone (hung: %v)", owner, hang)
	select {
	case then := <-first:
		took := then.Sub(at)
		t.note("the other took over after %v", took.Round(ms))
		if hang {
			t.hung = append(t.hung, took)
		} else {
			t.killed = append(t.killed, took)
		}
	case <-time.After(30 * time.Second):
		return fmt.Errorf("nobody took over from %s within 30 s (hung: %v)", owner, hang)
	case <-ctx.Done():
		return ctx.Err()
	}
	return t.back(n, hang)
}

// back lets the node that was lost come back, as a standby.
func (t *takeovers) back(n *node, hang bool) error {
	time.Sleep(500 * ms)
	if hang {
		n.signal(syscall.SIGCONT)
		return nil
	}
	return errors.Join(n.start(), n.ready(30*time.Second))
}

// owner waits until the group has both nodes and has had for so long that the other can take over without a gap, and says
// who owns the switches.
func (t *takeovers) owner(ctx context.Context) (string, error) {
	var last cluster.Status
	var err error
	steady := 0
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * ms) {
		if last, err = t.inspect(ctx); err != nil || len(last.Members) != len(t.nodes) || len(last.Units) != 1 || last.Units[0].Owner == "" {
			steady = 0
			continue
		}
		if steady++; steady >= 15 && t.proven() {
			return last.Units[0].Owner, nil
		}
	}
	return "", fmt.Errorf("the cluster does not settle: %+v, %w", last, err)
}

// proven reports whether every node says that it hears all that the owner does.
func (t *takeovers) proven() bool {
	for _, n := range t.nodes {
		if s, err := n.status(); err != nil || len(s.Cluster.Unproven) > 0 {
			return false
		}
	}
	return true
}

func (t *takeovers) inspect(ctx context.Context) (cluster.Status, error) {
	cfg := cluster.NewConfig()
	cfg.Node = "oracle"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return cluster.Inspect(ctx, cluster.Options{Config: cfg, Prefix: t.prefix(), Brokers: t.pastAll(), Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", t.kafka.past(addr))
		}})
}

// finish ends the load and judges.
func (t *takeovers) finish(ctx context.Context) (*oracle.Report, error) {
	t.troubles = append(t.troubles, oracle.Trouble{From: t.started, To: time.Now(), Blind: true})
	t.quit()
	if err := t.quiet(ctx); err != nil {
		return nil, err
	}
	rep, err := t.settle(ctx)
	if err == nil {
		for _, e := range t.trouble {
			rep.Violations = append(rep.Violations, oracle.Violation{Kind: "gateway", Text: e.Error()})
		}
		t.dump(rep)
	}
	return rep, err
}

func (t *takeovers) print(out io.Writer, rep *oracle.Report) {
	row := func(what string, l []time.Duration) {
		slices.Sort(l)
		if len(l) > 0 {
			fmt.Fprintf(out, "  %-8s %3d takeovers: p50 %v, p99 %v, max %v\n", what, len(l), l[len(l)/2].Round(ms), l[(len(l)*99)/100].Round(ms), l[len(l)-1].Round(ms))
		}
	}
	sent := int64(0)
	for _, p := range t.sw.by {
		for _, n := range p.Stats().Sent {
			sent += n
		}
	}
	fmt.Fprintf(out, "takeovers under %.0f native events a second (each reader's share of %d sent):\n", t.perSecond, sent)
	row("kill -9", t.killed)
	row("SIGSTOP", t.hung)
	fmt.Fprintf(out, "  %d events of %d calls, %d repeats with the same payload, %d gaps, %d events excused by them, %d violations\n", rep.Events, rep.Calls,
		rep.Repeats, rep.Gaps, rep.Excused, len(rep.Violations))
}
