package kafka

import (
	"context"
	"net"
	"time"
)

// Dial connects to a broker as the sink does: within dial_timeout, with TLS and SASL done. The connection is the caller's.
func (c *Config) Dial(ctx context.Context, addr string) (net.Conn, error) {
	cn, err := dial(ctx, c, addr)
	if err != nil {
		return nil, err
	}
	if err := cn.net.SetDeadline(time.Time{}); err != nil {
		cn.close()
		return nil, err
	}
	return cn.net, nil
}
