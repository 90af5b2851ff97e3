package siprec

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	evidence = "siprec"
	// soon is how far back an association may lie and still be taken for now: metadata has whole seconds.
	soon = 2 * time.Second
	// longest is how far back an association may lie at all.
	longest = 24 * time.Hour
)

type mediaDigit = media.Digit

// leg is one participant as it was told of.
type leg struct {
	id          string
	participant string // its id in the metadata; empty for one that only a stream stands for
	number      string
	name        string
	sipCallID   string // of the recorded call
	correlation string
	media       call.Media
	held        bool
	gone        bool
}

// observe says what a message changed: the difference between what was told of the call and what is known now.
func (e *engine) observe(s *session, m *message) []call.Observation {
	if len(s.legs) > 0 {
		e.hearLast()
	}
	s.view.own(s.running())
	people := s.people()
	s.adopt(people)
	n := native(m)
	obs := e.handOver(s, m.at)
	obs = append(obs, s.reported(m.at)...)
	obs = append(obs, e.arrivals(s, m, people)...) // before who left, lest the call seems to end in between
	for _, l := range s.legs {
		if !slices.ContainsFunc(people, func(p *person) bool { return p.ID == l.participant }) {
			obs = append(obs, s.cleared(l, ending{at: m.at, native: n})...)
		}
	}
	for _, st := range s.streams {
		st.owner = st.next
	}
	obs = append(obs, e.late(s, m)...)
	obs = append(obs, s.variables(e.cfg, m)...)
	obs = append(obs, s.streamStates()...)
	for i := range obs {
		o := &obs[i]
		o.Received = m.at
		if o.Native == (call.Native{}) {
			o.Native = n
		}
		if o.At == 0 {
			o.At = m.at
		}
	}
	return obs
}

// running are the streams that are received. The others are nobody's.
func (s *session) running() (out []*recorded) {
	for _, st := range s.streams {
		if st.next = ""; st.r != nil {
			out = append(out, st)
		}
	}
	return out
}

// people are the participants; where the metadata names none, each stream stands for one.
func (s *session) people() []*person {
	if p := s.view.present(); len(p) > 0 {
		return p
	}
	var out []*person
	for _, st := range s.running() {
		id := "stream" + strconv.Itoa(st.index)
		if st.label != "" {
			id = st.label
		}
		st.next = id
		out = append(out, &person{Participant: Participant{ID: id}})
	}
	return out
}

// adopt keeps the leg of somebody who has another id now: some clients make new ids for each document, and a first
// document may come after the streams.
func (s *session) adopt(people []*person) {
	known := func(id string) bool {
		return slices.ContainsFunc(people, func(p *person) bool { return p.ID == id })
	}
	for _, p := range people {
		if s.legOf(p.ID) != nil {
			continue
		}
		for _, l := range s.legs {
			if l.gone || known(l.participant) {
				continue
			}
			if l.number != "" && l.number == p.Number() || l.number == "" && l.participant == s.ownerBefore(p.ID) {
				s.rename(l, p.ID)
				break
			}
		}
	}
}

// rename gives a leg its participant's new id, and with it the streams.
func (s *session) rename(l *leg, id string) {
	for _, st := range s.streams {
		if st.owner == l.participant {
			st.owner = id
		}
	}
	l.participant = id
}

// ownerBefore is who had the stream that is id's now.
func (s *session) ownerBefore(id string) string {
	for _, st := range s.streams {
		if st.next == id {
			return st.owner
		}
	}
	return ""
}

func (s *session) legOf(participant string) *leg {
	for _, l := range s.legs {
		if l.participant == participant && !l.gone {
			return l
		}
	}
	return nil
}

// handOver reports on the streams that carry somebody else from now on, and begins to measure anew.
func (e *engine) handOver(s *session, at call.Time) (obs []call.Observation) {
	for _, st := range s.streams {
		if st.r == nil || st.owner == "" || st.next == st.owner {
			continue
		}
		if o, ok := e.tell(s, st, at, st.r.renew(at, st.active)); ok {
			obs = append(obs, o)
		}
	}
	return obs
}

// arrivals are the legs of those who came, the caller's first, and what became known of the others.
func (e *engine) arrivals(s *session, m *message, people []*person) (obs []call.Observation) {
	first := len(s.legs) == 0
	if c := caller(people, s.meta); first && c != nil {
		people = append([]*person{c}, slices.DeleteFunc(slices.Clone(people), func(p *person) bool { return p == c })...)
	}
	for i, p := range people {
		if l := s.legOf(p.ID); l != nil {
			obs = append(obs, l.learn(p, dialed(people, i))...)
			continue
		}
		if len(s.legs) >= maxLegs {
			e.out.Count(CountShedMetadata, 1)
			continue
		}
		obs = append(obs, e.arrive(s, m, p, dialed(people, i))...)
	}
	return obs
}

// maxLegs bounds the participants of one session, those who left included.
const maxLegs = 256

// dialed is the number that somebody called: that of the next participant who has one.
func dialed(people []*person, i int) string {
	for j := range people {
		if n := people[j].Number(); j != i && n != "" {
			return n
		}
	}
	return ""
}

func (e *engine) arrive(s *session, m *message, p *person, other string) []call.Observation {
	l := &leg{id: s.d.callID + ";" + p.ID, participant: p.ID, number: p.Number(), name: p.Name}
	for n := 2; slices.ContainsFunc(s.legs, func(o *leg) bool { return o.id == l.id }); n++ {
		l.id = s.d.callID + ";" + p.ID + ";" + strconv.Itoa(n) // back again after leaving
	}
	at := since(p.from, m.at)
	o := call.Observation{Kind: call.LegCreated, Leg: l.id, At: at, Number: l.number, Name: l.name, Evidence: evidence}
	if len(s.legs) == 0 {
		o.Inbound, o.Dialed = true, other
	} else {
		o.Parent, o.Dialed, o.User = s.legs[0].id, l.number, l.number
	}
	s.legs = append(s.legs, l)
	l.sipCallID, l.correlation = e.marks(s, len(s.legs)-1, m)
	o.SIPCallID, o.Correlation = l.sipCallID, l.correlation
	return []call.Observation{o, {Kind: call.LegConnected, Leg: l.id, At: at}}
}

// marks are what puts the n-th leg into the interaction of the recorded call, as far as m or the metadata tells. A
// switch between two dialogs has two Call-IDs: the second one named is the second leg's.
func (e *engine) marks(s *session, n int, m *message) (sipCallID, correlation string) {
	if ids := s.values(e.cfg.CallIDHeaders, m); n < len(ids) {
		sipCallID = ids[n]
	}
	if c := s.values(e.cfg.CorrelationHeaders, m); len(c) > 0 {
		correlation = c[0]
	}
	return sipCallID, correlation
}

// late tells of marks that came after the legs.
func (e *engine) late(s *session, m *message) (obs []call.Observation) {
	for i, l := range s.legs {
		id, correlation := e.marks(s, i, m)
		if l.gone || (id == "" || l.sipCallID != "") && (correlation == "" || l.correlation != "") {
			continue
		}
		l.sipCallID, l.correlation = cmp.Or(l.sipCallID, id), cmp.Or(l.correlation, correlation)
		obs = append(obs, call.Observation{Kind: call.LegUpdated, Leg: l.id, SIPCallID: l.sipCallID, Correlation: l.correlation})
	}
	return obs
}

// since is when a participant came: when the metadata says so, unless that is now but for the rounding, or impossible.
func since(from time.Time, at call.Time) call.Time {
	if ago := at.Std().Sub(from); from.IsZero() || ago < soon || ago > longest {
		return at
	}
	return call.At(from)
}

// learn tells what became known of a participant.
func (l *leg) learn(p *person, other string) []call.Observation {
	number, name := p.Number(), p.Name
	if number == l.number && name == l.name {
		return nil
	}
	l.number, l.name = number, name
	return []call.Observation{{Kind: call.LegUpdated, Leg: l.id, Number: number, Name: name, Dialed: other}}
}

// cleared ends a leg.
func (s *session) cleared(l *leg, how ending) []call.Observation {
	if l.gone {
		return nil
	}
	l.gone = true
	o := call.Observation{Kind: call.LegCleared, Leg: l.id, At: how.at, Received: how.at, Native: how.native, Q850: 16, Value: "BYE", Unseen: true}
	if how.synthetic {
		o.Synthetic, o.Q850, o.Value = true, 0, "unknown"
	}
	return []call.Observation{o}
}

// values are those of the headers of m or elements of the metadata that have one of the names, without repetition.
func (s *session) values(names []string, m *message) (out []string) {
	for _, n := range names {
		v := m.header(n)
		if v == "" && s.meta != nil {
			v = s.meta.Extensions[n]
		}
		if v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// variables are the configured attributes that are new or another than before.
func (s *session) variables(c *Config, m *message) (obs []call.Observation) {
	for _, n := range c.Attributes {
		v := s.values([]string{n}, m)
		if len(v) == 0 || len(s.legs) == 0 || s.said[n] == v[0] {
			continue
		}
		s.said[n] = v[0]
		obs = append(obs, call.Observation{Kind: call.LegVariable, Leg: s.legs[0].id, Reason: n, Value: v[0]})
	}
	return obs
}

// streamStates are the codecs and holds of the legs, as far as they changed. A stream that the client does not send any
// more is that of a party that is on hold.
func (s *session) streamStates() (obs []call.Observation) {
	for _, st := range s.streams {
		l := s.legOf(st.owner)
		if l == nil || st.r == nil {
			continue
		}
		if md := s.mediaOf(st, l); !same(md, l.media) {
			l.media = md
			obs = append(obs, call.Observation{Kind: call.LegMedia, Leg: l.id, Value: md.Codec, Count: md.SampleRate, Media: &md})
		}
		switch {
		case !st.active && !l.held:
			l.held = true
			obs = append(obs, call.Observation{Kind: call.LegHeld, Leg: l.id})
		case st.active && l.held:
			l.held = false
			obs = append(obs, call.Observation{Kind: call.LegRetrieved, Leg: l.id})
		}
	}
	return obs
}

func (s *session) mediaOf(st *recorded, l *leg) call.Media {
	g := &st.agreed
	m := call.Media{Codec: g.Codec.Codec, SampleRate: g.Codec.SampleRate, ClockRate: g.Codec.ClockRate,
		PTimeMS: g.Offerer.PTimeMS, Encryption: g.Encryption}
	if p := s.view.find(l.participant); p != nil {
		m.Direction = p.direction()
	}
	if !st.active {
		m.Direction = sdp.Inactive
	}
	return m
}

func same(a, b call.Media) bool {
	return a.Codec == b.Codec && a.SampleRate == b.SampleRate && a.ClockRate == b.ClockRate && a.PTimeMS == b.PTimeMS &&
		a.Direction == b.Direction && a.Encryption == b.Encryption
}

// report is what was measured of a stream, for the leg of whom it is; ok is false when it is nobody's.
func (e *engine) report(s *session, st *recorded, at call.Time, final bool) (o call.Observation, ok bool) {
	if st.r == nil {
		return o, false
	}
	return e.tell(s, st, at, st.r.report(at, final, st.active))
}

// tell makes an observation of a report.
func (e *engine) tell(s *session, st *recorded, at call.Time, q *call.Quality) (o call.Observation, ok bool) {
	l := s.legOf(st.owner)
	if l == nil {
		if q.Final && q.Packets > 0 {
			e.out.Count(CountUnassigned, 1)
		}
		return o, false
	}
	if g := int(st.agreed.Codec.PayloadType); q.Packets > 0 && q.NegotiatedType == nil && q.PayloadType != g && st.agreed.Codec.Codec != "" {
		q.NegotiatedType = &g
	}
	st.reports++
	return call.Observation{Kind: call.LegQuality, Leg: l.id, At: at, Quality: q, Native: call.Native{Type: "SIPREC RTP",
		ID: s.d.callID + "/" + strconv.Itoa(st.index), Seq: st.reports}}, true
}

// oneWay marks the reports of a call in which one party is heard and the other, although agreed, is not.
func oneWay(obs []call.Observation) {
	silent := func(q *call.Quality) bool { return slices.Contains(q.Flags, call.FlagNoMedia) }
	if len(obs) != 2 || silent(obs[0].Quality) == silent(obs[1].Quality) {
		return
	}
	for _, o := range obs {
		if o.Quality.Packets > 0 {
			o.Quality.Flags = append(o.Quality.Flags, call.FlagOneWay)
		}
	}
}

// reported are the final reports of streams that ended since.
func (s *session) reported(received call.Time) []call.Observation {
	obs := s.closed
	for i := range obs {
		obs[i].Received = received
	}
	s.closed = nil
	return obs
}

// digit tells of a key that was pressed.
func (e *engine) digit(d digit) {
	s := d.session
	if !s.confirmed || d.index >= len(s.streams) {
		return
	}
	l := s.legOf(s.streams[d.index].owner)
	if l == nil {
		return
	}
	e.frame(core.Frame{Type: "SIPREC RTP", Received: d.End, Observations: []call.Observation{{
		Kind: call.DTMFDigit, Leg: l.id, At: d.Start, Received: d.End, Value: d.Digit.Digit, Count: d.DurationMS,
		Native: call.Native{Type: "SIPREC RTP", ID: s.d.callID + "/" + strconv.Itoa(d.index) + "/dtmf", Seq: uint64(d.Start)},
	}}})
}
