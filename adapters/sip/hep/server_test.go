package hep

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
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
	late := time.After(10 * time.Second)
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
	case <-time.After(10 * time.Second):
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
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
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

// Frames come whole however TCP cuts them.
func TestTCPSegments(t *testing.T) {
	r := start(t, Config{Key: core.NewSecret(testKey)}, nil)
	c := dial(t, "tcp", r.Addr())
	frames := append(sample(1, "one"), sample(1, "two")...)
	send(t, c, append(frames, sample(1, "three")...)) // merged
	r.payloads("one", "two", "three")
	for _, b := range frames { // split
		send(t, c, []byte{b})
	}
	r.payloads("one", "two")
	big := strings.Repeat("b", MaxFrame-200)
	send(t, c, append(sample(1, big), sample(1, "after")...))
	r.payloads(big, "after")
}

func TestTCPKeepsOtherConnections(t *testing.T) {
	r := start(t, Config{Key: core.NewSecret(testKey)}, nil)
	good := dial(t, "tcp", r.Addr())
	for name, b := range map[string][]byte{
		"wrong key": sample(1, testSIP, chunk{0, 14, []byte("wrong")}), "HTTP": []byte("GET / HTTP/1.1\r\n\r\n"), "length": []byte("HEP3\x00\x05xxxxx"),
	} {
		t.Run(name, func(t *testing.T) {
			bad := dial(t, "tcp", r.Addr())
			send(t, bad, b)
			closedByPeer(t, bad)
			send(t, good, sample(1, name))
			r.payloads(name)
		})
	}
	r.counted(CountKey, 1)
	r.counted(CountFrame, 2)
	send(t, good, append(sample(1, ""), sample(1, "after a malformed frame")...)) // in step all the same
	r.payloads("after a malformed frame")
}

// A started frame must be finished in time; silence between frames may last longer.
func TestTCPSlowFrame(t *testing.T) {
	r := start(t, Config{FrameTimeout: 100 * time.Millisecond}, nil)
	c := dial(t, "tcp", r.Addr())
	send(t, c, sample(1, testSIP))
	r.payloads(testSIP)
	send(t, c, sample(1, testSIP)[:20])
	closedByPeer(t, c)
	idle := start(t, Config{IdleTimeout: time.Second}, nil)
	closedByPeer(t, dial(t, "tcp", idle.Addr()))
}

// Connections that have proved nothing make room; those of agents stay.
func TestTCPTooManyConnections(t *testing.T) {
	r := start(t, Config{MaxConnections: 2}, nil)
	agent := dial(t, "tcp", r.Addr())
	send(t, agent, sample(1, "agent"))
	r.payloads("agent")
	idle := dial(t, "tcp", r.Addr())
	second := dial(t, "tcp", r.Addr())
	closedByPeer(t, idle)
	send(t, second, sample(1, "second agent"))
	r.payloads("second agent")
	closedByPeer(t, dial(t, "tcp", r.Addr()))
	send(t, agent, sample(1, "still there"))
	r.payloads("still there")
	r.counted(CountConnections, 2)
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
	rtp := sample(4, "\x80"+strings.Repeat("r", 1000))
	for range 100 {
		for _, c := range sources {
			send(t, c, rtp)
		}
		runtime.Gosched()
	}
	for i := range 100 {
		send(t, sources[0], sample(1, fmt.Sprint(i)))
	}
	// A datagram that is refused stands behind all others in the socket's buffer.
	send(t, sources[0], sample(100, "the end"))
	for r.Server.counts[otherProtocol].Load() == 0 {
		time.Sleep(time.Millisecond)
	}
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

// A connection waits when the queue is full, and nothing of it is lost.
func TestTCPWaitsForTheHandler(t *testing.T) {
	block := make(chan struct{})
	r := start(t, Config{QueueBytes: 1 << 20}, block)
	c := dial(t, "tcp", r.Addr())
	const n = 3000
	go func() {
		for i := range n {
			b := sample(1, fmt.Sprintf("%6d", i)+strings.Repeat("s", 1000))
			if _, err := c.Write(b); err != nil {
				t.Errorf("sending: %v", err)
				return
			}
		}
	}()
	close(block)
	for i := range n {
		if got := string(r.next().Payload[:6]); got != fmt.Sprintf("%6d", i) {
			t.Fatalf("got %q, want %d", got, i)
		}
	}
}

// Run ends with a full queue and a connection that waits on it.
func TestStopWhileConnectionsWait(t *testing.T) {
	block := make(chan struct{})
	r := start(t, Config{QueueBytes: 1 << 20}, block)
	c := dial(t, "tcp", r.Addr())
	_ = c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for b := sample(1, strings.Repeat("s", 60_000)); ; {
		if _, err := c.Write(b); err != nil {
			break // the reader waits, and TCP's buffers are full
		}
	}
	time.AfterFunc(50*time.Millisecond, func() { close(block) })
	r.stop()
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate for loopback, by ca, or by itself when ca is nil.
func issue(t *testing.T, ca *authority, name string) (dir string, a authority) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: ca == nil, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	by := authority{tmpl, key}
	if ca != nil {
		by = *ca
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for file, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, authority{cert, key}
}

func TestTLS(t *testing.T) {
	caDir, ca := issue(t, nil, "ca")
	serverDir, _ := issue(t, &ca, "server")
	clientDir, _ := issue(t, &ca, "client")
	r := start(t, Config{
		Transports: []string{TLS}, Key: core.NewSecret(testKey), FrameTimeout: 200 * time.Millisecond,
		TLS: &ServerTLS{CertFile: filepath.Join(serverDir, "cert"), KeyFile: filepath.Join(serverDir, "key"), ClientCAFile: filepath.Join(caDir, "cert")},
	}, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	pair, err := tls.LoadX509KeyPair(filepath.Join(clientDir, "cert"), filepath.Join(clientDir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", r.AddrTLS().String(), &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	send(t, c, append(sample(1, "one"), sample(1, "two")...))
	r.payloads("one", "two")

	stranger := tls.Client(dial(t, "tcp", r.AddrTLS()), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	_, _ = stranger.Write(sample(1, "no certificate"))
	closedByPeer(t, stranger)
	closedByPeer(t, dial(t, "tcp", r.AddrTLS())) // says nothing
	r.counted(CountConnections, 2)
	send(t, c, sample(1, "still there"))
	r.payloads("still there")
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

// stream is a connection's bytes, given in pieces of at most size.
type stubConn struct {
	b    []byte
	size int
}

func (s *stubConn) SetReadDeadline(time.Time) error { return nil }

func (s *stubConn) Read(b []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.size)], s.b)
	s.b = s.b[n:]
	return n, nil
}

func FuzzFrames(f *testing.F) {
	two := append(sample(1, testSIP), sample(5, `{"ssrc":1}`)...)
	f.Add(two, 1)
	f.Add(two, 7)
	f.Add(append(two, "HEP3\x00\x02"...), 1000)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 100)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		r := newFrameReader(&stubConn{b, max(size, 1)}, time.Hour, time.Hour)
		at := 0
		for {
			raw, err := r.next()
			if err != nil {
				return
			}
			if n := int(binary.BigEndian.Uint16(raw[4:])); n != len(raw) || string(raw) != string(b[at:at+n]) {
				t.Fatalf("frame %q at %d of %q", raw, at, b)
			}
			at += len(raw)
		}
	})
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
