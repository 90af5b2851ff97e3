package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/ctigate/ctigate/core/call"
)

// Record is one entry.
type Record struct {
	Seq  uint64    // 1, 2, 3 …; Append assigns it
	At   call.Time // when it was appended, by the caller's clock
	Kind uint8     // what Data is, for the caller
	Data []byte
}

// Sizes of what is on disk, in bytes.
const (
	MaxData    = 64 << 20 // of one record
	headerSize = 36       // of a segment
	frameSize  = 36       // of a record without its data
	keySize    = 16
)

// mark begins a record; it makes looking for one fast.
const mark = "\xc7\x1cJr"

const magic = "ctijrnl\x01"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// place is what the checksums of a segment's records start from.
type place struct {
	key   [keySize]byte
	first uint64 // seq of the segment's first record
	salt  uint32 // checksum of both
}

func newPlace(key [keySize]byte, first uint64) place {
	p := place{key: key, first: first}
	p.salt = crc32.Checksum(binary.LittleEndian.AppendUint64(key[:], first), castagnoli)
	return p
}

// sum is the checksum of a record's head at offset off. The same head has another at every other offset: a CRC of equal
// bytes is as different as what it starts from.
func (p place) sum(off int64, head []byte) uint32 {
	return crc32.Update(p.salt^uint32(off)^uint32(off>>32), castagnoli, head)
}

// seal sets the checksum of the head that frame begins with, for offset off.
func (p place) seal(off int64, frame []byte) {
	binary.LittleEndian.PutUint32(frame[32:], p.sum(off, frame[:32]))
}

// appendFrame appends r as it stands at offset off.
func (p place) appendFrame(b []byte, off int64, r Record) []byte {
	start := len(b)
	b = append(b, mark...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Data)))
	b = binary.LittleEndian.AppendUint64(b, r.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.At))
	b = append(b, r.Kind, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(r.Data, castagnoli))
	b = append(b, 0, 0, 0, 0)
	p.seal(off, b[start:])
	return append(b, r.Data...)
}

// head is the head of a record.
type head struct {
	length int
	seq    uint64
	at     call.Time
	kind   uint8
	crc    uint32 // of the data
}

// parseHead reads the head of a record at offset off; ok is false when there is none.
func (p place) parseHead(off int64, b []byte) (h head, ok bool) {
	if string(b[:4]) != mark || binary.LittleEndian.Uint32(b[32:]) != p.sum(off, b[:32]) {
		return head{}, false
	}
	h = headOf(b)
	return h, h.length <= MaxData
}

// headOf reads a head that is known to be sound.
func headOf(b []byte) head {
	return head{
		length: int(binary.LittleEndian.Uint32(b[4:])),
		seq:    binary.LittleEndian.Uint64(b[8:]),
		at:     call.Time(binary.LittleEndian.Uint64(b[16:])),
		kind:   b[24],
		crc:    binary.LittleEndian.Uint32(b[28:]),
	}
}

// segmentHeader is the start of a segment.
func segmentHeader(p place) []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint64(b, p.first)
	b = append(b, p.key[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseSegmentHeader reads the start of a segment; ok is false when it is not one of this version.
func parseSegmentHeader(b []byte) (p place, ok bool) {
	if len(b) < headerSize || string(b[:8]) != magic ||
		binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return place{}, false
	}
	return newPlace([keySize]byte(b[16:32]), binary.LittleEndian.Uint64(b[8:])), true
}
