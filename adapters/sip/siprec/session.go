package siprec

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/alarm"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// session is one recording session: a dialog with a recording client, its streams and what they say of the call.
type session struct {
	d         dialog
	tag       string
	at        call.Time // of the INVITE
	active    call.Time // of the last request inside the dialog
	invite    *message  // until it is confirmed
	meta      *Metadata // the latest document
	confirmed bool
	over      bool

	accepted    *transaction // the INVITE whose 200 waits for its ACK
	acceptedSeq uint32

	offer   []byte // text of the last offer, and our answer to it
	answer  []byte
	version uint64
	id      uint64

	view    view
	streams []*recorded // by m= line
	group   group
	closed  []call.Observation
	legs    []*leg // in the order they came; the first is the caller's
	said    map[string]string

	update  bool // the client takes UPDATE
	quality *alarm.Alarm
	expiry  *alarm.Alarm
	refresh *alarm.Alarm
}

// recorded is one m= line of the session.
type recorded struct {
	index   int
	label   string
	r       *receiver // nil when it was refused or is over
	agreed  sdp.Agreed
	active  bool // the client agreed to send
	crypto  sdp.Crypto
	ours    *sdp.Crypto
	owner   string // participant id
	next    string // owner-to-be
	reports uint64
}

// body is what a request carries.
type body struct {
	offer []byte
	desc  *sdp.Description
	meta  *Metadata
	bad   error // of the metadata
}

// readBody takes SDP and metadata out of a request. Metadata that cannot be read is said and left out.
func readBody(m *message) (b body, err error) {
	parts, err := sdp.Parts(m.contentType(), m.req.Body())
	if part, ok := sdp.Find(parts, sdp.TypeSDP); ok {
		b.offer = part.Body
		if b.desc, err = sdp.Parse(part.Body); err != nil {
			return b, err
		}
	} else if err != nil {
		return b, err
	}
	for _, p := range parts {
		if p.Type == sdp.TypeRSMeta || p.Type == sdp.TypeRSMetaOld || p.Disposition == "recording-session" && strings.HasSuffix(p.Type, "xml") {
			b.meta, b.bad = ParseMetadata(p.Body)
			break
		}
	}
	return b, nil
}

// unsupported lists the options a request requires that are not known here.
func unsupported(m *message) string {
	var bad []string
	for _, t := range m.tokens("require") {
		if t != "siprec" && t != "timer" && t != "record-aware" {
			bad = append(bad, t)
		}
	}
	return strings.Join(bad, ", ")
}

// fromClient reports whether an INVITE is a recording client's (RFC 7866, 6.1.1), by the option it must require; some
// only say so in Contact, or by what they send.
func fromClient(m *message, b *body) bool {
	if slices.Contains(m.tokens("require", "supported"), "siprec") || b.meta != nil || b.bad != nil {
		return true
	}
	return strings.Contains(m.header("contact", "m"), "+sip.src")
}

// invite begins a session.
func (e *engine) invite(m *message, now time.Time) {
	if e.sessions[m.callID] != nil {
		e.refused(m, reply{code: 482, reason: "Loop Detected", headers: []string{e.warning("a session with this Call-ID exists")}}, now)
		return
	}
	if len(e.sessions) >= e.cfg.MaxSessions || e.streams >= e.cfg.MaxStreams { // a flood is not worth reading
		e.full(m, now)
		return
	}
	b, err := readBody(m)
	timer, tooShort := sessionTimer(m)
	switch {
	case unsupported(m) != "":
		e.refused(m, reply{code: 420, reason: "Bad Extension", headers: []string{"Unsupported: " + unsupported(m)}}, now)
	case err != nil:
		e.refused(m, reply{code: 400, reason: "Bad Request", headers: []string{e.warning(quotable(err))}}, now)
	case !fromClient(m, &b):
		e.refused(m, reply{code: 421, reason: "Extension Required", headers: []string{"Require: siprec", e.warning("this is a session recording server (RFC 7866)")}}, now)
	case b.desc == nil:
		e.refused(m, reply{code: 488, reason: "Not Acceptable Here", headers: []string{e.warning("a recording client offers its streams in the INVITE (RFC 7866, 7.1.1)"), accepted}}, now)
	case tooShort:
		e.refused(m, reply{code: 422, reason: "Session Interval Too Small", headers: []string{minSE}}, now)
	case e.streams+wanted(b.desc) > e.cfg.MaxStreams:
		e.full(m, now)
	default:
		e.begin(m, &b, timer, now)
	}
}

func (e *engine) full(m *message, now time.Time) {
	e.out.Count(CountRefusedSessions, 1)
	e.decline(m, reply{code: 503, reason: "Service Unavailable", headers: []string{"Retry-After: 10", e.warning("max_sessions or max_streams is reached")}}, now)
}

func quotable(err error) string { return strings.ReplaceAll(err.Error(), `"`, "'") }

// begin accepts a session, if one of its streams can be received.
func (e *engine) begin(m *message, b *body, timer refresher, now time.Time) {
	tag := newToken()
	s := &session{d: newDialog(m, tag), tag: tag, at: m.at, active: m.at, invite: m, said: map[string]string{},
		update: slices.Contains(m.tokens("allow"), "update")}
	s.id = uint64(m.at)
	if err := e.negotiate(s, b, m.at); err != nil || s.live() == 0 {
		e.discard(s)
		text := "no audio stream that can be received: RTP, or SRTP with SDES, is"
		if err != nil {
			text = quotable(err)
		}
		e.refused(m, reply{code: 488, reason: "Not Acceptable Here", headers: []string{e.warning(text)}}, now)
		return
	}
	e.sessions[m.callID] = s
	s.use(+1)
	e.learn(s, m, b, now)
	s.accepted = e.answer(m, reply{code: 200, reason: "OK", tag: tag, headers: acceptance(m, timer), kind: sdp.TypeSDP, body: s.answer}, now)
	s.acceptedSeq = m.cseq
	s.accepted.session = s
	e.repeatLater(s.accepted, timerT1, now)
	e.keepAlive(s, timer, now)
	s.quality = e.timers.Set(now.Add(e.cfg.QualityInterval), func(now time.Time) { e.interval(s, now) })
}

func acceptance(m *message, timer refresher) []string {
	h := []string{contact(m.path), allowed, supported, accepted}
	if timer.interval > 0 {
		h = append(h, timer.header())
		if timer.theirs {
			h = append(h, "Require: timer")
		}
	}
	return h
}

// use tells the connection that a session needs it, or no longer does.
func (s *session) use(n int32) {
	if c, ok := s.d.path.via.(*conn); ok {
		c.users.Add(n)
	}
}

// follow takes the way a valid request came: a client may connect anew.
func (s *session) follow(m *message) {
	if m.path.via != s.d.path.via || m.path.src != s.d.path.src {
		s.use(-1)
		s.d.path, s.d.next = m.path, m.replyTo()
		s.use(+1)
	}
	s.d.retarget(m)
}

// learn takes the metadata.
func (e *engine) learn(s *session, m *message, b *body, now time.Time) {
	if b.bad != nil {
		e.out.Count(CountBadMetadata, 1)
		e.deadLetter(core.DeadLetter{Raw: bytes.Clone(m.raw), Reason: b.bad.Error(), Received: m.at}, now)
	}
	if b.meta == nil {
		return
	}
	s.meta = b.meta
	if n := s.view.apply(b.meta); n > 0 {
		e.out.Count(CountShedMetadata, n)
	}
}

// confirm hands over what the INVITE said, once the client has shown that it is where it says: an INVITE from an address
// that was made up is never acknowledged and makes no call.
func (e *engine) confirm(s *session, now time.Time) {
	if s.confirmed {
		return
	}
	s.confirmed = true
	m := s.invite
	s.invite = nil
	e.frame(core.Frame{Type: "SIPREC INVITE", Raw: m.raw, Received: m.at, Observations: e.observe(s, m)})
}

// modify takes a change of streams, metadata or neither: a refresh (RFC 7866, 7.1.1 and 9; RFC 3311).
func (e *engine) modify(s *session, m *message, now time.Time) {
	b, err := readBody(m)
	timer, tooShort := sessionTimer(m)
	switch {
	case err != nil:
		e.refused(m, reply{code: 400, reason: "Bad Request", headers: []string{e.warning(quotable(err))}}, now)
		return
	case tooShort:
		e.refused(m, reply{code: 422, reason: "Session Interval Too Small", headers: []string{minSE}}, now)
		return
	}
	r := reply{code: 200, reason: "OK", headers: acceptance(m, timer)}
	if b.desc != nil {
		if err := e.negotiate(s, &b, m.at); err != nil {
			e.refused(m, reply{code: 488, reason: "Not Acceptable Here", headers: []string{e.warning(quotable(err))}}, now)
			return
		}
	}
	if b.desc != nil || m.method == "INVITE" { // an INVITE without an offer is answered with one: as things are
		r.kind, r.body = sdp.TypeSDP, s.answer
	}
	e.learn(s, m, &b, now)
	obs := e.observe(s, m) // before the answer: what comes after it is the next party's already
	tx := e.answer(m, r, now)
	if m.method == "INVITE" {
		if s.accepted != nil {
			e.quiet(s.accepted)
		}
		s.accepted, s.acceptedSeq, tx.session = tx, m.cseq, s
		e.repeatLater(tx, timerT1, now)
	}
	e.keepAlive(s, timer, now)
	e.frame(core.Frame{Type: "SIPREC " + m.method, Raw: m.raw, Received: m.at, Observations: obs})
}

// wanted is how many streams of an offer would be received.
func wanted(d *sdp.Description) int {
	n := 0
	for i := range d.Media {
		if receivable(&d.Media[i]) {
			n++
		}
	}
	return n
}

func receivable(m *sdp.Media) bool {
	return m.Kind == "audio" && m.IsRTP() && m.Port != 0 && (m.Encryption == "" || m.Encryption == sdp.SDES)
}

// negotiate answers an offer: the same offer alike, and without touching the streams (a refresh).
func (e *engine) negotiate(s *session, b *body, at call.Time) error {
	if s.answer != nil && bytes.Equal(s.offer, b.offer) {
		return nil
	}
	receive := make([]sdp.Receive, len(b.desc.Media))
	for i := range b.desc.Media {
		if i == len(s.streams) {
			s.streams = append(s.streams, &recorded{index: i})
		}
		receive[i] = e.receive(s, s.streams[i], &b.desc.Media[i], at)
	}
	for _, st := range s.streams[len(b.desc.Media):] {
		e.close(s, st, at)
	}
	s.version++
	text, said, err := sdp.Answer(b.desc, sdp.Session{ID: s.id, Version: s.version, Name: "ctigate", Addr: e.media}, receive)
	if err != nil {
		return err
	}
	s.offer, s.answer = bytes.Clone(b.offer), text
	for i, g := range sdp.Negotiate(b.desc, said) {
		e.agree(s, s.streams[i], &g, &b.desc.Media[i], at)
	}
	return nil
}

// receive opens what an m= line needs, and says how it is answered.
func (e *engine) receive(s *session, st *recorded, m *sdp.Media, at call.Time) sdp.Receive {
	if !receivable(m) || !st.secure(m) {
		e.close(s, st, at)
		return sdp.Receive{}
	}
	if st.r == nil {
		if e.streams >= e.cfg.MaxStreams {
			e.out.Count(CountRefusedSessions, 1)
			return sdp.Receive{}
		}
		p, err := e.ports.open()
		if err != nil {
			e.log.Warn("a recorded stream is refused", "error", err)
			e.out.Count(CountRefusedSessions, 1)
			return sdp.Receive{}
		}
		e.streams++
		st.r = newReceiver(p, &e.options, at, &s.group, e.out.Count, e.hear(s, st.index))
		st.r.to = netip.AddrPortFrom(e.media, p.port())
	}
	st.label = m.Label
	port := st.r.pair.port()
	return sdp.Receive{Port: port, RTCP: port + 1, Mux: m.Mux, Crypto: st.ours}
}

// secure settles the keys; false when the stream cannot be decrypted. The same key offered again is answered alike.
func (st *recorded) secure(m *sdp.Media) bool {
	if m.Encryption == "" {
		st.ours = nil
		return true
	}
	for _, c := range m.Crypto {
		if st.ours != nil && c == st.crypto {
			return true
		}
	}
	ours, theirs, err := acceptCrypto(m.Crypto)
	if err != nil {
		return false
	}
	st.ours, st.crypto = &ours, theirs
	return true
}

// agree puts into effect what was settled for a stream.
func (e *engine) agree(s *session, st *recorded, g *sdp.Agreed, m *sdp.Media, at call.Time) {
	if g.Refused || st.r == nil {
		e.close(s, st, at)
		return
	}
	var d *decipher
	if st.ours != nil {
		if d = st.r.decipher; d == nil || d.crypto != st.crypto {
			d, _ = newDecipher(st.crypto) // the key has been looked at by then
		}
	}
	st.agreed = *g
	st.active = g.Offerer.Direction == sdp.SendOnly || g.Offerer.Direction == sdp.SendRecv
	st.r.agree(g, m.Addr, s.d.path.src.Addr(), d)
	st.r.start()
}

// hear passes digits on to the engine.
func (e *engine) hear(s *session, index int) func(d mediaDigit) {
	return func(d mediaDigit) {
		select {
		case e.digits <- digit{session: s, index: index, Digit: d}:
		default:
			e.out.Count(CountShedDigits, 1)
		}
	}
}

// close ends a stream. What was measured waits for the next frame.
func (e *engine) close(s *session, st *recorded, at call.Time) {
	if st.r == nil {
		return
	}
	st.r.stop()
	if o, ok := e.report(s, st, at, true); ok {
		s.closed = append(s.closed, o)
	}
	e.ports.close(st.r.pair)
	e.streams--
	st.r, st.active, st.ours = nil, false, nil
}

// discard frees what a refused session had opened.
func (e *engine) discard(s *session) {
	for _, st := range s.streams {
		e.close(s, st, s.at)
	}
}

func (s *session) live() (n int) {
	for _, st := range s.streams {
		if st.r != nil {
			n++
		}
	}
	return n
}
