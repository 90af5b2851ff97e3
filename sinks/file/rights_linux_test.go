package file

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/ctigate/ctigate/core"
	"golang.org/x/sys/unix"
)

// asNobody runs f without a superuser's rights to files. It takes them from one thread, which ends with f.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread must not serve anyone else
		if err := unix.Setfsuid(65534); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestFolderWithoutTheRightToWrite(t *testing.T) {
	top, err := os.MkdirTemp("", "rights")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	for name, mode := range map[string]os.FileMode{"closed": 0o555, "free": 0o777, "": 0o755} {
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	cfg := func(path string) *Config {
		c := NewConfig()
		c.Dir = filepath.Join(top, path)
		return c
	}
	asNobody(t, func() {
		for path, want := range map[string]core.Level{
			"closed": core.Fail, "closed/new/deep": core.Fail, "free": core.Warn, "free/new/deep": core.OK,
		} {
			got := cfg(path).Check(t.Context())
			if len(got) != 1 || got[0].Level != want || want == core.Fail && !strings.Contains(got[0].Fix, "right to write") {
				t.Errorf("%s: got %+v, want %v", path, got, want)
			}
		}
		wantRefused(t, cfg("closed"), "right to write", true)
		wantRefused(t, cfg("closed/new/deep"), "let the gateway's user make it", true)
		if s, err := cfg("free/new/deep").Open(t.Context(), core.Env{}); err != nil {
			t.Error(err)
		} else {
			closeSink(t, s)
		}
	})
}

// A named pipe without a reader would hold up whoever opens it.
func TestPipesAreNotOpened(t *testing.T) {
	c := NewConfig()
	c.Dir = t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(c.Dir, "events.jsonl"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, c, "not a plain file", false)
	if got := c.Check(t.Context()); len(got) != 1 || got[0].Level != core.Fail {
		t.Errorf("Check: %+v", got)
	}
}
