package adaptertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "open sesame"

// toySwitch speaks lines: it wants the password, says ok or no, then sends "event N".
type toySwitch struct {
	ln     net.Listener
	refuse bool
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn
	ready  chan net.Conn
}

func startToy(t *testing.T, refuse bool) *toySwitch {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &toySwitch{ln: ln, refuse: refuse, ready: make(chan net.Conn, 10)}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
	return s
}

func (s *toySwitch) serve(c net.Conn) {
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != password+"\n" || s.refuse {
		_, _ = c.Write([]byte("no\n"))
		_ = c.Close()
		return
	}
	_, _ = c.Write([]byte("ok\n"))
	s.ready <- c
	_, _ = r.ReadString('\n') // until the peer has gone
	_ = c.Close()
}

func (s *toySwitch) send(lines string) error {
	c := <-s.ready
	s.ready <- c
	_, err := c.Write([]byte(lines))
	return err
}

func (s *toySwitch) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	for len(s.ready) > 0 {
		<-s.ready
	}
}

func (s *toySwitch) close() {
	_ = s.ln.Close()
	s.cut()
	s.wg.Wait()
}

// toy is an adapter of the toySwitch, with one fault of choice.
type toy struct {
	addr  string
	fault string
	stop  chan struct{} // ends what a fault left behind
	late  sync.WaitGroup
}

func (a *toy) has(fault string) bool { return a.fault == fault }

func (a *toy) Run(ctx context.Context, out core.Emitter) error {
	err := a.session(ctx, out)
	switch {
	case ctx.Err() != nil && !a.has("error at the end"):
		return nil
	case a.has("nil on a lost link"):
		return nil
	}
	return err
}

func (a *toy) session(ctx context.Context, out core.Emitter) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.addr)
	if err != nil {
		if a.has("permanent") {
			return core.Permanent(err)
		}
		return fmt.Errorf("dialing: %w", err)
	}
	defer c.Close()
	if !a.has("ignores the context") {
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	}
	if a.has("leaks") {
		a.late.Go(func() { <-a.stop })
	}
	if _, err := c.Write([]byte(password + "\n")); err != nil {
		return err
	}
	return a.read(ctx, bufio.NewReader(c), out)
}

func (a *toy) read(ctx context.Context, r *bufio.Reader, out core.Emitter) error {
	switch line, err := r.ReadString('\n'); {
	case err != nil:
		return fmt.Errorf("logging in: %w", err)
	case line != "ok\n" && a.has("talkative"):
		return core.Permanent(fmt.Errorf("refused: %s", password))
	case line != "ok\n" && a.has("hammers"):
		return errors.New("refused")
	case line != "ok\n":
		return core.Permanent(errors.New("refused"))
	}
	if err := out.Up(core.Instance{Kind: "toy"}); err != nil {
		return err
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		if err := a.line(ctx, line, out); err != nil && !a.has("ignores errors") {
			return err
		}
	}
}

func (a *toy) line(ctx context.Context, line string, out core.Emitter) error {
	f := core.Frame{Type: "event", Raw: []byte(line), Received: call.At(time.Now())}
	switch {
	case a.has("no bytes"):
		f.Raw = nil
		f.Type = line
	case a.has("no time"):
		f.Received = 0
	case a.has("out of order") && strings.HasSuffix(line, "7\n"):
		f.Raw = []byte(strings.Replace(line, "7\n", "8\n", 1))
	}
	if _, ok := number(core.Frame{Raw: []byte(line)}); !ok {
		if a.has("swallows garbage") {
			return nil
		}
		return out.DeadLetter(core.DeadLetter{Raw: f.Raw, Reason: "no event", Received: f.Received})
	}
	if a.has("a goroutine an event") {
		a.late.Go(func() { _ = out.Frame(f) })
		return nil
	}
	return out.Frame(f)
}

func number(f core.Frame) (int, bool) {
	line := string(f.Raw)
	if line == "" {
		line = f.Type
	}
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(line, "event "), "\n"))
	return n, err == nil
}

func openToy(t *testing.T, fault string, o Options) *Switch {
	t.Helper()
	s := startToy(t, o.Refuse)
	a := &toy{addr: s.ln.Addr().String(), fault: fault, stop: make(chan struct{})}
	t.Cleanup(func() { close(a.stop); s.close(); a.late.Wait() })
	return &Switch{Adapter: a, Number: number, Cut: s.cut, Close: s.close,
		Send: func(first, n int) error {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "event %d\n", first+i)
			}
			return s.send(b.String())
		},
		Garbage: func() error { return s.send("\x00\xff{\n") },
	}
}

func TestGoodAdapterPasses(t *testing.T) {
	Run(t, Harness{Secret: password, Open: func(t *testing.T, o Options) *Switch { return openToy(t, "", o) }})
}

// TestFaultsAreFound gives each check an adapter that breaks what it looks for.
func TestFaultsAreFound(t *testing.T) {
	for fault, names := range map[string][]string{
		"error at the end":     {"an ended context ends Run with nil"},
		"nil on a lost link":   {"a lost link ends Run with an error and Run works again", "an absent switch is not permanent"},
		"permanent":            {"an absent switch is not permanent"},
		"leaks":                {"no goroutine is left"},
		"talkative":            {"a refused login is permanent"},
		"hammers":              {"a refused login is permanent"},
		"ignores errors":       {"an emitter's error ends Run"},
		"ignores the context":  {"an ended context ends Run with nil"},
		"no bytes":             {"events arrive in order after Up"},
		"no time":              {"events arrive in order after Up"},
		"out of order":         {"events arrive in order after Up"},
		"swallows garbage":     {garbage},
		"a goroutine an event": {"a blocked router slows the adapter and reorders nothing"},
	} {
		for _, name := range names {
			t.Run(fault, func(t *testing.T) {
				if fault != "leaks" { // which looks at every goroutine
					t.Parallel()
				}
				for _, c := range checks {
					if c.name != name {
						continue
					}
					sw := openToy(t, fault, Options{Refuse: c.refuse})
					err := c.run(&run{Switch: sw, secret: password})
					if err == nil {
						t.Fatalf("%q did not find it", name)
					}
					t.Log(err)
					return
				}
				t.Fatalf("no check %q", name)
			})
		}
	}
}

func TestRecorder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := NewRecorder(ctx)
	r.Hold()
	done := make(chan error, 1)
	go func() { done <- r.Frame(core.Frame{Type: "a"}) }()
	if _, err := r.Wait(patience, "a blocked call", func(l Log) bool { return l.Waiting == 1 }); err != nil {
		t.Fatal(err)
	}
	r.Count("n", 2) // never blocks
	r.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := r.Missing([]string{"queues"}); err != nil {
		t.Errorf("after the end, as while draining: %v", err)
	}
	r.Hold()
	if err := r.Gap("late", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end, and blocked: %v", err)
	}
	if l := r.Log(); len(l.Frames) != 1 || len(l.Missing) != 1 || len(l.Gaps) != 0 || l.Counts["n"] != 2 || l.Refused != 1 || l.Waiting != 0 {
		t.Errorf("log: %+v", l)
	}
	if _, err := r.Wait(time.Millisecond, "nothing", func(Log) bool { return false }); err == nil {
		t.Error("waited for nothing with success")
	}
}
