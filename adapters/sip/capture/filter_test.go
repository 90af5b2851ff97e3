package capture

import (
	"fmt"
	"testing"

	"golang.org/x/net/bpf"
)

// vm runs the filter from the Ethernet header on; the part before it asks the kernel, and is tested live.
func vm(t *testing.T, ports []PortRange) func([]byte) bool {
	t.Helper()
	p := newProgram()
	p.body(ports)
	m, err := bpf.NewVM(p.link())
	if err != nil {
		t.Fatal(err)
	}
	return func(b []byte) bool {
		n, err := m.Run(b)
		return err == nil && n > 0
	}
}

func TestFilter(t *testing.T) {
	first, second := fragments4(a4, b4, numbers(64))
	opts := with(append(append([]byte{}, p4[:20]...), append([]byte{7, 4, 4, 0}, p4[20:]...)...), 0, 0x46)
	frames := []struct {
		name  string
		frame []byte
		want  map[int]bool // by index of ports; absent: as the first
	}{
		{"UDP", etherFrame(p4, 0x0800), map[int]bool{0: true, 2: false}},
		{"UDP over IPv6", etherFrame(p6, 0x86dd), map[int]bool{0: true, 2: false}},
		{"TCP", etherFrame(as4(a4, b4, protoTCP, tcpPacket(a4, b4, 1, 1, flagACK, "x")), 0x0800), map[int]bool{0: true, 2: false}},
		{"IPv4 options", etherFrame(opts, 0x0800), map[int]bool{0: true, 2: false}},
		{"one tag", etherFrame(p4, 0x8100, 5060, 0x0800), map[int]bool{0: true, 2: false}},
		{"two tags", etherFrame(p6, 0x88a8, 5060, 0x8100, 5060, 0x86dd), map[int]bool{0: true, 2: false}},
		{"three tags", etherFrame(p4, 0x9100, 1, 0x8100, 2, 0x8100, 3, 0x0800), map[int]bool{0: true}},
		{"a first fragment", etherFrame(first, 0x0800), map[int]bool{0: true, 2: false}},
		{"a later fragment", etherFrame(second, 0x0800), map[int]bool{0: true}},
		{"an IPv6 fragment", etherFrame(part6(1, 8, false, []byte("x")), 0x86dd), map[int]bool{0: true}},
		{"ARP", etherFrame(make([]byte, 28), 0x0806), map[int]bool{0: false}},
		{"ICMP", etherFrame(as4(a4, b4, 1, make([]byte, 8)), 0x0800), map[int]bool{0: false}},
		{"ICMPv6", etherFrame(as6(a6, b6, 58, make([]byte, 8)), 0x86dd), map[int]bool{0: false}},
		{"nothing", nil, map[int]bool{0: false}},
		{"a short one", etherFrame(p4[:21], 0x0800), map[int]bool{0: true, 1: false, 2: false, 3: false, 4: false}},
	}
	many := make([]PortRange, MaxPortRanges)
	for i := range many {
		many[i] = PortRange{uint16(10_000 + 10*i), uint16(10_005 + 10*i)}
	}
	many[MaxPortRanges-1] = PortRange{5080, 5080}
	for i, ports := range [][]PortRange{nil, {{5060, 5060}}, {{1, 5059}, {5061, 5079}, {5081, 65535}}, {{5070, 5080}}, many} {
		match := vm(t, ports)
		for _, f := range frames {
			want, ok := f.want[i]
			if !ok {
				want = f.want[0]
			}
			if got := match(f.frame); got != want {
				t.Errorf("ports %d, %s: %v, want %v", i, f.name, got, want)
			}
		}
		if _, err := filter(ports); err != nil {
			t.Error(err)
		}
	}
}

// The filter and the decoder agree on every port of every range's ends.
func TestFilterAgreesWithDecoder(t *testing.T) {
	ports := []PortRange{{0, 0}, {5060, 5061}, {10_000, 20_000}, {65535, 65535}}
	match, set := vm(t, ports), newPortSet(ports)
	for p := range 1 << 16 {
		frame := etherFrame(p4, 0x0800)
		be.PutUint16(frame[34:], 9)
		be.PutUint16(frame[36:], uint16(p))
		if want := set.has(uint16(p)); match(frame) != want {
			t.Fatalf("port %d: %v, want %v", p, !want, want)
		}
	}
}

func TestTooManyRanges(t *testing.T) {
	err := Options{Ports: make([]PortRange, MaxPortRanges+1)}.Validate()
	if want := fmt.Sprintf("ports: %d ranges", MaxPortRanges+1); err == nil || err.Error()[:len(want)] != want {
		t.Error(err)
	}
}
