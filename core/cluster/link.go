package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// LinkOptions are what a link needs beside the configuration. The callbacks of one peer come in order, those of
// different peers may come at once; they must return soon. Any may be nil.
type LinkOptions struct {
	Config  *Config
	Version string        // of the gateway
	Report  func() Report // what to tell the peers, asked every 200 ms for each connection: Member.Report
	Log     *slog.Logger

	// PeerUp: the peer talks to us (again).
	PeerUp func(id string)
	// PeerDead: the process on that node has ended without saying so: its connection closed and the next one was
	// refused, or another process answers in its place. member is its member id in the group, "" when not known. This
	// comes within a few milliseconds of a crash. After a first second in which nothing was ever there it comes as well.
	PeerDead func(id, member string)
	// PeerSilent: nothing was heard for a second, or it cannot be reached. It may be fine and publishing: the network
	// may be split. By itself no reason to take over.
	PeerSilent func(id string)
}

// Link connects this node to its peers, each to each, for signs of life. It decides nothing and nothing depends on it
// but how soon a crash is noticed.
type Link struct {
	cfg      *Config
	opts     LinkOptions
	log      *slog.Logger
	instance string
	peers    []*peer
	slots    chan struct{} // connections being greeted
}

// NewLink checks the configuration.
func NewLink(opts LinkOptions) (*Link, error) {
	if errs := opts.Config.Validate(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if t := opts.Config.TLS; t != (TLS{}) {
		if _, err := t.files().Client("cluster.tls", ""); err != nil {
			return nil, err
		}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Report == nil {
		opts.Report = func() Report { return Report{Generation: -1} }
	}
	l := &Link{
		cfg: opts.Config, opts: opts, log: opts.Log.With("node", opts.Config.Node), instance: rand.Text(),
		slots: make(chan struct{}, maxGreeting),
	}
	for _, p := range l.cfg.Peers {
		l.peers = append(l.peers, newPeer(l, p))
	}
	return l, nil
}

// maxGreeting bounds connections whose other end is not known yet.
const maxGreeting = 16

// Listen opens the listener, so that a port in use is known before anything starts. Run takes the listener over.
func (l *Link) Listen(ctx context.Context) (net.Listener, error) {
	if l.cfg.Listen == "" {
		return nil, nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("cluster.listen: listening for peers: %w", err)
	}
	return ln, nil
}

// Run keeps the link until ctx ends, then says goodbye. ln is Listen's, and closed at the end; nil to connect only. End
// it after Member.Run has returned: a node that says goodbye is not reported dead.
func (l *Link) Run(ctx context.Context, ln net.Listener) {
	var all sync.WaitGroup
	for _, p := range l.peers {
		all.Go(func() { p.run(ctx) })
	}
	if ln != nil {
		stop := context.AfterFunc(ctx, func() { ln.Close() })
		defer stop()
		defer ln.Close()
		all.Go(func() { l.accept(ctx, ln, &all) })
	}
	all.Wait()
}

func (l *Link) accept(ctx context.Context, ln net.Listener, all *sync.WaitGroup) {
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil { // out of file descriptors, say: it passes
			l.log.Warn("accepting a peer", "err", err)
			_ = sleep(ctx, reportEvery) // ctx is looked at above
			continue
		}
		select {
		case l.slots <- struct{}{}:
			all.Go(func() { l.serve(ctx, nc) })
		default:
			nc.Close() // strangers hold all slots, for helloLimit at most
		}
	}
}

// serve greets who connected and listens to it, if it is a peer.
func (l *Link) serve(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	p, c, h, err := l.greet(ctx, nc)
	<-l.slots
	if err != nil {
		l.log.Warn("turned away who connected as a peer", "from", nc.RemoteAddr().String(), "err", err)
		return
	}
	defer c.Close()
	leave := p.enter(c)
	p.greeted(h)
	err = p.talk(ctx, c)
	leave()
	if err != nil {
		p.probe()
	}
}

func (l *Link) greet(ctx context.Context, nc net.Conn) (*peer, net.Conn, hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	c, may, err := l.admit(ctx, nc)
	if err != nil {
		return nil, nil, hello{}, err
	}
	deadline, _ := ctx.Deadline()
	h, err := readHello(c, deadline)
	if err != nil {
		return nil, nil, h, err
	}
	p := l.peer(h.Node)
	if p == nil {
		return nil, nil, h, fmt.Errorf("it calls itself %q, which is none of cluster.peers", h.Node)
	}
	if !may(h.Node) {
		p.turnedAway()
		return nil, nil, h, fmt.Errorf("it calls itself %q and its certificate is not for that name", h.Node)
	}
	return p, c, h, writeFrame(c, l.hello())
}

func readHello(c net.Conn, deadline time.Time) (hello, error) {
	f, err := readFrame(c, deadline)
	if err != nil {
		return hello{}, err
	}
	if f.Hello == nil {
		return hello{}, fmt.Errorf("%w: want a greeting first", errFrame)
	}
	return *f.Hello, nil
}

func (l *Link) hello() frame {
	return frame{Hello: &hello{linkProtocol, l.cfg.Node, l.opts.Version, l.instance, l.opts.Report().Member}}
}

func (l *Link) peer(id string) *peer {
	for _, p := range l.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

// Peers is what is known of each.
func (l *Link) Peers() []PeerStatus {
	all := make([]PeerStatus, len(l.peers))
	for i, p := range l.peers {
		all[i] = p.status()
	}
	return all
}
