package dialoginfo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Timers of RFC 3261, table 4, and our own.
const (
	timerT1 = 500 * time.Millisecond
	timerT2 = 4 * time.Second
	timerF  = 64 * timerT1 // of a transaction; also RFC 6665's N, for the first NOTIFY

	aliveInterval   = 30 * time.Second // of OPTIONS, when nothing else comes
	leaveTime       = time.Second      // for taking back the subscriptions at the end
	refusedInterval = time.Hour        // after which a resource that was refused for good is tried again
	missingDelay    = time.Second      // in which changes of what is missing are gathered
	maxMissing      = 20               // resources named in Missing
)

// Counters of a session.
const (
	countUnknownResponse = "responses_unmatched"
	countOutOfDialog     = "notify_out_of_dialog"
	countRetransmitted   = "notify_retransmitted"
	countOutOfOrder      = "notify_out_of_order"
	countVersionGaps     = "dialog_info_version_gaps"
	countRefused         = "subscriptions_refused"
	countFailed          = "subscriptions_failed"
	countRenewed         = "subscriptions_renewed"
	countMalformed       = "sip_malformed"
)

// session is one Run. One goroutine owns all of it.
type session struct {
	c      *Client
	k      *conn
	outbox *outbox
	now    time.Time // of what is being handled
	timers alarm.Alarms

	subs     []*subscription
	byCall   map[string]*subscription
	tx       map[string]*transaction // by branch
	ready    []*subscription         // that wait for their turn to ask
	next     time.Time               // when one may ask
	turn     *alarm.Alarm
	via      string
	contact  string
	auth     [2]*challenge // of the server, and of a proxy before it
	password string

	heard      time.Time // when the PBX last said anything
	optionsOK  bool      // it answers OPTIONS, so it must go on doing so
	up         bool
	refusals   int // of the login
	leaving    bool
	waiting    int // resources whose snapshot is not done
	complete   bool
	missing    *alarm.Alarm
	fatal      error
	pbx        string // Server or User-Agent of the PBX
	snapshotID string
}

func newSession(c *Client, k *conn, out core.Emitter) *session {
	s := &session{
		c: c, k: k, outbox: newOutbox(out), now: time.Now(),
		byCall: map[string]*subscription{}, tx: map[string]*transaction{}, waiting: len(c.uris), snapshotID: token(),
	}
	user := c.cfg.Username
	if user == "" {
		user = userAgent
	}
	s.via, s.contact = localParts(k.LocalAddr(), user, c.srv.transport)
	s.heard = s.now
	return s
}

// run is the session until ctx or the connection ends.
func (s *session) run(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	clock := time.NewTimer(0)
	defer clock.Stop()
	over := ctx.Done()
	for s.fatal == nil {
		s.arm(clock)
		select {
		case m, ok := <-s.k.in:
			s.now = time.Now()
			if !ok {
				return s.k.cause()
			}
			s.handle(m)
		case <-clock.C:
			s.now = time.Now()
			for s.fatal == nil && s.timers.Ring(s.now) {
			}
		case <-s.outbox.done:
			return fmt.Errorf("handing over: %w", s.outbox.err)
		case <-over:
			s.now, over = time.Now(), nil
			s.leave()
		}
	}
	return s.fatal
}

// arm sets clock to the first timer.
func (s *session) arm(clock *time.Timer) {
	at, ok := s.timers.Next()
	if !ok {
		clock.Stop()
		return
	}
	clock.Reset(max(0, time.Until(at)))
}

// begin asks for all resources, in an order of chance: two gateways do not walk side by side.
func (s *session) begin() (err error) {
	if s.password, err = s.c.cfg.Password.Reveal(); err != nil {
		return core.Permanent(fmt.Errorf("subscribing: password: %w", err))
	}
	for _, u := range s.c.uris {
		sub := &subscription{uri: u, expires: s.c.cfg.Expires}
		s.subs = append(s.subs, sub)
	}
	for _, i := range rand.Perm(len(s.subs)) {
		s.enqueue(s.subs[i])
	}
	s.timers.Set(s.now.Add(aliveInterval), func(time.Time) { s.alive() })
	return nil
}

// leave hands over what has arrived, takes back the subscriptions without insisting, and ends the session soon.
func (s *session) leave() {
	for range len(s.k.in) {
		m, ok := <-s.k.in
		if !ok {
			break
		}
		s.handle(m)
	}
	s.leaving, s.ready = true, nil
	s.timers.Set(s.now.Add(leaveTime), func(time.Time) { s.fatal = context.Canceled })
	for _, sub := range s.subs {
		s.timers.Stop(sub.timer)
		if sub.active {
			s.ready = append(s.ready, sub)
		}
	}
	s.next = s.now
	s.proceed()
}

// enqueue puts sub into the line of those that ask.
func (s *session) enqueue(sub *subscription) {
	if s.leaving || sub.queued || sub.asking {
		return
	}
	s.timers.Stop(sub.timer)
	sub.queued = true
	s.ready = append(s.ready, sub)
	s.proceed()
}

// proceed lets the next in line ask, at the configured rate and no more of them at once than configured.
func (s *session) proceed() {
	for len(s.ready) > 0 && len(s.tx) < s.c.cfg.InFlight && s.fatal == nil {
		if wait := s.next.Sub(s.now); wait > 0 && !s.leaving {
			s.timers.Stop(s.turn)
			s.turn = s.timers.Set(s.next, func(time.Time) { s.proceed() })
			return
		}
		sub := s.ready[0]
		s.ready[0], s.ready = nil, s.ready[1:]
		sub.queued = false
		s.next = s.now.Add(jitter(time.Second/time.Duration(s.c.cfg.Rate), 0.5))
		s.subscribe(sub)
	}
	if s.leaving && len(s.ready) == 0 && len(s.tx) == 0 {
		s.fatal = context.Canceled
	}
}

// jitter is d give or take a share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 + share*(2*rand.Float64()-1)))
}

// handle takes one message of the PBX.
func (s *session) handle(m message) {
	parsed, err := sip.ParseMessage(m.raw)
	if err != nil {
		s.outbox.out.Count(countMalformed, 1)
		s.deadLetter(m, fmt.Errorf("reading SIP message: %w", err))
		return
	}
	s.heard = s.now
	switch x := parsed.(type) {
	case *sip.Response:
		s.response(x)
	case *sip.Request:
		s.request(x, m)
	}
}

func (s *session) deadLetter(m message, reason error) {
	s.outbox.put(func(out core.Emitter) error {
		return out.DeadLetter(core.DeadLetter{Raw: m.raw, Reason: reason.Error(), Received: m.received})
	})
}

func (s *session) frame(f core.Frame) {
	s.outbox.put(func(out core.Emitter) error { return out.Frame(f) })
}

func (s *session) gap(reason string) {
	s.outbox.put(func(out core.Emitter) error { return out.Gap(reason, 0) })
}

// alive asks a silent PBX whether it is there. One that has never answered OPTIONS is not held to it.
func (s *session) alive() {
	s.timers.Set(s.now.Add(jitter(aliveInterval, 0.1)), func(time.Time) { s.alive() })
	if s.now.Sub(s.heard) >= aliveInterval-time.Second && !s.leaving {
		s.options()
	}
}

// accepted says Up with the first subscription that is accepted.
func (s *session) accepted() {
	if s.up {
		return
	}
	s.up = true
	inst := core.Instance{Kind: Kind, ID: s.c.srv.addr, Version: s.pbx, Missing: s.missingNow()}
	s.outbox.put(func(out core.Emitter) error { return out.Up(inst) })
}

// missingNow is what cannot be seen, in words.
func (s *session) missingNow() []string {
	var out []string
	more := 0
	for _, sub := range s.subs {
		switch {
		case sub.refused == "":
		case len(out) < maxMissing:
			out = append(out, fmt.Sprintf("dialogs of %s: %s", sub.uri, sub.refused))
		default:
			more++
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("dialogs of %d more resources", more))
	}
	return out
}

// tellMissing reports what is missing, once for all that changes within missingDelay.
func (s *session) tellMissing() {
	if !s.up || s.missing != nil {
		return
	}
	s.missing = s.timers.Set(s.now.Add(missingDelay), func(time.Time) {
		s.missing = nil
		what := s.missingNow()
		s.outbox.put(func(out core.Emitter) error { return out.Missing(what) })
	})
}

// settled notes that sub's part of the snapshot is done, or given up. After the last one the snapshot is complete.
func (s *session) settled(sub *subscription) {
	if sub.settled {
		return
	}
	sub.settled = true
	if s.waiting--; s.waiting > 0 || s.complete {
		return
	}
	s.complete = true
	if !s.up {
		s.giveUp()
		return
	}
	seen := 0
	for _, x := range s.subs {
		if x.notified {
			seen++
		} else {
			s.c.norm.drop(x.uri)
		}
	}
	at := call.At(s.now)
	o := call.Observation{Kind: call.SnapshotEnd, At: at, Received: at, Synthetic: true}
	o.Native = call.Native{Type: "snapshot", ID: "snapshot:" + s.snapshotID}
	raw := fmt.Appendf(nil, `{"resources":%d,"seen":%d}`, len(s.subs), seen)
	s.frame(core.Frame{Type: "snapshot", Raw: raw, Received: at, Observations: []call.Observation{o}})
}

// giveUp ends a session in which nothing was accepted.
func (s *session) giveUp() {
	var why []string
	permanent := true
	for _, sub := range s.subs {
		permanent = permanent && sub.refused != ""
		if len(why) < 3 {
			why = append(why, sub.uri+": "+sub.last)
		}
	}
	err := fmt.Errorf("subscribing at %s: none of %d resources was accepted (%s): check resources, and that the PBX offers the dialog event package",
		s.c.srv.addr, len(s.subs), strings.Join(why, "; "))
	if permanent {
		err = core.Permanent(err)
	}
	s.fatal = err
}

// errSilent ends a session whose PBX does not answer.
func (s *session) errSilent() error {
	return fmt.Errorf("the PBX at %s has not answered for %v: check server, transport and the firewall", s.c.srv.addr, timerF)
}

var errCredentials = errors.New("the PBX refuses username and password")
