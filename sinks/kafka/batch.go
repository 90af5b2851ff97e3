package kafka

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ctigate/ctigate/sinks/cloudevents"
	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go/compress"
)

// Record batches, magic 2 (https://kafka.apache.org/documentation/#recordbatch), after the size that the produce
// request puts before them.
const (
	sizeLen      = 4
	atLength     = sizeLen + 8
	atCRC        = sizeLen + 17
	atAttributes = sizeLen + 21
	atRecords    = sizeLen + 61
	recordExtra  = 20 // at most: length, attributes, timestamp and offset deltas
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// compressions by their configured name.
var compressions = map[string]compress.Compression{
	"none": compress.None, "gzip": compress.Gzip, "snappy": compress.Snappy, "lz4": compress.Lz4, "zstd": compress.Zstd,
}

// record is one message, as far as it does not depend on the batch it travels in.
type record struct {
	item int    // index in the batch given to Write
	time int64  // Unix milliseconds
	tail []byte // key, value and headers in wire format
}

// appendTail appends a record's key, value and headers in wire format. A nil value is a tombstone.
func appendTail(b []byte, key string, value []byte, headers []cloudevents.Header) []byte {
	if key == "" {
		b = binary.AppendVarint(b, -1)
	} else {
		b = binary.AppendVarint(b, int64(len(key)))
		b = append(b, key...)
	}
	if value == nil {
		b = binary.AppendVarint(b, -1)
	} else {
		b = binary.AppendVarint(b, int64(len(value)))
		b = append(b, value...)
	}
	b = binary.AppendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = binary.AppendVarint(b, int64(len(h.Name)))
		b = append(b, h.Name...)
		b = binary.AppendVarint(b, int64(len(h.Value)))
		b = append(b, h.Value...)
	}
	return b
}

// packer makes record batches. It is for one goroutine.
type packer struct {
	codec   compress.Codec // nil: none
	lz4     *lz4.Writer    // in place of the library's, whose blocks are 4 MiB
	records []byte
}

func newPacker(c compress.Compression) (*packer, error) {
	p := &packer{codec: c.Codec()}
	if c != compress.Lz4 {
		return p, nil
	}
	p.lz4 = lz4.NewWriter(io.Discard)
	// Independent 64 KiB blocks: Kafka's decoder refuses linked ones.
	if err := p.lz4.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ConcurrencyOption(1)); err != nil {
		return nil, fmt.Errorf("setting up lz4: %w", err)
	}
	return p, nil
}

// pack appends recs to dst as one batch, its size before it. There must be at least one record.
func (p *packer) pack(dst []byte, recs []record, by producer, seq int32) ([]byte, error) {
	first, last := recs[0].time, recs[0].time
	p.records = p.records[:0]
	for i, r := range recs {
		p.records = appendRecord(p.records, r, r.time-first, int64(i))
		last = max(last, r.time)
	}
	start := len(dst)
	b := append(dst, make([]byte, atRecords)...)
	b, err := p.compress(b)
	if err != nil {
		return dst, err
	}
	h := b[start:]
	put := binary.BigEndian
	put.PutUint32(h, uint32(len(h)-sizeLen))
	put.PutUint32(h[atLength:], uint32(len(h)-atLength-4))
	put.PutUint32(h[sizeLen+12:], 0xffffffff) // partition leader epoch: the broker's to set
	h[sizeLen+16] = 2
	put.PutUint16(h[atAttributes:], uint16(p.code()))
	put.PutUint32(h[sizeLen+23:], uint32(len(recs)-1))
	put.PutUint64(h[sizeLen+27:], uint64(first))
	put.PutUint64(h[sizeLen+35:], uint64(last))
	put.PutUint64(h[sizeLen+43:], uint64(by.id))
	put.PutUint16(h[sizeLen+51:], uint16(by.epoch))
	put.PutUint32(h[sizeLen+53:], uint32(seq))
	put.PutUint32(h[sizeLen+57:], uint32(len(recs)))
	put.PutUint32(h[atCRC:], crc32.Checksum(h[atAttributes:], castagnoli))
	return b, nil
}

func (p *packer) code() int8 {
	if p.codec == nil {
		return 0
	}
	return p.codec.Code()
}

func appendRecord(b []byte, r record, timeDelta, offsetDelta int64) []byte {
	var room [recordExtra]byte
	head := append(room[:0], 0) // attributes: unused
	head = binary.AppendVarint(head, timeDelta)
	head = binary.AppendVarint(head, offsetDelta)
	b = binary.AppendVarint(b, int64(len(head)+len(r.tail)))
	b = append(b, head...)
	return append(b, r.tail...)
}

// compress appends the packed records to b.
func (p *packer) compress(b []byte) ([]byte, error) {
	if p.codec == nil {
		return append(b, p.records...), nil
	}
	out := (*appender)(&b)
	var w io.WriteCloser
	if p.lz4 != nil {
		p.lz4.Reset(out)
		w = p.lz4
	} else {
		w = p.codec.NewWriter(out)
	}
	_, err := w.Write(p.records)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return b, fmt.Errorf("compressing a batch with %s: %w", p.codec.Name(), err)
	}
	return b, nil
}

// appender is a writer that cannot fail.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
