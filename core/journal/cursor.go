package journal

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Cursor is the durable position of one that reads.
type Cursor struct {
	j    *Journal
	name string
}

// saveEvery is how long cursors are left unsaved at most, and how long at least between two saves.
const saveEvery = 100 * time.Millisecond

// cursors are all positions. They are saved to two files in turn, each written in place: while one is being written, the
// other is whole.
type cursors struct {
	mu    sync.Mutex
	at    map[string]uint64 // where they are
	saved map[string]uint64 // where they are on disk
	dirty bool
	wrong error // why they could not be saved last

	saving sync.Mutex // one save at a time; guards what follows
	closed bool
	gen    uint64 // of the newest file
	sizes  [2]int64

	wake chan struct{}
	quit chan struct{}
	gone sync.WaitGroup
}

func cursorFile(gen uint64) string { return "cursors." + strconv.FormatUint(gen%2, 10) }

// Cursor returns the cursor of that name; a new one stands before the oldest record, at 0.
func (j *Journal) Cursor(name string) (*Cursor, error) {
	if name == "" || len(name) > 255 {
		return nil, fmt.Errorf("the journal's cursor %q: a name has 1 to 255 bytes", name)
	}
	c := &j.cursors
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.at[name]; !ok {
		c.at[name] = 0
		c.touch()
	}
	return &Cursor{j, name}, nil
}

// RemoveCursor forgets a cursor: what only it needed may go.
func (j *Journal) RemoveCursor(name string) error {
	c := &j.cursors
	c.mu.Lock()
	delete(c.at, name)
	c.dirty = true
	c.mu.Unlock()
	return j.saveCursors()
}

// Cursors returns the position of every cursor.
func (j *Journal) Cursors() map[string]uint64 { return j.cursors.positions() }

// Name is the cursor's name.
func (c *Cursor) Name() string { return c.name }

// Seq is the last seq that is done with, 0 before the first.
func (c *Cursor) Seq() uint64 {
	c.j.cursors.mu.Lock()
	defer c.j.cursors.mu.Unlock()
	return c.j.cursors.at[c.name]
}

// Advance says that all up to seq is done with. It never moves back, nor beyond what is durable. It does not wait: the
// position is saved within about 100 ms, and a crash before that moves it back.
func (c *Cursor) Advance(seq uint64) {
	c.j.mu.Lock()
	seq = min(seq, c.j.readable)
	c.j.mu.Unlock()
	all := &c.j.cursors
	all.mu.Lock()
	defer all.mu.Unlock()
	if old, ok := all.at[c.name]; ok && seq > old {
		all.at[c.name] = seq
		all.touch()
	}
}

// Flush saves the position now.
func (c *Cursor) Flush() error { return c.j.saveCursors() }

// Close saves the position; the cursor stays.
func (c *Cursor) Close() error { return c.Flush() }

// touch has what changed saved; mu is held.
func (c *cursors) touch() {
	c.dirty = true
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (j *Journal) saveLoop() {
	c := &j.cursors
	for {
		select {
		case <-c.wake:
		case <-c.quit:
			return
		}
		if err := j.saveCursors(); err != nil {
			j.log.Warn("saving the journal's cursors", "error", err)
			c.mu.Lock()
			c.touch()
			c.mu.Unlock()
		}
		pause := time.NewTimer(saveEvery)
		select {
		case <-pause.C:
		case <-c.quit:
			pause.Stop()
			return
		}
	}
}

// saveCursors writes the positions to the older of the two files.
func (j *Journal) saveCursors() error {
	c := &j.cursors
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.mu.Lock()
	positions, dirty := maps.Clone(c.at), c.dirty
	c.dirty = false
	c.mu.Unlock()
	if !dirty {
		return nil
	}
	err := j.writeCursors(c.gen+1, positions)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = err
	if err != nil {
		c.dirty = true
		return err
	}
	c.gen++
	c.saved = positions
	return nil
}

func (j *Journal) writeCursors(gen uint64, positions map[string]uint64) error {
	c := &j.cursors
	name, text := cursorFile(gen), cursorText(gen, positions)
	isNew := c.sizes[gen%2] == 0
	err := writeFile(j.fs, j.path(name), text)
	if err == nil && isNew {
		err = j.fs.SyncDir(j.dir)
	}
	if err != nil {
		return fmt.Errorf("saving the journal's cursors to %s: %w", j.path(name), spaced(err))
	}
	j.others.Add(int64(len(text)) - c.sizes[gen%2])
	c.sizes[gen%2] = int64(len(text))
	return nil
}

// cursorText is a file of cursors: a line "cursors GEN COUNT CRC", then for each "NAME SEQ CRC". The checksums cover
// the generation, so that a line of an earlier one is not taken for one of this.
func cursorText(gen uint64, positions map[string]uint64) []byte {
	b := cursorLine(nil, gen, "cursors", uint64(len(positions)))
	for _, name := range slices.Sorted(maps.Keys(positions)) {
		b = cursorLine(b, gen, url.QueryEscape(name), positions[name])
	}
	return b
}

func cursorLine(b []byte, gen uint64, name string, n uint64) []byte {
	start := len(b)
	b = fmt.Appendf(b, "%s %d %d", name, gen, n)
	return fmt.Appendf(b, " %08x\n", crc32.Checksum(b[start:], castagnoli))
}

// parseCursorLine reads a line without its end.
func parseCursorLine(line string) (name string, gen, n uint64, ok bool) {
	f := strings.Split(line, " ")
	if len(f) != 4 {
		return "", 0, 0, false
	}
	gen, err1 := strconv.ParseUint(f[1], 10, 64)
	n, err2 := strconv.ParseUint(f[2], 10, 64)
	ok = err1 == nil && err2 == nil && string(cursorLine(nil, gen, f[0], n)) == line+"\n"
	return f[0], gen, n, ok
}

// cursorCopy is what one file of cursors says.
type cursorCopy struct {
	name  string
	size  int64
	gen   uint64
	at    map[string]uint64
	whole bool
}

// readCursors reads one file; what is damaged in it is left out, and whole is false then.
func readCursors(fsys FS, dir string, slot uint64) (cursorCopy, error) {
	c := cursorCopy{name: cursorFile(slot), at: map[string]uint64{}}
	b, err := readFile(fsys, filepath.Join(dir, c.name), 1<<20)
	if err != nil {
		return c, err
	}
	c.size = int64(len(b))
	lines := strings.Split(string(b), "\n")
	if _, gen, n, ok := parseCursorLine(lines[0]); ok {
		c.gen = gen
		c.whole = strings.HasPrefix(lines[0], "cursors ") && lines[len(lines)-1] == "" && uint64(len(lines)) == n+2
	}
	for _, line := range lines[1:max(len(lines)-1, 1)] {
		name, gen, seq, ok := parseCursorLine(line)
		plain, err := url.QueryUnescape(name)
		if !ok || err != nil || c.gen != 0 && gen != c.gen {
			c.whole = false
			continue
		}
		c.at[plain] = seq
	}
	return c, nil
}

// bothCursors reads both files. Of each cursor the newest sound position counts; when the newest file is whole, it alone.
func bothCursors(fsys FS, dir string) (newest cursorCopy, sizes [2]int64, damage []Damage) {
	var copies []cursorCopy
	for slot := range uint64(2) {
		c, err := readCursors(fsys, dir, slot)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		sizes[slot] = c.size
		if !c.whole {
			damage = append(damage, Damage{File: c.name, Bytes: c.size})
		}
		copies = append(copies, c)
	}
	slices.SortFunc(copies, func(a, b cursorCopy) int { return cmp.Compare(a.gen, b.gen) })
	return mergeCursors(copies), sizes, damage
}

func mergeCursors(copies []cursorCopy) cursorCopy {
	all := cursorCopy{at: map[string]uint64{}}
	for _, c := range copies {
		if c.whole {
			all.at = map[string]uint64{}
		}
		for name, seq := range c.at {
			all.at[name] = max(all.at[name], seq)
		}
		all.gen = max(all.gen, c.gen)
	}
	return all
}

func (j *Journal) loadCursors() []Damage {
	c := &j.cursors
	newest, sizes, damage := bothCursors(j.fs, j.dir)
	c.at, c.saved = newest.at, maps.Clone(newest.at)
	c.gen, c.sizes = newest.gen, sizes
	j.others.Add(sizes[0] + sizes[1])
	c.wake, c.quit = make(chan struct{}, 1), make(chan struct{})
	return damage
}

// reserveCursors makes both files where they are not there: a disk that is full later still takes what is written in place.
func (j *Journal) reserveCursors() {
	c := &j.cursors
	for c.sizes[0] == 0 || c.sizes[1] == 0 {
		c.dirty = true
		if err := j.saveCursors(); err != nil {
			j.log.Warn("saving the journal's cursors", "error", err)
			return
		}
	}
}

// stop ends saving with a last save.
func (c *cursors) stop(save func() error) error {
	close(c.quit)
	c.gone.Wait()
	err := save()
	c.saving.Lock()
	defer c.saving.Unlock()
	c.closed = true
	return err
}

// lowest is the least position on disk, of all cursors; the highest seq there is when there is none.
func (c *cursors) lowest() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	low := uint64(math.MaxUint64 - 1)
	for name := range c.at {
		low = min(low, c.saved[name])
	}
	return low
}

func (c *cursors) highest() (high uint64) {
	for _, seq := range c.positions() {
		high = max(high, seq)
	}
	return high
}

func (c *cursors) positions() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.at)
}

func (c *cursors) failure() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong == nil {
		return ""
	}
	return c.wrong.Error()
}
