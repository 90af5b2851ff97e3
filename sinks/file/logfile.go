package file

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core"
)

const (
	suffix = ".jsonl"
	stamp  = "20060102T150405.000000Z"
)

// handle is an open file, as far as we use one.
type handle interface {
	io.Writer
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// streamFile is one stream's file, and its share of the batch being written.
type streamFile struct {
	sink   *Sink
	stream core.Stream
	h      handle // nil: to be opened, and looked over, before the next write
	size   int64  // bytes known to be whole lines on disk
	born   time.Time

	text  []byte
	items []int
	err   error
}

func (s *Sink) path(stream core.Stream) string {
	return filepath.Join(s.cfg.Dir, string(stream)+suffix)
}

// file returns the stream's open file.
func (s *Sink) file(stream core.Stream) (*streamFile, error) {
	f := s.files[stream]
	if f == nil {
		f = &streamFile{sink: s, stream: stream}
	}
	if f.h == nil {
		if err := f.open(); err != nil {
			return nil, explain(s.cfg.Dir, err)
		}
	}
	s.files[stream] = f
	return f, nil
}

// open opens or makes the file and cuts off a line that a crash left unfinished.
func (f *streamFile) open() error {
	path := f.sink.path(f.stream)
	size, whole, born, err := survey(path)
	if err != nil {
		return fmt.Errorf("looking over %s: %w", path, err)
	}
	h, err := f.sink.create(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	if whole < size {
		if err := h.Truncate(whole); err != nil {
			h.Close()
			return fmt.Errorf("cutting the unfinished line off %s: %w", path, err)
		}
		f.sink.torn.Add(1)
		f.sink.log.Warn("cut off an unfinished line", "file", path, "bytes", size-whole)
	}
	if size == 0 {
		born = f.sink.now()
		if err := syncDir(f.sink.cfg.Dir); err != nil {
			h.Close()
			return err
		}
	}
	f.h, f.size, f.born = h, whole, born
	return nil
}

// survey tells a file's size, how much of it is whole lines, and when its first line was recorded.
func survey(path string) (size, whole int64, born time.Time, err error) {
	f, err := openOld(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, born, nil
	}
	if err != nil {
		return 0, 0, born, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, born, err
	}
	whole, err = lastLineEnd(f, info.Size())
	if err != nil {
		return 0, 0, born, err
	}
	born = firstRecorded(f)
	if born.IsZero() || born.After(info.ModTime()) {
		born = info.ModTime()
	}
	return info.Size(), whole, born, nil
}

// lastLineEnd finds the offset after the last newline, reading from the end.
func lastLineEnd(r io.ReaderAt, size int64) (int64, error) {
	const step = 64 << 10
	block := make([]byte, step)
	for end := size; end > 0; {
		start := max(0, end-step)
		b := block[:end-start]
		if _, err := r.ReadAt(b, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// firstRecorded reads the recordedtime of the first line; the zero time when it has none or is huge.
func firstRecorded(r io.ReaderAt) time.Time {
	line, err := bufio.NewReaderSize(io.NewSectionReader(r, 0, 1<<20), 1<<20).ReadSlice('\n')
	if err != nil {
		return time.Time{}
	}
	var first struct{ RecordedTime, Time time.Time }
	if json.Unmarshal(line, &first) != nil {
		return time.Time{}
	}
	if first.RecordedTime.IsZero() {
		return first.Time
	}
	return first.RecordedTime
}

// commit writes the file's share of a batch and syncs it, or leaves the file as it was.
func (f *streamFile) commit() error {
	if f.due() {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	err := f.append()
	if err == nil {
		f.size += int64(len(f.text))
		return nil
	}
	f.rollback()
	return fmt.Errorf("writing %s: %w", f.sink.path(f.stream), err)
}

func (f *streamFile) append() error {
	if _, err := f.h.Write(f.text); err != nil {
		return err
	}
	return f.h.Sync()
}

// rollback takes back what a failed write left, so that the next attempt does not make duplicates. The file is opened
// anew: after a failed fsync nothing is certain of the old handle.
func (f *streamFile) rollback() {
	if err := f.h.Truncate(f.size); err != nil {
		f.sink.log.Error("could not take back a failed write; the file may get duplicate lines", "file", f.sink.path(f.stream), "err", err)
	}
	f.h.Close()
	f.h = nil
}

// due reports whether the file is to be closed before the share is written.
func (f *streamFile) due() bool {
	if f.size == 0 {
		return false
	}
	return f.size+int64(len(f.text)) > f.sink.cfg.RotateBytes || f.sink.now().Sub(f.born) >= f.sink.cfg.RotateAge
}

// rotate renames the file after the time and starts an empty one.
func (f *streamFile) rotate() error {
	old := f.sink.path(f.stream)
	name := f.rotatedName()
	f.h.Close() // synced already
	f.h = nil
	if err := os.Rename(old, name); err != nil {
		return fmt.Errorf("rotating %s: %w", old, err)
	}
	f.sink.rotated.Add(1)
	f.prune()
	return f.open()
}

// rotatedName never names an existing file, even when the clock was set back.
func (f *streamFile) rotatedName() string {
	for at := f.sink.now().UTC(); ; at = at.Add(time.Microsecond) {
		name := filepath.Join(f.sink.cfg.Dir, string(f.stream)+"-"+at.Format(stamp)+suffix)
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			return name
		}
	}
}

// prune deletes the oldest closed files. That it failed is no reason not to write.
func (f *streamFile) prune() {
	if f.sink.cfg.Keep == 0 {
		return
	}
	names, err := f.rotatedFiles()
	if err != nil {
		f.sink.log.Warn("could not look for old files to delete", "err", err)
		return
	}
	for len(names) > f.sink.cfg.Keep {
		if err := os.Remove(names[0]); err != nil {
			f.sink.log.Warn("could not delete an old file", "file", names[0], "err", err)
		}
		names = names[1:]
	}
}

// rotatedFiles lists the stream's closed files, oldest first.
func (f *streamFile) rotatedFiles() ([]string, error) {
	entries, err := os.ReadDir(f.sink.cfg.Dir)
	if err != nil {
		return nil, err
	}
	prefix := string(f.stream) + "-"
	var names []string
	for _, e := range entries {
		n := e.Name()
		if len(n) != len(prefix)+len(stamp)+len(suffix) || n[:len(prefix)] != prefix || filepath.Ext(n) != suffix {
			continue
		}
		if _, err := time.Parse(stamp, n[len(prefix):len(n)-len(suffix)]); err == nil {
			names = append(names, filepath.Join(f.sink.cfg.Dir, n))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (f *streamFile) close() error {
	if f.h == nil {
		return nil
	}
	err := f.h.Close()
	f.h = nil
	if err != nil {
		return fmt.Errorf("closing %s: %w", f.sink.path(f.stream), err)
	}
	return nil
}

// syncDir makes a new or renamed file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing folder %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing folder %s: %w", dir, err)
	}
	return nil
}
