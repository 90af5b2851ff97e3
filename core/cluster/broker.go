package cluster

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokers asks the cluster: any broker, or the coordinator of one group. For one goroutine at a time; each that asks
// has its own, since a broker answers a connection's requests one after the other and a join may take seconds.
type brokers struct {
	dial    DialFunc
	seeds   []string
	group   string
	timeout time.Duration // of an answer

	seed  *wire
	coord *wire
	next  int // which seed to try first
}

func (b *brokers) close() {
	b.seed.close()
	b.coord.close()
	b.seed, b.coord = nil, nil
}

// forget drops the coordinator: the next request looks for it anew.
func (b *brokers) forget() {
	b.coord.close()
	b.coord = nil
}

// any asks whichever broker answers, the seeds one after the other.
func (b *brokers) any(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	var last error
	for range len(b.seeds) + 1 { // once more: the one at hand may have hung up long ago
		resp, err := b.askSeed(ctx, req)
		if err == nil {
			return resp, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no Kafka broker could be used, of %v; the last: %w", b.seeds, last)
}

func (b *brokers) askSeed(ctx context.Context, req kmsg.Request) (resp kmsg.Response, err error) {
	if b.seed == nil {
		if b.seed, err = b.connect(ctx, b.seeds[b.next%len(b.seeds)]); err != nil {
			b.next++
			return nil, err
		}
	}
	if resp, err = b.ask(ctx, b.seed, b.timeout, req); err != nil {
		b.seed.close()
		b.seed = nil
	}
	return resp, err
}

func (b *brokers) connect(ctx context.Context, addr string) (*wire, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no connection within %s", dialTimeout))
	defer cancel()
	return connect(ctx, b.dial, addr)
}

func (b *brokers) ask(ctx context.Context, w *wire, timeout time.Duration, req kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	return w.ask(ctx, req)
}

// dialTimeout bounds connecting, TLS, SASL and the greeting together.
const dialTimeout = 3 * time.Second

// coordinator asks the group's coordinator, which is looked up first if need be. After a failure of the connection it
// is forgotten; so it is to be by the caller when an answer says that it moved (moved).
func (b *brokers) coordinator(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return b.coordinatorWithin(ctx, b.timeout, req)
}

func (b *brokers) coordinatorWithin(ctx context.Context, timeout time.Duration, req kmsg.Request) (kmsg.Response, error) {
	if b.coord == nil {
		addr, err := b.find(ctx)
		if err != nil {
			return nil, err
		}
		if b.coord, err = b.connect(ctx, addr); err != nil {
			return nil, err
		}
	}
	resp, err := b.ask(ctx, b.coord, timeout, req)
	if err != nil {
		b.forget()
	}
	return resp, err
}

func (b *brokers) find(ctx context.Context) (addr string, err error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey = b.group
	resp, err := b.any(ctx, req)
	if err != nil {
		return "", err
	}
	found := resp.(*kmsg.FindCoordinatorResponse)
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
		return "", fmt.Errorf("looking for the coordinator of group %s: %w", b.group, err)
	}
	return net.JoinHostPort(found.Host, strconv.Itoa(int(found.Port))), nil
}

// at asks one broker, over a connection of its own.
func (b *brokers) at(ctx context.Context, addr string, req kmsg.Request) (kmsg.Response, error) {
	w, err := b.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer w.close()
	return b.ask(ctx, w, b.timeout, req)
}

// moved reports whether a code means that another broker coordinates the group, or none yet.
func moved(code int16) bool {
	switch kerr.ErrorForCode(code) {
	case kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress:
		return true
	}
	return false
}

// sleep waits for d, or less if ctx ends first, which is its error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
