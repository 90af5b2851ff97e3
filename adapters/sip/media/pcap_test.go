package media

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// datagram is one UDP datagram of a capture.
type datagram struct {
	at       call.Time
	src, dst netip.AddrPort
	payload  []byte
}

// readPcap reads the UDP over IPv4 of a gzipped classic pcap.
func readPcap(t testing.TB, path string) []datagram {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint32(b) != 0xa1b2c3d4 {
		t.Fatalf("%s is no little-endian pcap in microseconds", path)
	}
	skip, ok := map[uint32]int{1: 14, 101: 0, 113: 16, 276: 20}[le.Uint32(b[20:])]
	if !ok {
		t.Fatalf("link type %d", le.Uint32(b[20:]))
	}
	var out []datagram
	for b = b[24:]; len(b) >= 16; {
		n := int(le.Uint32(b[8:]))
		at := call.Time(le.Uint32(b))*call.Second + call.Time(le.Uint32(b[4:]))
		if d, ok := udp(b[16+skip : 16+n]); ok {
			d.at = at
			out = append(out, d)
		}
		b = b[16+n:]
	}
	return out
}

func udp(ip []byte) (datagram, bool) {
	if len(ip) < 28 || ip[0]>>4 != 4 || ip[9] != 17 {
		return datagram{}, false
	}
	u := ip[int(ip[0]&15)*4:]
	port := func(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
	return datagram{
		src:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), port(u)),
		dst:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), port(u[2:])),
		payload: bytes.Clone(u[8:port(u[4:])]),
	}, true
}
