package adaptertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Host is the smallest host of an adapter: a tracker that is fed what the adapter emits, and told when its link is lost.
type Host struct {
	Switch call.SwitchRef
	Events []*call.Event

	tracker *call.Tracker
	last    call.Time
}

// NewHost makes a host of a switch of kind, whose process is instance.
func NewHost(kind, instance string) *Host {
	return &Host{Switch: call.SwitchRef{ID: "golden", Kind: kind, Instance: instance}, tracker: call.NewTracker(call.Options{})}
}

// Frame takes one frame.
func (h *Host) Frame(f core.Frame) {
	h.last = max(h.last, f.Received)
	h.Events = append(h.Events, h.tracker.Tick(f.Received)...)
	for _, o := range f.Observations {
		h.Events = append(h.Events, h.tracker.Apply(h.Switch, o)...)
	}
}

// Down says that the link was lost.
func (h *Host) Down(at call.Time) {
	h.last = max(h.last, at)
	h.Events = append(h.Events, h.tracker.Apply(h.Switch, call.Observation{Kind: call.LinkDown, At: at, Received: at, Synthetic: true})...)
}

// Finish lets the time pass that waiting calls wait for, and returns how many calls never ended.
func (h *Host) Finish() (active int) {
	h.Events = append(h.Events, h.tracker.Tick(h.last+2*call.Second)...)
	return h.tracker.Active()
}

// Cut is where a recording is cut: the first At messages are heard, Lost more are not, then the link is back. Of the
// messages that follow, Window come while the snapshot is taken, which shows the switch as it was after Shown of them.
type Cut struct{ At, Lost, Window, Shown int }

// Cuts lists the cuts of a recording of n messages. Every message that says something, by says, has cuts before and behind
// it, with stretches of all lengths, every other message a few. With the race detector it is a sample.
func Cuts(n int, says func(i int) bool) (out []Cut) {
	var telling []int
	for i := range n {
		if says(i) {
			telling = append(telling, i)
		}
	}
	p := cutting{n: n, telling: telling, seen: map[Cut]bool{}}
	step := 1 + len(telling)/40 // of a long recording not each with each
	for i := 0; i <= n; i++ {
		rank, _ := slices.BinarySearch(telling, i)
		switch {
		case (i == n || says(i)) && rank%step == 0:
			p.lengths(i, rank)
		case i%step == 0:
			p.add(Cut{At: i})
			p.add(Cut{At: i, Lost: min(3, n-i)})
			p.add(Cut{At: i, Lost: n - i})
		}
	}
	for i := 0; i < len(p.out); i += everyCut {
		out = append(out, p.out[i])
	}
	return out
}

// cutting collects cuts, each once.
type cutting struct {
	n       int
	telling []int // the messages that say something
	seen    map[Cut]bool
	out     []Cut
}

func (p *cutting) add(c Cut) {
	if !p.seen[c] {
		p.seen[c] = true
		p.out = append(p.out, c)
	}
}

// lengths adds the cuts before message i, which rank messages that say something lie before.
func (p *cutting) lengths(i, rank int) {
	for _, lost := range [...]int{0, 1, 2, 5, 13, len(p.telling)} {
		back := max(p.from(rank+lost), i) // the first message that is heard again
		for _, window := range [...]int{0, 1, 4} {
			width := max(p.from(rank+lost+window)-back, 0)
			for _, shown := range [...]int{0, width / 2, width} {
				p.add(Cut{At: i, Lost: back - i, Window: width, Shown: shown})
			}
		}
	}
}

// from is where the message of a rank stands, or the end.
func (p *cutting) from(rank int) int {
	if rank < len(p.telling) {
		return p.telling[rank]
	}
	return p.n
}

// Losses counts what cuts have cost, scenario by scenario.
type Losses map[string]map[string]int

// Add notes one cut of a scenario.
func (l Losses) Add(scenario string, losses []string) {
	if l[scenario] == nil {
		l[scenario] = map[string]int{}
	}
	l[scenario]["cuts"]++
	if len(losses) == 0 {
		l[scenario]["whole"]++
	}
	slices.Sort(losses)
	for _, x := range slices.Compact(losses) {
		l[scenario][x]++
	}
}

// String is a table: for each scenario how many cuts there were, how many cost nothing, and what others cost, in percent
// of the cuts.
func (l Losses) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l)) {
		row := l[name]
		fmt.Fprintf(&b, "%-32s %5d cuts, %3d%% cost nothing;", name, row["cuts"], 100*row["whole"]/row["cuts"])
		for _, what := range slices.Sorted(maps.Keys(row)) {
			if what != "cuts" && what != "whole" {
				fmt.Fprintf(&b, " %s %d%%", what, (100*row[what]+row["cuts"]-1)/row["cuts"])
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
