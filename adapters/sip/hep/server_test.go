package hep

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server that runs, and what it handed on.
type running struct {
	*Server
	t       *testing.T
	packets chan wire.Packet // copies
	dead    chan string
	stop    func()

	mu     sync.Mutex
	counts map[string]int
	change chan struct{} // closed and renewed when counts change
}

// start runs a server on loopback with free ports until the test ends. block, if not nil, holds the handler up.
func start(t *testing.T, c Config, block <-chan struct{}) *running {
	t.Helper()
	c.Listen, c.ListenTLS = "127.0.0.1:0", "127.0.0.1:0"
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		Server: s, t: t, packets: make(chan wire.Packet, 1<<16), dead: make(chan string, 1<<10),
		counts: make(map[string]int), change: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, r.handler(block), r.count, r.deadLetter) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) handler(block <-chan struct{}) wire.Handler {
	return func(p *wire.Packet) {
		if block != nil {
			<-block
		}
		q := *p
		q.Payload = append([]byte(nil), p.Payload...)
		r.packets <- q
	}
}

func (r *running) deadLetter(raw []byte, reason string, _ call.Time) {
	r.dead <- reason + "|" + string(raw)
}

func (r *running) count(name string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[name] += n
	close(r.change)
	r.change = make(chan struct{})
}

// counted waits until name stands at n.
func (r *running) counted(name string, n int) {
	r.t.Helper()
	late := time.After(time.Minute)
	for {
		r.mu.Lock()
		got, change := r.counts[name], r.change
		r.mu.Unlock()
		if got == n {
			return
		}
		select {
		case <-change:
		case <-late:
			r.t.Fatalf("%s stands at %d, want %d; all: %v", name, got, n, r.counts)
		}
	}
}

func (r *running) next() wire.Packet {
	r.t.Helper()
	select {
	case p := <-r.packets:
		return p
	case <-time.After(time.Minute):
		r.t.Fatal("nothing was handed on")
		return wire.Packet{}
	}
}

func (r *running) payloads(wants ...string) {
	r.t.Helper()
	for _, want := range wants {
		if got := string(r.next().Payload); got != want {
			r.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func dial(t *testing.T, network string, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(network, a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func closedByPeer(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := io.Copy(io.Discard, c); n > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatalf("the connection was not closed: %d bytes, %v", n, err)
	}
}

func TestUDP(t *testing.T) {
	r := start(t, Config{Key: core.NewSecret(testKey)}, nil)
	c := dial(t, "udp", r.Addr())
	before := call.At(time.Now())
	for i := range 100 {
		send(t, c, sample(1, fmt.Sprint("message ", i)))
	}
	for i := range 100 {
		p := r.next()
		if want := fmt.Sprint("message ", i); string(p.Payload) != want {
			t.Fatalf("got %q, want %q", p.Payload, want)
		}
		if p.Received < before || p.Received > call.At(time.Now()) || p.At != 1_789_999_999_250_000 && p.At != p.Received {
			t.Errorf("received %v, captured %v", p.Received, p.At)
		}
	}
}

func TestWhatIsRefusedIsCounted(t *testing.T) {
	r := start(t, Config{Key: core.NewSecret(testKey)}, nil)
	c := dial(t, "udp", r.Addr())
	send(t, c, sample(1, testSIP, chunk{0, 14, []byte("wrong")}))
	send(t, c, sample(1, testSIP, chunk{0, 14, nil}))
	send(t, c, sample(100, "a log line"))
	send(t, c, []byte("HEP3 and nonsense"))
	send(t, c, sample(1, testSIP))
	r.payloads(testSIP)
	r.counted(CountKey, 2)
	r.counted(CountProtocol, 1)
	r.counted(CountFrame, 1)
	if got, want := <-r.dead, errLength.Error()+"|HEP3 and nonsense"; got != want {
		t.Errorf("dead letter %q, want %q", got, want)
	}
}

// Dead letters are bounded, as anyone can send them.
func TestDeadLettersAreFew(t *testing.T) {
	r := start(t, Config{}, nil)
	c := dial(t, "tcp", r.Addr())
	bad := sample(1, "")
	var all []byte
	for range 10 * deadPerFlush {
		all = append(all, bad...)
	}
	send(t, c, append(all, sample(1, testSIP)...))
	r.payloads(testSIP)
	r.counted(CountFrame, 10*deadPerFlush)
	if n := len(r.dead); n > 5*deadPerFlush {
		t.Errorf("%d dead letters", n)
	}
}

func TestSourcesAreRefused(t *testing.T) {
	r := start(t, Config{AllowFrom: []string{"192.0.2.0/24", "2001:db8::1"}}, nil)
	send(t, dial(t, "udp", r.Addr()), sample(1, testSIP))
	closedByPeer(t, dial(t, "tcp", r.Addr()))
	r.counted(CountSource, 2)
	r.stop()
	if len(r.packets) > 0 {
		t.Error("a packet came through")
	}
	r = start(t, Config{AllowFrom: []string{"192.0.2.0/24", "127.0.0.1"}}, nil)
	send(t, dial(t, "udp", r.Addr()), sample(1, testSIP))
	r.payloads(testSIP)
}

// A flood of many sources while the handler stands still: memory stays bounded, RTP is shed first, and SIP that came
// after it is all there.
func TestFlood(t *testing.T) {
	block := make(chan struct{})
	r := start(t, Config{QueueBytes: 1 << 20}, block)
	sources := make([]net.Conn, 50)
	for i := range sources {
		sources[i] = dial(t, "udp", r.Addr())
	}
	// A datagram that is refused stands behind all others in the socket's buffer, which has room for a round.
	read := func() {
		before := r.Server.counts[otherProtocol].Load()
		send(t, sources[0], sample(100, "the end"))
		for r.Server.counts[otherProtocol].Load() == before {
			time.Sleep(time.Millisecond)
		}
	}
	rtp := sample(4, "\x80"+strings.Repeat("r", 1000))
	for range 100 {
		for _, c := range sources {
			send(t, c, rtp)
		}
		read()
	}
	for i := range 100 {
		send(t, sources[0], sample(1, fmt.Sprint(i)))
	}
	read()
	r.queue.mu.Lock()
	cost := r.queue.filling.cost()
	r.queue.mu.Unlock()
	if cost > 1<<20 {
		t.Errorf("the queue holds %d bytes, limit %d", cost, 1<<20)
	}
	close(block)
	sip := 0
	for sip < 100 {
		p := r.next()
		if p.Kind == wire.SIP {
			if want := fmt.Sprint(sip); string(p.Payload) != want {
				t.Fatalf("SIP %q, want %q", p.Payload, want)
			}
			sip++
		}
	}
	r.stop()
	if r.counts[CountShedRTP] == 0 || r.counts[CountShedSIP] != 0 {
		t.Errorf("counts %v", r.counts)
	}
}

// What the kernel drops because nobody reads is counted with the next datagram.
func TestKernelDrops(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells of drops")
	}
	s, err := Listen(Config{Listen: "127.0.0.1:0", ReceiveBuffer: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, "udp", s.Addr())
	for range 1000 {
		send(t, c, sample(4, "\x80"+strings.Repeat("r", 1000)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	counts, got := map[string]int{}, 0
	h := func(*wire.Packet) {
		if got++; got == 1 { // room again: one that gets through carries the count
			send(t, c, sample(1, "last"))
		}
	}
	last := func(p *wire.Packet) {
		h(p)
		if string(p.Payload) == "last" {
			cancel()
		}
	}
	if err := s.Run(ctx, last, func(n string, v int) { counts[n] += v }, nil); err != nil {
		t.Fatal(err)
	}
	if want := 1000 - (got - 1); counts[CountKernel] != want {
		t.Errorf("%d drops counted, want %d of 1000; all: %v", counts[CountKernel], want, counts)
	}
}

func TestListenFails(t *testing.T) {
	s, err := Listen(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir, _ := issue(t, nil, "server")
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := ServerTLS{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), ClientCAFile: junk}
	for want, c := range map[string]Config{
		"address already in use":   {Listen: s.Addr().String()},
		"not host:port":            {Listen: "here"},
		"key: the secret is empty": {Listen: "127.0.0.1:0", Key: core.Secret{File: os.DevNull}},
		"environment variable":     {Listen: "127.0.0.1:0", Key: core.Secret{Env: "HEP_NO_SUCH_KEY"}},
		"reading tls.cert_file":    {Transports: []string{TLS}, ListenTLS: "127.0.0.1:0", TLS: &ServerTLS{CertFile: junk, KeyFile: junk}},
		"no PEM certificate":       {Transports: []string{TLS}, ListenTLS: "127.0.0.1:0", TLS: &pair},
	} {
		if _, err := Listen(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// BenchmarkUDP is the rate at which datagrams of RTP go from a socket on loopback to the handler, without a drop.
func BenchmarkUDP(b *testing.B) {
	s, err := Listen(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	const window = 1000 // as many may be on the way
	room := make(chan struct{}, window)
	for range window {
		room <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, counts := make(chan error, 1), map[string]int{}
	go func() {
		ended <- s.Run(ctx, func(*wire.Packet) { room <- struct{}{} }, func(n string, v int) { counts[n] += v }, nil)
	}()
	frame := sample(4, "\x80"+strings.Repeat("x", 171))
	b.ReportAllocs()
	for b.Loop() {
		<-room
		if _, err := c.Write(frame); err != nil {
			b.Fatal(err)
		}
	}
	for range window {
		<-room
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
	cancel()
	if err := <-ended; err != nil || len(counts) > 0 {
		b.Fatal(err, maps.Collect(maps.All(counts)))
	}
}
