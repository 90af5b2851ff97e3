package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Reader reads a trace in the order of receive times, merged over its files. Inside one file the order is the file's,
// whatever its times say.
type Reader struct {
	files []*file
}

// file is one open trace file and its next line.
type file struct {
	path   string
	source Source
	in     *bufio.Reader
	close  []io.Closer
	number int
	next   *Line
	err    error // what reading next gave: nil, io.EOF or *LineError
}

// Open opens a trace folder, or one trace file. With sources, files of other sources are left alone. An error names
// what was looked for.
func Open(path string, sources ...Source) (*Reader, error) {
	if len(sources) == 0 {
		sources = Sources()
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening trace: %w", err)
	}
	if !info.IsDir() {
		return openFile(path, sources)
	}
	r := &Reader{}
	for _, s := range sources {
		f, err := openSource(path, s)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		if f != nil {
			r.files = append(r.files, f)
		}
	}
	if len(r.files) == 0 {
		return nil, fmt.Errorf("opening trace: %s holds none of %s: give a folder that does", path, names(sources))
	}
	return r, nil
}

func names(sources []Source) string {
	var all []string
	for _, s := range sources {
		all = append(all, string(s)+".jsonl", string(s)+".jsonl.gz")
	}
	return strings.Join(all, ", ")
}

func openFile(path string, sources []Source) (*Reader, error) {
	base, _, _ := strings.Cut(filepath.Base(path), ".")
	for _, s := range sources {
		if string(s) == base {
			f, err := open(path, s)
			if err != nil {
				return nil, err
			}
			return &Reader{files: []*file{f}}, nil
		}
	}
	return nil, fmt.Errorf("opening trace: cannot tell what %s was recorded from: its name must be one of %s", path, names(sources))
}

// openSource opens the folder's file of source s, plain before gzipped; nil when there is none.
func openSource(dir string, s Source) (*file, error) {
	for _, ext := range []string{".jsonl", ".jsonl.gz"} {
		f, err := open(filepath.Join(dir, string(s)+ext), s)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return f, err
	}
	return nil, nil
}

func open(path string, s Source) (*file, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening trace: %w", err)
	}
	f := &file{path: path, source: s, close: []io.Closer{h}}
	var in io.Reader = h
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(bufio.NewReader(h))
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("opening trace: %s: %w", path, err)
		}
		f.close = append(f.close, z)
		in = z
	}
	f.in = bufio.NewReaderSize(in, 64<<10)
	f.advance()
	return f, nil
}

// Next returns the next line; io.EOF after the last. A *LineError is about one line only: the next call goes on.
func (r *Reader) Next() (Line, error) {
	var first *file
	for _, f := range r.files {
		if f.err == io.EOF {
			continue
		}
		if f.err != nil {
			err := f.err
			f.advance()
			return Line{}, err
		}
		if first == nil || f.next.Received < first.next.Received {
			first = f
		}
	}
	if first == nil {
		return Line{}, io.EOF
	}
	l := *first.next
	first.advance()
	return l, nil
}

// Close closes the files.
func (r *Reader) Close() error {
	var all []error
	for _, f := range r.files {
		for _, c := range f.close {
			all = append(all, c.Close())
		}
	}
	return errors.Join(all...)
}

// advance reads the file's next line that is not empty.
func (f *file) advance() {
	if errors.Is(f.err, errBroken) {
		f.err = io.EOF
		return
	}
	f.next, f.err = nil, nil
	raw, err := f.line()
	switch {
	case err == io.EOF:
		f.err = io.EOF
	case err != nil:
		f.err = &LineError{Path: f.path, Number: f.number, Raw: raw, Err: err}
	default:
		l, err := Parse(f.source, raw)
		if err != nil {
			f.err = &LineError{Path: f.path, Number: f.number, Raw: raw, Err: err}
			return
		}
		f.next = &l
	}
}

// errBroken marks a file that cannot be read any further.
var errBroken = errors.New("the file ends or breaks here")

// line reads one line with something in it, without its end.
func (f *file) line() ([]byte, error) {
	for {
		raw, err := f.rawLine()
		if err != nil && err != io.EOF {
			return raw, err
		}
		raw = bytes.TrimSpace(raw)
		if len(raw) > 0 {
			return raw, nil
		}
		if err == io.EOF {
			return nil, io.EOF
		}
	}
}

// rawLine reads up to the next line end, at most MaxLine bytes of it.
func (f *file) rawLine() ([]byte, error) {
	f.number++
	var raw []byte
	size := 0
	for {
		part, err := f.in.ReadSlice('\n')
		size += len(part)
		if size <= MaxLine {
			raw = append(raw, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
		case err != nil && err != io.EOF:
			return raw, fmt.Errorf("%w: %w", errBroken, err)
		case size > MaxLine:
			return raw[:min(len(raw), 4096)], fmt.Errorf("the line has %d bytes, more than the %d allowed", size, MaxLine)
		default:
			return raw, err
		}
	}
}

// wire is a line of any source.
type wire struct {
	RX    *stamp            `json:"rx"`
	Event json.RawMessage   `json:"ev"`
	Lines []string          `json:"lines"`
	Head  map[string]string `json:"head"`
	Body  *string           `json:"body"`
}

// Parse reads one line recorded from s.
func Parse(s Source, raw []byte) (Line, error) {
	var w wire
	if err := json.Unmarshal(raw, &w); err != nil {
		return Line{}, fmt.Errorf("reading a line of %s: %w", s, err)
	}
	if w.RX == nil {
		return Line{}, fmt.Errorf("reading a line of %s: rx (the receive time) is missing", s)
	}
	l := Line{Source: s, Received: callTime(*w.RX)}
	missing := ""
	switch s {
	case ARI:
		if l.Event = w.Event; len(l.Event) == 0 {
			missing = "ev"
		}
	case AMI:
		if l.Lines = w.Lines; len(l.Lines) == 0 {
			missing = "lines"
		}
	case ESL:
		if w.Body == nil && w.Head == nil {
			missing = "head or body"
		} else if w.Body != nil {
			l.Body = []byte(*w.Body)
		}
		l.Head = w.Head
	default:
		return Line{}, fmt.Errorf("reading a line: unknown source %q", s)
	}
	if missing != "" {
		return Line{}, fmt.Errorf("reading a line of %s: %s is missing", s, missing)
	}
	return l, nil
}
