package esl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/percipia/eslgo/command"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	// connectTimeout bounds dialing, the TLS handshake and logging in, each.
	connectTimeout = 10 * time.Second
	// commandTimeout bounds writing a command and waiting for its reply.
	commandTimeout = 10 * time.Second
	// drainTime is how long read goes on after a write has failed.
	drainTime = time.Second
	// maxWaiting bounds the commands whose replies are outstanding.
	maxWaiting = 1024
)

// Errors of a connection.
var (
	// ErrClosed is returned for a command whose link ended before its reply came.
	ErrClosed = errors.New("the event-socket link is closed")
	// ErrLineBreak is returned for a command with a carriage return, line feed or NUL in it.
	ErrLineBreak = errors.New("an event-socket command must not contain line breaks or NUL")
	errTooMany   = errors.New("too many event-socket commands are waiting for their replies")
)

// reply is the answer to one command.
type reply struct {
	text     string // Reply-Text of a command/reply, the body of an api/response
	body     []byte // of an api/response
	received call.Time
}

// err is the error the reply states, or nil.
func (r reply) err(cmd string) error {
	if strings.HasPrefix(r.text, "-ERR") || strings.HasPrefix(r.text, "-USAGE") {
		return newCommandError(cmd, r.text)
	}
	return nil
}

// conn is one connection to an event socket. One goroutine, read, drains the socket: events go into the queue in the
// order they came, replies to the commands in the order those were sent, which is the order FreeSWITCH answers in.
type conn struct {
	nc    net.Conn
	fr    *frameReader
	q     *queue
	count func(name string, n int)

	hello chan struct{} // closed at auth/request
	done  chan struct{} // closed when read has ended

	writing sync.Mutex // one command at a time, in the order of waiting
	mu      sync.Mutex // guards what follows
	waiting []chan reply
	jobs    map[string]chan string
	err     error // why the link ended

	lastEvent core.Mark    // when the newest event was read
	blocked   atomic.Bool  // read waits for room in the queue
	stalls    atomic.Int64 // how often it has
}

// dial connects and starts reading. The caller must close the conn.
func dial(ctx context.Context, cfg Config, open dialFunc, count func(string, int)) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address := withPort(cfg.Address)
	nc, err := open(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the event socket %s: %w; is FreeSWITCH running, and does listen-ip in event_socket.conf allow this address?", address, err)
	}
	if nc, err = secure(ctx, nc, cfg.TLS, address); err != nil {
		return nil, err
	}
	return newConn(nc, cfg, count), nil
}

// dialFunc opens the transport to address.
type dialFunc func(ctx context.Context, address string) (net.Conn, error)

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", address)
}

func secure(ctx context.Context, nc net.Conn, t *core.TLS, address string) (net.Conn, error) {
	if t == nil {
		return nc, nil
	}
	host, _, _ := net.SplitHostPort(address)
	cfg, err := t.Client("tls", host)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w; FreeSWITCH speaks plain TCP itself, so tls needs a relay such as stunnel in front of it", address, err)
	}
	return tc, nil
}

func newConn(nc net.Conn, cfg Config, count func(string, int)) *conn {
	lim := limits{headerBytes: cfg.MaxHeaderBytes, headers: cfg.MaxHeaders, bodyBytes: cfg.MaxBodyBytes, frameTime: cfg.ReadTimeout}
	c := &conn{
		nc: nc, fr: newFrameReader(nc, lim), q: newQueue(cfg.Queue), count: count,
		hello: make(chan struct{}), done: make(chan struct{}), jobs: map[string]chan string{},
	}
	c.lastEvent.Set()
	go c.read()
	return c
}

// close ends the connection and waits for its reader.
func (c *conn) close() {
	c.fail(ErrClosed)
	<-c.done
}

// fail ends the link for the reason err; the first reason stays.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
	}
	c.mu.Unlock()
	if first {
		wake(c.q.room)
		_ = c.nc.Close()
	}
}

// cause is why the link ended, or nil.
func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// login answers the server's auth/request. A refusal is permanent.
func (c *conn) login(ctx context.Context, password core.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	secret, err := password.Reveal()
	if err != nil {
		return core.Permanent(err)
	}
	if err := singleLine(secret); err != nil || secret == "" {
		return core.Permanent(errors.New("the event-socket password is empty or has a line break in it; correct the secret"))
	}
	select {
	case <-c.hello:
	case <-c.done:
		return c.cause()
	case <-ctx.Done():
		return fmt.Errorf("waiting for auth/request: %w; is %s really an event socket?", ctx.Err(), c.nc.RemoteAddr())
	}
	r, err := c.command(ctx, command.Auth{Password: secret})
	if err != nil {
		return fmt.Errorf("logging in to the event socket: %w", err)
	}
	if !strings.HasPrefix(r.text, "+OK") {
		return core.Permanent(fmt.Errorf("FreeSWITCH at %s refused the password (%s): make it the same as <param name=\"password\"> in event_socket.conf, then reload mod_event_socket", c.nc.RemoteAddr(), r.text))
	}
	return nil
}

// command sends cmd and waits for its reply. What the reply says is for the caller to judge.
func (c *conn) command(ctx context.Context, cmd command.Command) (reply, error) {
	return c.send(ctx, cmd.BuildMessage())
}

func (c *conn) send(ctx context.Context, text string) (reply, error) {
	if err := singleLine(text); err != nil {
		return reply{}, err
	}
	answer, err := c.start(text)
	if err != nil {
		return reply{}, err
	}
	return c.await(ctx, answer)
}

// apiText writes an API command, without the blank that BuildMessage leaves when there are no arguments.
func apiText(name, args string, background bool) string {
	return strings.TrimRight(command.API{Command: name, Arguments: args, Background: background}.BuildMessage(), " ")
}

// api runs an API command and returns its output, or the error it states. FreeSWITCH sends no event while it runs, so
// it is for what answers at once.
func (c *conn) api(ctx context.Context, name, args string) (reply, error) {
	r, err := c.send(ctx, apiText(name, args, false))
	if err != nil {
		return r, fmt.Errorf("api %s: %w", name, err)
	}
	return r, r.err(name)
}

// bgapi runs an API command in the background and returns its output once its BACKGROUND_JOB event arrives.
func (c *conn) bgapi(ctx context.Context, name, args string) (string, error) {
	text := apiText(name, args, true)
	if err := singleLine(text); err != nil {
		return "", err
	}
	job, result := c.addJob()
	defer c.dropJob(job)
	answer, err := c.start(text + "\nJob-UUID: " + job)
	if err != nil {
		return "", err
	}
	r, err := c.await(ctx, answer)
	if err == nil {
		err = r.err(name)
	}
	if err != nil {
		return "", err
	}
	select {
	case out := <-result:
		return out, reply{text: out}.err(name)
	case <-c.done:
		return "", ErrClosed
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the result of bgapi %s: %w", name, ctx.Err())
	}
}

// start writes a command and enters it in the row of those that wait for a reply.
func (c *conn) start(text string) (<-chan reply, error) {
	answer := make(chan reply, 1)
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.enter(answer); err != nil {
		return nil, err
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(commandTimeout)) // a failure shows at the write
	if _, err := io.WriteString(c.nc, text+"\n\n"); err != nil {
		err = fmt.Errorf("writing to the event socket: %w", err)
		// What the switch sent before it closed, and why, may still have to be read.
		time.AfterFunc(drainTime, func() { c.fail(err) })
		return nil, err
	}
	return answer, nil
}

func (c *conn) enter(answer chan reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == ErrClosed {
		return ErrClosed
	} else if c.err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, c.err)
	}
	if len(c.waiting) >= maxWaiting {
		return errTooMany
	}
	c.waiting = append(c.waiting, answer)
	return nil
}

// await waits for a reply. When ctx ends first the reply is thrown away when it comes.
func (c *conn) await(ctx context.Context, answer <-chan reply) (reply, error) {
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return reply{}, fmt.Errorf("waiting for the reply: %w", ctx.Err())
	case <-c.done:
	}
	select {
	case r := <-answer: // it came just before the end
		return r, nil
	default:
	}
	if err := c.cause(); err != nil {
		return reply{}, err
	}
	return reply{}, ErrClosed
}

func (c *conn) addJob() (string, <-chan string) {
	id, result := uuid.NewString(), make(chan string, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[id] = result
	return id, result
}

func (c *conn) dropJob(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.jobs, id)
}

func singleLine(s string) error {
	if strings.ContainsAny(s, "\r\n\x00") {
		return ErrLineBreak
	}
	return nil
}
