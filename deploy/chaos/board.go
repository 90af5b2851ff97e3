package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// board shows how the runs go and sums them up.
type board struct {
	s     *settings
	out   io.Writer
	began time.Time

	mu      sync.Mutex
	shown   time.Time
	runs    int
	failed  []uint64
	faults  map[string]int
	kinds   map[string]int // violations
	sums    [13]int
	longest time.Duration
}

func newBoard(s *settings) *board {
	return &board{s: s, out: os.Stdout, began: time.Now(), shown: time.Now(), faults: map[string]int{}, kinds: map[string]int{}}
}

// add takes a run's result, shows it when it failed, and keeps or removes its folder.
func (b *board) add(r *result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs++
	b.longest = max(b.longest, r.took)
	for k, n := range r.faults {
		b.faults[k] += n
	}
	if rep := r.report; rep != nil {
		for i, n := range []int{rep.Messages, rep.Events, rep.Calls, rep.Repeats, rep.Gaps, rep.Touched, rep.Excused, rep.Overtaken, rep.Otherwise, rep.Destroyed, rep.Off, rep.Synthetic, rep.Writers} {
			b.sums[i] += n
		}
		for _, v := range rep.Violations {
			b.kinds[v.Kind]++
		}
	}
	if r.failed() {
		b.failed = append(b.failed, r.plan.seed)
		text := r.tell(b.s)
		fmt.Fprint(b.out, text)
		_ = os.WriteFile(filepath.Join(r.dir, "failure.txt"), []byte(text), 0o600) // it was printed
	} else if b.s.verbose {
		fmt.Fprintf(b.out, "\nseed %d after %v, kept: %s\n    %s\n", r.plan.seed, r.took.Round(ms), r.dir, strings.Join(r.diary, "\n    "))
	} else {
		_ = os.RemoveAll(r.dir) // nobody needs it
	}
	if b.s.verbose || time.Since(b.shown) > b.s.every {
		b.shown = time.Now()
		fmt.Fprintf(b.out, "%s  %d%s runs, %d failed; %d calls, %d events, %d faults\n", time.Since(b.began).Round(time.Second), b.runs, b.s.ofAll(),
			len(b.failed), b.sums[2], b.sums[1], sum(b.faults))
	}
}

// ofAll says how many runs there will be, where that is known.
func (s *settings) ofAll() string {
	if s.total > 0 {
		return ""
	}
	return fmt.Sprint(" of ", s.runs)
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// tell is all there is to know of a failed run.
func (r *result) tell(s *settings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nFAILED seed %d after %v\n", r.plan.seed, r.took.Round(ms))
	if r.err != nil {
		fmt.Fprintf(&b, "  the run itself: %v\n", r.err)
	}
	if r.report != nil {
		fmt.Fprintf(&b, "  %d violations, the first of them:\n", len(r.report.Violations))
		for i, v := range r.report.Violations {
			if i == 12 {
				break
			}
			fmt.Fprintf(&b, "  - %s\n", v)
			for _, m := range v.Messages {
				fmt.Fprintf(&b, "      %s\n", m)
			}
		}
	}
	fmt.Fprintf(&b, "  what was done:\n    %s\n", strings.Join(r.diary, "\n    "))
	fmt.Fprintf(&b, "  kept: %s\n  again: make chaos ARGS=\"%s\"\n\n", r.dir, s.again(r.plan.seed))
	return b.String()
}

// again is the arguments that do a run again.
func (s *settings) again(seed uint64) string {
	args := fmt.Sprintf("--seed %d --nodes %d", seed, s.nodes)
	add := func(when bool, format string, a ...any) {
		if when {
			args += " " + fmt.Sprintf(format, a...)
		}
	}
	add(!s.journal, "--journal=false")
	add(s.live, "--live")
	add(s.namespaces, "--namespaces")
	add(s.clocks, "--clocks")
	add(s.length != quickLength, "--length %v", s.length)
	add(s.faults != 8, "--faults %d", s.faults)
	add(s.rate != 8, "--rate %v", s.rate)
	add(s.speed != 250, "--speed %v", s.speed)
	add(s.only != "", "--only '%s'", s.only)
	add(s.without != "", "--without '%s'", s.without)
	return args
}

// finish prints the table and returns the seeds of the runs that failed.
func (b *board) finish() []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	row := func(what string, n any) { fmt.Fprintf(b.out, "  %-44s %v\n", what, n) }
	fmt.Fprintf(b.out, "\n%d runs in %v, %d failed\n", b.runs, time.Since(b.began).Round(time.Second), len(b.failed))
	for i, what := range []string{"messages", "events of calls", "calls", "repeats of an id with the same payload", "gaps published",
		"calls that a gap touched", "events not there, excused by a gap", "events of queues, AMI and ARI out of step", "events made of what the witness made nothing of", "faults of calls whose journal was damaged", "records of such calls that say less", "events made up from snapshots", "writers"} {
		row(what, b.sums[i])
	}
	row("longest run", b.longest.Round(ms))
	for _, k := range slices.Sorted(maps.Keys(b.faults)) {
		row("fault: "+k, b.faults[k])
	}
	for _, k := range slices.Sorted(maps.Keys(b.kinds)) {
		row("VIOLATION: "+k, b.kinds[k])
	}
	if len(b.failed) > 0 {
		slices.Sort(b.failed)
		row("failed seeds", b.failed)
	}
	return b.failed
}
