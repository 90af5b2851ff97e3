package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DialFunc connects to a broker, host:port, with TLS and SASL done as far as they are wanted.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// versions are those of the requests that this package speaks, lowest and highest. Join needs 4 for a member id that
// survives a lost answer (KIP-394).
var versions = map[kmsg.Key][2]int16{
	kmsg.Metadata: {1, 8}, kmsg.CreateTopics: {2, 5}, kmsg.FindCoordinator: {0, 3}, kmsg.DescribeGroups: {0, 5},
	kmsg.JoinGroup: {4, 9}, kmsg.SyncGroup: {1, 5}, kmsg.Heartbeat: {1, 4}, kmsg.LeaveGroup: {0, 5},
	kmsg.OffsetCommit: {2, 8}, kmsg.OffsetFetch: {1, 7},
}

const (
	maxResponse = 8 << 20
	clientID    = "ctigate-cluster"
)

// wire is one connection to one broker, for one goroutine at a time: a request, then its answer.
type wire struct {
	addr   string
	net    net.Conn
	format *kmsg.RequestFormatter
	speaks map[kmsg.Key]int16 // the version of each request that both sides know
	next   int32              // correlation id
	buf    []byte
}

// connect dials a broker and agrees on versions.
func connect(ctx context.Context, dial DialFunc, addr string) (*wire, error) {
	nc, err := dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to Kafka broker %s: %w", addr, err)
	}
	w := &wire{addr: addr, net: nc, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))}
	if err := w.greet(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return w, nil
}

func (w *wire) greet(ctx context.Context) error {
	req := kmsg.NewPtrApiVersionsRequest()
	resp, err := w.roundTrip(ctx, req)
	if err != nil {
		return err
	}
	offered := resp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(offered.ErrorCode); err != nil {
		return fmt.Errorf("agreeing on versions with Kafka broker %s: %w", w.addr, err)
	}
	w.speaks = make(map[kmsg.Key]int16, len(versions))
	for _, k := range offered.ApiKeys {
		if ours, ok := versions[kmsg.Key(k.ApiKey)]; ok && k.MinVersion <= ours[1] && k.MaxVersion >= ours[0] {
			w.speaks[kmsg.Key(k.ApiKey)] = min(k.MaxVersion, ours[1])
		}
	}
	return nil
}

// ask sends a request in the version agreed on and waits for its answer until ctx ends. After an error the connection
// is of no more use.
func (w *wire) ask(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	v, ok := w.speaks[kmsg.Key(req.Key())]
	if !ok {
		return nil, fmt.Errorf("Kafka broker %s does not know %s in a version of %v: it is too old or too new", //nolint:staticcheck // Kafka is a name
			w.addr, kmsg.NameForKey(req.Key()), versions[kmsg.Key(req.Key())])
	}
	req.SetVersion(v)
	return w.roundTrip(ctx, req)
}

func (w *wire) roundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.net.SetDeadline(time.Unix(1, 0)) }) // fails only when closed, which ends the wait as well
	defer stop()
	resp, err := w.exchange(req)
	switch {
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("asking Kafka broker %s for %s: %w", w.addr, kmsg.NameForKey(req.Key()), err)
}

func (w *wire) exchange(req kmsg.Request) (kmsg.Response, error) {
	w.next++
	w.buf = w.format.AppendRequest(w.buf[:0], req, w.next)
	if _, err := w.net.Write(w.buf); err != nil {
		return nil, err
	}
	body, err := w.read()
	if err != nil {
		return nil, err
	}
	return decode(req, body, w.next)
}

func (w *wire) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(w.net, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > maxResponse {
		return nil, fmt.Errorf("an answer of %d bytes, want 4 to %d", n, maxResponse)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(w.net, body)
	return body, err
}

// decode takes the response header and body apart. ApiVersions answers carry the old header whatever their version.
func decode(req kmsg.Request, body []byte, want int32) (kmsg.Response, error) {
	if got := int32(binary.BigEndian.Uint32(body)); got != want {
		return nil, fmt.Errorf("the answer to request %d came for request %d", got, want)
	}
	body = body[4:]
	if req.IsFlexible() && kmsg.Key(req.Key()) != kmsg.ApiVersions {
		r := kbin.Reader{Src: body}
		kmsg.SkipTags(&r)
		if !r.Ok() {
			return nil, kbin.ErrNotEnoughData
		}
		body = r.Src
	}
	resp := req.ResponseKind()
	return resp, resp.ReadFrom(body)
}

func (w *wire) close() {
	if w != nil {
		w.net.Close()
	}
}
