//go:build live

// Package live_test runs the gateway between a real Asterisk and a real Apache Kafka and reads what arrives with kcat
// and confluent-kafka. It needs root on Debian; what is missing it installs: make test-live.
package live_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Where the scripts of this folder put things.
const (
	ariAddr    = "127.0.0.1:23088"
	amiAddr    = "127.0.0.1:23038"
	kafkaAddr  = "127.0.0.1:29192"
	kafkaSASL  = "127.0.0.1:29194"
	kafkaTLS   = "127.0.0.1:29195"
	sipPort    = "23060"
	password   = "gwsecret"
	truthFile  = "../../adapters/adaptertest/traces/truth.json"
	repository = "../.."
)

// lab is what all tests share.
var lab struct {
	dir      string // for everything that is written
	ctigate  string // the binary under test
	asterisk int    // process ids
	kafka    int
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "live tests:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	unlock, err := alone()
	if err != nil {
		return 1, err
	}
	defer unlock()
	if lab.dir, err = os.MkdirTemp("", "ctigate-live-"); err != nil {
		return 1, err
	}
	defer func() {
		kill(lab.kafka, syscall.SIGKILL)
		kill(lab.asterisk, syscall.SIGKILL)
		if code == 0 {
			os.RemoveAll(lab.dir)
		} else {
			fmt.Fprintln(os.Stderr, "live tests: logs and packets are kept in", lab.dir)
		}
	}()
	if _, err = output("./need.sh", "kcat", "tcpdump", "tshark", "python:confluent_kafka=python3-confluent-kafka"); err != nil {
		return 1, err
	}
	lab.ctigate = filepath.Join(lab.dir, "ctigate")
	if _, err = output("go", "build", "-o", lab.ctigate, repository); err != nil {
		return 1, err
	}
	if err = asteriskUp(); err == nil {
		err = kafkaUp()
	}
	if err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// alone waits until no other run of these tests is at work on this machine: they use the same ports.
func alone() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "ctigate-live.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for waited := 0; waited < 30*60; waited += 2 {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		if waited%30 == 0 {
			fmt.Fprintf(os.Stderr, "live tests: another run is at work; waiting, %d s\n", waited)
		}
		time.Sleep(2 * time.Second)
	}
	return nil, fmt.Errorf("another run is still at work (it holds %s): %w", f.Name(), err)
}

func asteriskUp() (err error) { lab.asterisk, err = up("./asterisk-up.sh"); return err }

func kafkaUp() (err error) {
	lab.kafka, err = up("./kafka-up.sh", filepath.Join(lab.dir, "kafka"))
	return err
}

// up runs a script that starts a process and prints its id.
func up(script string, args ...string) (pid int, err error) {
	out, err := output(script, args...)
	if err != nil {
		return 0, err
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(out)); err != nil {
		return 0, fmt.Errorf("%s printed no process id: %q", script, out)
	}
	return pid, nil
}

// output runs a command and returns its standard output; its standard error is ours.
func output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second // a started server keeps our pipes otherwise
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

func mustOutput(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kill signals a process that is not our child and waits until it is gone.
func kill(pid int, sig syscall.Signal) {
	if pid == 0 || syscall.Kill(pid, sig) != nil {
		return
	}
	for range 300 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// play runs play.py.
func play(t testing.TB, args ...string) {
	t.Helper()
	mustOutput(t, "./play.py", args...)
}

// playing starts play.py and returns how to wait for its end. A line it prints is awaited first when there is one.
func playing(t testing.TB, firstLine bool, args ...string) (wait func() error) {
	t.Helper()
	cmd := exec.Command("./play.py", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	r := bufio.NewReader(out)
	if firstLine {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatalf("play.py %s: %v", strings.Join(args, " "), err)
		}
	}
	return func() error { io.Copy(io.Discard, r); return cmd.Wait() }
}

// eventually waits for a condition, for at most so long.
func eventually(t testing.TB, what string, atMost time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(atMost); ; time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", atMost, what)
		}
	}
}
