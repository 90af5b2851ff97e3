package ari

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
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
	patience = time.Minute // of a test for something that must happen
	password = "s3cret-word"
)

// fakeSwitch speaks the bytes of an Asterisk, made here and not by our own code.
type fakeSwitch struct {
	t      *testing.T
	server *httptest.Server
	wg     sync.WaitGroup

	events  func(p *peer)                                            // plays the websocket; nil keeps it open
	opening func(p *peer)                                            // told of each websocket before the client knows that it is open
	answer  func(w http.ResponseWriter, r *http.Request) (done bool) // overrides REST

	mu       sync.Mutex
	requests []string
}

func newFakeSwitch(t *testing.T, start func(http.Handler) *httptest.Server) *fakeSwitch {
	f := &fakeSwitch{t: t}
	f.server = start(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
		f.wg.Wait()
	})
	return f
}

func (f *fakeSwitch) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	f.mu.Unlock()
	if u, p, _ := r.BasicAuth(); u != "gw" || p != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if f.answer != nil && f.answer(w, r) {
		return
	}
	switch r.URL.Path {
	case "/ari/events":
		f.upgrade(w, r)
	case "/ari/asterisk/info":
		io.WriteString(w, `{"build":{"os":"Linux"},"system":{"version":"22.10.1","entity_id":"02:fc:00:00:00:01"},"status":{"startup_time":"odd"}}`)
	case "/ari/asterisk/ping":
		io.WriteString(w, `{"ping":"pong","timestamp":"2026-11-23T05:41:57.557+0000","asterisk_id":"02:fc:00:00:00:01"}`)
	case "/ari/channels", "/ari/bridges":
		io.WriteString(w, `[]`)
	default:
		if strings.HasPrefix(r.URL.Path, "/ari/events/user/") {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"message":"Write access denied"}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"Not here"}`)
	}
}

func (f *fakeSwitch) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// upgrade does the server's side of RFC 6455, section 4.2.2.
func (f *fakeSwitch) upgrade(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.Close()
	p := &peer{conn: conn, r: rw.Reader, ended: make(chan struct{})}
	if f.opening != nil {
		f.opening(p)
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if f.events == nil {
		p.listen(true)
		return
	}
	f.events(p)
}

// peer is the switch's end of a websocket.
type peer struct {
	conn  net.Conn
	r     *bufio.Reader
	mu    sync.Mutex
	ended chan struct{} // closed when listen returns
}

// frame writes one unmasked frame; first is FIN and opcode.
func (p *peer) frame(first byte, payload []byte) error {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return p.bytes(append(b, payload...))
}

func (p *peer) text(s string) error { return p.frame(0x81, []byte(s)) }

func (p *peer) bytes(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.conn.Write(b)
	return err
}

// listen reads the client's masked frames, answering pings if so told, and the close, until the end.
func (p *peer) listen(pong bool) {
	defer close(p.ended)
	for {
		var h [2]byte
		if _, err := io.ReadFull(p.r, h[:]); err != nil {
			return
		}
		rest := make([]byte, 4+int(h[1]&0x7f)) // clients here send control frames only: at most 125 bytes
		if _, err := io.ReadFull(p.r, rest); err != nil {
			return
		}
		payload := rest[4:]
		for i := range payload {
			payload[i] ^= rest[i%4]
		}
		switch h[0] & 0x0f {
		case 0x9:
			if pong {
				p.frame(0x8a, payload)
			}
		case 0x8:
			p.frame(0x88, payload)
			return
		}
	}
}

// fakeAMI listens for manager connections and plays script on each.
func fakeAMI(t *testing.T, script func(c net.Conn, r *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				io.WriteString(c, "Asterisk Call Manager/11.0.0\r\n")
				script(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// action reads one action as its lines, nil at the end.
func action(r *bufio.Reader) map[string]string {
	a := map[string]string{}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return a
		}
		k, v, _ := strings.Cut(line, ": ")
		a[k] = v
	}
}

// goodAMI answers every action as Asterisk does, then calls after for each.
func goodAMI(after func(a map[string]string, c net.Conn)) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for a := action(r); a != nil; a = action(r) {
			id := a["ActionID"]
			switch a["Action"] {
			case "Login":
				if a["Username"] != "gw" || a["Secret"] != password {
					fmt.Fprintf(c, "Response: Error\r\nActionID: %s\r\nMessage: Authentication failed\r\n\r\n", id)
					return
				}
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\nMessage: Authentication accepted\r\n\r\n", id)
			case "Ping":
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\nPing: Pong\r\nTimestamp: 1795412518.687879\r\n\r\n", id)
			case "QueueStatus":
				fmt.Fprintf(c, "Response: Success\r\nActionID: %[1]s\r\nEventList: start\r\n\r\n"+
					"Event: QueueParams\r\nQueue: support\r\nActionID: %[1]s\r\n\r\n"+
					"Event: QueueMember\r\nQueue: support\r\nName: PJSIP/agent1\r\nActionID: %[1]s\r\n\r\n"+
					"Event: QueueStatusComplete\r\nActionID: %[1]s\r\nEventList: Complete\r\nListItems: 2\r\n\r\n", id)
			default:
				fmt.Fprintf(c, "Response: Error\r\nActionID: %s\r\nMessage: Permission denied\r\n\r\n", id)
			}
			if after != nil {
				after(a, c)
			}
		}
	}
}

// recorder is an Emitter that remembers.
type recorder struct {
	mu      sync.Mutex
	changed chan struct{}
	order   []string // up, the type of each frame, dead, gap
	frames  []core.Frame
	dead    []core.DeadLetter
	ups     []core.Instance
	clocks  []core.ClockSample
	gaps    []string
	missing [][]string
	counts  map[string]int
	gate    chan struct{} // when set, each Frame waits for a token
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}, 1), counts: map[string]int{}}
}

func (r *recorder) note(f func()) {
	r.mu.Lock()
	f()
	r.mu.Unlock()
	signal(r.changed)
}

func (r *recorder) Frame(f core.Frame) error {
	if r.gate != nil {
		<-r.gate
	}
	r.note(func() { r.frames = append(r.frames, f); r.order = append(r.order, f.Type) })
	return nil
}

func (r *recorder) DeadLetter(d core.DeadLetter) error {
	r.note(func() { r.dead = append(r.dead, d); r.order = append(r.order, "dead") })
	return nil
}

func (r *recorder) Up(i core.Instance) error {
	r.note(func() { r.ups = append(r.ups, i); r.order = append(r.order, "up") })
	return nil
}

func (r *recorder) Clock(c core.ClockSample) error {
	r.note(func() { r.clocks = append(r.clocks, c) })
	return nil
}

func (r *recorder) Gap(reason string, _ call.Time) error {
	r.note(func() { r.gaps = append(r.gaps, reason); r.order = append(r.order, "gap") })
	return nil
}

func (r *recorder) Missing(what []string) error {
	r.note(func() { r.missing = append(r.missing, what) })
	return nil
}

func (r *recorder) Count(name string, n int) { r.note(func() { r.counts[name] += n }) }

// until waits for cond, which may read r's fields.
func (r *recorder) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		r.mu.Lock()
		ok := cond()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-late.C:
			t.Fatalf("%s did not happen; got %v, counts %v", what, r.order, r.counts)
		}
	}
}

// raws are the bytes of all frames of a type.
func (r *recorder) raws(typ string) []string {
	var all []string
	for _, f := range r.frames {
		if f.Type == typ {
			all = append(all, string(f.Raw))
		}
	}
	return all
}

func testConfig(url string) *Config {
	c := NewConfig()
	c.URL = url + "/ari"
	c.Username = "gw"
	c.Password = core.NewSecret(password)
	c.PingInterval = 20 * time.Millisecond
	c.ReadTimeout = 20 * time.Second
	return c
}

func open(t *testing.T, c *Config) *Adapter {
	t.Helper()
	a, err := c.Open("pbx1", core.Env{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.(*Adapter).amiRetry = time.Millisecond
	return a.(*Adapter)
}

// start runs one session; stop ends it and gives Run's error, result waits for that.
func start(t *testing.T, c *Config, out *recorder) (stop, result func() error) {
	t.Helper()
	a := open(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, out) }()
	result = sync.OnceValue(func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return fmt.Errorf("Run did not return")
		}
	})
	stop = func() error { cancel(); return result() }
	t.Cleanup(func() { stop() })
	return stop, result
}
