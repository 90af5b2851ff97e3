package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	fetchVersion  = 11        // of the request; any broker from Kafka 2.3 on knows it
	fetchBytes    = 4 << 20   // wanted in one answer; a batch that is larger comes whole, alone
	fetchResponse = 256 << 20 // accepted in one answer
)

// errFetch is wrapped by errors about an answer that makes no sense.
var errFetch = errors.New("malformed fetch response")

// fetchRequest asks one broker for batches of partitions it leads, each from an offset on. It is written here rather than
// with the library, whose reader leaves out where a batch ends that compaction has emptied, and trusts its counts.
type fetchRequest struct {
	clientID string
	wait     time.Duration // the broker's, until there is something
	parts    []fetchPart
}

type fetchPart struct {
	target
	offset int64
}

// fetched is one partition's answer.
type fetched struct {
	target
	code          kafkago.Error
	highWatermark int64
	logStart      int64
	batches       []byte
}

type fetchAnswer struct{ parts []fetched }

func (*fetchRequest) ApiKey() protocol.ApiKey { return protocol.Fetch }
func (*fetchAnswer) ApiKey() protocol.ApiKey  { return protocol.Fetch }

// Required makes the connection leave writing and reading to RawExchange.
func (*fetchRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange writes the request and reads its answer.
func (r *fetchRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if _, err := rw.Write(r.encode()); err != nil {
		return nil, err
	}
	var head [8]byte // size, correlation id
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > fetchResponse {
		return nil, fmt.Errorf("%w: of %d bytes", errFetch, size)
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != fetchCorrelation {
		return nil, fmt.Errorf("%w: its correlation id is %d, want %d", errFetch, id, fetchCorrelation)
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(rw, body); err != nil {
		return nil, err
	}
	return decodeFetch(body)
}

// fetchCorrelation is every fetch request's: a connection has one request under way.
const fetchCorrelation = 0x6674

// encode follows FetchRequest, version 11, without a session, behind its header, version 1.
func (r *fetchRequest) encode() []byte {
	put := binary.BigEndian
	b := make([]byte, 4, 128+64*len(r.parts))
	b = put.AppendUint16(b, uint16(protocol.Fetch))
	b = put.AppendUint16(b, fetchVersion)
	b = put.AppendUint32(b, fetchCorrelation)
	b = appendString(b, r.clientID)
	b = put.AppendUint32(b, 0xffffffff) // replica: none
	b = put.AppendUint32(b, uint32(r.wait.Milliseconds()))
	b = put.AppendUint32(b, 1) // bytes, at least
	b = put.AppendUint32(b, fetchBytes)
	b = append(b, 0)                    // read uncommitted: up to the high watermark
	b = put.AppendUint32(b, 0)          // session id
	b = put.AppendUint32(b, 0xffffffff) // session epoch: none
	b = put.AppendUint32(b, uint32(len(r.parts)))
	for _, p := range r.parts { // a topic each: brokers take the same topic twice
		b = appendString(b, p.topic)
		b = put.AppendUint32(b, 1)
		b = put.AppendUint32(b, uint32(p.partition))
		b = put.AppendUint32(b, 0xffffffff) // leader epoch: any
		b = put.AppendUint64(b, uint64(p.offset))
		b = put.AppendUint64(b, 0xffffffffffffffff) // log start: a follower's
		b = put.AppendUint32(b, fetchBytes)
	}
	b = put.AppendUint32(b, 0) // topics to forget
	b = appendString(b, "")    // rack
	put.PutUint32(b, uint32(len(b)-4))
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// decodeFetch follows FetchResponse, version 11.
func decodeFetch(b []byte) (*fetchAnswer, error) {
	d := wire{b: b}
	d.skip(4) // throttle time
	code := kafkago.Error(d.int16())
	d.skip(4) // session id
	a := &fetchAnswer{}
	for range d.count(6) {
		topic := string(d.take(int(d.int16())))
		for range d.count(4) {
			f := fetched{target: target{topic: topic, partition: d.int32()}}
			f.code = kafkago.Error(d.int16())
			f.highWatermark = d.int64()
			d.skip(8) // last stable offset
			f.logStart = d.int64()
			for range d.count(16) { // aborted transactions
				d.skip(16)
			}
			d.skip(4) // preferred read replica
			f.batches = d.take(int(max(d.int32(), 0)))
			a.parts = append(a.parts, f)
		}
	}
	switch {
	case d.short:
		return nil, fmt.Errorf("%w: it ends too early", errFetch)
	case code != 0:
		return nil, code
	}
	return a, nil
}

// wire reads big-endian fields. Beyond the end it gives zeros and notes that it was short.
type wire struct {
	b     []byte
	short bool
}

func (w *wire) take(n int) []byte {
	if n < 0 || n > len(w.b) {
		w.b, w.short = nil, true
		return nil
	}
	b := w.b[:n:n]
	w.b = w.b[n:]
	return b
}

func (w *wire) skip(n int) { w.take(n) }

func (w *wire) int16() int16 {
	if b := w.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (w *wire) int32() int32 {
	if b := w.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (w *wire) int64() int64 {
	if b := w.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// count is an array's length, of elements of at least size bytes each; -1 stands for none.
func (w *wire) count(size int) int {
	n := int(w.int32())
	if n > len(w.b)/size {
		w.b, w.short = nil, true
		return 0
	}
	return max(n, 0)
}

// varint is zigzag-encoded (KIP-98); it is read from the front.
func (w *wire) varint() int64 {
	v, n := binary.Varint(w.b)
	if n <= 0 {
		w.b, w.short = nil, true
		return 0
	}
	w.b = w.b[n:]
	return v
}

// bytes is a varint length, -1 for none, and as many bytes.
func (w *wire) bytes() []byte {
	n := w.varint()
	if n < 0 || w.short {
		return nil
	}
	if n > int64(len(w.b)) {
		w.b, w.short = nil, true
		return nil
	}
	return w.take(int(n))
}

// fetch asks the leader of parts, all of which are its own, within wait and request_timeout.
func (cl *cluster) fetch(ctx context.Context, leader int32, wait time.Duration, parts []fetchPart) ([]fetched, error) {
	m, err := cl.askBroker(ctx, leader, &fetchRequest{clientID: cl.cfg.ClientID, wait: min(wait, cl.cfg.RequestTimeout/2), parts: parts})
	if err != nil {
		return nil, err
	}
	return m.(*fetchAnswer).parts, nil
}
