package framer

import "bytes"

// Verdict is an answer that may need more bytes.
type Verdict uint8

// Verdicts.
const (
	No Verdict = iota
	Yes
	Partial // as far as it goes
)

// maxMethod bounds a method's name.
const maxMethod = 32

var version = []byte("SIP/2.0")

// methods are those of RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903 and 6086.
var methods = [...]string{"INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "PRACK", "SUBSCRIBE", "NOTIFY",
	"UPDATE", "MESSAGE", "REFER", "PUBLISH", "INFO"}

// Start says whether b begins with a SIP start line (RFC 3261, 7.1 and 7.2). A request may have any method. It answers
// Partial only where the bytes so far are the beginning of a status line, or of a request line with a known method.
func Start(b []byte) Verdict {
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	if !whole {
		return partial(b)
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if isStatus(line) || isRequest(line) {
		return Yes
	}
	return No
}

// isStatus: SIP-Version SP 3DIGIT SP Reason-Phrase.
func isStatus(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, version)
	return ok && len(rest) >= 4 && rest[0] == ' ' && digit(rest[1]) && digit(rest[2]) && digit(rest[3]) &&
		(len(rest) == 4 || rest[4] == ' ')
}

// isRequest: Method SP Request-URI SP SIP-Version.
func isRequest(line []byte) bool {
	line, ok := bytes.CutSuffix(line, version)
	if !ok || len(line) == 0 || line[len(line)-1] != ' ' {
		return false
	}
	n := token(line)
	return n > 0 && n <= maxMethod && line[n] == ' ' && len(line) > n+2
}

func partial(b []byte) Verdict {
	if len(b) == 0 {
		return Partial
	}
	if len(b) > maxStartLine {
		return No
	}
	if begins(b, "SIP/2.0 ") {
		return Partial
	}
	for _, m := range methods {
		if begins(b, m) && (len(b) <= len(m) || b[len(m)] == ' ') {
			return Partial
		}
	}
	return No
}

// begins reports whether b and s are the same as far as the shorter goes.
func begins(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// token is the length of the token (RFC 3261, 25.1) that b begins with.
func token(b []byte) int {
	for i, c := range b {
		if !tokenChar(c) {
			return i
		}
	}
	return len(b)
}

func tokenChar(c byte) bool {
	switch {
	case digit(c), c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return bytes.IndexByte([]byte("-.!%*_+`'~"), c) >= 0
}

// isBlank: a line end alone.
func isBlank(line []byte) bool {
	return len(line) == 1 || len(line) == 2 && line[0] == '\r'
}

// isHeader: a name and a colon, or the continuation of the line before.
func isHeader(line []byte) bool {
	if line[0] == ' ' || line[0] == '\t' {
		return true
	}
	n := token(line)
	if n == 0 {
		return false
	}
	rest := bytes.TrimLeft(line[n:], " \t")
	return len(rest) > 0 && rest[0] == ':'
}

// header gathers the Content-Length of a header block.
type header struct {
	given  bool // there is one
	bad    bool // it is no number, or there are two
	folded bool // its value is on the lines that follow
	value  int
}

// maxLength is more than any message may have: what is larger is that.
const maxLength = 1 << 30

// length is the body's length, 0 when none is given; false when it cannot be told.
func (h *header) length() (int, bool) {
	return h.value, !h.bad && !h.folded
}

// take takes one header line.
func (h *header) take(line []byte) {
	if line[0] == ' ' || line[0] == '\t' {
		if h.folded {
			h.set(bytes.TrimSpace(line))
		}
		return
	}
	if h.folded {
		h.bad = true // it had no value
	}
	if line[0]|0x20 != 'c' && line[0]|0x20 != 'l' {
		return
	}
	name, value, ok := bytes.Cut(line, []byte{':'})
	name = bytes.TrimRight(name, " \t")
	if ok && (bytes.EqualFold(name, []byte("Content-Length")) || bytes.EqualFold(name, []byte("l"))) {
		h.set(bytes.TrimSpace(value))
	}
}

// set takes a value: digits only, and the same if it is given twice.
func (h *header) set(value []byte) {
	if h.folded = len(value) == 0; h.folded {
		return
	}
	n := 0
	for _, c := range value {
		if !digit(c) {
			h.bad = true
			return
		}
		n = min(n*10+int(c-'0'), maxLength)
	}
	if h.given && n != h.value {
		h.bad = true
	}
	h.given, h.value = true, n
}
