package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"sync"
)

const (
	checkpointMagic  = "ctickpt\x01"
	checkpointHeader = 28 // magic and version 8, seq 8, length 8, CRC-32C of these and the data 4
	temporary        = ".tmp"
	maxCheckpoint    = 1 << 30
)

// checkpoints are those that are kept, oldest first. A checkpoint's file holds its header and data.
type checkpoints struct {
	saving sync.Mutex
	mu     sync.Mutex
	kept   []CheckpointInfo // sound ones
	others []string         // files of damaged ones
}

// CheckpointInfo is one checkpoint.
type CheckpointInfo struct {
	Seq   uint64
	Bytes int64 // of its file
}

func checkpointName(seq uint64) string { return fmt.Sprintf("%020d%s", seq, checkpointSuffix) }

// SaveCheckpoint keeps data as the state after the record seq, which must be durable. The newest two are kept.
func (j *Journal) SaveCheckpoint(seq uint64, data []byte) error {
	c := &j.checkpoints
	c.saving.Lock()
	defer c.saving.Unlock()
	if err := j.mayCheckpoint(seq, len(data)); err != nil {
		return fmt.Errorf("saving the journal's checkpoint at %d: %w", seq, err)
	}
	b := checkpointBytes(seq, data)
	err := j.writeCheckpoint(checkpointName(seq), b)
	if errors.Is(err, ErrNoSpace) && j.checkpoints.several() {
		err = j.replaceCheckpoint(checkpointName(seq), b)
	}
	if err != nil {
		return fmt.Errorf("saving the journal's checkpoint %s: %w", j.path(checkpointName(seq)), err)
	}
	j.keepCheckpoint(CheckpointInfo{Seq: seq, Bytes: int64(len(b))})
	return nil
}

func (j *Journal) writeCheckpoint(name string, b []byte) error {
	temp := j.path(name + temporary)
	err := writeFile(j.fs, temp, b)
	if err == nil {
		err = j.fs.Rename(temp, j.path(name))
	}
	if err == nil {
		return spaced(j.fs.SyncDir(j.dir))
	}
	_ = j.fs.Remove(temp)
	return spaced(err)
}

// replaceCheckpoint writes a checkpoint in the room of the older of the two, on a full disk: as long as checkpoints stay
// where they are, Trim makes no room either. Nothing is appended meanwhile that could take the room.
func (j *Journal) replaceCheckpoint(name string, b []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.checkpoints.mu.Lock()
	err := j.removeCheckpoint()
	j.checkpoints.mu.Unlock()
	if err != nil {
		return err
	}
	return j.writeCheckpoint(name, b)
}

func (j *Journal) mayCheckpoint(seq uint64, n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return ErrClosed
	case seq > j.readable:
		return fmt.Errorf("records are durable up to %d only: sync first", j.readable)
	case n > maxCheckpoint:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, maxCheckpoint)
	}
	return nil
}

// keepCheckpoint adds one and removes all but the newest two.
func (j *Journal) keepCheckpoint(info CheckpointInfo) {
	c := &j.checkpoints
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(old CheckpointInfo) bool {
		if old.Seq == info.Seq {
			j.others.Add(-old.Bytes)
		}
		return old.Seq == info.Seq
	})
	c.others = slices.DeleteFunc(c.others, func(name string) bool {
		return name == checkpointName(info.Seq) || j.fs.Remove(j.path(name)) == nil
	})
	c.kept = append(c.kept, info)
	slices.SortFunc(c.kept, func(a, b CheckpointInfo) int { return cmp.Compare(a.Seq, b.Seq) })
	j.others.Add(info.Bytes)
	for len(c.kept) > 2 {
		if err := j.removeCheckpoint(); err != nil {
			j.log.Warn("removing an old checkpoint of the journal", "error", err)
			return
		}
	}
}

// removeCheckpoint removes the oldest; checkpoints.mu is held.
func (j *Journal) removeCheckpoint() error {
	c := &j.checkpoints
	if err := j.fs.Remove(j.path(checkpointName(c.kept[0].Seq))); err != nil {
		return err
	}
	j.others.Add(-c.kept[0].Bytes)
	c.kept = slices.Delete(c.kept, 0, 1)
	return nil
}

func (c *checkpoints) several() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.kept) > 1
}

// Checkpoint returns the newest that is sound; data is nil when there is none.
func (j *Journal) Checkpoint() (seq uint64, data []byte, err error) {
	c := &j.checkpoints
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	kept := slices.Clone(c.kept)
	c.mu.Unlock()
	for _, info := range slices.Backward(kept) {
		b, readErr := readFile(j.fs, j.path(checkpointName(info.Seq)), checkpointHeader+maxCheckpoint)
		if data, ok := parseCheckpoint(info.Seq, b); ok && readErr == nil {
			return info.Seq, data, nil
		}
		err = fmt.Errorf("reading the journal's checkpoint %s: it is damaged, and no older one is sound", j.path(checkpointName(info.Seq)))
	}
	return 0, nil, err
}

func checkpointBytes(seq uint64, data []byte) []byte {
	b := make([]byte, 0, checkpointHeader+len(data))
	b = append(b, checkpointMagic...)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, data)
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, data...)
}

func parseCheckpoint(seq uint64, b []byte) (data []byte, ok bool) {
	if len(b) < checkpointHeader || string(b[:8]) != checkpointMagic || binary.LittleEndian.Uint64(b[8:]) != seq {
		return nil, false
	}
	data = b[checkpointHeader:]
	sum := crc32.Update(crc32.Checksum(b[:24], castagnoli), castagnoli, data)
	ok = binary.LittleEndian.Uint64(b[16:]) == uint64(len(data)) && binary.LittleEndian.Uint32(b[24:]) == sum
	return data, ok
}

// readCheckpoints reads all in dir, oldest first, and tells which are damaged.
func readCheckpoints(fsys FS, dir string) (sound []CheckpointInfo, damage []Damage) {
	names, _ := fsys.List(dir)
	slices.Sort(names)
	for _, name := range names {
		seq, ok := numbered(name, checkpointSuffix)
		if !ok {
			continue
		}
		b, err := readFile(fsys, filepath.Join(dir, name), checkpointHeader+maxCheckpoint)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has removed it since
		}
		if _, ok := parseCheckpoint(seq, b); ok && err == nil {
			sound = append(sound, CheckpointInfo{Seq: seq, Bytes: int64(len(b))})
		} else {
			damage = append(damage, Damage{File: name, Bytes: int64(len(b))})
		}
	}
	return sound, damage
}

func (j *Journal) loadCheckpoints() []Damage {
	c := &j.checkpoints
	sound, damage := readCheckpoints(j.fs, j.dir)
	c.kept = sound
	for _, info := range sound {
		j.others.Add(info.Bytes)
	}
	for _, d := range damage {
		c.others = append(c.others, d.File)
	}
	return damage
}

func (c *checkpoints) highest() (seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.kept); n > 0 {
		seq = c.kept[n-1].Seq
	}
	return seq
}

// floor is the seq of the second-newest checkpoint: 0 when there is only one, the highest seq when there is none.
func (c *checkpoints) floor() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n := len(c.kept); n {
	case 0:
		return math.MaxUint64 - 1
	case 1:
		return 0
	default:
		return c.kept[n-2].Seq
	}
}
