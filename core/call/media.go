package call

import "slices"

const (
	maxCodecs  = 16
	maxStreams = 8 // final reports of one connection
)

// media takes what was agreed for l's audio: o.Media, or the codec in o.Value and o.Count.
func (t *Tracker) media(l *leg, o *Observation) {
	m := o.Media
	if m == nil {
		m = &Media{Codec: o.Value, SampleRate: o.Count}
	}
	if m.Codec == "" || l.cleared || l.agreed != nil && sameMedia(l.agreed, m) {
		return
	}
	l.agreed = m
	if l.conn.ConnectedAt != 0 {
		t.negotiated(l, o)
	}
}

func sameMedia(a, b *Media) bool {
	return a.Codec == b.Codec && a.SampleRate == b.SampleRate && a.ClockRate == b.ClockRate &&
		a.PTimeMS == b.PTimeMS && a.Direction == b.Direction && a.Encryption == b.Encryption
}

// negotiated publishes what was agreed for a connected leg: first as negotiated, later as changes.
func (t *Tracker) negotiated(l *leg, o *Observation) {
	w := l.write()
	if w.Media == nil || w.Media.Codec == "" {
		m := *l.agreed
		m.CodecsSeen = []string{m.Codec}
		if w.Media != nil {
			m.measured(w.Media)
		}
		w.Media = &m
		t.emit(l.c, MediaNegotiated, l, o).Media = w.Media
		return
	}
	m := *w.Media
	if n := len(m.CodecsSeen); m.CodecsSeen[n-1] != l.agreed.Codec && n < maxCodecs {
		m.CodecsSeen = append(m.CodecsSeen[:n:n], l.agreed.Codec)
	}
	m.Direction, m.PTimeMS, m.Encryption = l.agreed.Direction, l.agreed.PTimeMS, l.agreed.Encryption
	w.Media = &m
	change := *l.agreed
	change.CodecsSeen = m.CodecsSeen
	t.emit(l.c, MediaChanged, l, o).Media = &change
}

// measured takes over what was measured from o.
func (m *Media) measured(o *Media) {
	m.Packets, m.Lost, m.JitterMS, m.MOS, m.Streams = o.Packets, o.Lost, o.JitterMS, o.MOS, o.Streams
}

// quality publishes what was measured of one of l's streams, and keeps final reports for the record.
func (t *Tracker) quality(l *leg, o *Observation) {
	q := o.Quality
	if q == nil || l.cleared {
		return
	}
	if q.Final {
		l.measure(q)
	}
	e := t.emit(l.c, MediaQuality, l, o)
	e.ID = EventID(e.Switch, o.Native, MediaQuality, l.conn.ID+"/"+q.Direction+"/"+q.Stream)
	e.Seq = 0
	e.Quality = q
}

// measure adds a final report to l's media. The sums are those of what the party sends; jitter and MOS are means over
// its packets.
func (l *leg) measure(q *Quality) {
	w := l.write()
	m := Media{}
	if w.Media != nil {
		m = *w.Media
	}
	if len(m.Streams) >= maxStreams {
		l.c.miss("streams")
	} else {
		m.Streams = append(slices.Clone(m.Streams), *q)
	}
	if q.Direction == FromParty && q.Packets > 0 {
		before, now := float64(m.Packets), float64(q.Packets)
		m.JitterMS = (m.JitterMS*before + q.JitterMS*now) / (before + now)
		if q.MOS > 0 && m.MOS > 0 {
			m.MOS = (m.MOS*before + q.MOS*now) / (before + now)
		} else {
			m.MOS = max(m.MOS, q.MOS)
		}
		m.Packets += q.Packets
		m.Lost += q.Lost
	}
	w.Media = &m
}
