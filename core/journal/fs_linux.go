package journal

import (
	"os"
	"syscall"
)

// datasync makes the data durable, and of the file's attributes its length alone.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
