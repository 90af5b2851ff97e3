package capture

import (
	"encoding/binary"
	"fmt"

	"github.com/ctigate/ctigate/core/call"
)

// Magic numbers of pcap (draft-ietf-opsawg-pcap), in the writer's byte order.
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

const (
	pcapFileHeader   = 24
	pcapPacketHeader = 16
)

// pcap reads the classic format.
type pcap struct {
	in    *input
	order binary.ByteOrder
	nano  bool
	link  int
}

func newPCAP(in *input, order binary.ByteOrder, magic uint32) (*pcap, error) {
	b, err := in.peek(pcapFileHeader)
	if err != nil {
		return nil, inside(err)
	}
	if major := order.Uint16(b[4:]); major != 2 {
		return nil, fmt.Errorf("pcap version %d.%d is not known; 2.4 is", major, order.Uint16(b[6:]))
	}
	return &pcap{in: in, order: order, nano: magic == magicNano, link: int(order.Uint32(b[20:]) & 0xffff)}, nil
}

func (p *pcap) next(f *frame) error {
	p.in.advance()
	b, err := p.in.peek(pcapPacketHeader)
	if err != nil {
		return err
	}
	captured, length := p.order.Uint32(b[8:]), p.order.Uint32(b[12:])
	if captured > maxPacket {
		return tooLarge(captured)
	}
	seconds, part := p.order.Uint32(b), p.order.Uint32(b[4:])
	if p.nano {
		part /= 1000
	}
	if b, err = p.in.peek(pcapPacketHeader + int(captured)); err != nil {
		return inside(err)
	}
	f.link, f.at = p.link, call.Time(seconds)*call.Second+call.Time(part)
	f.data, f.length = b[pcapPacketHeader:], int(min(length, 1<<30))
	return nil
}

func tooLarge(n uint32) error {
	return fmt.Errorf("a packet of %d bytes, more than the %d that any capture has: the file is damaged", n, maxPacket)
}
