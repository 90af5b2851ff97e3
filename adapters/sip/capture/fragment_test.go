package capture

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// part4 is one IPv4 fragment of datagram id.
func part4(id uint16, offset int, more bool, b []byte) []byte {
	f := as4(a4, b4, protoUDP, b)
	be.PutUint16(f[4:], id)
	be.PutUint16(f[6:], uint16(offset/8))
	if more {
		f[6] |= 0x20
	}
	return f
}

// part6 is one IPv6 fragment of datagram id, behind a hop-by-hop header.
func part6(id uint32, offset int, more bool, b []byte) []byte {
	h := be.AppendUint16([]byte{protoUDP, 0}, uint16(offset))
	if more {
		h[3] |= 1
	}
	h = be.AppendUint32(h, id)
	return as6(a6, b6, protoHopByHop, join([]byte{protoFragment, 0, 1, 4, 0, 0, 0, 0}, h, b))
}

// split cuts an IP payload into fragments of size bytes.
func split(b []byte, size int, part func(offset int, more bool, b []byte) []byte) [][]byte {
	var out [][]byte
	for offset := 0; offset < len(b); offset += size {
		end := min(offset+size, len(b))
		out = append(out, part(offset, end < len(b), b[offset:end]))
	}
	return out
}

func numbers(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d ", i)
	}
	return b.String()[:n]
}

func TestFragmentsInAnyOrder(t *testing.T) {
	long := numbers(4000)
	four := split(udpPacket(a4, b4, long), 1480, func(o int, m bool, b []byte) []byte { return part4(9, o, m, b) })
	six := split(udpPacket(a6, b6, long), 1448, func(o int, m bool, b []byte) []byte { return part6(9, o, m, b) })
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		frames := append(append(slices.Clone(four), six...), four[1], six[0])
		r.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		got, st := collect(Options{}, linkRaw, frames...)
		if len(got) != 2 || string(got[0].Payload) != long || string(got[1].Payload) != long || st.Reassembled != 2 || st.Fragments != uint64(len(frames)) {
			t.Fatalf("%d packets, %+v", len(got), st)
		}
		if st.FragmentOverlap+st.FragmentShed+st.Malformed != 0 || st.FragmentExpired > 2 { // a repeated one may come after the end
			t.Fatalf("%+v", st)
		}
	}
}

func TestSIPOverTCPInFragments(t *testing.T) {
	msg := invite(numbers(3000))
	tcp := tcpPacket(a4, b4, 7, 1, flagACK, msg)
	frames := split(tcp, 1480, func(o int, m bool, b []byte) []byte { return with(part4(3, o, m, b), 9, protoTCP) })
	if got, st := collect(Options{}, linkRaw, frames...); len(got) != 1 || string(got[0].Payload) != msg || got[0].Kind != wire.SIP {
		t.Errorf("%d packets, %+v", len(got), st)
	}
}

func TestHostileFragments(t *testing.T) {
	eight, sixteen := make([]byte, 8), make([]byte, 16)
	evil := slices.Repeat([]byte{0xff}, 16)
	udp := udpPacket(a4, b4, numbers(24)) // 32 bytes
	tests := []struct {
		name   string
		frames [][]byte
		want   Stats // of these counters only
	}{
		{"teardrop", [][]byte{part4(1, 0, true, udp[:24]), part4(1, 16, false, eight)}, Stats{FragmentOverlap: 1}},
		{"overlap inside", [][]byte{part4(1, 0, true, udp[:24]), part4(1, 8, true, eight)}, Stats{FragmentOverlap: 1}},
		{"overlap from before", [][]byte{part4(1, 8, true, sixteen), part4(1, 0, true, sixteen)}, Stats{FragmentOverlap: 1}},
		{"the same place, other bytes", [][]byte{part4(1, 0, true, udp[:16]), part4(1, 0, true, evil)}, Stats{FragmentOverlap: 1}},
		{"two ends", [][]byte{part4(1, 16, false, eight), part4(1, 32, false, eight)}, Stats{FragmentOverlap: 1}},
		{"beyond the end", [][]byte{part4(1, 16, false, eight), part4(1, 24, true, eight)}, Stats{FragmentOverlap: 1}},
		{"an end before what is there", [][]byte{part4(1, 32, true, eight), part4(1, 8, false, eight)}, Stats{FragmentOverlap: 1}},
		{"ping of death", [][]byte{part4(1, 65528, false, sixteen)}, Stats{Malformed: 1}},
		{"no multiple of eight", [][]byte{part4(1, 0, true, make([]byte, 9))}, Stats{Malformed: 1}},
		{"an empty one", [][]byte{part4(1, 8, false, nil)}, Stats{Malformed: 1}},
		{"never whole", [][]byte{part4(1, 0, true, udp[:16])}, Stats{FragmentExpired: 1}},
		{"a fragment in fragments", [][]byte{
			with(part6(1, 0, true, []byte{protoFragment, 0, 1, 4, 0, 0, 0, 0}), 48, protoDestOpts),
			with(part6(1, 8, false, []byte{protoUDP, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}), 48, protoDestOpts),
		}, Stats{Malformed: 1, Reassembled: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, st := collect(Options{}, linkRaw, tt.frames...)
			st = Stats{FragmentOverlap: st.FragmentOverlap, FragmentExpired: st.FragmentExpired, FragmentShed: st.FragmentShed,
				Malformed: st.Malformed, Reassembled: st.Reassembled}
			if len(got) != 0 || st != tt.want {
				t.Errorf("%d packets, %+v, want %+v", len(got), st, tt.want)
			}
		})
	}
}

// A datagram that was given up does not stand in the way of the one after it.
func TestAfterAnOverlap(t *testing.T) {
	udp := udpPacket(a4, b4, numbers(24))
	whole := split(udp, 16, func(o int, m bool, b []byte) []byte { return part4(1, o, m, b) })
	got, _ := collect(Options{}, linkRaw, append([][]byte{part4(1, 0, true, make([]byte, 24)), part4(1, 16, true, make([]byte, 8))}, whole...)...)
	if len(got) != 1 {
		t.Errorf("%d packets", len(got))
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	d := newDecoder(Options{MaxFragmented: 100}, func(*wire.Packet) { t.Error("a packet") })
	send := func(at call.Time, f []byte) { d.packet(&frame{link: linkRaw, at: at, data: f, length: len(f)}) }
	for id := range 1000 {
		send(start, part4(uint16(id), 0, true, make([]byte, 1480)))
	}
	if n := len(d.frags.byKey); n != 100 || d.stats.FragmentShed != 900 || d.frags.bytes != 100*(1480+fragmentCost) {
		t.Errorf("%d datagrams of %d bytes, %+v", n, d.frags.bytes, d.stats)
	}
	send(start+fragmentTimeout+1, part4(5000, 0, true, make([]byte, 8)))
	if n := len(d.frags.byKey); n != 1 || d.stats.FragmentExpired != 100 {
		t.Errorf("%d datagrams, %+v", n, d.stats)
	}
	for i := range maxFragments + 1 {
		send(start+fragmentTimeout+1, part4(5000, 16+8*i, true, make([]byte, 8)))
	}
	if d.stats.FragmentShed != 901 {
		t.Errorf("more than %d fragments of one datagram: %+v", maxFragments, d.stats)
	}
}

func TestFragmentBytesAreBounded(t *testing.T) {
	d := newDecoder(Options{MaxFragmented: 1 << 16}, func(*wire.Packet) { t.Error("a packet") })
	for id := range 2000 {
		f := part4(uint16(id), 0, true, make([]byte, 60_000))
		d.packet(&frame{link: linkRaw, at: start, data: f, length: len(f)})
	}
	if d.frags.bytes > maxFragmentBytes || d.frags.bytes < maxFragmentBytes-100_000 || d.stats.FragmentShed == 0 {
		t.Errorf("%d bytes, %+v", d.frags.bytes, d.stats)
	}
	d.flush()
	if d.frags.bytes != 0 || len(d.frags.byKey) != 0 || d.frags.order.Len() != 0 {
		t.Errorf("%d bytes after the end", d.frags.bytes)
	}
}
