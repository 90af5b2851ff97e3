package capture

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

const (
	// maxPacket is the largest captured packet that is believed: what tcpdump and Wireshark take.
	maxPacket = 256 << 10
	// bufferSize holds the largest block that is read whole.
	bufferSize = 1 << 20
	// checkEvery is after how many packets the context is asked.
	checkEvery = 256
)

// ErrTruncated is wrapped in the error of a file that ends inside a packet. What comes before was handed over.
var ErrTruncated = errors.New("the file ends inside a packet: it was cut off, or is still being written")

// source reads a file's packets.
type source interface {
	// next fills in f, whose data is valid until the next call. io.EOF is the proper end.
	next(f *frame) error
}

// ReadFile hands every SIP and RTP packet of a pcap or pcapng file, plain or gzipped, to h, as fast as h takes them, and
// returns when the file ends or ctx does (then with its error). An error says how many packets came before it; one that
// wraps ErrTruncated leaves them valid.
func ReadFile(ctx context.Context, path string, o Options, h wire.Handler) (Stats, error) {
	file, err := os.Open(path)
	if err != nil {
		return Stats{}, fmt.Errorf("opening capture file: %w", err)
	}
	defer file.Close()
	stop := context.AfterFunc(ctx, func() { file.Close() }) // a pipe may block
	defer stop()
	st, err := Read(ctx, file, o, h)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("reading capture file %s: %w", path, err)
	}
	return st, err
}

// Read is ReadFile for what is open already.
func Read(ctx context.Context, r io.Reader, o Options, h wire.Handler) (Stats, error) {
	if err := o.Validate(); err != nil {
		return Stats{}, err
	}
	in, err := newInput(r)
	if err != nil {
		return Stats{}, err
	}
	src, err := open(in)
	if err != nil {
		return Stats{}, err
	}
	d := newDecoder(o, h)
	err = pump(ctx, src, d)
	d.flush()
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("after %d packets, at byte %d: %w", d.stats.Packets, in.offset, err)
	}
	return d.stats, err
}

// pump decodes all packets of src.
func pump(ctx context.Context, src source, d *decoder) error {
	var f frame
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := src.next(&f); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		f.received = f.at
		d.packet(&f)
	}
}

// input reads a file without copying what is looked at.
type input struct {
	br     *bufio.Reader
	offset int64 // of what was looked at last, in the unzipped file
	used   int   // of the buffer, by what was looked at last
}

// newInput unzips r where it is gzipped.
func newInput(r io.Reader) (*input, error) {
	in := &input{br: bufio.NewReaderSize(r, bufferSize)}
	if b, _ := in.br.Peek(2); len(b) < 2 || b[0] != 0x1f || b[1] != 0x8b {
		return in, nil
	}
	z, err := gzip.NewReader(in.br)
	if err != nil {
		return nil, fmt.Errorf("unzipping: %w", err)
	}
	return &input{br: bufio.NewReaderSize(z, bufferSize)}, nil
}

// advance goes past what was looked at last.
func (in *input) advance() {
	_, _ = in.br.Discard(in.used) // it is in the buffer
	in.offset += int64(in.used)
	in.used = 0
}

// peek looks at the next n bytes, n at most bufferSize. io.EOF means that there are none at all.
func (in *input) peek(n int) ([]byte, error) {
	b, err := in.br.Peek(n)
	if err == nil {
		in.used = n
		return b, nil
	}
	if errors.Is(err, io.EOF) && len(b) == 0 && n > 0 {
		return nil, io.EOF
	}
	return nil, cutOff(err)
}

// skip reads past the next n bytes, however many.
func (in *input) skip(n int64) error {
	got, err := io.CopyN(io.Discard, in.br, n)
	in.offset += got
	return cutOff(err)
}

// cutOff makes an end of the file inside something ErrTruncated.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}

// inside is the error of a read that must not find the end of the file.
func inside(err error) error {
	if err == io.EOF {
		return ErrTruncated
	}
	return err
}

// open tells the format by its first bytes.
func open(in *input) (source, error) {
	magic, err := in.peek(4)
	if err == io.EOF {
		return nil, errors.New("the file is empty")
	}
	if err != nil {
		return nil, err
	}
	in.used = 0
	switch m := binary.BigEndian.Uint32(magic); m {
	case magicMicro, magicNano:
		return newPCAP(in, binary.BigEndian, m)
	case blockSection:
		return &pcapng{in: in}, nil
	case 0xa1b2cd34, 0x34cdb2a1:
		return nil, errors.New("this is a pcap of Kuznetzov's modified format; convert it: editcap -F pcap OLD NEW")
	}
	if m := binary.LittleEndian.Uint32(magic); m == magicMicro || m == magicNano {
		return newPCAP(in, binary.LittleEndian, m)
	}
	return nil, fmt.Errorf("this is neither pcap nor pcapng: it begins with % x", magic)
}

// latest is the largest time that is believed, so that times can be added up without overflow.
const latest call.Time = 1 << 61

func clamp(seconds, micros uint64) call.Time {
	if seconds > uint64(latest/call.Second) || micros > uint64(latest) {
		return latest
	}
	return call.Time(seconds)*call.Second + call.Time(micros)
}
