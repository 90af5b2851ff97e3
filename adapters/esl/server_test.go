package esl

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testPassword = "s3cret"
	testCore     = "16b894de-02df-4902-a4c3-17c2275ab1a2"
)

// fakeSwitch answers as mod_event_socket does, byte for byte, and lets a test write what it likes.
type fakeSwitch struct {
	t         testing.TB
	greeting  string                         // sent first
	answers   map[string]string              // api command and arguments → output
	onCommand func(s *peer, cmd string) bool // true when it answered
	after     func(s *peer)                  // runs when the gateway has subscribed

	mu   sync.Mutex
	seen []string
}

// peer is one accepted connection.
type peer struct {
	net.Conn
	sw *fakeSwitch
	mu sync.Mutex
}

func newFakeSwitch(t testing.TB) *fakeSwitch {
	return &fakeSwitch{t: t, greeting: "Content-Type: auth/request\n\n", answers: map[string]string{
		"global_getvar core_uuid":      testCore,
		"version":                      "FreeSWITCH Version 1.10.12-release+git~20240802T210227Z~a88d069d6f~64bit (git a88d069 2024-08-02 21:02:27Z 64bit)\n",
		"status":                       "UP 0 years, 0 days, 0 hours, 15 minutes, 32 seconds\n",
		"module_exists mod_callcenter": "true", "module_exists mod_fifo": "false",
		"module_exists mod_conference": "true", "module_exists mod_valet_parking": "true",
		"show channels as json": "{\"row_count\": 0}\n", "show calls as json": "{\"row_count\": 0}\n",
		"strmicroepoch": "1795351509748907",
	}}
}

// listen serves on loopback until the test ends, and returns the address.
func (f *fakeSwitch) listen() string {
	return f.listenWith(func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
}

func (f *fakeSwitch) listenWith(open func() (net.Listener, error)) string {
	l, err := open()
	if err != nil {
		f.t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			all.Go(func() { f.serve(c) })
		}
	})
	f.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

func (f *fakeSwitch) serve(c net.Conn) {
	defer c.Close()
	p := &peer{Conn: c, sw: f}
	p.write(f.greeting)
	r := bufio.NewReader(c)
	for {
		cmd, job, err := readCommand(r)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.seen = append(f.seen, cmd)
		f.mu.Unlock()
		if f.onCommand != nil && f.onCommand(p, cmd) {
			continue
		}
		if !p.reply(cmd, job) {
			return
		}
	}
}

func readCommand(r *bufio.Reader) (cmd, job string, err error) {
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "" && !first:
			return cmd, job, nil
		case first:
			cmd = line
		case strings.HasPrefix(line, "Job-UUID: "):
			job = strings.TrimPrefix(line, "Job-UUID: ")
		}
	}
}

func (p *peer) reply(cmd, job string) bool {
	word, rest, _ := strings.Cut(cmd, " ")
	switch word {
	case "auth":
		if rest != testPassword {
			p.write("Content-Type: command/reply\nReply-Text: -ERR invalid\n\n")
			p.write("Content-Type: text/disconnect-notice\nContent-Length: 67\n\nDisconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n")
			return false
		}
		p.write("Content-Type: command/reply\nReply-Text: +OK accepted\n\n")
	case "event":
		format, _, _ := strings.Cut(rest, " ")
		p.write("Content-Type: command/reply\nReply-Text: +OK event listener enabled " + format + "\n\n")
		if p.sw.after != nil {
			p.sw.after(p)
		}
	case "api":
		p.response(p.sw.answer(rest))
	case "bgapi":
		if rest == "hostname" && p.sw.answers[rest] == "" { // no mark, unless a test wants one
			p.write("Content-Type: command/reply\nReply-Text: -ERR no background jobs\n\n")
			return true
		}
		p.write("Content-Type: command/reply\nReply-Text: +OK Job-UUID: " + job + "\nJob-UUID: " + job + "\n\n")
		p.event(event1("BACKGROUND_JOB", 5, "Job-UUID", job, "_body", p.sw.answer(rest)))
	default:
		p.write("Content-Type: command/reply\nReply-Text: -ERR command not found\n\n")
	}
	return true
}

func (f *fakeSwitch) answer(cmd string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, ok := f.answers[cmd]; ok {
		return a
	}
	name, _, _ := strings.Cut(cmd, " ")
	if name == "uuid_dump" {
		return "-ERR No such channel!\n"
	}
	return "-ERR " + name + " Command not found!\n"
}

func (f *fakeSwitch) commands() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.seen...)
}

func (p *peer) write(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.Conn, s) // the gateway may have gone
}

func (p *peer) response(body string) {
	p.write(fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(body), body))
}

func (p *peer) event(body string) {
	p.write(fmt.Sprintf("Content-Length: %d\nContent-Type: text/event-json\n\n%s", len(body), body))
}

// event1 writes a JSON event as switch_event_serialize_json does.
func event1(name string, seq int, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"Event-Name":%q,"Core-UUID":%q,"Event-Date-Timestamp":"%d","Event-Sequence":"%d"`, name, testCore, 1795351509748907+seq*1000, seq)
	for i := 0; i+1 < len(more); i += 2 {
		v, _ := json.Marshal(more[i+1])
		fmt.Fprintf(&b, ",%q:%s", more[i], v)
	}
	return b.String() + "}"
}

// heard is one call of the Emitter.
type heard struct {
	what  string // up, frame, dead, gap, clock
	frame core.Frame
	dead  core.DeadLetter
	inst  core.Instance
	clock core.ClockSample
	gap   string
}

// recorder is an Emitter that keeps what it is told.
type recorder struct {
	ctx      context.Context
	news     chan heard
	patience time.Duration
	mu       sync.Mutex
	count    map[string]int
}

// newRecorder makes one that takes up to ahead calls before anybody listens.
func newRecorder(ctx context.Context, ahead int, patience time.Duration) *recorder {
	return &recorder{ctx: ctx, news: make(chan heard, ahead), patience: patience, count: map[string]int{}}
}

func (r *recorder) put(h heard) error {
	select {
	case r.news <- h:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (r *recorder) Frame(f core.Frame) error           { return r.put(heard{what: "frame", frame: f}) }
func (r *recorder) DeadLetter(d core.DeadLetter) error { return r.put(heard{what: "dead", dead: d}) }
func (r *recorder) Up(i core.Instance) error           { return r.put(heard{what: "up", inst: i}) }
func (r *recorder) Clock(c core.ClockSample) error     { return r.put(heard{what: "clock", clock: c}) }
func (r *recorder) Gap(reason string, _ call.Time) error {
	return r.put(heard{what: "gap", gap: reason})
}
func (r *recorder) Missing([]string) error { return nil }
func (r *recorder) Count(name string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[name] += n
}

func (r *recorder) counted(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[name]
}

// next waits for the next call, clock samples left out unless asked for.
func (r *recorder) next(t *testing.T, what string) heard {
	t.Helper()
	for {
		select {
		case h := <-r.news:
			if h.what == "clock" && what != "clock" {
				continue
			}
			if h.what != what {
				t.Fatalf("heard %+v, want %s", h, what)
			}
			return h
		case <-time.After(r.patience):
			t.Fatalf("heard nothing, want %s", what)
		}
	}
}

// running is a session under test.
type running struct {
	*recorder
	a    *Adapter
	stop context.CancelFunc
	done chan error
}

func testConfig(address string) Config {
	c := NewConfig()
	c.Address, c.Password = address, core.NewSecret(testPassword)
	return *c
}

// run starts a session with cfg. The test's end stops it.
func run(t *testing.T, cfg Config) *running {
	t.Helper()
	opened, err := cfg.Open("fs1", core.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return runAdapter(t, opened.(*Adapter), 10_000, 20*time.Second)
}

func runAdapter(t *testing.T, a *Adapter, ahead int, patience time.Duration) *running {
	ctx, stop := context.WithCancel(context.Background())
	r := &running{recorder: newRecorder(ctx, ahead, patience), a: a, stop: stop, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- a.Run(ctx, r)
	}()
	t.Cleanup(func() { stop(); <-ended })
	return r
}

// ends waits for the session's own end and returns its error.
func (r *running) ends(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(r.patience):
		t.Fatal("the session goes on")
		return nil
	}
}

// wireFrame is one line of esl.jsonl.
type wireFrame struct {
	Head map[string]string `json:"head"`
	Body string            `json:"body"`
}

// recording reads the frames of one scenario of the recordings; kind is freeswitch or freeswitch-plain.
func recording(t testing.TB, kind, scenario string) []wireFrame {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "adaptertest", "traces", kind, scenario, "esl.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var frames []wireFrame
	for d := json.NewDecoder(z); ; {
		var r wireFrame
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return frames
		} else if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, r)
	}
}

func (r wireFrame) wire() string {
	return fmt.Sprintf("Content-Length: %d\nContent-Type: %s\n\n%s", len(r.Body), r.Head["Content-Type"], r.Body)
}
