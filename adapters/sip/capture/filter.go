package capture

import (
	"fmt"

	"golang.org/x/net/bpf"
)

const (
	// netOff makes an offset count from the network header (SKF_NET_OFF of linux/filter.h).
	netOff = 0xfff00000
	// wholePacket is how much of a packet is kept.
	wholePacket = 256 << 10

	hatypeEther    = 1   // ARPHRD_ETHER
	hatypeLoopback = 772 // ARPHRD_LOOPBACK, which has Ethernet headers
	typeOutgoing   = 4   // PACKET_OUTGOING
)

// label is a place in a program that is not reached yet.
type label int

// Labels of the filter.
const (
	lEther label = iota + 1
	lProto
	lIPv4
	lIPv6
	lTransport
	lAccept
	lDrop
)

// program assembles a classic BPF program with jumps to labels further down.
type program struct {
	ins   []bpf.Instruction
	jumps map[int]label
	at    map[label]int
}

func newProgram() *program { return &program{jumps: map[int]label{}, at: map[label]int{}} }

func (p *program) add(ins ...bpf.Instruction) { p.ins = append(p.ins, ins...) }

func (p *program) place(l label) { p.at[l] = len(p.ins) }

func (p *program) jump(to label) {
	p.jumps[len(p.ins)] = to
	p.add(bpf.Jump{})
}

// jumpEqual jumps when the accumulator is v. Conditional jumps reach 255 instructions, the others any distance.
func (p *program) jumpEqual(v uint32, to label) {
	p.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1})
	p.jump(to)
}

// jumpBits jumps when the accumulator has any of mask.
func (p *program) jumpBits(mask uint32, to label) {
	p.add(bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: mask, SkipFalse: 1})
	p.jump(to)
}

// jumpRange jumps when the accumulator is in r.
func (p *program) jumpRange(r PortRange, to label) {
	p.add(bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(r.First), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(r.Last), SkipTrue: 1})
	p.jump(to)
}

// link fills in the jumps.
func (p *program) link() []bpf.Instruction {
	for i, l := range p.jumps {
		p.ins[i] = bpf.Jump{Skip: uint32(p.at[l] - i - 1)}
	}
	return p.ins
}

// filter is the program for an AF_PACKET socket of type SOCK_RAW: UDP and TCP over IPv4 and IPv6 from or to the ports,
// under up to two VLAN tags in the packet. Accepted unseen, since it cannot be told in a few instructions: later
// fragments, IPv6 with extension headers, more VLAN tags. Dropped: what the loopback interface sends, which it receives
// a moment later.
func filter(ports []PortRange) ([]bpf.RawInstruction, error) {
	p := newProgram()
	p.add(bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeOutgoing, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	p.jumpEqual(hatypeLoopback, lDrop)
	p.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	p.jumpEqual(hatypeEther, lEther)
	p.jumpEqual(hatypeLoopback, lEther)
	p.add(bpf.LoadExtension{Num: bpf.ExtProto}, bpf.LoadConstant{Dst: bpf.RegX, Val: netOff})
	p.jump(lProto)
	p.place(lEther)
	p.body(ports)
	raw, err := bpf.Assemble(p.link())
	if err != nil {
		return nil, fmt.Errorf("assembling the packet filter: %w", err)
	}
	return raw, nil
}

// body is the filter from an Ethernet header on. The accumulator holds the EtherType and X the offset of what follows.
func (p *program) body(ports []PortRange) {
	p.vlan(14)
	p.vlan(18)
	p.vlan(22)
	p.jump(lAccept)
	p.place(lProto)
	p.jumpEqual(etherIPv4, lIPv4)
	p.jumpEqual(etherIPv6, lIPv6)
	p.jump(lDrop)
	p.ipv4()
	p.ipv6()
	p.transport(ports)
	p.place(lAccept)
	p.add(bpf.RetConstant{Val: wholePacket})
	p.place(lDrop)
	p.add(bpf.RetConstant{})
}

// vlan goes on after the EtherType before offset unless it is that of a VLAN tag.
func (p *program) vlan(offset uint32) {
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: offset},
		bpf.LoadAbsolute{Off: offset - 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherVLAN, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherQinQ, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherOldQ, SkipTrue: 1})
	p.jump(lProto)
}

// ipv4 sets X to the offset of the transport header.
func (p *program) ipv4() {
	p.place(lIPv4)
	p.add(bpf.LoadIndirect{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoUDP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoTCP, SkipTrue: 1})
	p.jump(lDrop)
	p.add(bpf.LoadIndirect{Off: 6, Size: 2})
	p.jumpBits(0x1fff, lAccept)
	p.add(bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.ALUOpX{Op: bpf.ALUOpAdd},
		bpf.TAX{})
	p.jump(lTransport)
}

// ipv6 sets X to the offset of the transport header.
func (p *program) ipv6() {
	p.place(lIPv6)
	p.add(bpf.LoadIndirect{Off: 6, Size: 1})
	for _, ext := range []uint32{protoHopByHop, protoRouting, protoFragment, protoAuth, protoDestOpts} {
		p.jumpEqual(ext, lAccept)
	}
	p.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoUDP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoTCP, SkipTrue: 1})
	p.jump(lDrop)
	p.add(bpf.TXA{},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 40},
		bpf.TAX{})
}

// transport compares both ports; X is the offset of the transport header.
func (p *program) transport(ports []PortRange) {
	p.place(lTransport)
	if len(ports) == 0 {
		return // into lAccept
	}
	for _, offset := range []uint32{0, 2} {
		p.add(bpf.LoadIndirect{Off: offset, Size: 2})
		for _, r := range ports {
			p.jumpRange(r, lAccept)
		}
	}
	p.jump(lDrop)
}
