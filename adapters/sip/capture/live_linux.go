package capture

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// Live captures from an interface through a ring of blocks that the kernel fills (AF_PACKET, TPACKET_V3). Run is one
// goroutine's; Stats and Backlog are anybody's.
type Live struct {
	cfg     LiveConfig
	fd      int
	ring    *ring
	dec     *decoder
	backlog atomic.Uint64 // bits of a float64

	mu     sync.Mutex // of what follows
	closed bool
	stats  LiveStats
}

// OpenLive begins to capture. It needs CAP_NET_RAW. Close ends it.
func OpenLive(c LiveConfig) (*Live, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	l := &Live{cfg: c, fd: -1, dec: newDecoder(c.Options, nil)}
	if err := l.open(); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("capturing from interface %s: %w", c.Interface, err)
	}
	return l, nil
}

// open binds last: what comes before the filter and the ring are in place must not be seen.
func (l *Live) open() error {
	index, err := interfaceIndex(l.cfg.Interface)
	if err != nil {
		return err
	}
	if l.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return permission(fmt.Errorf("opening a packet socket: %w", err))
	}
	if err := unix.SetsockoptInt(l.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("asking for TPACKET_V3: %w", err)
	}
	if err := l.attachFilter(); err != nil {
		return err
	}
	if l.ring, err = newRing(l.fd, l.cfg.RingBytes); err != nil {
		return err
	}
	if l.cfg.Promiscuous {
		m := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(l.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return fmt.Errorf("making it promiscuous: %w", err)
		}
	}
	if err := unix.Bind(l.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		return fmt.Errorf("binding: %w", err)
	}
	return nil
}

// interfaceIndex is 0 for all of them.
func interfaceIndex(name string) (int, error) {
	if name == AnyInterface {
		return 0, nil
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("%w; `ip link` lists those that there are", err)
	}
	if i.Flags&net.FlagUp == 0 {
		return 0, fmt.Errorf("it is down; `ip link set %s up` brings it up", name)
	}
	return i.Index, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func permission(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: it needs the capability CAP_NET_RAW: `setcap cap_net_raw+ep` on the ctigate binary, or AmbientCapabilities=CAP_NET_RAW in its systemd unit", err)
	}
	return err
}

func (l *Live) attachFilter() error {
	raw, err := filter(l.cfg.Ports)
	if err != nil {
		return err
	}
	ins := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		ins[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}
	if err := unix.SetsockoptSockFprog(l.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attaching the packet filter: %w", err)
	}
	return nil
}

// Close ends the capture and frees the ring. It must not be called while Run runs.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.fd < 0 {
		return nil
	}
	l.count()
	l.closed = true
	if l.ring != nil {
		l.ring.unmap()
	}
	return unix.Close(l.fd)
}

// Run hands packets to h until ctx ends (then nil), or the interface goes down or is removed (then an error). What the
// ring still holds then is not read. It may be called again.
func (l *Live) Run(ctx context.Context, h wire.Handler) error {
	wake, err := newWaker(ctx)
	if err != nil {
		return fmt.Errorf("capturing from interface %s: %w", l.cfg.Interface, err)
	}
	defer wake.close()
	l.dec.h = h
	err = l.loop(ctx, wake.fd)
	l.dec.flush()
	l.publish()
	if err != nil {
		return fmt.Errorf("capturing from interface %s: %w", l.cfg.Interface, err)
	}
	return nil
}

func (l *Live) loop(ctx context.Context, wake int) error {
	for ctx.Err() == nil {
		if l.ring.ready() {
			l.backlog.Store(math.Float64bits(l.ring.backlog()))
			l.ring.read(l.dec, time.Now())
			l.publish()
			continue
		}
		l.backlog.Store(0)
		idle, err := l.wait(wake)
		if err != nil {
			return err
		}
		if idle {
			l.dec.tick(call.At(time.Now()))
		}
	}
	return nil
}

// wait sleeps until the kernel hands over a block, something is wrong with the interface, or wake is written to; or for
// a second, and says so.
func (l *Live) wait(wake int) (idle bool, err error) {
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN | unix.POLLERR}, {Fd: int32(wake), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(sweepEvery/call.Millisecond))
	if err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("waiting for packets: %w", err)
	}
	if fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
		return false, l.socketError()
	}
	return n == 0, nil
}

// socketError is what happened to the interface, if anything.
func (l *Live) socketError() error {
	code, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return fmt.Errorf("asking the socket for its error: %w", err)
	case code == int(unix.ENETDOWN):
		return errors.New("the interface went down or was removed")
	case code != 0:
		return fmt.Errorf("the socket reports: %w", unix.Errno(code))
	}
	return nil
}

// publish makes the decoder's numbers visible.
func (l *Live) publish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Stats = l.dec.stats
}

// Backlog is the share of the ring that waits to be read, 0 to 1, as it was when the block being handled was begun. A
// handler that cannot keep up sees it grow long before the kernel drops packets.
func (l *Live) Backlog() float64 { return math.Float64frombits(l.backlog.Load()) }

// Stats is what was captured so far. It may be called at any time, after Close too.
func (l *Live) Stats() LiveStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.count()
	}
	st := l.stats
	st.Backlog = l.Backlog()
	return st
}

// count adds the kernel's counters, which begin anew whenever they are read.
func (l *Live) count() {
	st, err := unix.GetsockoptTpacketStatsV3(l.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return // the socket was never set up
	}
	l.stats.KernelPackets += uint64(st.Packets)
	l.stats.KernelDrops += uint64(st.Drops)
	l.stats.Freezes += uint64(st.Freeze_q_cnt)
}
