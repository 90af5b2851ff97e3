package siprec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	shortest = 90 * time.Second // session interval (RFC 4028, 5)
	minSE    = "Min-SE: 90"
	// probeTime is how long a session without a session timer may be silent, in signalling and media, before its client
	// is asked whether it is still there.
	probeTime = 5 * time.Minute
)

// refresher is who keeps a session alive, and how often (RFC 4028). No interval: nobody said.
type refresher struct {
	interval time.Duration
	theirs   bool // the client refreshes
}

func (r refresher) header() string {
	who := "uas"
	if r.theirs {
		who = "uac"
	}
	return fmt.Sprintf("Session-Expires: %d;refresher=%s", int(r.interval/time.Second), who)
}

// sessionTimer reads Session-Expires. A client that knows session timers refreshes unless it wants us to.
func sessionTimer(m *message) (r refresher, tooShort bool) {
	value, params, _ := strings.Cut(m.header("session-expires", "x"), ";")
	n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	if err != nil {
		return r, false
	}
	r.interval = time.Duration(min(n, 86400)) * time.Second
	r.theirs = slices.Contains(m.tokens("supported", "k", "require"), "timer") &&
		!strings.Contains(strings.ToLower(params), "refresher=uas")
	return r, r.interval < shortest
}

// keepAlive arms what notices a dead client: the session timer, or, where there is none, a question after a silence.
func (e *engine) keepAlive(s *session, r refresher, now time.Time) {
	e.timers.Stop(s.expiry)
	e.timers.Stop(s.refresh)
	if r.interval == 0 {
		s.expiry = e.timers.Set(now.Add(probeTime), func(now time.Time) { e.probe(s, now) })
		return
	}
	margin := min(32*time.Second, r.interval/3) // RFC 4028, 10
	s.expiry = e.timers.Set(now.Add(r.interval-margin), func(now time.Time) { e.dead(s, "session timer expired", now) })
	if !r.theirs {
		s.refresh = e.timers.Set(now.Add(r.interval/2), func(now time.Time) { e.renew(s, r, now) })
	}
}

// renew refreshes a session by UPDATE, or asks the client by OPTIONS when it takes none. Any answer but that there is
// no such dialog shows that it is there.
func (e *engine) renew(s *session, r refresher, now time.Time) {
	method, headers := "OPTIONS", []string{supported}
	if s.update {
		method, headers = "UPDATE", []string{supported, fmt.Sprintf("Session-Expires: %d;refresher=uac", int(r.interval/time.Second)), contact(s.d.path)}
	}
	e.ask(&s.d, method, headers, now, func(code int, now time.Time) {
		switch {
		case s.over:
		case code == 0 || code == 408 || code == 481:
			e.dead(s, "refresh not answered", now)
		default:
			e.keepAlive(s, r, now)
		}
	})
}

// probe asks after a silence.
func (e *engine) probe(s *session, now time.Time) {
	last := s.active
	for _, st := range s.streams {
		if st.r != nil {
			last = max(last, st.r.lastHeard())
		}
	}
	if quiet := last.Std().Add(probeTime); quiet.After(now) {
		s.expiry = e.timers.Set(quiet, func(now time.Time) { e.probe(s, now) })
		return
	}
	e.ask(&s.d, "OPTIONS", []string{supported}, now, func(code int, now time.Time) {
		switch {
		case s.over:
		case code == 0 || code == 408 || code == 481:
			e.dead(s, "client does not answer", now)
		default:
			s.active = call.At(now)
			e.keepAlive(s, refresher{}, now)
		}
	})
}

// unacknowledged ends a session whose 200 was never acknowledged (RFC 3261, 13.3.1.4).
func (e *engine) unacknowledged(s *session, now time.Time) {
	e.out.Count(CountNoACK, 1)
	if s.confirmed { // of a change
		e.dead(s, "ACK missing", now)
		return
	}
	e.bye(s, now)
	e.end(s, ending{at: call.At(now)})
}

// dead ends a session whose client is gone: what became of the call is not known.
func (e *engine) dead(s *session, why string, now time.Time) {
	if s.over {
		return
	}
	e.out.Count(CountDeadSessions, 1)
	e.log.Warn("a recording session is ended", "call_id", s.d.callID, "reason", why, "client", s.d.path.src.String())
	e.bye(s, now)
	at := call.At(now)
	e.end(s, ending{frame: core.Frame{Type: "SIPREC timeout", Received: at}, at: at, clear: true, synthetic: true,
		native: call.Native{Type: "SIPREC timeout", ID: s.d.callID + "/timeout"}})
}

// bye tells the client that the session is over; nothing hangs on its answer.
func (e *engine) bye(s *session, now time.Time) {
	e.ask(&s.d, "BYE", nil, now, func(int, time.Time) {})
}

// ending says how a session ends.
type ending struct {
	frame     core.Frame // to carry the observations
	native    call.Native
	at        call.Time
	clear     bool // the call is over too
	synthetic bool // for all that is known
}

// end frees all that a session holds, reports its streams and clears its legs.
func (e *engine) end(s *session, how ending) {
	if s.over {
		return
	}
	s.over = true
	for _, t := range []*alarm.Alarm{s.quality, s.expiry, s.refresh} {
		e.timers.Stop(t)
	}
	if s.accepted != nil {
		e.quiet(s.accepted)
	}
	s.finish()
	for _, st := range s.streams {
		e.close(s, st, how.at)
	}
	delete(e.sessions, s.d.callID)
	s.use(-1)
	e.hearLast()
	if !s.confirmed {
		return
	}
	how.frame.Observations = s.reported(how.frame.Received)
	oneWay(how.frame.Observations)
	if how.clear {
		for _, l := range s.legs {
			how.frame.Observations = append(how.frame.Observations, s.cleared(l, how)...)
		}
	}
	e.frame(how.frame)
}

// finish lets all streams read what has come.
func (s *session) finish() {
	for _, st := range s.streams {
		if st.r != nil {
			st.r.finish()
		}
	}
}

// hearLast takes the digits that streams handed over while they ended.
func (e *engine) hearLast() {
	for {
		select {
		case d := <-e.digits:
			e.digit(d)
		default:
			return
		}
	}
}

// interval reports the streams of a session.
func (e *engine) interval(s *session, now time.Time) {
	s.quality = e.timers.Set(now.Add(e.cfg.QualityInterval), func(now time.Time) { e.interval(s, now) })
	if !s.confirmed {
		return
	}
	at := call.At(now)
	var obs []call.Observation
	for _, st := range s.streams {
		if o, ok := e.report(s, st, at, false); ok {
			o.Received = at
			obs = append(obs, o)
		}
	}
	oneWay(obs)
	if len(obs) > 0 {
		e.frame(core.Frame{Type: "SIPREC RTP", Received: at, Observations: obs})
	}
}

// leave ends all sessions as the server stops. The recorded calls go on, so nothing is cleared.
func (e *engine) leave(now time.Time) {
	at := call.At(now)
	for _, s := range e.sessions {
		s.finish()
	}
	for _, s := range e.sessions {
		e.bye(s, now)
		e.end(s, ending{frame: core.Frame{Type: "SIPREC stop", Received: at}, at: at})
	}
}
