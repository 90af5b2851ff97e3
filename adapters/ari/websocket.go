package ari

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// goodbye is how long the peer may take to answer our close.
const goodbye = 500 * time.Millisecond

// keptBytes is how much of an unreadable frame goes to the dead letters.
const keptBytes = 64 << 10

// eventReader empties one ARI websocket into the queue. Asterisk cuts off a reader that lets a write wait longer than
// websocket_write_timeout (100 ms unless raised), so nothing is decoded here.
type eventReader struct {
	conn  *websocket.Conn
	cfg   *Config
	queue *queue
	count func(name string, n int)
	buf   []byte // the message being read

	life context.Context // of the connection: it outlives the session by the goodbye
	kill context.CancelFunc

	begun   core.Mark    // when the message being read began; never between messages
	frames  atomic.Int64 // messages read to their end
	pushing atomic.Bool  // waiting for room in the queue: pongs wait with it

	// All that was sent by the later of these has been read. Each belongs to one goroutine.
	received time.Time // the latest message, of read
	asked    time.Time // the latest ping that was answered, of watch
}

func newEventReader(conn *websocket.Conn, s *session) *eventReader {
	e := &eventReader{conn: conn, cfg: s.cfg, queue: s.queue, count: s.out.Count}
	e.received = time.Now()
	e.life, e.kill = context.WithCancel(context.Background())
	return e
}

// dialEvents opens the event websocket of application app. A refused user is a permanent error.
func dialEvents(ctx context.Context, r *rest, app string) (*websocket.Conn, error) {
	header, err := r.authorization()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ReadTimeout)
	defer cancel()
	address := r.base + "/events?" + url.Values{"app": {app}, "subscribeAll": {"true"}}.Encode()
	conn, resp, err := websocket.Dial(ctx, address, &websocket.DialOptions{ //nolint:bodyclose // Dial says that the body never needs closing
		HTTPClient:      r.client,
		HTTPHeader:      header,
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, dialError(r, resp, err)
	}
	conn.SetReadLimit(-1) // body keeps the first bytes of what is too long, so it limits by itself
	return conn, nil
}

func dialError(r *rest, resp *http.Response, err error) error {
	switch {
	case resp == nil:
		return fmt.Errorf("opening the ARI websocket at %s: %w", r.base, err)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return r.refused(resp.StatusCode)
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("opening the ARI websocket at %s: 404: is the path right, ari.conf enabled=yes and res_ari_events.so loaded?", r.base)
	}
	return fmt.Errorf("opening the ARI websocket at %s: %s instead of an upgrade: %w", r.base, resp.Status, err)
}

// read pushes messages in order until the link drops or ctx ends, then returns why; it never returns nil. What comes
// after the end of ctx is thrown away, so that the peer's answer to our close is seen.
func (e *eventReader) read(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := e.next(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	for {
		_, r, err := e.conn.Reader(e.life)
		if err != nil {
			return context.Cause(ctx)
		}
		_, _ = io.Copy(io.Discard, r)
	}
}

// next reads one message and pushes it.
func (e *eventReader) next(ctx context.Context) error {
	kind, r, err := e.conn.Reader(e.life)
	if err != nil {
		return fmt.Errorf("reading the ARI websocket: %w", err)
	}
	e.begun.Set()
	raw, err := e.body(r)
	e.received = time.Now()
	in := inbound{from: fromARI, raw: raw, received: call.At(e.received)}
	e.begun.Clear()
	e.frames.Add(1)
	if fault := e.fault(kind, err); fault != "" {
		in = unreadableFrame(raw, fault, in.received)
	}
	if err := e.push(ctx, in); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("reading the ARI websocket: %w", err)
	}
	return replaced(raw, e.cfg.Application)
}

// closing closes the websocket once ctx ends: with a proper goodbye, briefly, when host ended too, at once otherwise.
func (e *eventReader) closing(ctx, host context.Context) error {
	<-ctx.Done()
	if host.Err() == nil {
		e.kill()
		return nil
	}
	late := time.AfterFunc(goodbye, e.kill)
	defer late.Stop()
	_ = e.conn.Close(websocket.StatusNormalClosure, "") // nobody is left to tell
	e.kill()
	return nil
}

func (e *eventReader) push(ctx context.Context, in inbound) error {
	e.pushing.Store(true)
	defer e.pushing.Store(false)
	return e.queue.push(ctx, in)
}

// fault says what is wrong with a message, or "".
func (e *eventReader) fault(kind websocket.MessageType, err error) string {
	switch {
	case err != nil:
		return fmt.Sprintf("reading an ARI event: %v", err)
	case kind != websocket.MessageText:
		return "reading an ARI event: a binary message, where ARI sends text"
	}
	return ""
}

var errFrameTooLong = errors.New("the message is longer than max_frame_bytes")

// body reads one message into bytes of its own. With an error it returns what came before it.
func (e *eventReader) body(r io.Reader) ([]byte, error) {
	if e.buf == nil {
		e.buf = make([]byte, 64<<10)
	}
	for n := 0; ; {
		m, err := r.Read(e.buf[n:])
		n += m
		switch {
		case n > e.cfg.MaxFrameBytes:
			return bytes.Clone(e.buf[:n]), fmt.Errorf("%w (%d)", errFrameTooLong, e.cfg.MaxFrameBytes)
		case err == io.EOF:
			return append(make([]byte, 0, n), e.buf[:n]...), nil
		case err != nil:
			return bytes.Clone(e.buf[:n]), fmt.Errorf("after %d bytes: %w", n, err)
		case n == len(e.buf):
			e.buf = append(e.buf, make([]byte, len(e.buf))...)
		}
	}
}

func unreadableFrame(raw []byte, reason string, received call.Time) inbound {
	if len(raw) > keptBytes {
		reason = fmt.Sprintf("%s; the first %d bytes are kept", reason, keptBytes)
		raw = bytes.Clone(raw[:keptBytes])
	}
	return inbound{from: unreadable, raw: raw, reason: reason, received: received}
}

// watch asks for a sign of life every ping interval. It closes the link when neither a pong nor a whole message came
// within the read timeout, or when one message took longer than that: a peer that sends a byte a second is not alive.
func (e *eventReader) watch(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if took := e.begun.Ago(); took != core.Never && took > e.cfg.ReadTimeout {
			return fmt.Errorf("reading the ARI websocket: one message took longer than read_timeout (%v)", e.cfg.ReadTimeout)
		}
		if err := e.ping(ctx); err != nil {
			return err
		}
	}
}

// heard is up to when all that was sent has been read. It is for when the session's goroutines have ended.
func (e *eventReader) heard() call.Time {
	if e.asked.After(e.received) {
		return call.At(core.ByClockNow(e.asked))
	}
	return call.At(core.ByClockNow(e.received))
}

func (e *eventReader) ping(ctx context.Context) error {
	before, asked := e.frames.Load(), time.Now()
	pctx, cancel := context.WithTimeout(ctx, e.cfg.ReadTimeout)
	defer cancel()
	err := e.conn.Ping(pctx)
	switch {
	case err == nil:
		e.asked = asked
		return nil
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, net.ErrClosed):
		return nil // read knows why
	case e.frames.Load() != before || e.pushing.Load():
		e.count("late_pong", 1) // alive, and waiting behind events
		return nil
	}
	return fmt.Errorf("the ARI websocket is dead: no answer to a ping within read_timeout (%v): %w", e.cfg.ReadTimeout, err)
}

var replacedWord = []byte("ApplicationReplaced")

// replaced tells whether raw is Asterisk's notice that another reader took application app away.
func replaced(raw []byte, app string) error {
	if !bytes.Contains(raw, replacedWord) {
		return nil
	}
	var e struct {
		Type        string `json:"type"`
		Application string `json:"application"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Type != string(replacedWord) || !strings.EqualFold(e.Application, app) {
		return nil
	}
	return core.Permanent(fmt.Errorf("another reader connected as ARI application %q and Asterisk gave it the events: "+
		"stop that reader, or give each its own application name", app))
}
