package media

import "github.com/ctigate/ctigate/core/call"

// unavailable stands for an unknown R factor, MOS or level in XR (RFC 3611, 4.7.5).
const unavailable = 127

// Reported takes a report block that passed at at; false when it is about another stream: neither this stream's SSRC
// nor the one before. While no RTP of this stream has come, every block is taken for one about it.
func (s *Stream) Reported(at call.Time, b *Block) bool {
	if !s.owns(b.SSRC) {
		return false
	}
	r := s.far(at)
	r.Lost = int64(b.Lost)
	r.LossPercent = round(float64(b.FractionLost)*100/256, 3)
	if rate := s.rate(); rate > 0 {
		r.JitterMS = round(float64(b.Jitter)*1000/float64(rate), 3)
	}
	return true
}

// ReportedXR takes a VoIP metrics block that passed at at; false when it is about another stream.
func (s *Stream) ReportedXR(at call.Time, m *VoIPMetrics) bool {
	if !s.owns(m.SSRC) {
		return false
	}
	r := s.far(at)
	r.BurstDensity, r.GapDensity = of256(m.BurstDensity), of256(m.GapDensity)
	r.DiscardedPart = of256(m.DiscardRate)
	r.EndSystemMS = float64(m.EndSystemMS)
	if m.RoundTripMS > 0 {
		r.RoundTripMS = float64(m.RoundTripMS)
	}
	if m.RFactor != unavailable && m.RFactor <= 100 {
		r.RFactor = float64(m.RFactor)
	}
	r.MOSLQ, r.MOSCQ = tenth(m.MOSLQ), tenth(m.MOSCQ)
	if m.SignalLevel != unavailable {
		r.SignalDBM = int(m.SignalLevel)
	}
	if m.NoiseLevel != unavailable {
		r.NoiseDBM = int(m.NoiseLevel)
	}
	return true
}

func of256(v uint8) float64 { return round(float64(v)*100/256, 3) }

// tenth is a MOS of XR: 10 to 50, 127 when unknown.
func tenth(v uint8) float64 {
	if v < 10 || v > 50 {
		return 0
	}
	return float64(v) / 10
}

// owns reports whether ssrc is the stream's. Until its RTP passes here, which it may never do, the caller alone knows.
func (s *Stream) owns(ssrc uint32) bool {
	return !s.started || ssrc == s.ssrc || (s.changed && ssrc == s.former)
}

// far is what the receiver says, at at.
func (s *Stream) far(at call.Time) *call.RemoteQuality {
	if s.remote == nil {
		s.remote = &call.RemoteQuality{}
	}
	s.remote.At = at
	return s.remote
}

// rate is the clock rate of the audio, 0 when not known.
func (s *Stream) rate() uint32 {
	switch {
	case s.sound.defined:
		return s.sound.rate
	case !s.started && len(s.formats) > 0:
		return uint32(s.formats[0].ClockRate)
	}
	return s.payload.rate
}

// remoteInto writes the latest report of the receiver.
func (s *Stream) remoteInto(q *call.Quality) {
	if s.remote == nil {
		return
	}
	r := *s.remote
	if s.roundTrip > 0 {
		r.RoundTripMS = round(s.roundTrip, 3)
	}
	q.Remote = &r
}
