package media

import (
	"fmt"
	"math"

	"github.com/ctigate/ctigate/core/call"
)

// Report returns what was measured since the last interval report, and begins the next interval; or, with final, of
// the whole life. Direction, Source, Destination and Sampling are left to the caller, who knows them, as are the flags
// other than payload_type.
func (s *Stream) Report(now call.Time, final bool) *call.Quality {
	q := &call.Quality{Final: final, From: s.marked, To: now, Encrypted: s.encrypted}
	sum, top := s.whole, s.now
	sum.expected += s.pending()
	mark := s.mark
	if final {
		s.run.flushed(&sum.bursts)
		mark = totals{}
		top.add(&s.life)
		q.From, q.To = s.opened, now
		if s.started {
			q.From, q.To = s.first, s.last
		}
	}
	d := sum.since(&mark)
	s.fill(q, &d, &top)
	s.remoteInto(q)
	if !final {
		s.settle(now, &sum)
	}
	return q
}

// pending is what the current run expects.
func (s *Stream) pending() uint64 {
	if !s.started {
		return 0
	}
	return s.run.expected()
}

// flushed hands what the window holds to b, which is a copy: the run goes on.
func (s *sequence) flushed(b *bursts) {
	if s.max != 0 {
		s.flush(b)
	}
}

// settle begins the next interval.
func (s *Stream) settle(now call.Time, sum *totals) {
	s.mark = *sum
	s.marked = now
	s.life.add(&s.now)
	s.now = peaks{}
}

func (p *peaks) add(o *peaks) {
	p.jitter = max(p.jitter, o.jitter)
	p.gap = max(p.gap, o.gap)
	p.types.merge(&o.types)
	p.odd += o.odd
}

// since is what was added after mark.
func (t totals) since(mark *totals) totals {
	t.packets -= mark.packets
	t.bytes -= mark.bytes
	t.duplicates -= mark.duplicates
	t.reordered -= mark.reordered
	t.late -= mark.late
	t.restarts -= mark.restarts
	t.expected -= mark.expected
	t.jitterSum -= mark.jitterSum
	t.jitterCount -= mark.jitterCount
	t.bursts = t.bursts.since(&mark.bursts)
	t.level = t.level.since(&mark.level)
	return t
}

// fill writes d and top into q.
func (s *Stream) fill(q *call.Quality, d *totals, top *peaks) {
	if s.started {
		q.Stream = fmt.Sprintf("%08x", s.ssrc)
	}
	q.Packets, q.Bytes, q.Expected = d.packets, d.bytes, d.expected
	q.Duplicates, q.Reordered, q.Late, q.Restarts = d.duplicates, d.reordered, d.late, d.restarts
	q.Lost = int64(d.expected) - int64(d.packets)
	q.LossPercent = percent(max(q.Lost, 0), d.expected)
	if d.jitterCount > 0 {
		q.JitterMS = round(d.jitterSum/float64(d.jitterCount), 3)
	}
	q.MaxJitterMS = round(top.jitter, 3)
	q.MaxGapMS = float64(top.gap) / float64(call.Millisecond)
	q.JitterBufferMS = s.opt.buffer()
	q.PTimeMS = round(s.clock.ptime(), 1)
	pl := s.codec(q, top)
	s.loudness(q, &d.level, pl)
	s.burstiness(q, &d.bursts)
	s.score(q, &d.bursts, pl)
}

// oddShare is how many of its packets make a stream one of a payload type that was not agreed: one in so many. A few are
// under way when the parties agree on another.
const oddShare = 20

// codec says which payload was seen most, and whether what came had been agreed.
func (s *Stream) codec(q *call.Quality, top *peaks) payload {
	pl, ok := top.types.most(s.formats)
	if !ok {
		return payload{}
	}
	q.PayloadType, q.Codec, q.ClockRate = int(pl.number), pl.codec, int(pl.rate)
	if len(s.formats) > 0 && uint64(top.odd)*oddShare > q.Packets {
		agreed := int(s.formats[0].PayloadType)
		q.NegotiatedType = &agreed
		q.Flags = append(q.Flags, call.FlagPayloadType)
	}
	return pl
}

// loudness writes what G.711 sounds like.
func (s *Stream) loudness(q *call.Quality, l *level, pl payload) {
	if l.samples == 0 {
		return
	}
	silence := round(100*float64(l.silent)/float64(l.samples), 2)
	clipping := round(100*float64(l.clipped)/float64(l.samples), 3)
	q.SilencePercent, q.ClippingPercent = &silence, &clipping
	if loud := l.samples - min(l.silent, l.samples); loud > 0 && l.power > 0 {
		level := round(10*math.Log10(l.power/float64(loud)), 1)
		q.LevelDBM0 = &level
	}
}

// burstiness writes bursts and gaps.
func (s *Stream) burstiness(q *call.Quality, b *bursts) {
	ptime := s.clock.ptime()
	q.Bursts = b.count
	q.BurstDensity = percent(int64(b.burstLost), b.burstPackets)
	q.GapDensity = percent(int64(b.gapLost), b.gapPackets)
	if b.count > 0 {
		q.BurstDurationMS = round(float64(b.burstPackets)*ptime/float64(b.count), 1)
	}
	q.GapDurationMS = round(float64(b.gapPackets)*ptime/float64(b.count+1), 1)
}

// score writes the MOS, where the codec is known and something was received.
func (s *Stream) score(q *call.Quality, b *bursts, pl payload) {
	codec, ok := impairmentOf(pl)
	if !ok || q.Packets == 0 || q.Expected == 0 {
		return
	}
	away := float64(max(q.Lost, 0)) + float64(q.Late)
	loss := min(100*away/float64(q.Expected), 100)
	delay := s.opt.buffer() + q.PTimeMS + codec.lookahead + s.roundTrip/2
	q.DelayMS = round(delay, 1)
	q.RFactor = round(codec.rating(loss, b.ratio(), delay), 1)
	q.MOS = round(codec.mos(q.RFactor), 2)
}

func percent(part int64, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return round(100*float64(part)/float64(of), 3)
}

func round(v float64, digits int) float64 {
	f := math.Pow10(digits)
	return math.Round(v*f) / f
}
