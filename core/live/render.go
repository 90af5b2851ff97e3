package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// SGR codes.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

const (
	logLines  = 3
	maxStatus = 8 // lines for links and sinks together
)

// painter colours when colours are wanted.
type painter bool

func (p painter) in(code, s string) string {
	if !p || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Render draws the picture as lines of at most v.Width cells, at most v.Height of them.
func (t *Table) Render(v View) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := painter(v.Color)
	t.sweep(v.Now)
	active := t.active
	head := append([]string{t.summary(v, p, active)}, statusLines(v, p)...)
	foot := footLines(v, p)
	head = append(head, "")
	room := v.Height - len(head) - len(foot) - 1
	if room < 2 { // too low for everything: calls matter most
		head, foot = head[:1], nil
		room = v.Height - 2
	}
	cols := columns(v.Width, t.audible)
	lines := append(head, p.in(bold, headings(cols)))
	body := t.body(v, p, cols, max(0, room), active)
	lines = append(lines, body...)
	for range room - len(body) {
		lines = append(lines, "")
	}
	lines = append(lines, foot...)
	return lines[:max(0, min(len(lines), v.Height))]
}

func (t *Table) summary(v View, p painter, active int) string {
	rate := t.rate(v.Now, v.Status.Events)
	title := "ctigate " + v.Title
	facts := fmt.Sprintf("  up %s   calls %s now, %s ended   events %s, %.0f/s",
		clock(v.Now.Sub(v.Status.Started)), grouped(uint64(active)), grouped(t.ended), grouped(v.Status.Events), rate)
	return p.in(bold, fit(title, v.Width)) + fit(facts, max(0, v.Width-cells(title)))
}

func statusLines(v View, p painter) []string {
	wide := 4
	for _, l := range v.Status.Links {
		wide = max(wide, cells(l.ID))
	}
	for _, s := range v.Status.Sinks {
		wide = max(wide, cells(s.Name))
	}
	wide = min(wide, 20)
	var lines []string
	for _, l := range v.Status.Links {
		lines = append(lines, linkLine(l, wide, v.Width, p))
	}
	for _, s := range v.Status.Sinks {
		lines = append(lines, sinkLine(s, wide, v.Width, p))
	}
	if limit := min(maxStatus, max(1, v.Height/3)); len(lines) > limit {
		rest := fmt.Sprintf("     … and %d more", len(lines)-limit+1)
		lines = append(lines[:limit-1], fit(rest, v.Width))
	}
	return lines
}

func linkLine(l Link, wide, width int, p painter) string {
	word, code := "DOWN", red
	if l.Up {
		word, code = "up", green
	}
	about := l.Detail
	if l.Up && l.ClockKnown {
		about = fmt.Sprintf("clock %s ±%.1f   %s", offset(l.OffsetMS), l.UncertaintyMS, l.Detail)
	}
	return status("link", l.ID, word, code, about, wide, width, p)
}

// offset writes a clock offset with its sign; one that rounds to nothing has none.
func offset(ms float64) string {
	if ms > -0.05 && ms < 0.05 {
		return "0.0 ms"
	}
	return fmt.Sprintf("%+.1f ms", ms)
}

func sinkLine(s Sink, wide, width int, p painter) string {
	word, code := "ok", green
	about := fmt.Sprintf("acked %s   waiting %s", grouped(s.Acked), grouped(uint64(max(0, s.Waiting))))
	if s.Dropped > 0 {
		code = yellow
		about += fmt.Sprintf("   dropped %s", grouped(s.Dropped))
	}
	if s.Error != "" {
		word, code = "FAIL", red
		about += "   " + s.Error
	}
	return status("sink", s.Name, word, code, about, wide, width, p)
}

// status is one line of the form: kind name word about.
func status(kind, name, word, code, about string, wide, width int, p painter) string {
	left := kind + " " + pad(name, wide) + "  "
	mark := pad(word, 5)
	if cells(left)+cells(mark) > width {
		return fit(left+mark, width)
	}
	return p.in(dim, kind) + left[len(kind):] + p.in(code, mark) + fit(clean(about), width-cells(left)-cells(mark))
}

func footLines(v View, p painter) []string {
	var lines []string
	if len(v.Log) > 0 {
		lines = append(lines, "")
		for _, l := range v.Log[max(0, len(v.Log)-logLines):] {
			lines = append(lines, p.in(dim, fit(clean(l), v.Width)))
		}
	}
	if v.Hint != "" {
		lines = append(lines, p.in(cyan, fit(v.Hint, v.Width)))
	}
	return lines
}

// column is one column of the table; weight shares out the width that is left.
type column struct {
	title string
	width int
	share int
	right bool
}

// columns lays the table out for a width.
func columns(width int, audible bool) []column {
	cols := []column{
		{title: "STATE", width: 9},
		{title: "SWITCH", width: 7, share: 2},
		{title: "CALLER", width: 12, share: 4},
		{title: "DIALED", width: 12, share: 3},
		{title: "QUEUE", width: 7, share: 3},
		{title: "AGENT", width: 8, share: 3},
		{title: "AGE", width: 5, right: true},
		{title: "LAG", width: 7, right: true},
	}
	if audible {
		cols = slices.Insert(cols, len(cols)-2, column{title: "MOS", width: 5, right: true}, column{title: "LOSS", width: 6, right: true})
	}
	for len(cols) > 1 && total(cols) > width {
		drop := len(cols) - 1
		for _, first := range []string{"SWITCH", "LOSS"} {
			if i := slices.IndexFunc(cols, func(c column) bool { return c.title == first }); i >= 0 {
				drop = i
			}
		}
		cols = slices.Delete(cols, drop, drop+1)
	}
	widen(cols, width)
	cols[0].width = min(cols[0].width, width)
	return cols
}

// widen shares out the width that is left.
func widen(cols []column, width int) {
	spare, shares := width-total(cols), 0
	for _, c := range cols {
		shares += c.share
	}
	spare = min(spare, 60) // wider than this, a line is hard to follow
	for i := range cols {
		if spare > 0 && cols[i].share > 0 {
			cols[i].width += spare * cols[i].share / shares
		}
	}
}

func total(cols []column) int {
	n := len(cols) - 1
	for _, c := range cols {
		n += c.width
	}
	return n
}

func headings(cols []column) string {
	var parts []string
	for _, c := range cols {
		if c.right {
			parts = append(parts, padLeft(c.title, c.width))
		} else {
			parts = append(parts, pad(c.title, c.width))
		}
	}
	return strings.TrimRight(strings.Join(parts, " "), " ")
}

// body draws up to n lines of calls, the last one saying how many have no line.
func (t *Table) body(v View, p painter, cols []column, n, active int) []string {
	if n > 0 && active == 0 && len(t.calls) == 0 {
		return []string{p.in(dim, fit("no calls yet", v.Width))}
	}
	rows := t.visible(n)
	if shown := countActive(rows); shown < active && n > 1 {
		rows = t.visible(n - 1)
		hidden := active - countActive(rows)
		lines := t.lines(v, p, cols, rows)
		return append(lines, p.in(dim, fit(fmt.Sprintf("… and %s more calls", grouped(uint64(hidden))), v.Width)))
	}
	return t.lines(v, p, cols, rows)
}

func countActive(rows []*row) int {
	n := 0
	for _, r := range rows {
		if r != nil && r.endedAt.IsZero() {
			n++
		}
	}
	return n
}

func (t *Table) lines(v View, p painter, cols []column, rows []*row) []string {
	lines := make([]string, len(rows))
	for i, r := range rows {
		if r != nil {
			lines[i] = r.line(v.Now, p, cols)
		}
	}
	return lines
}

func (r *row) line(now time.Time, p painter, cols []column) string {
	parts := make([]string, 0, len(cols))
	for _, c := range cols {
		text, code := r.cell(c.title, now)
		if c.right {
			text = padLeft(text, c.width)
		} else {
			text = pad(text, c.width)
		}
		if !r.endedAt.IsZero() && c.title != "STATE" {
			code = dim
		}
		parts = append(parts, p.in(code, text))
	}
	return strings.TrimRight(strings.Join(parts, " "), " ")
}

// word is the call's state, or, once ended, its outcome, and the colour for it.
func (r *row) word() (string, string) {
	if !r.endedAt.IsZero() {
		switch {
		case r.call.MergedInto != "":
			return "merged", dim
		case r.call.Outcome == call.Answered:
			return "ended", dim
		case r.call.Outcome != "":
			return strings.ReplaceAll(string(r.call.Outcome), "_", " "), red
		}
		return "ended", dim
	}
	switch r.call.State {
	case call.StateActive:
		return "active", green
	case call.StateUnknown:
		return "unknown", red
	case call.StateQueued, call.StateAlerting:
		return string(r.call.State), yellow
	}
	return string(r.call.State), cyan
}

// cell is what stands under a title, and the colour for it.
func (r *row) cell(title string, now time.Time) (text, code string) {
	c := r.call
	switch title {
	case "STATE":
		return r.word()
	case "SWITCH":
		return c.Switch.ID, ""
	case "CALLER":
		return who(c.From), ""
	case "DIALED":
		return who(c.To), ""
	case "QUEUE":
		if c.Queue != nil {
			return c.Queue.ID, ""
		}
	case "AGENT":
		return agent(c), ""
	case "MOS":
		return r.mos()
	case "LOSS":
		return r.loss()
	case "AGE":
		return clock(r.age(now)), ""
	case "LAG":
		if r.lag > 1000 {
			code = yellow
		}
		return span(r.lag), code
	}
	return "", ""
}

func who(a *call.Address) string {
	switch {
	case a == nil:
		return ""
	case a.Number != "":
		return a.Number
	}
	return a.Name
}

// agent is the agent who is talking, else the last one who was tried.
func agent(c *call.Call) string {
	last := ""
	for _, x := range c.Connections {
		if x.Party.Role != call.RoleAgent {
			continue
		}
		last = x.Party.ID
		if x.State == call.Connected || x.State == call.Held {
			break
		}
	}
	return last
}

// age is how long the call has lasted, by our clock.
func (r *row) age(now time.Time) time.Duration {
	if !r.endedAt.IsZero() {
		now = r.endedAt
	}
	start := r.first
	if s := r.call.StartedAt; !s.IsZero() {
		start = s.Std().Add(-time.Duration(r.offset * float64(time.Millisecond)))
	}
	return now.Sub(start)
}
