package siprec

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// TestInviteFlood: INVITEs from many addresses that nobody acknowledges take bounded memory, make no call, and are gone
// a minute later; a session that exists goes on.
func TestInviteFlood(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxSessions, c.MaxStreams = 50, 50 })
	tag := b.established("good", "")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(1024+i%60000)).String()
			b.get(src, "UDP", inviteText(fmt.Sprintf("flood%d", i), ""))
		}
		b.sent = nil
	}
	flood(0, 2000)
	before := heap()
	const more = 20_000
	flood(2000, 2000+more)
	if grown := int64(heap()) - int64(before); grown > 2<<20 {
		t.Errorf("%d more INVITEs take %d KiB", more, grown>>10)
	}
	if len(b.sessions) != 50 || b.streams != 50 || b.tx.order.Len() > 50+maxRepeat || b.timers.Len() > 50*4+maxRepeat {
		t.Errorf("%d sessions, %d streams, %d transactions, %d timers", len(b.sessions), b.streams, b.tx.order.Len(), b.timers.Len())
	}
	b.counted(CountRefusedSessions, 2000+more-49)
	if n := len(b.rec.Log().Frames); n != 1 {
		t.Errorf("%d frames: an INVITE that nobody acknowledged is no call", n)
	}
	if sent := b.get(peer, "UDP", sipText("INFO", "good", tag, 2, "", "text/plain", "")); !starts(sent, "SIP/2.0 200 ") {
		t.Errorf("the session that existed: %v", sent)
	}
	b.after(100 * time.Second)
	if len(b.sessions) != 1 || b.streams != 1 || b.tx.order.Len() != 0 || b.tx.repeats != 0 || len(b.asking) != 0 {
		t.Errorf("later: %d sessions, %d streams, %d transactions, %d requests", len(b.sessions), b.streams, b.tx.order.Len(), len(b.asking))
	}
}

// TestGarbage: what is no SIP is a dead letter, a few of them a second.
func TestGarbage(t *testing.T) {
	b := newBench(t, nil)
	for i := range 1000 {
		in := (&run{s: &Server{}}).read(newParser(), fmt.Appendf(nil, "garbage %d\r\n\r\n", i), call.At(b.now), path{})
		if in.dead == nil {
			t.Fatal("garbage was parsed")
		}
		b.take(in, b.now)
	}
	if n := len(b.rec.Log().DeadLetters); n != maxDead {
		t.Errorf("%d dead letters", n)
	}
	b.counted(CountShedDead, 1000-maxDead)
	b.now = b.now.Add(time.Second)
	b.take((&run{s: &Server{}}).read(newParser(), []byte("x"), call.At(b.now), path{}), b.now)
	if n := len(b.rec.Log().DeadLetters); n != maxDead+1 {
		t.Errorf("%d dead letters a second later", n)
	}
}

func TestUnreadable(t *testing.T) {
	good := sipText("OPTIONS", "a", "", 1, "", "text/plain", "")
	tests := map[string]string{
		"no Via":              strings.Replace(good, "Via:", "X-Via:", 1),
		"no Call-ID":          strings.Replace(good, "Call-ID:", "X-Call:", 1),
		"no CSeq":             strings.Replace(good, "CSeq:", "X-Seq:", 1),
		"other method":        strings.Replace(good, "1 OPTIONS", "1 INVITE", 1),
		"line feed in a name": strings.Replace(good, "Call-ID: a", "Call-ID: a\nX: y", 1),
		"long Call-ID":        strings.Replace(good, "Call-ID: a", "Call-ID: "+strings.Repeat("a", 600), 1),
		"too long":            strings.Replace(good, "\r\n\r\n", "\r\nX: "+strings.Repeat("a", maxMessage)+"\r\n\r\n", 1),
	}
	for name, text := range tests {
		if m, err := parse(newParser(), []byte(text), 1, path{}); err == nil {
			t.Errorf("%s: parsed %+v", name, m)
		}
	}
}

// TestSpoofedBYE and RTP from a wrong source, over the network: the session is unharmed and both are counted.
func TestSpoofing(t *testing.T) {
	s := serve(t, nil)
	c := s.udp("spoof")
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa), newPhone(t, "127.0.0.1", 0xb)}
	answered(t, c.invite("", offer(1, phones), metadata("complete", "")), phones)
	thief := s.udpFrom("spoof", "127.0.0.2")
	thief.tag, thief.toTag, thief.seq, thief.branch = c.tag, c.toTag, 50, 50
	if m := thief.do("BYE", "", "", ""); m.code() != 403 {
		t.Errorf("the thief's BYE: %s", m.first)
	}
	if m := thief.do("INVITE", "", "application/sdp", offer(9, []*phone{newPhone(t, "127.0.0.2", 1)})); m.code() != 403 {
		t.Errorf("the thief's INVITE: %s", m.first)
	}
	other := newPhone(t, "127.0.0.2", 0xdead)
	other.to = phones[0].to
	wrongPort := newPhone(t, "127.0.0.1", 0xbeef)
	wrongPort.to = phones[0].to
	for range 50 {
		phones[0].sendRTP(t, phones[0].next(0))
		phones[1].sendRTP(t, phones[1].next(0))
		other.sendRTP(t, other.next(0))
		wrongPort.sendRTP(t, wrongPort.next(0))
	}
	if _, err := other.WriteToUDPAddrPort([]byte{0x80, 200, 0, 1, 0, 0, 0, 1}, netip.AddrPortFrom(phones[0].to.Addr(), phones[0].to.Port()+1)); err != nil {
		t.Fatal(err)
	}
	s.until("what was refused", func(l adaptertest.Log) bool { return l.Counts[CountUnexpectedSource] == 101 })
	if m := c.do("BYE", "", "", ""); m.code() != 200 {
		t.Errorf("the client's own BYE: %s", m.first)
	}
	l := s.until("the end", func(l adaptertest.Log) bool { return len(of(l, "spoof;pb", call.LegCleared)) > 0 })
	q := final(t, l, "spoof;pa")
	if q.Packets != 50 || q.Lost != 0 || q.Stream != "0000000a" || len(q.Flags) != 1 || q.Flags[0] != call.FlagUnexpectedSource {
		t.Errorf("the stream: %+v", q)
	}
	if l.Counts[CountSpoofed] != 3 { // BYE, INVITE, its ACK
		t.Errorf("%d requests are counted spoofed", l.Counts[CountSpoofed])
	}
}

func TestAllowFrom(t *testing.T) {
	s := serve(t, func(c *Config) { c.AllowFrom = []string{"127.0.0.1", "10.0.0.0/8"} })
	good, bad := s.udp("good"), s.udpFrom("bad", "127.0.0.2")
	bad.send(bad.text("OPTIONS", 1, 0, "", "", ""))
	if m := good.do("OPTIONS", "", "", ""); m.code() != 200 {
		t.Errorf("who may: %s", m.first)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.3")}}
	conn, err := d.Dial("tcp", s.Addr(TCP).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("who may not gets %v", err)
	}
	s.until("the refusals", func(l adaptertest.Log) bool { return l.Counts[CountRefusedSource] == 2 })
}

// TestManyConnections: ten thousand connections that say nothing are held to the limits, and a client still gets in.
func TestManyConnections(t *testing.T) {
	s := serve(t, func(c *Config) { c.MaxSessions = 100 })
	limit := maxConns(100) / 2
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	refused := 0
	for range 10_000 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 1)}}
		conn, err := d.Dial("tcp", s.Addr(TCP).String())
		if err != nil {
			t.Fatal(err)
		}
		if len(open) < limit {
			open = append(open, conn)
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == io.EOF || strings.Contains(err.Error(), "reset") {
			refused++
		}
		conn.Close()
	}
	if want := 10_000 - limit; refused != want {
		t.Errorf("%d of %d connections over the limit were closed", refused, want)
	}
	if m := s.tcp("good").do("OPTIONS", "", "", ""); m.code() != 200 {
		t.Errorf("a client from elsewhere: %s", m.first)
	}
	if n := s.rec.Log().Counts[CountRefusedConnection]; n != refused {
		t.Errorf("%d are counted", n)
	}
}

// piped is a connection to a run without an engine, over a pipe.
func piped(t *testing.T) (client net.Conn, c *conn, r *run) {
	rec := adaptertest.NewRecorder(context.Background())
	r = &run{s: &Server{}, ctx: context.Background(), out: rec, in: make(chan inbound, 100), drained: make(chan struct{}), finished: make(chan struct{})}
	ours, theirs := net.Pipe()
	c = newConn(ours, r)
	r.reading.Add(1)
	r.workers.Go(func() { c.serve(path{via: c, transport: "TCP"}) })
	t.Cleanup(func() { theirs.Close() })
	return theirs, c, r
}

func counts(r *run, name string) int { return r.out.(*adaptertest.Recorder).Log().Counts[name] }

func closedBy(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return err == io.EOF
}

func TestSlowConnections(t *testing.T) {
	options := sipText("OPTIONS", "a", "", 1, "", "text/plain", "")
	t.Run("says nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _, r := piped(t)
			time.Sleep(messageTime + time.Second)
			if !closedBy(client) || counts(r, CountSlow) != 1 {
				t.Error("it is still open")
			}
			r.workers.Wait()
		})
	})
	t.Run("drips", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _, r := piped(t)
			_, _ = io.WriteString(client, options)
			for i := 0; ; i++ {
				if _, err := io.WriteString(client, options[i:i+1]); err != nil {
					break
				}
				if i > 20 {
					t.Fatal("a byte a second keeps it open")
				}
				time.Sleep(time.Second)
			}
			if counts(r, CountSlow) != 1 || len(r.in) != 1 {
				t.Errorf("%d slow, %d messages", counts(r, CountSlow), len(r.in))
			}
			r.workers.Wait()
		})
	})
	t.Run("idle with and without a session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, c, r := piped(t)
			_, _ = io.WriteString(client, options)
			c.users.Add(1)
			time.Sleep(3 * idleTime)
			if closedBy(client) {
				t.Fatal("it is closed during a session")
			}
			c.users.Add(-1)
			time.Sleep(idleTime + time.Second)
			if !closedBy(client) {
				t.Error("it is still open after ten minutes")
			}
			r.workers.Wait()
		})
	})
	t.Run("does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, c, r := piped(t)
			for range queued + 2 {
				c.send([]byte("x"), netip.AddrPort{})
			}
			if counts(r, CountSlow) == 0 {
				t.Error("messages pile up")
			}
			client.Close()
			r.workers.Wait()
		})
	})
	t.Run("no SIP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _, r := piped(t)
			_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			synctest.Wait()
			if !closedBy(client) || counts(r, CountRefusedConnection) != 1 || (<-r.in).dead == nil {
				t.Error("it is still open")
			}
			r.workers.Wait()
		})
	})
	t.Run("keep-alive", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _, r := piped(t)
			_, _ = io.WriteString(client, options+"\r\n\r\n")
			pong := make([]byte, 2)
			_ = client.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := io.ReadFull(client, pong); err != nil && len(r.in) == 1 {
				_, _ = io.WriteString(client, "\r\n\r\n")
				_ = client.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := io.ReadFull(client, pong); err != nil || string(pong) != "\r\n" {
					t.Errorf("no pong: %q, %v", pong, err)
				}
			}
			client.Close()
			r.workers.Wait()
		})
	})
}

// TestFailingEmitter: when nothing more is taken, Run returns, and nothing is left behind.
func TestFailingEmitter(t *testing.T) {
	c := &Config{Listen: "127.0.0.1:0", RTPPorts: "40000-44999"}
	srv, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	s := &server{Server: srv, t: t, rec: adaptertest.NewRecorder(context.Background())}
	s.rec.Fail(io.ErrClosedPipe)
	done := make(chan error, 1)
	go func() { done <- srv.Run(context.Background(), s.rec) }()
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa)}
	s.tcp("a").invite("", offer(1, phones), metadata("complete", ""))
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "serving SIPREC") {
			t.Errorf("it returns %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
}
