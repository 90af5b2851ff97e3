package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"bytes"

	"github.com/segmentio/kafka-go/compress"
)

// errBatch is wrapped by errors about a batch that cannot be read.
var errBatch = errors.New("unreadable record batch")

const (
	batchHeader      = atRecords - sizeLen
	maxUncompressed  = 256 << 20 // of one batch
	attrCompression  = 0x07
	attrLogAppend    = 0x08
	attrControl      = 0x20
	headerContent    = "content-type"
	headerID         = "ce_id"
	maxRecordHeaders = 1 << 16
)

// logRecord is one record as it stands in the log. Its slices are valid as long as the fetched batch.
type logRecord struct {
	offset  int64
	time    int64 // Unix milliseconds
	key     []byte
	value   []byte // nil: a tombstone
	headers []byte // in wire format, their count first
}

// header finds a header's value.
func (r *logRecord) header(name string) []byte {
	for k, v := range r.eachHeader {
		if string(k) == name {
			return v
		}
	}
	return nil
}

// eachHeader gives the headers' names and values, up to one that is cut off.
func (r *logRecord) eachHeader(yield func(name, value []byte) bool) {
	w := wire{b: r.headers}
	for range min(w.varint(), maxRecordHeaders) {
		k, v := w.bytes(), w.bytes()
		if w.short || !yield(k, v) {
			return
		}
	}
}

// eachRecord calls f for every record of the batches from offset on, leaving out markers, and returns the offset to go on
// with: behind the last batch that is there completely. f may end it early by an error.
func eachRecord(batches []byte, offset int64, f func(logRecord) error) (next int64, err error) {
	next = offset
	for len(batches) >= batchHeader {
		length := int64(binary.BigEndian.Uint32(batches[8:])) + 12
		if length > int64(len(batches)) {
			break // the rest comes with the next answer
		}
		if length < batchHeader || batches[16] != 2 {
			return next, fmt.Errorf("%w at offset %d: %d bytes, format %d; only format 2 is known (Kafka 0.11 and later)",
				errBatch, next, length, batches[16])
		}
		end, err := readBatch(batches[:length], offset, f)
		if err != nil {
			return next, err
		}
		next = max(next, end)
		batches = batches[length:]
	}
	return next, nil
}

// readBatch reads one batch and returns the offset behind it, which compaction does not change.
func readBatch(b []byte, from int64, f func(logRecord) error) (end int64, err error) {
	h := wire{b: b}
	base := h.int64()
	h.skip(4 + 4 + 1)
	sum := uint32(h.int32())
	if got := crc32.Checksum(h.b, castagnoli); got != sum {
		return 0, fmt.Errorf("%w at offset %d: its checksum is %08x, want %08x", errBatch, base, got, sum)
	}
	attributes := h.int16()
	end = base + int64(h.int32()) + 1
	first, latest := h.int64(), h.int64()
	h.skip(8 + 2 + 4) // producer
	n := h.int32()
	if attributes&attrControl != 0 || end <= from {
		return end, nil
	}
	records, err := uncompress(h.b, attributes&attrCompression)
	if err != nil {
		return 0, fmt.Errorf("%w at offset %d: %w", errBatch, base, err)
	}
	w := wire{b: records}
	for range n {
		r := readRecord(&w, base, first)
		if w.short {
			return 0, fmt.Errorf("%w at offset %d: it ends within a record", errBatch, base)
		}
		if attributes&attrLogAppend != 0 {
			r.time = latest
		}
		if r.offset < from {
			continue
		}
		if err := f(r); err != nil {
			return 0, err
		}
	}
	return end, nil
}

func readRecord(w *wire, base, first int64) logRecord {
	r := wire{b: w.bytes()}
	r.skip(1) // attributes
	rec := logRecord{time: first + r.varint(), offset: base + r.varint()}
	rec.key, rec.value = r.bytes(), r.bytes()
	rec.headers = r.b
	w.short = w.short || r.short
	return rec
}

func uncompress(b []byte, code int16) ([]byte, error) {
	if code == 0 {
		return b, nil
	}
	if int(code) >= len(compress.Codecs) {
		return nil, fmt.Errorf("compression %d is unknown", code)
	}
	r := compress.Codecs[code].NewReader(bytes.NewReader(b))
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, maxUncompressed+1))
	if err != nil {
		return nil, fmt.Errorf("uncompressing: %w", err)
	}
	if len(out) > maxUncompressed {
		return nil, fmt.Errorf("more than %d bytes uncompressed", maxUncompressed)
	}
	return out, nil
}
