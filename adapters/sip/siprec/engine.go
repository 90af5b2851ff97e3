package siprec

import (
	"crypto/rand"
	"encoding/hex"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// maxDead is how many unreadable messages a second are handed on; the others are counted.
const maxDead = 20

// What the server understands.
const (
	allowed   = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO"
	supported = "Supported: siprec, timer"
	accepted  = "Accept: application/sdp, application/rs-metadata+xml, multipart/mixed"
)

// engine handles all signalling, in one goroutine. Time comes in as data.
type engine struct {
	cfg      *Config
	log      *slog.Logger
	out      core.Emitter
	err      error // of the emitter: nothing more is handed over
	media    netip.Addr
	options  media.Options
	ports    *ports
	sessions map[string]*session // by Call-ID
	streams  int
	tx       transactions
	asking   map[string]*asking
	timers   alarm.Alarms
	digits   chan digit
	seed     maphash.Seed

	lettersAt time.Time // the second that letters counts in
	letters   int
}

// digit is a DTMF digit heard in a stream.
type digit struct {
	session *session
	index   int // of the m= line
	media.Digit
}

func newEngine(s *Server, out core.Emitter) *engine {
	bind := s.media
	if !isLocal(bind) {
		bind = netip.IPv4Unspecified()
		if s.media.Is6() {
			bind = netip.IPv6Unspecified()
		}
	}
	return &engine{cfg: &s.cfg, log: s.log, out: out, media: s.media,
		options: media.Options{JitterBufferMS: float64(s.cfg.JitterBuffer) / float64(time.Millisecond)}, ports: newPorts(bind, s.first, s.last),
		sessions: map[string]*session{}, tx: newTransactions(), asking: map[string]*asking{},
		digits: make(chan digit, digitQueue), seed: maphash.MakeSeed()}
}

// newToken is a random tag or branch.
func newToken() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// wait is how long nothing is due.
func (e *engine) wait(now time.Time) time.Duration {
	at, ok := e.timers.Next()
	if front := e.tx.order.Front(); front != nil {
		if ended := front.Value.(*transaction).ended; !ok || ended.Before(at) {
			at, ok = ended, true
		}
	}
	if !ok {
		return time.Hour
	}
	return max(0, at.Sub(now))
}

func (e *engine) tick(now time.Time) {
	for e.timers.Ring(now) {
	}
	e.forget(now)
}

// take handles one message.
func (e *engine) take(in inbound, now time.Time) {
	e.tick(now)
	switch {
	case e.err != nil:
		e.out.Count(core.CountDropped, 1)
	case in.dead != nil:
		e.deadLetter(*in.dead, now)
	case in.msg.res != nil:
		e.response(in.msg, now)
	default:
		e.request(in.msg, now)
	}
}

func (e *engine) deadLetter(d core.DeadLetter, now time.Time) {
	if now.Sub(e.lettersAt) >= time.Second {
		e.lettersAt, e.letters = now, 0
	}
	if e.letters++; e.letters > maxDead {
		e.out.Count(CountShedDead, 1)
		return
	}
	sdp.MaskKeys(d.Raw)
	e.emitted(e.out.DeadLetter(d))
}

func (e *engine) emitted(err error) {
	if err != nil && e.err == nil {
		e.err = err
	}
}

// frame hands over one message and what was observed in it.
func (e *engine) frame(f core.Frame) {
	if e.err != nil {
		e.out.Count(core.CountDropped, 1)
		return
	}
	sdp.MaskKeys(f.Raw)
	e.emitted(e.out.Frame(f))
}

// request is the way of one request (RFC 3261, 8.2 and 12.2.2).
func (e *engine) request(m *message, now time.Time) {
	if m.method == "ACK" {
		e.ack(m, now)
		return
	}
	if tx := e.tx.byKey[m.key(m.method)]; tx != nil {
		e.out.Count(CountRetransmitted, 1)
		tx.send()
		return
	}
	switch {
	case m.method == "CANCEL":
		e.cancel(m, now)
	case m.toTag != "":
		e.inDialog(m, now)
	case m.method == "INVITE":
		e.invite(m, now)
	case m.method == "OPTIONS":
		e.decline(m, reply{code: 200, reason: "OK", headers: []string{contact(m.path), allowed, supported, accepted}}, now)
	case m.method == "BYE", m.method == "UPDATE", m.method == "INFO":
		e.noDialog(m, now)
	default:
		e.refused(m, reply{code: 405, reason: "Method Not Allowed", headers: []string{allowed}}, now)
	}
}

// refused declines a request for what it is.
func (e *engine) refused(m *message, r reply, now time.Time) {
	e.out.Count(CountRefusedRequests, 1)
	e.decline(m, r, now)
}

func (e *engine) noDialog(m *message, now time.Time) {
	e.out.Count(CountUnknownDialog, 1)
	e.decline(m, reply{code: 481, reason: "Call/Transaction Does Not Exist"}, now)
}

// contact is our address, by the transport that p is (RFC 7866, 6.2: a recording server says so).
func contact(p path) string {
	uri := "sip:" + p.local.String()
	if p.reliable() {
		uri += ";transport=" + strings.ToLower(p.transport)
	}
	return "Contact: <" + uri + ">;+sip.srs"
}

// warning tells a person at the client what is wrong (RFC 3261, 20.43).
func (e *engine) warning(text string) string {
	return "Warning: 399 " + e.media.String() + " \"" + text + "\""
}

// ack ends the repetition of a response, and confirms a session (RFC 3261, 13.3.1.4).
func (e *engine) ack(m *message, now time.Time) {
	if s := e.sessions[m.callID]; s != nil && s.d.localTag == m.toTag && s.d.remoteTag == m.fromTag {
		if m.path.src.Addr() != s.d.path.src.Addr() {
			e.out.Count(CountSpoofed, 1)
			return
		}
		if s.accepted != nil && m.cseq == s.acceptedSeq {
			e.quiet(s.accepted)
			s.accepted = nil
		}
		e.confirm(s, now)
		return
	}
	if tx := e.tx.byKey[m.key("INVITE")]; tx != nil && tx.refused {
		e.quiet(tx)
	}
}

// cancel comes too late: an INVITE is answered as it is read (RFC 3261, 9.2).
func (e *engine) cancel(m *message, now time.Time) {
	if e.tx.byKey[m.key("INVITE")] == nil {
		e.noDialog(m, now)
		return
	}
	e.decline(m, reply{code: 200, reason: "OK"}, now)
}

// inDialog handles a request inside a session.
func (e *engine) inDialog(m *message, now time.Time) {
	s := e.sessions[m.callID]
	switch {
	case s == nil || s.d.localTag != m.toTag || s.d.remoteTag != m.fromTag:
		e.noDialog(m, now)
		return
	case m.path.src.Addr() != s.d.path.src.Addr():
		e.out.Count(CountSpoofed, 1)
		e.decline(m, reply{code: 403, reason: "Forbidden", headers: []string{e.warning("this dialog is with another address")}}, now)
		return
	case m.cseq <= s.d.remoteSeq:
		e.refused(m, reply{code: 500, reason: "Server Internal Error", headers: []string{e.warning("CSeq is not higher than the last one")}}, now)
		return
	}
	s.d.remoteSeq = m.cseq
	s.follow(m)
	s.active = m.at
	if m.method != "BYE" || s.confirmed {
		e.confirm(s, now)
	}
	e.inSession(s, m, now)
}

func (e *engine) inSession(s *session, m *message, now time.Time) {
	if bad := unsupported(m); bad != "" {
		e.refused(m, reply{code: 420, reason: "Bad Extension", headers: []string{"Unsupported: " + bad}}, now)
		return
	}
	switch m.method {
	case "INVITE", "UPDATE":
		e.modify(s, m, now)
	case "BYE":
		e.answer(m, reply{code: 200, reason: "OK"}, now)
		e.confirm(s, now)
		e.end(s, ending{frame: core.Frame{Type: "SIPREC BYE", Raw: m.raw, Received: m.at}, native: native(m), at: m.at, clear: true})
	case "INFO", "OPTIONS":
		e.answer(m, reply{code: 200, reason: "OK", headers: []string{allowed, supported, accepted}}, now)
	default:
		e.refused(m, reply{code: 405, reason: "Method Not Allowed", headers: []string{allowed}}, now)
	}
}

// native names a message: its transaction, which is the same wherever it is seen.
func native(m *message) call.Native {
	return call.Native{Type: "SIPREC " + m.method, ID: m.callID + "/" + strconv.FormatUint(uint64(m.cseq), 10) + " " + m.method}
}
