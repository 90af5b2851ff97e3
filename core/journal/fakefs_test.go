package journal

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

var errPower = errors.New("the power is gone")

// fakeFS is a file system in memory that knows what a crash may leave of it: of each file, what was last synced and any
// of the writes since; of the folder, the entries as they were last synced and any of the changes since.
type fakeFS struct {
	mu      sync.Mutex
	names   map[string]*inode
	stable  map[string]*inode // as a crash leaves them
	changes []change
	ops     int
	power   int // ops until the power goes, -1 for never
	space   int // bytes that can still be written, -1 for no bound
	noTrunc bool
	syncs   int // that will fail, losing what they should have synced
	locked  bool
	rng     *rand.Rand
}

type inode struct {
	now, stable []byte
	writes      []change
}

// change is a write to a file (or a truncation, when data is nil), or to the folder (node nil: a removal).
type change struct {
	off  int64
	data []byte
	name string
	node *inode
	from string // renamed from
}

func newFakeFS(seed uint64) *fakeFS {
	return &fakeFS{names: map[string]*inode{}, stable: map[string]*inode{}, power: -1, space: -1, rng: rand.New(rand.NewPCG(seed, 1))}
}

// op counts one change to the disk.
func (f *fakeFS) op() error {
	if f.power == 0 {
		return errPower
	}
	f.ops++
	f.power--
	return nil
}

func (f *fakeFS) MkdirAll(string) error { return nil }

func (f *fakeFS) Open(name string, create bool) (File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Base(name)
	if n := f.names[name]; n != nil {
		return &fakeFile{f, n}, nil
	}
	if !create {
		return nil, fs.ErrNotExist
	}
	if err := f.op(); err != nil {
		return nil, err
	}
	n := &inode{}
	f.names[name] = n
	f.changes = append(f.changes, change{name: name, node: n})
	return &fakeFile{f, n}, nil
}

func (f *fakeFS) OpenRead(name string) (File, error) { return f.Open(name, false) }

func (f *fakeFS) List(string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for n := range f.names {
		names = append(names, n)
	}
	return names, nil
}

func (f *fakeFS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op(); err != nil {
		return err
	}
	from, to = filepath.Base(from), filepath.Base(to)
	f.names[to] = f.names[from]
	delete(f.names, from)
	f.changes = append(f.changes, change{name: to, node: f.names[to], from: from})
	return nil
}

func (f *fakeFS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op(); err != nil {
		return err
	}
	name = filepath.Base(name)
	if f.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(f.names, name)
	f.changes = append(f.changes, change{name: name})
	return nil
}

func (f *fakeFS) SyncDir(string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op(); err != nil {
		return err
	}
	for _, c := range f.changes {
		f.apply(c)
	}
	f.changes = nil
	return nil
}

func (f *fakeFS) apply(c change) {
	if c.node == nil {
		delete(f.stable, c.name)
		return
	}
	f.stable[c.name] = c.node
	if c.from != "" {
		delete(f.stable, c.from)
	}
}

type unlock struct{ f *fakeFS }

func (u unlock) Close() error {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	u.f.locked = false
	return nil
}

func (f *fakeFS) Lock(string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locked {
		return nil, ErrLocked
	}
	f.locked = true
	return unlock{f}, nil
}

// crash modes: what is left of what was not synced.
const (
	loseAll = iota
	keepPrefix
	keepAll
	keepAny // any of it, in any order, writes torn
	crashModes
)

// crash returns what the next process finds.
func (f *fakeFS) crash(mode int) *fakeFS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.power = 0
	for _, c := range f.survive(f.changes, mode) {
		f.apply(c)
	}
	g := newFakeFS(f.rng.Uint64())
	seen := map[*inode]*inode{}
	for name, n := range f.stable {
		if seen[n] == nil {
			b := slices.Clone(n.stable)
			for _, c := range f.survive(n.writes, mode) {
				b = c.on(b)
			}
			seen[n] = &inode{now: b, stable: slices.Clone(b)}
		}
		g.names[name], g.stable[name] = seen[n], seen[n]
	}
	return g
}

func (f *fakeFS) survive(all []change, mode int) (kept []change) {
	switch mode {
	case loseAll:
		return nil
	case keepAll:
		return all
	case keepPrefix:
		return all[:f.rng.IntN(len(all)+1)]
	}
	for _, c := range all {
		if f.rng.IntN(2) == 0 {
			continue
		}
		if len(c.data) > 0 && f.rng.IntN(2) == 0 {
			c.data = c.data[:f.rng.IntN(len(c.data))]
		}
		kept = append(kept, c)
	}
	return kept
}

// on applies a write to b.
func (c change) on(b []byte) []byte {
	end := int(c.off) + len(c.data)
	if c.data == nil { // truncation
		b = append(b, make([]byte, max(0, end-len(b)))...)
		return b[:end:end]
	}
	b = append(b, make([]byte, max(0, end-len(b)))...)
	copy(b[c.off:], c.data)
	return b
}

type fakeFile struct {
	f *fakeFS
	n *inode
}

func (f *fakeFile) ReadAt(b []byte, off int64) (int, error) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if off >= int64(len(f.n.now)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.now[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *fakeFile) change(c change) {
	f.n.now = c.on(slices.Clone(f.n.now))
	f.n.writes = append(f.n.writes, c)
}

func (f *fakeFile) WriteAt(b []byte, off int64) (int, error) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	c := change{off: off, data: slices.Clone(b)}
	if err := f.f.op(); err != nil {
		if f.f.ops >= 0 && len(b) > 0 { // the power goes in the middle of a write
			c.data = c.data[:f.f.rng.IntN(len(b))]
			f.change(c)
		}
		return 0, err
	}
	if grow := int(off) + len(b) - len(f.n.now); f.f.space >= 0 && grow > f.f.space {
		c.data = c.data[:max(0, len(b)-(grow-f.f.space))]
		f.f.space = 0
		f.change(c)
		return len(c.data), syscall.ENOSPC
	} else if f.f.space >= 0 {
		f.f.space -= max(0, grow)
	}
	f.change(c)
	return len(b), nil
}

func (f *fakeFile) Truncate(size int64) error {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if err := f.f.op(); err != nil {
		return err
	}
	if f.f.noTrunc {
		return syscall.EIO
	}
	f.change(change{off: size})
	return nil
}

func (f *fakeFile) Size() (int64, error) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	return int64(len(f.n.now)), nil
}

func (f *fakeFile) Sync() error {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if err := f.f.op(); err != nil {
		return err
	}
	if f.f.syncs > 0 {
		f.f.syncs--
		f.n.writes = nil // the pages count as clean now, and are nowhere
		return syscall.EIO
	}
	for _, c := range f.n.writes {
		f.n.stable = c.on(f.n.stable)
	}
	f.n.writes = nil
	return nil
}

func (f *fakeFile) Close() error { return nil }
