package hep

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
)

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
	c := Config{
		Transports: []string{TLS}, Key: core.NewSecret(testKey),
		TLS: &ServerTLS{CertFile: filepath.Join(serverDir, "cert"), KeyFile: filepath.Join(serverDir, "key"), ClientCAFile: filepath.Join(caDir, "cert")},
	}
	r := start(t, c, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	pair, err := tls.LoadX509KeyPair(filepath.Join(clientDir, "cert"), filepath.Join(clientDir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", r.AddrTLS().String(), &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	send(t, conn, append(sample(1, "one"), sample(1, "two")...))
	r.payloads("one", "two")

	stranger := tls.Client(dial(t, "tcp", r.AddrTLS()), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	_, _ = stranger.Write(sample(1, "no certificate"))
	closedByPeer(t, stranger)
	r.counted(CountConnections, 1)
	send(t, conn, sample(1, "still there"))
	r.payloads("still there")

	c.FrameTimeout = 200 * time.Millisecond
	r = start(t, c, nil)
	closedByPeer(t, dial(t, "tcp", r.AddrTLS())) // says nothing
	r.counted(CountConnections, 1)
}

// stubConn is a connection's bytes, given in pieces of at most size.
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
