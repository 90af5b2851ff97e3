package journal

import (
	"fmt"

	"github.com/ctigate/ctigate/core/call"
)

// Sync makes durable what was appended before it was called, and lets readers have it. It returns the last seq that is
// durable. Appending goes on beside it.
//
// When the disk fails to make something durable, what it has of it is not trusted, not even when it does not fail the
// next time: all that was appended since the last Sync that succeeded is written to a new segment. An error says that
// this failed too; the records are still held, and the next Sync tries again.
func (j *Journal) Sync() (durable uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	want := j.last
	for j.syncing {
		j.synced.Wait()
	}
	if j.closed {
		return j.readable, ErrClosed
	}
	if len(j.pending) == 0 || j.readable >= want {
		return j.readable, nil
	}
	if j.redo {
		err = j.rewrite()
		return j.readable, err
	}
	return j.readable, j.syncBeside()
}

// syncBeside syncs without holding mu meanwhile.
func (j *Journal) syncBeside() error {
	file, upTo := j.file, j.point()
	j.syncing = true
	j.mu.Unlock()
	err := file.Sync()
	j.mu.Lock()
	j.syncing = false
	j.synced.Broadcast()
	return j.settle(upTo, err)
}

// syncLocked syncs what was appended; no other sync is going on.
func (j *Journal) syncLocked() error {
	if j.redo {
		return j.rewrite()
	}
	upTo := j.point()
	return j.settle(upTo, j.file.Sync())
}

// point is how far was appended.
type point struct {
	seq     uint64
	off     int64
	pending int
	at      call.Time
}

func (j *Journal) point() point {
	return point{seq: j.last, off: j.written, pending: len(j.pending), at: j.lastAt}
}

// settle takes over that all up to p is durable, or, when err is not nil, writes it again.
func (j *Journal) settle(p point, err error) error {
	if err == nil {
		j.durable(p)
		return nil
	}
	j.stats.SyncFailures++
	j.log.Error("the journal's disk failed to make records durable; they are written to a new segment",
		"file", j.active.name, "first", j.readable+1, "last", j.last, "error", err)
	j.redo = true
	return j.rewrite()
}

func (j *Journal) durable(p point) {
	s := j.active
	s.records += p.seq - s.last
	s.last, s.size, s.lastAt = p.seq, p.off, p.at
	j.readable = p.seq
	j.pending = j.pending[:copy(j.pending, j.pending[p.pending:])]
	if cap(j.pending) > 4<<20 && len(j.pending) == 0 {
		j.pending = nil
	}
	j.stats.Syncs++
}

// rewrite writes what is pending to a new segment and makes it durable there.
func (j *Journal) rewrite() error {
	if j.active != nil {
		j.giveUp()
	}
	if err := j.begin(j.readable + 1); err != nil {
		return err
	}
	s := j.active
	s.reseal(j.pending, headerSize)
	_, err := j.file.WriteAt(j.pending, headerSize)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.stats.SyncFailures++
		return fmt.Errorf("writing records %d to %d again, to the journal's segment %s: %w", j.readable+1, j.last, j.path(s.name), spaced(err))
	}
	j.written = headerSize + int64(len(j.pending))
	s.file = j.written
	j.indexFrames(s, j.pending, headerSize)
	j.redo = false
	j.durable(j.point())
	return nil
}

// giveUp ends the active segment where it is durable.
func (j *Journal) giveUp() {
	s := j.active
	if err := j.file.Truncate(s.size); err == nil {
		s.file = s.size
	}
	j.abandon()
	if s.size > headerSize {
		return
	}
	j.segments = j.segments[:len(j.segments)-1]
	if err := j.fs.Remove(j.path(s.name)); err != nil {
		j.log.Warn("removing a segment of the journal that holds nothing", "file", s.name, "error", err)
	}
}

// reseal makes frames stand at offset off of the segment.
func (p place) reseal(frames []byte, off int64) {
	for len(frames) > 0 {
		p.seal(off, frames)
		n := frameSize + headOf(frames).length
		frames, off = frames[n:], off+int64(n)
	}
}
