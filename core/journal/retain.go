package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Reason is why records were dropped.
type Reason string

// Reasons.
const (
	ByBytes Reason = "bytes" // Options.MaxBytes
	ByAge   Reason = "age"   // Options.MaxAge
)

// Dropped is records that went although a cursor was not done with them.
type Dropped struct {
	Cursor            string
	Reason            Reason // of the last of them
	Records           uint64
	FirstSeq, LastSeq uint64
	FirstAt, LastAt   call.Time // bounds: nothing was dropped before and after
}

func micros(d time.Duration) call.Time { return call.Time(d.Microseconds()) }

// Trim removes whole segments that end before keepFrom, when all cursors, as they are saved, and the second-newest
// checkpoint are past them too: with math.MaxUint64, what these have no use for. A later keepFrom that is lower changes
// nothing, and before the first nothing is removed. The newest segment stays. Appending waits for one segment at a time to be
// removed.
func (j *Journal) Trim(keepFrom uint64) {
	j.mu.Lock()
	j.keep = max(j.keep, keepFrom)
	j.mu.Unlock()
	for j.trimOne() {
	}
}

func (j *Journal) trimOne() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.closed && j.trimOldest()
}

// trimOldest removes the oldest segment if nobody needs it.
func (j *Journal) trimOldest() bool {
	floor := min(j.keep, j.cursors.lowest()+1, j.checkpoints.floor()+1)
	return len(j.segments) > 1 && j.segments[0].last < floor && j.segments[0] != j.active && j.removeOldest("")
}

// Expire removes the segments whose newest record is older than Options.MaxAge at now. Append does so too, by the time
// of its last record: Expire is for when nothing is appended. A segment covers at most a sixteenth of MaxAge.
func (j *Journal) Expire(now call.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.expire(now)
}

func (j *Journal) expire(now call.Time) {
	if j.opt.MaxAge <= 0 || j.closed {
		return
	}
	old := now - micros(j.opt.MaxAge)
	for len(j.segments) > 0 && j.segments[0].lastAt < old && j.removable() {
		if !j.removeOldest(ByAge) {
			return
		}
	}
}

// removable says whether the oldest segment can go. The last one can when all of it is durable and another has been
// begun, whose name keeps the count.
func (j *Journal) removable() bool {
	s := j.segments[0]
	switch {
	case len(j.segments) > 1 && s != j.active:
		return true
	case len(j.pending) > 0 || j.syncing || j.redo || s.first > j.last:
		return false
	}
	j.abandon()
	return j.begin(j.last+1) == nil
}

// room makes room for need bytes, or says that there is none.
func (j *Journal) room(need int64, now call.Time) error {
	j.expire(now)
	if j.opt.MaxBytes <= 0 {
		return nil
	}
	need += headerSize // a new segment may be due
	if need > j.opt.MaxBytes {
		return fmt.Errorf("%w: a batch of %d bytes, at most %d", ErrTooLarge, need, j.opt.MaxBytes)
	}
	for j.bytes()+need > j.opt.MaxBytes && j.trimOldest() {
	}
	for j.bytes()+need > j.opt.MaxBytes {
		if j.opt.WhenFull != DropOldest || len(j.segments) == 0 || !j.removable() || !j.removeOldest(ByBytes) {
			return fmt.Errorf("%w: %d bytes of %d, %d more are needed", ErrFull, j.bytes(), j.opt.MaxBytes, need)
		}
	}
	return nil
}

// removeOldest removes the oldest segment and notes what cursors still needed of it. That is durable before the next
// goes, or a crash could leave a hole.
func (j *Journal) removeOldest(why Reason) bool {
	s := j.segments[0]
	err := j.fs.Remove(j.path(s.name))
	if err == nil {
		err = j.fs.SyncDir(j.dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.log.Error("removing the journal's oldest segment", "file", s.name, "error", err)
		return false
	}
	j.segments = slices.Delete(j.segments, 0, 1)
	if why != "" {
		j.noteDropped(s, why)
	}
	return true
}

func (j *Journal) noteDropped(s *segment, why Reason) {
	if s.last < s.first {
		return
	}
	lost := uint64(0)
	for name, seq := range j.cursors.positions() {
		if seq >= s.last {
			continue
		}
		from := max(seq+1, s.first)
		lost = max(lost, s.last-from+1)
		j.dropped(Dropped{Cursor: name, Reason: why, Records: s.last - from + 1, FirstSeq: from, LastSeq: s.last,
			FirstAt: s.seek(from).at, LastAt: s.lastAt})
	}
	j.stats.Dropped += lost
	if lost > 0 {
		j.log.Warn("records that were not delivered have been dropped from the journal", "reason", string(why), "records", lost, "last", s.last)
	}
}

// dropped adds d to what is noted for its cursor.
func (j *Journal) dropped(d Dropped) {
	for i, old := range j.drops {
		if old.Cursor == d.Cursor {
			d.Records += old.Records
			d.FirstSeq, d.FirstAt = old.FirstSeq, old.FirstAt
			j.drops[i] = d
			return
		}
	}
	j.drops = append(j.drops, d)
}

// TakeDropped returns what was dropped since it was asked last, at most one for each cursor. What was dropped and not
// asked for before a crash shows as a GoneError to who reads from the cursor.
func (j *Journal) TakeDropped() []Dropped {
	j.mu.Lock()
	defer j.mu.Unlock()
	d := j.drops
	j.drops = nil
	return d
}
