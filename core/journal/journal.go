package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Policy is what happens when a journal has reached MaxBytes and everything in it is still needed.
type Policy int

// Policies.
const (
	Block      Policy = iota // Append returns ErrFull
	DropOldest               // the oldest segment goes; TakeDropped tells what was in it
)

// Options is how a journal is kept.
type Options struct {
	Dir          string        // made, with mode 0700, when it is not there
	SegmentBytes int64         // bytes after which a new segment is begun, default 64 MiB, at most MaxBytes/4
	MaxBytes     int64         // bytes of all files together, 0 for no bound
	MaxAge       time.Duration // segments go when their newest record is older, 0 for no bound
	WhenFull     Policy
	Log          *slog.Logger // nil: nowhere
	FS           FS           // nil: the real one
}

const (
	defaultSegmentBytes = 64 << 20
	minSegmentBytes     = 4 << 10
	maxPending          = 64 << 20 // bytes appended and not synced, after which Append syncs
)

func (o Options) withDefaults() Options {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.MaxBytes > 0 {
		o.SegmentBytes = max(min(o.SegmentBytes, o.MaxBytes/4), minSegmentBytes)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = disk{}
	}
	return o
}

// Report is what Open found.
type Report struct {
	First, Last uint64   // seqs that are kept; 0, 0 when none is
	Torn        Damage   // what was cut off the newest segment, a record that a crash left unfinished; Bytes is 0 for nothing
	Damage      []Damage // what is damaged, in segments, cursors and checkpoints
}

// Journal is an open journal. Its methods may be called from any goroutine.
type Journal struct {
	opt  Options
	log  *slog.Logger
	lock io.Closer
	tape // its mu guards the fields below too

	last    uint64 // last seq appended
	lastAt  call.Time
	active  *segment // the newest of tape.segments, nil: to be made
	file    File     // of active
	written int64    // where the next record of active goes
	pending []byte   // frames after what is durable, as they stand at the end of active
	spoilt  bool     // active ends with bytes that could not be taken back
	redo    bool     // pending may be nowhere on disk: a sync failed
	syncing bool     // a Sync is at the disk without mu
	synced  sync.Cond
	closed  bool
	keep    uint64 // what Trim was told last
	drops   []Dropped
	stats   Stats
	others  atomic.Int64 // bytes of cursors and checkpoints

	cursors     cursors
	checkpoints checkpoints

	closing  sync.Once
	closeErr error
}

// Stats are figures of a journal. Counters count since Open.
type Stats struct {
	Bytes         int64 // of all files
	MaxBytes      int64 // as in Options
	Segments      int
	First, Last   uint64 // seqs that are kept; Last is appended, maybe not durable
	Durable       uint64 // last seq that is durable
	OldestAt      call.Time
	Appended      uint64 // records
	Syncs         uint64 // that made something durable
	SyncFailures  uint64
	Dropped       uint64 // records removed that a cursor still needed
	CursorFailure string // why cursors could not be saved last, empty when they were
}

// Open opens, or makes, the journal in o.Dir and repairs its end. Damage in its files is reported, never an error.
func Open(o Options) (*Journal, Report, error) {
	o = o.withDefaults()
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, Report{}, fmt.Errorf("making the journal's folder: %w", spaced(err))
	}
	j := &Journal{opt: o, log: o.Log, tape: tape{fs: o.FS, dir: o.Dir}}
	j.synced.L = &j.mu
	lock, err := o.FS.Lock(j.path("lock"))
	if err != nil {
		return nil, Report{}, fmt.Errorf("locking the journal %s: %w", o.Dir, err)
	}
	j.lock = lock
	report, err := j.recover()
	if err != nil {
		lock.Close()
		return nil, Report{}, err
	}
	j.reserveCursors()
	j.cursors.gone.Go(j.saveLoop)
	return j, report, nil
}

// recover reads what is on disk and prepares for appending.
func (j *Journal) recover() (Report, error) {
	j.removeTemporary()
	found, err := j.load()
	if err != nil {
		return Report{}, err
	}
	r := Report{Damage: found.damage}
	r.Damage = append(r.Damage, j.loadCheckpoints()...)
	r.Damage = append(r.Damage, j.loadCursors()...)
	if found.failed != nil {
		j.log.Error("the disk cannot read a part of the journal", "file", found.torn.File, "error", found.failed)
	}
	r.Damage = append(r.Damage, j.saveKey()...)
	j.resume(found, &r)
	r.First, r.Last = j.oldest(), j.readable
	if r.First == 0 {
		r.Last = 0
	}
	j.warn(r)
	return r, nil
}

// resume decides where appending goes on: after the last record, and after all that a cursor or a checkpoint has seen.
func (j *Journal) resume(found findings, r *Report) {
	if n := len(j.segments); n > 0 {
		j.reopen(j.segments[n-1], found, r)
	}
	j.last = j.readable
	if seen := max(j.cursors.highest(), j.checkpoints.highest()); seen > j.last {
		r.Damage = append(r.Damage, Damage{File: segmentName(seen + 1), FirstSeq: j.last + 1, LastSeq: seen})
		j.last = seen
		j.abandon()
	}
}

// reopen cuts the torn end off the newest segment, so that appending goes on in it. Where that cannot be done, a new
// one is begun.
func (j *Journal) reopen(s *segment, found findings, r *Report) {
	j.lastAt = s.lastAt
	unknown := found.failed != nil || s.broken && s.records == 0
	switch {
	case unknown && found.torn.Bytes > 0:
		j.setAside(s, found.torn, r)
	case s.broken && s.records > 0:
		j.cut(s, found.torn, r)
		j.abandon()
	default:
		j.cut(s, found.torn, r)
	}
}

// setAside keeps what may become readable again, with another disk or key, and leaves as many seqs free as there may be
// records in it.
func (j *Journal) setAside(s *segment, torn Damage, r *Report) {
	torn.FirstSeq = s.last + 1
	torn.LastSeq = max(torn.LastSeq, s.last+uint64(torn.Bytes)/frameSize+1)
	r.Damage = append(r.Damage, torn)
	s.last, s.size = torn.LastSeq, torn.Offset+torn.Bytes
	j.readable = s.last
}

// cut takes torn off s and opens it for appending.
func (j *Journal) cut(s *segment, torn Damage, r *Report) {
	r.Torn = torn
	f, err := j.fs.Open(j.path(s.name), false)
	if err == nil {
		err = j.mend(f, s)
	}
	if err != nil {
		j.log.Warn("the journal's newest segment cannot be written to; a new one is begun", "file", s.name, "error", err)
		if f != nil {
			f.Close()
		}
		return
	}
	j.active, j.file, j.written = s, f, s.size
}

// mend makes s end where its records end, and begin with its header.
func (j *Journal) mend(f File, s *segment) error {
	if s.file == s.size && !s.broken {
		return nil
	}
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	if s.records == 0 {
		if _, err := f.WriteAt(segmentHeader(s.place), 0); err != nil {
			return err
		}
		s.broken = false
	}
	s.file = s.size
	return f.Sync()
}

func (j *Journal) warn(r Report) {
	if r.Torn.Bytes > 0 {
		j.log.Info("a record that was not finished has been cut off the journal", "file", r.Torn.File, "bytes", r.Torn.Bytes)
	}
	for _, d := range r.Damage {
		j.log.Error("the journal is damaged", "what", d.String())
	}
}

// removeTemporary removes what an interrupted save left.
func (j *Journal) removeTemporary() {
	names, _ := j.fs.List(j.dir)
	for _, name := range names {
		if strings.HasSuffix(name, temporary) {
			_ = j.fs.Remove(j.path(name))
		}
	}
}

// saveKey writes the key's file unless it is right, and tells whether it was damaged. The segments have the key too, so
// failing does no harm.
func (j *Journal) saveKey() (damage []Damage) {
	key, ok, size := readKey(j.fs, j.path(keyFile))
	if ok && key == j.key {
		return nil
	}
	if size > 0 {
		damage = append(damage, Damage{File: keyFile, Bytes: size})
	}
	if err := writeFile(j.fs, j.path(keyFile), []byte(keyText(j.key))); err != nil {
		j.log.Warn("saving the journal's key", "error", err)
	}
	return damage
}

// Read returns a reader of the records from seq from on; 0 for the oldest.
func (j *Journal) Read(from uint64) (*Reader, error) {
	j.mu.Lock()
	closed := j.closed
	j.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	return newReader(&j.tape, from), nil
}

// Stats returns the figures of now.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.MaxBytes = j.opt.MaxBytes
	s.Bytes, s.Segments = j.bytes(), len(j.segments)
	s.First, s.Last, s.Durable = j.oldest(), j.last, j.readable
	if len(j.segments) > 0 {
		s.OldestAt = j.segments[0].firstAt
	}
	s.CursorFailure = j.cursors.failure()
	return s
}

// bytes is the size of all files.
func (j *Journal) bytes() int64 {
	n := j.others.Load() + int64(len(keyText(j.key)))
	for _, s := range j.segments {
		n += s.file
	}
	return n
}

// Close makes durable what was appended, saves the cursors and gives the lock back.
func (j *Journal) Close() error {
	j.closing.Do(func() { j.closeErr = j.close() })
	return j.closeErr
}

func (j *Journal) close() error {
	_, err := j.Sync()
	err = errors.Join(err, j.cursors.stop(j.saveCursors))
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.syncing {
		j.synced.Wait()
	}
	j.closed = true
	j.abandon()
	j.lock.Close()
	return err
}
