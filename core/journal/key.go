package journal

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

const keyFile = "key"

func newKey() (key [keySize]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}

// keyText is the key's file: "KEY CHECKSUM\n", in hexadecimal.
func keyText(key [keySize]byte) string {
	return fmt.Sprintf("%x %08x\n", key[:], crc32.Checksum(key[:], castagnoli))
}

// readKey reads the key's file, and how long it is.
func readKey(fs FS, path string) (key [keySize]byte, ok bool, size int64) {
	b, err := readFile(fs, path, 1<<10)
	if err != nil || len(b) < 2*keySize {
		return key, false, int64(len(b))
	}
	if _, err := hex.Decode(key[:], b[:2*keySize]); err != nil {
		return key, false, int64(len(b))
	}
	return key, keyText(key) == string(b), int64(len(b))
}

// readFile reads a file of at most limit bytes.
func readFile(fs FS, path string, limit int64) ([]byte, error) {
	f, err := fs.OpenRead(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, limit))
	return b, readAll(f, b, 0)
}

// writeFile writes a file anew and makes its bytes durable, not its name.
func writeFile(fs FS, path string, b []byte) error {
	f, err := fs.Open(path, true)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := shorten(f, int64(len(b))); err != nil {
		return err
	}
	return f.Sync()
}

// shorten cuts a file that is longer than size.
func shorten(f File, size int64) error {
	if now, err := f.Size(); err != nil || now <= size {
		return err
	}
	return f.Truncate(size)
}
