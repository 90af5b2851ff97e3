package journal

import (
	"errors"
	"io"
	"io/fs"
	"slices"
)

// Reader reads durable records in order. It is used by one goroutine at a time; the journal goes on beside it.
type Reader struct {
	tape *tape
	next uint64 // seq to return next

	segment *segment // nil: to be looked up
	file    File
	scan    scanner

	closed bool
}

func newReader(t *tape, from uint64) *Reader {
	if from == 0 {
		t.mu.Lock()
		from = max(t.oldest(), 1)
		t.mu.Unlock()
	}
	return &Reader{tape: t, next: from}
}

// Next returns the next record; it is the caller's. The errors after which reading goes on:
//
//   - io.EOF: there is no durable record yet; ask again later;
//   - *DamageError: bytes, and the records it names, are damaged and were passed over;
//   - *GoneError: records were removed by retention and were passed over.
//
// Any other is the disk's, or ErrClosed.
func (r *Reader) Next() (Record, error) {
	for {
		if r.closed {
			return Record{}, ErrClosed
		}
		if r.segment == nil {
			if err := r.enter(); err != nil {
				return Record{}, err
			}
			continue
		}
		if !r.more() {
			if err := r.leave(); err != nil {
				return Record{}, err
			}
			continue
		}
		expect := r.scan.expect
		rec, bad, err := r.scan.next()
		switch {
		case err != nil: // the end; more says what is next
		case bad != nil:
			if err := r.passed(bad, expect); err != nil {
				return Record{}, err
			}
		case rec.Seq >= r.next:
			r.next = rec.Seq + 1
			rec.Data = slices.Clone(rec.Data)
			return rec, nil
		}
	}
}

// Seq is the seq that Next looks for.
func (r *Reader) Seq() uint64 { return r.next }

// more lets the scanner go as far as the segment may be read now, and reports whether there is anything.
func (r *Reader) more() bool {
	r.tape.mu.Lock()
	defer r.tape.mu.Unlock()
	r.scan.end = r.segment.size
	return r.scan.off < r.scan.end
}

// enter finds the segment to read next and opens it.
func (r *Reader) enter() error {
	s, at, err := r.find()
	if err != nil {
		return err
	}
	f, err := r.tape.fs.OpenRead(r.tape.path(s.name))
	if errors.Is(err, fs.ErrNotExist) {
		return r.vanished(s)
	}
	if err != nil {
		return err
	}
	r.segment, r.file = s, f
	r.scan = scanner{place: s.place, src: f, off: at.off, end: at.off, expect: at.seq}
	return nil
}

// find returns the segment with the next record, and where in it to begin. Records that are in none are passed over.
func (r *Reader) find() (*segment, entry, error) {
	t := r.tape
	t.mu.Lock()
	defer t.mu.Unlock()
	s, before := t.locate(r.next)
	switch {
	case s == nil || r.next > t.readable:
		return nil, entry{}, io.EOF
	case s.first <= r.next:
		return s, s.seek(r.next), nil
	}
	from := r.next
	r.next = s.first
	if before == 0 {
		return nil, entry{}, &GoneError{FirstSeq: from, LastSeq: s.first - 1}
	}
	return nil, entry{}, &DamageError{Damage{File: s.name, FirstSeq: from, LastSeq: s.first - 1}}
}

// vanished says that the file of s is not there: retention was faster, or somebody removed it.
func (r *Reader) vanished(s *segment) error {
	r.tape.mu.Lock()
	defer r.tape.mu.Unlock()
	if !slices.Contains(r.tape.segments, s) {
		return nil
	}
	from := r.next
	r.next = s.last + 1
	if r.tape.foreign {
		return &GoneError{FirstSeq: from, LastSeq: s.last}
	}
	return &DamageError{Damage{File: s.name, FirstSeq: from, LastSeq: s.last}}
}

// leave ends a segment that has nothing more to read now: io.EOF when it is the one that records are appended to.
func (r *Reader) leave() error {
	t := r.tape
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.scan.off < r.segment.size {
		return nil // it has grown since, and may have been ended
	}
	if r.next > t.readable && len(t.segments) > 0 && r.segment == t.segments[len(t.segments)-1] {
		return io.EOF
	}
	name, last := r.segment.name, r.segment.last
	r.drop()
	if r.next > last || r.next > t.readable {
		return nil
	}
	from := r.next
	r.next = last + 1
	return &DamageError{Damage{File: name, FirstSeq: from, LastSeq: last}}
}

// passed makes the error for a damaged stretch, nil when it lies before what is wanted.
func (r *Reader) passed(bad *stretch, expect uint64) error {
	last := r.scan.expect - 1
	if r.scan.off == r.scan.end {
		r.tape.mu.Lock()
		last = r.segment.last
		r.tape.mu.Unlock()
		r.scan.expect = last + 1
	}
	if last >= expect && last < r.next {
		return nil
	}
	d := bad.damage(r.segment.name, max(expect, r.next), last)
	r.next = max(r.next, last+1)
	return &DamageError{d}
}

func (r *Reader) drop() {
	if r.file != nil {
		r.file.Close()
	}
	r.segment, r.file = nil, nil
}

// Close releases the reader's file. It must not be called while Next runs.
func (r *Reader) Close() error {
	r.closed = true
	r.drop()
	return nil
}
