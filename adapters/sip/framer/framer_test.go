package framer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	ringing = "SIP/2.0 180 Ringing\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nCSeq: 1 INVITE\r\nl: 0\r\n\r\n"
	sdp     = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"
	// sipfrag has a body that looks like a message.
	fragBody = "SIP/2.0 200 OK\r\n"
)

func invite(body string) string {
	return fmt.Sprintf("INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/TCP a\r\nSubject: to SIP/2.0\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func notify() string {
	return fmt.Sprintf("NOTIFY sip:a@y SIP/2.0\r\nEvent: refer\r\nContent-Type: message/sipfrag\r\nContent-Length: %d\r\n\r\n%s", len(fragBody), fragBody)
}

// gap stands for lost bytes in a list of pieces.
const gap = "\x00gap"

func frame(f *Framer, pieces ...string) []string {
	var got []string
	for _, p := range pieces {
		if p == gap {
			f.Gap()
			continue
		}
		f.Write([]byte(p), func(m []byte) { got = append(got, string(m)) })
	}
	return got
}

func TestFramer(t *testing.T) {
	custom := "FROBNICATE sip:x SIP/2.0\r\nContent-Length:\t3 \r\n\r\nabc"
	folded := "BYE sip:x SIP/2.0\r\nContent-Length:\r\n  4\r\n\r\nabcd"
	bare := "ACK sip:x SIP/2.0\nVia: x\nContent-Length: 0\n\n"
	long := invite(strings.Repeat("x", 2000))
	tests := []struct {
		name   string
		pieces []string
		want   []string
		stats  Stats
	}{
		{"one", []string{invite(sdp)}, []string{invite(sdp)}, Stats{Messages: 1}},
		{"several at once", []string{invite(sdp) + ringing + notify() + invite("")}, []string{invite(sdp), ringing, notify(), invite("")}, Stats{Messages: 4}},
		{"a method nobody knows", []string{custom}, []string{custom}, Stats{Messages: 1}},
		{"a folded length", []string{folded}, []string{folded}, Stats{Messages: 1}},
		{"line feeds alone", []string{bare}, []string{bare}, Stats{Messages: 1}},
		{"ping, pong", []string{"\r\n\r\n" + ringing + "\r\n" + ringing}, []string{ringing, ringing}, Stats{Messages: 2, KeepAlives: 3}},
		{"no length, so no body", []string{"ACK sip:x SIP/2.0\r\nVia: x\r\n\r\n" + ringing}, []string{"ACK sip:x SIP/2.0\r\nVia: x\r\n\r\n", ringing}, Stats{Messages: 2}},
		{"a body of blank lines", []string{invite("\r\n\r\n\r\n") + ringing}, []string{invite("\r\n\r\n\r\n"), ringing}, Stats{Messages: 2}},
		{"joined inside a header", []string{"via: x\r\nContent-Length: 3\r\n\r\nabc\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Skipped: 34}},
		{"a gap in a body", []string{invite(sdp)[:100], gap, "0.0.1\r\ns=-\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Skipped: 112}},
		{"a gap before a sipfrag body", []string{notify()[:40], gap, fragBody + invite(sdp)}, []string{invite(sdp)}, Stats{Messages: 1, Skipped: 56}},
		{"a gap before a sipfrag body with an end", []string{notify()[:40], gap, fragBody + "\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Skipped: 58}},
		{"a gap between messages", []string{ringing, gap, ringing}, []string{ringing, ringing}, Stats{Messages: 2}},
		{"another protocol", []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n"}, nil, Stats{Skipped: 27}},
		{"two lengths", []string{"BYE sip:x SIP/2.0\r\nl: 3\r\nContent-Length: 4\r\n\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Malformed: 1, Skipped: 46}},
		{"the same length twice", []string{"BYE sip:x SIP/2.0\r\nl: 2\r\nContent-Length: 2\r\n\r\nab"}, []string{"BYE sip:x SIP/2.0\r\nl: 2\r\nContent-Length: 2\r\n\r\nab"}, Stats{Messages: 1}},
		{"a negative length", []string{"BYE sip:x SIP/2.0\r\nContent-Length: -1\r\n\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Malformed: 1, Skipped: 41}},
		{"an empty length", []string{"BYE sip:x SIP/2.0\r\nContent-Length: \r\nVia: x\r\n\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Malformed: 1, Skipped: 47}},
		{"over the limit", []string{long + ringing}, []string{ringing}, Stats{Messages: 1, Oversized: 1, Skipped: uint64(len(long))}},
		{"a length nobody believes", []string{"BYE sip:x SIP/2.0\r\nl: 99999999999999999999\r\n\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Oversized: 1, Skipped: 46}},
		{"endless headers", []string{"BYE sip:x SIP/2.0\r\n" + strings.Repeat("A: b\r\n", 300) + "\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Oversized: 1, Skipped: 1821}},
		{"one endless header", []string{"BYE sip:x SIP/2.0\r\nA: " + strings.Repeat("b", 2000) + "\r\n\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Oversized: 1, Skipped: 2026}},
		{"an endless line", []string{strings.Repeat("x", 20_000) + "\r\n" + ringing}, []string{ringing}, Stats{Messages: 1, Skipped: 20_002}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New(1024)
			if got := frame(f, tt.pieces...); !slices.Equal(got, tt.want) {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
			if f.Stats() != tt.stats {
				t.Errorf("stats %+v\nwant %+v", f.Stats(), tt.stats)
			}
			if whole := frame(New(1024), bytewise(tt.pieces)...); !slices.Equal(whole, tt.want) {
				t.Errorf("byte by byte: got %q\nwant %q", whole, tt.want)
			}
		})
	}
}

func bytewise(pieces []string) []string {
	var out []string
	for _, p := range pieces {
		if p == gap {
			out = append(out, p)
			continue
		}
		for i := range len(p) {
			out = append(out, p[i:i+1])
		}
	}
	return out
}

func TestStart(t *testing.T) {
	tests := []struct {
		in   string
		want Verdict
	}{
		{"INVITE sip:a SIP/2.0\r\n", Yes},
		{"X-y.z sip:a SIP/2.0\nVia", Yes},
		{"SIP/2.0 200 OK\r\n", Yes},
		{"SIP/2.0 200\r\n", Yes},
		{"SIP/2.0 200 \r\n", Yes},
		{"SIP/2.0 2000 OK\r\n", No},
		{"SIP/2.0/TCP a\r\n", No},
		{"GET / HTTP/1.1\r\n", No},
		{" sip:a SIP/2.0\r\n", No},
		{"INVITE SIP/2.0\r\n", No},
		{"Subject: a SIP/2.0\r\n", No},
		{strings.Repeat("A", 40) + " sip:a SIP/2.0\r\n", No},
		{"\r\n", No},
		{"", Partial},
		{"SI", Partial},
		{"SIP/2.0 1", Partial},
		{"INV", Partial},
		{"INVITE", Partial},
		{"INVITE sip:abc", Partial},
		{"INVITED", No},
		{"hello", No},
		{"\x16\x03\x01\x02", No},
		{"INVITE " + strings.Repeat("x", 10_000), No},
	}
	for _, tt := range tests {
		if got := Start([]byte(tt.in)); got != tt.want {
			t.Errorf("Start(%.40q) is %d, want %d", tt.in, got, tt.want)
		}
	}
}

func TestIdleStreamKeepsLittle(t *testing.T) {
	f := New(0)
	m := invite(strings.Repeat("x", 60_000))
	if got := frame(f, m[:30_000], m[30_000:]); len(got) != 1 || got[0] != m {
		t.Fatalf("%d messages", len(got))
	}
	if f.Buffered() > keptCapacity {
		t.Errorf("%d bytes kept", f.Buffered())
	}
}

func FuzzFramer(f *testing.F) {
	f.Add([]byte(invite(sdp)+ringing+"\r\n\r\n"), uint16(7), uint16(0))
	f.Add([]byte(notify()+invite("")), uint16(60), uint16(2))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\nSIP/2.0 200 OK\r\nl: 5000\r\n\r\n"), uint16(1), uint16(9))
	f.Fuzz(func(t *testing.T, wire []byte, step, lose uint16) {
		const limit = 1024
		fr, n, out := New(limit), max(int(step), 1), 0
		for i := 0; i < len(wire); i += n {
			if lose > 0 && i/n == int(lose) {
				fr.Gap()
			}
			fr.Write(wire[i:min(i+n, len(wire))], func(m []byte) {
				if out += len(m); len(m) > limit || Start(m) != Yes {
					t.Fatalf("message of %d bytes: %.60q", len(m), m)
				}
			})
			if held := fr.Buffered(); held > 4*(limit+maxStartLine+n) {
				t.Fatalf("%d bytes held", held)
			}
		}
		if total := out + int(fr.stats.Skipped) + len(fr.buf); total > len(wire) {
			t.Fatalf("%d bytes accounted for of %d", total, len(wire))
		}
	})
}

// How a stream is cut into segments changes nothing.
func FuzzCuts(f *testing.F) {
	f.Add([]byte(invite(sdp)+ringing+"\r\n\r\n"+notify()), uint16(7))
	f.Add([]byte("xx\r\n"+ringing+"BYE sip:x SIP/2.0\r\nl: 9\r\nl: 8\r\n\r\n"+ringing), uint16(3))
	f.Fuzz(func(t *testing.T, wire []byte, step uint16) {
		if len(wire) > 4096 {
			return // a start line that is too long is given up where a segment ends
		}
		var pieces []string
		for p := range slices.Chunk(wire, max(int(step), 1)) {
			pieces = append(pieces, string(p))
		}
		whole, cut := frame(New(8192), string(wire)), frame(New(8192), pieces...)
		if !slices.Equal(whole, cut) {
			t.Fatalf("at once %q\nin pieces %q", whole, cut)
		}
	})
}

func BenchmarkFramer(b *testing.B) {
	const messages = 20
	stream := []byte(strings.Repeat(invite(sdp)+ringing, messages/2))
	for name, size := range map[string]int{"whole": len(stream), "segments": 1448} {
		b.Run(name, func(b *testing.B) {
			f, n := New(0), 0
			b.ReportAllocs()
			b.SetBytes(int64(len(stream)))
			for b.Loop() {
				for p := stream; len(p) > 0; p = p[min(size, len(p)):] {
					f.Write(p[:min(size, len(p))], func([]byte) { n++ })
				}
			}
			if n != b.N*messages {
				b.Fatalf("%d messages, want %d", n, b.N*messages)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
