package dialoginfo

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	dialTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	// inbox is how many messages may wait for the session. Over UDP what comes beyond is shed: the PBX sends it again.
	inbox = 1024
	// maxMessage bounds one message of a stream, headers and body.
	maxMessage = MaxBytes + 64<<10

	countShedDatagrams = "datagrams_shed"
	countSkippedBytes  = "stream_bytes_skipped"
)

// message is the bytes of one SIP message.
type message struct {
	raw      []byte
	received call.Time
}

// conn is the connection to the PBX. A connected UDP socket takes datagrams of nobody else, and the PBX is the only peer
// of a stream: that is how the source of a message is checked.
type conn struct {
	net.Conn
	stream bool
	in     chan message // closed when nothing more comes
	done   chan struct{}
	once   sync.Once
	ended  sync.WaitGroup
	mu     sync.Mutex
	err    error // why it ended
}

func dial(ctx context.Context, cfg *Config, srv server) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	local, err := cfg.local()
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	if srv.transport == "udp" {
		if local != (netip.AddrPort{}) {
			d.LocalAddr = net.UDPAddrFromAddrPort(local)
		}
		return d.DialContext(ctx, "udp", srv.addr)
	}
	if local != (netip.AddrPort{}) {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	if srv.transport == "tcp" {
		return d.DialContext(ctx, "tcp", srv.addr)
	}
	var settings core.TLS
	if cfg.TLS != nil {
		settings = *cfg.TLS
	}
	host, _, _ := net.SplitHostPort(srv.addr)
	tc, err := settings.Client("tls", host)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: &d, Config: tc}).DialContext(ctx, "tcp", srv.addr)
}

// newConn starts reading from c.
func newConn(c net.Conn, stream bool, count func(string, int)) *conn {
	k := &conn{Conn: c, stream: stream, in: make(chan message, inbox), done: make(chan struct{})}
	k.ended.Go(func() {
		defer close(k.in)
		if stream {
			k.fail(k.readStream(count))
		} else {
			k.fail(k.readDatagrams(count))
		}
	})
	return k
}

// fail ends the connection; the first error stays its cause.
func (k *conn) fail(err error) {
	k.mu.Lock()
	if k.err == nil {
		k.err = err
	}
	k.mu.Unlock()
	k.once.Do(func() {
		close(k.done)
		_ = k.Conn.Close()
	})
}

func (k *conn) cause() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// close ends the connection and waits for its reader.
func (k *conn) close() {
	k.fail(net.ErrClosed)
	k.ended.Wait()
}

// send writes one message. A failure ends the connection.
func (k *conn) send(b []byte) {
	_ = k.SetWriteDeadline(time.Now().Add(writeTimeout)) // a failure shows in Write
	if _, err := k.Write(b); err != nil {
		k.fail(fmt.Errorf("sending to the PBX: %w", err))
	}
}

func (k *conn) readDatagrams(count func(string, int)) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := k.Read(buf)
		if err != nil {
			return fmt.Errorf("reading from the PBX: %w", err)
		}
		if len(bytes.Trim(buf[:n], "\r\n\x00 ")) == 0 {
			continue // a keep-alive (RFC 5626, 3.5.1)
		}
		select {
		case k.in <- message{raw: bytes.Clone(buf[:n]), received: call.At(time.Now())}:
		default:
			count(countShedDatagrams, 1)
		}
	}
}

// readStream takes messages out of a stream. Bytes that are none are read past and counted.
func (k *conn) readStream(count func(string, int)) error {
	f, buf := framer.New(maxMessage), make([]byte, 32<<10)
	for {
		n, err := k.Read(buf)
		now, before := call.At(time.Now()), f.Stats()
		over := false
		f.Write(buf[:n], func(b []byte) {
			select {
			case k.in <- message{raw: bytes.Clone(b), received: now}:
			case <-k.done:
				over = true
			}
		})
		if skipped := f.Stats().Skipped - before.Skipped; skipped > 0 {
			count(countSkippedBytes, int(skipped))
		}
		if over {
			return net.ErrClosed
		}
		if err != nil {
			return fmt.Errorf("reading from the PBX: %w", err)
		}
	}
}
