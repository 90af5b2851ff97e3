package capture

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ctigate/ctigate/adapters/sip/wire"
)

const patience = 30 * time.Second // of a test for something that must happen

// openLive skips where the machine does not allow it.
func openLive(tb testing.TB, c LiveConfig) *Live {
	tb.Helper()
	l, err := OpenLive(c)
	if errors.Is(err, unix.EPERM) {
		tb.Skipf("needs CAP_NET_RAW: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// running is a Live that runs until its test ends.
type running struct {
	packets chan wire.Packet
	end     context.CancelFunc
	err     chan error
}

func run(t *testing.T, l *Live) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{packets: make(chan wire.Packet, 1000), end: cancel, err: make(chan error, 1)}
	go func() {
		r.err <- l.Run(ctx, func(p *wire.Packet) {
			c := *p
			c.Payload = append([]byte(nil), p.Payload...)
			r.packets <- c
		})
	}()
	t.Cleanup(cancel)
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.end()
	select {
	case err := <-r.err:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not end with its context")
	}
}

// next is the next packet.
func (r *running) next(t *testing.T) wire.Packet {
	t.Helper()
	select {
	case p := <-r.packets:
		return p
	case err := <-r.err:
		t.Fatalf("Run ended: %v", err)
	case <-time.After(patience):
		t.Fatal("no packet")
	}
	return wire.Packet{}
}

// udpPair is a socket connected to another one on the loopback interface, and its port.
func udpPair(tb testing.TB, network, host string) (*net.UDPConn, uint16) {
	tb.Helper()
	to, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
	if err != nil {
		tb.Skipf("no %s on loopback: %v", network, err)
	}
	tb.Cleanup(func() { to.Close() })
	addr := to.LocalAddr().(*net.UDPAddr)
	conn, err := net.DialUDP(network, nil, addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn, uint16(addr.Port)
}

func TestLiveLoopback(t *testing.T) {
	for _, tt := range []struct{ iface, network, host string }{
		{"lo", "udp4", "127.0.0.1"}, {"lo", "udp6", "::1"}, {AnyInterface, "udp4", "127.0.0.1"},
	} {
		t.Run(tt.iface+" "+tt.network, func(t *testing.T) {
			conn, port := udpPair(t, tt.network, tt.host)
			other, _ := udpPair(t, tt.network, tt.host)
			l := openLive(t, LiveConfig{Interface: tt.iface, RingBytes: MinRingBytes, Options: Options{Ports: []PortRange{{port, port}}}})
			r := run(t, l)
			before := time.Now().Add(-time.Millisecond)
			for _, s := range []string{"one", "two"} {
				other.Write([]byte("not this"))
				conn.Write([]byte(s))
			}
			conn.Write(make([]byte, 60_000)) // fragments, or one packet, as the interface's MTU has it
			for _, want := range []string{"one", "two", string(make([]byte, 60_000))} {
				p := r.next(t)
				if string(p.Payload) != want || p.Dst != conn.RemoteAddr().(*net.UDPAddr).AddrPort() || p.Src != conn.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Errorf("got %.20q from %v to %v, want %.20q", p.Payload, p.Src, p.Dst, want)
				}
				if at := p.At.Std(); at.Before(before) || at.After(time.Now()) || p.Received < p.At {
					t.Errorf("at %v, received %v", p.At, p.Received)
				}
			}
			r.stop(t)
			st := l.Stats()
			if len(r.packets) != 0 || st.Datagrams != 3 || st.KernelPackets != st.Packets || st.KernelDrops != 0 || st.Filtered != 0 {
				t.Errorf("%d packets more, %+v", len(r.packets), st)
			}
		})
	}
}

func TestLiveSIPOverTCP(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := server.Addr().(*net.TCPAddr).AddrPort().Port()
	r := run(t, openLive(t, LiveConfig{Interface: "lo", RingBytes: MinRingBytes, Options: Options{Ports: []PortRange{{port, port}}}}))
	client, err := net.Dial("tcp4", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	peer, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	long := invite(strings.Repeat("a=x\r\n", 8000))
	client.Write([]byte(invite("v=0\r\n") + "\r\n\r\n" + long))
	for _, want := range []string{invite("v=0\r\n"), long} {
		if p := r.next(t); string(p.Payload) != want || p.Kind != wire.SIP || !p.Stream || p.Dst.Port() != port {
			t.Errorf("got %.40q… (%d bytes), kind %d, to %v", p.Payload, len(p.Payload), p.Kind, p.Dst)
		}
	}
	peer.Write([]byte(ringing))
	if p := r.next(t); string(p.Payload) != ringing || p.Src.Port() != port {
		t.Errorf("got %.40q from %v", p.Payload, p.Src)
	}
	r.stop(t)
}

// tunnel is a TUN or TAP device that the test writes packets into.
func tunnel(t *testing.T, name string, flags uint16) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/net/tun: %v", err)
	}
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { file.Close() })
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], name)
	req.flags = flags | unix.IFF_NO_PI
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		t.Skipf("needs CAP_NET_ADMIN to make a device: %v", e)
	}
	if out, err := exec.Command("ip", "link", "set", name, "up").CombinedOutput(); err != nil {
		t.Skipf("ip link set %s up: %v: %s", name, err, out)
	}
	return file
}

// What a network card hands over: raw IP, VLAN tags that the kernel takes off, and those that it leaves.
func TestLiveDevices(t *testing.T) {
	src, dst := netip.MustParseAddrPort("198.51.100.1:5060"), netip.MustParseAddrPort("198.51.100.2:5060")
	src6, dst6 := netip.MustParseAddrPort("[2001:db8::1]:5060"), netip.MustParseAddrPort("[2001:db8::2]:5060")
	ip4, ip6 := ipPacket(src, dst, udpPacket(src, dst, "v4")), ipPacket(src6, dst6, udpPacket(src6, dst6, "v6"))
	far := netip.MustParseAddrPort("198.51.100.2:9")
	other := ipPacket(far, far, udpPacket(far, far, "other"))
	first, second := fragments4(src, dst, strings.Repeat("f", 64))
	tests := []struct {
		name   string
		flags  uint16
		any    bool
		frames [][]byte
		want   []string
	}{
		{"ctgtun0", unix.IFF_TUN, false, [][]byte{other, ip4, ip6}, []string{"v4", "v6"}},
		{"ctgtun1", unix.IFF_TUN, true, [][]byte{other, ip4, ip6}, []string{"v4", "v6"}},
		{"ctgtap0", unix.IFF_TAP, false, [][]byte{
			etherFrame(other, 0x0800), etherFrame(ip4, 0x0800), etherFrame(ip6, 0x86dd),
			etherFrame(other, 0x8100, 7, 0x0800), etherFrame(ip4, 0x8100, 7, 0x0800),
			etherFrame(other, 0x88a8, 7, 0x8100, 8, 0x0800), etherFrame(ip6, 0x88a8, 7, 0x8100, 8, 0x86dd),
			etherFrame(ip4, 0x88a8, 7, 0x8100, 8, 0x8100, 9, 0x0800),
			etherFrame(second, 0x8100, 7, 0x0800), etherFrame(first, 0x8100, 7, 0x0800),
		}, []string{"v4", "v6", "v4", "v6", "v4", strings.Repeat("f", 64)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device := tunnel(t, tt.name, tt.flags)
			c := LiveConfig{Interface: tt.name, Promiscuous: true, RingBytes: MinRingBytes, Options: Options{Ports: []PortRange{{5060, 5061}}}}
			if tt.any {
				c.Interface, c.Promiscuous = AnyInterface, false
			}
			l := openLive(t, c)
			r := run(t, l)
			for _, f := range tt.frames {
				if _, err := device.Write(f); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range tt.want {
				if p := r.next(t); string(p.Payload) != want {
					t.Errorf("packet %d is %q, want %q", i, p.Payload, want)
				}
			}
			r.stop(t)
			if st := l.Stats(); st.Filtered != 0 || st.Datagrams != uint64(len(tt.want)) {
				t.Errorf("the kernel let through what it should not: %+v", st)
			}
		})
	}
}

func TestLiveInterfaceIsRemoved(t *testing.T) {
	device := tunnel(t, "ctgtap1", unix.IFF_TAP)
	r := run(t, openLive(t, LiveConfig{Interface: "ctgtap1", RingBytes: MinRingBytes}))
	device.Close()
	select {
	case err := <-r.err:
		if err == nil || !strings.Contains(err.Error(), "interface ctgtap1: the interface went down or was removed") {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run goes on without its interface")
	}
}

func TestLiveCannotOpen(t *testing.T) {
	for _, tt := range []struct {
		c    LiveConfig
		want string
	}{
		{LiveConfig{Interface: "nosuch0"}, "capturing from interface nosuch0: "},
		{LiveConfig{Promiscuous: true}, "promiscuous: needs the name of one interface"},
		{LiveConfig{RingBytes: 1}, "ring_bytes: 1 is outside"},
		{LiveConfig{Options: Options{Ports: []PortRange{{2, 1}}}}, "ports[0]: 2-1 ends before it begins"},
	} {
		if l, err := OpenLive(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.c, err, tt.want)
			l.Close()
		}
	}
}

func TestPermissionSaysWhatToDo(t *testing.T) {
	if err := permission(unix.EPERM); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "setcap cap_net_raw+ep") {
		t.Error(err)
	}
}
