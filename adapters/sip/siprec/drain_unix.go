//go:build linux || darwin || freebsd

package siprec

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// drain takes what lies in the socket's buffer, past its deadline and without waiting.
func drain(c *net.UDPConn, buf []byte, take func(at call.Time, src netip.AddrPort, b []byte)) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for range maxDrained {
			n, from, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_DONTWAIT)
			if err != nil {
				return
			}
			take(call.At(time.Now()), source(from), buf[:n])
		}
	})
}

func source(from syscall.Sockaddr) netip.AddrPort {
	switch a := from.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return plain(netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)))
	}
	return netip.AddrPort{}
}
