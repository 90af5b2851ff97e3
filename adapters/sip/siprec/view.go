package siprec

import (
	"slices"
	"time"
)

// view is what the recording client has said of the recorded call so far.
type view struct {
	people []*person         // in the order they were named
	labels map[string]string // stream id → label
}

// person is a participant and its part in the call.
type person struct {
	Participant
	from    time.Time // associated; zero when not said
	in      []string  // sessions it takes part in, as far as the metadata says
	gone    bool      // it left them all
	send    []string  // stream ids
	recv    []string
	listens bool // the metadata says what it hears, and that it sends nothing
	flows   bool // the metadata says which streams are its own
}

// apply takes one document: a complete one replaces everything, a partial one changes what it names (RFC 7865, 6.1).
// It returns how much of it was left out for being too much.
func (v *view) apply(m *Metadata) int {
	dropped := m.Dropped
	if !m.Partial || v.labels == nil {
		v.people, v.labels = nil, map[string]string{}
	}
	v.people = slices.DeleteFunc(v.people, func(p *person) bool { return p.gone })
	for _, p := range m.Participants {
		dropped += v.participant(p)
	}
	for _, s := range m.Streams {
		dropped += v.stream(s)
	}
	for _, a := range m.Attendances {
		if p := v.find(a.Participant); p != nil {
			p.attend(a)
		}
	}
	for _, f := range m.Flows {
		if p := v.find(f.Participant); p != nil {
			p.flow(f)
		}
	}
	return dropped
}

func (v *view) participant(n Participant) int {
	p := v.find(n.ID)
	switch {
	case p != nil:
		if n.AoR != "" {
			p.AoR = n.AoR
		}
		if n.Name != "" {
			p.Name = n.Name
		}
		p.Calling = p.Calling || n.Calling
	case len(v.people) >= maxParticipants:
		return 1
	default:
		v.people = append(v.people, &person{Participant: n})
	}
	return 0
}

func (v *view) stream(s Stream) int {
	for id, label := range v.labels {
		if label == s.Label && id != s.ID {
			delete(v.labels, id) // the label is another stream's now
		}
	}
	if _, known := v.labels[s.ID]; !known && len(v.labels) >= maxMetaStreams {
		return 1
	}
	v.labels[s.ID] = s.Label
	return 0
}

// attend takes its part in a session: who leaves one may have come to another, as in a transfer.
func (p *person) attend(a Attendance) {
	if !a.From.IsZero() {
		p.from = a.From
	}
	p.in = slices.DeleteFunc(p.in, func(s string) bool { return s == a.Session || a.Session == "" })
	if !a.Over && len(p.in) < maxMetaStreams {
		p.in = append(p.in, a.Session)
	}
	p.gone = len(p.in) == 0
}

func (p *person) flow(f Flow) {
	p.flows = true
	p.send, p.recv = f.Send, f.Recv
	if f.Over {
		p.send, p.recv = nil, nil
	}
	p.listens = len(p.send) == 0 && len(p.recv) > 0
}

func (v *view) find(id string) *person {
	for _, p := range v.people {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// present are those who are in the call.
func (v *view) present() []*person {
	var out []*person
	for _, p := range v.people {
		if !p.gone {
			out = append(out, p)
		}
	}
	return out
}

// sender is who is said to send the stream with a label, nil when nobody is. Some write the label where its id belongs.
func (v *view) sender(label string) *person {
	if label == "" {
		return nil
	}
	for _, p := range v.present() {
		for _, id := range p.send {
			if l, ok := v.labels[id]; ok && l == label || !ok && id == label {
				return p
			}
		}
	}
	return nil
}

// own gives each stream its sender: who is said to send it; else who had it; else, in the order of both, somebody who
// has none, because many clients leave the associations out.
func (v *view) own(streams []*recorded) {
	owned := map[string]bool{}
	for _, s := range streams {
		s.next = ""
		if p := v.sender(s.label); p != nil {
			s.next = p.ID
		} else if p := v.find(s.owner); s.owner != "" && p != nil && !p.gone {
			s.next = p.ID
		}
		owned[s.next] = true
	}
	for _, s := range streams {
		for _, p := range v.present() {
			if s.next == "" && !owned[p.ID] && !p.listens {
				s.next, owned[p.ID] = p.ID, true
			}
		}
	}
}

// direction is a participant's, as far as the metadata tells.
func (p *person) direction() string {
	switch {
	case !p.flows:
		return ""
	case len(p.send) > 0 && len(p.recv) > 0:
		return "sendrecv"
	case len(p.send) > 0:
		return "sendonly"
	case len(p.recv) > 0:
		return "recvonly"
	}
	return ""
}

// caller picks the calling party: who is marked so, or whom the call's From header names (Ribbon), else the first.
func caller(people []*person, m *Metadata) *person {
	for _, p := range people {
		if p.Calling {
			return p
		}
	}
	if m != nil {
		if from := userOf(m.Extensions["fromhdr"]); from != "" {
			for _, p := range people {
				if p.Number() == from {
					return p
				}
			}
		}
	}
	if len(people) == 0 {
		return nil
	}
	return people[0]
}
