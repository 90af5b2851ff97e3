package hep

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
)

// unpacker inflates payloads, reusing its memory: about 40 KB for each form seen, and one frame.
type unpacker struct {
	source bytes.Reader
	zlib   io.ReadCloser
	gzip   *gzip.Reader
	out    []byte
}

// inflate unpacks zlib (RFC 1950) or gzip (RFC 1952), whichever it is: agents send either. The result is valid until
// the next call and at most MaxFrame long.
func (u *unpacker) inflate(packed []byte) ([]byte, error) {
	r, err := u.open(packed)
	if err != nil {
		return nil, errInflate
	}
	if u.out == nil {
		u.out = make([]byte, MaxFrame+1)
	}
	for n := 0; n < len(u.out); {
		m, err := r.Read(u.out[n:])
		n += m
		if err == io.EOF {
			return u.out[:min(n, MaxFrame)], oversize(n)
		}
		if err != nil {
			return nil, errInflate
		}
	}
	return nil, errInflateSize
}

func oversize(n int) error {
	if n > MaxFrame {
		return errInflateSize
	}
	return nil
}

// open gives a reader of what packed inflates to.
func (u *unpacker) open(packed []byte) (io.Reader, error) {
	u.source.Reset(packed)
	if bytes.HasPrefix(packed, []byte{0x1f, 0x8b}) {
		return u.openGzip()
	}
	if u.zlib != nil {
		return u.zlib, u.zlib.(zlib.Resetter).Reset(&u.source, nil)
	}
	r, err := zlib.NewReader(&u.source)
	if err == nil {
		u.zlib = r
	}
	return r, err
}

func (u *unpacker) openGzip() (io.Reader, error) {
	if u.gzip == nil {
		u.gzip = new(gzip.Reader)
	}
	return u.gzip, u.gzip.Reset(&u.source)
}
