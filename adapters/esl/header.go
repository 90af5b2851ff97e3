package esl

import (
	"bytes"
	"encoding/json"
)

// headerOf finds one header of an event without parsing the whole of it. The value is as on the wire (escaped or
// URL-encoded), which for the names, numbers and UUIDs it is used for is the value itself. Nil when it is not there.
//
// A value cannot be taken for a header: quotes inside JSON values are escaped, and plain values are URL-encoded.
func headerOf(body []byte, json bool, name string) []byte {
	if json {
		return jsonHeader(body, name)
	}
	for rest := body; ; {
		i := bytes.Index(rest, []byte(name))
		if i < 0 {
			return nil
		}
		start := i == 0 && len(rest) == len(body) || i > 0 && rest[i-1] == '\n'
		rest = rest[i+len(name):]
		if start && bytes.HasPrefix(rest, []byte{':'}) {
			line, _, _ := bytes.Cut(rest[1:], []byte{'\n'})
			return bytes.TrimSpace(line)
		}
	}
}

func jsonHeader(body []byte, name string) []byte {
	for rest := body; ; {
		i := bytes.Index(rest, []byte(name))
		if i < 0 {
			return nil
		}
		quoted := i > 0 && rest[i-1] == '"' && (i < 2 || rest[i-2] != '\\')
		rest = rest[i+len(name):]
		if !quoted {
			continue
		}
		value, ok := bytes.CutPrefix(rest, []byte(`":"`))
		if !ok {
			if value, ok = spaced(rest); !ok {
				continue
			}
		}
		end := bytes.IndexByte(value, '"')
		if end < 0 {
			return nil
		}
		return value[:end]
	}
}

// spaced is the slow way over `" : "`, which FreeSWITCH does not write and a relay might.
func spaced(rest []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(rest, []byte{'"'})
	if !ok {
		return nil, false
	}
	rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte{':'})
	if !ok {
		return nil, false
	}
	return bytes.CutPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte{'"'})
}

// jsonBody is the _body of a JSON event.
func jsonBody(body []byte) string {
	var e struct {
		Body string `json:"_body"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	return e.Body
}

// number reads decimal digits; 0 when b is not a number.
func number(b []byte) uint64 {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<60 {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}
