package siprec

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	readBuffer  = 1 << 20                // of the UDP socket, asked of the kernel
	acceptPause = 100 * time.Millisecond // after accepting failed, mostly for want of file descriptors
)

// sockets are what the server listens on.
type sockets struct {
	udp *net.UDPConn
	tcp net.Listener
	tls net.Listener
}

func (s *Server) open() (*sockets, error) {
	for tries := 8; ; tries-- {
		b := &sockets{}
		err := s.openInto(b)
		if err == nil {
			return b, nil
		}
		b.close()
		// Of port 0 the system gives UDP one, and TCP's of that number may be another program's.
		if tries == 0 || !strings.HasSuffix(s.cfg.Listen, ":0") || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("opening SIPREC server: %w", err)
		}
	}
}

func (s *Server) openInto(b *sockets) error {
	listen := s.cfg.Listen
	if slices.Contains(s.cfg.Transports, UDP) {
		addr, err := net.ResolveUDPAddr("udp", listen)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if b.udp, err = net.ListenUDP("udp", addr); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		_ = b.udp.SetReadBuffer(readBuffer) // the kernel may give less
		listen = b.udp.LocalAddr().String() // TCP has the same port
	}
	var err error
	if slices.Contains(s.cfg.Transports, TCP) {
		if b.tcp, err = net.Listen("tcp", listen); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	if !slices.Contains(s.cfg.Transports, TLS) {
		return nil
	}
	conf, err := s.cfg.TLS.config()
	if err != nil {
		return err
	}
	if b.tls, err = net.Listen("tcp", s.cfg.TLS.Listen); err != nil {
		return fmt.Errorf("tls.listen: %w", err)
	}
	b.tls = tls.NewListener(b.tls, conf)
	return nil
}

func (b *sockets) close() {
	if b.udp != nil {
		_ = b.udp.Close()
	}
	b.closeListeners()
}

func (b *sockets) closeListeners() {
	for _, l := range []net.Listener{b.tcp, b.tls} {
		if l != nil {
			l.Close()
		}
	}
}

// addrs are the bound addresses by transport.
func (b *sockets) addrs() map[string]netip.AddrPort {
	m := map[string]netip.AddrPort{}
	if b.udp != nil {
		m[UDP] = addrPort(b.udp.LocalAddr())
	}
	if b.tcp != nil {
		m[TCP] = addrPort(b.tcp.Addr())
	}
	if b.tls != nil {
		m[TLS] = addrPort(b.tls.Addr())
	}
	return m
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return plain(ap)
}

// plain is the address without IPv6's mapping and zone, to compare by.
func plain(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// allowed reports whether a recording client may come from ip.
func (s *Server) allowed(ip netip.Addr) bool {
	return len(s.allow) == 0 || slices.ContainsFunc(s.allow, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// udpSender writes to the listening socket.
type udpSender struct{ conn *net.UDPConn }

func (u udpSender) send(b []byte, to netip.AddrPort) {
	_, _ = u.conn.WriteToUDPAddrPort(b, to) // what is lost is retransmitted
}

// readUDP reads datagrams until the socket's deadline is moved to the past.
func (r *run) readUDP(conn *net.UDPConn) {
	parser, buf := newParser(), make([]byte, 64<<10)
	from := path{via: udpSender{conn}, transport: "UDP", local: r.advertised(addrPort(conn.LocalAddr()))}
	for {
		n, src, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) || r.stopping() {
			return
		}
		if err != nil {
			continue // an ICMP error of something sent before
		}
		at := call.At(time.Now())
		from.src = plain(src)
		switch {
		case !r.s.allowed(from.src.Addr()):
			r.out.Count(CountRefusedSource, 1)
		case !keepAlive(buf[:n]):
			r.push(r.read(parser, slices.Clone(buf[:n]), at, from), false)
		}
	}
}

// keepAlive: line ends and nothing else, or a null datagram (RFC 5626; SIP Outbound's older forms).
func keepAlive(b []byte) bool {
	for _, c := range b {
		if c != '\r' && c != '\n' && c != 0 {
			return false
		}
	}
	return true
}

// inbound is one message, or bytes that are none.
type inbound struct {
	msg  *message
	dead *core.DeadLetter
}

func (r *run) read(p parser, raw []byte, at call.Time, from path) inbound {
	m, err := parse(p, raw, at, from)
	if err != nil {
		return inbound{dead: &core.DeadLetter{Raw: raw, Reason: err.Error() + ", from " + from.src.String(), Received: at}}
	}
	return inbound{msg: m}
}

// push hands a message to the engine. A connection waits; a datagram that finds the queue full is dropped and counted.
func (r *run) push(in inbound, wait bool) {
	if !wait {
		select {
		case r.in <- in:
		default:
			r.out.Count(CountShedMessages, 1)
		}
		return
	}
	select {
	case r.in <- in:
	case <-r.drained:
		r.out.Count(core.CountDropped, 1)
	}
}

// accept takes connections until the listener is closed.
func (r *run) accept(l net.Listener, transport string) {
	local := r.advertised(addrPort(l.Addr()))
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || r.stopping() {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			pause(r.ctx, acceptPause)
			continue
		}
		r.admit(nc, path{transport: transport, src: addrPort(nc.RemoteAddr()), local: local})
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// admit serves a connection, or closes it when there are too many.
func (r *run) admit(nc net.Conn, from path) {
	if !r.s.allowed(from.src.Addr()) {
		r.out.Count(CountRefusedSource, 1)
		nc.Close()
		return
	}
	c := newConn(nc, r)
	if !r.conns.add(c, from.src.Addr()) {
		r.out.Count(CountRefusedConnection, 1)
		nc.Close()
		return
	}
	from.via = c
	r.reading.Add(1)
	r.workers.Go(func() {
		defer r.conns.remove(c, from.src.Addr())
		c.serve(from)
	})
}
