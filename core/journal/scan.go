package journal

import (
	"bytes"
	"hash/crc32"
	"io"
)

const (
	windowSize = 256 << 10 // bytes read at a time
	blockSize  = 4 << 10   // bytes given up at a time where the disk cannot read
)

// scanner reads the records of one segment and finds the next sound one after damage.
type scanner struct {
	place
	src    io.ReaderAt
	off    int64  // where the next record is
	end    int64  // where records end
	expect uint64 // seq of the next record

	buf  []byte // bytes of the segment from base
	base int64
	err  error // what the disk said where it could not read
}

// stretch is bytes that hold no sound record.
type stretch struct {
	off, bytes int64
	seen       uint64 // highest seq of a record in it whose head is sound, 0 for none
}

// next returns the next record, or the damaged stretch before it (then rec is the zero Record), or io.EOF at the end.
// The record's data is valid until the next call.
func (s *scanner) next() (rec Record, bad *stretch, err error) {
	start, seen := s.off, uint64(0)
	for s.off < s.end {
		h, ok := s.head(s.off, start)
		if !ok {
			s.off = s.find(s.off + 1)
			continue
		}
		data, sound := s.data(h)
		switch {
		case sound && s.off == start:
			s.off += int64(frameSize + h.length)
			s.expect = h.seq + 1
			return Record{Seq: h.seq, At: h.at, Kind: h.kind, Data: data}, nil, nil
		case sound:
			s.expect = h.seq
			return Record{}, &stretch{start, s.off - start, seen}, nil
		case data == nil: // it ends beyond the end: cut off
			seen = max(seen, h.seq)
			s.off = s.find(s.off + 1)
		default:
			seen = max(seen, h.seq)
			s.off += int64(frameSize + h.length)
		}
	}
	if s.off > start {
		s.off = s.end
		return Record{}, &stretch{start, s.end - start, seen}, nil
	}
	return Record{}, nil, io.EOF
}

// head reads the head at off, which must be plausible after the bytes skipped since start: each lost record took at
// least frameSize of them.
func (s *scanner) head(off, start int64) (head, bool) {
	b := s.window(off, frameSize)
	if b == nil {
		return head{}, false
	}
	h, ok := s.parseHead(off, b)
	lost := uint64(off-start) / frameSize
	return h, ok && h.seq >= s.expect && h.seq-s.expect <= lost
}

// data returns the data of the record at s.off, nil when it is cut off, and whether it is sound.
func (s *scanner) data(h head) (data []byte, sound bool) {
	b := s.window(s.off, frameSize+h.length)
	if b == nil {
		return nil, false
	}
	return b[frameSize:], crc32.Checksum(b[frameSize:], castagnoli) == h.crc
}

// find returns where, from off on, a record may begin, or the end.
func (s *scanner) find(off int64) int64 {
	for off+frameSize <= s.end {
		s.window(off, frameSize)
		b := s.buf[off-s.base:]
		if i := bytes.Index(b, []byte(mark)); i >= 0 {
			return off + int64(i)
		}
		off += int64(len(b) - len(mark) + 1)
	}
	return s.end
}

// window returns n bytes at off, nil when the segment ends before.
func (s *scanner) window(off int64, n int) []byte {
	if off+int64(n) > s.end {
		return nil
	}
	if off < s.base || off+int64(n) > s.base+int64(len(s.buf)) {
		s.fill(off, max(n, windowSize))
	}
	return s.buf[off-s.base:][:n]
}

func (s *scanner) fill(off int64, n int) {
	n = int(min(int64(n), s.end-off))
	if cap(s.buf) < n || cap(s.buf) > 4*windowSize && n <= windowSize {
		s.buf = make([]byte, n)
	}
	s.buf, s.base = s.buf[:n], off
	if err := readAll(s.src, s.buf, off); err != nil {
		s.err = err
	}
}

// readAll reads b at off. What cannot be read is zero: a block where the disk fails, the rest where the file ends.
func readAll(src io.ReaderAt, b []byte, off int64) (failed error) {
	n, err := src.ReadAt(b, off)
	for n < len(b) && err != io.EOF {
		failed = err
		block := b[n:min(len(b), n+blockSize)]
		got, again := src.ReadAt(block, off+int64(n))
		if got < len(block) && again != io.EOF {
			clear(block[got:])
			got = len(block)
		}
		if n, err = n+got, again; err == nil {
			err = failed
		}
	}
	clear(b[n:])
	return failed
}
