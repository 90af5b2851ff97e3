package trunk

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// collect reads datagrams until the trunk is done and it has them all.
func collect(t *testing.T, c *net.UDPConn, want func() int64) [][]byte {
	t.Helper()
	var all [][]byte
	buf := make([]byte, 65536)
	for int64(len(all)) < want() {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("after %d datagrams: %v", len(all), err)
		}
		all = append(all, bytes.Clone(buf[:n]))
	}
	return all
}

// hepChunks splits a packet, written from the HEP3 description apart from packet.go.
func hepChunks(t *testing.T, b []byte) map[uint16][]byte {
	t.Helper()
	if string(b[:4]) != "HEP3" || int(binary.BigEndian.Uint16(b[4:])) != len(b) {
		t.Fatalf("no HEP3 packet of %d bytes: %x", len(b), b[:6])
	}
	m := map[uint16][]byte{}
	for b = b[6:]; len(b) > 0; {
		n := int(binary.BigEndian.Uint16(b[4:]))
		m[binary.BigEndian.Uint16(b[2:])] = b[6:n]
		b = b[n:]
	}
	return m
}

func TestSocketsAndMirror(t *testing.T) {
	agent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	_ = agent.SetReadBuffer(4 << 20)
	var file bytes.Buffer
	tr := New(Options{Seed: 1, MaxCalls: 3, Speed: 200, Ledger: 10, HEP: agent.LocalAddr().String(), HEPKey: "secret", Capture: &file})
	if err := tr.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for _, script := range []string{"inbound_answered", "busy", "hold_retrieve"} {
		if err := tr.Place(script, ""); err != nil {
			t.Fatal(err)
		}
	}
	<-tr.Done()
	s := tr.Stats()
	sent := s.Packets[SIP] + s.Packets[RTP] + s.Packets[RTCP]
	if s.Started != 3 || s.Ended != 3 || s.Active != 0 || s.Unsent != 0 || s.Unheard != 0 || s.Packets[RTP] < 50 {
		t.Errorf("%+v", s)
	}
	_, pbx, _ := tr.Addrs()
	toPBX := 0
	mirrored := collect(t, agent, func() int64 { return sent })
	for _, b := range mirrored {
		m := hepChunks(t, b)
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[3])), binary.BigEndian.Uint16(m[7]))
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[4])), binary.BigEndian.Uint16(m[8]))
		if string(m[14]) != "secret" || m[1][0] != 2 || m[2][0] != 17 || !src.Addr().IsLoopback() || !dst.Addr().IsLoopback() {
			t.Fatalf("chunks %v", m)
		}
		if Kind(m[11][0]) == SIP && dst.String() == pbx {
			toPBX++
		}
		if Kind(m[11][0]) != SIP && !strings.Contains(string(m[17]), "@127.0.0.1") {
			t.Fatalf("no correlation: %q", m[17])
		}
		at := time.Unix(int64(binary.BigEndian.Uint32(m[9])), 1000*int64(binary.BigEndian.Uint32(m[10])))
		if d := time.Since(at); d < 0 || d > time.Minute {
			t.Fatalf("captured %s ago", d)
		}
	}
	if toPBX < 10 {
		t.Errorf("%d messages to the PBX", toPBX)
	}
	if n := len(tr.Truths()); n != 3 {
		t.Errorf("%d truths", n)
	}
	tr.Close()
	if got := tr.Stats(); got.Ended != 3 || tr.Place("busy", "") == nil {
		t.Errorf("after its end: %+v", got)
	}
	if got := packetsIn(t, file.Bytes()); got != len(mirrored) {
		t.Errorf("%d packets in the file, %d mirrored", got, len(mirrored))
	}
}

// packetsIn counts a pcap file's packets and checks its headers' sums.
func packetsIn(t *testing.T, b []byte) (n int) {
	t.Helper()
	if binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 || binary.LittleEndian.Uint32(b[20:]) != 1 {
		t.Fatalf("header %x", b[:24])
	}
	for b = b[24:]; len(b) > 0; n++ {
		size := int(binary.LittleEndian.Uint32(b[8:]))
		ip := b[16+14 : 16+size]
		sum := 0
		for i := 0; i < 20; i += 2 {
			sum += int(ip[i])<<8 | int(ip[i+1])
		}
		if sum = sum>>16 + sum&0xffff; sum != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || ip[9] != 17 {
			t.Fatalf("packet %d: IP header %x", n, ip[:20])
		}
		b = b[16+size:]
	}
	return n
}

func TestNothingBeginsBeforeItMay(t *testing.T) {
	begin := make(chan struct{})
	tr := New(Options{Seed: 1, Rate: 1000, MaxCalls: 1, Speed: 1000, Mix: map[string]int{"unallocated": 1}, Begin: begin})
	if err := tr.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if s := tr.Stats(); s.Started != 0 {
		t.Errorf("%+v", s)
	}
	close(begin)
	<-tr.Done()
}

func TestStartFails(t *testing.T) {
	for _, opt := range []Options{{HEP: "no port"}, {Mix: map[string]int{"x": 1}}, {Rate: -1}} {
		tr := New(opt)
		if err := tr.Start(context.Background()); err == nil || !strings.HasPrefix(err.Error(), "starting the simulated trunk: ") {
			t.Errorf("%v", err)
		}
		tr.Close()
	}
}

// A trunk without a reader of its mirror goes on and counts.
func TestNobodyHears(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().String()
	c.Close()
	tr := New(Options{Seed: 1, MaxCalls: 1, HEP: addr})
	if err := tr.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if err := tr.Place("busy", ""); err != nil {
		t.Fatal(err)
	}
	<-tr.Done()
	if s := tr.Stats(); s.Unheard == 0 || s.Ended != 1 {
		t.Errorf("%+v", s)
	}
	if err := tr.Place("busy", "x"); err == nil || !strings.Contains(err.Error(), "no audio profile") {
		t.Error(err)
	}
}
