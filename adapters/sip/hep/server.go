package hep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

const (
	flushEvery    = time.Second
	deadPerFlush  = 100     // malformed frames handed on in that time; anyone can send more
	maxDeadLetter = 4 << 10 // bytes of a malformed frame that are handed on
)

// Server receives HEP frames over UDP, TCP and TLS.
type Server struct {
	conf     Config
	key      string
	from     networks
	udp      *net.UDPConn
	tcp, tls net.Listener
	queue    *queue
	peers    peers
	counts   counters
	dead     atomic.Int64 // malformed frames that may still be handed on before the next flush
	drops    uint32       // what the kernel said last; of the UDP reader
	closing  chan struct{}
	once     sync.Once
}

// Listen checks c and opens its sockets. What comes is read by Run; Close is for a server that is never run.
func Listen(c Config) (*Server, error) {
	if errs := c.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("opening HEP receiver: %w", errors.Join(errs...))
	}
	c = c.withDefaults()
	s := &Server{conf: c, queue: newQueue(c.QueueBytes), closing: make(chan struct{})}
	s.peers.limit = c.MaxConnections
	s.dead.Store(deadPerFlush)
	s.from, _ = parseNetworks(c.AllowFrom)
	var err error
	if s.key, err = s.readKey(); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// readKey refuses an empty key where one is configured: it would let everybody in.
func (s *Server) readKey() (string, error) {
	key, err := s.conf.Key.Reveal()
	if err != nil {
		return "", fmt.Errorf("opening HEP receiver: key: %w", err)
	}
	if key == "" && !s.conf.Key.IsZero() {
		return "", errors.New("opening HEP receiver: key: the secret is empty; give the agents' authentication key, or leave key out")
	}
	return key, nil
}

func (s *Server) open() error {
	for tries := 8; ; tries-- {
		err := s.openPlain()
		if err == nil {
			break
		}
		// Of port 0 the system gives UDP one, and TCP's of that number may be another program's.
		if tries == 0 || s.udp == nil || !strings.HasSuffix(s.conf.Listen, ":0") || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		_ = s.udp.Close()
		s.udp = nil
	}
	if s.conf.has(TLS) {
		return s.openTLS()
	}
	return nil
}

// openPlain opens the sockets of UDP and TCP, which share a port.
func (s *Server) openPlain() error {
	address := s.conf.Listen
	if s.conf.has(UDP) {
		if err := s.openUDP(address); err != nil {
			return err
		}
		address = s.udp.LocalAddr().String()
	}
	if s.conf.has(TCP) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("opening HEP receiver: listen: %w", err)
		}
		s.tcp = l
	}
	return nil
}

// Addr is where UDP and TCP are received, and AddrTLS where TLS is; nil for what is not.
func (s *Server) Addr() net.Addr {
	if s.udp != nil {
		return s.udp.LocalAddr()
	}
	if s.tcp != nil {
		return s.tcp.Addr()
	}
	return nil
}

// AddrTLS is where TLS connections are received; nil when they are not.
func (s *Server) AddrTLS() net.Addr {
	if s.tls == nil {
		return nil
	}
	return s.tls.Addr()
}

// Close closes all sockets, which ends Run.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.closing)
		s.queue.close()
		if s.udp != nil {
			_ = s.udp.Close()
		}
		for _, l := range []net.Listener{s.tcp, s.tls} {
			if l != nil {
				_ = l.Close()
			}
		}
		s.peers.close()
	})
}

// Run receives until ctx ends, which gives nil, or a socket fails. h, count and dead are called from this goroutine
// alone: h for every packet in the order of arrival, where the order of each connection and of each UDP source is kept;
// count with the names in this package; dead with the first bytes of a malformed frame, which it copies if it keeps
// them, and what was wrong with it. All goroutines have ended when Run returns, and a Server runs once.
func (s *Server) Run(ctx context.Context, h wire.Handler, count func(name string, n int), dead func(raw []byte, reason string, received call.Time)) error {
	defer s.Close()
	defer context.AfterFunc(ctx, s.Close)()
	errs := make(chan error, 3)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.receive(errs)
	}()
	s.consume(ended, h, count, dead)
	close(errs)
	return <-errs
}

// receive runs all readers. The first that fails ends the others.
func (s *Server) receive(errs chan<- error) {
	var readers sync.WaitGroup
	start := func(read func() error) {
		readers.Go(func() {
			defer s.Close()
			if err := read(); err != nil {
				errs <- err
			}
		})
	}
	if s.udp != nil {
		start(s.readUDP)
	}
	if s.tcp != nil {
		start(func() error { return s.serve(s.tcp, s.plain) })
	}
	if s.tls != nil {
		start(func() error { return s.serve(s.tls, s.secured) })
	}
	readers.Wait()
}

// consume handles what the readers queue until they have all ended, and then what is left.
func (s *Server) consume(ended <-chan struct{}, h wire.Handler, count func(string, int), dead func([]byte, string, call.Time)) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var b batch
	for open := true; open; {
		select {
		case <-s.queue.wake:
		case <-tick.C:
			s.counts.flush(count)
			s.dead.Store(deadPerFlush)
		case <-ended:
			open = false
		}
		s.queue.take(&b)
		b.handle(h, dead)
		b.reset()
	}
	s.counts.flush(count)
}

func (b *batch) handle(h wire.Handler, dead func([]byte, string, call.Time)) {
	for i := range b.entries {
		e := &b.entries[i]
		raw := b.bytes[e.from:e.to:e.to]
		if e.reason != "" {
			dead(raw, e.reason, e.packet.Received)
			continue
		}
		e.packet.Payload = raw
		h(&e.packet)
	}
}

// accept decodes one frame and queues what it holds. Over a connection, for which from is not nil, a full queue is
// waited for, and the peer is known to be an agent before anybody sees its frame. The error is Decode's; it has been
// counted.
func (s *Server) accept(d *Decoder, raw []byte, received call.Time, from *peer) error {
	var p wire.Packet
	err := d.Decode(raw, received, &p)
	if from != nil && (err == nil || err == ErrProtocol) {
		s.peers.proved(from)
	}
	switch err {
	case nil:
		if !s.queue.put(&p, p.Payload, "", from != nil) {
			s.counts.add(shed(p.Kind), 1)
		}
	case ErrKey:
		s.counts.add(badKey, 1)
	case ErrProtocol:
		s.counts.add(otherProtocol, 1)
	default:
		s.deadLetter(raw, err, received)
	}
	return err
}

func shed(k wire.Kind) counter {
	if k == wire.SIP {
		return shedSIP
	}
	return shedRTP
}

// deadLetter hands on the first few malformed frames of each second.
func (s *Server) deadLetter(raw []byte, err error, received call.Time) {
	s.counts.add(badFrame, 1)
	if s.dead.Add(-1) < 0 || !s.queue.put(&wire.Packet{Received: received}, raw[:min(len(raw), maxDeadLetter)], err.Error(), false) {
		s.counts.add(shedDead, 1)
	}
}
