package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/deploy/chaos/oracle"
)

// run is one plan being carried out.
type run struct {
	*plan
	s   *settings
	dir string

	straight bool // no proxies between the nodes: a dead one's port refuses, as in life

	sw      *switches
	witness *witness
	kafka   brokers
	reader  *reader
	nodes   map[string]*node

	brokers  sync.Mutex // held while any of them is down
	started  time.Time
	began    time.Time // of the faults
	mu       sync.Mutex
	diary    []string
	troubles []oracle.Trouble
	done     map[string]int // faults carried out, by kind
	trouble  []error        // of the gateway: what no message shows
}

// result is a run's outcome.
type result struct {
	plan   *plan
	dir    string
	took   time.Duration
	err    error // the driver's own: the run tells nothing
	report *oracle.Report
	faults map[string]int
	diary  []string
}

func (r *result) failed() bool { return r.err != nil || len(r.report.Violations) > 0 }

// carryOut runs a plan from nothing to a verdict.
func carryOut(ctx context.Context, p *plan, s *settings) *result {
	res := &result{plan: p, dir: filepath.Join(s.keep, fmt.Sprintf("seed-%d", p.seed))}
	began := time.Now()
	r := &run{plan: p, s: s, dir: res.dir, nodes: map[string]*node{}, done: map[string]int{}, began: began, started: began}
	res.err = fresh(r.dir)
	if res.err == nil {
		res.err = r.all(ctx, res)
	}
	r.close()
	res.took, res.faults, res.diary = time.Since(began), r.done, r.diary
	return res
}

// fresh makes dir anew.
func fresh(dir string) error { return errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)) }

func (r *run) all(ctx context.Context, res *result) error {
	if err := r.setUp(ctx); err != nil {
		return err
	}
	if err := r.published(20 * time.Second); err != nil {
		return err
	}
	r.note("everything is up")
	r.troubles = append(r.troubles, oracle.Trouble{From: r.started, To: time.Now(), Blind: true})
	r.play(ctx)
	if err := r.quiet(ctx); err != nil {
		return err
	}
	rep, err := r.settle(ctx)
	if err != nil {
		return err
	}
	res.report = rep
	r.dump(rep)
	for _, e := range r.trouble {
		rep.Violations = append(rep.Violations, oracle.Violation{Kind: "gateway", Text: e.Error()})
	}
	return ctx.Err()
}

// dump writes down what a failed run read and what the witness heard, for whoever looks into it.
func (r *run) dump(rep *oracle.Report) {
	if len(rep.Violations) == 0 && len(r.trouble) == 0 {
		return
	}
	var b strings.Builder
	for _, m := range r.reader.messages() {
		fmt.Fprintf(&b, "%s %s %s key=%s id=%s type=%s seq=%d %s\n", m.Appended.UTC().Format("15:04:05.000"), m.At(), m.Writer, m.Key, m.ID, m.Type, m.Seq, m.Value)
	}
	r.wrote("messages.txt", b.String())
	b.Reset()
	for _, e := range r.witness.heard() {
		text, _ := json.Marshal(e) // an event can always be written
		fmt.Fprintf(&b, "%s id=%s type=%s seq=%d call=%s %s\n", e.Time.Received.Std().Format("15:04:05.000"), e.ID, e.Type, e.Seq, e.CallID, text)
	}
	r.wrote("witness.txt", b.String())
}

func (r *run) wrote(name, text string) {
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.note("keeping %s: %v", name, err)
	}
}

func (r *run) setUp(ctx context.Context) (err error) {
	if r.kafka, err = r.s.cluster(r.dir); err != nil {
		return err
	}
	if r.sw, err = startSwitches(ctx, r.seed, r.s.speed); err != nil {
		return err
	}
	if r.witness, err = startWitness(r.sw); err != nil {
		return err
	}
	if r.reader, err = newReader(r.pastAll(), r.prefix(), r.kafka.past); err != nil {
		return err
	}
	for _, name := range r.plan.nodes {
		n, err := newNode(name, r.dir, r.s, r.sw, r.kafka.addrs(), r.prefix())
		if err != nil {
			return err
		}
		r.nodes[name] = n
	}
	if err := r.introduce(); err != nil {
		return err
	}
	if err := r.mountJournals(); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range r.nodes {
		if err := n.ready(20 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

// published waits until the topics say that each switch has been listened to and asked what is up there.
func (r *run) published(within time.Duration) error {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(30 * ms) {
		seen := map[string]bool{}
		for _, m := range r.reader.messages() {
			if m.Type == string(call.SourceReconciled) {
				seen[m.Key] = true
			}
		}
		if len(seen) == len(r.sw.by) {
			return nil
		}
	}
	return fmt.Errorf("the gateway has not published within %v that it hears both switches", within)
}

// introduce gives each node its way to each other one, and has the brokers' proxies tell nodes apart.
func (r *run) introduce() error {
	for _, n := range r.nodes {
		for _, other := range r.nodes {
			if other == n {
				continue
			}
			n.ways[other.name] = other.peer
			if r.straight {
				continue
			}
			p, err := newProxy(r.s.host(), n.name+" to "+other.name, other.peer)
			if err != nil {
				return err
			}
			n.peers[other.name], n.ways[other.name] = p, p.addr()
		}
	}
	if len(r.nodes) > 1 {
		for _, p := range r.kafka.proxies() {
			p.set(func() { p.whose = r.whose })
		}
	}
	return nil
}

// whose is the node that a connection comes from.
func (r *run) whose(c net.Conn) string {
	names, pids := map[int]string{}, []int{}
	for _, n := range r.nodes {
		if n.cable != nil && n.cable.host == hostOf(c.RemoteAddr()) {
			return n.name
		}
		names[n.pid()] = n.name
		pids = append(pids, n.pid())
	}
	return names[ownerOf(c, pids)]
}

// prefix is that of the run's topics: real brokers have those of earlier runs too.
func (r *run) prefix() string {
	if r.s.live {
		return fmt.Sprintf("run%d-%d.", r.seed, r.started.UnixMilli())
	}
	return defaultPrefix
}

// pastAll is the brokers without their proxies.
func (r *run) pastAll() (all []string) {
	for _, a := range r.kafka.addrs() {
		all = append(all, r.kafka.past(a))
	}
	return all
}

// note writes a line into the diary.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.diary = append(r.diary, fmt.Sprintf("%s %7.3f s  %s", time.Now().UTC().Format("15:04:05.000"), time.Since(r.began).Seconds(), fmt.Sprintf(format, args...)))
}

// wrong notes what the gateway did that no message shows.
func (r *run) wrong(err error) {
	if err == nil {
		return
	}
	r.note("WRONG: %v", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = append(r.trouble, err)
}

// play places the calls and does the faults, each at its time.
func (r *run) play(ctx context.Context) {
	r.began = time.Now()
	var all sync.WaitGroup
	all.Go(func() {
		for _, c := range r.calls {
			if !r.until(ctx, c.at) {
				return
			}
			if err := r.sw.by[c.sw].Place(c.script); err != nil {
				r.note("placing %s on %s: %v", c.script, c.sw, err)
			}
		}
	})
	for _, f := range r.faults {
		all.Go(func() {
			if r.until(ctx, f.at) {
				r.do(f)
			}
		})
	}
	all.Wait()
	r.until(ctx, r.length)
	r.note("all faults are over")
}

func (r *run) do(f fault) {
	k := kindOf(f.kind)
	from := time.Now()
	r.note("%s", f)
	k.run(r, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[f.kind]++
	_, sw, _ := strings.Cut(f.target, "/")
	t := oracle.Trouble{Switch: sw, From: from, To: time.Now().Add(reconnect), Blind: k.disturbs >= blinds,
		Clock: k.disturbs == misdates, Damage: k.disturbs == damages, Beside: k.disturbs == nothing}
	if f.kind == nodeClock {
		t.Step = time.Duration(f.n) * ms
	}
	r.troubles = append(r.troubles, t)
}

// reconnect is how long after a fault a link may still be down: the gateway waits before it tries again.
const reconnect = 5 * time.Second

// until waits for a moment of the run and reports whether ctx is still on.
func (r *run) until(ctx context.Context, at time.Duration) bool {
	return !sleepOr(ctx.Done(), 0) || ctx.Err() == nil && sleepOr(ctx.Done(), time.Until(r.began.Add(at)))
}

// quiet waits until every simulated call has ended and the witness knows.
func (r *run) quiet(ctx context.Context) error {
	const most = 60 * time.Second
	for end := time.Now().Add(most); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * ms) {
		if r.sw.active() == 0 && r.witness.idle() {
			r.note("every call has ended")
			return r.witness.disturbed()
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the switches have %d calls up, and the witness %d, %v after the last fault", r.sw.active(), r.witness.r.ActiveCalls(), most)
}

// settle waits until everything is delivered, ends the nodes and judges. The bound is s.within.
func (r *run) settle(ctx context.Context) (*oracle.Report, error) {
	began := time.Now()
	for time.Since(began) < r.s.within && ctx.Err() == nil {
		time.Sleep(200 * ms)
		r.alive()
		if r.caughtUp(ctx) && r.idle() && len(r.judge().Violations) == 0 {
			break
		}
	}
	r.note("delivered, or given up waiting, after %v", time.Since(began).Round(ms))
	for _, n := range r.nodes {
		r.wrong(n.drain(20 * time.Second))
	}
	if !r.caughtUp(ctx) {
		return nil, errors.New("the topics could not be read to their ends")
	}
	return r.judge(), nil
}

func (r *run) caughtUp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := r.reader.catchUp(ctx)
	if err != nil {
		r.note("reading: %v", err)
	}
	return err == nil
}

// alive notes nodes that have ended by themselves, and starts them again.
func (r *run) alive() {
	for _, n := range r.nodes {
		if _, err := n.running(); err != nil {
			r.wrong(err)
			r.wrong(n.start())
		}
	}
}

func (r *run) idle() bool {
	for _, n := range r.nodes {
		if s, err := n.status(); err != nil || !s.idle() {
			return false
		}
	}
	return true
}

func (r *run) judge() *oracle.Report {
	r.mu.Lock()
	troubles := r.troubles
	r.mu.Unlock()
	return oracle.Judge(&oracle.Case{Messages: r.reader.messages(), Witness: r.witness.heard(), Truths: r.sw.truths(), Legs: r.sw.legs(), Natives: r.witness.told(), Troubles: troubles})
}

func (r *run) close() {
	for _, n := range r.nodes {
		n.close()
		n.keepJournal(true)
	}
	if r.witness != nil {
		r.witness.close()
	}
	if r.sw != nil {
		r.sw.close()
	}
	if r.reader != nil {
		r.reader.close()
	}
	if r.kafka != nil {
		r.kafka.close()
	}
}
