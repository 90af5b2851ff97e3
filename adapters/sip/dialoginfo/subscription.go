package dialoginfo

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// subscription is what there is about one resource: its SIP dialog with the PBX, and how far it has come.
type subscription struct {
	uri     string
	expires time.Duration // to ask for

	callID, fromTag, toTag string // of the dialog; empty for none
	target                 string
	routes                 []string
	seq                    uint32 // our last CSeq
	remote                 uint32 // the PBX's last
	hasRemote              bool

	queued, asking bool
	active         bool // accepted
	told           bool // a NOTIFY of this subscription has come
	fresh          bool // no document of this subscription has come yet
	lasts          time.Duration
	version        uint32
	made           time.Time    // when this subscription was first asked for
	short          int          // subscriptions in a row that the PBX ended soon
	refetched      time.Time    // when the whole state was last asked for
	notified       bool         // a document has come in this session
	settled        bool         // its part of the session's snapshot is done, or given up
	refused        string       // why it is refused for good; empty when it is not
	last           string       // why it failed last
	failures       int          // in a row
	timer          *alarm.Alarm // when to ask again, or to give up waiting for a NOTIFY
}

// Pauses after failures.
const (
	retryFirst = 5 * time.Second
	retryMost  = 5 * time.Minute
	probation  = 30 * time.Second // where the PBX names no time

	refetchPause = 30 * time.Second // between two requests for the whole state
)

// subscribe asks for a subscription, its refreshing, or, at the end, to take it back.
func (s *session) subscribe(sub *subscription) {
	if sub.callID == "" {
		sub.callID, sub.fromTag, sub.toTag = token()+"@"+userAgent, token(), ""
		sub.target, sub.routes, sub.seq, sub.hasRemote, sub.told, sub.fresh = sub.uri, nil, 0, false, false, true
		sub.made = s.now
		s.byCall[sub.callID] = sub
	}
	a := ask{method: "SUBSCRIBE", expires: sub.expires}
	if s.leaving {
		a.expires = 0
	}
	s.askFor(sub, a, 0)
}

// askFor sends a in sub's dialog, with the number of challenges answered so far.
func (s *session) askFor(sub *subscription, a ask, tries int) {
	sub.seq++
	a.uri, a.to, a.toTag, a.routes = sub.target, sub.uri, sub.toTag, sub.routes
	a.from, a.fromTag, a.callID, a.seq = s.c.cfg.identity(s.c.srv.host), sub.fromTag, sub.callID, sub.seq
	sub.asking = true
	s.send(&transaction{ask: a, sub: sub, tries: tries, bye: s.leaving})
}

// answered takes the final response to a SUBSCRIBE.
func (s *session) answered(t *transaction, r *sip.Response) {
	sub, code := t.sub, r.StatusCode
	why := fmt.Sprintf("%d %s", code, clip(r.Reason))
	switch {
	case t.ask.callID != sub.callID: // of a subscription that a NOTIFY has ended meanwhile
	case t.bye:
		s.proveBye(t, r)
	case code < 300:
		s.granted(sub, r)
	case code == 401 || code == 407:
		s.prove(t, r)
	case code == 423:
		s.lengthen(sub, r, why)
	case code == 481 && sub.toTag != "":
		s.outbox.out.Count(countRenewed, 1)
		s.renew(sub, 0)
	case forGood(code):
		s.refuse(sub, why)
	default:
		after, _ := seconds(header(r, "Retry-After"))
		s.failed(sub, why, after)
	}
}

// clip shortens what a peer says before it stands in a message of ours.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "?") }

// forGood says which responses trying again soon does not change.
func forGood(code int) bool {
	switch code {
	case 300, 301, 302, 305, 400, 403, 404, 405, 406, 410, 414, 415, 416, 420, 484, 485, 488, 489, 501, 505, 600, 603, 604, 606:
		return true
	}
	return false
}

// granted takes a 2xx.
func (s *session) granted(sub *subscription, r *sip.Response) {
	sub.active, sub.failures, sub.last = true, 0, ""
	if sub.refused != "" {
		sub.refused = ""
		s.tellMissing()
	}
	if to := r.To(); to != nil && sub.toTag == "" {
		sub.toTag, _ = to.Params.Get("tag")
		sub.routes = routesOf(r, true)
	}
	if c := contactOf(r.Contact()); c != "" {
		sub.target = c
	}
	lasts, ok := seconds(header(r, "Expires"))
	if !ok || lasts <= 0 || lasts > sub.expires {
		lasts = sub.expires
	}
	s.accepted()
	if sub.lasts = lasts; !sub.told {
		s.wait(sub, timerF, s.unnotified)
		return
	}
	s.refresh(sub, lasts)
}

// wait sets sub's timer.
func (s *session) wait(sub *subscription, d time.Duration, then func(*subscription)) {
	s.timers.Stop(sub.timer)
	if !s.leaving {
		sub.timer = s.timers.Set(s.now.Add(d), func(time.Time) { then(sub) })
	}
}

// refresh asks again before lasts is over.
func (s *session) refresh(sub *subscription, lasts time.Duration) {
	s.wait(sub, max(jitter(lasts*3/4, 0.1), time.Second), s.enqueue)
}

// unnotified ends a subscription that was accepted and whose first NOTIFY never came (RFC 6665, 4.1.2.4).
func (s *session) unnotified(sub *subscription) {
	s.forget(sub)
	s.failed(sub, "accepted, but no NOTIFY came", 0)
}

// maxRefusals is how many resources a login may be refused for, before any was accepted, until it counts as wrong: more
// tries could lock it.
const maxRefusals = 3

// prove answers a challenge, or gives up.
func (s *session) prove(t *transaction, r *sip.Response) {
	if !s.challenged(t, r) {
		if s.refusals++; !s.up && s.refusals >= min(maxRefusals, len(s.subs)) {
			s.fatal = core.Permanent(fmt.Errorf("subscribing at %s: %w: %d %s to %s: correct username and password, or give them", s.c.srv.addr, errCredentials, r.StatusCode, clip(r.Reason), t.sub.uri))
			return
		}
		s.refuse(t.sub, "the PBX refuses username and password")
		return
	}
	s.askProved(t, r)
}

// proveBye answers a challenge to what takes a subscription back: the nonce of a long session has often run out by then.
func (s *session) proveBye(t *transaction, r *sip.Response) {
	if (r.StatusCode == 401 || r.StatusCode == 407) && s.challenged(t, r) {
		s.askProved(t, r)
	}
}

// askProved asks again with an answer to the challenge r.
func (s *session) askProved(t *transaction, r *sip.Response) {
	a := t.ask
	for i, c := range s.auth {
		if c != nil && (i == 0) == (r.StatusCode == 401) {
			a.given[i] = c.nonce
		}
	}
	s.askFor(t.sub, a, t.tries)
}

// lengthen asks for the shortest time that the PBX grants.
func (s *session) lengthen(sub *subscription, r *sip.Response, why string) {
	least, ok := seconds(header(r, "Min-Expires"))
	if !ok || least <= sub.expires || least > 24*time.Hour {
		s.refuse(sub, why)
		return
	}
	sub.expires = least
	s.enqueue(sub)
}

// failed tries again later, for longer each time.
func (s *session) failed(sub *subscription, why string, after time.Duration) {
	s.outbox.out.Count(countFailed, 1)
	sub.last = why
	pause := retryMost
	if sub.failures < 10 {
		pause = min(retryFirst<<sub.failures, retryMost)
	}
	sub.failures++
	s.wait(sub, max(min(after, time.Hour), jitter(pause, 0.2)), s.enqueue)
	s.settled(sub)
}

// refuse gives a resource up, for an hour.
func (s *session) refuse(sub *subscription, why string) {
	s.outbox.out.Count(countRefused, 1)
	s.c.log.Warn("a resource cannot be watched", "resource", sub.uri, "why", why)
	sub.refused, sub.last = why, why
	s.forget(sub)
	if sub.notified {
		at := call.At(s.now)
		if obs := s.c.norm.lost(sub.uri, at, call.Native{Type: "refused", ID: sub.uri + "/" + at.String()}); len(obs) > 0 {
			s.frame(core.Frame{Type: "refused", Received: at, Observations: obs})
		}
		sub.notified = false
	}
	s.wait(sub, jitter(refusedInterval, 0.1), s.enqueue)
	s.settled(sub)
	s.tellMissing()
}

// forget drops sub's dialog with the PBX. A request that is under way in it is answered to nobody.
func (s *session) forget(sub *subscription) {
	delete(s.byCall, sub.callID)
	sub.callID, sub.active, sub.asking = "", false, false
}

// renew begins another subscription after a pause.
func (s *session) renew(sub *subscription, after time.Duration) {
	s.forget(sub)
	if after <= 0 {
		s.timers.Stop(sub.timer)
		s.enqueue(sub)
		return
	}
	s.wait(sub, min(after, time.Hour), s.enqueue)
}

// request takes a request of the PBX.
func (s *session) request(r *sip.Request, m message) {
	switch string(r.Method) {
	case "NOTIFY":
		s.notify(r, m)
	case "OPTIONS":
		s.k.send(reply(r, 200, "OK", token(), "Allow: NOTIFY, OPTIONS\r\n"))
	case "ACK":
	default:
		s.k.send(reply(r, 405, "Method Not Allowed", token(), "Allow: NOTIFY, OPTIONS\r\n"))
	}
}

// notify takes a NOTIFY: it is answered at once, and taken in the order of CSeq.
func (s *session) notify(r *sip.Request, m message) {
	sub := s.subscriptionOf(r)
	if sub == nil {
		s.outbox.out.Count(countOutOfDialog, 1)
		s.k.send(reply(r, 481, "Subscription does not exist", token(), ""))
		return
	}
	if event, _ := params(header(r, "Event", "o")); event != "dialog" {
		s.k.send(reply(r, 489, "Bad Event", token(), ""))
		return
	}
	seq := r.CSeq().SeqNo
	if sub.hasRemote && seq <= sub.remote {
		if seq == sub.remote {
			s.outbox.out.Count(countRetransmitted, 1)
			s.k.send(reply(r, 200, "OK", sub.fromTag, ""))
			return
		}
		s.outbox.out.Count(countOutOfOrder, 1)
		s.k.send(reply(r, 500, "CSeq is out of order", sub.fromTag, "")) // RFC 3261, 12.2.2
		return
	}
	sub.remote, sub.hasRemote = seq, true
	s.k.send(reply(r, 200, "OK", sub.fromTag, ""))
	if c := contactOf(r.Contact()); c != "" {
		sub.target = c
	}
	if !sub.told && sub.active {
		s.refresh(sub, sub.lasts)
	}
	sub.told = true
	if state, _ := params(header(r, "Subscription-State")); state != "terminated" {
		s.accepted()
	}
	s.document(sub, r, m)
	s.state(sub, header(r, "Subscription-State"))
}

// subscriptionOf is what a NOTIFY is about. It may come before the 2xx that tells the PBX's tag.
func (s *session) subscriptionOf(r *sip.Request) *subscription {
	id, from, to, seq := r.CallID(), r.From(), r.To(), r.CSeq()
	if id == nil || from == nil || to == nil || seq == nil {
		return nil
	}
	sub := s.byCall[id.Value()]
	ours, _ := to.Params.Get("tag")
	theirs, _ := from.Params.Get("tag")
	if sub == nil || ours != sub.fromTag || theirs == "" {
		return nil
	}
	if sub.toTag == "" {
		sub.toTag, sub.routes = theirs, routesOf(r, false)
	}
	if theirs != sub.toTag {
		return nil
	}
	return sub
}

// document takes what a NOTIFY says of the resource.
func (s *session) document(sub *subscription, r *sip.Request, m message) {
	body := r.Body()
	if len(strings.TrimSpace(string(body))) == 0 {
		s.frame(core.Frame{Type: "NOTIFY", Raw: m.raw, Received: m.received})
		s.settled(sub) // it is allowed to say nothing, of a subscription that waits for somebody's consent for one
		return
	}
	info, err := Parse(body)
	if err != nil {
		s.deadLetter(m, fmt.Errorf("in a NOTIFY about %s: %w", sub.uri, err))
		s.settled(sub) // the others' snapshot does not wait for it
		return
	}
	f := core.Frame{Type: "NOTIFY", Raw: m.raw, Received: m.received}
	s.current(sub, info)
	f.Observations = s.c.norm.document(sub.uri, info, s.how(sub), m.received, call.Native{Type: "NOTIFY", ID: sub.callID + "/" + strconv.FormatUint(uint64(sub.remote), 10)})
	sub.fresh, sub.notified, sub.version = false, true, info.Version
	s.frame(f)
	s.settled(sub)
}

// current notes a document's version (RFC 4235, 4.1). A hole in the versions of changes is reported, and the whole state
// asked for, as it is when changes come first. All are taken all the same: CSeq has told old from new, some PBXs give
// every document the same version, and some never send the whole state.
func (s *session) current(sub *subscription, info *Info) {
	gap := !info.Full && !sub.fresh && info.Version > sub.version+1
	if gap {
		s.outbox.out.Count(countVersionGaps, 1)
		s.gap(fmt.Sprintf("%d documents about %s were lost", info.Version-sub.version-1, sub.uri))
	}
	if (gap || sub.fresh && !info.Full) && s.now.Sub(sub.refetched) > refetchPause {
		sub.refetched = s.now
		s.enqueue(sub)
	}
}

// how says what the next document of sub is: the resource's first in this session, the first of another subscription, or
// what has changed.
func (s *session) how(sub *subscription) how {
	switch {
	case !sub.notified && !s.complete:
		return snapshot
	case sub.fresh || !sub.notified:
		return resync
	}
	return live
}

// state takes the Subscription-State of a NOTIFY (RFC 6665, 4.1.3).
func (s *session) state(sub *subscription, value string) {
	state, p := params(value)
	if state != "terminated" {
		if lasts, ok := seconds(p["expires"]); ok && lasts > 0 {
			s.refresh(sub, min(lasts, sub.expires))
		}
		return
	}
	if s.leaving {
		s.forget(sub)
		return
	}
	after, _ := seconds(p["retry-after"])
	switch p["reason"] {
	case "rejected", "noresource", "invariant":
		s.refuse(sub, "the PBX ended the subscription: "+p["reason"])
	case "probation", "giveup":
		s.renew(sub, max(after, probation))
	default: // deactivated, timeout, or nothing said
		s.outbox.out.Count(countRenewed, 1)
		s.renew(sub, max(after, s.pause(sub)))
	}
}

// pause is how long to wait before a subscription that the PBX ended is made again: not at all, unless it had only just
// been made, and then longer each time.
func (s *session) pause(sub *subscription) time.Duration {
	if s.now.Sub(sub.made) > retryMost {
		sub.short = 0
	}
	sub.short++
	if sub.short == 1 {
		return 0
	}
	return jitter(min(retryFirst<<min(sub.short-2, 10), retryMost), 0.2)
}
