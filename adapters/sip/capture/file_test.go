package capture

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// ng writes pcapng blocks.
type ng struct {
	order byteOrder
	b     []byte
}

func newNG(order byteOrder) *ng { return (&ng{order: order}).section() }

func (n *ng) block(kind uint32, body []byte) *ng {
	body = append(body, make([]byte, (4-len(body)%4)%4)...)
	length := uint32(12 + len(body))
	n.b = n.order.AppendUint32(n.order.AppendUint32(n.b, kind), length)
	n.b = n.order.AppendUint32(append(n.b, body...), length)
	return n
}

func (n *ng) section() *ng {
	b := n.order.AppendUint32(nil, orderMagic)
	b = n.order.AppendUint16(n.order.AppendUint16(b, 1), 0)
	b = n.order.AppendUint64(b, 1<<64-1)
	return n.block(blockSection, append(b, n.option(2, []byte("hardware"))...))
}

func (n *ng) option(code uint16, value []byte) []byte {
	b := n.order.AppendUint16(n.order.AppendUint16(nil, code), uint16(len(value)))
	return append(append(b, value...), make([]byte, (4-len(value)%4)%4)...)
}

func (n *ng) iface(link uint16, snap uint32, options ...[]byte) *ng {
	b := n.order.AppendUint16(n.order.AppendUint16(nil, link), 0)
	b = n.order.AppendUint32(b, snap)
	for _, o := range options {
		b = append(b, o...)
	}
	return n.block(blockInterface, b)
}

// resolution and offset are options of an interface.
func (n *ng) resolution(v byte) []byte { return n.option(optTSResol, []byte{v}) }
func (n *ng) offset(s int64) []byte {
	return n.option(optTSOffset, n.order.AppendUint64(nil, uint64(s)))
}

func (n *ng) head(id uint32, at uint64, size uint32) []byte {
	b := n.order.AppendUint32(nil, id)
	b = n.order.AppendUint32(n.order.AppendUint32(b, uint32(at>>32)), uint32(at))
	return n.order.AppendUint32(n.order.AppendUint32(b, size), size)
}

func (n *ng) packet(id uint32, at uint64, p []byte) *ng {
	body := append(n.head(id, at, uint32(len(p))), p...)
	body = append(body, make([]byte, (4-len(p)%4)%4)...)
	return n.block(blockPacket, append(body, n.option(2, []byte{0, 0, 0, 1})...))
}

func (n *ng) oldPacket(id uint16, at uint64, p []byte) *ng {
	h := n.head(0, at, uint32(len(p)))
	n.order.PutUint16(h, id)
	n.order.PutUint16(h[2:], 7) // drops
	return n.block(blockPacketOld, append(h, p...))
}

func (n *ng) simple(p []byte) *ng {
	return n.block(blockSimple, append(n.order.AppendUint32(nil, uint32(len(p))), p...))
}

// pcapOf is a pcap of one packet in the given byte order and resolution.
func pcapOf(order byteOrder, magic uint32, seconds, part uint32) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	b = order.AppendUint32(order.AppendUint32(b, 65535), 0x10000000|linkRaw) // with the length of a frame check sequence
	b = order.AppendUint32(order.AppendUint32(b, seconds), part)
	b = order.AppendUint32(order.AppendUint32(b, uint32(len(p4))), uint32(len(p4)))
	return append(b, p4...)
}

func zipped(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

// times reads a capture and returns the times of its packets.
func times(r io.Reader) ([]call.Time, Stats, error) {
	var got []call.Time
	st, err := Read(context.Background(), r, Options{}, func(p *wire.Packet) { got = append(got, p.At) })
	return got, st, err
}

const (
	second = 1_795_000_000 // start
	at     = start + 123_456
)

func TestFormats(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	e := newNG(le)
	const nano, micro = uint64(at) * 1000, uint64(at)
	later := at + call.Second
	for _, tt := range []struct {
		name string
		file []byte
		want []call.Time
	}{
		{"pcap, little endian", pcapOf(le, magicMicro, second, 123_456), []call.Time{at}},
		{"pcap, big endian", pcapOf(be, magicMicro, second, 123_456), []call.Time{at}},
		{"pcap, little endian, nanoseconds", pcapOf(le, magicNano, second, 123_456_789), []call.Time{at}},
		{"pcap, big endian, nanoseconds", pcapOf(be, magicNano, second, 123_456_789), []call.Time{at}},
		{"pcap, no packets", pcapFile(linkRaw), nil},
		{"pcapng, little endian", newNG(le).iface(linkRaw, 0).packet(0, micro, p4).b, []call.Time{at}},
		{"pcapng, big endian", newNG(be).iface(linkRaw, 0).packet(0, micro, p4).b, []call.Time{at}},
		{"pcapng, nanoseconds", newNG(le).iface(linkRaw, 0, e.resolution(9), e.option(optEnd, nil)).packet(0, nano+999, p4).b, []call.Time{at}},
		{"pcapng, milliseconds", newNG(le).iface(linkRaw, 0, e.resolution(3)).packet(0, micro/1000, p4).b, []call.Time{at - 456}},
		{"pcapng, seconds", newNG(le).iface(linkRaw, 0, e.resolution(0)).packet(0, second, p4).b, []call.Time{start}},
		{"pcapng, 1/2^20 s", newNG(le).iface(linkRaw, 0, e.resolution(0x80|20)).packet(0, second<<20|1<<19, p4).b, []call.Time{start + 500_000}},
		{"pcapng, 1/2^32 s", newNG(le).iface(linkRaw, 0, e.resolution(0x80|32)).packet(0, second<<32|1<<30, p4).b, []call.Time{start + 250_000}},
		{"pcapng, an offset", newNG(le).iface(linkRaw, 0, e.option(3, []byte("eth0:1")), e.offset(second-10)).packet(0, 10_123_456, p4).b, []call.Time{at}},
		{"pcapng, a negative offset", newNG(le).iface(linkRaw, 0, e.offset(-10)).packet(0, micro+10_000_000, p4).b, []call.Time{at}},
		{"pcapng, two interfaces", newNG(le).iface(linkRaw, 0).iface(linkEthernet, 0, e.resolution(9)).
			packet(1, nano, etherFrame(p6, 0x86dd)).packet(0, micro, p4).b, []call.Time{at, at}},
		{"pcapng, two sections", append(newNG(le).iface(linkRaw, 0, e.resolution(9)).packet(0, nano, p4).b,
			newNG(be).iface(linkEthernet, 0).packet(0, micro, etherFrame(p4, 0x0800)).b...), []call.Time{at, at}},
		{"pcapng, old packet blocks", newNG(be).iface(linkEthernet, 0).iface(linkRaw, 0).oldPacket(1, micro, p4).b, []call.Time{at}},
		{"pcapng, simple packets have the time before them", newNG(le).iface(linkRaw, 0).simple(p4).packet(0, micro, p4).simple(p4).b, []call.Time{0, at, at}},
		{"pcapng, unknown blocks, also long ones", newNG(le).block(5, make([]byte, 40)).iface(linkRaw, 0).block(0x0bad, make([]byte, 3<<20)).packet(0, micro, p4).b, []call.Time{at}},
		{"pcapng, times that cannot be", newNG(le).iface(linkRaw, 0, e.resolution(0)).iface(linkRaw, 0, e.resolution(127)).iface(linkRaw, 0, e.resolution(255)).
			iface(linkRaw, 0, e.offset(-1<<63)).iface(linkRaw, 0, e.offset(1<<62)).
			packet(0, 1<<64-1, p4).packet(1, micro, p4).packet(2, micro, p4).packet(3, micro, p4).packet(4, micro, p4).b,
			[]call.Time{latest, 0, 0, 0, latest}},
		{"pcapng, no packets", newNG(le).b, nil},
		{"several", append(pcapFile(linkRaw, p4)[:0], pcapFile(linkRaw, p4, p6)...), []call.Time{start, start + 1000}},
		{"seconds later", newNG(le).iface(linkRaw, 0).packet(0, uint64(later), p4).b, []call.Time{later}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"plain": bytes.NewReader(tt.file), "gzip": bytes.NewReader(zipped(tt.file)),
				"in pieces": iotest.HalfReader(bytes.NewReader(tt.file)), "with its end": iotest.DataErrReader(bytes.NewReader(tt.file)),
			} {
				got, st, err := times(r)
				if err != nil || len(got) != len(tt.want) || st.Packets != uint64(len(tt.want)) {
					t.Fatalf("%s: %d packets, %v, %+v", how, len(got), err, st)
				}
				for i := range got {
					if got[i] != tt.want[i] {
						t.Errorf("%s: packet %d at %d, want %d", how, i, got[i], tt.want[i])
					}
				}
			}
		})
	}
}

func TestDamagedFiles(t *testing.T) {
	le := binary.LittleEndian
	good := pcapFile(linkRaw, p4, p4)
	second := 24 + 16 + len(p4)
	block := func(kind uint32, body ...byte) []byte { return newNG(le).iface(linkRaw, 0).block(kind, body).b }
	long := func(size uint32) []byte {
		n := newNG(le).iface(linkRaw, 0)
		return append(le.AppendUint32(le.AppendUint32(n.b, blockPacket), size), make([]byte, 100)...)
	}
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "the file is empty"},
		{"a text", []byte("hello world"), "neither pcap nor pcapng: it begins with 68 65 6c 6c"},
		{"two bytes", []byte("he"), ErrTruncated.Error()},
		{"Kuznetzov's pcap", []byte{0x34, 0xcd, 0xb2, 0xa1}, "editcap"},
		{"pcap of another version", with(good, 4, 3), "pcap version 3.4"},
		{"half a file header", good[:20], ErrTruncated.Error()},
		{"a packet of 4 GiB", with(good, second+8, 255, 255, 255, 255), "after 1 packets, at byte 73: a packet of 4294967295 bytes"},
		{"a packet of 1 MiB", with(good, second+8, 0, 0, 16, 0), "after 1 packets, at byte 73: a packet of 1048576 bytes"},
		{"a bad gzip", []byte{0x1f, 0x8b, 9, 9}, "unzipping"},
		{"a damaged gzip", with(zipped(good), 10, 0xff), "flate"},
		{"a cut gzip", zipped(good)[:60], ErrTruncated.Error()},
		{"no byte order", with(newNG(le).b, 8, 0), "byte-order magic is 00 3c 2b 1a"},
		{"a section of 0 bytes", with(newNG(le).b, 4, 0), "a block of 0 bytes"},
		{"a section with two lengths", with(newNG(le).b, 4, 36), "a block whose length is 36 before"},
		{"a block of 8 bytes", long(8), "a block of 8 bytes"},
		{"a block of 33 bytes", long(33), "a block of 33 bytes"},
		{"a block of 4 GiB", long(0xfffffffc), "a block of 4294967292 bytes, more than 1048576"},
		{"a block with two lengths", long(64), "a block whose length is 64 before and 0 after it"},
		{"an unknown block with two lengths", with(newNG(le).block(99, make([]byte, 8)).b, 44, 16), "a block whose length is 16 before"},
		{"an unknown block of 4 GiB", with(newNG(le).block(99, make([]byte, 8)).b, 44, 0xfc, 0xff, 0xff, 0xff), ErrTruncated.Error()},
		{"a packet of no interface", newNG(le).packet(0, 1, p4).b, "interface 0, which is not described"},
		{"a simple packet of no interface", newNG(le).simple(p4).b, "a simple packet before any interface"},
		{"a packet of 12 bytes", block(blockPacket, make([]byte, 12)...), "a packet block that is too short"},
		{"a packet longer than its block", block(blockPacket, append(newNG(le).head(0, 1, 50), 1, 2, 3, 4)...), "a packet block that is too short"},
		{"a packet of 2 GiB", block(blockPacket, newNG(le).head(0, 1, 1<<31)...), "a packet of 2147483648 bytes"},
		{"a simple packet of 300 KiB", newNG(le).iface(linkRaw, 0).simple(make([]byte, 300<<10)).b, "a packet of 307200 bytes"},
		{"a simple packet of nothing", block(blockSimple), "a simple packet block that is too short"},
		{"an interface of 4 bytes", block(blockInterface, 1, 2, 3, 4), "an interface block that is too short"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, st, err := times(bytes.NewReader(tt.file))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q; %+v", err, tt.want, st)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
				t.Errorf("%d bytes taken", used)
			}
		})
	}
}

// A file cut off anywhere gives the packets that are whole, and says that it is cut.
func TestCutFiles(t *testing.T) {
	e := newNG(binary.LittleEndian).iface(linkRaw, 0).block(99, make([]byte, 20))
	ends := map[int]int{40: 0, 60: 0, len(e.b): 0}
	for i := range 3 {
		e.packet(0, uint64(start), p4)
		ends[len(e.b)] = i + 1
	}
	one := 16 + len(p4)
	for name, c := range map[string]struct {
		file []byte
		ends map[int]int // after how many bytes it may end, and the packets before
	}{
		"pcap":   {pcapFile(linkRaw, p4, p4, p4), map[int]int{24: 0, 24 + one: 1, 24 + 2*one: 2, 24 + 3*one: 3}},
		"pcapng": {e.b, ends},
	} {
		whole := 0
		for n := 1; n <= len(c.file); n++ {
			want, proper := c.ends[n]
			if proper {
				whole = want
			}
			got, st, err := times(bytes.NewReader(c.file[:n]))
			if len(got) != whole || st.Packets != uint64(whole) || (err == nil) != proper || err != nil && !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s, %d bytes: %d packets of %d, %v", name, n, len(got), whole, err)
			}
			if err != nil && n > 60 && !strings.HasPrefix(err.Error(), "after "+string(rune('0'+whole))+" packets, at byte ") {
				t.Fatalf("%s, %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestReadFile(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "x.pcap.gz")
	if err := os.WriteFile(path, zipped(pcapFile(linkRaw, p4, p6)), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	count := func(*wire.Packet) { n++ }
	if st, err := ReadFile(t.Context(), path, Options{}, count); err != nil || n != 2 || st.Datagrams != 2 {
		t.Errorf("%d packets, %v", n, err)
	}
	if _, err := ReadFile(t.Context(), path+"x", Options{}, count); err == nil || !strings.Contains(err.Error(), "opening capture file: open "+path+"x") {
		t.Errorf("absent: %v", err)
	}
	if _, err := ReadFile(t.Context(), folder, Options{}, count); err == nil || !strings.Contains(err.Error(), "reading capture file "+folder) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := ReadFile(t.Context(), path, Options{Ports: []PortRange{{2, 1}}}, count); err == nil {
		t.Error("bad ports are taken")
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	frames := make([][]byte, 10*checkEvery)
	for i := range frames {
		frames[i] = p4
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := Read(ctx, bytes.NewReader(pcapFile(linkRaw, frames...)), Options{}, func(*wire.Packet) {
		if n++; n == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || n > checkEvery {
		t.Errorf("%d packets, %v", n, err)
	}
}

func fuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte) {
		handed := 0
		st, err := Read(context.Background(), bytes.NewReader(file), Options{}, func(p *wire.Packet) {
			if handed += len(p.Payload); p.At < 0 || p.At > latest {
				t.Fatalf("packet at %d", p.At)
			}
		})
		if len(file) >= 2 && file[0] == 0x1f && file[1] == 0x8b {
			return
		}
		if handed > len(file) || st.Bytes > uint64(len(file)) {
			t.Fatalf("%d bytes handed over, %d captured, of %d: %v", handed, st.Bytes, len(file), err)
		}
	})
}

func FuzzPCAP(f *testing.F) {
	f.Add(pcapFile(linkRaw, p4, p6))
	f.Add(pcapOf(binary.BigEndian, magicNano, second, 5))
	f.Add(zipped(pcapFile(linkEthernet, etherFrame(p4, 0x0800))))
	fuzzRead(f)
}

func FuzzPCAPNG(f *testing.F) {
	e := newNG(binary.LittleEndian)
	f.Add(e.iface(linkRaw, 0, e.resolution(9), e.offset(5)).packet(0, 1, p4).simple(p6).block(99, nil).oldPacket(0, 2, p4).b)
	f.Add(newNG(binary.BigEndian).iface(linkRaw, 0, e.resolution(0x8a)).packet(0, 1, p4).section().iface(linkRaw, 0).simple(p6).b)
	fuzzRead(f)
}
