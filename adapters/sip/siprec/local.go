package siprec

import (
	"net"
	"net/netip"
)

// isLocal reports whether sockets can be bound to ip: an advertised address may be that of a NAT in front.
func isLocal(ip netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
