// Package trace reads and writes recorded switch traffic: folders of JSON-lines files, one file for each link of a
// switch, gzipped or not.
//
//	ari.jsonl  {"rx": TIME, "ev": {…}}                    one ARI websocket event, as sent
//	ami.jsonl  {"rx": TIME, "lines": ["Event: …", …]}     one AMI message
//	esl.jsonl  {"rx": TIME, "head": {…}, "body": "…"}     one event-socket frame
//
// TIME is when the bytes left the socket: Unix seconds as a decimal number, or an RFC 3339 string. Numbers are written.
package trace

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Source is the link a line was recorded from; its value is the file's base name.
type Source string

// Sources.
const (
	ARI Source = "ari"
	AMI Source = "ami"
	ESL Source = "esl"
)

// Sources lists every source, in the order in which lines of one instant are read.
func Sources() []Source { return []Source{ARI, AMI, ESL} }

// MaxLine bounds one line of a trace file, in bytes.
const MaxLine = 16 << 20

// Line is one recorded message. Which fields are set depends on Source.
type Line struct {
	Source   Source
	Received call.Time
	Event    []byte            // ARI: the event's JSON, as sent
	Lines    []string          // AMI: the message's lines, without line ends
	Head     map[string]string // ESL: the frame's own headers
	Body     []byte            // ESL: the frame's body
}

// LineError says that one line could not be read. The reader goes on after it.
type LineError struct {
	Path   string
	Number int    // 1 for the first line
	Raw    []byte // the line, as far as it was read
	Err    error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Number, e.Err) }

// Unwrap gives the cause.
func (e *LineError) Unwrap() error { return e.Err }

// stamp is a receive time in either notation.
type stamp call.Time

// UnmarshalJSON reads Unix seconds or an RFC 3339 string.
func (s *stamp) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var t call.Time
		if err := t.UnmarshalJSON(b); err != nil {
			return fmt.Errorf("reading rx: %w", err)
		}
		*s = stamp(t)
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > maxSeconds {
		return fmt.Errorf("reading rx: %q is neither Unix seconds nor an RFC 3339 time", b)
	}
	if n, ok := micros(string(b)); ok {
		*s = stamp(n)
	} else {
		*s = stamp(math.Round(f * 1e6))
	}
	return nil
}

// micros reads a plain decimal of seconds exactly: a float64 tells microseconds apart only within some centuries of 1970.
func micros(s string) (n int64, ok bool) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, part, _ := strings.Cut(digits, ".")
	if len(part) > 6 { // more than is kept: rounding is the float's affair
		return 0, false
	}
	n, err := strconv.ParseInt(whole+part+"000000"[len(part):], 10, 64)
	if negative {
		n = -n
	}
	return n, err == nil
}

// maxSeconds is the year 9999: a later time has no RFC 3339 notation.
var maxSeconds = float64(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).Unix())

// MarshalJSON writes Unix seconds with six decimals.
func (s stamp) MarshalJSON() ([]byte, error) {
	sign, v := "", int64(s)
	if v < 0 {
		sign, v = "-", -v
	}
	return fmt.Appendf(nil, "%s%d.%06d", sign, v/1e6, v%1e6), nil
}
