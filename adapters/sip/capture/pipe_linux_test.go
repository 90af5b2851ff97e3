package capture

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/wire"
)

// A pipe that nobody writes to any more does not hold up the end.
func TestReadFileOfAPipeEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Write(pcapFile(linkRaw, p4))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := ReadFile(ctx, path, Options{}, func(*wire.Packet) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
