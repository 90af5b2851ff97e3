//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package file

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// noFollow refuses a symbolic link as a path's last element, and does not wait for the other end of a named pipe.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

// isLink reports whether noFollow is why a file was not opened; FreeBSD has an error of its own for it.
func isLink(err error) bool { return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) }

// writable asks, with the rights that opening a file would be judged by.
func writable(dir string) error {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// lockFile holds until f is closed, or the process ends in whatever way.
func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}
