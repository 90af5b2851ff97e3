package call

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/google/uuid"
)

// state packs all of the tracker but its options and what lasts for one Apply only.
func (s *stateCodec) state() {
	p, t := &s.p, s.t
	p.Time(&t.now)
	p.Time(&t.blindDue)
	p.Uint(&t.order)
	p.Uint(&t.merges)
	count(p, &s.calls, 30)
	count(p, &s.legs, 20)
	count(p, &s.rooms, 4)
	if p.reading {
		t.legs, t.sip = make(map[legKey]*leg, len(s.legs)), make(map[string]*leg, len(s.legs))
		t.roots = make(map[string]*tracked, len(s.calls))
	}
	for _, l := range s.legs {
		s.leg(l)
	}
	for _, r := range s.rooms {
		s.room(r)
	}
	for _, c := range s.calls {
		s.tracked(c)
	}
	s.active()
	PackList(p, &t.waiting, func(_ *Pack, c **tracked) { s.callRef(c) })
	PackList(p, &s.told, func(_ *Pack, x *tombstone) { s.tombstone(x) })
	if p.reading {
		t.ended = s.told
	}
	s.spent()
	s.agents()
	packAttributes(p, &t.instances)
}

// count packs the number of things, and makes them when reading; each takes bytes bytes at least.
func count[T any](p *Pack, things *[]*T, bytes int) {
	n := uint64(len(*things))
	p.Uint(&n)
	if !p.reading {
		return
	}
	if n > uint64(p.Left()/bytes) {
		p.Fail("%d things are said to follow in %d bytes", n, p.Left())
		return
	}
	*things = make([]*T, n)
	const together = 32 // made at once, and kept as long as one of them is
	var made []T
	for i := range *things {
		if i%together == 0 {
			made = make([]T, min(together, int(n)-i))
		}
		(*things)[i] = &made[i%together]
	}
}

// ref packs a number of one of the things, 0 for none; it returns the thing when reading.
func ref[T any](p *Pack, things []*T, number uint32) *T {
	n := uint64(number)
	p.Uint(&n)
	if !p.reading || n == 0 {
		return nil
	}
	if n > uint64(len(things)) {
		p.Fail("number %d is meant, there are %d", n, len(things))
		return nil
	}
	return things[n-1]
}

func (s *stateCodec) legRef(l **leg) {
	var n uint32
	if *l != nil {
		n = (*l).mark
	}
	if x := ref(&s.p, s.legs, n); s.p.reading {
		*l = x
	}
}

func (s *stateCodec) callRef(c **tracked) {
	var n uint32
	if *c != nil {
		n = (*c).mark
	}
	if x := ref(&s.p, s.calls, n); s.p.reading {
		*c = x
	}
}

func (s *stateCodec) roomRef(r **room) {
	var n uint32
	if *r != nil {
		n = (*r).mark
	}
	if x := ref(&s.p, s.rooms, n); s.p.reading {
		*r = x
	}
}

func (s *stateCodec) legRefs(ls *[]*leg) {
	n, is := s.p.size(len(*ls), *ls != nil)
	if s.p.reading && is {
		*ls = make([]*leg, n)
	}
	for i := range *ls {
		s.legRef(&(*ls)[i])
	}
}

func (s *stateCodec) key(k *legKey) {
	s.p.Word(&k.sw)
	s.p.String(&k.id)
}

// leg packs l, and whether the tracker finds it by its id, its SIP Call-ID and its correlation value.
func (s *stateCodec) leg(l *leg) {
	p := &s.p
	s.key(&l.key)
	s.callRef(&l.c)
	optional(p, &l.conn, packConnection)
	packUint32(p, &l.epoch)
	packBools(p, &l.inbound, &l.cleared, &l.standing, &l.inferred, &l.seen, &l.lost)
	s.roomRef(&l.bridge)
	p.String(&l.dialed)
	p.String(&l.correlation)
	optional(p, &l.agreed, packMedia)
	p.Time(&l.joined)
	p.Time(&l.release)
	s.indexes(l)
}

func (s *stateCodec) indexes(l *leg) {
	var byID, byDialog, byHeader bool
	if !s.p.reading {
		byID, byDialog, byHeader = s.indexed(l), s.dialog(l), s.header(l)
	}
	packBools(&s.p, &byID, &byDialog, &byHeader)
	if !s.p.reading || l.conn == nil {
		return
	}
	if byID {
		s.t.legs[l.key] = l
	}
	if byDialog {
		s.t.sip[l.conn.SIPCallID] = l
	}
	if byHeader {
		s.t.sip[correlated+l.correlation] = l
	}
}

func (s *stateCodec) room(r *room) {
	s.key(&r.id)
	s.legRefs(&r.legs)
	if s.p.reading {
		s.t.rooms[r.id] = r
	}
}

func (s *stateCodec) tracked(c *tracked) {
	p := &s.p
	s.call(c)
	s.legRefs(&c.legs)
	s.legRefs(&c.shedLegs)
	s.connections(c)
	s.legRef(&c.first)
	s.legRef(&c.hangup)
	packInt(p, &c.live)
	p.Uint(&c.seq)
	packUint32(p, &c.epoch)
	PackWord(p, &c.settled)
	p.Uint(&c.order)
	packBools(p, &c.dirty, &c.answering, &c.queueOpen, &c.queued, &c.blind, &c.uncertain, &c.hangupOpen, &c.done)
	packBools(p, &c.passed, &c.waits, &c.unsure, &c.headless)
	p.Int(&c.queueMS)
	p.Time(&c.blindAt)
	p.Time(&c.backAt)
	for _, v := range [...]*int{&c.synthetic, &c.violations, &c.late, &c.gaps} {
		packInt(p, v)
	}
	PackList(p, &c.missing, (*Pack).Word)
	p.Time(&c.endDue)
	packRecent(p, c)
	s.root(c)
}

// call packs c's call without its connections, which are those of its legs.
func (s *stateCodec) call(c *tracked) {
	shown := c.call.Connections
	c.call.Connections = nil
	packCall(&s.p, &c.call)
	c.call.Connections = shown
}

// connections packs the connections that c shows: each that is one of its legs' by the number of that leg, from 1.
// What is not, is as a leg was when it went over to another call, and does not change any more.
func (s *stateCodec) connections(c *tracked) {
	PackList(&s.p, &c.call.Connections, func(p *Pack, n **Connection) {
		i := uint64(slices.IndexFunc(c.legs, func(l *leg) bool { return l != nil && l.conn == *n }) + 1)
		if p.reading {
			i = 0
		}
		p.Uint(&i)
		switch {
		case i == 0:
			packConnections(p, n)
		case !p.reading:
		case i <= uint64(len(c.legs)) && c.legs[i-1] != nil:
			*n = c.legs[i-1].conn
		default:
			p.Fail("the connection of leg number %d is meant, there are %d", i, len(c.legs))
		}
	})
}

// packRecent packs what c remembers of the native events that were applied.
func packRecent(p *Pack, c *tracked) {
	packInt(p, &c.recentN)
	if c.recentN < 0 {
		p.Fail("%d events were applied", c.recentN)
		return
	}
	var room [8]byte
	for i := range min(c.recentN, len(c.recent)) {
		binary.LittleEndian.PutUint64(room[:], c.recent[i])
		p.fixed(room[:])
		c.recent[i] = binary.LittleEndian.Uint64(room[:])
	}
}

// root packs whether the tracker finds c by its id.
func (s *stateCodec) root(c *tracked) {
	is := false
	if !s.p.reading {
		is = s.t.roots[c.call.ID] == c && !s.isOver(c)
	}
	s.p.Bool(&is)
	if s.p.reading && is {
		s.t.roots[c.call.ID] = c
	}
}

// active packs which calls are in progress: the first so many.
func (s *stateCodec) active() {
	n := uint64(s.t.active)
	s.p.Uint(&n)
	if !s.p.reading {
		return
	}
	if n > uint64(len(s.calls)) {
		s.p.Fail("%d calls are said to be in progress, of %d", n, len(s.calls))
		return
	}
	for _, c := range s.calls[:n] {
		s.t.link(c)
	}
}

func (s *stateCodec) tombstone(x *tombstone) {
	s.p.Time(&x.due)
	s.callRef(&x.c)
	s.legRefs(&x.legs)
}

// spent packs the ids that were used, oldest first, with those of the calls that are not told.
func (s *stateCodec) spent() {
	var ids []string
	if !s.p.reading {
		ids = s.spentIDs()
	}
	PackList(&s.p, &ids, packCallID)
	if s.p.reading {
		for _, id := range ids {
			s.t.spent.add(id)
		}
	}
}

func (s *stateCodec) spentIDs() []string {
	old := &s.t.spent
	ids := append(slices.Clone(old.list[old.next:]), old.list[:old.next]...)
	for i := range s.over {
		c := s.over[i].c
		if s.t.roots[c.call.ID] == c && !old.has(c.call.ID) {
			ids = append(ids, c.call.ID)
		}
	}
	return ids[max(0, len(ids)-old.max):]
}

// agents packs the known agents in the order of their names.
func (s *stateCodec) agents() {
	type agent struct {
		key   legKey
		state string
	}
	list := make([]agent, 0, len(s.t.agents))
	for k, v := range s.t.agents {
		list = append(list, agent{k, v})
	}
	slices.SortFunc(list, func(a, b agent) int { return a.key.compare(b.key) })
	PackList(&s.p, &list, func(p *Pack, a *agent) {
		s.key(&a.key)
		p.Word(&a.state)
	})
	if s.p.reading {
		for _, a := range list {
			s.t.agents[a.key] = a.state
		}
	}
}

func (k legKey) compare(o legKey) int {
	return cmp.Or(cmp.Compare(k.sw, o.sw), cmp.Compare(k.id, o.id))
}

func packUint32(p *Pack, v *uint32) {
	x := uint64(*v)
	p.Uint(&x)
	if p.reading {
		*v = uint32(x)
	}
}

// packBools packs up to eight in a byte or two.
func packBools(p *Pack, vs ...*bool) {
	var bits uint64
	for i, v := range vs {
		if *v {
			bits |= 1 << i
		}
	}
	p.Uint(&bits)
	if !p.reading {
		return
	}
	for i, v := range vs {
		*v = bits>>i&1 != 0
	}
}

// packCallID packs an id in 16 bytes and one when it is a UUID as we write it, for there are 200,000 of them.
func packCallID(p *Pack, id *string) {
	u, err := uuid.Parse(*id)
	if p.flag(!p.reading && err == nil && u.String() == *id) {
		raw := u[:]
		p.fixed(raw)
		if p.reading {
			*id = uuid.UUID(raw).String()
		}
		return
	}
	p.String(id)
}
