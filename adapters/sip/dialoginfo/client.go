package dialoginfo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/ctigate/ctigate/core"
)

// Kind is Instance.Kind of a session.
const Kind = "sip"

// Client watches the resources of one PBX. It implements core.Adapter: Run is one session, and is not called again
// before it has returned. What is known of the dialogs is kept between sessions, so that their legs keep their ids.
type Client struct {
	id   string
	cfg  Config
	srv  server
	log  *slog.Logger
	norm *normalizer
	uris []string
	dial func(ctx context.Context) (net.Conn, error)
	// counts is where the normalizer counts: the session's Emitter.
	counts func(string, int)
}

// New makes a client for the switch link id. It does not connect.
func New(id string, cfg Config, log *slog.Logger) (*Client, error) {
	if errs := cfg.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("opening dialog subscriptions: %w", errors.Join(errs...))
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Client{id: id, cfg: cfg.withDefaults(), log: log.With("link", id)}
	c.srv, _ = c.cfg.server()
	for _, r := range c.cfg.Resources {
		u, _ := resourceURI(r, c.srv.host)
		c.uris = append(c.uris, u)
	}
	c.norm = newNormalizer(c.uris, func(name string, n int) { c.counts(name, n) })
	c.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, &c.cfg, c.srv) }
	return c, nil
}

// Run is one session: subscribe to all resources, tell what goes on there, then hand over what the NOTIFYs say until ctx
// ends or the PBX does not answer any more. Up is said when the first subscription is accepted. The error is permanent
// when the PBX refuses the credentials, or every resource for good.
func (c *Client) Run(ctx context.Context, out core.Emitter) error {
	nc, err := c.dial(ctx)
	if err != nil {
		return unlessOver(ctx, fmt.Errorf("connecting to the PBX at %s by %s: %w: check server and the firewall", c.srv.addr, c.srv.transport, err))
	}
	c.counts = out.Count
	k := newConn(nc, c.srv.transport != "udp", out.Count)
	s := newSession(c, k, out)
	err = s.run(ctx)
	k.close()
	s.outbox.close()
	return unlessOver(ctx, err)
}

// unlessOver is err, or nil when the session was asked to end.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
