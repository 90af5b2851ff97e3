package siprec

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"strconv"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
)

// Timers of RFC 3261, table 4.
const (
	timerT1   = 500 * time.Millisecond
	timerT2   = 4 * time.Second
	lifetime  = 64 * timerT1 // of a transaction: timers B, F, H and J
	maxCached = 8192         // transactions whose response is kept, so that a retransmitted request gets it again
	maxRepeat = 512          // refused INVITEs whose response is repeated unasked (timer G); beyond, when the INVITE is
)

// transaction is a request that was answered, and its response, for those who ask again (RFC 3261, 17.2).
type transaction struct {
	key      string
	response []byte
	path     path
	to       netip.AddrPort
	ended    time.Time    // when it may be forgotten
	session  *session     // of an accepted INVITE
	repeat   *alarm.Alarm // of its response, until the ACK
	wait     time.Duration
	refused  bool // counts in repeats
	place    *list.Element
}

// transactions are the latest ones, bounded in time and number.
type transactions struct {
	byKey   map[string]*transaction
	order   *list.List // oldest first
	repeats int        // refused INVITEs that are being repeated
}

func newTransactions() transactions {
	return transactions{byKey: map[string]*transaction{}, order: list.New()}
}

// add keeps tx; shed is the oldest one if there was no room for it.
func (t *transactions) add(tx *transaction) (shed *transaction) {
	if t.order.Len() >= maxCached {
		shed = t.order.Front().Value.(*transaction)
		t.remove(shed)
	}
	t.byKey[tx.key] = tx
	tx.place = t.order.PushBack(tx)
	return shed
}

func (t *transactions) remove(tx *transaction) {
	if tx.place != nil {
		t.order.Remove(tx.place)
		tx.place = nil
		delete(t.byKey, tx.key)
	}
}

// expired takes out one transaction that is over, nil when there is none.
func (t *transactions) expired(now time.Time) *transaction {
	front := t.order.Front()
	if front == nil || front.Value.(*transaction).ended.After(now) {
		return nil
	}
	tx := front.Value.(*transaction)
	t.remove(tx)
	return tx
}

// answer sends a response to m and keeps it.
func (e *engine) answer(m *message, r reply, now time.Time) *transaction {
	if r.tag == "" {
		r.tag = newToken()
	}
	tx := &transaction{key: m.key(m.method), response: r.bytes(m), path: m.path, to: m.replyTo(), ended: now.Add(lifetime)}
	if shed := e.tx.add(tx); shed != nil {
		e.quiet(shed)
		e.out.Count(CountShedTransactions, 1)
	}
	tx.send()
	return tx
}

func (t *transaction) send() { t.path.via.send(t.response, t.to) }

// decline answers without remembering it, so that a flood takes no room: whoever asks again is answered again, alike
// (RFC 3261, 8.2.7). The refusal of an INVITE over UDP is repeated until its ACK (timers G and H) where there are not
// many of them.
func (e *engine) decline(m *message, r reply, now time.Time) {
	if r.tag == "" {
		r.tag = strconv.FormatUint(maphash.String(e.seed, m.callID+"\x00"+m.fromTag+"\x00"+m.branch), 36)
	}
	if m.method != "INVITE" || m.path.reliable() || e.tx.repeats >= maxRepeat {
		m.path.via.send(r.bytes(m), m.replyTo())
		return
	}
	tx := e.answer(m, r, now)
	tx.refused = true
	e.tx.repeats++
	e.repeatLater(tx, timerT1, now)
}

// repeatLater sends the response again after wait, twice that, and so on, until quiet.
func (e *engine) repeatLater(tx *transaction, wait time.Duration, now time.Time) {
	tx.wait = wait
	tx.repeat = e.timers.Set(now.Add(wait), func(now time.Time) {
		if !now.Before(tx.ended) {
			e.tx.remove(tx)
			e.over(tx, now)
			return
		}
		tx.send()
		e.repeatLater(tx, min(2*wait, timerT2), now)
	})
}

// quiet stops repeating.
func (e *engine) quiet(tx *transaction) {
	e.timers.Stop(tx.repeat)
	tx.repeat = nil
	if tx.refused {
		tx.refused = false
		e.tx.repeats--
	}
}

// forget takes out transactions that are over.
func (e *engine) forget(now time.Time) {
	for tx := e.tx.expired(now); tx != nil; tx = e.tx.expired(now) {
		e.over(tx, now)
	}
}

// over ends a transaction: an accepted INVITE whose answer is still being repeated then was never acknowledged.
func (e *engine) over(tx *transaction, now time.Time) {
	open := tx.session != nil && tx.session.accepted == tx
	e.quiet(tx)
	if open {
		tx.session.accepted = nil
		e.unacknowledged(tx.session, now)
	}
}

// asking is a request of ours that waits for its response (RFC 3261, 17.1.2).
type asking struct {
	request []byte
	branch  string
	path    path
	to      netip.AddrPort
	until   time.Time
	timer   *alarm.Alarm
	done    func(code int, now time.Time) // code 0: nobody answered
}

// ask sends a request inside the session's dialog. done is called once, with the final response's code.
func (e *engine) ask(d *dialog, method string, headers []string, now time.Time, done func(code int, now time.Time)) {
	d.localSeq++
	a := &asking{branch: "z9hG4bK" + newToken(), path: d.path, to: d.next, until: now.Add(lifetime), done: done}
	a.request = d.request(method, a.branch, headers)
	if len(e.asking) >= 2*e.cfg.MaxSessions+16 {
		e.out.Count(CountShedTransactions, 1)
		done(0, now)
		return
	}
	e.asking[a.branch] = a
	a.path.via.send(a.request, a.to)
	e.askAgain(a, timerT1, now)
}

// askAgain is timers E and F.
func (e *engine) askAgain(a *asking, wait time.Duration, now time.Time) {
	a.timer = e.timers.Set(now.Add(wait), func(now time.Time) {
		if !now.Before(a.until) {
			e.answered(a, 0, now)
			return
		}
		if !a.path.reliable() {
			a.path.via.send(a.request, a.to)
		}
		e.askAgain(a, min(2*wait, timerT2), now)
	})
}

func (e *engine) answered(a *asking, code int, now time.Time) {
	e.timers.Stop(a.timer)
	delete(e.asking, a.branch)
	if a.done != nil {
		a.done(code, now)
	}
}

// response is one to a request of ours. It counts only from where the request went.
func (e *engine) response(m *message, now time.Time) {
	a := e.asking[m.branch]
	if a == nil || m.path.src.Addr() != a.to.Addr() {
		e.out.Count(CountStrayResponses, 1)
		return
	}
	if m.res.StatusCode >= 200 {
		e.answered(a, m.res.StatusCode, now)
	}
}
