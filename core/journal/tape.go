package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ctigate/ctigate/core/call"
)

const (
	segmentSuffix    = ".cti"
	checkpointSuffix = ".ckpt"
	indexEvery       = 64 << 10 // bytes between two entries of a segment's index
	maxFirst         = 1 << 62  // of a segment: counting on from there cannot overflow
)

// tape is the segments of a journal, oldest first, and how far they may be read.
type tape struct {
	fs  FS
	dir string

	mu       sync.Mutex
	key      [keySize]byte
	segments []*segment
	readable uint64 // last seq that readers may have
	foreign  bool   // another process may remove segments
}

// segment is one file of records. What changes is guarded by tape.mu.
type segment struct {
	place
	name string

	last            uint64 // last seq it holds or should hold; first-1 when it holds none
	size            int64  // where what may be read ends
	file            int64  // bytes on disk
	records         uint64
	firstAt, lastAt call.Time
	index           []entry
	broken          bool // its header is damaged
}

// entry says where a record is.
type entry struct {
	seq uint64
	off int64
	at  call.Time
}

// add notes the record r at off, which ends at end.
func (s *segment) add(r Record, off, end int64) {
	if n := len(s.index); n == 0 || off-s.index[n-1].off >= indexEvery {
		s.index = append(s.index, entry{r.Seq, off, r.At})
	}
	if s.records == 0 {
		s.firstAt = r.At
	}
	s.records++
	s.last, s.lastAt, s.file = r.Seq, r.At, end
}

// seek returns the entry at or before seq.
func (s *segment) seek(seq uint64) entry {
	i, found := slices.BinarySearchFunc(s.index, seq, func(e entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
	if !found {
		i--
	}
	if i < 0 {
		return entry{s.first, headerSize, s.firstAt}
	}
	return s.index[i]
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func (t *tape) path(name string) string { return filepath.Join(t.dir, name) }

// numbered is the number in a file name of 20 digits and suffix.
func numbered(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// findings is what load saw in the segments.
type findings struct {
	damage []Damage
	torn   Damage // what follows the last sound record
	failed error  // what the disk said where it could not read the last segment
}

// load reads all segments. Only what keeps it from opening a file is an error; a file that has gone meanwhile is not.
func (t *tape) load() (findings, error) {
	names, err := t.fs.List(t.dir)
	if err != nil {
		return findings{}, fmt.Errorf("listing the journal %s: %w", t.dir, err)
	}
	heads, err := t.headers(names)
	if err != nil {
		return findings{}, err
	}
	t.adoptKey(heads)
	var found findings
	for i, s := range heads {
		next := uint64(0)
		if i+1 < len(heads) {
			next = heads[i+1].first
		}
		if err := t.read(s, next, &found); err != nil {
			return findings{}, err
		}
	}
	t.gaps(&found)
	return found, nil
}

// headers opens the segments and reads their headers; they come back in order.
func (t *tape) headers(names []string) ([]*segment, error) {
	var all []*segment
	for _, name := range names {
		first, ok := numbered(name, segmentSuffix)
		if !ok || first == 0 || first > maxFirst {
			continue
		}
		s, err := t.header(name, first)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("opening the journal's segment %s: %w", t.path(name), err)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	return all, nil
}

func (t *tape) header(name string, first uint64) (*segment, error) {
	f, err := t.fs.OpenRead(t.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &segment{place: newPlace(t.key, first), name: name, broken: true}
	s.identify(f)
	return s, nil
}

// identify takes over what a sound header says.
func (s *segment) identify(f File) {
	b := make([]byte, headerSize)
	_ = readAll(f, b, 0)
	if p, ok := parseSegmentHeader(b); ok && p.first == s.first {
		s.place, s.broken = p, false
	}
}

// adoptKey takes the key from the headers, else from its file, and gives it to segments whose header is damaged.
func (t *tape) adoptKey(all []*segment) {
	known := false
	for _, s := range all {
		if !s.broken {
			t.key, known = s.key, true // the newest
		}
	}
	if !known {
		t.key, known, _ = readKey(t.fs, t.path(keyFile))
	}
	if !known {
		t.key = newKey()
	}
	for i, s := range all {
		if s.broken {
			key := t.key
			if i > 0 && !all[i-1].broken {
				key = all[i-1].key
			}
			s.place = newPlace(key, s.first)
		}
	}
}

// read reads the records of s, whose seqs end before next, 0 for the last segment.
func (t *tape) read(s *segment, next uint64, found *findings) error {
	f, err := t.fs.OpenRead(t.path(s.name))
	if errors.Is(err, fs.ErrNotExist) { // retention has taken it since, and all before it
		t.segments, found.damage = nil, nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the journal's segment %s: %w", t.path(s.name), err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("measuring the journal's segment %s: %w", t.path(s.name), err)
	}
	if s.broken && t.foreign {
		s.identify(f) // it may have just been made
	}
	s.last, s.size, s.file = s.first-1, headerSize, size
	if s.broken && (next != 0 || size >= headerSize) {
		found.damage = append(found.damage, Damage{File: s.name, Bytes: min(size, headerSize)})
	}
	in := &scanner{place: s.place, src: f, off: headerSize, end: size, expect: s.first}
	for t.step(s, in, next, found) {
	}
	if next == 0 {
		found.failed = in.err
	}
	t.segments = append(t.segments, s)
	return nil
}

// step reads one record or damaged stretch of s and reports whether to go on.
func (t *tape) step(s *segment, in *scanner, next uint64, found *findings) bool {
	expect := in.expect
	r, bad, err := in.next()
	switch {
	case err != nil:
		return false
	case bad != nil && in.off < in.end:
		found.damage = append(found.damage, bad.damage(s.name, expect, in.expect-1))
	case bad != nil:
		t.tail(s, bad, expect, next, found)
	case next != 0 && r.Seq >= next: // the next segment says it again
		s.size = in.off - int64(frameSize+len(r.Data))
		return false
	default:
		s.add(r, in.off-int64(frameSize+len(r.Data)), in.off)
		s.size = in.off
	}
	return true
}

// tail notes the damage that s ends with: torn, or, when segments follow, what lies between.
func (t *tape) tail(s *segment, bad *stretch, expect, next uint64, found *findings) {
	if next == 0 {
		found.torn = bad.damage(s.name, expect, bad.seen)
		return
	}
	d := bad.damage(s.name, expect, next-1)
	found.damage = append(found.damage, d)
	s.last, s.size = next-1, bad.off+bad.bytes
}

// damage is the stretch in words, when the records from first to last would have been in it.
func (b *stretch) damage(file string, first, last uint64) Damage {
	d := Damage{File: file, Offset: b.off, Bytes: b.bytes}
	if last >= first {
		d.FirstSeq, d.LastSeq = first, last
	}
	return d
}

// gaps notes the records that are missing between segments and sets what may be read.
func (t *tape) gaps(found *findings) {
	for i, s := range t.segments {
		if i > 0 && t.segments[i-1].last+1 < s.first {
			found.damage = append(found.damage, Damage{File: s.name, FirstSeq: t.segments[i-1].last + 1, LastSeq: s.first - 1})
		}
		t.readable = s.last
	}
}

// locate returns the segment that holds seq, or else the first after it, nil when there is none, and the last seq
// before it.
func (t *tape) locate(seq uint64) (s *segment, before uint64) {
	for _, s := range t.segments {
		if s.last >= seq {
			return s, before
		}
		before = s.last
	}
	return nil, before
}

// oldest is the first seq that is kept; 0 when none is.
func (t *tape) oldest() uint64 {
	for _, s := range t.segments {
		if s.last >= s.first {
			return s.first
		}
	}
	return 0
}
