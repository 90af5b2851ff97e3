package router

import (
	"time"

	"github.com/ctigate/ctigate/core/call"
)

const (
	heldBytes = 256 << 20         // of frames that a standby holds
	seenMax   = 1 << 20           // frames of the owner that a standby remembers until it has read its own copies
	seenFor   = 300 * call.Second // likewise
)

// frameKey names a frame of one link alike on all nodes.
type frameKey struct {
	link *link
	id   uint64
}

// heldFrame is one that this node has read and the owner has not told of.
type heldFrame struct {
	message
	since time.Time // when it was held, by the monotonic clock
	gone  bool
}

// held is what a standby has read of its links and has not yet seen among the owner's inputs, in the order it came.
type held struct {
	frames  []*heldFrame // the first not gone
	byKey   map[frameKey][]*heldFrame
	bytes   int
	dropped map[*link]*drop // for want of room

	seen  map[frameKey]int // copies that the owner told of and that are still to come
	order []seenFrame      // oldest first
}

type seenFrame struct {
	key frameKey
	at  call.Time
}

func newHeld() *held {
	return &held{byKey: map[frameKey][]*heldFrame{}, dropped: map[*link]*drop{}, seen: map[frameKey]int{}}
}

// hold keeps a frame of this node's own, unless the owner has told of it already.
func (h *held) hold(m *message) {
	k := frameKey{m.link, m.id}
	if h.seen[k] > 0 {
		h.forget(k)
		return
	}
	f := &heldFrame{message: *m, since: time.Now()}
	h.frames = append(h.frames, f)
	h.byKey[k] = append(h.byKey[k], f)
	h.bytes += m.size()
	for h.bytes > heldBytes {
		h.drop()
	}
}

func (h *held) forget(k frameKey) {
	if h.seen[k]--; h.seen[k] <= 0 {
		delete(h.seen, k)
	}
}

// drop gives up the oldest frame.
func (h *held) drop() {
	f := h.frames[0]
	d := h.dropped[f.link]
	if d == nil {
		d = &drop{from: f.at}
		h.dropped[f.link] = d
	}
	d.n++
	d.to = f.at
	h.remove(f)
}

// remove takes f out, and what is gone at the front with it.
func (h *held) remove(f *heldFrame) {
	k := frameKey{f.link, f.id}
	f.gone = true
	h.bytes -= f.size()
	if same := h.byKey[k]; len(same) > 1 {
		h.byKey[k] = same[1:]
	} else {
		delete(h.byKey, k)
	}
	for len(h.frames) > 0 && h.frames[0].gone {
		h.frames[0] = nil
		h.frames = h.frames[1:]
	}
}

// told notes that the owner has taken a frame.
func (h *held) told(m *message, now call.Time) {
	k := frameKey{m.link, m.id}
	if same := h.byKey[k]; len(same) > 0 {
		h.remove(same[0])
		return
	}
	h.seen[k]++
	h.order = append(h.order, seenFrame{k, now})
	for len(h.order) > 0 && (len(h.order) > seenMax || now-h.order[0].at > seenFor) {
		if h.seen[h.order[0].key] > 0 {
			h.forget(h.order[0].key)
		}
		h.order = h.order[1:]
	}
}

// before gives up what was read of l up to a moment: the owner's snapshot says what came of it.
func (h *held) before(l *link, at call.Time) {
	for _, f := range append([]*heldFrame(nil), h.frames...) {
		if !f.gone && f.link == l && f.at <= at {
			h.remove(f)
		}
	}
}

// oldest is the first frame of a link that the owner listens to, nil when there is none.
func (h *held) oldest() *heldFrame {
	for _, f := range h.frames {
		if !f.gone && f.link.state.up {
			return f
		}
	}
	return nil
}

// take gives all that is held, in order, and begins anew.
func (h *held) take() (msgs []message) {
	for _, f := range h.frames {
		if !f.gone {
			msgs = append(msgs, f.message)
		}
	}
	seen, order := h.seen, h.order
	*h = *newHeld()
	h.seen, h.order = seen, order
	return msgs
}
