package ari

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// amiEvents is the event mask asked for at login: the classes that hold queue and agent events (agent) and how a dialed
// agent answered (call). manager.conf's read= and eventfilter= may narrow it further.
const amiEvents = "agent,call"

// maxListed bounds the events of one list answer.
const maxListed = 10_000

// amiClient is one logged-in AMI connection. run reads it; request and list may be called meanwhile from anywhere.
type amiClient struct {
	conn    net.Conn
	r       *bufio.Reader
	timeout time.Duration
	handle  func(inbound) error // in order, from one goroutine

	mu     sync.Mutex // guards writing, next and waits
	next   int
	waits  map[string]*amiWait
	closed error
}

// amiWait is an action whose answer is awaited.
type amiWait struct {
	answer chan amiAnswer // of room 1
	list   bool
	events []message
	first  message
}

type amiAnswer struct {
	response message
	events   []message
	err      error
}

// dialAMI connects and logs in. A refused login is a permanent error. The secret is never in an error.
func dialAMI(ctx context.Context, cfg *AMI, timeout time.Duration, handle func(inbound) error) (*amiClient, error) {
	secret, err := cfg.Password.Reveal()
	if err != nil {
		return nil, core.Permanent(fmt.Errorf("ami.password: %w", err))
	}
	conn, err := cfg.dial(ctx, timeout)
	if err != nil {
		return nil, fmt.Errorf("connecting to AMI at %s: %w", cfg.Address, err)
	}
	c := &amiClient{
		conn: conn, timeout: timeout, handle: handle, waits: map[string]*amiWait{},
		r: bufio.NewReaderSize(conn, maxLine),
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = c.login(cfg, secret)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (m *AMI) dial(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d := &net.Dialer{KeepAlive: 15 * time.Second}
	if m.TLS == nil {
		return d.DialContext(ctx, "tcp", m.Address)
	}
	tlsConfig, err := m.TLS.Client("ami.tls", "")
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: d, Config: tlsConfig}).DialContext(ctx, "tcp", m.Address)
}

// login reads the banner, logs in and waits for the answer, all within the timeout.
func (c *amiClient) login(cfg *AMI, secret string) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return fmt.Errorf("logging in to AMI at %s: %w", cfg.Address, err)
	}
	banner, err := readLine(c.r)
	if err != nil {
		return fmt.Errorf("reading the AMI banner of %s: %w (is it the right port, with or without TLS, and permitted in manager.conf?)", cfg.Address, err)
	}
	if !strings.HasPrefix(string(banner), "Asterisk Call Manager") {
		return fmt.Errorf("%s is not AMI: it greets with %.60q: check ami.address", cfg.Address, trimEOL(banner))
	}
	action, err := formatAction("Login", "login", "Username", cfg.Username, "Secret", secret, "Events", amiEvents)
	if err != nil {
		return core.Permanent(fmt.Errorf("logging in to AMI at %s: %w", cfg.Address, err))
	}
	if _, err := c.conn.Write(action); err != nil {
		return fmt.Errorf("logging in to AMI at %s: %w", cfg.Address, err)
	}
	return c.awaitLogin(cfg)
}

func (c *amiClient) awaitLogin(cfg *AMI) error {
	for {
		m, err := readMessage(c.r)
		if err != nil {
			return fmt.Errorf("waiting for the AMI login at %s: %w", cfg.Address, err)
		}
		switch {
		case m.get("Response") == "":
			err = c.dispatch(m, call.At(time.Now()))
		case m.get("Response") == "Success":
			return c.conn.SetDeadline(time.Time{})
		default:
			return core.Permanent(fmt.Errorf("AMI at %s refused user %q (%.100s): check ami.username and ami.password in the "+
				"configuration and [%s] in manager.conf, its secret and permit lines", cfg.Address, cfg.Username, m.get("Message"), cfg.Username))
		}
		if err != nil {
			return err
		}
	}
}

// formatAction writes an AMI action. A CR or LF in a value would start another field, so it is refused.
func formatAction(name, id string, pairs ...string) ([]byte, error) {
	b := []byte("Action: " + name + "\r\nActionID: " + id + "\r\n")
	for i := 0; i+1 < len(pairs); i += 2 {
		if strings.ContainsAny(pairs[i]+pairs[i+1], "\r\n") {
			return nil, fmt.Errorf("the AMI field %q holds a line break", pairs[i])
		}
		b = append(b, pairs[i]+": "+pairs[i+1]+"\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// run reads until the link drops or ctx ends, then says why, never nil. Somebody must ping meanwhile: each message
// has to be complete one timeout after the one before.
func (c *amiClient) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	err := c.read()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	c.fail(err)
	c.conn.Close()
	return err
}

func (c *amiClient) read() error {
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
			return fmt.Errorf("reading AMI: %w", err)
		}
		m, err := readMessage(c.r)
		received := call.At(time.Now())
		if err != nil {
			err = fmt.Errorf("reading AMI: %w", err)
			if len(m.raw) > 0 {
				err = errors.Join(err, c.handle(unreadableFrame(m.raw, err.Error(), received)))
			}
			return err
		}
		if err := c.dispatch(m, received); err != nil {
			return err
		}
	}
}

// dispatch hands an event on and a response to who waits for it.
func (c *amiClient) dispatch(m message, received call.Time) error {
	switch {
	case m.get("Response") != "":
		c.answered(m)
		return nil
	case m.get("Event") == "":
		return c.handle(unreadableFrame(m.raw, "reading AMI: a message that is neither an event nor a response", received))
	case c.listed(m):
		return nil
	}
	return c.handle(inbound{from: fromAMI, msg: m, received: received})
}

func (c *amiClient) answered(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waits[m.get("ActionID")]
	if w == nil {
		return // its asker gave up
	}
	if w.list && strings.EqualFold(m.get("EventList"), "start") {
		w.first = m
		return
	}
	delete(c.waits, m.get("ActionID"))
	w.answer <- amiAnswer{response: m}
}

// listed keeps an event that belongs to an awaited list.
func (c *amiClient) listed(m message) bool {
	id := m.get("ActionID")
	if id == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waits[id]
	if w == nil || !w.list {
		return false
	}
	if len(w.events) < maxListed {
		w.events = append(w.events, m)
	}
	if end := m.get("EventList"); strings.EqualFold(end, "Complete") || strings.EqualFold(end, "cancelled") {
		delete(c.waits, id)
		w.answer <- amiAnswer{response: w.first, events: w.events}
	}
	return true
}

// fail ends every wait, present and future.
func (c *amiClient) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = err
	for id, w := range c.waits {
		delete(c.waits, id)
		w.answer <- amiAnswer{err: err}
	}
}

// request performs an action and returns its response; "Response: Error" is an error.
func (c *amiClient) request(ctx context.Context, action string, pairs ...string) (message, error) {
	a, err := c.ask(ctx, &amiWait{}, action, pairs)
	return a.response, err
}

// list performs an action that is answered by a list of events and returns them, the closing one included.
func (c *amiClient) list(ctx context.Context, action string, pairs ...string) ([]message, error) {
	a, err := c.ask(ctx, &amiWait{list: true}, action, pairs)
	return a.events, err
}

func (c *amiClient) ask(ctx context.Context, w *amiWait, action string, pairs []string) (amiAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	w.answer = make(chan amiAnswer, 1)
	id, err := c.send(w, action, pairs)
	if err != nil {
		return amiAnswer{}, fmt.Errorf("AMI %s: %w", action, err)
	}
	select {
	case a := <-w.answer:
		switch {
		case a.err != nil:
			return a, fmt.Errorf("AMI %s: %w", action, a.err)
		case strings.EqualFold(a.response.get("Response"), "Error"):
			return a, &amiError{action, a.response.get("Message")}
		}
		return a, nil
	case <-ctx.Done():
		c.forget(id)
		return amiAnswer{}, fmt.Errorf("AMI %s: no answer: %w", action, context.Cause(ctx))
	}
}

// send writes the action. w, when given, waits for its answer.
func (c *amiClient) send(w *amiWait, action string, pairs []string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return "", c.closed
	}
	c.next++
	id := "ctigate-" + strconv.Itoa(c.next)
	b, err := formatAction(action, id, pairs...)
	if err != nil {
		return "", err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return "", err
	}
	if w != nil {
		c.waits[id] = w
	}
	if _, err := c.conn.Write(b); err != nil {
		delete(c.waits, id)
		return "", err
	}
	return id, nil
}

func (c *amiClient) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waits, id)
}

// ping measures the switch's clock, to the microsecond.
func (c *amiClient) ping(ctx context.Context) (core.ClockSample, error) {
	sent := call.At(time.Now())
	m, err := c.request(ctx, "Ping")
	answered := call.At(time.Now())
	if err != nil {
		return core.ClockSample{}, err
	}
	at, err := pingTime(m.get("Timestamp"))
	if err != nil {
		return core.ClockSample{}, fmt.Errorf("AMI Ping: %w", err)
	}
	return core.ClockSample{Sent: sent, Answered: answered, Switch: at}, nil
}

// pingTime reads seconds and microseconds: 1795412518.687879.
func pingTime(s string) (call.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	micros, err2 := strconv.ParseUint((fraction + "000000")[:6], 10, 32)
	if err != nil || err2 != nil || sec <= 0 || sec > 1<<40 {
		return 0, fmt.Errorf("timestamp %.40q is not seconds and microseconds", s)
	}
	return call.Time(sec)*call.Second + call.Time(micros), nil
}

// amiError is "Response: Error".
type amiError struct{ action, message string }

func (e *amiError) Error() string { return fmt.Sprintf("AMI %s: refused: %.200s", e.action, e.message) }
