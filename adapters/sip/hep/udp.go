package hep

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

func (s *Server) openUDP(address string) error {
	a, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return fmt.Errorf("opening HEP receiver: listen: %w", err)
	}
	if s.udp, err = net.ListenUDP("udp", a); err != nil {
		return fmt.Errorf("opening HEP receiver: listen: %w", err)
	}
	return setReceive(s.udp, s.conf.ReceiveBuffer)
}

// readUDP reads datagrams until the socket is closed. It waits for nobody: what does not fit into the queue is shed.
func (s *Server) readUDP() error {
	d := NewDecoder(s.key)
	buf, control := make([]byte, MaxFrame+1), make([]byte, 64)
	for {
		n, c, _, from, err := s.udp.ReadMsgUDPAddrPort(buf, control)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receiving HEP over UDP at %s: %w", s.conf.Listen, err)
		}
		received := call.At(time.Now())
		s.overflow(control[:c])
		if !s.from.allow(from.Addr()) {
			s.counts.add(refusedSource, 1)
			continue
		}
		_ = s.accept(d, buf[:n], received, nil) // counted, and there is no connection to end
	}
}

// overflow counts what the kernel dropped since the datagram before.
func (s *Server) overflow(control []byte) {
	if total, ok := droppedBefore(control); ok && total != s.drops {
		s.counts.add(kernelDrops, int(total-s.drops))
		s.drops = total
	}
}
