package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/ctigate/ctigate/core/call"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacketOld = 2
	blockSimple    = 3
	blockPacket    = 6
)

const (
	orderMagic = 0x1a2b3c4d
	// maxInterfaces of one section.
	maxInterfaces = 4096
	// blockFrame is a block's type and length before its body, and its length after it.
	blockFrame = 12

	optEnd      = 0
	optTSResol  = 9
	optTSOffset = 14
)

// iface is an interface of the section being read.
type iface struct {
	link   int
	snap   uint32 // 0: unlimited
	resol  byte   // if_tsresol
	offset int64  // if_tsoffset, s
}

// pcapng reads the block format. Blocks that are not packets, interfaces or sections are passed over.
type pcapng struct {
	in     *input
	order  binary.ByteOrder
	ifaces []iface
	last   call.Time // of the packet before, for those that carry no time
}

func (p *pcapng) next(f *frame) error {
	for {
		p.in.advance()
		found, err := p.block(f)
		if err != nil || found {
			return err
		}
	}
}

// block handles one block, and says whether it was a packet.
func (p *pcapng) block(f *frame) (bool, error) {
	b, err := p.in.peek(blockFrame)
	if err != nil {
		return false, err
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		return false, p.section(b)
	}
	if p.order == nil {
		return false, errors.New("a block before the first section")
	}
	kind, length := p.order.Uint32(b), p.order.Uint32(b[4:])
	if err := checkLength(length); err != nil {
		return false, err
	}
	switch kind {
	case blockInterface, blockPacket, blockPacketOld, blockSimple:
	default:
		return false, p.pass(length)
	}
	if length > bufferSize {
		return false, fmt.Errorf("a block of %d bytes, more than %d: the file is damaged", length, bufferSize)
	}
	if b, err = p.in.peek(int(length)); err != nil {
		return false, inside(err)
	}
	if after := p.order.Uint32(b[length-4:]); after != length {
		return false, unequal(length, after)
	}
	return p.known(kind, b[8:length-4], f)
}

func checkLength(n uint32) error {
	if n < blockFrame || n%4 != 0 {
		return fmt.Errorf("a block of %d bytes, which is not %d or more and a multiple of four: the file is damaged", n, blockFrame)
	}
	return nil
}

func unequal(before, after uint32) error {
	return fmt.Errorf("a block whose length is %d before and %d after it: the file is damaged", before, after)
}

// pass reads past the block at hand.
func (p *pcapng) pass(length uint32) error {
	p.in.used = 0
	if err := p.in.skip(int64(length) - 4); err != nil {
		return err
	}
	b, err := p.in.peek(4)
	if err != nil {
		return inside(err)
	}
	if after := p.order.Uint32(b); after != length {
		return unequal(length, after)
	}
	return nil
}

// section begins a new section, with its own byte order and interfaces.
func (p *pcapng) section(b []byte) error {
	switch uint32(orderMagic) {
	case binary.BigEndian.Uint32(b[8:]):
		p.order = binary.BigEndian
	case binary.LittleEndian.Uint32(b[8:]):
		p.order = binary.LittleEndian
	default:
		return fmt.Errorf("a section whose byte-order magic is % x: the file is damaged", b[8:12])
	}
	length := p.order.Uint32(b[4:])
	if err := checkLength(length); err != nil {
		return err
	}
	p.ifaces = p.ifaces[:0]
	return p.pass(length)
}

// known handles the body of a block that matters.
func (p *pcapng) known(kind uint32, b []byte, f *frame) (bool, error) {
	switch kind {
	case blockInterface:
		return false, p.describe(b)
	case blockSimple:
		return true, p.simple(b, f)
	}
	return true, p.packet(kind, b, f)
}

// describe is an Interface Description Block.
func (p *pcapng) describe(b []byte) error {
	if len(b) < 8 {
		return short("an interface")
	}
	if len(p.ifaces) >= maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	i := iface{link: int(p.order.Uint16(b)), snap: p.order.Uint32(b[4:]), resol: 6}
	for b = b[8:]; len(b) >= 4; {
		code, n := p.order.Uint16(b), int(p.order.Uint16(b[2:]))
		if b = b[4:]; code == optEnd || n > len(b) {
			break
		}
		switch {
		case code == optTSResol && n == 1:
			i.resol = b[0]
		case code == optTSOffset && n == 8:
			i.offset = int64(p.order.Uint64(b))
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	p.ifaces = append(p.ifaces, i)
	return nil
}

func short(kind string) error {
	return fmt.Errorf("%s block that is too short for its fields: the file is damaged", kind)
}

// packet is an Enhanced Packet Block, or the Packet Block it replaced.
func (p *pcapng) packet(kind uint32, b []byte, f *frame) error {
	if len(b) < 20 {
		return short("a packet")
	}
	id := p.order.Uint32(b)
	if kind == blockPacketOld {
		id = uint32(p.order.Uint16(b))
	}
	if int64(id) >= int64(len(p.ifaces)) {
		return fmt.Errorf("a packet of interface %d, which is not described", id)
	}
	captured := p.order.Uint32(b[12:])
	if captured > maxPacket {
		return tooLarge(captured)
	}
	if int(captured) > len(b)-20 {
		return short("a packet")
	}
	i := &p.ifaces[id]
	p.last = i.time(uint64(p.order.Uint32(b[4:]))<<32 | uint64(p.order.Uint32(b[8:])))
	f.link, f.at = i.link, p.last
	f.data, f.length = b[20:20+captured], int(min(p.order.Uint32(b[16:]), 1<<30))
	return nil
}

// simple is a Simple Packet Block. It has no time: that of the packet before it is taken.
func (p *pcapng) simple(b []byte, f *frame) error {
	if len(b) < 4 {
		return short("a simple packet")
	}
	if len(p.ifaces) == 0 {
		return errors.New("a simple packet before any interface")
	}
	i := &p.ifaces[0]
	length := p.order.Uint32(b)
	captured := min(length, uint32(len(b)-4))
	if i.snap > 0 {
		captured = min(captured, i.snap)
	}
	if captured > maxPacket {
		return tooLarge(captured)
	}
	f.link, f.at = i.link, p.last
	f.data, f.length = b[4:4+captured], int(min(length, 1<<30))
	return nil
}

// time converts a timestamp of the interface (if_tsresol: a negative power of ten or, with the top bit, of two).
func (i *iface) time(t uint64) call.Time {
	n := uint(i.resol & 0x7f)
	var seconds, micros uint64
	if i.resol&0x80 != 0 {
		seconds, micros = binaryTime(t, n)
	} else {
		seconds, micros = decimalTime(t, n)
	}
	limit := int64(latest / call.Second)
	at := clamp(seconds, micros) + call.Time(min(max(i.offset, -limit), limit))*call.Second
	return min(max(at, 0), latest)
}

func binaryTime(t uint64, n uint) (seconds, micros uint64) {
	if n > 63 {
		return 0, 0 // less than a microsecond, for any t
	}
	part := t & (1<<n - 1)
	hi, lo := bits.Mul64(part, 1e6)
	return t >> n, hi<<(64-n) | lo>>n
}

func decimalTime(t uint64, n uint) (seconds, micros uint64) {
	if n > 19 {
		return 0, 0 // far beyond what 64 bits can tell of this century
	}
	unit := uint64(1)
	for range n {
		unit *= 10
	}
	part := t % unit
	if n >= 6 {
		return t / unit, part / (unit / 1e6)
	}
	return t / unit, part * (1e6 / unit)
}
