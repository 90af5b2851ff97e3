package router

import (
	"slices"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

const (
	heldMax = 500_000          // observations that a standby holds
	seenMax = 1 << 20          // observations of the owner that a standby remembers until it has made its own
	seenFor = 30 * time.Second // likewise, and so long
	dueFor  = 3 * time.Second  // when this node did not listen yet: its own may just be under way

	lateFor  = 10 * time.Second // what was read waits no longer to be held
	passedBy = time.Second      // two readers of a connection are not further apart in the order of what they read
)

// feeds are times of each connection of a link.
type feeds [call.Feeds]time.Time

func (f *feeds) at(o *call.Observation) *time.Time { return &f[min(o.Feed, call.Feeds-1)] }

// seenKey names an observation of one link alike on all nodes: what a frame shows is the same everywhere, but an adapter
// may tell of it with another frame, or later.
type seenKey struct {
	link *link
	key  uint64
}

// heldObservation is one that this node has made and the owner has not told of.
type heldObservation struct {
	frame message // whose only observation it is
	since time.Time
	gone  bool
}

// held is what a standby has observed on its links and has not yet seen among the owner's inputs, in the order it came.
type held struct {
	all     []*heldObservation // the first not gone
	byKey   map[seenKey][]*heldObservation
	n       int
	dropped map[*link]*drop // for want of room

	seen  map[seenKey]seen // that the owner told of and that are still to come here
	order []seenAt         // told while this node listened, oldest first
	early []seenAt         // told while it did not
}

// seen is how often the owner told of something, and in which of its sessions of the link last.
type seen struct{ n, session int }

type seenAt struct {
	key   seenKey
	until time.Time
}

func newHeld() *held {
	return &held{byKey: map[seenKey][]*heldObservation{}, dropped: map[*link]*drop{}, seen: map[seenKey]seen{}}
}

// hold keeps what a frame of this node's own shows, but for what the owner has told of already, and for what only this
// node's snapshot says.
func (h *held) hold(m *message, now time.Time) {
	h.order, h.early = h.expire(h.order, now), h.expire(h.early, now)
	for _, o := range m.obs {
		if o.Received == 0 {
			o.Received = m.at
		}
		k, mine := keyOf(m.link, &o)
		switch {
		case !mine:
			continue
		case h.seen[k].n > 0:
			if h.seen[k].session == m.link.begun { // what came before it may be all that this node has seen of an owner's gap
				h.meet(m.link, &o, now)
			}
			h.forget(k)
			continue
		case h.late(m, now): // before gave up what was held by then
			continue
		}
		x := &heldObservation{frame: *m, since: now}
		x.frame.raw, x.frame.obs = nil, []call.Observation{o}
		h.all = append(h.all, x)
		h.byKey[k] = append(h.byKey[k], x)
		if h.n++; h.n > heldMax {
			h.drop()
		}
	}
}

// late reports whether m was read before the owner was seen to begin to listen. How long it waited since tells: our clock may
// have been set meanwhile, and differs by more then.
func (h *held) late(m *message, now time.Time) bool {
	waited := now.Sub(m.at.Std())
	return waited < lateFor && waited > now.Sub(m.link.begunAt)
}

func (h *held) forget(k seenKey) {
	was := h.seen[k]
	if was.n--; was.n <= 0 {
		delete(h.seen, k)
		return
	}
	h.seen[k] = was
}

// drop gives up the oldest.
func (h *held) drop() {
	missed(h.dropped, &h.all[0].frame)
	h.remove(h.all[0])
}

// missed counts what a message tells, for which there is no room.
func missed(by map[*link]*drop, m *message) {
	addDrop(by, m.link, drop{n: max(1, len(m.obs)), from: m.at, to: m.at})
}

func addDrop(by map[*link]*drop, l *link, d drop) {
	was := by[l]
	if was == nil {
		by[l] = &d
		return
	}
	was.n += d.n
	was.from, was.to = min(was.from, d.from), max(was.to, d.to)
}

// remove takes x out, and what is gone at the front with it.
func (h *held) remove(x *heldObservation) {
	k, _ := keyOf(x.frame.link, &x.frame.obs[0])
	x.gone = true
	h.n--
	if same := h.byKey[k]; len(same) > 1 {
		i := slices.Index(same, x)
		h.byKey[k] = slices.Concat(same[:i], same[i+1:])
	} else {
		delete(h.byKey, k)
	}
	for len(h.all) > 0 && h.all[0].gone {
		h.all[0] = nil
		h.all = h.all[1:]
	}
	if len(h.all) > 2*h.n+1024 { // one that nobody tells of holds up the front
		h.all = slices.DeleteFunc(slices.Clone(h.all), func(x *heldObservation) bool { return x.gone })
	}
}

// told notes what the owner has taken.
func (h *held) told(m *message, now time.Time) {
	for i := range m.obs {
		k, theirs := keyOf(m.link, &m.obs[i])
		if !theirs {
			continue
		}
		if same := h.byKey[k]; len(same) > 0 {
			h.meet(m.link, &same[0].frame.obs[0], same[0].since)
			h.remove(same[0])
			continue
		}
		h.seen[k] = seen{h.seen[k].n + 1, m.link.begun}
		if m.link.ownSince.IsZero() {
			h.early = append(h.early, seenAt{k, now.Add(dueFor)})
		} else {
			h.order = append(h.order, seenAt{k, now.Add(seenFor)})
		}
	}
	h.order, h.early = h.expire(h.order, now), h.expire(h.early, now)
}

// keyOf names an observation that both nodes make of what the switch sent: not one of a snapshot.
func keyOf(l *link, o *call.Observation) (k seenKey, ok bool) {
	k = seenKey{l, o.Key()}
	return k, k.key != 0 && !ofSnapshot(o)
}

// ofSnapshot reports whether a node's own snapshot, or its adapter's guess, says o rather than the switch by an event.
func ofSnapshot(o *call.Observation) bool { return o.Synthetic || o.Kind.OfSnapshot() }

// meet notes that the owner has told of o, which came here at since. When that is the first of its connection since the owner
// began to listen to l, what was received here before by that came before the owner's snapshot, which says what became of it.
// An adapter may tell of it later than of what came after.
func (h *held) meet(l *link, o *call.Observation, since time.Time) {
	by := l.toldBy.at(o)
	if by.IsZero() {
		for _, y := range h.all {
			if y == nil || y.gone || y.frame.link != l {
				continue
			}
			if theirs := &y.frame.obs[0]; l.toldBy.at(theirs) == by && theirs.Received < o.Received {
				h.remove(y)
			}
		}
	}
	if since.After(*by) {
		*by = since
	}
	if since.After(l.told) {
		l.told = since
	}
}

// sift takes out of a message of this node's own, which now owns the links, what an owner before has told of: it was late
// here.
func (h *held) sift(m *message, now time.Time) {
	if len(h.seen) == 0 || m.kind != msgFrame {
		return
	}
	h.order, h.early = h.expire(h.order, now), h.expire(h.early, now)
	var left []call.Observation
	for i := range m.obs {
		if k, mine := keyOf(m.link, &m.obs[i]); mine && h.seen[k].n > 0 {
			h.forget(k)
			continue
		}
		left = append(left, m.obs[i])
	}
	m.obs = left
}

// expire forgets what has not come here in time.
func (h *held) expire(told []seenAt, now time.Time) []seenAt {
	for len(told) > 0 && (len(told) > seenMax || now.After(told[0].until)) {
		if h.seen[told[0].key].n > 0 {
			h.forget(told[0].key)
		}
		told = told[1:]
	}
	return told
}

// before gives up what was received on l up to now, when this node knows that the owner listens anew: the owner's snapshot
// says what came of it, or the owner tells of it. What was read by now and comes to be held later is given up as well.
func (h *held) before(l *link, now time.Time) {
	l.begunAt = now
	for _, x := range h.all {
		if x != nil && !x.gone && x.frame.link == l {
			h.remove(x)
		}
	}
}

// overdue returns the oldest that the owner, who listens to its link, has not told of for as long as after. Where the
// owner has told of what came here clearly later by the same connection, it has made nothing of this one, and so does this
// node.
func (h *held) overdue(now time.Time, after time.Duration) *heldObservation {
	for _, x := range h.all {
		if x == nil || x.gone {
			continue
		}
		l := x.frame.link
		switch {
		case now.Sub(x.since) <= after:
			return nil
		case !l.state.up:
		case l.toldBy.at(&x.frame.obs[0]).Sub(x.since) > passedBy:
			h.remove(x)
		default:
			return x
		}
	}
	return nil
}

// take gives all that is held, in order, and begins anew.
func (h *held) take() (msgs []message) {
	for _, x := range h.all {
		if !x.gone {
			msgs = append(msgs, x.frame)
		}
	}
	told, order, early := h.seen, h.order, h.early
	*h = *newHeld()
	h.seen, h.order, h.early = told, order, early
	return msgs
}
