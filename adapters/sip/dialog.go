package sip

import (
	"net/netip"
	"slices"

	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core/call"
)

// side is one end of a dialog: who sent its INVITE, and who received it.
type side uint8

const (
	uac side = iota
	uas
)

func (s side) other() side { return 1 - s }

// phase is how far a dialog has come (RFC 3261, 12 and 17.1.1).
type phase uint8

const (
	trying     phase = iota // nothing but the INVITE and 100
	proceeding              // a provisional response
	challenged              // refused for now: the INVITE is expected again, with credentials or another interval
	confirmed               // answered
	terminated              // over; kept for what is repeated
)

// dialog is one INVITE dialog, or the set of its forks, as seen between its two ends. It is one leg of a switch, whose
// party is at the other end; or, between two ends that are no switch, two legs.
type dialog struct {
	callID string
	tags   [2]string         // by side; the uas's is known from the first response with one
	ends   [2]netip.AddrPort // where each side's signalling is
	peers  []netip.Addr      // every address that signalling came from or went to
	phase  phase
	legs   [2]string // by the side of its party; empty: a switch is there. Both empty: nobody's

	cseq       uint32 // of the INVITE that began it
	branch     string // of that INVITE, as first seen
	hops       int    // Vias of that INVITE where it has the fewest: nearest to its caller
	attempts   []attempt
	unseen     bool    // found in the middle
	spoken     [2]bool // by side: messages of it have come
	again      bool    // tried again after a refusal, with the same Call-ID and From tag
	alerted    bool
	early      string // tag of the last provisional response that had one
	forked     bool   // there were others before
	answered   call.Time
	cancelled  call.Time // CANCEL came
	challenged call.Time // when, by our clock
	challenge  int       // its status
	heard      call.Time // last message, by our clock
	expires    call.Time // session timer (RFC 4028), by our clock; 0 for none
	lag        call.Time // our clock less the capturing one's
	user       string    // of its party, for an outbound leg
	number     string    // of its caller
	dialed     string
	target     string // host and port that the INVITE is to

	offer    *offered
	doubtful *message // an INVITE from an address that nobody has named: taken once it is answered
	held     [2]bool
	media    [2]call.Media // agreed, by side; Codec empty for none
	flows    [2]*flow      // by the sending side
	refer    *referral
	digit    press // the last one

	group *group
	keys  []string // under which correlation finds it
	seen  [24]digest
	seenN int

	gone       bool    // forgotten
	next       *dialog // of the same Call-ID
	older, new *dialog // in the engine's list, by creation
}

// offered is an offer that is, or was last, under way (RFC 3264).
type offered struct {
	by     side
	method string
	cseq   uint32
	sdp    *sdp.Description
}

// referral is a REFER that was not refused.
type referral struct {
	by       side
	cseq     uint32
	kind     string // blind, attended
	to       string // target's user
	replaces string // Call-ID of the dialog to replace
	accepted bool
	done     bool
	clearAt  call.Time // when the referring party is taken to have left, by our clock; 0 for not yet
	doneAt   call.Time
}

// group is the dialogs that are one call, as far as the packets tell.
type group struct {
	dialogs  []*dialog
	referred call.Time // last REFER that was not refused and has not been followed
	diverted call.Time // last 3xx likewise
}

// maxGroup bounds the dialogs of one call that correlation looks at.
const maxGroup = 64

func (g *group) add(d *dialog) {
	d.group = g
	if len(g.dialogs) >= maxGroup {
		g.dialogs = slices.DeleteFunc(g.dialogs, func(x *dialog) bool { return x.phase == terminated })
	}
	if len(g.dialogs) < maxGroup {
		g.dialogs = append(g.dialogs, d)
	}
}

// drop takes out d, which is forgotten.
func (g *group) drop(d *dialog) {
	g.dialogs = slices.DeleteFunc(g.dialogs, func(x *dialog) bool { return x == d })
}

// merge takes over the dialogs of other.
func (g *group) merge(other *group) {
	if g == other {
		return
	}
	for _, d := range other.dialogs {
		g.add(d)
	}
	other.dialogs = nil
}

// outbound reports whether d is a switch's leg to a party that it called.
func (d *dialog) outbound() bool { return d.legs[uas] != "" && d.legs[uac] == "" }

// inbound reports whether d is a party's call to a switch, or to another party.
func (d *dialog) inbound() bool { return d.legs[uac] != "" }

// stray reports whether d was found in the middle and only one side of it has spoken: a repetition of what is over, or
// made up.
func (d *dialog) stray() bool {
	return d.unseen && !(d.spoken[uac] && d.spoken[uas]) && d.mediaHeard() == 0
}

// spare reports whether d is the first to go when there is no room.
func (d *dialog) spare() bool { return d.phase == terminated || d.phase == challenged || d.stray() }

// live reports whether d has not ended.
func (d *dialog) live() bool { return d.phase != terminated }

// calling reports whether g has an outbound leg that is not over; talking, whether one of them was answered.
func (g *group) calling() (calling, talking bool) {
	for _, d := range g.dialogs {
		if d.outbound() && d.live() {
			calling = true
			talking = talking || d.phase == confirmed
		}
	}
	return calling, talking
}

// maxPeers bounds the addresses that one dialog's signalling may come from.
const maxPeers = 8

// meet notes an address that signalling of d came from or went to.
func (d *dialog) meet(a netip.Addr) {
	if !slices.Contains(d.peers, a) && len(d.peers) < maxPeers {
		d.peers = append(d.peers, a)
	}
}

func (d *dialog) knows(a netip.Addr) bool { return slices.Contains(d.peers, a) }

// sender is the side m comes from: who sent the request, or the other one for a response. ok is false when m's tags are
// not d's.
func (d *dialog) sender(m *message) (s side, ok bool) {
	requester := uac
	if m.fromTag != d.tags[uac] {
		requester = uas
		if m.toTag != d.tags[uac] || d.tags[uas] != "" && m.fromTag != d.tags[uas] {
			return 0, false
		}
	}
	if m.status != 0 {
		return requester.other(), true
	}
	return requester, true
}

// attempt is a transaction of the INVITE that began a dialog, at the hop nearest to its caller, not refused so far. There
// are several where a proxy forks the INVITE and the hop before it is not seen.
type attempt struct {
	branch    string
	cancelled bool
}

// maxAttempts bounds the attempts of one dialog.
const maxAttempts = 16

// attempt notes m, an INVITE without a tag in To.
func (d *dialog) attempt(m *message) {
	n := m.hops()
	switch {
	case len(d.attempts) == 0 || n < d.hops:
		d.attempts, d.hops, d.branch = append(d.attempts[:0], attempt{branch: m.branch}), n, m.branch
	case n == d.hops && len(d.attempts) < maxAttempts && d.attemptOf(m) < 0:
		d.attempts = append(d.attempts, attempt{branch: m.branch})
	}
}

func (d *dialog) attemptOf(m *message) int {
	return slices.IndexFunc(d.attempts, func(a attempt) bool { return a.branch == m.branch })
}

// refusedAll takes a refusal of the INVITE and reports whether no attempt is left: a proxy that forks it goes on with
// the others, and tells its caller of the end only.
func (d *dialog) refusedAll(m *message) bool {
	if i := d.attemptOf(m); i >= 0 {
		d.attempts = slices.Delete(d.attempts, i, i+1)
		return len(d.attempts) == 0
	}
	return len(d.attempts) == 0
}

// cancelledAll likewise for a CANCEL, which has the branch of the INVITE that it cancels (RFC 3261, 9.1).
func (d *dialog) cancelledAll(m *message) bool {
	if i := d.attemptOf(m); i >= 0 {
		d.attempts[i].cancelled = true
		return !slices.ContainsFunc(d.attempts, func(a attempt) bool { return !a.cancelled })
	}
	return len(d.attempts) == 0
}

// triedAgain reports whether m is a new attempt of d's caller after d was refused: with the same Call-ID and From tag
// (RFC 3261, 8.1.3.4 and 8.1.3.5).
func (d *dialog) triedAgain(m *message) bool {
	return m.status == 0 && m.method == "INVITE" && m.toTag == "" && m.cseq > d.cseq && d.phase == terminated && d.answered == 0
}

// repeated notes m and reports whether d has had it before, and whether that was at another hop between proxies rather
// than the same packet once more.
func (d *dialog) repeated(m *message, from side) (again, hop bool) {
	h := newDigest().text(m.method).text(m.toTag).number(uint64(from)<<56 | uint64(m.status)<<32 | uint64(m.cseq))
	if m.method == "INVITE" && m.status > 100 && m.status < 200 { // a later one may say something new
		h = h.text(string(m.Body()))
	}
	if m.method == "CANCEL" || m.method == "INVITE" && m.status >= 300 { // each hop's says something of its own
		h = h.text(m.branch)
	}
	exact := h.text(m.branch)
	again = slices.Contains(d.seen[:], h)
	hop = again && !slices.Contains(d.seen[:], exact)
	for _, x := range [...]digest{h, exact} {
		if !slices.Contains(d.seen[:], x) {
			d.seen[d.seenN%len(d.seen)] = x
			d.seenN++
		}
	}
	return again, hop
}

// digest is FNV-1a, for recognizing what was seen before.
type digest uint64

func newDigest() digest { return 14695981039346656037 }

func (h digest) text(s string) digest {
	for i := range len(s) {
		h = (h ^ digest(s[i])) * 1099511628211
	}
	return (h ^ 0xff) * 1099511628211
}

func (h digest) number(n uint64) digest { return (h ^ digest(n)) * 1099511628211 }
