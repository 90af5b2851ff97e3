package trunk

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// endpoint is one address of the trunk.
type endpoint struct {
	addr netip.AddrPort
	conn *net.UDPConn // nil: only written down
}

// mediaPort is a pair of addresses for RTP and RTCP.
type mediaPort struct {
	rtp, rtcp *endpoint
	name      string // who has it, for RTCP's CNAME
	far       int64  // how long packets travel between it and the capture point, µs
	unsteady  int64  // how much later than that they may come, µs
}

// network carries what the calls send.
type network interface {
	hosts() (hosts, error)
	media(of *endpoint) (*mediaPort, error) // beside a SIP address
	release(*mediaPort)
	send(src *endpoint, p Packet) error
}

// paper is a network of addresses alone: packets are handed to out.
type paper struct {
	out  func(Packet) error
	next uint32
}

// Documentation addresses (RFC 5737).
var (
	carrierHost  = netip.MustParseAddr("203.0.113.10")
	pbxHost      = netip.MustParseAddr("192.0.2.10")
	phonesHost   = netip.MustParseAddr("192.0.2.20")
	strangerHost = netip.MustParseAddr("198.51.100.66")
)

func (n *paper) hosts() (hosts, error) {
	at := func(a netip.Addr) *endpoint { return &endpoint{addr: netip.AddrPortFrom(a, 5060)} }
	return hosts{carrier: at(carrierHost), pbx: at(pbxHost), phones: at(phonesHost), stranger: at(strangerHost)}, nil
}

// media hands out ports in turn, as a media relay does: none is used again soon.
func (n *paper) media(of *endpoint) (*mediaPort, error) {
	const first, pairs = 10_000, 25_000
	port := uint16(first + 2*(n.next%pairs))
	n.next++
	host := of.addr.Addr()
	return &mediaPort{rtp: &endpoint{addr: netip.AddrPortFrom(host, port)}, rtcp: &endpoint{addr: netip.AddrPortFrom(host, port+1)}}, nil
}

func (n *paper) release(*mediaPort) {}

func (n *paper) send(_ *endpoint, p Packet) error { return n.out(p) }

// sockets is a network of UDP sockets on loopback. Ports are used again in the order they came free.
type sockets struct {
	hep     *net.UDPConn
	key     string
	pcap    *Pcap
	free    []*mediaPort
	all     []*net.UDPConn
	group   sync.WaitGroup
	scratch []byte

	received atomic.Int64 // datagrams
	unsent   atomic.Int64 // datagrams that a socket refused
	unheard  atomic.Int64 // of those, mirrored ones
}

const loopback = "127.0.0.1"

// restFor is how many other ports are used before one is used again.
const restFor = 16

func (n *sockets) hosts() (hosts, error) {
	var h hosts
	for _, x := range []struct {
		to   **endpoint
		host string
	}{{&h.carrier, loopback}, {&h.pbx, loopback}, {&h.phones, loopback}, {&h.stranger, "127.0.0.66"}} {
		e, err := n.open(x.host, 0)
		if err != nil && x.host != loopback { // elsewhere than on Linux, 127.0.0.1 alone is ours
			e, err = n.open(loopback, 0)
		}
		if err != nil {
			return h, err
		}
		*x.to = e
	}
	return h, nil
}

// open binds a socket and begins to read it.
func (n *sockets) open(host string, port uint16) (*endpoint, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(host), Port: int(port)})
	if err != nil {
		return nil, fmt.Errorf("opening a simulated phone's socket on %s: %w", host, err)
	}
	n.all = append(n.all, c)
	n.group.Go(func() { n.read(c) })
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return &endpoint{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), conn: c}, nil
}

// read takes what arrives until the socket is closed: the phones' side of the script is already decided.
func (n *sockets) read(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		_, _, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			n.received.Add(1)
		}
	}
}

func (n *sockets) media(*endpoint) (*mediaPort, error) {
	if len(n.free) > restFor {
		m := n.free[0]
		n.free = n.free[1:]
		return m, nil
	}
	var err error
	for range 50 {
		var rtp, rtcp *endpoint
		if rtp, err = n.open(loopback, 0); err != nil {
			return nil, err
		}
		port := rtp.addr.Port()
		if port%2 == 0 && port < 65535 {
			if rtcp, err = n.open(loopback, port+1); err == nil {
				return &mediaPort{rtp: rtp, rtcp: rtcp}, nil
			}
		}
		n.shut(rtp)
	}
	return nil, fmt.Errorf("looking for an even port with a free one after it on %s: 50 tries: %w", loopback, err)
}

// shut closes the socket opened last.
func (n *sockets) shut(e *endpoint) {
	_ = e.conn.Close() // nothing was sent through it
	n.all = n.all[:len(n.all)-1]
}

func (n *sockets) release(m *mediaPort) { n.free = append(n.free, m) }

func (n *sockets) send(src *endpoint, p Packet) error {
	if _, err := src.conn.WriteToUDPAddrPort(p.Payload, p.Dst); err != nil {
		n.unsent.Add(1)
	}
	if n.hep != nil {
		n.scratch = AppendHEP(n.scratch[:0], p, n.key)
		if _, err := n.hep.Write(n.scratch); err != nil {
			n.unheard.Add(1)
		}
	}
	if n.pcap != nil {
		return n.pcap.Write(p)
	}
	return nil
}

func (n *sockets) close() {
	for _, c := range n.all {
		_ = c.Close() // what was sent is sent
	}
	if n.hep != nil {
		_ = n.hep.Close()
	}
	n.group.Wait()
}
