package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/ctigate/ctigate/core"
)

// conn is one connection to one broker, for one goroutine at a time: a request, then its answer.
type conn struct {
	addr   string
	net    net.Conn
	proto  *protocol.Conn
	knows  map[protocol.ApiKey]bool // what the broker offers
	broken bool                     // nothing more can be asked over it
	proven bool                     // it has answered more than the greeting
	used   time.Time                // when it last answered
}

// dial connects, agrees on versions, and authenticates, within dial_timeout.
func dial(ctx context.Context, c *Config, addr string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.DialTimeout)
	defer cancel()
	nc, err := c.connect(ctx, addr)
	if err != nil {
		return nil, connectError(addr, c, "connecting to", err)
	}
	cn := &conn{addr: addr, net: nc, proto: protocol.NewConn(nc, c.ClientID)}
	if err := cn.greet(ctx, c); err != nil {
		cn.close()
		return nil, err
	}
	return cn, nil
}

func (c *Config) connect(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err == nil && c.wrap != nil {
		nc = c.wrap(nc)
	}
	if err != nil || !c.TLS.Enabled {
		return nc, err
	}
	cfg, err := c.TLS.config(addr)
	if err != nil {
		nc.Close()
		return nil, err
	}
	t := tls.Client(nc, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return t, nil
}

var errHandshake = errors.New("TLS handshake")

func (t *TLS) config(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return t.files().Client("tls", host)
}

func (t *TLS) files() core.TLS {
	return core.TLS{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
}

func (cn *conn) greet(ctx context.Context, c *Config) error {
	m, err := cn.roundTrip(ctx, &apiversions.Request{})
	if err != nil {
		return connectError(cn.addr, c, "talking to", err)
	}
	res := m.(*apiversions.Response)
	if res.ErrorCode != 0 {
		return connectError(cn.addr, c, "agreeing on versions with", kafkago.Error(res.ErrorCode))
	}
	versions := make(map[protocol.ApiKey]int16, len(res.ApiKeys))
	cn.knows = make(map[protocol.ApiKey]bool, len(res.ApiKeys))
	for _, k := range res.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		versions[key] = key.SelectVersion(k.MinVersion, k.MaxVersion)
		cn.knows[key] = true
	}
	cn.proto.SetVersions(versions)
	cn.proven = false
	if c.SASL.Mechanism == "" {
		return nil
	}
	if err := cn.authenticate(ctx, c); err != nil {
		return connectError(cn.addr, c, fmt.Sprintf("authenticating as %q at", c.SASL.Username), err)
	}
	return nil
}

// mechanism reads the password anew, so that a rotated one is picked up.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	password, err := s.Password.Reveal()
	if err != nil {
		return nil, fmt.Errorf("sasl.password: %w", err)
	}
	switch s.Mechanism {
	case mechanismSCRAM256:
		return scram.Mechanism(scram.SHA256, s.Username, password)
	case mechanismSCRAM512:
		return scram.Mechanism(scram.SHA512, s.Username, password)
	}
	return plain.Mechanism{Username: s.Username, Password: password}, nil
}

// authenticate runs the SASL exchange (KIP-43, KIP-152).
func (cn *conn) authenticate(ctx context.Context, c *Config) error {
	mech, err := c.SASL.mechanism()
	if err != nil {
		return err
	}
	m, err := cn.roundTrip(ctx, &saslhandshake.Request{Mechanism: mech.Name()})
	if err != nil {
		return err
	}
	if code := m.(*saslhandshake.Response).ErrorCode; code != 0 {
		return kafkago.Error(code)
	}
	session, state, err := mech.Start(ctx)
	for done := false; err == nil && !done; {
		var challenge []byte
		if challenge, err = cn.saslStep(ctx, state); err == nil {
			done, state, err = session.Next(ctx, challenge)
		}
	}
	return err
}

func (cn *conn) saslStep(ctx context.Context, state []byte) ([]byte, error) {
	m, err := cn.roundTrip(ctx, &saslauthenticate.Request{AuthBytes: state})
	switch {
	case hungUp(err): // some brokers refuse so, but any broker that stops does the same: the password may be right
		return nil, fmt.Errorf("%w: %w", errSASLHangUp, err)
	case err != nil:
		return nil, err
	}
	res := m.(*saslauthenticate.Response)
	if res.ErrorCode != 0 {
		return nil, fmt.Errorf("%w%s", kafkago.Error(res.ErrorCode), detail(res.ErrorMessage))
	}
	return res.AuthBytes, nil
}

var errSASLHangUp = errors.New("SASL exchange")

// roundTrip asks and waits for the answer until ctx ends. After an error the connection is broken: an answer that came
// late would be taken for the next one's.
func (cn *conn) roundTrip(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cn.net.SetDeadline(time.Time{}); err != nil {
		cn.broken = true
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { // alone ends the wait: a deadline of the socket's own could come just before ctx's
		_ = cn.net.SetDeadline(time.Unix(1, 0)) // it fails when the connection is closed, which ends the wait as well
	})
	res, err := cn.proto.RoundTrip(req)
	if !stop() && err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	cn.broken = cn.broken || err != nil || ctx.Err() != nil
	cn.proven = cn.proven || err == nil
	cn.used = time.Now()
	return res, err
}

// maxIdle is how long a connection may lie unused before it is replaced: brokers and the boxes between hang up on idle
// ones, after 4 to 10 minutes by their defaults.
const maxIdle = 3 * time.Minute

// usable reports whether the connection is worth asking over.
func (cn *conn) usable() bool {
	return cn != nil && !cn.broken && time.Since(cn.used) < maxIdle
}

// ask is roundTrip within request_timeout, with errors that say what they most likely mean.
func (cn *conn) ask(ctx context.Context, c *Config, req protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, c.RequestTimeout)
	defer cancel()
	m, err := cn.roundTrip(ctx, req)
	switch {
	case err == nil:
		return m, nil
	case cn.proven:
		err = fmt.Errorf("asking kafka broker %s: %w", cn.addr, err)
	default:
		err = connectError(cn.addr, c, "asking", err)
	}
	cn.close()
	return nil, err
}

func (cn *conn) close() {
	cn.broken = true
	cn.net.Close()
}
