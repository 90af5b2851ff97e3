package dialoginfo

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// notifier is a PBX that lets its extensions be watched. It reads with sipgo's parser and writes by hand.
type notifier struct {
	t         *testing.T
	transport string
	refuse    bool              // the password is never right
	password  string            // asked for when not empty
	answers   map[string]string // status line instead of 200, by user
	expires   int
	state     string // Subscription-State of what answers a SUBSCRIBE, when not active
	partial   bool   // never tells the whole state

	l   net.Listener
	udp *net.UDPConn

	mu    sync.Mutex
	wg    sync.WaitGroup
	subs  map[string]*watcher // by user
	conns map[net.Conn]bool
	got   []*sip.Request
	codes []int // of responses to our NOTIFYs
	shut  bool
}

// watcher is one subscription that was granted.
type watcher struct {
	req  *sip.Request
	tag  string
	seq  int
	send func([]byte)
}

func startNotifier(t *testing.T, transport string, set func(*notifier)) *notifier {
	t.Helper()
	n := &notifier{t: t, transport: transport, subs: map[string]*watcher{}, conns: map[net.Conn]bool{}, expires: 600}
	if set != nil {
		set(n)
	}
	var err error
	if transport == "tcp" {
		n.l, err = net.Listen("tcp", "127.0.0.1:0")
		n.wg.Go(n.accept)
	} else {
		n.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		n.wg.Go(n.datagrams)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

func (n *notifier) uri() string {
	if n.transport == "tcp" {
		return "sip:" + n.l.Addr().String() + ";transport=tcp"
	}
	return "sip:" + n.udp.LocalAddr().String()
}

func (n *notifier) accept() {
	for {
		c, err := n.l.Accept()
		if err != nil {
			return
		}
		n.mu.Lock()
		n.conns[c] = true
		n.mu.Unlock()
		n.wg.Go(func() { n.read(c) })
	}
}

func (n *notifier) read(c net.Conn) {
	defer c.Close()
	p := sip.NewParser().NewSIPStream()
	buf := make([]byte, 64<<10)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return
		}
		_ = p.ParseSIPStream(buf[:k], func(m sip.Message) { n.handle(m, func(b []byte) { _, _ = c.Write(b) }) })
	}
}

func (n *notifier) datagrams() {
	buf := make([]byte, 64<<10)
	for {
		k, from, err := n.udp.ReadFromUDP(buf)
		if err != nil {
			return
		}
		if m, err := sip.ParseMessage(bytes.Clone(buf[:k])); err == nil {
			n.handle(m, func(b []byte) { _, _ = n.udp.WriteToUDP(b, from) })
		}
	}
}

func (n *notifier) handle(m sip.Message, send func([]byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch x := m.(type) {
	case *sip.Response:
		n.codes = append(n.codes, x.StatusCode)
	case *sip.Request:
		n.got = append(n.got, x)
		n.request(x, send)
	}
}

func (n *notifier) request(r *sip.Request, send func([]byte)) {
	user := r.To().Address.User
	switch {
	case string(r.Method) != "SUBSCRIBE":
		send(reply(r, 200, "OK", "pbx", ""))
	case n.refuse || n.password != "" && !n.proved(r):
		send(reply(r, 401, "Unauthorized", "pbx", "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n0nce\", qop=\"auth\", algorithm=MD5\r\n"))
	case n.answers[user] != "":
		line, extra, _ := strings.Cut(n.answers[user], "\n")
		var code int
		fmt.Sscanf(line, "%d", &code)
		if code == 423 {
			delete(n.answers, user)
		}
		send(reply(r, code, line[4:], "pbx", extra))
	default:
		tag := "pbx-" + r.CallID().Value()[:6]
		send(reply(r, 200, "OK", tag, fmt.Sprintf("Expires: %d\r\nContact: <sip:pbx@127.0.0.1>\r\n", n.expires)))
		w := n.subs[user]
		if w == nil || w.req.CallID().Value() != r.CallID().Value() {
			w = &watcher{req: r, tag: tag}
			n.subs[user] = w
		}
		w.send = send
		full, state := "full", cmp.Or(n.state, "active;expires=600")
		if n.partial {
			full = "partial"
		}
		n.notify(w, document(user, w.seq, full), state)
	}
}

// until waits for what comes by the network.
func (n *notifier) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for it: %s", what)
		}
	}
}

// proved checks the digest as RFC 7616 has it.
func (n *notifier) proved(r *sip.Request) bool {
	h := r.GetHeader("Authorization")
	if h == nil {
		return false
	}
	p := authParams(strings.TrimPrefix(h.Value(), "Digest "))
	sum := func(s string) string { x := md5.Sum([]byte(s)); return hex.EncodeToString(x[:]) }
	ha1, ha2 := sum(p["username"]+":pbx:"+n.password), sum("SUBSCRIBE:"+p["uri"])
	return p["response"] == sum(strings.Join([]string{ha1, p["nonce"], p["nc"], p["cnonce"], "auth", ha2}, ":"))
}

// notify sends a NOTIFY; n.mu is held.
func (n *notifier) notify(w *watcher, body, state string) {
	w.seq++
	to := w.req.From().Value()
	b := fmt.Sprintf("NOTIFY %s SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1;branch=z9hG4bKn%s%d\r\nMax-Forwards: 70\r\nFrom: <%s>;tag=%s\r\nTo: %s\r\n"+
		"Call-ID: %s\r\nCSeq: %d NOTIFY\r\nContact: <sip:pbx@127.0.0.1>\r\nEvent: dialog\r\nSubscription-State: %s\r\nContent-Type: application/dialog-info+xml\r\nContent-Length: %d\r\n\r\n%s",
		w.req.Contact().Address.String(), strings.ToUpper(n.transport), w.tag, w.seq, w.req.To().Address.String(), w.tag, to, w.req.CallID().Value(), w.seq, state, len(body), body)
	w.send([]byte(b))
}

// say sends a document about user.
func (n *notifier) say(user, body, state string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.subs[user]
	if w == nil {
		return fmt.Errorf("nobody watches %s", user)
	}
	n.notify(w, body, state)
	return nil
}

func (n *notifier) requests(method string) (out []*sip.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.got {
		if string(r.Method) == method {
			out = append(out, r)
		}
	}
	return out
}

// cut breaks every connection.
func (n *notifier) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Close()
	}
	clear(n.conns)
	clear(n.subs)
}

func (n *notifier) close() {
	n.mu.Lock()
	shut := n.shut
	n.shut = true
	n.mu.Unlock()
	if shut {
		return
	}
	if n.l != nil {
		n.l.Close()
	} else {
		n.udp.Close()
	}
	n.cut()
	n.wg.Wait()
}

// document is a dialog-info about user with dialogs, given as elements.
func document(user string, version int, state string, dialogs ...string) string {
	return fmt.Sprintf(`<?xml version="1.0"?><dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="%d" state="%s" entity="sip:%s@127.0.0.1">%s</dialog-info>`,
		version, state, user, strings.Join(dialogs, ""))
}

func element(id, callID, tag, direction, state, inside string) string {
	s := fmt.Sprintf(`<dialog id="%s"`, id)
	if callID != "" {
		s += fmt.Sprintf(` call-id="%s" local-tag="%s"`, callID, tag)
	}
	if direction != "" {
		s += fmt.Sprintf(` direction="%s"`, direction)
	}
	return s + ">" + state + inside + "</dialog>"
}

func in(state string) string { return "<state>" + state + "</state>" }

func with(local, remote string) string {
	return fmt.Sprintf(`<local><identity>sip:%s@pbx</identity></local><remote><identity display="X">sip:%s@pbx</identity></remote>`, local, remote)
}
