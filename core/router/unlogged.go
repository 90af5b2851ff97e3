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

// holdAgain holds what was taken in turns after logged, as if it had come while another node owned the links: before what
// has come since. Where a session began or ended in these turns, or something was missed, what is held does not follow
// from the log.
func (p *loop) holdAgain(logged uint64) {
	h, now := p.r.follower.held, time.Now()
	later := h.take()
	if p.unlogged.until > logged {
		h.dropped = p.unlogged.lost
	}
	for _, in := range p.unlogged.turns {
		for i := range in.msgs {
			switch m := &in.msgs[i]; {
			case in.turn <= logged:
			case m.kind == msgFrame:
				h.hold(m, now)
			case m.kind == msgUp || m.kind == msgDown || m.kind == msgGap || m.kind == msgMissing:
				m.link.begunAnew(now)
			}
		}
	}
	for i := range later {
		h.hold(&later[i], now)
	}
}
