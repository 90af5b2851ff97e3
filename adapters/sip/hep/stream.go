package hep

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// acceptPause is how long accepting rests after it failed, mostly for want of file descriptors.
const acceptPause = 100 * time.Millisecond

func (s *Server) openTLS() error {
	c, err := s.conf.TLS.load()
	if err != nil {
		return fmt.Errorf("opening HEP receiver: %w", err)
	}
	l, err := net.Listen("tcp", s.conf.ListenTLS)
	if err != nil {
		return fmt.Errorf("opening HEP receiver: listen_tls: %w", err)
	}
	s.tls = tls.NewListener(l, c)
	return nil
}

// serve accepts connections until the listener is closed, and returns when all of them have ended.
func (s *Server) serve(l net.Listener, read func(*peer)) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			select {
			case <-time.After(acceptPause):
			case <-s.closing:
			}
			continue
		}
		if p := s.admit(conn); p != nil {
			readers.Go(func() {
				defer s.peers.remove(p)
				read(p)
			})
		}
	}
}

// admit gives a connection its place, or closes it and returns nil.
func (s *Server) admit(conn net.Conn) *peer {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil || !s.from.allow(from.Addr()) {
		s.counts.add(refusedSource, 1)
		_ = conn.Close()
		return nil
	}
	p := &peer{conn: conn}
	ok, evicted := s.peers.add(p)
	if evicted || !ok {
		s.counts.add(refusedConnection, 1)
	}
	if !ok {
		_ = conn.Close()
		return nil
	}
	return p
}

// secured does the handshake of TLS first.
func (s *Server) secured(p *peer) {
	_ = p.conn.SetDeadline(time.Now().Add(s.conf.FrameTimeout))
	if err := p.conn.(*tls.Conn).Handshake(); err != nil {
		s.counts.add(refusedConnection, 1)
		return
	}
	_ = p.conn.SetDeadline(time.Time{})
	s.plain(p)
}

// plain reads the frames of one connection until it ends, is silent for too long, breaks the framing or has no key.
func (s *Server) plain(p *peer) {
	d := NewDecoder(s.key)
	r := newFrameReader(p.conn, s.conf.IdleTimeout, s.conf.FrameTimeout)
	for {
		raw, err := r.next()
		if err == errMagic || err == errShort {
			s.deadLetter(raw, err, r.received())
		}
		if err != nil {
			return
		}
		if s.accept(d, raw, r.received(), p) == ErrKey {
			return
		}
	}
}

// deadlineReader is the part of net.Conn that frames are read by.
type deadlineReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// timedReader notes when the last bytes left the socket.
type timedReader struct {
	conn deadlineReader
	at   time.Time
}

func (t *timedReader) Read(b []byte) (int, error) {
	n, err := t.conn.Read(b)
	t.at = time.Now()
	return n, err
}

// frameReader cuts a stream into frames by the length each has in its header.
type frameReader struct {
	src         timedReader
	br          *bufio.Reader
	idle, frame time.Duration
	taken       int // bytes of the frame that was given last
}

func newFrameReader(conn deadlineReader, idle, frame time.Duration) *frameReader {
	r := &frameReader{src: timedReader{conn: conn}, idle: idle, frame: frame}
	r.br = bufio.NewReaderSize(&r.src, MaxFrame+1)
	return r
}

// received is when the last byte of the frame left the socket.
func (r *frameReader) received() call.Time { return call.At(r.src.at) }

// next gives one frame, valid until the next call. errMagic and errShort mean that the stream is no HEP or out of step;
// then the bytes are what is there.
func (r *frameReader) next() ([]byte, error) {
	_, _ = r.br.Discard(r.taken)
	r.taken = 0
	if err := r.await(); err != nil {
		return nil, err
	}
	head, err := r.br.Peek(frameHeader)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[4:]))
	if string(head[:4]) != "HEP3" || n < frameHeader {
		b, _ := r.br.Peek(r.br.Buffered())
		return b, faultOf(head)
	}
	raw, err := r.br.Peek(n)
	r.taken = len(raw)
	return raw, err
}

func faultOf(head []byte) error {
	if string(head[:4]) != "HEP3" {
		return errMagic
	}
	return errShort
}

// await waits for a frame's first byte for as long as a connection may be idle, and limits the time for the rest of it.
func (r *frameReader) await() error {
	if r.br.Buffered() == 0 {
		_ = r.src.conn.SetReadDeadline(time.Now().Add(r.idle))
		if _, err := r.br.Peek(1); err != nil {
			return err
		}
	}
	return r.src.conn.SetReadDeadline(time.Now().Add(r.frame))
}
