package sim

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// proto is one of the three control protocols.
type proto uint8

const (
	protoARI    proto = iota // a JSON event
	protoAMI                 // a message with its final blank line
	protoESL                 // the body of an event frame
	protoAnswer              // an event-socket frame that answers a command
)

// frame is one recorded frame. at is its receive time in microseconds since the epoch.
type frame struct {
	at    int64
	proto proto
	raw   []byte
	plain bool // an event-socket body in the plain format
}

// maxLine bounds one line of a recording, in bytes.
const maxLine = 32 << 20

// readRecording reads the ari, ami and esl files of a folder, compressed or not, merged by receive time.
func readRecording(fsys fs.FS, dir string) ([]frame, error) {
	var all []frame
	for _, name := range []string{"ami", "ari", "esl"} {
		f, err := readFile(fsys, path.Join(dir, name+".jsonl"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, f...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("reading recording %s: no frames in ari, ami or esl .jsonl or .jsonl.gz", dir)
	}
	slices.SortStableFunc(all, func(a, b frame) int { return int(a.at - b.at) })
	return all, nil
}

func readFile(fsys fs.FS, name string) ([]frame, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = fsys.Open(name + ".gz"); err != nil {
			return nil, err
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("reading recording %s.gz: %w", name, err)
		}
		return readLines(z, name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLines(f, name)
}

func readLines(r io.Reader, name string) ([]frame, error) {
	var out []frame
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		f, ok, err := parseLine(sc.Bytes())
		if err != nil {
			return nil, fmt.Errorf("reading recording %s line %d: %w", name, n, err)
		}
		if ok {
			out = append(out, f)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading recording %s: %w", name, err)
	}
	return out, nil
}

// line is one line of a recording: exactly one of ev, lines and body is set.
type line struct {
	RX    json.RawMessage   `json:"rx"`
	Ev    json.RawMessage   `json:"ev"`
	Lines []string          `json:"lines"`
	Head  map[string]string `json:"head"`
	Body  string            `json:"body"`
}

// parseLine reads one line; ok is false for a line that holds no frame.
func parseLine(b []byte) (f frame, ok bool, err error) {
	var l line
	if err = json.Unmarshal(b, &l); err != nil {
		return f, false, fmt.Errorf("decoding it as JSON: %w", err)
	}
	if f.at, err = parseRX(l.RX); err != nil {
		return f, false, err
	}
	switch {
	case len(l.Ev) > 0:
		var c bytes.Buffer
		if err = json.Compact(&c, l.Ev); err != nil {
			return f, false, err
		}
		f.proto, f.raw = protoARI, c.Bytes()
	case len(l.Lines) > 0:
		f.proto, f.raw = protoAMI, []byte(strings.Join(l.Lines, "\r\n")+"\r\n\r\n")
	case strings.HasPrefix(l.Head["Content-Type"], "text/event-"):
		f.proto, f.raw = protoESL, []byte(l.Body)
		f.plain = l.Head["Content-Type"] == "text/event-plain"
	case len(l.Head) > 0:
		f.proto, f.raw = protoAnswer, []byte(l.Body)
	default:
		return f, false, nil
	}
	return f, true, nil
}

// parseRX reads Unix seconds or an RFC 3339 string.
func parseRX(b json.RawMessage) (int64, error) {
	if len(b) > 0 && b[0] == '"' {
		var t time.Time
		if err := json.Unmarshal(b, &t); err != nil {
			return 0, fmt.Errorf("receive time %s: want Unix seconds or RFC 3339: %w", b, err)
		}
		return t.UnixMicro(), nil
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil || v < 0 || v > 1e11 {
		return 0, fmt.Errorf("receive time %q: want Unix seconds or RFC 3339", b)
	}
	return int64(v * 1e6), nil
}

// field is a text value in a frame and the bytes before it that are always the same.
type field struct{ pre, key, val string }

// fields splits a frame into its text values, decoded, and what follows the last.
func (f frame) fields() ([]field, string) {
	if f.proto == protoAMI {
		return messageFields(string(f.raw), "\r\n", func(s string) string { return s })
	}
	if f.plain {
		return messageFields(string(f.raw), "\n", decodeURL)
	}
	return jsonFields(string(f.raw))
}

func messageFields(s, eol string, decode func(string) string) (out []field, tail string) {
	pre := ""
	for s != "" {
		l, rest, _ := strings.Cut(s, eol)
		k, v, ok := strings.Cut(l, ": ")
		if !ok || v == "" {
			pre += l + eol
		} else {
			out = append(out, field{pre + k + ": ", k, decode(v)})
			pre = eol
		}
		s = rest
	}
	return out, pre
}

// jsonFields finds the string values of compact JSON. Broken JSON gives what was found before the fault.
func jsonFields(s string) (out []field, tail string) {
	start, key := 0, ""
	for i := 0; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}
		end := stringEnd(s, i+1)
		if end < 0 {
			break
		}
		text := s[i+1 : end]
		if strings.IndexByte(text, '\\') >= 0 && json.Unmarshal([]byte(s[i:end+1]), &text) != nil {
			break
		}
		if end+1 < len(s) && s[end+1] == ':' {
			key = text
		} else {
			out = append(out, field{s[start : i+1], key, text})
			start = end
		}
		i = end
	}
	return out, s[start:]
}

// stringEnd returns where the JSON string that began before i ends, or -1.
func stringEnd(s string, i int) int {
	for ; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func decodeURL(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
