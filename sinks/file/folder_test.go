package file

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/sinktest"
)

func closeSink(t *testing.T, s core.Sink) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// wantRefused wants an error of Open that names the folder.
func wantRefused(t *testing.T, cfg *Config, why string, permanent bool) {
	t.Helper()
	s, err := cfg.Open(t.Context(), core.Env{})
	if err == nil {
		closeSink(t, s)
		t.Fatal("Open succeeded")
	}
	if text := err.Error(); !strings.Contains(text, why) || !strings.Contains(text, cfg.Dir) || core.IsPermanent(err) != permanent {
		t.Errorf("got %q, permanent %v, want %q and the folder's name, permanent %v", text, core.IsPermanent(err), why, permanent)
	}
}

func TestOneFolderOneSink(t *testing.T) {
	s := open(t, nil)
	wantRefused(t, s.cfg, "another file sink's already", true)
	if err := s.Write(t.Context(), sinktest.Events("l", 1, 1)); err != nil {
		t.Errorf("the first sink was disturbed: %v", err)
	}
	// As if another process had it.
	if err := os.WriteFile(filepath.Join(s.cfg.Dir, lockName), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, s.cfg, "in use by process 1:", false)
	closeSink(t, s)
	closeSink(t, open(t, func(c *Config) { c.Dir = s.cfg.Dir })) // free again
}

func TestFolderIsFreeAfterAFailedOpen(t *testing.T) {
	cfg := NewConfig()
	cfg.Dir = t.TempDir()
	bad := filepath.Join(cfg.Dir, "calls.jsonl")
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, cfg, "calls.jsonl", false)
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	s, err := cfg.Open(t.Context(), core.Env{})
	if err != nil {
		t.Fatal(err)
	}
	closeSink(t, s)
}

// Whoever can put links into the folder must not decide where the gateway writes.
func TestLinksAreNotFollowed(t *testing.T) {
	for name, atOpen := range map[string]bool{"there at open": true, "put there later": false} {
		t.Run(name, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "victim")
			const text = "not ours, and no whole line"
			if err := os.WriteFile(victim, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := NewConfig()
			cfg.Dir = t.TempDir()
			link := filepath.Join(cfg.Dir, "events.jsonl")
			var s core.Sink
			if !atOpen {
				var err error
				if s, err = cfg.Open(t.Context(), core.Env{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(victim, link); err != nil {
				t.Fatal(err)
			}
			if atOpen {
				wantRefused(t, cfg, "symbolic link", false)
			} else {
				err := s.Write(t.Context(), sinktest.Events("l", 1, 1))
				var be *core.BatchError
				if !errors.As(err, &be) || !strings.Contains(err.Error(), "symbolic link") || core.IsPermanent(be.Failed[0]) {
					t.Errorf("got %v, want a refusal of the link, retryable", err)
				}
				closeSink(t, s)
			}
			if got := cfg.Check(t.Context()); len(got) != 1 || got[0].Level != core.Fail || !strings.Contains(got[0].Detail, "symbolic link") {
				t.Errorf("Check: %+v", got)
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != text {
				t.Errorf("the link was followed: %q, %v", got, err)
			}
		})
	}
}

func TestLockThatIsALink(t *testing.T) {
	cfg := NewConfig()
	cfg.Dir = t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(cfg.Dir, lockName)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, cfg, "symbolic link", true)
	if got, err := os.ReadFile(victim); err != nil || string(got) != "text" {
		t.Errorf("the link was followed: %q, %v", got, err)
	}
}

func TestCheckWarnsOfASharedFolder(t *testing.T) {
	cfg := NewConfig()
	cfg.Dir = t.TempDir()
	for mode, want := range map[os.FileMode]core.Level{0o700: core.OK, 0o755: core.OK, 0o770: core.Warn, 0o777: core.Warn} {
		if err := os.Chmod(cfg.Dir, mode); err != nil {
			t.Fatal(err)
		}
		if got := cfg.Check(t.Context()); len(got) != 1 || got[0].Level != want || (want == core.Warn) != (got[0].Fix != "") {
			t.Errorf("mode %o: got %+v, want %v", mode, got, want)
		}
	}
}
