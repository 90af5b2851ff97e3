package router

import (
	"slices"
	"time"
)

// maxUnlogged bounds what is remembered of turns until they are in the cluster's log, in bytes.
const maxUnlogged = 256 << 20

// unlogged is what was taken in this stint and may not be in the cluster's log yet: this node may lose the links before it is,
// and get them back.
type unlogged struct {
	turns []inputs
	bytes int
	lost  map[*link]*drop // for want of room
	until uint64          // turn of the last lost
}

// add remembers what a turn took. logged is the latest turn that is in the log for sure.
func (u *unlogged) add(in inputs, logged uint64) {
	for len(u.turns) > 0 && u.turns[0].turn <= logged {
		u.pop()
	}
	in.msgs = slices.Clone(in.msgs)
	for i := range in.msgs {
		if m := &in.msgs[i]; m.link != nil && !m.link.raw {
			m.raw = nil
		}
	}
	u.turns = append(u.turns, in)
	for u.bytes += in.size(); u.bytes > maxUnlogged && len(u.turns) > 1; {
		u.lose(&u.turns[0])
		u.pop()
	}
}

func (u *unlogged) pop() {
	u.bytes -= u.turns[0].size()
	u.turns[0] = inputs{}
	u.turns = u.turns[1:]
}

func (u *unlogged) lose(in *inputs) {
	if u.lost == nil {
		u.lost = map[*link]*drop{}
	}
	u.until = in.turn
	for i := range in.msgs {
		if m := &in.msgs[i]; m.kind == msgFrame {
			missed(u.lost, m)
		}
	}
}

// remember keeps what a turn took until it is in the cluster's log.
func (p *loop) remember(in inputs) {
	if p.r.follower != nil {
		p.unlogged.add(in, p.r.stint.x.logged.Load())
	}
}

// leftBefore reads from the journal what is of turns before the stint and not in the cluster's log: the node ended, or Kafka
// was away, before it was logged.
func (r *Router) leftBefore(s *stint) (left unlogged) {
	x := s.x
	bad := func(err error) {
		r.log.Error("cluster: reading from the journal what is not in the log", "error", err)
	}
	err := r.loop.eachTurn(x.lag.j, x.lag.cursor.Seq()+1, func(in *inputs) bool {
		if in.turn < x.begun {
			left.add(*in, x.logged.Load())
		}
		return in.turn < x.begun
	}, bad)
	if err != nil {
		bad(err)
	}
	return left
}

// again is what a stint left that was lost: what it, and stints before it, took and the cluster's log has not. Where the journal
// goes on from the log's end, this is in the loop's state; else another node owned the links since, and it is held.
type again struct {
	logged uint64 // the latest turn that is in the log
	parts  []unlogged
}

// holdAgain holds what was taken in turns after that, as if it had come while another node owned the links: before what has
// come since. Where a session began or ended in these turns, or something was missed, what is held does not follow from the
// log.
func (p *loop) holdAgain(after uint64, parts []unlogged) {
	if len(parts) == 0 {
		return
	}
	h, now := p.r.follower.held, time.Now()
	dropped := h.dropped
	later := h.take()
	h.dropped = dropped
	for _, u := range parts {
		if u.until > after {
			for l, d := range u.lost {
				addDrop(h.dropped, l, *d)
			}
			for _, l := range p.r.links { // a session may have begun in these turns
				l.begunAnew(now)
			}
		}
		for _, in := range u.turns {
			if in.turn > after {
				p.holdTurn(&in, now)
			}
		}
	}
	for i := range later {
		h.hold(&later[i], now)
	}
}

func (p *loop) holdTurn(in *inputs, now time.Time) {
	for i := range in.msgs {
		switch m := &in.msgs[i]; m.kind {
		case msgFrame:
			p.r.follower.held.hold(m, now)
		case msgUp, msgDown, msgGap, msgMissing:
			m.link.begunAnew(now)
		}
	}
}
