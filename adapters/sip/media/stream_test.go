package media

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

const ms = call.Millisecond

var agreed = []Format{
	{PayloadType: 0, Codec: "PCMU", ClockRate: 8000},
	{PayloadType: 8, Codec: "PCMA", ClockRate: 8000},
	{PayloadType: 9, Codec: "G722", ClockRate: 8000},
	{PayloadType: 13, Codec: "CN", ClockRate: 8000},
	{PayloadType: 101, Codec: "telephone-event", ClockRate: 8000},
	{PayloadType: 111, Codec: "opus", ClockRate: 48000},
}

// sender makes the packets of a phone that sends every 20 ms.
type sender struct {
	t      testing.TB
	stream *Stream
	at     call.Time
	seq    uint16
	ts     uint32
	ssrc   uint32
	pt     uint8
	step   uint32
	marker bool
	events []*Event
	audio  []byte
}

func newSender(t testing.TB) *sender {
	s := New(nil, 1e15)
	s.Negotiate(agreed, false)
	return &sender{t: t, stream: s, at: 1e15, seq: 1000, ts: 5000, ssrc: 0xcafe, step: 160, audio: make([]byte, 160)}
}

// raw is an RTP packet.
func raw(pt uint8, marker bool, seq uint16, ts, ssrc uint32, payload []byte) []byte {
	b := make([]byte, 12, 12+len(payload))
	b[0], b[1] = 0x80, pt
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

// put hands the stream one packet, late by some time.
func (s *sender) put(seq uint16, ts uint32, late call.Time) {
	s.t.Helper()
	ev, err := s.stream.RTP(s.at+late, raw(s.pt, s.marker, seq, ts, s.ssrc, s.audio))
	if err != nil {
		s.t.Fatal(err)
	}
	if ev != nil {
		s.events = append(s.events, ev)
	}
	s.marker = false
}

// next moves on by a packet.
func (s *sender) next() {
	s.seq++
	s.ts += s.step
	s.at += 20 * ms
}

// send sends n packets.
func (s *sender) send(n int) {
	s.t.Helper()
	for range n {
		s.put(s.seq, s.ts, 0)
		s.next()
	}
}

// lose lets n packets get lost.
func (s *sender) lose(n int) {
	for range n {
		s.next()
	}
}

func (s *sender) final() *call.Quality { return s.stream.Report(s.at, true) }

// counts is what a test compares.
type counts struct {
	packets, expected              uint64
	lost                           int64
	duplicates, reordered, restart uint64
}

func countsOf(q *call.Quality) counts {
	return counts{q.Packets, q.Expected, q.Lost, q.Duplicates, q.Reordered, q.Restarts}
}

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*sender)
		want counts
	}{
		{"clean", func(s *sender) { s.send(100) }, counts{packets: 100, expected: 100}},
		{"one packet", func(s *sender) { s.send(1) }, counts{packets: 1, expected: 1}},
		{"nothing", func(*sender) {}, counts{}},
		{"loss", func(s *sender) { s.send(10); s.lose(3); s.send(10) }, counts{packets: 20, expected: 23, lost: 3}},
		{"sequence wrap", func(s *sender) { s.seq = 65500; s.send(100) }, counts{packets: 100, expected: 100}},
		{"loss over the wrap", func(s *sender) { s.seq = 65530; s.send(3); s.lose(20); s.send(5) },
			counts{packets: 8, expected: 28, lost: 20}},
		{"timestamp wrap", func(s *sender) { s.ts = math.MaxUint32 - 1000; s.send(100) }, counts{packets: 100, expected: 100}},
		{"many cycles", func(s *sender) { s.send(200_000) }, counts{packets: 200_000, expected: 200_000}},
		{"duplicates", func(s *sender) {
			s.send(10)
			s.put(s.seq-1, s.ts-160, 0)
			s.put(s.seq-5, s.ts-5*160, 0)
			s.send(10)
		}, counts{packets: 20, expected: 20, duplicates: 2}},
		{"reordered", func(s *sender) {
			s.send(10)
			s.put(s.seq+1, s.ts+160, 0)
			s.put(s.seq, s.ts, 0)
			s.next()
			s.next()
			s.send(10)
		}, counts{packets: 22, expected: 22, reordered: 1}},
		{"reordered over the wrap", func(s *sender) {
			s.seq = 65535
			s.put(0, s.ts+160, 0)
			s.put(65535, s.ts, 0)
			s.next()
			s.next()
			s.send(10)
		}, counts{packets: 12, expected: 11, lost: -1, reordered: 1}},
		{"reordered and doubled", func(s *sender) {
			s.send(100)
			s.lose(1)
			s.send(50)
			s.put(s.seq-51, s.ts-51*160, 0)
			s.put(s.seq-51, s.ts-51*160, 0)
		}, counts{packets: 151, expected: 151, reordered: 1, duplicates: 1}},
		{"large loss", func(s *sender) { s.send(10); s.lose(2998); s.send(10) },
			counts{packets: 20, expected: 3018, lost: 2998}},
		{"network away for four minutes", func(s *sender) { s.send(10); s.lose(12_000); s.send(10) },
			counts{packets: 20, expected: 12_020, lost: 12_000}},
		{"restart", func(s *sender) { s.send(10); s.seq, s.ts = 40000, 77; s.send(10) },
			counts{packets: 20, expected: 20, restart: 1}},
		{"restart backwards", func(s *sender) { s.send(10); s.seq -= 500; s.send(10) },
			counts{packets: 20, expected: 20, restart: 1}},
		{"restart doubled", func(s *sender) {
			s.send(10)
			s.seq = 40000
			s.put(s.seq, s.ts, 0)
			s.send(10)
		}, counts{packets: 20, expected: 20, restart: 1, duplicates: 1}},
		{"loss right after a restart", func(s *sender) { s.send(10); s.seq = 40000; s.send(1); s.lose(5); s.send(10) },
			counts{packets: 21, expected: 26, lost: 5, restart: 1}},
		{"new SSRC", func(s *sender) { s.send(10); s.ssrc++; s.seq, s.ts = 3, 9; s.send(10) },
			counts{packets: 20, expected: 20, restart: 1}},
		{"new SSRC reordered", func(s *sender) {
			s.send(10)
			s.ssrc++
			s.put(s.seq+1, s.ts+160, 0)
			s.put(s.seq, s.ts, 0)
			s.next()
			s.next()
			s.send(10)
		}, counts{packets: 22, expected: 21, lost: -1, reordered: 1, restart: 1}},
		{"one stray", func(s *sender) {
			s.send(10)
			s.ssrc++
			s.put(30000, 1, 0)
			s.ssrc--
			s.send(10)
		}, counts{packets: 20, expected: 20}},
		{"strays that fit nothing", func(s *sender) {
			s.send(10)
			for i := range 20 {
				s.put(uint16(20000+i*1000), 1, 0)
			}
			s.send(10)
		}, counts{packets: 20, expected: 20}},
		{"several SSRCs", func(s *sender) {
			for range 5 {
				s.send(20)
				s.lose(2)
				s.send(20)
				s.ssrc += 7
				s.seq += 9000
			}
		}, counts{packets: 200, expected: 210, lost: 10, restart: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t)
			c.run(s)
			q := s.final()
			if got := countsOf(q); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			sane(t, q)
		})
	}
}

// sane says what must hold whatever came.
func sane(t testing.TB, q *call.Quality) {
	t.Helper()
	for name, v := range map[string]float64{
		"loss": q.LossPercent, "burst density": q.BurstDensity, "gap density": q.GapDensity,
	} {
		if !(v >= 0 && v <= 100) {
			t.Errorf("%s is %v", name, v)
		}
	}
	for name, v := range map[string]float64{
		"jitter": q.JitterMS, "max jitter": q.MaxJitterMS, "gap": q.MaxGapMS, "burst duration": q.BurstDurationMS,
		"gap duration": q.GapDurationMS, "ptime": q.PTimeMS, "R": q.RFactor, "delay": q.DelayMS,
	} {
		if !(v >= 0) || math.IsInf(v, 0) {
			t.Errorf("%s is %v", name, v)
		}
	}
	if q.MOS != 0 && !(q.MOS >= 1 && q.MOS <= 4.5) {
		t.Errorf("MOS %v", q.MOS)
	}
	if q.Lost != int64(q.Expected)-int64(q.Packets) {
		t.Errorf("%d lost of %d, with %d packets", q.Lost, q.Expected, q.Packets)
	}
	if p := q.SilencePercent; p != nil && !(*p >= 0 && *p <= 100) {
		t.Errorf("silence %v", *p)
	}
	if p := q.ClippingPercent; p != nil && !(*p >= 0 && *p <= 100) {
		t.Errorf("clipping %v", *p)
	}
	if p := q.LevelDBM0; p != nil && !(*p > -60 && *p < 10) {
		t.Errorf("level %v", *p)
	}
}

// Nothing of what a sender does with its timestamps is the network's jitter.
func TestJitterIsTheNetworks(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*sender)
	}{
		{"clean", func(*sender) {}},
		{"timestamp wrap", func(s *sender) { s.ts = math.MaxUint32 - 160*50 }},
		{"new SSRC", func(s *sender) { s.ssrc, s.ts, s.seq = 1, 1, 1 }},
		{"restart", func(s *sender) { s.ts, s.seq = 1<<31, 9 }},
		{"hold that stops the clock", func(s *sender) { s.at += 20 * call.Second }},
		{"timestamps jump alone", func(s *sender) { s.ts += 1 << 30 }},
		{"timestamps jump back", func(s *sender) { s.ts -= 1 << 30 }},
		{"silence without packets", func(s *sender) { s.at += 400 * ms; s.ts += 3200; s.marker = true }},
		{"other clock rate", func(s *sender) { s.pt, s.step = 111, 960 }},
		{"other codec", func(s *sender) { s.pt = 9 }},
		{"comfort noise", func(s *sender) {
			s.pt = 13
			s.send(1)
			s.at += 400 * ms
			s.ts += 3200
			s.pt = 0
			s.marker = true
		}},
		{"loss", func(s *sender) { s.lose(40) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t)
			s.send(100)
			c.run(s)
			s.send(100)
			q := s.final()
			if q.JitterMS > 0.001 || q.MaxJitterMS > 0.001 || q.Late > 0 {
				t.Errorf("jitter %v, at most %v, %d late", q.JitterMS, q.MaxJitterMS, q.Late)
			}
		})
	}
}

// A digit's packets all have the timestamp of its start, while time goes on.
func TestDTMFDoesNotSpoilJitter(t *testing.T) {
	s := newSender(t)
	s.send(50)
	start := s.ts
	s.pt = 101
	for i := range 10 {
		s.audio = event(5, i > 7, uint16(160*(i+1)))
		s.put(s.seq, start, 0)
		s.next()
	}
	s.pt, s.audio = 0, make([]byte, 160)
	s.send(50)
	if q := s.final(); q.MaxJitterMS > 0.001 || q.Packets != 110 || q.Lost != 0 || q.PayloadType != 0 {
		t.Errorf("%+v", q)
	}
}

// Alternating delays of 0 and 10 ms make differences of 10 ms: the estimator settles at 10 ms.
func TestJitterOfKnownDelays(t *testing.T) {
	s := newSender(t)
	for i := range 1000 {
		s.put(s.seq, s.ts, call.Time(i%2*10)*ms)
		s.next()
	}
	q := s.final()
	if math.Abs(q.MaxJitterMS-10) > 0.01 || q.JitterMS < 9.8 || q.JitterMS > 10 {
		t.Errorf("mean %v, at most %v", q.JitterMS, q.MaxJitterMS)
	}
	if q.MaxGapMS != 30 || q.PTimeMS != 20 {
		t.Errorf("longest gap %v, ptime %v", q.MaxGapMS, q.PTimeMS)
	}
}

func TestLate(t *testing.T) {
	for _, c := range []struct {
		name   string
		buffer float64
		run    func(*sender)
		want   uint64
	}{
		{"within the buffer", 0, func(s *sender) { s.put(s.seq, s.ts, 59*ms); s.next() }, 0},
		{"beyond the buffer", 0, func(s *sender) { s.put(s.seq, s.ts, 65*ms); s.next() }, 1},
		{"a longer buffer", 100, func(s *sender) { s.put(s.seq, s.ts, 65*ms); s.next() }, 0},
		{"reordered but in time", 0, func(s *sender) {
			s.put(s.seq+1, s.ts+160, 20*ms)
			s.put(s.seq, s.ts, 21*ms)
			s.next()
			s.next()
		}, 0},
		{"reordered too late", 0, func(s *sender) {
			s.put(s.seq+1, s.ts+160, 20*ms)
			s.put(s.seq, s.ts, 90*ms)
			s.next()
			s.next()
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t)
			s.stream.opt = &Options{JitterBufferMS: c.buffer}
			s.send(100)
			clean := s.final().MOS
			c.run(s)
			s.send(100)
			q := s.final()
			if q.Late != c.want {
				t.Errorf("%d late, want %d", q.Late, c.want)
			}
			if (q.MOS < clean) != (c.want > 0) {
				t.Errorf("MOS %v, without %v", q.MOS, clean)
			}
		})
	}
}

// A longer route makes packets late until the buffer has adapted; a clock that drifts never does.
func TestBufferFollows(t *testing.T) {
	s := newSender(t)
	s.send(100)
	s.at += 90 * ms
	s.send(1000)
	if late := s.final().Late; late < 50 || late > 300 {
		t.Errorf("%d packets late after the route changed", late)
	}
	s = newSender(t)
	for range 100_000 { // 100 ms in 2000 s
		s.put(s.seq, s.ts, 0)
		s.next()
		s.at++
	}
	if late := s.final().Late; late != 0 {
		t.Errorf("%d packets late from drift", late)
	}
}

func TestIntervals(t *testing.T) {
	s := newSender(t)
	s.send(100)
	s.lose(5)
	s.send(95)
	a := s.stream.Report(s.at, false)
	s.send(50)
	s.lose(1)
	s.put(s.seq, s.ts, 8*ms)
	s.next()
	b := s.stream.Report(s.at, false)
	c := s.stream.Report(s.at+call.Second, false)
	whole := s.final()
	if a.Packets != 195 || a.Lost != 5 || b.Packets != 51 || b.Lost != 1 || b.Expected != 52 {
		t.Errorf("%+v\n%+v", a, b)
	}
	if a.From != 1e15 || a.To != b.From || b.To != c.From || c.Packets != 0 || c.MOS != 0 {
		t.Errorf("%v-%v, %v-%v, %v-%v", a.From, a.To, b.From, b.To, c.From, c.To)
	}
	if a.MaxJitterMS != 0 || b.MaxJitterMS == 0 || whole.MaxJitterMS != b.MaxJitterMS {
		t.Errorf("largest jitter %v, %v, %v", a.MaxJitterMS, b.MaxJitterMS, whole.MaxJitterMS)
	}
	if whole.Packets != 246 || whole.Expected != 252 || whole.Lost != 6 || !whole.Final {
		t.Errorf("%+v", whole)
	}
	if whole.Bytes != a.Bytes+b.Bytes || whole.From != s.stream.First() || whole.To != s.stream.Last() {
		t.Errorf("%+v", whole)
	}
	for _, q := range []*call.Quality{a, b, c, whole} {
		sane(t, q)
	}
}

func TestPayloadTypes(t *testing.T) {
	s := newSender(t)
	s.send(10)
	s.pt = 8
	s.send(30)
	s.pt = 101
	s.audio = event(1, true, 800)
	s.send(50)
	s.pt, s.audio = 13, nil
	s.send(60)
	q := s.final()
	if q.PayloadType != 8 || q.Codec != "PCMA" || q.NegotiatedType != nil || len(q.Flags) != 0 || q.ClockRate != 8000 {
		t.Errorf("%+v", q)
	}
	var codecs []string
	for _, e := range s.events {
		if e.Payload {
			codecs = append(codecs, e.Codec)
		}
	}
	if got := strings.Join(codecs, " "); got != "PCMU PCMA" {
		t.Errorf("codec events %s", got)
	}
}

func TestPayloadTypeThatWasNotAgreed(t *testing.T) {
	s := newSender(t)
	s.pt = 18
	s.send(10)
	q := s.final()
	if q.PayloadType != 18 || q.Codec != "G729" || q.NegotiatedType == nil || *q.NegotiatedType != 0 ||
		len(q.Flags) != 1 || q.Flags[0] != call.FlagPayloadType {
		t.Errorf("%+v", q)
	}
	if e := s.events[0]; e.Agreed || e.Codec != "G729" || e.ClockRate != 8000 {
		t.Errorf("%+v", e)
	}
	s.pt = 99 // nobody knows what it is
	s.send(100)
	if q := s.final(); q.PayloadType != 99 || q.Codec != "" || q.MOS != 0 || q.Packets != 110 {
		t.Errorf("%+v", q)
	}
}

// The same number may mean another codec after a new offer and answer.
func TestRenegotiation(t *testing.T) {
	s := newSender(t)
	s.pt = 111
	s.send(10)
	s.stream.Negotiate(agreed, false)
	s.send(10)
	s.stream.Negotiate([]Format{{PayloadType: 111, Codec: "AMR-WB", ClockRate: 16000}}, false)
	s.send(10)
	if len(s.events) != 2 || s.events[1].Codec != "AMR-WB" || s.events[1].ClockRate != 16000 || s.events[1].Source {
		t.Errorf("%+v", s.events)
	}
}

func TestEvents(t *testing.T) {
	s := newSender(t)
	s.send(10)
	s.ssrc = 0xbeef
	s.send(10)
	if len(s.events) != 2 {
		t.Fatalf("%d events", len(s.events))
	}
	a, b := s.events[0], s.events[1]
	if !a.Source || !a.Payload || a.SSRC != 0xcafe || a.Codec != "PCMU" || !a.Agreed {
		t.Errorf("%+v", a)
	}
	if !b.Source || b.Payload || b.SSRC != 0xbeef {
		t.Errorf("%+v", b)
	}
	if ssrc, ok := s.stream.SSRC(); !ok || ssrc != 0xbeef || s.final().Stream != "0000beef" {
		t.Errorf("%x", ssrc)
	}
}

func TestEncryptedShowsHeadersOnly(t *testing.T) {
	s := newSender(t)
	s.stream.Negotiate(agreed, true)
	s.send(50)
	s.pt, s.audio = 101, event(1, true, 800)
	s.send(3)
	q := s.final()
	if !q.Encrypted || q.SilencePercent != nil || q.LevelDBM0 != nil || q.Packets != 53 || q.MOS == 0 {
		t.Errorf("%+v", q)
	}
	if len(s.stream.Expire(s.at, true)) != 0 || len(s.events) != 1 {
		t.Error("digits were read from encrypted media")
	}
}

func TestPtime(t *testing.T) {
	s := newSender(t)
	s.send(20)
	for range 400 {
		s.put(s.seq, s.ts, 0)
		s.seq++
		s.ts += 240
		s.at += 30 * ms
	}
	if q := s.final(); q.PTimeMS != 30 {
		t.Errorf("ptime %v", q.PTimeMS)
	}
}

// The length is right at once after a change of the clock rate.
func TestPtimeAfterCodecChange(t *testing.T) {
	s := newSender(t)
	s.pt, s.step = 111, 960
	s.send(300)
	s.pt, s.step = 0, 160
	s.send(20)
	if q := s.stream.Report(s.at, false); q.PTimeMS != 20 {
		t.Errorf("ptime %v", q.PTimeMS)
	}
}

// An SDP that names G.722's sampling rate in place of its clock rate does no harm.
func TestG722ClockRate(t *testing.T) {
	s := newSender(t)
	s.stream.Negotiate([]Format{{PayloadType: 9, Codec: "G722", ClockRate: 16000}}, false)
	s.pt = 9
	s.send(50)
	if q := s.final(); q.MaxJitterMS != 0 || q.PTimeMS != 20 || q.ClockRate != 8000 {
		t.Errorf("%+v", q)
	}
}

// Two sources that send through each other from one address: everything is counted, nothing is lost.
func TestInterleavedSSRCs(t *testing.T) {
	s := newSender(t)
	for i := range 200 {
		s.ssrc = uint32(1 + i%2)
		s.put(uint16(i/2+5000*(i%2)), uint32(160*i), 0)
		s.at += 10 * ms
	}
	q := s.final()
	if q.Lost != 0 || q.Packets < 190 {
		t.Errorf("%d packets, %d lost", q.Packets, q.Lost)
	}
	sane(t, q)
}

func TestNotRTP(t *testing.T) {
	good := raw(0, false, 1, 1, 1, make([]byte, 160))
	with := func(first byte, rest ...byte) []byte { return append(append([]byte{first}, good[1:12]...), rest...) }
	for name, b := range map[string][]byte{
		"empty":                 nil,
		"short":                 good[:11],
		"version 0":             with(0),
		"version 1":             with(0x40),
		"STUN":                  {0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"RTCP":                  {0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0},
		"CSRCs missing":         with(0x8f),
		"extension missing":     with(0x90),
		"extension too long":    with(0x90, 0xbe, 0xde, 0xff, 0xff, 0, 0),
		"padding of 0":          with(0xa0, 0),
		"padding longer":        with(0xa0, 1, 2, 200),
		"padding, no payload":   with(0xa0),
		"a digit of T.38 UDPTL": {0, 5, 6, 0, 0},
	} {
		s := New(nil, 1)
		ev, err := s.RTP(5, b)
		if !errors.Is(err, ErrNotRTP) || ev != nil || s.Packets() != 0 {
			t.Errorf("%s: %v, %v", name, ev, err)
		}
	}
	s := New(nil, 1)
	for name, b := range map[string][]byte{
		"CSRC and extension": with(0x91, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 1, 2, 3, 4, 0xff),
		"padded":             with(0xa0, 0xff, 0, 0, 3),
	} {
		if _, err := s.RTP(5, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.whole.level.samples != 1 { // the second is a duplicate
		t.Errorf("%d samples", s.whole.level.samples)
	}
}

// What a lead needs to see that nothing comes.
func TestLast(t *testing.T) {
	s := New(nil, 77)
	if s.Last() != 0 || s.First() != 0 || s.Packets() != 0 {
		t.Error("a stream without packets has times")
	}
	if q := s.Report(99, true); q.From != 77 || q.To != 99 || q.Stream != "" || q.MOS != 0 {
		t.Errorf("%+v", q)
	}
}
