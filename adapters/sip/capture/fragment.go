package capture

import (
	"bytes"
	"cmp"
	"container/list"
	"net/netip"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

const (
	maxDatagram = 65535 // bytes of an IP packet
	// maxFragments of one datagram: 64 KiB in pieces of 256 bytes.
	maxFragments = 256
	// maxFragmentBytes bounds all that is held.
	maxFragmentBytes = 32 << 20
	// fragmentCost is what a fragment takes beside its bytes.
	fragmentCost = 64
	// fragmentTimeout is how long the rest of a datagram is waited for: Linux's ipfrag_time.
	fragmentTimeout = 30 * call.Second
)

// fragKey names one fragmented datagram (RFC 791, 3.2; RFC 8200, 4.5).
type fragKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8 // IPv4 only
	vlan     uint16
}

// fragment is one piece of a datagram.
type fragment struct {
	next   uint8 // protocol of the first one's payload
	more   bool  // it is not the last
	offset int
	data   []byte
}

func (f *fragment) end() int { return f.offset + len(f.data) }

// datagram is what there is of one.
type datagram struct {
	key   fragKey
	parts []fragment // in order of offset, none overlapping
	total int        // length, 0 while the last fragment is missing
	have  int        // bytes in parts
	born  call.Time
	el    *list.Element
}

func (g *datagram) cost() int { return g.have + len(g.parts)*fragmentCost }

// fragments puts datagrams together. What overlaps is given up whole, as RFC 5722 wants it and Linux does it: which
// of two versions the receiver took cannot be told.
type fragments struct {
	max   int
	byKey map[fragKey]*datagram
	order *list.List // of *datagram, oldest first
	bytes int
	whole []byte // the last one put together
}

func newFragments(maxDatagrams int) *fragments {
	return &fragments{max: maxDatagrams, byKey: map[fragKey]*datagram{}, order: list.New()}
}

// add takes a fragment, and returns the datagram it completes and its protocol; valid until the next call.
func (f *fragments) add(key fragKey, p fragment, now call.Time, st *Stats) ([]byte, uint8) {
	f.expire(now, st)
	g := f.byKey[key]
	if g == nil {
		g = f.open(key, now, st)
	}
	fits, known := g.place(p)
	switch {
	case known:
		return nil, 0
	case !fits:
		st.FragmentOverlap++
		f.drop(g)
		return nil, 0
	}
	f.bytes += len(p.data) + fragmentCost
	if g.total > 0 && g.have == g.total {
		f.drop(g)
		return f.join(g), g.parts[0].next
	}
	if len(g.parts) > maxFragments {
		st.FragmentShed++
		f.drop(g)
	}
	for f.bytes > maxFragmentBytes {
		f.shed(st)
	}
	return nil, 0
}

// open makes room for one more datagram.
func (f *fragments) open(key fragKey, now call.Time, st *Stats) *datagram {
	if len(f.byKey) >= f.max {
		f.shed(st)
	}
	g := &datagram{key: key, born: now}
	g.el = f.order.PushBack(g)
	f.byKey[key] = g
	return g
}

// shed gives up the oldest.
func (f *fragments) shed(st *Stats) {
	st.FragmentShed++
	f.drop(f.order.Front().Value.(*datagram))
}

func (f *fragments) expire(now call.Time, st *Stats) {
	for el := f.order.Front(); el != nil; el = f.order.Front() {
		g := el.Value.(*datagram)
		if now-g.born <= fragmentTimeout {
			return
		}
		st.FragmentExpired++
		f.drop(g)
	}
}

func (f *fragments) flush(st *Stats) {
	st.FragmentExpired += uint64(len(f.byKey))
	for el := f.order.Front(); el != nil; el = f.order.Front() {
		f.drop(el.Value.(*datagram))
	}
}

func (f *fragments) drop(g *datagram) {
	f.bytes -= g.cost()
	f.order.Remove(g.el)
	delete(f.byKey, g.key)
}

func (f *fragments) join(g *datagram) []byte {
	f.whole = f.whole[:0]
	for i := range g.parts {
		f.whole = append(f.whole, g.parts[i].data...)
	}
	return f.whole
}

// place puts a copy of p where it belongs. It does not fit where it overlaps another or contradicts the datagram's
// length; it is known when it is there already.
func (g *datagram) place(p fragment) (fits, known bool) {
	i, same := slices.BinarySearchFunc(g.parts, p.offset, func(q fragment, offset int) int { return cmp.Compare(q.offset, offset) })
	if same {
		q := g.parts[i]
		known = q.more == p.more && bytes.Equal(q.data, p.data)
		return known, known
	}
	switch {
	case i > 0 && g.parts[i-1].end() > p.offset,
		i < len(g.parts) && p.end() > g.parts[i].offset,
		g.total > 0 && (p.end() > g.total || !p.more),
		!p.more && len(g.parts) > 0 && g.parts[len(g.parts)-1].end() > p.offset:
		return false, false
	}
	if !p.more {
		g.total = p.end()
	}
	p.data = bytes.Clone(p.data)
	g.parts = slices.Insert(g.parts, i, p)
	g.have += len(p.data)
	return true, false
}
