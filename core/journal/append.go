package journal

import (
	"fmt"

	"github.com/ctigate/ctigate/core/call"
)

// Append writes records behind the others and returns the last seq. They get the seqs that follow; Seq is not looked at.
// They are not durable before Sync, nor can they be read. Their data is copied.
//
// On an error nothing has changed. ErrFull and ErrNoSpace pass when room is made; others are the disk's. After a crash
// before Sync, any number of them, from the first on, may be there.
func (j *Journal) Append(recs ...Record) (last uint64, err error) {
	need := int64(0)
	for _, r := range recs {
		if len(r.Data) > MaxData {
			return 0, fmt.Errorf("%w: a record of %d bytes, at most %d", ErrTooLarge, len(r.Data), MaxData)
		}
		need += int64(frameSize + len(r.Data))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return 0, ErrClosed
	}
	if len(recs) == 0 {
		return j.last, nil
	}
	if err := j.room(need, recs[len(recs)-1].At); err != nil {
		return 0, err
	}
	if err := j.ready(recs[0].At); err != nil {
		return 0, err
	}
	return j.write(recs)
}

// ready sees to it that there is a segment to append to.
func (j *Journal) ready(now call.Time) error {
	for j.redo || j.active == nil || j.spoilt || j.filled(now) || len(j.pending) > maxPending {
		switch {
		case j.syncing:
			j.synced.Wait()
		case j.redo || len(j.pending) > 0:
			if err := j.syncLocked(); err != nil {
				return err
			}
		default:
			j.abandon()
			if err := j.begin(j.last + 1); err != nil {
				return err
			}
		}
		if j.closed {
			return ErrClosed
		}
	}
	return nil
}

// filled says that active has grown large, or old, enough for a new segment to be begun.
func (j *Journal) filled(now call.Time) bool {
	if j.written <= headerSize {
		return false
	}
	return j.written >= j.opt.SegmentBytes || j.opt.MaxAge > 0 && now-j.active.firstAt > micros(j.opt.MaxAge)/16
}

// begin makes the segment whose first record will be first. Nothing has changed on an error.
func (j *Journal) begin(first uint64) error {
	s := &segment{place: newPlace(j.key, first), name: segmentName(first), last: first - 1, size: headerSize, file: headerSize}
	f, err := j.fs.Open(j.path(s.name), true)
	if err != nil {
		return fmt.Errorf("making a segment of the journal: %w", spaced(err))
	}
	if err := j.initialize(f, s); err != nil {
		f.Close()
		_ = j.fs.Remove(j.path(s.name))
		return fmt.Errorf("making the journal's segment %s: %w", j.path(s.name), spaced(err))
	}
	j.segments = append(j.segments, s)
	j.active, j.file, j.written, j.spoilt = s, f, headerSize, false
	return nil
}

func (j *Journal) initialize(f File, s *segment) error {
	if err := shorten(f, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(segmentHeader(s.place), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// abandon ends the active segment; the next append begins a new one.
func (j *Journal) abandon() {
	if j.file != nil {
		j.file.Close()
	}
	j.active, j.file, j.spoilt = nil, nil, false
}

// write appends to active, all or nothing.
func (j *Journal) write(recs []Record) (uint64, error) {
	start, off, s := len(j.pending), j.written, j.active
	seq := j.last
	for _, r := range recs {
		seq++
		r.Seq = seq
		j.pending = s.appendFrame(j.pending, off+int64(len(j.pending)-start), r)
	}
	if _, err := j.file.WriteAt(j.pending[start:], off); err != nil {
		j.pending = j.pending[:start]
		j.takeBack(off)
		return 0, fmt.Errorf("appending to the journal's segment %s: %w", j.path(s.name), spaced(err))
	}
	j.indexFrames(s, j.pending[start:], off)
	j.written = off + int64(len(j.pending)-start)
	j.last, j.lastAt, s.file = seq, recs[len(recs)-1].At, j.written
	j.stats.Appended += uint64(len(recs))
	return seq, nil
}

// takeBack cuts off what was written after off. Where that fails, the segment is given up: a later one that begins with
// the same seq overrules what it ends with.
func (j *Journal) takeBack(off int64) {
	if err := j.file.Truncate(off); err != nil {
		j.log.Warn("a write to the journal that failed cannot be taken back; a new segment is begun", "file", j.active.name, "error", err)
		j.spoilt = true
	}
}

// indexFrames notes where the records of frames, which stand at off, are.
func (j *Journal) indexFrames(s *segment, frames []byte, off int64) {
	for len(frames) > 0 {
		h := headOf(frames)
		if n := len(s.index); n == 0 || off-s.index[n-1].off >= indexEvery {
			s.index = append(s.index, entry{h.seq, off, h.at})
		}
		if s.firstAt == 0 {
			s.firstAt = h.at
		}
		n := frameSize + h.length
		frames, off = frames[n:], off+int64(n)
	}
}
