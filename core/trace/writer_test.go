package trace

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTracesAreTheirOwnersAlone: they name who called whom.
func TestTracesAreTheirOwnersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Line{Source: AMI, Lines: []string{"Event: x"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, "ami.jsonl"): 0o600} {
		i, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if i.Mode() != want {
			t.Errorf("%s is %s, want %s", filepath.Base(path), i.Mode(), want)
		}
	}
}
