package dialoginfo

import (
	"net"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
)

// transaction is one request of ours that waits for its final response (RFC 3261, 17.1.2).
type transaction struct {
	ask   ask
	sub   *subscription // nil for OPTIONS
	raw   []byte
	wait  time.Duration // until the next retransmission
	began time.Time
	again *alarm.Alarm
	end   *alarm.Alarm
	proof [2]string // nonces it was authenticated with
	tries int       // challenges answered for this request
	bye   bool      // takes the subscription back
}

// send begins a transaction.
func (s *session) send(t *transaction) {
	t.ask.branch = "z9hG4bK" + token()
	t.ask.via, t.ask.contact, t.ask.transport = s.via, s.contact, strings.ToUpper(s.c.srv.transport)
	t.ask.authorization, t.proof = s.authorize(&t.ask)
	t.raw, t.began, t.wait = t.ask.bytes(), s.now, timerT1
	s.tx[t.ask.branch] = t
	t.end = s.timers.Set(s.now.Add(timerF), func(time.Time) { s.timeout(t) })
	if !s.k.stream {
		t.again = s.timers.Set(s.now.Add(t.wait), func(time.Time) { s.resend(t) })
	}
	s.k.send(t.raw)
}

// resend is timer E.
func (s *session) resend(t *transaction) {
	t.wait = min(2*t.wait, timerT2)
	t.again = s.timers.Set(s.now.Add(t.wait), func(time.Time) { s.resend(t) })
	s.k.send(t.raw)
}

func (s *session) finish(t *transaction) {
	s.timers.Stop(t.again)
	s.timers.Stop(t.end)
	delete(s.tx, t.ask.branch)
}

// timeout is timer F. A PBX from which nothing at all came meanwhile is gone.
func (s *session) timeout(t *transaction) {
	s.finish(t)
	silent := s.heard.Before(t.began) || !s.up && s.heard.Equal(t.began)
	switch {
	case t.sub == nil && silent && s.optionsOK, t.sub != nil && silent:
		s.fatal = s.errSilent()
	case t.sub != nil && t.ask.callID == t.sub.callID:
		t.sub.asking = false
		s.failed(t.sub, "no answer", 0)
	}
	s.proceed()
}

// response takes a response of the PBX.
func (s *session) response(r *sip.Response) {
	via, seq := r.Via(), r.CSeq()
	if via == nil || seq == nil {
		s.outbox.out.Count(countUnknownResponse, 1)
		return
	}
	branch, _ := via.Params.Get("branch")
	t := s.tx[branch]
	if t == nil || string(seq.MethodName) != t.ask.method || seq.SeqNo != t.ask.seq {
		s.outbox.out.Count(countUnknownResponse, 1) // also a final one that came again
		return
	}
	s.learnAddress(via)
	if r.StatusCode < 200 {
		t.wait = timerT2
		return
	}
	s.finish(t)
	if v := header(r, "Server", "User-Agent"); v != "" {
		s.pbx = v[:min(len(v), 200)]
	}
	if t.sub == nil {
		s.optionsOK = true
	} else {
		t.sub.asking = t.sub.asking && t.ask.callID != t.sub.callID
		s.answered(t, r)
	}
	s.proceed()
}

// learnAddress takes the address the PBX sees us at, behind a NAT another one than ours (RFC 3581), for the Contact of
// the requests to come.
func (s *session) learnAddress(via *sip.ViaHeader) {
	host, _ := via.Params.Get("received")
	port, _ := via.Params.Get("rport")
	ourHost, ourPort, _ := net.SplitHostPort(s.via)
	if host == "" || net.ParseIP(strings.Trim(host, "[]")) == nil {
		host = ourHost
	}
	if n, ok := seconds(port); !ok || n <= 0 || n > 65535*time.Second {
		port = ourPort
	}
	user, _, _ := strings.Cut(strings.TrimPrefix(s.contact, "sip:"), "@")
	s.contact = contactURI(user, net.JoinHostPort(strings.Trim(host, "[]"), port), s.c.srv.transport)
}

// authorize writes the headers that prove who we are, as far as the PBX has asked so far.
func (s *session) authorize(a *ask) (headers string, nonces [2]string) {
	for i, c := range s.auth {
		if c != nil {
			headers += c.answer(a.method, a.uri, s.c.cfg.Username, s.password)
			nonces[i] = c.nonce
		}
	}
	return headers, nonces
}

// challenged takes a 401 or 407 and reports whether the request is worth another try: not when the answer to this very
// challenge was refused.
func (s *session) challenged(t *transaction, r *sip.Response) bool {
	name, i := "WWW-Authenticate", 0
	if r.StatusCode == 407 {
		name, i = "Proxy-Authenticate", 1
	}
	var values []string
	for _, h := range r.GetHeaders(name) {
		values = append(values, h.Value())
	}
	c, ok := pick(values, i == 1)
	if !ok || s.c.cfg.Username == "" {
		return false
	}
	refused := t.proof[i] != "" && t.tries > 0 && !c.stale
	if refused && t.ask.authorization != "" && s.freshProof(t, i) {
		return false
	}
	if t.tries++; t.tries > 4 {
		return false
	}
	s.auth[i] = &c
	return true
}

// freshProof reports whether the request was proved with the challenge that it was given itself, rather than with an
// older one that may have run out.
func (s *session) freshProof(t *transaction, i int) bool { return t.proof[i] == t.ask.given[i] }

// options asks whether the PBX is alive.
func (s *session) options() {
	a := ask{method: "OPTIONS", uri: "sip:" + s.c.srv.host, to: "sip:" + s.c.srv.host, callID: token(), seq: 1}
	a.from, a.fromTag = s.c.cfg.identity(s.c.srv.host), token()
	s.send(&transaction{ask: a})
}
