package router

import (
	"fmt"
	"io"
	"time"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/journal"
)

// The format of the loop's state in a checkpoint.
const (
	stateName    = "L"
	stateVersion = 1
)

// unstopped is source.down's reason when the gateway before ended without stopping.
const unstopped = "the gateway ended without stopping"

// appendState encodes everything that the next message's effect depends on.
func (p *loop) appendState(dst []byte) []byte {
	s := savedLoop{turn: p.nth, gen: p.gen, now: p.now, ahead: p.ahead, ticked: p.ticked, judge: p.fresh.AppendState(nil), tracker: p.tracker.AppendState(nil)}
	for _, l := range p.r.links {
		s.links = append(s.links, savedLink{l.id, l.state})
	}
	for i := range p.tombs.n {
		s.tombs = append(s.tombs, p.tombs.ring[(p.tombs.head+i)%len(p.tombs.ring)])
	}
	pack := new(call.Pack)
	pack.Write(dst)
	s.pack(pack)
	return pack.Bytes()
}

// restoreState takes over what appendState encoded. Links that are not configured any more are left out.
func (p *loop) restoreState(b []byte) error {
	var s savedLoop
	pack := new(call.Pack)
	pack.Read(b)
	s.pack(pack)
	if err := pack.Done(); err != nil {
		return fmt.Errorf("reading a checkpoint of %d bytes: %w", len(b), err)
	}
	tracker, err := p.r.o.RestoreTracker(s.tracker)
	if err != nil {
		return fmt.Errorf("reading a checkpoint: %w", err)
	}
	if err := p.fresh.Restore(s.judge); err != nil {
		return fmt.Errorf("reading a checkpoint: %w", err)
	}
	p.tracker, p.nth, p.gen, p.now, p.ahead, p.ticked = tracker, s.turn, s.gen, s.now, s.ahead, s.ticked
	p.tombs = tombstones{max: p.tombs.max, after: p.tombs.after}
	for _, x := range s.tombs {
		if int(x.link) < len(s.links) {
			if l := p.linkOf(s.links[x.link].id); l != nil {
				x.link = l.index
				p.tombs.put(x)
			}
		}
	}
	for _, x := range s.links {
		if l := p.linkOf(x.id); l != nil {
			l.state = x.state
		}
	}
	return nil
}

// savedLoop is the core loop's state as a checkpoint has it.
type savedLoop struct {
	turn, gen          uint64
	now, ahead, ticked call.Time
	links              []savedLink
	tombs              []tomb // their links by their places in links
	judge, tracker     []byte
}

type savedLink struct {
	id    string
	state linkState
}

func (s *savedLoop) pack(p *call.Pack) {
	p.Format(stateName, stateVersion)
	p.Uint(&s.turn)
	p.Uint(&s.gen)
	for _, t := range [...]*call.Time{&s.now, &s.ahead, &s.ticked} {
		p.Time(t)
	}
	call.PackList(p, &s.links, packLink)
	call.PackList(p, &s.tombs, packTomb)
	p.Data(&s.judge)
	p.Data(&s.tracker)
}

func packLink(p *call.Pack, x *savedLink) {
	st := &x.state
	p.Word(&x.id)
	p.SwitchRef(&st.ref)
	p.Uint(&st.seq)
	for _, b := range [...]*bool{&st.up, &st.wasUp, &st.downSaid} {
		p.Bool(b)
	}
	p.Word(&st.downWhy)
	p.Time(&st.heard)
	reading := st.snapshot != nil
	if p.Bool(&reading); reading && p.Reading() {
		st.snapshot = newSnapshot()
	}
	p.Time(&st.lately)
}

func packTomb(p *call.Pack, x *tomb) {
	id, due, link := x.id[:], uint64(x.due), uint64(x.link)
	p.Data(&id)
	p.Uint(&due)
	p.Uint(&link)
	if p.Reading() {
		copy(x.id[:], id)
		x.due, x.link = uint32(due), uint16(link)
	}
}

// restored says what a start found in the journal.
type restored struct {
	turns   int  // replayed after it
	torn    bool // a turn did not follow the one before
	damaged []string
}

// restore brings the loop's state back: the newest checkpoint, and what was taken after it. What came out of that was
// journaled then, and goes to the sinks from there.
func (p *loop) restore(j *journal.Journal, opened journal.Report) error {
	var was restored
	seq, state, err := j.Checkpoint()
	if err == nil && state != nil {
		err = p.restoreState(state)
	}
	if err != nil {
		p.r.log.Error("journal: the checkpoint cannot be used; going on from what the journal still has", "error", err)
		seq = 0
	}
	began := time.Now()
	if err := p.replay(j, seq+1, &was); err != nil {
		return err
	}
	for _, d := range opened.Damage {
		if d.LastSeq > seq {
			was.damaged = append(was.damaged, d.String())
		}
	}
	p.damage = was.damaged
	if f := p.r.follower; f != nil {
		f.restarted = !was.torn // else the cluster's log has it whole
	}
	p.r.log.Info("journal: state restored", "checkpoint", seq, "turns", was.turns, "active_calls", p.tracker.Active(), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// replay applies the inputs of the journal from record seq on.
func (p *loop) replay(j *journal.Journal, seq uint64, was *restored) error {
	return p.eachTurn(j, seq, func(in *inputs) bool {
		was.turns++
		was.torn = was.torn || in.turn != p.nth+1
		p.repeat(in)
		clear(p.items)
		p.items = p.items[:0]
		return true
	}, func(err error) {
		if !passedOver(err) { // else told by the report
			was.damaged = append(was.damaged, err.Error())
		}
	})
}

// eachTurn reads the turns of the journal from record seq on, until take wants no more. bad is told what is passed over.
func (p *loop) eachTurn(j *journal.Journal, seq uint64, take func(*inputs) bool, bad func(error)) error {
	rd, err := j.Read(seq)
	if err != nil {
		return fmt.Errorf("journal: reading from record %d: %w", seq, err)
	}
	defer rd.Close()
	for {
		rec, err := rd.Next()
		switch {
		case err == io.EOF:
			return nil
		case passedOver(err):
			bad(err)
			continue
		case err != nil:
			return fmt.Errorf("journal: reading after record %d: %w", seq, err)
		case rec.Kind != RecordInputs:
			continue
		}
		in, err := readInputs(rec.Data, p.linkOf)
		if err != nil {
			bad(fmt.Errorf("record %d: %w", rec.Seq, err))
			continue
		}
		if !take(&in) {
			return nil
		}
	}
}

// began is the first turn after a restart: nobody has listened since the gateway ended. A link that was up then is down.
func (p *loop) began() {
	now := p.clockTime()
	p.now = max(p.now, now)
	for _, l := range p.r.links {
		for _, d := range p.damage {
			p.step(&message{kind: msgGap, link: l, text: "journal damaged: " + d, at: now - p.ahead, now: now, ahead: p.ahead})
		}
		if l.state.up {
			p.step(&message{kind: msgDown, link: l, text: unstopped, at: now - p.ahead, from: l.state.heard - p.ahead, now: now, ahead: p.ahead}) // it may have ended right behind its last frame
		}
	}
	p.damage = nil
	p.r.keeper.wantState.Store(true)
}
