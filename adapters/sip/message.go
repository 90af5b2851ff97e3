package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// message is one SIP message as it was on the network. Its strings are its own.
type message struct {
	sipgo.Message
	req      *sipgo.Request // nil for a response
	status   int            // 0 for a request
	method   string         // of the request, or that a response answers
	callID   string
	fromTag  string
	toTag    string
	cseq     uint32
	branch   string
	src, dst netip.AddrPort
	stream   bool
	at       call.Time
	received call.Time
	raw      []byte
	named    call.Native // see native
}

// newParser is sipgo's, for messages of at most limit bytes. It reads what RFC 4475 calls valid, and more: understand
// checks the rest.
func newParser(limit int) *sipgo.Parser {
	p := sipgo.NewParser()
	p.MaxMessageLength = limit
	return p
}

// understand reads p's payload, which it copies.
func understand(parser *sipgo.Parser, p *wire.Packet) (*message, error) {
	raw := append([]byte(nil), p.Payload...)
	parsed, n, err := parser.Parse(raw, p.Stream)
	if err != nil {
		return nil, fmt.Errorf("parsing a SIP message from %s: %w", p.Src, err)
	}
	m := &message{Message: parsed, src: p.Src, dst: p.Dst, stream: p.Stream, at: p.At, received: p.Received, raw: raw}
	switch x := parsed.(type) {
	case *sipgo.Request:
		m.req, m.method = x, string(x.Method)
	case *sipgo.Response:
		m.status = x.StatusCode
	}
	if err := m.index(); err != nil {
		return nil, fmt.Errorf("reading a SIP message from %s: %w", p.Src, err)
	}
	if err := m.lengths(p.Stream, n); err != nil {
		return nil, fmt.Errorf("reading a SIP message from %s: %w", p.Src, err)
	}
	return m, nil
}

// headerSet is what both kinds of message have beside sipgo.Message.
type headerSet interface {
	Via() *sipgo.ViaHeader
	From() *sipgo.FromHeader
	To() *sipgo.ToHeader
	CallID() *sipgo.CallIDHeader
	CSeq() *sipgo.CSeqHeader
}

// maxID is the longest Call-ID or tag in bytes: they are kept as long as their dialog, and repeated in what it tells.
const maxID = 1024

// index takes out what every message must have (RFC 3261, 8.1.1), and refuses one that contradicts itself.
func (m *message) index() error {
	h, ok := m.Message.(headerSet)
	if !ok {
		return errors.New("it is neither a request nor a response")
	}
	via, from, to, id, seq := h.Via(), h.From(), h.To(), h.CallID(), h.CSeq()
	if via == nil || from == nil || to == nil || id == nil || seq == nil {
		return errors.New("one of Via, From, To, Call-ID and CSeq is missing (RFC 3261, 8.1.1)")
	}
	if err := m.single(); err != nil {
		return err
	}
	m.callID, m.cseq = id.Value(), seq.SeqNo
	m.fromTag, _ = from.Params.Get("tag")
	m.toTag, _ = to.Params.Get("tag")
	m.branch, _ = via.Params.Get("branch")
	if m.callID == "" || strings.ContainsAny(m.callID, " \t\r\n") {
		return fmt.Errorf("its Call-ID %q is none", m.callID)
	}
	if len(m.callID) > maxID || len(m.fromTag) > maxID || len(m.toTag) > maxID {
		return fmt.Errorf("its Call-ID or a tag has more than %d bytes", maxID)
	}
	if m.status != 0 {
		m.method = string(seq.MethodName)
		return m.plausibleStatus()
	}
	if !strings.EqualFold(m.method, string(seq.MethodName)) {
		return fmt.Errorf("it is a request of %s and its CSeq says %s (RFC 3261, 8.1.1.5)", m.method, seq.MethodName)
	}
	return m.plausibleRequest(from, to)
}

func (m *message) plausibleStatus() error {
	if m.status < 100 || m.status > 699 {
		return fmt.Errorf("its status %d is not between 100 and 699", m.status)
	}
	return nil
}

func (m *message) plausibleRequest(from *sipgo.FromHeader, to *sipgo.ToHeader) error {
	line, _, _ := strings.Cut(string(m.raw[:min(len(m.raw), 4096)]), "\n")
	if !strings.HasSuffix(strings.TrimRight(line, "\r"), "SIP/2.0") {
		return fmt.Errorf("its first line %.80q does not end in SIP/2.0", line)
	}
	if len(m.req.Recipient.Headers) > 0 {
		return errors.New("its Request-URI carries headers (RFC 3261, 19.1.1)")
	}
	for _, u := range []*sipgo.Uri{&m.req.Recipient, &from.Address, &to.Address} {
		if sip := u.Scheme == "sip" || u.Scheme == "sips"; sip && (u.Host == "" || strings.ContainsAny(u.Host, "<>\"")) {
			return fmt.Errorf("the URI %.80q has no host", u.String())
		}
	}
	return nil
}

// single refuses a second one of headers that may stand only once.
func (m *message) single() error {
	var from, to, id, seq, hops, length int
	for _, h := range m.headers() {
		switch h.(type) {
		case *sipgo.FromHeader:
			from++
		case *sipgo.ToHeader:
			to++
		case *sipgo.CallIDHeader:
			id++
		case *sipgo.CSeqHeader:
			seq++
		case *sipgo.MaxForwardsHeader:
			hops++
		case *sipgo.ContentLengthHeader:
			length++
		}
	}
	if from > 1 || to > 1 || id > 1 || seq > 1 || hops > 1 || length > 1 {
		return errors.New("one of From, To, Call-ID, CSeq, Max-Forwards and Content-Length stands twice: which one counts is anybody's guess")
	}
	return nil
}

// lengths compares Content-Length with what came (RFC 3261, 18.3): the parser has refused a body that is too short.
func (m *message) lengths(stream bool, n int) error {
	if h := m.header("content-length"); h != "" {
		if v, err := strconv.Atoi(strings.TrimSpace(h)); err != nil || v < 0 {
			return fmt.Errorf("its Content-Length %.40q is no number", h)
		}
	}
	if stream && n < len(m.raw) {
		return fmt.Errorf("%d bytes follow it in its frame", len(m.raw)-n)
	}
	return nil
}

func (m *message) headers() []sipgo.Header {
	if m.req != nil {
		return m.req.Headers()
	}
	if r, ok := m.Message.(*sipgo.Response); ok {
		return r.Headers()
	}
	return nil
}

// header returns the value of the first header called name, in lower case and its long form; empty for none.
func (m *message) header(name string) string {
	for _, h := range m.headers() {
		if canonicalName(h.Name()) == name {
			return h.Value()
		}
	}
	return ""
}

// compactNames are the one-letter header names (RFC 3261, 7.3.3, and the RFCs of each).
var compactNames = map[string]string{
	"i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type", "f": "from",
	"s": "subject", "k": "supported", "t": "to", "v": "via", "r": "refer-to", "b": "referred-by", "x": "session-expires",
	"o": "event", "u": "allow-events", "y": "identity", "j": "reject-contact", "a": "accept-contact", "d": "request-disposition",
}

func canonicalName(s string) string {
	s = sipgo.HeaderToLower(s)
	if len(s) == 1 {
		if long, ok := compactNames[s]; ok {
			return long
		}
	}
	return s
}

// hops is how many Vias m has.
func (m *message) hops() (n int) {
	for _, h := range m.headers() {
		if _, ok := h.(*sipgo.ViaHeader); ok {
			n++
		}
	}
	return n
}

func (m *message) from() *sipgo.FromHeader { return m.Message.(headerSet).From() }
func (m *message) to() *sipgo.ToHeader     { return m.Message.(headerSet).To() }

// dialed is the user part that m is for: a request's own, the To's in an answer, which has no other.
func (m *message) dialed() string {
	if m.req != nil {
		return m.req.Recipient.User
	}
	return m.to().Address.User
}

// software is who the sender says it is.
func (m *message) software() string {
	if s := m.header("user-agent"); s != "" {
		return s
	}
	return m.header("server")
}

// name is the message in a word: INVITE, 200 INVITE.
func (m *message) name() string {
	if m.status == 0 {
		return m.method
	}
	return strconv.Itoa(m.status) + " " + m.method
}

// native names the message, the same for every copy of it: a 183 and a 200 to one INVITE are two.
func (m *message) native() call.Native {
	if m.named.ID == "" {
		m.named = call.Native{Type: m.name(), ID: m.callID + "/" + m.fromTag + "/" + m.toTag + "/" + strconv.FormatUint(uint64(m.cseq), 10) + "/" + strings.ReplaceAll(m.name(), " ", "/")}
	}
	return m.named
}

// description is the SDP in the message's body, nil when there is none that can be read.
func (m *message) description() (*sdp.Description, error) {
	body := m.Body()
	if len(body) == 0 {
		return nil, nil
	}
	kind := m.header("content-type")
	if kind == "" || strings.HasPrefix(kind, "application/sdp") {
		return sdp.Parse(body)
	}
	if !strings.HasPrefix(strings.ToLower(kind), "multipart/") && !strings.EqualFold(kind, "application/sdp") {
		return nil, nil
	}
	parts, err := sdp.Parts(kind, body)
	if err != nil {
		return nil, fmt.Errorf("splitting the body: %w", err)
	}
	if p, ok := sdp.Find(parts, "application/sdp"); ok {
		return sdp.Parse(p.Body)
	}
	return nil, nil
}

// sender is where the sender of a request listens: the topmost Via, when that is the address it sent from (over TCP its
// port is another one), else the packet's source.
func (m *message) sender() netip.AddrPort {
	if m.stream && m.req != nil {
		via := m.req.Via()
		if ip, err := netip.ParseAddr(strings.Trim(via.Host, "[]")); err == nil && ip.Unmap() == m.src.Addr() {
			port := uint16(via.Port)
			if port == 0 {
				port = 5060
			}
			return netip.AddrPortFrom(ip.Unmap(), port)
		}
	}
	return m.src
}

// addr is a name-addr or addr-spec (RFC 3261, 20.10) as headers outside RFC 3261 carry it.
type addr struct{ name, user, host, params string }

// parseAddr reads the first address of a header such as P-Asserted-Identity, Diversion or History-Info.
func parseAddr(s string) (a addr, ok bool) {
	s = strings.TrimSpace(s)
	uri := s
	if i := strings.IndexByte(s, '<'); i >= 0 {
		j := strings.IndexByte(s[i:], '>')
		if j < 0 {
			return a, false
		}
		a.name, uri, a.params = unquote(s[:i]), s[i+1:i+j], s[i+j+1:]
	} else if i := strings.IndexAny(s, ";,"); i >= 0 {
		uri, a.params = s[:i], s[i:]
	}
	scheme, rest, found := strings.Cut(uri, ":")
	switch strings.ToLower(scheme) {
	case "sip", "sips":
	case "tel":
		a.user, _, _ = strings.Cut(rest, ";")
		return a, a.user != ""
	default:
		return a, false
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, ";")
	user, host, at := strings.Cut(rest, "@")
	if !at {
		user, host = "", rest
	}
	user, _, _ = strings.Cut(user, ":") // a password is nobody's business
	user, _, _ = strings.Cut(user, ";")
	a.user, a.host = user, host
	return a, found && a.host != ""
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = strings.ReplaceAll(s[1:len(s)-1], `\`, "")
	}
	return s
}

// param returns the value of a header parameter in s (";a=1;b").
func param(s, name string) string {
	for p := range strings.SplitSeq(s, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, name) {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}
