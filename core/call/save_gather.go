package call

import "slices"

// stateCodec packs a Tracker. Calls, legs and rooms point to each other: they are numbered, and told by their numbers.
type stateCodec struct {
	p     Pack
	t     *Tracker
	calls []*tracked // the active ones first, in their order
	legs  []*leg
	rooms []*room

	// Of the ended calls:
	told  []tombstone
	over  []tombstone           // too many to be told
	past  map[*tracked]struct{} // those
	loose map[legKey]struct{}   // the keys of their legs
	lost  map[*leg]struct{}     // and the legs
}

// gather numbers all that can be reached.
func (s *stateCodec) gather() {
	t := s.t
	all := t.ended[t.endedHead:]
	n := max(0, len(all)-t.opt.SaveEnded)
	s.over, s.told = all[:n], all[n:]
	s.loosen()
	for c := t.first; c != nil; c = c.next {
		s.addCall(c)
	}
	for i := range s.told {
		s.addCall(s.told[i].c)
		s.addLegs(s.told[i].legs)
	}
	for _, c := range t.waiting {
		s.addCall(c)
	}
	s.follow(0, 0, 0)
	s.gatherIndexed()
}

// loosen notes what the calls that are not told have in the tracker's indexes.
func (s *stateCodec) loosen() {
	if len(s.over) == 0 {
		return
	}
	s.past, s.loose, s.lost = map[*tracked]struct{}{}, map[legKey]struct{}{}, map[*leg]struct{}{}
	for i := range s.over {
		s.past[s.over[i].c] = struct{}{}
		for _, l := range s.over[i].legs {
			s.loose[l.key] = struct{}{}
			s.lost[l] = struct{}{}
		}
	}
}

// follow numbers what is reached from the calls, legs and rooms from the given numbers on.
func (s *stateCodec) follow(call, leg, room int) {
	for call < len(s.calls) || leg < len(s.legs) || room < len(s.rooms) {
		for ; call < len(s.calls); call++ {
			c := s.calls[call]
			s.addLegs(c.legs)
			s.addLegs(c.shedLegs)
			s.addLeg(c.first)
			s.addLeg(c.hangup)
		}
		for ; leg < len(s.legs); leg++ {
			s.addCall(s.legs[leg].c)
			s.addRoom(s.legs[leg].bridge)
		}
		for ; room < len(s.rooms); room++ {
			s.addLegs(s.rooms[room].legs)
		}
	}
}

// gatherIndexed numbers what only the tracker's indexes lead to, in the order of the keys.
func (s *stateCodec) gatherIndexed() {
	calls, legs, rooms := len(s.calls), len(s.legs), len(s.rooms)
	var found []*leg
	for _, l := range s.t.legs {
		if !s.hasLeg(l) && s.indexed(l) {
			found = append(found, l)
		}
	}
	for _, l := range s.t.sip {
		if !s.hasLeg(l) && !s.isLost(l) {
			found = append(found, l)
		}
	}
	slices.SortFunc(found, func(a, b *leg) int { return a.key.compare(b.key) })
	s.addLegs(found)
	s.follow(calls, legs, rooms)
}

// indexed reports whether l is found by its id.
func (s *stateCodec) indexed(l *leg) bool {
	_, loose := s.loose[l.key]
	return !loose && s.t.legs[l.key] == l
}

func (s *stateCodec) isLost(l *leg) bool {
	_, lost := s.lost[l]
	return lost
}

func (s *stateCodec) isOver(c *tracked) bool {
	_, over := s.past[c]
	return over
}

// dialog and header report whether l is found by its SIP Call-ID and by its correlation value.
func (s *stateCodec) dialog(l *leg) bool {
	return l.conn.SIPCallID != "" && s.t.sip[l.conn.SIPCallID] == l && !s.isLost(l)
}

func (s *stateCodec) header(l *leg) bool {
	return l.correlation != "" && s.t.sip[correlated+l.correlation] == l && !s.isLost(l)
}

// The numbers begin with 1, and are good where the thing of that number is the one that has it.
func (s *stateCodec) hasLeg(l *leg) bool {
	return l.mark > 0 && int(l.mark) <= len(s.legs) && s.legs[l.mark-1] == l
}

func (s *stateCodec) addLeg(l *leg) {
	if l != nil && !s.hasLeg(l) {
		s.legs = append(s.legs, l)
		l.mark = uint32(len(s.legs))
	}
}

func (s *stateCodec) addLegs(ls []*leg) {
	for _, l := range ls {
		s.addLeg(l)
	}
}

func (s *stateCodec) addCall(c *tracked) {
	if c != nil && !(c.mark > 0 && int(c.mark) <= len(s.calls) && s.calls[c.mark-1] == c) {
		s.calls = append(s.calls, c)
		c.mark = uint32(len(s.calls))
	}
}

func (s *stateCodec) addRoom(r *room) {
	if r != nil && !(r.mark > 0 && int(r.mark) <= len(s.rooms) && s.rooms[r.mark-1] == r) {
		s.rooms = append(s.rooms, r)
		r.mark = uint32(len(s.rooms))
	}
}
