package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sim"
)

// printed is a writer one can wait on.
type printed struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newPrinted() *printed { return &printed{more: make(chan struct{}, 1)} }

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *printed) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Reset()
}

// await returns the groups of pattern once it is there.
func (p *printed) await(t *testing.T, pattern string) []string {
	t.Helper()
	late := time.After(time.Minute)
	for re := regexp.MustCompile(pattern); ; {
		if m := re.FindStringSubmatch(p.String()); m != nil {
			return m
		}
		select {
		case <-p.more:
		case <-late:
			t.Fatalf("no %s in\n%s", pattern, p)
		}
	}
}

// freePort is a port that nobody listens on, of those that the system gives to nobody who asks for any: it stays free.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 15_000 + rand.IntN(10_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// start runs a gateway whose broker is not there until unblock is called.
func start(t *testing.T, flags ...string) (log *printed, unblock func(), end func() int) {
	t.Helper()
	port := freePort(t)
	path := write(t, fmt.Sprintf("switches: [{id: a, kind: esl, address: '127.0.0.1:1', password: {env: X}}]\n"+
		"sinks: [{kind: kafka, name: bus, brokers: ['127.0.0.1:%d']}]\ntelemetry: {listen: '127.0.0.1:0'}\n", port))
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	log = newPrinted()
	go func() { code <- execute(ctx, append([]string{"run", "-c", path}, flags...), io.Discard, log) }()
	log.await(t, "the sink is not ready")
	unblock = func() {
		c, err := newCluster(port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
	}
	return log, unblock, func() int { cancel(); return <-code }
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

func TestWaitingForASink(t *testing.T) {
	log, unblock, end := start(t, "--log-level", "debug")
	url := log.await(t, `telemetry is served" url=(\S+)/metrics`)[1]
	if code, body := get(t, url+"/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d %s", code, body)
	}
	code, body := get(t, url+"/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, `"ready": false`) || !strings.Contains(body, `"starting: sink bus: `) ||
		!strings.Contains(body, "connection refused") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := get(t, url+"/metrics"); code != http.StatusOK {
		t.Errorf("/metrics: %d", code)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	log.await(t, "read again once every sink is open")
	unblock()
	log.await(t, "msg=reloaded")
	if _, body := get(t, url+"/readyz"); !strings.Contains(body, `"links"`) {
		t.Errorf("/readyz once the sink is open: %s", body)
	}
	if code := end(); code != exitOK {
		t.Errorf("exit %d\n%s", code, log)
	}
}

func TestAStopWhileWaitingForASinkIsNoFailure(t *testing.T) {
	log, _, end := start(t)
	if code := end(); code != exitOK || !strings.Contains(log.String(), "nothing had been read") {
		t.Errorf("exit %d\n%s", code, log)
	}
}

// leaving is a sink whose reader is gone.
type leaving struct{ fakeSink }

func (l *leaving) Open(context.Context, core.Env) (core.Sink, error) { return l, nil }
func (l *leaving) Write(context.Context, []core.Item) error {
	return &core.BatchError{Failed: map[int]error{0: &os.PathError{Op: "write", Err: syscall.EPIPE}}}
}

func TestAReaderThatIsGoneBeginsTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := &fakeSink{}
		cfg := fakeConfig(other, oneCall)
		cfg.Sinks = append(cfg.Sinks, configs.Sink{Name: "out", Kind: "stdout", WhenFull: configs.Block, Config: &leaving{}})
		var log bytes.Buffer
		w := plainWatch(&log, cfg)
		began := time.Now()
		if _, err := serve(t.Context(), cfg, w, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Second || !strings.Contains(log.String(), "the reader of standard output is gone") {
			t.Errorf("took %s\n%s", took, &log)
		}
		if w.counts.ended.Load() != 1 || uint64(other.items) < w.counts.events.Load() {
			t.Errorf("%d calls ended, the other sink has %d items of %d events", w.counts.ended.Load(), other.items, w.counts.events.Load())
		}
	})
}

// program is a ctigate of its own whose standard output nobody reads.
func program(t *testing.T, args ...string) (cmd *exec.Cmd, errOut *printed) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	errOut = newPrinted()
	cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "CTIGATE_TEST_PASSWORD=secret")
	cmd.Stdout, cmd.Stderr = w, errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, errOut
}

func TestRunDrainsWhenStandardOutputIsClosed(t *testing.T) {
	fs := sim.NewFreeSWITCH(sim.Options{Seed: 1, Rate: 20, Speed: 20, Password: "secret"})
	if err := fs.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	dir := t.TempDir()
	path := write(t, "switches: [{id: a, kind: esl, address: '"+fs.Addr()+"', password: {env: CTIGATE_TEST_PASSWORD}}]\n"+
		"sinks: [{kind: stdout}, {kind: file, dir: "+dir+"}]\ntelemetry: {listen: off}\n")
	cmd, errOut := program(t, "run", "-c", path)
	if err := cmd.Wait(); err != nil || !strings.Contains(errOut.String(), "everything received was delivered") {
		t.Errorf("%v\n%s", err, errOut)
	}
	if events, err := os.ReadFile(filepath.Join(dir, "events.jsonl")); err != nil || !bytes.HasSuffix(events, []byte("}\n")) {
		t.Errorf("%v: the file sink has %d bytes", err, len(events))
	}
}

func TestReplayEndsQuietlyWhenStandardOutputIsClosed(t *testing.T) {
	cmd, errOut := program(t, "replay", "--kind", "esl", traces+"/freeswitch/busy")
	_ = cmd.Wait()
	if cmd.ProcessState.Success() || errOut.String() != "" {
		t.Errorf("%s: %s", cmd.ProcessState, errOut)
	}
}

// TestSignalsEndWhatWatchesNoContext: a configuration that is a pipe nobody writes to keeps a command from ever
// looking at its context.
func TestSignalsEndWhatWatchesNoContext(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "ctigate.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	for _, args := range [][]string{{"config", "print"}, {"run"}, {"check"}, {"record", "-o", t.TempDir()}} {
		cmd, _ := program(t, append(args, "-c", fifo)...)
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns once the program reads
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		w.Close()
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGTERM {
			t.Errorf("%v: %s", args, cmd.ProcessState)
		}
	}
}

func TestReplayIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	code := execute(ctx, []string{"replay", "--kind", "esl", traces + "/freeswitch/busy"}, &out, &errOut)
	if code != exitFailed || !strings.Contains(errOut.String(), "interrupted: only a part is printed") {
		t.Errorf("exit %d %s", code, &errOut)
	}
}

func TestReplayOfAPipeIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := await(ctx, make(chan error)); err == nil {
			t.Error("no error")
		}
		read := make(chan error, 1)
		go func() { time.Sleep(patience / 2); read <- nil }()
		if err := await(ctx, read); err != nil {
			t.Error(err)
		}
	})
}

func TestASecondSignalIsOneThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, over := make(chan os.Signal), make(chan struct{})
		var first, second int
		go watchSignals(signals, over, func() { first++ }, func() { second++ })
		for range 3 {
			signals <- os.Interrupt
		}
		synctest.Wait()
		if first != 1 || second != 0 {
			t.Errorf("at once: %d and %d", first, second)
		}
		time.Sleep(patience) // of the bubble
		signals <- os.Interrupt
		synctest.Wait()
		if first != 1 || second != 1 {
			t.Errorf("later: %d and %d", first, second)
		}
	})
}

func TestWhatSystemsSayDoesNotReachTheTerminal(t *testing.T) {
	var out bytes.Buffer
	hostile := core.Finding{Subject: "kafka", What: "a\x1b[2Jb", Level: core.Fail, Detail: "c\x1b]0;x\x07 \u202e\u009b31m", Fix: "d\re\x7f"}
	if err := printFindings(&out, []core.Finding{hostile}, 60); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() {
		if r != '\n' && r != ' ' && (r < ' ' || r == 0x7f || r == 0x9b || r == 0x202e) {
			t.Fatalf("%q reaches the terminal: %q", r, &out)
		}
	}
	if !strings.Contains(out.String(), "a·[2Jb") || !strings.Contains(out.String(), "→ d e·") {
		t.Errorf("got %q", &out)
	}
}

func TestCollectorIsTunedUnlessTheEnvironmentDoes(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "70")
	if tuneCollector(); debug.SetGCPercent(100) != 100 {
		t.Error("GOGC is overridden")
	}
	t.Setenv("GOGC", "")
	if tuneCollector(); debug.SetGCPercent(100) != 200 {
		t.Error("not tuned")
	}
}
