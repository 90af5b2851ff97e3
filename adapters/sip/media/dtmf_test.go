package media

import (
	"fmt"
	"strings"
	"testing"
)

// event is a telephone-event payload.
func event(e uint8, end bool, duration uint16) []byte {
	b := []byte{e, 10, byte(duration >> 8), byte(duration)}
	if end {
		b[1] |= 0x80
	}
	return b
}

// tone sends one packet of an event that began at timestamp start.
func (s *sender) tone(e uint8, start uint32, duration uint16, end bool) {
	s.t.Helper()
	pt, audio := s.pt, s.audio
	s.pt, s.audio = 101, event(e, end, duration)
	s.put(s.seq, start, 0)
	s.pt, s.audio = pt, audio
	s.next()
}

// press sends a whole digit of n updates and three ends, as RFC 4733, 2.5 has it.
func (s *sender) press(e uint8, n int) {
	s.t.Helper()
	start := s.ts
	for i := range n {
		s.marker = i == 0
		s.tone(e, start, uint16(160*(i+1)), false)
	}
	for range 3 {
		s.tone(e, start, uint16(160*n), true)
	}
}

// digits lists what came out: digit and duration.
func (s *sender) digits(final bool) string {
	var out []string
	for _, e := range s.events {
		for _, d := range e.Digits {
			out = append(out, fmt.Sprintf("%s:%d", d.Digit, d.DurationMS))
		}
	}
	for _, d := range s.stream.Expire(s.at, final) {
		out = append(out, fmt.Sprintf("%s:%d", d.Digit, d.DurationMS))
	}
	return strings.Join(out, " ")
}

func TestDigits(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*sender)
		want string
	}{
		{"one", func(s *sender) { s.press(5, 5) }, "5:100"},
		{"all", func(s *sender) {
			for e := range uint8(16) {
				s.press(e, 2)
				s.send(5)
			}
		}, "0:40 1:40 2:40 3:40 4:40 5:40 6:40 7:40 8:40 9:40 *:40 #:40 A:40 B:40 C:40 D:40"},
		{"flash is no digit", func(s *sender) { s.press(16, 5) }, ""},
		{"the same twice", func(s *sender) { s.press(7, 5); s.send(3); s.press(7, 4) }, "7:100 7:80"},
		{"two without a pause", func(s *sender) { s.press(7, 5); s.press(8, 5) }, "7:100 8:100"},
		{"ends only", func(s *sender) {
			for range 3 {
				s.tone(1, s.ts-480, 800, true)
				s.ts -= 160
			}
		}, "1:100"},
		{"end lost, the next digit tells", func(s *sender) {
			s.tone(1, s.ts, 160, false)
			s.tone(1, s.ts-160, 320, false)
			s.send(2)
			s.press(2, 3)
		}, "1:40 2:60"},
		{"end lost, and the next one came as an end", func(s *sender) {
			s.tone(1, s.ts, 160, false)
			s.send(2)
			s.tone(2, s.ts, 640, true)
		}, "1:20 2:80"},
		{"end lost, audio goes on", func(s *sender) { s.tone(3, s.ts, 160, false); s.send(50) }, "3:20"},
		{"end lost, audio between updates", func(s *sender) {
			start := s.ts
			s.tone(3, start, 160, false)
			s.send(4)
			s.tone(3, start, 800, false)
			s.send(4)
			s.tone(3, start, 1600, true)
		}, "3:200"},
		{"end lost, and then nothing", func(s *sender) { s.tone(4, s.ts, 160, false); s.at += 500 * ms }, "4:20"},
		{"still going on", func(s *sender) { s.tone(4, s.ts, 160, false) }, ""},
		{"reordered: the end first", func(s *sender) {
			start := s.ts
			s.tone(6, start, 160, false)
			s.lose(2)
			s.tone(6, start, 480, true)
			s.seq -= 3
			s.tone(6, start, 320, false)
			s.seq += 2
			s.send(50)
		}, "6:60"},
		{"reordered: an old digit after the new one", func(s *sender) {
			old := s.ts
			s.press(1, 3)
			s.press(2, 3)
			s.seq -= 9
			s.tone(1, old, 160, false)
			s.seq += 8
			s.send(50)
		}, "1:60 2:60"},
		{"doubled packets", func(s *sender) {
			start := s.ts
			for i, end := range []bool{false, false, true, true, true} {
				s.tone(9, start, uint16(160*(i+1)), end)
				s.seq--
				s.tone(9, start, uint16(160*(i+1)), end)
			}
		}, "9:60"},
		{"restart in the digit", func(s *sender) {
			s.press(1, 3)
			s.ssrc, s.ts, s.seq = 77, 0, 0
			s.send(2)
			s.press(2, 3)
		}, "1:60 2:60"},
		{"restart of the numbers alone", func(s *sender) {
			s.press(1, 3)
			s.ts, s.seq = 0, s.seq+9000
			s.send(2)
			s.press(2, 3)
		}, "1:60 2:60"},
		{"timestamps of another clock, further back", func(s *sender) {
			for i := range uint32(3) {
				at := 90000 - 30000*i
				s.tone(byte(i), at, 160, false)
				s.tone(byte(i), at, 320, true)
				s.tone(byte(i), at, 320, true)
				s.send(5)
			}
		}, "0:40 1:40 2:40"},
		{"timestamp wrap", func(s *sender) { s.ts = 1<<32 - 300; s.press(1, 5); s.press(2, 5) }, "1:100 2:100"},
		{"ten seconds, in segments", func(s *sender) {
			start := s.ts
			for d := 160; d < 0xffff; d += 160 {
				s.tone(0, start, uint16(d), false)
			}
			s.tone(0, start, 0xffff, false)
			start += 0xffff
			for d := 160; d <= 14465; d += 160 {
				s.tone(0, start, uint16(d), false)
			}
			s.tone(0, start, 14465, true)
			s.tone(0, start, 14465, true)
		}, "0:10000"},
		{"ten seconds, rolling over", func(s *sender) {
			start := s.ts
			for d := 160; d <= 80000; d += 160 {
				s.tone(0, start, uint16(d), false)
			}
			s.tone(0, start, uint16(80000%65536), true)
		}, "0:10000"},
		{"too short for an event", func(s *sender) {
			s.pt, s.audio = 101, []byte{1, 0x80, 0}
			s.send(3)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t)
			s.send(10)
			c.run(s)
			if got := s.digits(false); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if again := s.stream.Expire(s.at+2000*ms, true); c.name != "still going on" && len(again) > 0 {
				t.Errorf("then %v", again)
			}
		})
	}
}

func TestDigitAtTheEndOfTheStream(t *testing.T) {
	s := newSender(t)
	s.tone(4, s.ts, 160, false)
	if got := s.digits(true); got != "4:20" {
		t.Errorf("got %q", got)
	}
}

func TestDigitTimes(t *testing.T) {
	s := newSender(t)
	s.send(10)
	begin := s.at
	s.press(5, 5)
	d := s.events[1].Digits[0]
	if d.Start != begin || d.End != begin+100*ms {
		t.Errorf("%+v, began %v", d, begin)
	}
}

// The clock of telephone-event is the audio's: 48 kHz beside Opus.
func TestDigitClock(t *testing.T) {
	s := newSender(t)
	s.stream.Negotiate([]Format{{PayloadType: 111, Codec: "opus", ClockRate: 48000}, {PayloadType: 101, Codec: "Telephone-Event", ClockRate: 48000}}, false)
	s.tone(5, s.ts, 4800, true)
	if got := s.digits(false); got != "5:100" {
		t.Errorf("got %q", got)
	}
}
