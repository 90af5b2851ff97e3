package esl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var testLimits = limits{headerBytes: 1 << 10, headers: 8, bodyBytes: 1 << 10, frameTime: time.Second}

// still is a deadlineReader over bytes, which come at once.
type still struct{ io.Reader }

func (still) SetReadDeadline(time.Time) error { return nil }

func readerOf(s string) *frameReader {
	return newFrameReader(still{strings.NewReader(s)}, testLimits)
}

func TestFrames(t *testing.T) {
	wire := "Content-Type: auth/request\n\n" +
		"Content-Type: command/reply\nReply-Text: +OK accepted\n\n" +
		"Content-Length: 14\nContent-Type: text/event-json\n\n{\"a\":\"b\\n\\n\" }" +
		"\r\n\ncontent-type:api/response\r\nCONTENT-LENGTH:3\r\n\r\n+OK" +
		"Content-Type: log/data\nContent-Length: 4\nLog-Level: 7\nUser-Data: \n\nlog\n" +
		"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n" +
		"Content-Type: Text/Rude-Rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
	want := []frame{
		{kind: typeAuthRequest},
		{kind: typeReply, reply: "+OK accepted"},
		{kind: typeJSON, body: []byte(`{"a":"b\n\n" }`)},
		{kind: typeResponse, body: []byte("+OK")},
		{kind: typeLog, body: []byte("log\n")},
		{kind: typeDisconnect, linger: true},
		{kind: typeRejection, body: []byte("Access Denied, go away.\n")},
	}
	for name, src := range map[string]io.Reader{"at once": strings.NewReader(wire), "byte by byte": iotest.OneByteReader(strings.NewReader(wire))} {
		t.Run(name, func(t *testing.T) {
			r := newFrameReader(still{src}, testLimits)
			for i, w := range want {
				f, err := r.next()
				if err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if f.kind != w.kind || f.reply != w.reply || f.linger != w.linger || !bytes.Equal(f.body, w.body) || f.received.IsZero() {
					t.Errorf("frame %d is %+v, want %+v", i, f, w)
				}
			}
			if _, err := r.next(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v, want EOF", err)
			}
		})
	}
}

func TestBrokenFrames(t *testing.T) {
	event := func(length string) string {
		return "Content-Length: " + length + "\nContent-Type: text/event-json\n\n{}"
	}
	tests := []struct{ name, wire, reason, raw string }{
		{"negative length", event("-1"), `Content-Length "-1" is not a length`, "Content-Length: -1\n"},
		{"signed length", event("+2"), `Content-Length "+2" is not a length`, "Content-Length: +2\n"},
		{"hexadecimal length", event("0x2"), `is not a length`, "Content-Length: 0x2\n"},
		{"empty length", event(""), `is not a length`, "Content-Length: \n"},
		{"huge length", event("99999999999999999999999"), `is not a length`, "Content-Length: 9999"},
		{"length over what can be skipped", event("99999999999"), "over the limit of 1024 bytes", "Content-Length: 99999999999\n"},
		{"two lengths", "Content-Length: 2\n" + event("3"), "two Content-Lengths, 2 and 3", "Content-Length: 2\nContent-Length: 3\n"},
		{"no colon", "Content-Length: 2\nrubbish\n\n{}", `header line "rubbish" has no name and colon`, "Content-Length: 2\nrubbish\n"},
		{"no name", ": x\n\n", `has no name and colon`, ": x\n"},
		{"header flood", strings.Repeat("A: b\n", 100), "more than 8 headers", "A: b\n"},
		{"endless line", strings.Repeat("A", 200_000), "headers longer than 1024 bytes", "AAAA"},
		{"endless blank lines", strings.Repeat("\n", 5000), "headers longer than 1024 bytes", "\n\n"},
		{"one long header", "A: " + strings.Repeat("b", 2000) + "\n\n", "headers longer than 1024 bytes", "A: bbb"},
		{"cut in a header", "Content-Len", "closed the connection inside a frame", "Content-Len"},
		{"cut in a body", event("20"), "closed the connection inside a frame", event("20")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readerOf(tt.wire).next()
			var fe *FrameError
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, want a *FrameError", err)
			}
			if !strings.Contains(fe.Error(), tt.reason) {
				t.Errorf("reason %q, want %q", fe, tt.reason)
			}
			if !bytes.HasPrefix(fe.Raw, []byte(tt.raw)) {
				t.Errorf("raw %.100q, want %q first", fe.Raw, tt.raw)
			}
			if fe.InSync {
				t.Error("said to be in sync")
			}
			if len(fe.Raw) > 256<<10 {
				t.Errorf("%d bytes kept", len(fe.Raw))
			}
		})
	}
}

func TestBodyOverTheLimitIsReadPast(t *testing.T) {
	const size = 10 << 20
	wire := fmt.Sprintf("Content-Length: %d\nContent-Type: text/event-json\n\n%sContent-Type: auth/request\n\n", size, strings.Repeat("x", size))
	r := readerOf(wire)
	_, err := r.next()
	var fe *FrameError
	if !errors.As(err, &fe) || !fe.InSync {
		t.Fatalf("got %v, want an error that leaves the stream in sync", err)
	}
	if want := "Content-Length: 10485760\nContent-Type: text/event-json\n\nxxx"; !bytes.HasPrefix(fe.Raw, []byte(want)) || len(fe.Raw) > 2*keptBytes {
		t.Errorf("kept %d bytes, %.80q", len(fe.Raw), fe.Raw)
	}
	if f, err := r.next(); err != nil || f.kind != typeAuthRequest {
		t.Errorf("the frame after it is %+v, %v", f, err)
	}
}

func TestResponseMayBeLongerThanAnEvent(t *testing.T) {
	const size = 3 << 20
	f, err := readerOf(fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", size, strings.Repeat("x", size))).next()
	if err != nil || len(f.body) != size {
		t.Errorf("%d bytes, %v", len(f.body), err)
	}
}

// clocked records the deadlines that are set, and times out when it has no more bytes.
type clocked struct {
	io.Reader
	set []time.Time
}

func (c *clocked) SetReadDeadline(t time.Time) error { c.set = append(c.set, t); return nil }

func (c *clocked) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func TestDeadlineOnlyInsideAFrame(t *testing.T) {
	src := &clocked{Reader: io.MultiReader(strings.NewReader("Content-Type: auth/request\n\n"), strings.NewReader("Content-"))}
	r := newFrameReader(src, testLimits)
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	if len(src.set) != 0 {
		t.Fatalf("deadlines %v for a frame that came at once", src.set)
	}
	_, err := r.next()
	var fe *FrameError
	if !errors.As(err, &fe) || !strings.Contains(fe.Error(), "not whole after 1s (read_timeout)") || string(fe.Raw) != "Content-" {
		t.Errorf("got %v", err)
	}
	if len(src.set) != 1 || src.set[0].IsZero() {
		t.Errorf("deadlines %v, want one", src.set)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("Content-Type: auth/request\n\nContent-Length: 2\nContent-Type: text/event-json\n\n{}"))
	f.Add([]byte("Content-Type: command/reply\r\nReply-Text: -ERR invalid\r\n\r\n"))
	f.Add([]byte("Content-Length: -1\n\n"))
	f.Add([]byte("Content-Length: 2000\nContent-Type: api/response\n\nabc"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := newFrameReader(still{bytes.NewReader(wire)}, testLimits)
		for total := 0; ; {
			fr, err := r.next()
			var fe *FrameError
			if err != nil && !(errors.As(err, &fe) && fe.InSync) {
				if fe == nil && !errors.Is(err, io.EOF) {
					t.Fatalf("untyped error %v", err)
				}
				return
			}
			if fr.kind != typeResponse && len(fr.body) > testLimits.bodyBytes {
				t.Fatalf("body of %d bytes", len(fr.body))
			}
			if total += len(fr.body); total > len(wire) {
				t.Fatal("more body than was sent")
			}
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	var wire bytes.Buffer
	n := 0
	for _, f := range recording(b, "freeswitch", "twenty_overlapping_calls") {
		wire.WriteString(f.wire())
		n++
	}
	lim := limits{headerBytes: DefaultMaxHeaderBytes, headers: DefaultMaxHeaders, bodyBytes: DefaultMaxBodyBytes, frameTime: DefaultReadTimeout}
	b.SetBytes(int64(wire.Len() / n))
	b.ReportAllocs()
	src := bytes.NewReader(nil)
	r := newFrameReader(still{src}, lim)
	for i := 0; b.Loop(); i++ {
		if i%n == 0 {
			src.Reset(wire.Bytes())
		}
		if _, err := r.next(); err != nil {
			b.Fatal(err)
		}
	}
}
