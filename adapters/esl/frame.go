package esl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Content types of the event socket (mod_event_socket).
const (
	typeAuthRequest = "auth/request"
	typeReply       = "command/reply"
	typeResponse    = "api/response"
	typeJSON        = "text/event-json"
	typePlain       = "text/event-plain"
	typeXML         = "text/event-xml"
	typeDisconnect  = "text/disconnect-notice"
	typeRejection   = "text/rude-rejection"
	typeLog         = "log/data"
)

const (
	// maxResponseBytes bounds an api/response: `show channels as json` is about 1 KB a channel.
	maxResponseBytes = 128 << 20
	// maxSkipBytes is the largest body over the limit that is read past, so that the link can go on after it.
	maxSkipBytes = 64 << 20
	// keptBytes is how much of a body over the limit a dead letter keeps.
	keptBytes = 64 << 10
	// bodyChunk is how much is set aside for a body before any of it has arrived.
	bodyChunk = 1 << 20
)

// frame is one message of the event socket: headers, and a body that belongs to whoever holds the frame.
type frame struct {
	kind     string // Content-Type
	reply    string // Reply-Text, of a command/reply
	linger   bool   // Content-Disposition: linger, of a disconnect notice
	body     []byte
	raw      []byte    // the headers' bytes, valid until the next read
	received call.Time // when the last of it left the socket
}

// FrameError is a frame that breaks the event-socket framing.
type FrameError struct {
	Reason string
	Raw    []byte // the offending bytes, shortened for a body over the limit
	InSync bool   // the stream can still be read after it
	Err    error  // the read error underneath, if any
}

func (e *FrameError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("reading event-socket frame: %s: %v", e.Reason, e.Err)
	}
	return "reading event-socket frame: " + e.Reason
}

func (e *FrameError) Unwrap() error { return e.Err }

// limits bound what one frame may take.
type limits struct {
	headerBytes int
	headers     int
	bodyBytes   int
	frameTime   time.Duration // for a started frame, and again for each MiB of its body
}

// frameReader reads the frames of one event socket in order.
type frameReader struct {
	src  *timedReader
	br   *bufio.Reader
	lim  limits
	head []byte // the headers read so far, reused from frame to frame
}

func newFrameReader(conn deadlineReader, lim limits) *frameReader {
	src := &timedReader{conn: conn}
	return &frameReader{src: src, br: bufio.NewReaderSize(src, max(64<<10, lim.headerBytes)), lim: lim}
}

// next reads one frame. io.EOF means that the peer closed between two frames. A *FrameError with InSync set may be
// followed by another call; after any other error the stream is lost.
func (r *frameReader) next() (frame, error) {
	r.head = r.head[:0]
	r.src.idle()
	if _, err := r.br.Peek(1); err != nil {
		return frame{}, err
	}
	r.src.begin(r.lim.frameTime)
	h, err := r.headers()
	if err != nil {
		return frame{}, err
	}
	f := frame{kind: h.kind, reply: h.reply, linger: h.linger}
	if f.body, err = r.body(h); err != nil {
		return frame{}, err
	}
	f.raw = r.head
	f.received = call.At(r.src.at)
	return f, nil
}

// header is what of a frame's headers matters.
type header struct {
	kind   string
	reply  string
	linger bool
	length int64 // -1 when not given
}

// headers reads up to the blank line.
func (r *frameReader) headers() (header, error) {
	h := header{length: -1}
	for n := 0; ; {
		line, err := r.line()
		if err != nil {
			return h, err
		}
		if len(line) == 0 {
			if n == 0 {
				continue // blank lines before a frame; r.line bounds them
			}
			return h, nil
		}
		if n++; n > r.lim.headers {
			return h, r.broken(fmt.Sprintf("more than %d headers in one frame", r.lim.headers), nil)
		}
		if err := r.header(&h, line); err != nil {
			return h, err
		}
	}
}

// line reads one line without its end, and keeps its bytes in head.
func (r *frameReader) line() ([]byte, error) {
	s, err := r.br.ReadSlice('\n')
	at := len(r.head)
	r.head = append(r.head, s...)
	if len(r.head) > r.lim.headerBytes || errors.Is(err, bufio.ErrBufferFull) {
		return nil, r.broken(fmt.Sprintf("headers longer than %d bytes", r.lim.headerBytes), nil)
	}
	if err != nil {
		return nil, r.cut(nil, err)
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(r.head[at:], []byte{'\n'}), []byte{'\r'}), nil
}

// header takes one `Key: value` line into h.
func (r *frameReader) header(h *header, line []byte) error {
	key, value, ok := bytes.Cut(line, []byte{':'})
	if !ok || len(key) == 0 {
		return r.broken(fmt.Sprintf("header line %q has no name and colon", shorten(line)), nil)
	}
	value = bytes.TrimSpace(value)
	switch {
	case bytes.EqualFold(key, []byte("Content-Length")):
		return r.length(h, value)
	case bytes.EqualFold(key, []byte("Content-Type")):
		h.kind = contentType(value)
	case bytes.EqualFold(key, []byte("Reply-Text")):
		h.reply = string(value)
	case bytes.EqualFold(key, []byte("Content-Disposition")):
		h.linger = bytes.EqualFold(value, []byte("linger"))
	}
	return nil
}

// length takes a Content-Length: digits only, and the same if it is given twice.
func (r *frameReader) length(h *header, value []byte) error {
	n := int64(0)
	for _, c := range value {
		if c < '0' || c > '9' || n > 1<<50 {
			n = -1
			break
		}
		n = n*10 + int64(c-'0')
	}
	if n < 0 || len(value) == 0 {
		return r.broken(fmt.Sprintf("Content-Length %q is not a length", shorten(value)), nil)
	}
	if h.length >= 0 && h.length != n {
		return r.broken(fmt.Sprintf("two Content-Lengths, %d and %d", h.length, n), nil)
	}
	h.length = n
	return nil
}

// body reads the body that h announces.
func (r *frameReader) body(h header) ([]byte, error) {
	if h.length <= 0 {
		return nil, nil
	}
	limit := int64(r.lim.bodyBytes)
	if h.kind == typeResponse {
		limit = maxResponseBytes
	}
	r.src.extend(time.Duration(min(h.length, maxResponseBytes)>>20) * r.lim.frameTime)
	if h.length > limit {
		return nil, r.skip(h, limit)
	}
	if h.length > bodyChunk {
		return r.longBody(h.length)
	}
	body := make([]byte, h.length)
	n, err := io.ReadFull(r.br, body)
	if err != nil {
		return nil, r.cut(body[:n], err)
	}
	return body, nil
}

// longBody reads a large body as it arrives: a length that is announced and never sent costs nothing.
func (r *frameReader) longBody(length int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(bodyChunk)
	if _, err := io.CopyN(&b, r.br, length); err != nil {
		return nil, r.cut(b.Bytes(), err)
	}
	return b.Bytes(), nil
}

// skip reads past a body over the limit, if that is bearable, and reports it.
func (r *frameReader) skip(h header, limit int64) error {
	reason := fmt.Sprintf("Content-Length %d of %s is over the limit of %d bytes", h.length, h.kind, limit)
	if h.length > maxSkipBytes {
		return r.broken(reason, nil)
	}
	kept := make([]byte, min(keptBytes, h.length))
	n, err := io.ReadFull(r.br, kept)
	if err == nil {
		_, err = io.CopyN(io.Discard, r.br, h.length-int64(n))
	}
	if err != nil {
		return r.cut(kept[:n], err)
	}
	e := r.broken(fmt.Sprintf("%s; its first %d bytes are kept", reason, n), nil)
	e.Raw, e.InSync = append(e.Raw, kept...), true
	return e
}

// broken reports the headers read so far as out of sync.
func (r *frameReader) broken(reason string, err error) *FrameError {
	return &FrameError{Reason: reason, Raw: bytes.Clone(r.head), Err: err}
}

// cut reports a frame that ended before it was whole.
func (r *frameReader) cut(body []byte, err error) *FrameError {
	reason := "the connection broke inside a frame"
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = fmt.Sprintf("a started frame was not whole after %v (read_timeout)", r.lim.frameTime)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		reason, err = "the peer closed the connection inside a frame", io.ErrUnexpectedEOF
	}
	e := r.broken(reason, err)
	e.Raw = append(e.Raw, body[:min(len(body), keptBytes)]...)
	return e
}

// contentType gives the known content types without allocating.
func contentType(v []byte) string {
	switch string(v) {
	case typeJSON:
		return typeJSON
	case typePlain:
		return typePlain
	case typeReply:
		return typeReply
	case typeResponse:
		return typeResponse
	}
	return strings.ToLower(string(v))
}

// shorten keeps what goes into an error message readable.
func shorten(b []byte) []byte { return b[:min(len(b), 80)] }

// deadlineReader is the part of a net.Conn that reading needs.
type deadlineReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// timedReader notes when bytes left the socket, and sets a deadline only where a frame needs more than is buffered.
// Between frames it waits for ever: the session's watchdog ends a silent link.
type timedReader struct {
	conn  deadlineReader
	at    time.Time     // when the last bytes left the socket
	allow time.Duration // for the frame being read; zero between frames
	since time.Time     // when that frame first waited for the socket
	armed bool          // a deadline is set
}

func (t *timedReader) idle() { t.allow, t.since = 0, time.Time{} }

func (t *timedReader) begin(d time.Duration) { t.allow = d }

func (t *timedReader) extend(d time.Duration) {
	if t.allow += d; d > 0 && !t.since.IsZero() {
		_ = t.conn.SetReadDeadline(t.since.Add(t.allow)) // a failure shows at the next read
	}
}

func (t *timedReader) Read(p []byte) (int, error) {
	if err := t.arm(); err != nil {
		return 0, err
	}
	n, err := t.conn.Read(p)
	t.at = time.Now()
	return n, err
}

func (t *timedReader) arm() error {
	switch {
	case t.allow == 0 && t.armed:
		t.armed = false
		return t.conn.SetReadDeadline(time.Time{})
	case t.allow > 0 && t.since.IsZero():
		t.armed, t.since = true, time.Now()
		return t.conn.SetReadDeadline(t.since.Add(t.allow))
	}
	return nil
}
