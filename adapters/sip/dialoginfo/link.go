package dialoginfo

import (
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

const (
	// pairWindow is how far apart the two dialogs of one call may be heard of when only their numbers tell.
	pairWindow = 2 * call.Second
	// maxPair bounds the dialogs that are kept under one Call-ID or pair of numbers.
	maxPair = 16

	evidenceNumbers  = "number_and_time"
	evidenceSnapshot = "number"
)

// pair is who calls whom.
type pair struct{ from, to string }

// links finds the dialog that is the other end of the same call.
type links struct {
	byCall map[string][]*dialog // by SIP Call-ID: a proxy leaves it as it is
	byPair map[pair][]*dialog
}

func newLinks() links {
	return links{byCall: map[string][]*dialog{}, byPair: map[pair][]*dialog{}}
}

// pair is who calls whom in d; not ok when the far end is not known.
func (d *dialog) pair() (p pair, ok bool) {
	if d.initiator {
		return pair{d.user, d.number}, d.number != ""
	}
	return pair{d.number, d.user}, d.number != ""
}

// find looks for an older dialog of d's call: one that d replaces, one with the same Call-ID, then one whose two numbers
// are the same and that began at about the same time. It says by what evidence, where the PBX does not tell. In a
// snapshot, where the time of the beginning is seldom told, that both go on is enough.
func (l *links) find(d *dialog, x *Dialog, snapshot bool) (parent *dialog, evidence string) {
	if r := x.Replaces; r.CallID != "" {
		for _, o := range l.byCall[r.CallID] {
			if o.tag == "" || o.tag == r.LocalTag || o.tag == r.RemoteTag {
				return o, ""
			}
		}
	}
	if d.callID != "" {
		for _, o := range l.byCall[d.callID] {
			if o.leg != d.leg {
				o.paired = o.paired || o.initiator != d.initiator
				d.paired = o.paired
				return o, ""
			}
		}
	}
	p, ok := d.pair()
	if !ok {
		return nil, ""
	}
	for _, o := range l.byPair[p] {
		if o.initiator == d.initiator || o.paired {
			continue
		}
		if apart := max(d.began-o.began, o.began-d.began); apart <= pairWindow || snapshot {
			o.paired, d.paired = true, true
			if apart > pairWindow {
				return o, evidenceSnapshot
			}
			return o, evidenceNumbers
		}
	}
	return nil, ""
}

// add makes d findable by what is known of it; what it is found by already stays.
func (l *links) add(d *dialog) {
	if d.callID != "" {
		l.byCall[d.callID] = keep(l.byCall[d.callID], d)
	}
	if p, ok := d.pair(); ok {
		l.byPair[p] = keep(l.byPair[p], d)
	}
}

func keep(list []*dialog, d *dialog) []*dialog {
	if len(list) >= maxPair || slices.Contains(list, d) {
		return list
	}
	return append(list, d)
}

func (l *links) remove(d *dialog) {
	prune(l.byCall, d.callID, d)
	if p, ok := d.pair(); ok {
		prune(l.byPair, p, d)
	}
}

func prune[K comparable](m map[K][]*dialog, k K, d *dialog) {
	list := slices.DeleteFunc(m[k], func(o *dialog) bool { return o == d })
	if len(list) == 0 {
		delete(m, k)
		return
	}
	m[k] = list
}
