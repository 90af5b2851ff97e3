// Command chaos runs the gateway between simulated switches and a Kafka while everything around it and the gateway
// itself is made to fail at random seeded moments, and judges what arrived: docs/reliability.md.
//
//	make chaos                               500 seeded runs of the quick form
//	make chaos ARGS="--seed 17"              one run again
//	make chaos ARGS="--live --for 30m"       against three real Apache Kafka brokers
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// settings are those of all runs.
type settings struct {
	seed       uint64
	runs       int
	parallel   int
	length     time.Duration
	faults     int
	rate       float64 // calls a second
	speed      float64
	nodes      int
	journal    bool
	lease      time.Duration
	live       bool
	root       bool
	clocks     bool   // of nodes are set
	namespaces bool   // every node in a network of its own
	only       string // kinds of faults, comma-separated; all when empty
	without    string
	keep       string        // folder for what failed
	binary     string        // ctigate
	within     time.Duration // everything must have been delivered so soon after the last call
	verbose    bool
	takeovers  int
	load       float64
	total      time.Duration // of all runs; 0: as many as runs says
	every      time.Duration // between lines of progress

	cluster func(dir string) (brokers, error)
	lines   func(n *node) string
}

// plays reports whether faults of that kind are wanted and possible.
func (s *settings) plays(k *kind) bool {
	named := func(list string) bool { return strings.Contains(","+list+",", ","+k.name+",") }
	return (k.needs == nil || k.needs(s)) && (s.only == "" || named(s.only)) && !named(s.without)
}

func parse(args []string) (*settings, error) {
	s := &settings{root: os.Geteuid() == 0}
	fl := flag.NewFlagSet("chaos", flag.ContinueOnError)
	seed := fl.Uint64("seed", 0, "do the one run of this `SEED`; with --runs, begin with it")
	fl.IntVar(&s.runs, "runs", 0, "how many runs, seeds counting up (default 500, or 1 with --seed)")
	fl.IntVar(&s.parallel, "parallel", 4, "runs at once: they mostly wait")
	fl.DurationVar(&s.length, "length", quickLength, "how long faults go on in a run")
	fl.IntVar(&s.faults, "faults", 8, "faults drawn for a run")
	fl.Float64Var(&s.rate, "rate", 8, "calls a second")
	fl.Float64Var(&s.speed, "speed", 250, "how many times faster than life people talk")
	fl.IntVar(&s.nodes, "nodes", 2, "gateways: 1 or 2")
	fl.BoolVar(&s.journal, "journal", true, "with a journal, so that nodes may be killed")
	fl.DurationVar(&s.lease, "lease", 500*time.Millisecond, "of two nodes: how long an owner may publish after a heartbeat; the rest follows from it")
	fl.BoolVar(&s.namespaces, "namespaces", false, "each node in a network namespace of its own, whose cable is pulled (root, Linux, ip(8))")
	fl.BoolVar(&s.clocks, "clocks", false, "set the clocks of nodes too: they are built with a time.Now that the driver can set off")
	fl.BoolVar(&s.live, "live", false, "against three real Apache Kafka brokers (Java and Maven), in longer runs one after the other")
	fl.DurationVar(&s.total, "for", 0, "go on for this `TIME` rather than for a number of runs")
	fl.IntVar(&s.takeovers, "takeovers", 0, "instead of runs, measure this many takeovers under load")
	fl.Float64Var(&s.load, "load", 500, "of takeovers: native events a second")
	fl.StringVar(&s.only, "only", "", "only these `KINDS` of faults, comma-separated; none for none")
	fl.StringVar(&s.without, "without", "", "all but these `KINDS`")
	fl.StringVar(&s.keep, "keep", filepath.Join(os.TempDir(), "ctigate-chaos"), "`FOLDER` for the logs and journals of what failed")
	fl.StringVar(&s.binary, "binary", "", "the ctigate to test; built when empty")
	fl.DurationVar(&s.within, "within", 20*time.Second, "how soon after the last call everything must have arrived")
	fl.BoolVar(&s.verbose, "v", false, "print what was done in each run, and keep its folder")
	if err := fl.Parse(args); err != nil {
		return nil, err
	}
	if s.clocks && s.binary != "" {
		err := errors.New("--clocks builds a ctigate of its own: leave --binary out")
		fmt.Fprintln(fl.Output(), err)
		return nil, err
	}
	var err error
	if s.keep, err = filepath.Abs(s.keep); err != nil {
		return nil, err
	}
	s.seed = max(1, *seed)
	if s.runs == 0 && *seed != 0 {
		s.runs = 1
	} else if s.runs == 0 {
		s.runs = 500
	}
	s.every = 10 * time.Second
	if s.total > 0 {
		s.runs = 1 << 30
	}
	s.cluster = func(dir string) (brokers, error) { return startFake(dir, s.host()) }
	if s.live {
		s.forLive(fl)
	}
	if s.takeovers > 0 {
		s.speed, s.lease, s.within = 20, time.Second, 30*time.Second
	}
	s.lines = s.more
	return s, nil
}

// forLive makes what was not given fit for real brokers: they take seconds to start, and there is one set of them.
func (s *settings) forLive(fl *flag.FlagSet) {
	given := map[string]bool{}
	fl.Visit(func(f *flag.Flag) { given[f.Name] = true })
	set := func(name string, f func()) {
		if !given[name] {
			f()
		}
	}
	set("length", func() { s.length = time.Minute })
	set("faults", func() { s.faults = 24 })
	set("speed", func() { s.speed = 40 })
	set("rate", func() { s.rate = 5 })
	set("lease", func() { s.lease = time.Second })
	set("within", func() { s.within = 60 * time.Second })
	s.parallel = 1
}

// more is what the settings add to a node's configuration.
func (s *settings) more(n *node) string {
	var b strings.Builder
	if s.journal {
		fmt.Fprintf(&b, "journal:\n  dir: %s\n", n.journal())
	}
	if s.nodes > 1 {
		fmt.Fprintf(&b, "cluster:\n  node: %s\n  listen: %s\n  lease: %v\n  heartbeat: %v\n  hung_after: %v\n  session: 3s\n  peers:\n", n.name, n.peer,
			s.lease, s.lease/5, 2*s.lease)
		for _, name := range slices.Sorted(maps.Keys(n.ways)) {
			fmt.Fprintf(&b, "    - {id: %s, address: %q}\n", name, n.ways[name])
		}
		fmt.Fprintf(&b, "  tls: {ca_file: %[1]s/ca.pem, cert_file: %[1]s/%[2]s.pem, key_file: %[1]s/%[2]s.key}\n", s.certs(), n.name)
	}
	return b.String()
}

// names are the nodes'.
func (s *settings) names() (all []string) {
	for i := range s.nodes {
		all = append(all, fmt.Sprint("n", i+1))
	}
	return all
}

// host is the driver's address, as the nodes reach it.
func (s *settings) host() string {
	if s.namespaces {
		return hub
	}
	return loopback
}

// certs is the folder of the certificates that the nodes show each other.
func (s *settings) certs() string { return filepath.Join(s.keep, "certs") }

// build makes the ctigate under test, with a clock that can be set when clocks says so.
func build(dir string, clocks bool) (string, error) {
	out := filepath.Join(dir, "ctigate")
	args := []string{"build", "-o", out}
	if clocks {
		overlay, err := steppable(dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, "github.com/ctigate/ctigate")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building ctigate: %w", err)
	}
	return out, nil
}

func main() {
	s, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := prove(ctx, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || len(failed) > 0 {
		os.Exit(1)
	}
}

// prove does all runs and returns the seeds of those that failed; of takeovers, the seed when something was violated.
func prove(ctx context.Context, s *settings) (failed []uint64, err error) {
	if err := os.MkdirAll(s.keep, 0o700); err != nil {
		return nil, err
	}
	if s.binary == "" {
		if s.binary, err = build(s.keep, s.clocks); err != nil {
			return nil, err
		}
	}
	if s.namespaces {
		if err := openHub(); err != nil {
			return nil, err
		}
		defer closeHub()
	}
	if s.nodes > 1 {
		if err := issue(s.certs(), s.names()...); err != nil {
			return nil, err
		}
	}
	if s.live {
		l, err := startLive(s.keep, s.host())
		if err != nil {
			return nil, err
		}
		defer l.shutDown()
		s.cluster = func(string) (brokers, error) { return l, l.answer(60 * time.Second) }
	}
	if s.takeovers > 0 {
		n, err := measure(ctx, s, s.takeovers, os.Stdout)
		if n > 0 {
			failed = append(failed, s.seed)
		}
		return failed, err
	}
	b := newBoard(s)
	seeds := make(chan uint64)
	var workers sync.WaitGroup
	for range min(s.parallel, s.runs) {
		workers.Go(func() {
			for seed := range seeds {
				b.add(carryOut(ctx, newPlan(seed, s), s))
			}
		})
	}
	for i := range s.runs {
		if s.total > 0 && time.Since(b.began) > s.total {
			break
		}
		select {
		case seeds <- s.seed + uint64(i):
		case <-ctx.Done():
		}
	}
	close(seeds)
	workers.Wait()
	return b.finish(), ctx.Err()
}
