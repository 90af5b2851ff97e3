package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority makes certificates into a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate for a node, with a DNS name, or with a common name only.
func (a *authority) issue(cn string, dns ...string) TLS {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, DNSNames: dns,
		NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	k, _ := x509.MarshalPKCS8PrivateKey(key)
	name := fmt.Sprint(cn, "-", tmpl.SerialNumber)
	return TLS{filepath.Join(a.dir, "ca.pem"), a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", k)}
}

const patience = 30 * time.Second // for what must happen

// heard collects callbacks.
type heard struct {
	mu  sync.Mutex
	all []string
	at  []time.Time
}

func (h *heard) add(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.at = append(h.all, fmt.Sprintf(format, args...)), append(h.at, time.Now())
}

// had reports whether that was said; something else may have followed.
func (h *heard) had(what string) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Contains(h.all, what)
	}
}

// last is when the latest came.
func (h *heard) last() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at[len(h.at)-1]
}

func (h *heard) count(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.all {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// end is one node's link over real TCP.
type end struct {
	*Link
	heard  *heard
	cancel context.CancelFunc
	done   chan struct{}
}

// freePort is one that nobody listens on, of those that the system gives to nobody who asks for any: it stays free.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 25_000+mathrand.IntN(7_000))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func startLink(t *testing.T, id, listen string, pki TLS, peers ...Peer) *end {
	t.Helper()
	cfg := NewConfig()
	cfg.Node, cfg.Listen, cfg.Peers, cfg.TLS = id, listen, peers, pki
	e := &end{heard: &heard{}, done: make(chan struct{})}
	l, err := NewLink(LinkOptions{Config: cfg, Version: "test", Report: func() Report {
		return Report{Member: id + "-member", Generation: 7, Units: []UnitReport{{Unit: 0, State: StateOwner, Published: 42}}}
	},
		PeerUp:     func(id string) { e.heard.add("up %s", id) },
		PeerDead:   func(id, member string) { e.heard.add("dead %s %s", id, member) },
		PeerSilent: func(id string) { e.heard.add("silent %s", id) },
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Link = l
	ln, err := l.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	go func() { defer close(e.done); l.Run(ctx, ln) }()
	t.Cleanup(e.stop)
	return e
}

func (e *end) stop() { e.cancel(); <-e.done }

func twoLinks(t *testing.T, ta, tb TLS) (a, b *end, pa, pb Peer) {
	pa, pb = Peer{"gw-a", freePort(t)}, Peer{"gw-b", freePort(t)}
	return startLink(t, "gw-a", pa.Address, ta, pb), startLink(t, "gw-b", pb.Address, tb, pa), pa, pb
}

func TestLinkWithTLS(t *testing.T) {
	ca := newAuthority(t)
	a, b, _, _ := twoLinks(t, ca.issue("gw-a"), ca.issue("node 2", "gw-b"))
	within(t, patience, "a hears b", a.heard.had("up gw-b"))
	within(t, patience, "b hears a", b.heard.had("up gw-a"))
	var p PeerStatus
	within(t, patience, "b has a's report, and a late one", func() bool {
		p = b.Peers()[0]
		return p.Report != nil && p.State == PeerStateUp && p.AgeMS <= 1000
	})
	if p.Report.Member != "gw-a-member" || p.Report.Units[0].Published != 42 {
		t.Errorf("b knows %s", mustJSON(p))
	}
	a.stop() // by plan: no death
	within(t, patience, "b sees a stopped", func() bool { return b.Peers()[0].State == PeerStateStopped })
	if n := b.heard.count("dead"); n != 0 {
		t.Errorf("%q", b.heard.all)
	}
}

func TestWrongCertificatesAreTurnedAway(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	for name, pki := range map[string]TLS{
		"another name":      ca.issue("gw-x", "gw-x"),
		"another authority": {filepath.Join(ca.dir, "ca.pem"), other.issue("gw-b").CertFile, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if pki.KeyFile == "" {
				pki.KeyFile = strings.TrimSuffix(pki.CertFile, ".pem") + ".key"
			}
			a, b, _, _ := twoLinks(t, ca.issue("gw-a"), pki)
			time.Sleep(700 * time.Millisecond)
			if a.heard.count("up") != 0 || a.Peers()[0].Report != nil {
				t.Errorf("a listens to it: %s", mustJSON(a.Peers()))
			}
			if b.heard.count("dead") != 0 {
				t.Error("b takes a's refusal for its death")
			}
		})
	}
}

// mock is a peer of which the test has both hands on the wire.
func mock(t *testing.T) (a *end, addr string, b net.Listener) {
	t.Helper()
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	addr = freePort(t)
	return startLink(t, "gw-a", addr, TLS{}, Peer{"gw-b", b.Addr().String()}), addr, b
}

func greet(t *testing.T, b net.Listener, instance string) net.Conn {
	t.Helper()
	c, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(c, frame{Hello: &hello{linkProtocol, "gw-b", "test", instance, "gw-b-" + instance}}); err != nil {
		t.Fatal(err)
	}
	return c
}

// A crash: the connection ends and the port refuses.
func TestPeerDead(t *testing.T) {
	var took []time.Duration
	for range 10 {
		a, _, b := mock(t)
		c := greet(t, b, "1")
		within(t, patience, "a hears b", a.heard.had("up gw-b"))
		begin := time.Now()
		c.Close()
		time.Sleep(3 * time.Millisecond) // a kernel closes one after the other
		b.Close()
		within(t, patience, "a sees b die", a.heard.had("dead gw-b gw-b-1"))
		took = append(took, a.heard.last().Sub(begin))
		time.Sleep(300 * time.Millisecond)
		if n := a.heard.count("dead"); n != 1 {
			t.Errorf("said %d times", n)
		}
		a.stop()
	}
	slices.Sort(took)
	t.Logf("crash to PeerDead: %s", took)
	if took[0] > 100*time.Millisecond { // a wait would be in each; the others are a busy machine's
		t.Errorf("too late")
	}
}

func TestPeerRestartedAtOnce(t *testing.T) {
	a, _, b := mock(t)
	c := greet(t, b, "1")
	within(t, patience, "a hears b", a.heard.had("up gw-b"))
	c.Close()
	c = greet(t, b, "2")
	defer c.Close()
	within(t, patience, "a sees that the first b died", a.heard.had("dead gw-b gw-b-1"))
}

// Silence, as of a process that is stopped or a network that is cut, is not death.
func TestPeerSilent(t *testing.T) {
	a, _, b := mock(t)
	c := greet(t, b, "1")
	defer c.Close()
	within(t, patience, "a misses b", a.heard.had("silent gw-b"))
	time.Sleep(frameLimit) // a gives the connection up, and the next one is accepted by nobody
	if a.heard.count("dead") != 0 {
		t.Errorf("%q", a.heard.all)
	}
	go func() { // those that a has given up meanwhile are still in line
		for {
			c, err := b.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_ = writeFrame(c, frame{Hello: &hello{linkProtocol, "gw-b", "test", "1", "gw-b-1"}})
			_ = writeFrame(c, frame{Report: &Report{Member: "m"}})
		}
	}()
	within(t, patience, "a hears b again", func() bool { return a.heard.count("up gw-b") == 2 })
}

// A node with the wrong address of a peer that talks to it does not take the peer for dead.
func TestWrongAddressIsNotDeath(t *testing.T) {
	pa, pb := Peer{"gw-a", freePort(t)}, Peer{"gw-b", freePort(t)}
	a := startLink(t, "gw-a", pa.Address, TLS{}, Peer{"gw-b", freePort(t)})
	startLink(t, "gw-b", pb.Address, TLS{}, pa)
	within(t, patience, "a hears b", a.heard.had("up gw-b"))
	before := a.heard.count("dead") // b may have begun late
	time.Sleep(1500 * time.Millisecond)
	if a.heard.count("dead") != before {
		t.Errorf("%q", a.heard.all)
	}
}

func TestNobodyThereFromTheBeginning(t *testing.T) {
	a := startLink(t, "gw-a", freePort(t), TLS{}, Peer{"gw-b", freePort(t)})
	within(t, patience, "a takes b for dead", a.heard.had("dead gw-b "))
}

func TestHostileBytes(t *testing.T) {
	a, addr, b := mock(t)
	c := greet(t, b, "1")
	defer c.Close()
	go func() {
		for { // to the end of the test
			if writeFrame(c, frame{Report: &Report{Member: "gw-b-1"}}) != nil {
				return
			}
			time.Sleep(reportEvery)
		}
	}()
	within(t, patience, "a hears b", a.heard.had("up gw-b"))
	framed := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	for _, bytes := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), {0, 0, 0, 0}, {255, 255, 255, 255}, {0, 0, 0}, framed("null"), framed("{}"), framed(`{"hello":{}}`),
		framed(`{"report":{"member":"x","units":[{"unit":-1}]}}`), framed(`{"hello":{"protocol":"ctigate.peer.v1","node":"gw-z"}}`),
		framed(`{"hello":{"protocol":"ctigate.peer.v1","node":"gw-a"}}`), framed(strings.Repeat("[", 60000)),
	} {
		s, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(bytes)
		_ = s.SetReadDeadline(time.Now().Add(2 * helloLimit))
		if len(bytes) == 3 {
			s.Close() // half a head
			continue
		}
		if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%.40q was answered", bytes)
		}
		s.Close()
	}
	if a.heard.count("dead")+a.heard.count("silent") != 0 {
		t.Errorf("%q", a.heard.all)
	}
}

// Connections that say nothing, or a byte now and then, are given up, and peers get in meanwhile or soon after.
func TestSlowLoris(t *testing.T) {
	a, addr, b := mock(t)
	var all []net.Conn
	for range 3 * maxGreeting {
		s, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		all = append(all, s)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 8 { // longer than helloLimit
			for _, s := range all {
				_, _ = s.Write([]byte{0})
			}
			time.Sleep(helloLimit / 4)
		}
	}()
	c := greet(t, b, "1")
	defer c.Close()
	within(t, patience, "a hears b", func() bool { return a.heard.count("up gw-b") > 0 })
	<-ended
	for _, s := range all {
		_ = s.SetReadDeadline(time.Now().Add(patience))
		if _, err := s.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Fatal("a slow connection is still held")
		}
	}
	within(t, patience, "no slot is held", func() bool { return len(a.slots) == 0 })
}

func TestPlainToTLSIsTurnedAway(t *testing.T) {
	ca := newAuthority(t)
	addr := freePort(t)
	startLink(t, "gw-a", addr, ca.issue("gw-a"), Peer{"gw-b", freePort(t)})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := writeFrame(c, frame{Hello: &hello{Protocol: linkProtocol, Node: "gw-b"}}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * helloLimit))
	if _, err := readHello(c, time.Now().Add(2*helloLimit)); err == nil {
		t.Error("greeted without TLS")
	}
	s, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err == nil { // with TLS 1.3 the server's refusal of a client without a certificate shows at the first read
		_ = s.SetReadDeadline(time.Now().Add(2 * helloLimit))
		if _, err = s.Read(make([]byte, 1)); err == nil {
			t.Error("greeted without a certificate")
		}
		s.Close()
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"hello":{"protocol":"ctigate.peer.v1","node":"a","instance":"x"}}`))
	f.Add([]byte(`{"report":{"member":"m","generation":3,"units":[{"unit":0,"state":"owner"}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
		}()
		fr, err := readFrame(ours, time.Now().Add(time.Second))
		if err == nil && fr.Hello == nil && fr.Report == nil && !fr.Bye {
			t.Error("an empty frame was accepted")
		}
	})
}

func FuzzAssignment(f *testing.F) {
	f.Add(assignment("t", plan{Members: []planned{{ID: "m", Node: "a", Units: []int{0}}}}, []int{0}))
	f.Add(subscription("t", wish{Node: "a", Units: 1, Claims: []claim{{0, 3}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		units, p, err := readAssignment("t", b)
		c, _ := readSubscription("m", b)
		if err == nil {
			p.owner(0)
			_ = units
		}
		spread(3, []candidate{c})
	})
}
