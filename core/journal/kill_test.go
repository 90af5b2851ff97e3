package journal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const childDir = "CTIGATE_JOURNAL_TEST_DIR"

// child appends and syncs, and prints each seq that is durable, until it is killed.
func child(dir string) {
	j, _, err := Open(Options{Dir: dir, SegmentBytes: 20 << 10})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	c, _ := j.Cursor("sink")
	for {
		for range rand.IntN(5) + 1 {
			if _, err := appendOne(j); err != nil {
				fmt.Println("failed:", err)
				os.Exit(1)
			}
		}
		durable, err := j.Sync()
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println(durable)
		c.Advance(durable)
		if durable%7 == 0 {
			_ = j.SaveCheckpoint(durable, payload(durable))
			j.Trim(durable - min(durable, 500))
		}
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	if testing.Short() {
		t.Skip("some seconds")
	}
	dir := t.TempDir()
	acked := uint64(0)
	for round := range 30 {
		acked = max(acked, killed(t, dir, time.Duration(rand.IntN(40_000))*time.Microsecond))
		j, r := open(t, Options{Dir: dir})
		if j.Stats().Last < acked || len(r.Damage) > 0 {
			t.Fatalf("round %d: the last is %d, %d was durable; %+v", round, j.Stats().Last, acked, r)
		}
		if acked > 0 {
			whole(t, j, j.Stats().First, j.Stats().Last)
		}
		if at := j.Cursors()["sink"]; at > j.Stats().Last {
			t.Fatalf("the cursor is at %d", at)
		}
		if seq, data, err := j.Checkpoint(); err != nil || seq > 0 && string(data) != string(payload(seq)) {
			t.Fatalf("checkpoint %d %q %v", seq, data, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records were durable", acked)
	if acked < 30 {
		t.Errorf("only %d records in 30 rounds", acked)
	}
}

// killed runs the child for some time after its first word and returns the last seq it said is durable.
func killed(t *testing.T, dir string, after time.Duration) (acked uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAtAnyMoment$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil && strings.HasPrefix(lines.Text(), "failed") {
			t.Error(lines.Text())
		}
		acked = max(acked, n)
	}
	_ = cmd.Wait()
	return acked
}

func TestARealDiskIsFull(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("mounts a tmpfs: needs root on Linux")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a tmpfs: %v %s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	j, _ := open(t, Options{Dir: dir + "/j", SegmentBytes: 64 << 10})
	c, _ := j.Cursor("sink")
	state := make([]byte, 8<<10)
	fill(t, j, 2)
	var err error
	for seq := range uint64(2) {
		if err := j.SaveCheckpoint(seq+1, state); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		if _, err = appendOne(j); err == nil {
			_, err = j.Sync()
		}
	}
	if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	last := j.Stats().Last
	if last < 1000 {
		t.Errorf("full after %d records", last)
	}
	whole(t, j, 1, last)
	c.Advance(last)
	if err := c.Flush(); err != nil {
		t.Fatal(err) // a cursor is written in place
	}
	for seq := range uint64(2) { // in the room of the older one
		if err := j.SaveCheckpoint(last-1+seq, state); err != nil {
			t.Fatal(err)
		}
	}
	j.Trim(last)
	fill(t, j, last+100)
	whole(t, j, last, last+100)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
