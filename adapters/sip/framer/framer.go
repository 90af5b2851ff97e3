// Package framer cuts one direction of a TCP or TLS connection into SIP messages by their Content-Length (RFC 3261,
// 18.3 and 20.14), reading past the keep-alives of RFC 5626 (4.4.1) between them. It can join a stream in the middle and
// goes on after lost bytes: it looks for the next line that begins a message.
package framer

import "bytes"

// DefaultMaxMessage is the largest message, in bytes, when New is given no limit.
const DefaultMaxMessage = 64 << 10

const (
	// maxStartLine bounds what is kept of a line that may yet turn out to begin a message.
	maxStartLine = 8 << 10
	// skipFactor times the limit is the largest message that is read past by its own length. A longer one is not
	// believed: the next start line is looked for instead.
	skipFactor = 16
	// keptCapacity is how much buffer an idle stream may keep.
	keptCapacity = 4 << 10
)

// Stats is what a Framer has seen.
type Stats struct {
	Messages   uint64 // handed over
	KeepAlives uint64 // line ends between messages; a ping is two, a pong one (RFC 5626, 4.4.1)
	Skipped    uint64 // bytes that belong to no message that was handed over
	Oversized  uint64 // messages over the limit
	Malformed  uint64 // messages whose Content-Length is no length, or two different ones
}

// Add adds what o has seen.
func (s *Stats) Add(o Stats) {
	s.Messages += o.Messages
	s.KeepAlives += o.KeepAlives
	s.Skipped += o.Skipped
	s.Oversized += o.Oversized
	s.Malformed += o.Malformed
}

type phase uint8

const (
	atStart   phase = iota // where a start line should be
	inHeaders              // after a start line
	inBody                 // size is known
	skipping               // past a message over the limit
	inLine                 // inside a line that begins no message
)

// Framer holds the unfinished message of one direction of a stream, never more than the limit and one Write. It is not
// safe for concurrent use.
type Framer struct {
	max   int
	stats Stats
	phase phase
	lost  bool   // not known to be at a message's beginning: a start line alone is not believed
	buf   []byte // the unfinished message, from its start line
	line  int    // where in it the line under examination begins
	seen  int    // up to where it holds no end of that line
	head  header
	size  int // of the whole message; when skipping, what is still to come of it
}

// New makes a Framer for messages of up to maxMessage bytes, headers and body; 0 means DefaultMaxMessage.
func New(maxMessage int) *Framer {
	if maxMessage <= 0 {
		maxMessage = DefaultMaxMessage
	}
	return &Framer{max: maxMessage}
}

// Stats is what has been seen so far. A listener that wants nothing but SIP closes the connection when Skipped or
// Malformed grow.
func (f *Framer) Stats() Stats { return f.stats }

// Buffered is the memory held for the unfinished message, in bytes.
func (f *Framer) Buffered() int { return cap(f.buf) }

// Gap says that bytes were lost here: the unfinished message is given up, and the next one is looked for.
func (f *Framer) Gap() {
	f.stats.Skipped += uint64(len(f.buf))
	f.buf = f.buf[:0]
	f.shrink()
	f.restart(true)
}

// Write takes the next bytes of the stream. emit gets each whole message in them; it is valid until emit returns.
func (f *Framer) Write(p []byte, emit func(msg []byte)) {
	if len(f.buf) == 0 {
		n := f.consume(p, emit)
		f.buf = append(f.buf, p[n:]...)
		return
	}
	f.buf = append(f.buf, p...)
	if n := f.consume(f.buf, emit); n > 0 {
		f.buf = f.buf[:copy(f.buf, f.buf[n:])]
		f.shrink()
	}
}

// shrink gives up the buffer of a long message.
func (f *Framer) shrink() {
	if len(f.buf) == 0 && cap(f.buf) > keptCapacity {
		f.buf = nil
	}
}

// consume handles b, which begins where the buffer does, and returns how much of it is done with.
func (f *Framer) consume(b []byte, emit func([]byte)) int {
	n := 0
	for n < len(b) {
		used, more := f.step(b[n:], emit)
		n += used
		if more {
			break
		}
	}
	return n
}

// step does one thing with b, and says how much of it is used up and whether it takes more bytes to go on.
func (f *Framer) step(b []byte, emit func([]byte)) (used int, more bool) {
	switch f.phase {
	case inHeaders:
		return f.headers(b)
	case inBody:
		return f.body(b, emit)
	case skipping:
		n := min(f.size, len(b))
		f.stats.Skipped += uint64(n)
		if f.size -= n; f.size == 0 {
			f.restart(false)
		}
		return n, false
	case inLine:
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return f.skip(len(b)), false
		}
		f.restart(true)
		return f.skip(i + 1), false
	}
	return f.start(b)
}

func (f *Framer) restart(lost bool) {
	f.phase, f.lost, f.line, f.seen, f.size, f.head = atStart, lost, 0, 0, 0, header{}
}

func (f *Framer) skip(n int) int {
	f.stats.Skipped += uint64(n)
	return n
}

// start wants a start line at b, or line ends before it.
func (f *Framer) start(b []byte) (int, bool) {
	if n := f.keepAlive(b); n > 0 {
		return n, false
	}
	line, ok := f.nextLine(b)
	switch {
	case ok && Start(line) == Yes:
		f.phase = inHeaders
		return 0, false
	case ok:
		f.restart(true)
		return f.skip(len(line)), false
	case len(b) > maxStartLine:
		f.restart(true)
		f.phase = inLine
		return f.skip(len(b)), false
	}
	return 0, true
}

// keepAlive is how many bytes of line ends b begins with.
func (f *Framer) keepAlive(b []byte) int {
	n, ends := 0, uint64(0)
	for n < len(b) && (b[n] == '\r' || b[n] == '\n') {
		if b[n] == '\n' {
			ends++
		}
		n++
	}
	if f.lost { // those of some message
		return f.skip(n)
	}
	f.stats.KeepAlives += ends
	return n
}

// nextLine is the line that begins at f.line, with its end, if it is whole.
func (f *Framer) nextLine(b []byte) ([]byte, bool) {
	i := bytes.IndexByte(b[f.seen:], '\n')
	if i < 0 {
		f.seen = len(b)
		return nil, false
	}
	line := b[f.line : f.seen+i+1]
	f.line, f.seen = f.line+len(line), f.line+len(line)
	return line, true
}

// headers goes through the header lines of the message that b begins with.
func (f *Framer) headers(b []byte) (int, bool) {
	for {
		from := f.line
		line, ok := f.nextLine(b)
		if f.line > f.max || (!ok && len(b) > f.max) {
			return f.tooLong(b), false
		}
		if !ok {
			return 0, true
		}
		if isBlank(line) {
			return f.headersEnd()
		}
		if f.lost && !isHeader(line) {
			return f.falseStart(from, line), false
		}
		f.head.take(line)
	}
}

// tooLong gives up a message whose headers do not end.
func (f *Framer) tooLong(b []byte) int {
	f.stats.Oversized++
	n := f.line
	f.restart(true)
	if n <= f.max {
		n, f.phase = len(b), inLine
	}
	return f.skip(n)
}

// falseStart gives up what looked like a message in a stream that is out of step, such as the first line of a
// message/sipfrag body (RFC 3420). The line that showed it may be the true beginning.
func (f *Framer) falseStart(from int, line []byte) int {
	f.restart(true)
	if Start(line) == Yes {
		return f.skip(from)
	}
	return f.skip(from + len(line))
}

// headersEnd decides on the message whose headers are complete.
func (f *Framer) headersEnd() (int, bool) {
	end := f.line
	length, ok := f.head.length()
	if f.lost && !f.head.given {
		f.restart(true) // Content-Length is mandatory here: without one, this was no message's beginning
		return f.skip(end), false
	}
	if !ok {
		f.stats.Malformed++
		f.restart(true)
		return f.skip(end), false
	}
	if end+length > f.max {
		return f.overLimit(end, length), false
	}
	f.phase, f.size = inBody, end+length
	return 0, false
}

func (f *Framer) overLimit(end, length int) int {
	f.stats.Oversized++
	if end+length > f.max*skipFactor {
		f.restart(true)
		return f.skip(end)
	}
	f.phase, f.size = skipping, end+length
	return 0
}

func (f *Framer) body(b []byte, emit func([]byte)) (int, bool) {
	if len(b) < f.size {
		return 0, true
	}
	n := f.size
	f.stats.Messages++
	f.restart(false)
	emit(b[:n:n])
	return n, false
}
