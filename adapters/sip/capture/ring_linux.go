package capture

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ctigate/ctigate/core/call"
)

const (
	// blockHeader is what a block begins with: version, offset, and the header of its first version.
	blockHeader = int(unsafe.Sizeof(blockDesc{}))
	// packetHeader is what a packet begins with.
	packetHeader = int(unsafe.Sizeof(unix.Tpacket3Hdr{}))
	// linkOffset is where the packet's sockaddr_ll is (TPACKET_ALIGN of the header before it).
	linkOffset = (packetHeader + unix.TPACKET_ALIGNMENT - 1) &^ (unix.TPACKET_ALIGNMENT - 1)
	linkSize   = int(unsafe.Sizeof(unix.RawSockaddrLinklayer{}))
)

// blockDesc is struct tpacket_block_desc of linux/if_packet.h.
type blockDesc struct {
	version, private uint32
	unix.TpacketHdrV1
}

// ring is the memory that the kernel writes packets to, block by block.
type ring struct {
	mem     []byte
	blocks  int
	current int   // the block that is read next
	f       frame // the packet being decoded
}

func newRing(fd, size int) (*ring, error) {
	blocks := size / blockBytes
	req := unix.TpacketReq3{
		Block_size: blockBytes, Block_nr: uint32(blocks),
		Frame_size: blockBytes, Frame_nr: uint32(blocks), // frames have no fixed size in V3; it is only checked
		Retire_blk_tov: uint32(blockTimeout / time.Millisecond),
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("setting up a ring of %d bytes: %w: ask for a smaller one", size, err)
	}
	mem, err := unix.Mmap(fd, 0, blocks*blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the ring: %w", err)
	}
	return &ring{mem: mem, blocks: blocks}, nil
}

func (r *ring) unmap() {
	_ = unix.Munmap(r.mem)
	r.mem = nil
}

func (r *ring) block(i int) *blockDesc {
	return (*blockDesc)(unsafe.Pointer(&r.mem[i*blockBytes]))
}

func (r *ring) readyAt(i int) bool {
	return atomic.LoadUint32(&r.block(i).Block_status)&unix.TP_STATUS_USER != 0
}

// ready reports whether there is a block to read.
func (r *ring) ready() bool { return r.readyAt(r.current) }

// backlog is the share of blocks that wait to be read.
func (r *ring) backlog() float64 {
	n := 0
	for n < r.blocks && r.readyAt((r.current+n)%r.blocks) {
		n++
	}
	return float64(n) / float64(r.blocks)
}

// read decodes the block at hand and gives it back to the kernel.
func (r *ring) read(d *decoder, now time.Time) {
	desc := r.block(r.current)
	b := r.mem[r.current*blockBytes : (r.current+1)*blockBytes]
	received := call.At(now)
	next := int(desc.Offset_to_first_pkt)
	for range desc.Num_pkts {
		if next < blockHeader || next+linkOffset+linkSize > len(b) {
			break // the kernel does not write this
		}
		next += r.packet(d, b[next:], received)
	}
	atomic.StoreUint32(&desc.Block_status, unix.TP_STATUS_KERNEL)
	r.current = (r.current + 1) % r.blocks
}

// packet decodes the packet that b begins with, and returns where the next one is.
func (r *ring) packet(d *decoder, b []byte, received call.Time) int {
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[0]))
	ll := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[linkOffset]))
	mac, end, network := int(h.Mac), int(h.Mac)+int(h.Snaplen), int(h.Net)
	if mac > end || end > len(b) {
		return int(h.Next_offset)
	}
	vlan := uint16(0)
	if h.Status&unix.TP_STATUS_VLAN_VALID != 0 {
		vlan = uint16(h.Hv1.Vlan_tci & 0x0fff)
	}
	f := &r.f
	f.at = call.Time(h.Sec)*call.Second + call.Time(h.Nsec)/1000
	f.received = max(received, f.at)
	switch {
	case ll.Hatype == hatypeEther || ll.Hatype == hatypeLoopback:
		f.data, f.length = b[mac:end], int(h.Len)
		d.tagged(f, vlan)
	case network >= mac && network <= end:
		f.data, f.length = b[network:end], int(h.Len)-(network-mac)
		d.network(f, htons(ll.Protocol), vlan)
	}
	return int(h.Next_offset)
}
