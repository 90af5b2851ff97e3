package sim

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// unpaced is a run of n calls that takes no longer than reading it.
func unpaced(n int, seed uint64) Options {
	start := time.Date(2027, 3, 1, 9, 0, 0, 0, time.UTC)
	return Options{Seed: seed, Rate: 5, MaxCalls: n, Unpaced: true, Agents: 8, Ledger: 1 << 20, Now: func() time.Time { return start }}
}

func dial(t testing.TB, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	k, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k, bufio.NewReaderSize(k, 1<<20)
}

// dialARI opens the event websocket.
func dialARI(t testing.TB, addr, app string) (net.Conn, *bufio.Reader) {
	t.Helper()
	k, r := dial(t, addr)
	auth := base64.StdEncoding.EncodeToString([]byte("gw:gwsecret"))
	fmt.Fprintf(k, "GET /ari/events?app=%s&subscribeAll=true HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Basic %s\r\n\r\n", app, auth)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("websocket handshake: %v %v", res, err)
	}
	if got := res.Header.Get("Sec-Websocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 section 1.3
		t.Fatalf("Sec-WebSocket-Accept %q", got)
	}
	return k, r
}

// readWS reads one unmasked server frame, written from RFC 6455 section 5.2 apart from ws.go.
func readWS(r *bufio.Reader) (byte, []byte, error) {
	a, err := r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	b, err := r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, more := int(b), 0
	switch b {
	case 126:
		n, more = 0, 2
	case 127:
		n, more = 0, 8
	}
	for range more {
		x, err := r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		n = n<<8 | int(x)
	}
	p := make([]byte, n)
	_, err = io.ReadFull(r, p)
	return a & 15, p, err
}

func dialAMI(t testing.TB, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	k, r := dial(t, addr)
	if l, err := r.ReadString('\n'); err != nil || l != "Asterisk Call Manager/11.0.0\r\n" {
		t.Fatalf("banner %q %v", l, err)
	}
	fmt.Fprintf(k, "Action: Login\r\nUsername: gw\r\nSecret: gwsecret\r\nActionID: 1\r\n\r\n")
	if m := readAMI(t, r); m["Response"] != "Success" || m["ActionID"] != "1" {
		t.Fatalf("login: %v", m)
	}
	if m := readAMI(t, r); m["Event"] != "FullyBooted" {
		t.Fatalf("after login: %v", m)
	}
	return k, r
}

func readAMI(t testing.TB, r *bufio.Reader) map[string]string {
	t.Helper()
	m := map[string]string{}
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			m["error"] = err.Error()
			return m
		}
		l = strings.TrimSuffix(l, "\r\n")
		if l == "" {
			return m
		}
		k, v, _ := strings.Cut(l, ": ")
		m[k] = v
	}
}

// readESL reads one frame.
func readESL(r *bufio.Reader) (map[string]string, string, error) {
	h := map[string]string{}
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return nil, "", err
		}
		l = strings.TrimSuffix(l, "\n")
		if l == "" {
			break
		}
		k, v, _ := strings.Cut(l, ": ")
		h[k] = v
	}
	n, _ := strconv.Atoi(h["Content-Length"])
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return h, string(b), err
}

func dialESL(t testing.TB, addr, events string) (net.Conn, *bufio.Reader) {
	t.Helper()
	k, r := dial(t, addr)
	if h, _, err := readESL(r); err != nil || h["Content-Type"] != "auth/request" {
		t.Fatalf("greeting %v %v", h, err)
	}
	for _, x := range [][2]string{{"auth ClueCon", "+OK accepted"}, {events, "+OK event listener enabled"}} {
		if x[0] == "" {
			continue
		}
		fmt.Fprintf(k, "%s\n\n", x[0])
		if h, _, err := readESL(r); err != nil || !strings.HasPrefix(h["Reply-Text"], x[1]) {
			t.Fatalf("%s: %v %v", x[0], h, err)
		}
	}
	return k, r
}

func startAsterisk(t testing.TB, opt Options) *Asterisk {
	t.Helper()
	a := NewAsterisk(opt)
	if err := a.Start(context.Background(), "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func startFreeSWITCH(t testing.TB, opt Options) *FreeSWITCH {
	t.Helper()
	s := NewFreeSWITCH(opt)
	if err := s.Start(context.Background(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func decode(t testing.TB, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return m
}

func gunzip(t testing.TB, r io.Reader) []byte {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
