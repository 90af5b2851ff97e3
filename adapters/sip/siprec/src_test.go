package siprec

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// server runs one on loopback ports that are free, until the test ends.
type server struct {
	*Server
	t    testing.TB
	rec  *adaptertest.Recorder
	stop func() error
}

func serve(t testing.TB, change func(c *Config)) *server {
	t.Helper()
	c := &Config{Listen: "127.0.0.1:0", RTPPorts: "40000-44999"}
	if change != nil {
		change(c)
	}
	s, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	rec := adaptertest.NewRecorder(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, rec) }()
	stopped := false
	r := &server{Server: s, t: t, rec: rec}
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			panic("the server does not stop")
		}
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// until waits for what was emitted to satisfy ok.
func (s *server) until(what string, ok func(l adaptertest.Log) bool) adaptertest.Log {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		l := s.rec.Log()
		if ok(l) {
			return l
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for %s; %d frames, counts %v", what, len(l.Frames), l.Counts)
		}
		time.Sleep(time.Millisecond)
	}
}

// observations are those of a kind, of all frames.
func observations(l adaptertest.Log, kinds ...call.Kind) (out []call.Observation) {
	for _, f := range l.Frames {
		for _, o := range f.Observations {
			for _, k := range kinds {
				if o.Kind == k {
					out = append(out, o)
				}
			}
		}
	}
	return out
}

// client is a recording client. It shares no code with the server.
type client struct {
	t      testing.TB
	conn   net.Conn
	br     *bufio.Reader // of a stream
	proto  string
	callID string
	tag    string
	toTag  string
	target string
	seq    int
	branch int
}

func newClient(t testing.TB, proto string, conn net.Conn, callID string) *client {
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, conn: conn, proto: proto, callID: callID, tag: "src" + callID, target: "sip:srs@" + conn.RemoteAddr().String()}
	if proto != "UDP" {
		c.br = bufio.NewReader(conn)
	}
	return c
}

func (s *server) udp(callID string) *client { return s.udpFrom(callID, "127.0.0.1") }

func (s *server) udpFrom(callID, ip string) *client {
	s.t.Helper()
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)}, net.UDPAddrFromAddrPort(s.Addr(UDP)))
	if err != nil {
		s.t.Fatal(err)
	}
	return newClient(s.t, "UDP", conn, callID)
}

func (s *server) tcp(callID string) *client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Addr(TCP).String())
	if err != nil {
		s.t.Fatal(err)
	}
	return newClient(s.t, "TCP", conn, callID)
}

func (s *server) tls(callID string, conf *tls.Config) *client {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.Addr(TLS).String(), conf)
	if err != nil {
		s.t.Fatal(err)
	}
	return newClient(s.t, "TLS", conn, callID)
}

func (c *client) to() string {
	if c.toTag == "" {
		return "<sip:srs@ctigate>"
	}
	return "<sip:srs@ctigate>;tag=" + c.toTag
}

// text writes a request; branch 0 takes a new one.
func (c *client) text(method string, seq, branch int, headers, kind, body string) string {
	if branch == 0 {
		c.branch++
		branch = c.branch
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK%s%d;rport\r\nMax-Forwards: 70\r\n", method, c.target, c.proto, c.conn.LocalAddr(), c.callID, branch)
	fmt.Fprintf(&b, "From: <sip:src@sbc>;tag=%s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:src@%s>;+sip.src\r\n%s", c.tag, c.to(), c.callID, seq, method, c.conn.LocalAddr(), headers)
	if kind != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", kind)
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// msg is a message of the server's.
type msg struct {
	first  string
	header textproto.MIMEHeader
	body   string
}

func (m msg) code() int {
	f := strings.Fields(m.first)
	if len(f) < 2 || f[0] != "SIP/2.0" {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// receive reads the next message, of any kind.
func (c *client) receive() msg {
	c.t.Helper()
	m, err := c.tryReceive(time.Minute)
	if err != nil {
		c.t.Fatalf("reading a response: %v", err)
	}
	return m
}

func (c *client) tryReceive(within time.Duration) (m msg, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(within))
	br := c.br
	if br == nil {
		buf := make([]byte, 64<<10)
		n, err := c.conn.Read(buf)
		if err != nil {
			return m, err
		}
		br = bufio.NewReader(strings.NewReader(string(buf[:n])))
	}
	tp := textproto.NewReader(br)
	if m.first, err = tp.ReadLine(); err != nil {
		return m, err
	}
	if m.header, err = tp.ReadMIMEHeader(); err != nil {
		return m, err
	}
	n, _ := strconv.Atoi(m.header.Get("Content-Length"))
	b := make([]byte, n)
	_, err = io.ReadFull(br, b)
	m.body = string(b)
	return m, err
}

// response reads the next response to method, passing over the server's own requests and repeated responses to others.
func (c *client) response(method string, seq int) msg {
	c.t.Helper()
	for {
		m := c.receive()
		if m.code() >= 200 && m.header.Get("Cseq") == fmt.Sprintf("%d %s", seq, method) {
			return m
		}
	}
}

// do sends a request and returns its final response, and acknowledges that of an INVITE.
func (c *client) do(method, headers, kind, body string) msg {
	c.t.Helper()
	c.seq++
	c.send(c.text(method, c.seq, 0, headers, kind, body))
	branch := c.branch
	m := c.response(method, c.seq)
	if method != "INVITE" {
		return m
	}
	if m.code() < 300 {
		_, c.toTag, _ = strings.Cut(m.header.Get("To"), ";tag=")
		branch = 0
	}
	c.send(c.text("ACK", c.seq, branch, "", "", ""))
	return m
}

// invite begins a recording session, with multipart metadata.
func (c *client) invite(headers, sdp, metadata string) msg {
	c.t.Helper()
	return c.do("INVITE", "Require: siprec\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n"+headers, "multipart/mixed;boundary=xyz", multipartBody(sdp, metadata))
}

func multipartBody(sdp, metadata string) string {
	return "--xyz\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--xyz\r\nContent-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n" + metadata + "\r\n--xyz--\r\n"
}

// phone is one media socket of the client.
type phone struct {
	*net.UDPConn
	to   netip.AddrPort // as answered
	ssrc uint32
	seq  uint16
	ts   uint32
}

func newPhone(t testing.TB, ip string, ssrc uint32) *phone {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &phone{UDPConn: c, ssrc: ssrc, seq: 65500, ts: 0xfffff000} // both wrap
}

func (p *phone) port() int { return int(addrPort(p.LocalAddr()).Port()) }

// next is the next packet of 20 ms of µ-law.
func (p *phone) next(pt uint8) []byte {
	b := make([]byte, 12+160)
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], p.seq)
	binary.BigEndian.PutUint32(b[4:], p.ts)
	binary.BigEndian.PutUint32(b[8:], p.ssrc)
	for i := range b[12:] {
		b[12+i] = 0xd5 ^ byte(i%7)
	}
	p.seq++
	p.ts += 160
	return b
}

func (p *phone) sendRTP(t testing.TB, b []byte) {
	t.Helper()
	if _, err := p.WriteToUDPAddrPort(b, p.to); err != nil {
		t.Fatal(err)
	}
}

// offer is two streams with labels 96 and 97, each with its attributes.
func offer(version int, phones []*phone, attributes ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=src 1 %d IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n", version)
	for i, p := range phones {
		extra := "a=sendonly\r\n"
		if i < len(attributes) && attributes[i] != "" {
			extra = attributes[i]
		}
		profile := "RTP/AVP"
		if strings.Contains(extra, "a=crypto") {
			profile = "RTP/SAVP"
		}
		fmt.Fprintf(&b, "m=audio %d %s 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=label:%d\r\n%s", p.port(), profile, 96+i, extra)
	}
	return b.String()
}

// answered takes the ports of an answer.
func answered(t testing.TB, m msg, phones []*phone) {
	t.Helper()
	if m.code() != 200 {
		t.Fatalf("the answer is %s, %v", m.first, m.header)
	}
	i := 0
	for _, line := range strings.Split(m.body, "\r\n") {
		if f := strings.Fields(line); strings.HasPrefix(line, "m=audio") && i < len(phones) {
			n, _ := strconv.Atoi(f[1])
			phones[i].to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(n))
			i++
		}
	}
	if i != len(phones) {
		t.Fatalf("%d m= lines for %d streams in %q", i, len(phones), m.body)
	}
}

// metadata is of a call from 5551230001 to agent1: stream 96 is the caller's.
func metadata(mode, more string) string {
	return `<?xml version="1.0"?><recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>` + mode + `</datamode>
<session session_id="cs"><sipSessionID>original@pbx</sipSessionID></session>
<participant participant_id="pa"><nameID aor="sip:5551230001@trunk"><name>Ann</name></nameID></participant>
<participant participant_id="pb"><nameID aor="sip:agent1@pbx"><name>Bert</name></nameID></participant>
<stream stream_id="sa" session_id="cs"><label>96</label></stream><stream stream_id="sb" session_id="cs"><label>97</label></stream>
<participantstreamassoc participant_id="pa"><send>sa</send><recv>sb</recv></participantstreamassoc>
<participantstreamassoc participant_id="pb"><send>sb</send><recv>sa</recv></participantstreamassoc>` + more + `</recording>`
}
