package trunk

import (
	"maps"
	"slices"
)

// impairment is what a network or a phone does to a stream.
type impairment struct {
	loss      float64 // share of packets lost at random
	burst     float64 // share of packets at which a burst of loss begins
	burstLen  int     // its mean length, packets
	beyond    float64 // share lost after the capture point
	jitter    int64   // µs: delays are drawn from 0 to it, order is kept
	duplicate float64
	reorder   float64
	ssrcEvery int // packets after which the SSRC changes
	jumpEvery int // packets after which sequence and time restart
}

// profile is what is wrong with a call's audio.
type profile struct {
	impairment
	dead  bool  // the impaired direction sends nothing
	both  bool  // and neither does the other
	sound sound // instead of speech
	wrong bool  // a payload type that was not agreed
}

func profiles() map[string]profile {
	return map[string]profile{
		"clean":       {},
		"lossy":       {impairment: impairment{loss: 0.03}},
		"bursty":      {impairment: impairment{burst: 0.008, burstLen: 6}},
		"jittery":     {impairment: impairment{jitter: 45_000}},
		"duplicates":  {impairment: impairment{duplicate: 0.05}},
		"reordered":   {impairment: impairment{reorder: 0.04}},
		"bad":         {impairment: impairment{loss: 0.05, burst: 0.004, burstLen: 8, jitter: 60_000}},
		"far_loss":    {impairment: impairment{beyond: 0.04}},
		"ssrc_change": {impairment: impairment{ssrcEvery: 150}},
		"restart":     {impairment: impairment{jumpEvery: 150}},
		"one_way":     {dead: true},
		"no_media":    {dead: true, both: true},
		"silent":      {sound: silence},
		"clipping":    {sound: clipped},
		"wrong_pt":    {wrong: true},
	}
}

// Profiles returns the names of all audio profiles, sorted.
func Profiles() []string { return slices.Sorted(maps.Keys(profiles())) }

// DefaultMedia is how often what is wrong with a trunk's audio.
func DefaultMedia() map[string]int {
	return map[string]int{
		"clean": 60, "lossy": 8, "bursty": 6, "jittery": 8, "duplicates": 1, "reordered": 2, "bad": 4, "far_loss": 2,
		"ssrc_change": 1, "restart": 1, "one_way": 3, "no_media": 1, "silent": 1, "clipping": 1, "wrong_pt": 1,
	}
}

// settled is after how many packets a stream may come out of order: a receiver has to have a first one.
const settled = 3

// fate is what becomes of one packet.
type fate struct {
	lost, twice bool
	delay       int64
}

// draw decides a packet's fate. A delayed packet keeps its place but for the reordered ones.
func (p *impairment) draw(s *stream, at int64) fate {
	var f fate
	if p.burst > 0 && s.burst == 0 && s.rng.Float64() < p.burst {
		s.burst = 1 + s.rng.IntN(2*p.burstLen-1)
	}
	if s.burst > 0 {
		s.burst--
		f.lost = true
		return f
	}
	if p.loss > 0 && s.rng.Float64() < p.loss {
		f.lost = true
		return f
	}
	if p.jitter > 0 {
		f.delay = max(s.rng.Int64N(p.jitter+1), s.last+100-at)
		s.last = at + f.delay
	}
	if p.reorder > 0 && s.nth > settled && s.rng.Float64() < p.reorder {
		f.delay = frame + frame/4
	}
	f.twice = p.duplicate > 0 && s.rng.Float64() < p.duplicate
	return f
}

// lostBeyond says whether a packet that was captured does not reach its receiver.
func (p *impairment) lostBeyond(s *stream) bool { return p.beyond > 0 && s.rng.Float64() < p.beyond }

// maxChanges bounds the new beginnings of one stream.
const maxChanges = 3

// change begins the stream anew when that is due, and returns how often it has.
func (p *impairment) change(s *stream) int {
	done := s.changes
	if done >= maxChanges {
		return done
	}
	switch {
	case p.ssrcEvery > 0 && s.nth == (done+1)*p.ssrcEvery:
		s.ssrc = s.rng.Uint32()
		s.octets, s.sentN = 0, 0
	case p.jumpEvery > 0 && s.nth == (done+1)*p.jumpEvery:
	default:
		return done
	}
	s.seq += uint16(20_000 + s.rng.IntN(20_000)) // farther than any loss
	s.ts, s.marker = s.rng.Uint32(), true
	return done + 1
}
