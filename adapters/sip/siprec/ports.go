package siprec

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// mediaBuffer is asked of the kernel for each RTP socket: two seconds of most codecs.
const mediaBuffer = 64 << 10

// ports gives each stream an even port and the one after it. It goes round, so that a late packet of a stream that is
// over meets nobody new for as long as can be.
type ports struct {
	bind  netip.Addr // local address of the sockets; unspecified for all
	first int        // even
	pairs int
	next  int
	taken map[int]bool // pairs
}

func newPorts(bind netip.Addr, first, last int) *ports {
	return &ports{bind: bind, first: first + first%2, pairs: portPairs(first, last), taken: map[int]bool{}}
}

// pair is two open sockets.
type pair struct {
	rtp, rtcp *net.UDPConn
	number    int
}

func (p pair) port() uint16 { return addrPort(p.rtp.LocalAddr()).Port() }

// open takes the next free pair. Ports that another program has are passed over.
func (p *ports) open() (pair, error) {
	var last error
	for range p.pairs {
		n := p.next
		p.next = (p.next + 1) % p.pairs
		if p.taken[n] {
			continue
		}
		got, err := p.listen(p.first + 2*n)
		if err != nil {
			last = err
			continue
		}
		got.number = n
		p.taken[n] = true
		return got, nil
	}
	if last != nil {
		return pair{}, fmt.Errorf("opening an RTP port: all are taken: %w", last)
	}
	return pair{}, fmt.Errorf("opening an RTP port: all %d pairs of rtp_ports are in use", p.pairs)
}

func (p *ports) listen(port int) (pair, error) {
	rtp, err := p.socket(port)
	if err != nil {
		return pair{}, err
	}
	rtcp, err := p.socket(port + 1)
	if err != nil {
		_ = rtp.Close()
		return pair{}, err
	}
	return pair{rtp: rtp, rtcp: rtcp}, nil
}

func (p *ports) socket(port int) (*net.UDPConn, error) {
	network := "udp4"
	if p.bind.Is6() {
		network = "udp"
	}
	addr, err := net.ResolveUDPAddr(network, net.JoinHostPort(p.bind.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP(network, addr)
	if err == nil {
		_ = c.SetReadBuffer(mediaBuffer) // the kernel may give less
	}
	return c, err
}

func (p *ports) close(x pair) {
	_, _ = x.rtp.Close(), x.rtcp.Close()
	delete(p.taken, x.number)
}
