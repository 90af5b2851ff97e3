package router

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// maxSnapshotCalls bounds how many calls of a snapshot are told apart for source.reconciled.
const maxSnapshotCalls = 200_000

// linkState is a link as the core loop knows it.
type linkState struct {
	ref      call.SwitchRef
	seq      uint64 // of its source events
	up       bool
	wasUp    bool // in an earlier session
	downSaid bool // source.down is the latest word
	downWhy  string
	heard    call.Time // received time up to which nothing is missing: last frame by the switch's own time, or up
	lately   call.Time // received time of the last frame without a time
	snapshot *snapshot // being read
}

// snapshot counts what one session's snapshot brings.
type snapshot struct {
	calls     map[string]struct{}
	synthetic int
}

func newSnapshot() *snapshot { return &snapshot{calls: map[string]struct{}{}} }

func (s *snapshot) saw(o *call.Observation, events []*call.Event) {
	if o.Kind == call.SnapshotLeg && len(s.calls) < maxSnapshotCalls {
		id := o.Link
		if id == "" {
			id = o.Leg
		}
		s.calls[id] = struct{}{}
	}
	for _, e := range events {
		if e.Synthetic {
			s.synthetic++
		}
	}
}

// source publishes a source.* event of l. Its id is a digest over switch, instance, type, time and sequence.
func (p *loop) source(l *link, t call.EventType, at call.Time, s *call.Source) {
	st := &l.state
	st.seq++
	e := &call.Event{Type: t, Switch: st.ref, Seq: st.seq, Source: s, Time: call.EventTime{Received: at},
		Native: call.Native{Type: "ctigate.link", ID: at.String(), Seq: st.seq}}
	e.ID = call.EventID(st.ref, e.Native, t, "")
	p.deliver(l, e)
}

// pile is how long it takes at most to read what has piled up while this process, or its machine, stood still.
const pile = 2 * call.Second

// hear notes up to when the link was heard. What had piled up is read all at once, and what was lost behind it had been
// sent long before: so the switch's own time of a frame counts, by what is known of its clock, and of a frame without one
// that it was not the last of a pile. What a session sends before it is up closes no gap, and neither does a snapshot: what
// came while it was taken is older, and told behind it.
func (p *loop) hear(l *link, m *message) {
	st := &l.state
	sent, told := m.sent()
	switch {
	case st.wasUp && !st.up, m.ofSnapshot():
	case told:
		if c, known := p.fresh.Clock(l.id); known {
			sent -= call.Time(c.OffsetMS * float64(call.Millisecond))
		}
		st.heard = max(st.heard, min(sent+m.ahead, m.received(m.at)))
	default:
		st.settle(m.received(m.at))
		st.lately = m.received(m.at)
	}
}

// settle trusts the last frame without a time, if it came well before now.
func (st *linkState) settle(now call.Time) {
	if now-st.lately > pile {
		st.heard = max(st.heard, st.lately)
	}
}

// lost takes back what was heard since m's from, where it tells one: of two channels of a link one may have lost what the
// other brought.
func (st *linkState) lost(m *message) {
	if m.from != 0 && st.up {
		st.heard = min(st.heard, m.received(m.from))
	}
}

// gap publishes that l was not heard since it last was, up to m, by the clock that m was read from: if it was set in
// between, the beginning is where it would be by that clock.
func (p *loop) gap(l *link, m *message, why string) {
	from := l.state.heard - m.ahead
	if from > m.at { // that clock was set while m waited
		from = m.at - max(0, m.now-l.state.heard)
	}
	p.source(l, call.SourceGap, m.at, &call.Source{Reason: why, From: from, To: m.at})
}

// ofSnapshot reports whether m says what a snapshot, or its adapter's guess, says rather than what happened.
func (m *message) ofSnapshot() bool {
	return len(m.obs) > 0 && !slices.ContainsFunc(m.obs, func(o call.Observation) bool { return !ofSnapshot(&o) })
}

// sent is when the switch says that the frame was sent, if it does.
func (m *message) sent() (at call.Time, told bool) {
	for i := range m.obs {
		if o := &m.obs[i]; !o.Synthetic && o.At != 0 && o.At != m.at {
			at, told = max(at, o.At), true
		}
	}
	return at, told
}

// up publishes source.up and, after an earlier session, the gap between the two, before the snapshot's events.
func (p *loop) up(l *link, m *message) {
	st := &l.state
	restarted := st.wasUp && m.inst.ID != st.ref.Instance
	st.ref.Instance = m.inst.ID
	if m.inst.Kind != "" {
		st.ref.Kind = m.inst.Kind
	}
	if st.wasUp && !st.up {
		p.unheard(l, m)
	}
	p.source(l, call.SourceUp, m.at, &call.Source{Version: m.inst.Version, Reason: missing(m.inst)})
	if st.wasUp {
		why := st.downWhy
		if restarted {
			why += "; the switch was restarted or replaced"
		}
		p.gap(l, m, why)
	}
	st.up, st.wasUp, st.downSaid = true, true, false
	st.heard, st.lately = m.received(m.at), m.received(m.at)
	st.snapshot = newSnapshot()
	if p.mute {
		return
	}
	l.tel.Up.Store(true)
	l.stats.came(m.inst, m.at)
	p.r.log.Info("link up", "link", l.id, "kind", st.ref.Kind, "version", m.inst.Version, "missing", m.inst.Missing)
}

// missing takes over what the session says it cannot see now.
func (p *loop) missing(l *link, m *message) {
	if !p.mute && l.stats.misses(m.inst.Missing) {
		p.r.log.Info("what the link cannot see has changed", "link", l.id, "missing", m.inst.Missing)
	}
}

func missing(i *core.Instance) string {
	if len(i.Missing) == 0 {
		return ""
	}
	return "missing: " + strings.Join(i.Missing, "; ")
}

// down makes the link's calls unknown and says so once, and again when a link that never came up fails for another
// reason.
func (p *loop) down(l *link, m *message) {
	st := &l.state
	if !p.mute {
		l.stats.failed(m.text, m.at)
		l.tel.Up.Store(false)
	}
	if !st.up && st.downSaid && (st.wasUp || m.text == st.downWhy || m.text == stopping) {
		p.unheard(l, m)
		return // known; why the retries fail is in the log
	}
	st.settle(m.received(m.at))
	st.lost(m)
	st.up, st.downSaid, st.downWhy, st.snapshot = false, true, m.text, nil
	p.unheard(l, m)
	p.source(l, call.SourceDown, m.at, &call.Source{Reason: m.text})
}

// unheard tells the tracker that nobody listens to l: also of calls that were told of when it was down already, as by what a
// node held that takes over.
func (p *loop) unheard(l *link, m *message) {
	p.emit(l, p.tracker.Apply(l.state.ref, call.Observation{Kind: call.LinkDown, At: m.at, Received: m.at, Reason: m.text, Synthetic: true,
		Native: call.Native{Type: "ctigate.link_down", ID: m.at.String(), Seq: l.state.seq}}))
}

// reconciled says what the snapshot that o ends has brought, and how it was put in order with the events.
func (p *loop) reconciled(l *link, o *call.Observation) {
	s := l.state.snapshot
	if s == nil {
		s = &snapshot{}
	}
	l.state.snapshot = nil
	p.source(l, call.SourceReconciled, o.Received, &call.Source{Calls: len(s.calls), Synthetic: s.synthetic, Mark: o.Value})
}

func (p *loop) clock(l *link, m *message) {
	c, changed, err := p.fresh.Sample(l.id, *m.clock)
	if err != nil {
		l.tel.Count("clock_sample_refused", 1)
		p.r.log.Debug("clock sample refused", "link", l.id, "error", err)
		return
	}
	if !p.mute {
		l.tel.SetOffset(c.OffsetMS)
		l.stats.clocked(c.OffsetMS, c.UncertaintyMS)
	}
	if !changed {
		return
	}
	if c.StepMS != 0 && !p.mute {
		p.r.log.Warn("the switch's clock jumped", "link", l.id, "step_ms", c.StepMS, "offset_ms", c.OffsetMS)
	}
	p.source(l, call.SourceClock, m.at, &call.Source{OffsetMS: c.OffsetMS, StepMS: c.StepMS})
}

// dropNotes publishes a source.gap on each switch whose items a full sink has dropped since the last note: when drops
// pause, when they have gone on for a while, or at once for the last time.
func (p *loop) dropNotes(last bool) {
	if p.r.keeper != nil {
		p.journalNotes()
		return
	}
	for _, w := range p.r.sinks {
		for id, d := range w.takeDrops(p.now, last) {
			if l := p.linkOf(id); l != nil {
				why := fmt.Sprintf("sink %q: %d items dropped, its queue was full", w.name, d.n)
				p.step(&message{kind: msgNote, link: l, text: why, now: p.now, ahead: p.ahead, from: d.from - p.ahead, at: p.now - p.ahead})
			}
		}
	}
}

// journalNotes publishes a source.gap of every link for what the journal could not keep for a sink.
func (p *loop) journalNotes() {
	for _, n := range p.r.keeper.takeNotes() {
		if n.to == 0 {
			n.from, n.to = p.now, p.now
		}
		for _, l := range p.r.links {
			p.step(&message{kind: msgNote, link: l, text: n.text, now: p.now, ahead: p.ahead, from: n.from - p.ahead, at: n.to - p.ahead})
		}
	}
}
