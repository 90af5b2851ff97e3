package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/ctigate/ctigate/sim/people"
)

// knot pins a moment of the recording to one of the simulated call, both in microseconds.
type knot struct{ rec, at int64 }

// simCall is one call being played. Only the switch's own goroutine touches it.
type simCall struct {
	sw             *engine
	sc             *score
	number         int64 // 1, 2, 3 …
	start          int64 // scripted time of the recording's zero
	vals           []string
	staff          []*agent
	knots          []knot
	next           int     // step to be sent
	order          []int32 // of the steps, when the call was cut short
	cutFrom, cutTo int64   // recorded moments between which it was cut
	due            int64   // when next is to be sent
	seq            int64
	top            int64 // highest event number used
	rng            *rand.Rand
	truth          Truth
}

func (c *simCall) agent(i int) *agent {
	if i < len(c.staff) {
		return c.staff[i]
	}
	return &agent{number: i + 1}
}

// warp puts a moment of the recording on the simulated time line.
func (c *simCall) warp(t int64) int64 {
	ks := c.knots
	if len(ks) == 0 || t <= ks[0].rec {
		if len(ks) == 0 {
			return c.start + t
		}
		return ks[0].at - (ks[0].rec - t)
	}
	for i := 1; i < len(ks); i++ {
		if t > ks[i].rec {
			continue
		}
		a, b := ks[i-1], ks[i]
		if b.rec-a.rec == b.at-a.at {
			return a.at + t - a.rec
		}
		return a.at + int64(float64(t-a.rec)*float64(b.at-a.at)/float64(b.rec-a.rec))
	}
	l := ks[len(ks)-1]
	return l.at + t - l.rec
}

// cutDur is a duration as switches tell it: the difference of two moments, each cut to units of n microseconds.
func (c *simCall) cutDur(p *piece, n int64) int64 {
	if p.maybe && c.skipped(p.t) {
		return 0
	}
	return max(0, c.warp(p.t2)/n-c.warp(p.t)/n)
}

// skipped reports whether the call was cut short before it came to recorded moment t.
func (c *simCall) skipped(t int64) bool {
	return c.order != nil && t > c.cutFrom && t < c.cutTo
}

// stretch draws how long each wait lasts and pins the recording's time line to it.
func (c *simCall) stretch(waits []int64) {
	c.knots = c.knots[:0]
	at := c.start
	rec := int64(0)
	for i, s := range c.sc.spans {
		at += s.from - rec
		c.knots = append(c.knots, knot{s.from, at})
		at += waits[i]
		c.knots = append(c.knots, knot{s.to, at})
		rec = s.to
	}
}

// drawWaits draws the length of every wait; those without a name keep the recorded one.
func (c *simCall) drawWaits() []int64 {
	out := make([]int64, len(c.sc.spans))
	for i, s := range c.sc.spans {
		out[i] = s.to - s.from
		if s.name != "" {
			out[i] = int64(float64(draw(c.rng, s.name)) / c.sw.opt.Speed)
		}
	}
	return out
}

// patience is how long a caller waits at most for an agent to become free, in microseconds; then one takes a second call.
const patience = 240 * second

// hire gives the call its agents. A queued call waits for one who is free; a direct one goes to who is free soonest.
func (c *simCall) hire(sp script, waits []int64, wanted []*agent) {
	c.stretch(waits)
	var prev *agent
	for i := range sp.agents {
		var a *agent
		if i < len(wanted) {
			a = wanted[i]
		} else {
			a = c.sw.staff.pick(c.warp(c.offer()), prev)
		}
		c.staff, prev = append(c.staff, a), a
	}
	if sp.queued && len(c.staff) > 0 {
		for i, s := range c.sc.spans {
			if late := c.staff[0].free - c.warp(s.to); s.name == "wait" && late > 0 {
				waits[i] += min(late, int64(patience/c.sw.opt.Speed))
				c.stretch(waits)
			}
		}
	}
	for _, a := range c.staff {
		a.free = max(a.free, c.warp(c.sc.last)+second)
	}
}

// offer is the recorded moment at which the first agent is wanted.
func (c *simCall) offer() int64 {
	for _, s := range c.sc.spans {
		if s.name == "wait" {
			return s.to
		}
	}
	return 0
}

// fill makes the values that do not depend on when they are first shown.
func (c *simCall) fill(queue int) {
	c.vals = make([]string, len(c.sc.slots))
	number, name := people.CallerNumber(c.rng), people.CallerName(c.rng)
	pressed := people.Pad(c.rng.IntN(100), 2)
	q := c.sw.opt.Queues[queue]
	for i, s := range c.sc.slots {
		switch s.kind {
		case slotRandom:
			c.vals[i] = randomLike(c.rng, s.rec)
		case slotCaller:
			c.vals[i] = number
		case slotName:
			c.vals[i] = name
		case slotAgent:
			c.vals[i] = c.agent(s.arg).user()
		case slotAgentName:
			c.vals[i] = c.agent(s.arg).display()
		case slotExt:
			c.vals[i] = c.agent(s.arg).ext()
		case slotQueue:
			c.vals[i] = q
		case slotQueueExt:
			c.vals[i] = strconv.Itoa(2000 + 100*queue)
		case slotCRM:
			c.vals[i] = "C-" + strconv.Itoa(1001+c.rng.IntN(8999))
		case slotDigits:
			c.vals[i] = digitsPressed(s, pressed)
		}
	}
	c.truth.From, c.truth.FromName, c.truth.Digits, c.truth.Queue = "+"+number, name, pressed, q
}

func digitsPressed(s slot, pressed string) string {
	switch {
	case s.rec == "opt42":
		return "opt" + pressed
	case s.arg >= 0:
		return pressed[s.arg : s.arg+1]
	}
	return pressed
}

// begin makes the values that count up, when the step that first shows them comes.
func (c *simCall) begin(s *step) {
	for _, i := range s.begins {
		if c.vals[i] != "" {
			continue
		}
		switch c.sc.slots[i].kind {
		case slotUnique:
			c.vals[i] = fmt.Sprintf("%d.%d", c.sw.stamp(c.warp(s.own))/second, c.sw.count(countChannel))
		case slotChan:
			c.vals[i] = fmt.Sprintf("%08x", c.sw.count(countName))
		case slotCallID:
			c.vals[i] = fmt.Sprintf("C-%08x", c.sw.count(countCall))
		case slotSession:
			if c.sc.slots[i].arg == 1 {
				c.vals[i] = strconv.FormatInt(c.seq, 10)
			} else {
				c.vals[i] = strconv.FormatInt(c.sw.count(countSession), 10)
			}
		}
	}
}

// numberStep takes the step's event number.
func (c *simCall) numberStep(s *step) {
	if s.adv > 0 {
		c.top = c.sw.countBy(countEvent, s.adv)
	}
	c.seq = c.top - s.back
	for _, h := range s.holes {
		c.vals[h.slot] = strconv.FormatInt(c.seq-h.back, 10)
	}
}

// current is the step to be sent, nil at the end.
func (c *simCall) current() *step {
	if c.order != nil {
		if c.next >= len(c.order) {
			return nil
		}
		return &c.sc.steps[c.order[c.next]]
	}
	if c.next >= len(c.sc.steps) {
		return nil
	}
	return &c.sc.steps[c.next]
}

// played calls yield for each step that was sent, first to last.
func (c *simCall) played(yield func(*step) bool) {
	for i := range c.next {
		n := i
		if c.order != nil {
			n = int(c.order[i])
		}
		if !yield(&c.sc.steps[n]) {
			return
		}
	}
}

const base36 = "0123456789abcdefghijklmnopqrstuvwxyz"

// randomLike draws a text of rec's shape: digits for digits, letters for letters, hexadecimal for hexadecimal.
func randomLike(r *rand.Rand, rec string) string {
	b := []byte(rec)
	uuid := reUUID.MatchString(rec)
	number := digits(rec) == len(rec)
	for i, c := range b {
		switch {
		case uuid && (c == '-' || i == 14 || i == 19):
		case uuid:
			b[i] = base36[r.IntN(16)]
		case number:
			b[i] = likeDigit(r, c, i)
		case c >= '0' && c <= '9':
			b[i] = base36[r.IntN(10)]
		case c >= 'a' && c <= 'z':
			b[i] = base36[10+r.IntN(26)]
		case c >= 'A' && c <= 'Z':
			b[i] = base36[10+r.IntN(26)] - 32
		}
	}
	return string(b)
}

// likeDigit keeps a number's first digit, so that ports and counters stay in their range.
func likeDigit(r *rand.Rand, c byte, i int) byte {
	if i == 0 {
		return c
	}
	return base36[r.IntN(10)]
}

// queueIndex draws one of the queues.
func (c *simCall) queueIndex() int { return c.rng.IntN(len(c.sw.opt.Queues)) }
