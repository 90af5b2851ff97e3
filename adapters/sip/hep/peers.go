package hep

import (
	"container/list"
	"net"
	"sync"
)

// peer is one connection.
type peer struct {
	conn  net.Conn
	place *list.Element // in peers.unproven, until it has sent a good frame
	good  bool          // it has; its reader's own
}

// peers are the connections there are. Those that have not sent a good frame yet make room for new ones, the oldest
// first, so that nobody can keep the agents out by holding connections.
type peers struct {
	mu       sync.Mutex
	limit    int
	all      map[*peer]struct{}
	unproven list.List
	closed   bool
}

// add reports whether there was room, and whether room was made.
func (ps *peers) add(p *peer) (ok, evicted bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return false, false
	}
	if len(ps.all) >= ps.limit {
		if evicted = ps.evict(); !evicted {
			return false, false
		}
	}
	if ps.all == nil {
		ps.all = make(map[*peer]struct{})
	}
	ps.all[p] = struct{}{}
	p.place = ps.unproven.PushBack(p)
	return true, evicted
}

// evict closes the oldest connection that has sent no good frame, if there is one.
func (ps *peers) evict() bool {
	oldest := ps.unproven.Front()
	if oldest == nil {
		return false
	}
	p := ps.unproven.Remove(oldest).(*peer)
	p.place = nil
	delete(ps.all, p)
	_ = p.conn.Close()
	return true
}

// proved notes that p sent a good frame. Only p's reader calls it.
func (ps *peers) proved(p *peer) {
	if p.good {
		return
	}
	p.good = true
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.forget(p)
}

func (ps *peers) forget(p *peer) {
	if p.place != nil {
		ps.unproven.Remove(p.place)
		p.place = nil
	}
}

// remove closes p.
func (ps *peers) remove(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.forget(p)
	delete(ps.all, p)
	_ = p.conn.Close()
}

// close closes all connections, and those still to come.
func (ps *peers) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.closed = true
	for p := range ps.all {
		_ = p.conn.Close()
	}
}
