package siprec

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/core/call"
)

// maxMessage bounds one SIP message, in bytes.
const maxMessage = 128 << 10

// path is where a message came from, and so where its answer goes.
type path struct {
	via       sender
	transport string         // UDP, TCP, TLS
	src       netip.AddrPort // of the packet or connection
	local     netip.AddrPort // where it came to
}

// sender takes one message for a peer. It never blocks; what cannot be sent is dropped, and retransmissions make up for it.
type sender interface {
	send(b []byte, to netip.AddrPort)
}

// reliable reports whether the transport retransmits by itself.
func (p path) reliable() bool { return p.transport != "UDP" }

// message is one SIP message as it came.
type message struct {
	raw  []byte
	at   call.Time
	path path
	req  *sip.Request  // one of these
	res  *sip.Response // two is set

	callID  string
	fromTag string
	toTag   string
	cseq    uint32
	method  string // of the CSeq, and of the request
	branch  string
}

func newParser() *sip.Parser {
	p := sip.NewParser()
	p.MaxMessageLength = maxMessage
	return p
}

// parse reads one whole message. The error says what is wrong with it. A message comes with an error where it can be
// answered all the same.
func parse(p *sip.Parser, raw []byte, at call.Time, from path) (*message, error) {
	parsed, err := p.ParseSIP(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing SIP message: %w", err)
	}
	m := &message{raw: raw, at: at, path: from}
	switch p := parsed.(type) {
	case *sip.Request:
		m.req = p
	case *sip.Response:
		m.res = p
	}
	if err := m.identify(parsed); err != nil {
		return nil, fmt.Errorf("parsing SIP message: %w", err)
	}
	if m.req != nil && string(m.req.Method) != m.method {
		return nil, fmt.Errorf("parsing SIP message: it is a %.20s and its CSeq says %.20s", m.req.Method, m.method)
	}
	return m, nil
}

// identify takes what every message must have (RFC 3261, 8.1.1).
func (m *message) identify(p sip.Message) error {
	via, from, to, callID, cseq := p.Via(), p.From(), p.To(), p.CallID(), p.CSeq()
	if via == nil || from == nil || to == nil || callID == nil || cseq == nil {
		return errors.New("it lacks Via, From, To, Call-ID or CSeq")
	}
	m.callID, m.cseq, m.method = string(*callID), cseq.SeqNo, strings.TrimSpace(string(cseq.MethodName))
	m.fromTag, m.toTag = from.Params.GetOr("tag", ""), to.Params.GetOr("tag", "")
	m.branch = via.Params.GetOr("branch", "")
	for _, h := range m.headers() {
		if strings.ContainsFunc(h.Value(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("its header %.40q has a control character", h.Name())
		}
	}
	if len(m.callID) > 512 || len(m.branch) > 512 || len(m.fromTag) > 512 {
		return errors.New("its Call-ID, tag or branch is longer than 512 bytes")
	}
	return nil
}

func (m *message) headers() []sip.Header {
	if m.req != nil {
		return m.req.Headers()
	}
	return m.res.Headers()
}

// key names the server transaction (RFC 3261, 17.2.3). Without the branch of RFC 3261 it is told by what RFC 2543 had.
func (m *message) key(method string) string {
	via := m.req.Via()
	if strings.HasPrefix(m.branch, "z9hG4bK") {
		return m.branch + " " + via.SentBy() + " " + method
	}
	return fmt.Sprintf("%s %s %d %s %s", m.callID, m.fromTag, m.cseq, via.SentBy(), method)
}

// replyTo is where a response goes (RFC 3261, 18.2.2; RFC 3581): back through the connection, or over UDP to the source
// address, and to its port where the client asks for that.
func (m *message) replyTo() netip.AddrPort {
	via := m.req.Via()
	if m.path.reliable() || via.Params.Has("rport") {
		return m.path.src
	}
	port := via.Port
	if port <= 0 || port > 65535 {
		port = 5060
	}
	return netip.AddrPortFrom(m.path.src.Addr(), uint16(port))
}

// header is the first value of a header, by its name or compact form.
func (m *message) header(names ...string) string {
	for _, name := range names {
		if h := m.req.GetHeader(name); h != nil {
			return h.Value()
		}
	}
	return ""
}

// tokens are the option tags, in lower case, of all headers of the names.
func (m *message) tokens(names ...string) (out []string) {
	for _, name := range names {
		for _, h := range m.req.GetHeaders(name) {
			for _, t := range strings.Split(h.Value(), ",") {
				if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
					out = append(out, t)
				}
			}
		}
	}
	return out
}

// contentType is that of the body.
func (m *message) contentType() string {
	if t := m.req.ContentType(); t != nil {
		return string(*t)
	}
	return ""
}

// reply is a response to be written.
type reply struct {
	code    int
	reason  string
	tag     string   // of the To header, when it has none yet
	headers []string // "Name: value"
	kind    string   // Content-Type
	body    []byte
}

// bytes writes the response to m (RFC 3261, 8.2.6).
func (r reply) bytes(m *message) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", r.code, r.reason)
	top := true
	for _, h := range m.req.Headers() {
		if via, ok := h.(*sip.ViaHeader); ok {
			b.WriteString("Via: " + m.received(via, top) + "\r\n")
			top = false
		}
	}
	if r.code < 300 {
		for _, h := range m.req.GetHeaders("record-route") {
			b.WriteString("Record-Route: " + h.Value() + "\r\n")
		}
	}
	b.WriteString("From: " + m.req.From().Value() + "\r\nTo: " + m.req.To().Value())
	if m.toTag == "" && r.tag != "" && r.code > 100 {
		b.WriteString(";tag=" + r.tag)
	}
	fmt.Fprintf(&b, "\r\nCall-ID: %s\r\nCSeq: %d %s\r\n", m.callID, m.cseq, m.method)
	b.WriteString("Server: ctigate\r\n")
	finish(&b, r.headers, r.kind, r.body)
	return []byte(b.String())
}

// received notes in the top Via where the request came from (RFC 3261, 18.2.1; RFC 3581, 4).
func (m *message) received(via *sip.ViaHeader, top bool) string {
	if !top {
		return via.Value()
	}
	c := *via
	c.Params = via.Params.Clone()
	if v, ok := c.Params.Get("rport"); ok && v == "" {
		c.Params.Add("rport", strconv.Itoa(int(m.path.src.Port())))
		c.Params.Add("received", m.path.src.Addr().String())
	} else if via.Host != m.path.src.Addr().String() {
		c.Params.Add("received", m.path.src.Addr().String())
	}
	return c.Value()
}

func finish(b *strings.Builder, headers []string, kind string, body []byte) {
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if kind != "" {
		b.WriteString("Content-Type: " + kind + "\r\n")
	}
	fmt.Fprintf(b, "Content-Length: %d\r\n\r\n", len(body))
	b.Write(body)
}

// dialog is what requests inside a dialog need, from our side (RFC 3261, 12.1.1).
type dialog struct {
	path      path
	next      netip.AddrPort // where requests go
	callID    string
	local     string // the To header with our tag
	remote    string // the From header
	localTag  string
	remoteTag string
	target    string // the peer's Contact URI
	routes    []string
	localSeq  uint32
	remoteSeq uint32
}

func newDialog(m *message, tag string) dialog {
	d := dialog{
		path: m.path, next: m.replyTo(), callID: m.callID, localTag: tag, remoteTag: m.fromTag, remoteSeq: m.cseq,
		local: m.req.To().Value() + ";tag=" + tag, remote: m.req.From().Value(), target: m.req.From().Address.String(),
	}
	d.retarget(m)
	for _, h := range m.req.GetHeaders("record-route") {
		d.routes = append(d.routes, h.Value())
	}
	return d
}

// retarget takes the peer's Contact (RFC 3261, 12.2.2).
func (d *dialog) retarget(m *message) {
	if c := m.req.Contact(); c != nil && !c.Address.Wildcard && c.Address.Host != "" {
		d.target = c.Address.String()
	}
}

// request writes a request of ours inside the dialog.
func (d *dialog) request(method, branch string, headers []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=%s;rport\r\nMax-Forwards: 70\r\n", method, d.target,
		d.path.transport, d.path.local, branch)
	for _, r := range d.routes {
		b.WriteString("Route: " + r + "\r\n")
	}
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n", d.local, d.remote, d.callID, d.localSeq, method)
	b.WriteString("User-Agent: ctigate\r\n")
	finish(&b, headers, "", nil)
	return []byte(b.String())
}
