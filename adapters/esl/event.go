package esl

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// event is the headers of one FreeSWITCH event that matter here, by their index in a headerSet. Values are as sent:
// JSON-escaped or URL-encoded; get decodes them.
type event struct {
	set  *headerSet
	json bool
	vals [][]byte
}

// headerSet says which headers to keep. The others, nine of ten, are passed over.
type headerSet struct {
	index map[string]int
}

// known are the headers that the normalizer reads.
var known = []string{
	"Event-Name", "Event-Subclass", "Core-UUID", "Event-Date-Timestamp", "Event-Sequence", "Unique-ID", "Call-Direction",
	"Channel-Name", "Channel-Call-State", "Channel-Call-UUID", "Channel-Read-Codec-Name", "Channel-Read-Codec-Rate",
	"Caller-Caller-ID-Number", "Caller-Caller-ID-Name", "Caller-Destination-Number", "Caller-Channel-Created-Time",
	"Caller-Channel-Progress-Time", "Caller-Channel-Answered-Time", "Caller-Channel-Hangup-Time",
	"Caller-Channel-Last-Hold", "Other-Type", "Other-Leg-Unique-ID", "Hangup-Cause", "Bridge-A-Unique-ID",
	"Bridge-B-Unique-ID", "DTMF-Digit", "DTMF-Duration", "Action", "Conference-Name", "Conference-Unique-ID",
	"CC-Action", "CC-Queue", "CC-Agent", "CC-Agent-Status", "CC-Agent-State", "CC-Member-Session-UUID", "CC-Agent-UUID",
	"CC-Hangup-Cause", "CC-Cause", "CC-Cancel-Reason", "FIFO-Action", "FIFO-Name", "Job-UUID", "Valet-Lot-Name",
	"variable_sip_call_id", "variable_sip_hangup_disposition", "variable_hangup_cause_q850",
	"variable_proto_specific_hangup_cause", "variable_sip_term_status", "variable_sip_invite_failure_status",
	"variable_transfer_to", "variable_transfer_destination", "variable_refer_uuid",
	"variable_sip_redirect_contact_user_0", "variable_cc_member_session_uuid", "variable_bridge_uuid",
	"variable_user_name", "variable_dialed_user",
}

// newHeaderSet keeps the known headers and extra ones.
func newHeaderSet(extra ...string) *headerSet {
	s := &headerSet{index: make(map[string]int, len(known)+len(extra))}
	for _, k := range append(known[:len(known):len(known)], extra...) {
		if _, ok := s.index[k]; !ok {
			s.index[k] = len(s.index)
		}
	}
	return s
}

var errNotEvent = errors.New("decoding event: no Event-Name in it")

// parse reads an event body. want is asked, once the event's name is known, whether to read on; when it says no, the
// event has its name alone.
func (s *headerSet) parse(body []byte, json bool, want func(name string) bool) (event, error) {
	e := event{set: s, json: json, vals: make([][]byte, len(s.index))}
	var err error
	if json {
		err = e.parseJSON(body, want)
	} else {
		err = e.parsePlain(body, want)
	}
	if err == nil && e.raw("Event-Name") == nil {
		err = errNotEvent
	}
	return e, err
}

// set keeps a header that matters and reports whether to read on.
func (e *event) keep(key, val []byte, want func(string) bool) bool {
	i, ok := e.set.index[string(key)]
	if !ok {
		return true
	}
	e.vals[i] = val
	return i != 0 || want(string(val))
}

// parsePlain reads "Key: value" lines, values URL-encoded, up to the first empty line.
func (e *event) parsePlain(body []byte, want func(string) bool) error {
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		if len(line) == 0 {
			return nil
		}
		key, val, ok := bytes.Cut(line, []byte(": "))
		if !ok {
			if key, ok = bytes.CutSuffix(line, []byte(":")); !ok {
				return fmt.Errorf("decoding plain event: a line without a colon: %.60q", line)
			}
		}
		if !e.keep(key, val, want) {
			return nil
		}
	}
	return nil
}

// parseJSON reads the flat object of strings (and arrays of strings) that FreeSWITCH sends.
func (e *event) parseJSON(b []byte, want func(string) bool) error {
	i := space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return fmt.Errorf("decoding JSON event: not an object: %.60q", b)
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return nil
	}
	for {
		key, next, err := scanString(b, i)
		if err != nil {
			return err
		}
		if next = space(b, next); next >= len(b) || b[next] != ':' {
			return syntax(b, next, "':'")
		}
		val, next, err := scanValue(b, space(b, next+1))
		if err != nil {
			return err
		}
		if !e.keep(key, val, want) {
			return nil
		}
		i = space(b, next)
		switch {
		case i < len(b) && b[i] == ',':
			i = space(b, i+1)
		case i < len(b) && b[i] == '}':
			return nil
		default:
			return syntax(b, i, "',' or '}'")
		}
	}
}

func syntax(b []byte, i int, want string) error {
	if i >= len(b) {
		return fmt.Errorf("decoding JSON event: it ends where %s was expected", want)
	}
	return fmt.Errorf("decoding JSON event: %q at byte %d where %s was expected", b[i], i, want)
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// scanString returns the bytes between the quotes at i, escapes left in, and where they end.
func scanString(b []byte, i int) ([]byte, int, error) {
	if i >= len(b) || b[i] != '"' {
		return nil, i, syntax(b, i, "a string")
	}
	start := i + 1
	for i = start; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return nil, i, syntax(b, len(b), "the end of a string")
		}
		i += n
		esc := 0
		for i-1-esc >= start && b[i-1-esc] == '\\' {
			esc++
		}
		if esc%2 == 0 {
			return b[start:i], i + 1, nil
		}
	}
}

// scanValue returns a value: a string's inside; of an array of strings, the first one's; of anything else, its bytes.
func scanValue(b []byte, i int) ([]byte, int, error) {
	switch {
	case i < len(b) && b[i] == '"':
		return scanString(b, i)
	case i < len(b) && b[i] == '[':
		return scanArray(b, i)
	case i < len(b) && b[i] == '{':
		return nil, i, syntax(b, i, "a string or an array")
	}
	start := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' {
		i++
	}
	if i == start {
		return nil, i, syntax(b, i, "a value")
	}
	return bytes.TrimSpace(b[start:i]), i, nil
}

func scanArray(b []byte, i int) ([]byte, int, error) {
	var first []byte
	i = space(b, i+1)
	for i < len(b) && b[i] != ']' {
		if b[i] == '[' {
			return nil, i, syntax(b, i, "a string")
		}
		v, next, err := scanValue(b, i)
		if err != nil {
			return nil, next, err
		}
		if first == nil {
			first = v
		}
		i = space(b, next)
		if i < len(b) && b[i] == ',' {
			i = space(b, i+1)
		} else if i >= len(b) || b[i] != ']' {
			return nil, i, syntax(b, i, "',' or ']'")
		}
	}
	if i >= len(b) {
		return nil, i, syntax(b, i, "']'")
	}
	return first, i + 1, nil
}

// raw returns a kept header's bytes as sent; nil when it is absent.
func (e *event) raw(header string) []byte {
	i, ok := e.set.index[header]
	if !ok {
		return nil
	}
	return e.vals[i]
}

// get returns a header's value, or "" when it is absent. Of several values it is the first.
func (e *event) get(header string) string {
	v := e.raw(header)
	if v == nil {
		return ""
	}
	if !e.json {
		return plainValue(string(v))
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v)
	}
	if s, err := strconv.Unquote(`"` + strings.ReplaceAll(string(v), `\/`, `/`) + `"`); err == nil {
		return s
	}
	return string(v)
}

func plainValue(s string) string {
	if strings.IndexByte(s, '%') >= 0 {
		if u, err := url.PathUnescape(s); err == nil {
			s = u
		}
	}
	if rest, ok := strings.CutPrefix(s, "ARRAY::"); ok {
		s, _, _ = strings.Cut(rest, "|:")
	}
	return s
}

// micros reads a header of microseconds since the epoch; absent and "0" are unknown.
func (e *event) micros(header string) call.Time {
	v, err := strconv.ParseInt(string(e.raw(header)), 10, 64)
	if err != nil || v < 0 {
		return 0
	}
	return call.Time(v)
}

func (e *event) int(header string) int {
	v, _ := strconv.Atoi(string(e.raw(header)))
	return v
}
