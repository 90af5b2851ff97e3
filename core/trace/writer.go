package trace

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/ctigate/ctigate/core/call"
)

func callTime(s stamp) call.Time { return call.Time(s) }

// Writer writes a trace folder. Its methods may be called from any goroutine.
type Writer struct {
	dir   string
	mu    sync.Mutex
	files map[Source]*output
}

type output struct {
	file *os.File
	buf  *bufio.Writer
}

// Create makes dir, which must not hold a trace yet, for its owner alone: traces name who called whom. Files are made when their first line comes.
func Create(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating trace folder: %w", err)
	}
	for _, s := range Sources() {
		for _, ext := range []string{".jsonl", ".jsonl.gz"} {
			p := filepath.Join(dir, string(s)+ext)
			if _, err := os.Lstat(p); err == nil {
				return nil, fmt.Errorf("creating trace folder: %s is there already: choose another folder, or remove it", p)
			}
		}
	}
	return &Writer{dir: dir, files: map[Source]*output{}}, nil
}

// Write appends one line.
func (w *Writer) Write(l Line) error {
	raw, err := Append(nil, l)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	o, err := w.output(l.Source)
	if err != nil {
		return err
	}
	if _, err := o.buf.Write(raw); err != nil {
		return fmt.Errorf("writing trace: %w", err)
	}
	return nil
}

func (w *Writer) output(s Source) (*output, error) {
	if w.files == nil {
		return nil, errors.New("writing trace: it is closed")
	}
	if o := w.files[s]; o != nil {
		return o, nil
	}
	f, err := os.OpenFile(filepath.Join(w.dir, string(s)+".jsonl"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing trace: %w", err)
	}
	o := &output{file: f, buf: bufio.NewWriterSize(f, 64<<10)}
	w.files[s] = o
	return o, nil
}

// Flush hands what is buffered to the operating system.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []error
	for _, o := range w.files {
		all = append(all, o.buf.Flush())
	}
	return errors.Join(all...)
}

// Close flushes and closes the files.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []error
	for _, o := range w.files {
		all = append(all, o.buf.Flush(), o.file.Close())
	}
	w.files = nil
	return errors.Join(all...)
}

// Append appends l as one line of JSON, with its line end.
func Append(b []byte, l Line) ([]byte, error) {
	var v any
	rx := stamp(l.Received)
	switch l.Source {
	case ARI:
		v = struct {
			RX    stamp           `json:"rx"`
			Event json.RawMessage `json:"ev"`
		}{rx, l.Event}
	case AMI:
		v = struct {
			RX    stamp    `json:"rx"`
			Lines []string `json:"lines"`
		}{rx, l.Lines}
	case ESL:
		v = struct {
			RX   stamp             `json:"rx"`
			Head map[string]string `json:"head"`
			Body string            `json:"body"`
		}{rx, l.Head, string(l.Body)}
	default:
		return nil, fmt.Errorf("writing trace: unknown source %q", l.Source)
	}
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing trace: %s line: %w", l.Source, err)
	}
	return buf.Bytes(), nil
}

// Native makes the line of one native frame's bytes as an adapter of kind (ari, esl) hands them over: an ARI event is
// a JSON object, an AMI message is header lines, an event-socket frame is its body, with or without its own headers.
func Native(kind string, raw []byte, received call.Time) (Line, error) {
	switch kind {
	case "ari":
		if t := bytes.TrimSpace(raw); len(t) > 0 && t[0] == '{' {
			return Line{Source: ARI, Received: received, Event: t}, nil
		}
		return Line{Source: AMI, Received: received, Lines: splitLines(raw)}, nil
	case "esl":
		head, body := splitFrame(raw)
		return Line{Source: ESL, Received: received, Head: head, Body: body}, nil
	}
	return Line{}, fmt.Errorf("recording: no trace format for switches of kind %q", kind)
}

func splitLines(raw []byte) []string {
	text := strings.TrimRight(string(raw), "\r\n")
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return lines
}

// splitFrame parts an event-socket frame in its headers and body; bytes that begin without Content- are a body alone.
func splitFrame(raw []byte) (map[string]string, []byte) {
	if !bytes.HasPrefix(raw, []byte("Content-")) {
		kind := "text/event-plain"
		if bytes.HasPrefix(raw, []byte("{")) {
			kind = "text/event-json"
		}
		return map[string]string{"Content-Length": strconv.Itoa(len(raw)), "Content-Type": kind}, raw
	}
	top, body, _ := bytes.Cut(raw, []byte("\n\n"))
	head := map[string]string{}
	for _, l := range splitLines(top) {
		k, v, _ := strings.Cut(l, ":")
		head[k] = strings.TrimSpace(v)
	}
	return head, body
}
