package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
)

// lockName is the file in the folder that says, by a lock on it, that a sink uses the folder. It stays.
const lockName = ".lock"

// errHeld is what lockFile returns when another sink has the lock.
var errHeld = errors.New("locked")

// claim makes the folder, if need be, and keeps other sinks out of it until the file returned is closed.
func (c *Config) claim(log *slog.Logger) (*os.File, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, core.Permanent(fmt.Errorf("making the folder %s: correct dir, or let the gateway's user make it: %w", c.Dir, err))
	}
	if err := usable(c.Dir); err != nil {
		return nil, core.Permanent(err)
	}
	path := filepath.Join(c.Dir, lockName)
	lock, err := plain(os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600))
	if err != nil {
		return nil, core.Permanent(explain(c.Dir, fmt.Errorf("opening %s: %w", path, err)))
	}
	switch err := lockFile(lock); {
	case err == errHeld:
		defer lock.Close()
		return nil, c.held(lock)
	case err != nil: // some network file systems have no locks
		log.Warn("could not lock the folder: see to it that nothing else writes there", "dir", c.Dir, "err", err)
	}
	if err := sign(lock); err != nil {
		lock.Close()
		return nil, explain(c.Dir, fmt.Errorf("writing %s: %w", path, err))
	}
	return lock, nil
}

// held says who has the folder. Another process may be a gateway that is just stopping, so that is worth waiting for.
func (c *Config) held(lock *os.File) error {
	b := make([]byte, 32)
	n, _ := lock.ReadAt(b, 0) // less than it could be; without it the holder has no number
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	switch {
	case err == nil && pid == os.Getpid():
		return core.Permanent(fmt.Errorf("folder %s is another file sink's already: give each its own dir", c.Dir))
	case err == nil:
		return fmt.Errorf("folder %s is in use by process %d: stop that, or give each gateway its own dir", c.Dir, pid)
	}
	return fmt.Errorf("folder %s is in use by another process: stop that, or give each gateway its own dir", c.Dir)
}

// sign leaves the number of the process that has the lock.
func sign(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// usable says what keeps us from making and renaming files in a folder.
func usable(dir string) error {
	if err := writable(dir); err != nil {
		return fmt.Errorf("folder %s cannot be written to: give the gateway's user (number %d) the right to write and to enter, "+
			"or set dir to another: %w", dir, os.Geteuid(), err)
	}
	return nil
}

// openOld opens a file of the folder for reading. It may be missing, but nothing else than a plain file: what others put
// there must not lead us to read, cut or write elsewhere.
func openOld(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	return plain(f, err)
}

func create(path string) (handle, error) {
	f, err := plain(os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|noFollow, 0o600))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// plain closes what is not a plain file.
func plain(f *os.File, err error) (*os.File, error) {
	if err != nil {
		if isLink(err) {
			return nil, fmt.Errorf("it is a symbolic link, which is not followed: move it away: %w", err)
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a plain file: move it away")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Check looks whether the folder and its files can be used, and changes nothing.
func (c *Config) Check(context.Context) []core.Finding {
	info, err := os.Stat(c.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.checkParent()
	case err != nil:
		return c.finding(core.Fail, err.Error(), "give the gateway's user access to it")
	case !info.IsDir():
		return c.finding(core.Fail, "is not a folder", "set dir to a folder")
	}
	if err := writable(c.Dir); err != nil {
		return c.finding(core.Fail, "cannot be written to: "+err.Error(), rightsFix())
	}
	for _, stream := range c.Streams {
		if err := c.checkFile(string(stream) + suffix); err != nil {
			return c.finding(core.Fail, err.Error(), "give the gateway's user the right to write, and keep nothing but its plain files there")
		}
	}
	if shared(info) {
		return c.finding(core.Warn, fmt.Sprintf("others than its owner may change it (mode %04o)", info.Mode().Perm()), "chmod go-w "+c.Dir)
	}
	return c.finding(core.OK, "can be used", "")
}

// checkParent looks at the nearest folder that exists above one that does not.
func (c *Config) checkParent() []core.Finding {
	parent := filepath.Dir(filepath.Clean(c.Dir))
	info, err := os.Stat(parent)
	for errors.Is(err, fs.ErrNotExist) && parent != filepath.Dir(parent) {
		parent = filepath.Dir(parent)
		info, err = os.Stat(parent)
	}
	switch {
	case err != nil:
		return c.finding(core.Fail, "cannot be made: "+err.Error(), "give the gateway's user access to "+parent)
	case !info.IsDir():
		return c.finding(core.Fail, "cannot be made: "+parent+" is not a folder", "set dir to a folder")
	}
	if err := writable(parent); err != nil {
		return c.finding(core.Fail, fmt.Sprintf("cannot be made in %s: %v", parent, err), rightsFix())
	}
	return c.finding(core.OK, "does not exist yet; run makes it", "")
}

func (c *Config) checkFile(name string) error {
	f, err := plain(os.OpenFile(filepath.Join(c.Dir, name), os.O_WRONLY|noFollow, 0))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func rightsFix() string {
	return fmt.Sprintf("give the gateway's user (number %d) the right to write and to enter, or set dir to another folder", os.Geteuid())
}

func (c *Config) finding(level core.Level, detail, fix string) []core.Finding {
	return []core.Finding{{Subject: "file", What: "folder " + c.Dir, Level: level, Detail: detail, Fix: fix}}
}

// shared reports whether others than its owner may put files into a folder.
func shared(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
