package trunk

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// party is one end of a dialog.
type party struct {
	ep       *endpoint
	user     string // of its URI
	name     string // display name
	domain   string
	software string // User-Agent and Server
	tag      string
	cseq     int
	media    *mediaPort
	session  uint64 // of its SDP
	version  int
}

func (x *party) uri() string { return "sip:" + x.user + "@" + x.domain }

func (x *party) contact() string { return "<sip:" + x.user + "@" + x.ep.addr.String() + ">" }

func (x *party) nameAddr() string {
	if x.name == "" {
		return "<" + x.uri() + ">"
	}
	return `"` + x.name + `" <` + x.uri() + ">"
}

// dialog is an INVITE and what follows it between two ends (RFC 3261, 12).
type dialog struct {
	id       string
	uac, uas *party
	rng      *rand.Rand
	target   string // of its requests; empty: the other end's contact
	tagged   bool   // the callee's tag is known
}

// content is a message's own headers and its body.
type content struct {
	headers []string
	kind    string // Content-Type
	body    string
}

func withSDP(body string, headers ...string) content {
	return content{headers: headers, kind: "application/sdp", body: body}
}

func with(headers ...string) content { return content{headers: headers} }

// message is one request, kept for its answers.
type message struct {
	d                 *dialog
	method            string
	from, to          *party
	target            string
	branch            string
	via, fromH, toHdr string
	cseq              int
	raw               []byte
}

func token(r *rand.Rand, n int) string {
	const set = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = set[r.IntN(len(set))]
	}
	return string(b)
}

// request writes a request of one end, in a transaction of its own (RFC 3261, 8.1.1 and 12.2.1.1).
func (d *dialog) request(from *party, method string, c content) *message {
	if method != "ACK" {
		from.cseq++
	}
	return d.write(from, method, "z9hG4bK"+token(d.rng, 14), from.cseq, c)
}

// cancel writes the CANCEL of an INVITE: the same transaction, no tag of the callee (RFC 3261, 9.1).
func (d *dialog) cancel(inv *message, c content) *message {
	tagged := d.tagged
	d.tagged = false
	m := d.write(inv.from, "CANCEL", inv.branch, inv.cseq, c)
	d.tagged = tagged
	return m
}

// ackFailure writes the ACK of a final answer other than 2xx: the same transaction (RFC 3261, 17.1.1.3).
func (d *dialog) ackFailure(inv *message) *message {
	return d.write(inv.from, "ACK", inv.branch, inv.cseq, content{})
}

func (d *dialog) write(from *party, method, branch string, cseq int, c content) *message {
	to := d.uas
	if from == d.uas {
		to = d.uac
	}
	m := &message{d: d, method: method, from: from, to: to, branch: branch, cseq: cseq}
	m.target = "sip:" + to.user + "@" + to.ep.addr.String()
	if d.target != "" {
		m.target = d.target
	}
	m.via = "SIP/2.0/UDP " + from.ep.addr.String() + ";rport;branch=" + branch
	m.fromH, m.toHdr = from.nameAddr()+";tag="+from.tag, to.nameAddr()
	if d.tagged || from == d.uas {
		m.toHdr += ";tag=" + to.tag
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: %s\r\nMax-Forwards: 70\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n",
		method, m.target, m.via, m.fromH, m.toHdr, d.id, cseq, method)
	if method != "CANCEL" && method != "ACK" && method != "BYE" {
		b.WriteString("Contact: " + from.contact() + "\r\n")
	}
	if method != "ACK" {
		b.WriteString("User-Agent: " + from.software + "\r\n")
	}
	m.raw = finish(&b, c)
	return m
}

// reply writes the answer to a request (RFC 3261, 8.2.6).
func (m *message) reply(code int, reason string, c content) []byte {
	to := m.toHdr
	if code > 100 && !strings.Contains(to, ";tag=") {
		to += ";tag=" + m.to.tag
		if m.method == "INVITE" {
			m.d.tagged = true
		}
	}
	from := m.from.ep.addr
	via := strings.Replace(m.via, ";rport", ";received="+from.Addr().String()+";rport="+strconv.Itoa(int(from.Port())), 1)
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d %s\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n",
		code, reason, via, m.fromH, to, m.d.id, m.cseq, m.method)
	if code > 100 && code < 300 && m.method != "BYE" && m.method != "CANCEL" {
		contact := m.to.contact()
		if m.method == "REGISTER" {
			contact = m.from.contact()
		}
		b.WriteString("Contact: " + contact + "\r\n")
	}
	b.WriteString("Server: " + m.to.software + "\r\n")
	return finish(&b, c)
}

// finish adds a message's own headers and its body.
func finish(b *strings.Builder, c content) []byte {
	for _, h := range c.headers {
		b.WriteString(h + "\r\n")
	}
	if c.kind != "" {
		b.WriteString("Content-Type: " + c.kind + "\r\n")
	}
	b.WriteString("Content-Length: " + strconv.Itoa(len(c.body)) + "\r\n\r\n" + c.body)
	return []byte(b.String())
}

// description is what an SDP says (RFC 8866, RFC 3264).
type description struct {
	codecs    []codec
	event     uint8  // payload type of telephone events
	direction string // empty: not said, which means sendrecv
	zero      bool   // c=0.0.0.0: on hold as in RFC 2543
}

// sdp writes what x offers or answers.
func (x *party) sdp(d description) string {
	at := x.media.rtp.addr
	host := at.Addr().String()
	conn := host
	if d.zero {
		conn = "0.0.0.0"
	}
	x.version++
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=- %d %d IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP", x.session, x.version, host, conn, at.Port())
	for _, c := range d.codecs {
		fmt.Fprintf(&b, " %d", c)
	}
	fmt.Fprintf(&b, " %d\r\n", d.event)
	for _, c := range d.codecs {
		fmt.Fprintf(&b, "a=rtpmap:%d %s/%d\r\n", c, c, sampleRate)
	}
	fmt.Fprintf(&b, "a=rtpmap:%[1]d telephone-event/%[2]d\r\na=fmtp:%[1]d 0-15\r\na=ptime:20\r\n", d.event, sampleRate)
	if r := x.media.rtcp.addr.Port(); r != at.Port()+1 {
		fmt.Fprintf(&b, "a=rtcp:%d\r\n", r)
	}
	if d.direction != "" {
		b.WriteString("a=" + d.direction + "\r\n")
	}
	return b.String()
}
