package journal

import (
	"io"
	"os"
	"path/filepath"
)

// FS is what a journal needs of a file system. Names are paths.
type FS interface {
	MkdirAll(dir string) error
	// Open opens a file for reading and writing, and makes it where it is not there and create says so.
	Open(name string, create bool) (File, error)
	// OpenRead opens a file for reading.
	OpenRead(name string) (File, error)
	// List names the entries of a folder, in any order.
	List(dir string) ([]string, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes what entries a folder has durable.
	SyncDir(dir string) error
	// Lock takes the lock that a file stands for, or returns ErrLocked. Closing gives it back.
	Lock(name string) (io.Closer, error)
}

// File is an open file. Sync makes its bytes, and its length, durable.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Size() (int64, error)
	Sync() error
}

// disk is the real file system.
type disk struct{}

func (disk) MkdirAll(dir string) error           { return os.MkdirAll(dir, 0o700) }
func (disk) Rename(from, to string) error        { return os.Rename(from, to) }
func (disk) Remove(name string) error            { return os.Remove(name) }
func (disk) Lock(name string) (io.Closer, error) { return lock(name) }
func (disk) OpenRead(name string) (File, error)  { return opened(os.Open(name)) }
func (disk) Open(name string, create bool) (File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	return opened(os.OpenFile(name, flags, 0o600))
}

func (disk) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (disk) SyncDir(dir string) error {
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type diskFile struct{ *os.File }

func opened(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f diskFile) Sync() error { return datasync(f.File) }
