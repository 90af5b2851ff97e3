//go:build live

package live_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// Load of TestRTPLoad: streams × packets each 5 ms.
const (
	loadStreams = 50
	loadBurst   = 10
	loadEvery   = 5 * time.Millisecond
	loadFor     = 5 * time.Second
	loadSIP     = 25998 // and the port after it
	loadRTP     = 46000
)

// TestRTPLoad: the gateway captures 100,000 RTP packets a second on loopback, measures every one, and the kernel drops
// none. The sender is this process, on the same two cores.
func TestRTPLoad(t *testing.T) {
	dir := t.TempDir()
	g := start(t, settings{whole: fmt.Sprintf(`switches:
  - id: wire
    kind: sip
    capture: {interface: lo, ports: ["%d-%d", "%d-%d"]}
sinks:
  - kind: file
    dir: %q
telemetry:
  listen: "127.0.0.1:0"
`, loadSIP, loadSIP+1, loadRTP, loadRTP+2*loadStreams, dir)})
	g.waitReady()
	calls := newRTPLoad(t)
	calls.signal("INVITE")
	sent, took := calls.speak(t)
	calls.signal("BYE")
	rate := float64(sent) / took.Seconds()
	t.Logf("%d packets in %s: %.0f a second", sent, took.Round(time.Millisecond), rate)
	if rate < 95_000 {
		t.Fatalf("only %.0f packets a second were sent", rate)
	}
	g.waitIdle()
	notes := g.notes()
	if notes["kernel_drops"] != 0 || notes["rtp_of_no_call"] != 0 || notes["rtp_unexpected_source"] != 0 {
		t.Errorf("counted: %v", notes)
	}
	packets, lost := measured(t, filepath.Join(dir, "records.jsonl"))
	if packets != sent || lost != 0 {
		t.Errorf("%d packets were measured and %d lost, %d were sent", packets, lost, sent)
	}
}

var noteLine = regexp.MustCompile(`(?m)^cti_link_notes_total\{.*name="([a-z_]+)".*\} ([0-9.e+]+)$`)

// notes are the link's counters by name.
func (g *gateway) notes() map[string]int {
	g.t.Helper()
	resp, err := http.Get(g.url + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	var text strings.Builder
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		text.WriteString(s.Text() + "\n")
	}
	out := map[string]int{}
	for _, m := range noteLine.FindAllStringSubmatch(text.String(), -1) {
		n, _ := strconv.ParseFloat(m[2], 64)
		out[m[1]] += int(n)
	}
	return out
}

// measured sums what the records say of streams.
func measured(t *testing.T, file string) (packets, lost int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var r struct {
			Data struct {
				Connections []struct {
					Media struct{ Packets, Lost int }
				}
			}
		}
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Data.Connections {
			packets, lost = packets+c.Media.Packets, lost+c.Media.Lost
		}
	}
	return packets, lost
}

// rtpLoad is calls between two signalling sockets, with a stream each.
type rtpLoad struct {
	t        *testing.T
	caller   *net.UDPConn
	callee   *net.UDPConn
	streams  []*ipv4.PacketConn
	to       []*net.UDPAddr
	messages [][]ipv4.Message
}

func listenUDP(t *testing.T, port int) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newRTPLoad(t *testing.T) *rtpLoad {
	l := &rtpLoad{t: t, caller: listenUDP(t, loadSIP), callee: listenUDP(t, loadSIP+1)}
	for i := range loadStreams {
		from := listenUDP(t, loadRTP+2*i)
		listenUDP(t, loadRTP+2*i+1) // what is sent has somewhere to go; nobody reads it
		l.streams = append(l.streams, ipv4.NewPacketConn(from))
		to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: loadRTP + 2*i + 1}
		batch := make([]ipv4.Message, loadBurst)
		for j := range batch {
			p := make([]byte, 172)
			p[0] = 0x80
			binary.BigEndian.PutUint32(p[8:], uint32(i+1))
			batch[j] = ipv4.Message{Buffers: [][]byte{p}, Addr: to}
		}
		l.messages = append(l.messages, batch)
	}
	return l
}

// signal begins or ends every call.
func (l *rtpLoad) signal(method string) {
	for i := range loadStreams {
		head := fmt.Sprintf("Via: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK%s%d\r\nFrom: <sip:100@x>;tag=f\r\nTo: <sip:200@x>%%s\r\nCall-ID: load-%d\r\nCSeq: 1 %s\r\n", loadSIP, method, i, i, method)
		sdp := func(port int) string {
			return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\n", port)
		}
		say := func(from *net.UDPConn, port int, first, tag, body string) {
			text := first + "\r\n" + fmt.Sprintf(head, tag)
			if body != "" {
				text += "Content-Type: application/sdp\r\n"
			}
			text += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
			if _, err := from.WriteToUDP([]byte(text), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil {
				l.t.Fatal(err)
			}
		}
		if method == "INVITE" {
			say(l.caller, loadSIP+1, "INVITE sip:200@x SIP/2.0", "", sdp(loadRTP+2*i))
			say(l.callee, loadSIP, "SIP/2.0 200 OK", ";tag=t", sdp(loadRTP+2*i+1))
		} else {
			say(l.caller, loadSIP+1, "BYE sip:200@x SIP/2.0", ";tag=t", "")
		}
	}
}

// speak sends a burst on every stream each loadEvery, for loadFor.
func (l *rtpLoad) speak(t *testing.T) (sent int, took time.Duration) {
	began := time.Now()
	seq := 0
	for next := began; time.Since(began) < loadFor; next = next.Add(loadEvery) {
		time.Sleep(time.Until(next))
		for i, conn := range l.streams {
			for j := range l.messages[i] {
				p := l.messages[i][j].Buffers[0]
				binary.BigEndian.PutUint16(p[2:], uint16(seq+j))
				binary.BigEndian.PutUint32(p[4:], uint32(seq+j)*4) // 2,000 packets a second at 8 kHz
			}
			for rest := l.messages[i]; len(rest) > 0; {
				n, err := conn.WriteBatch(rest, 0)
				if err != nil {
					t.Fatal(err)
				}
				sent, rest = sent+n, rest[n:]
			}
		}
		seq += loadBurst
	}
	return sent, time.Since(began)
}
