package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// View is a journal as it stood when Inspect read it, while another process may have it open.
type View struct {
	Segments    []SegmentInfo // oldest first
	Cursors     map[string]uint64
	Checkpoints []CheckpointInfo // oldest first
	Damage      []Damage
	Tail        Damage // what follows the last sound record: being written, or torn by a crash
	First, Last uint64 // seqs that are kept; 0, 0 when none is
	Bytes       int64  // of segments, checkpoints and cursors

	tape tape
}

// SegmentInfo is one segment.
type SegmentInfo struct {
	File            string
	First, Last     uint64 // seqs; Last is First-1 when it holds none
	Records         uint64 // sound ones
	Bytes           int64
	FirstAt, LastAt call.Time
}

// Inspect reads the journal in dir from end to end. It changes nothing and takes no lock.
func Inspect(dir string) (*View, error) {
	v := &View{tape: tape{fs: disk{}, dir: dir, foreign: true}}
	found, err := v.tape.load()
	for try := 0; err == nil && len(v.tape.segments) == 0 && try < 5; try++ { // all may have been removed since they were listed
		found, err = v.tape.load()
	}
	if err != nil {
		return nil, err
	}
	v.Damage, v.Tail = found.damage, found.torn
	checkpoints, damage := readCheckpoints(disk{}, dir)
	newest, sizes, more := steadyCursors(dir)
	v.Checkpoints = checkpoints
	v.Cursors = newest.at
	v.Damage = append(append(v.Damage, damage...), more...)
	v.Bytes = sizes[0] + sizes[1]
	for _, c := range v.Checkpoints {
		v.Bytes += c.Bytes
	}
	for _, s := range v.tape.segments {
		v.Segments = append(v.Segments, SegmentInfo{File: s.name, First: s.first, Last: s.last, Records: s.records, Bytes: s.file,
			FirstAt: s.firstAt, LastAt: s.lastAt})
		v.Bytes += s.file
	}
	if v.First = v.tape.oldest(); v.First != 0 {
		v.Last = v.tape.readable
	}
	return v, v.check()
}

// steadyCursors reads the cursors again when they seem damaged: they may have been being written.
func steadyCursors(dir string) (newest cursorCopy, sizes [2]int64, damage []Damage) {
	for range 5 {
		if newest, sizes, damage = bothCursors(disk{}, dir); len(damage) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return newest, sizes, damage
}

// check tells a journal's folder, even an empty one, from any other.
func (v *View) check() error {
	if len(v.Segments) > 0 {
		return nil
	}
	f, err := v.tape.fs.OpenRead(v.tape.path(keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the journal %s: there is no journal in this folder", v.tape.dir)
	}
	if err != nil {
		return fmt.Errorf("reading the journal %s: %w", v.tape.dir, err)
	}
	return f.Close()
}

// Read returns a reader of the records that there were, from seq from on; 0 for the oldest.
func (v *View) Read(from uint64) (*Reader, error) { return newReader(&v.tape, from), nil }

// At is when the first sound record from seq on was appended; 0 when there is none.
func (v *View) At(seq uint64) call.Time {
	r := newReader(&v.tape, seq)
	defer r.Close()
	for {
		rec, err := r.Next()
		var damage *DamageError
		switch {
		case err == nil:
			return rec.At
		case !errors.As(err, &damage):
			return 0
		}
	}
}
