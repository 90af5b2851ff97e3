package dialoginfo

import (
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	contentDialogInfo = "application/dialog-info+xml"
	userAgent         = "ctigate"
)

// token is a fresh tag, branch or Call-ID.
func token() string { return strings.ToLower(rand.Text()) }

// ask is one SUBSCRIBE or OPTIONS, all of it but what authentication adds.
type ask struct {
	method         string
	uri, to, toTag string
	from, fromTag  string
	callID         string
	seq            uint32
	routes         []string
	expires        time.Duration // of a SUBSCRIBE
	via, contact   string        // sent-by and URI
	branch         string
	transport      string // upper case
	authorization  string
	given          [2]string // nonces that it was challenged with, by 401 and 407
}

// bytes writes the request (RFC 3261, 8.1.1; RFC 6665, 4.1.2).
func (a *ask) bytes() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\n", a.method, a.uri)
	fmt.Fprintf(&b, "Via: SIP/2.0/%s %s;rport;branch=%s\r\n", a.transport, a.via, a.branch)
	for _, r := range a.routes {
		fmt.Fprintf(&b, "Route: %s\r\n", r)
	}
	fmt.Fprintf(&b, "Max-Forwards: 70\r\nFrom: <%s>;tag=%s\r\nTo: <%s>", a.from, a.fromTag, a.to)
	if a.toTag != "" {
		fmt.Fprintf(&b, ";tag=%s", a.toTag)
	}
	fmt.Fprintf(&b, "\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <%s>\r\n", a.callID, a.seq, a.method, a.contact)
	if a.method == "SUBSCRIBE" {
		fmt.Fprintf(&b, "Event: dialog\r\nAccept: %s\r\nExpires: %d\r\nAllow: NOTIFY, OPTIONS\r\n", contentDialogInfo, int(a.expires/time.Second))
	}
	fmt.Fprintf(&b, "User-Agent: %s\r\n%sContent-Length: 0\r\n\r\n", userAgent, a.authorization)
	return []byte(b.String())
}

// reply writes the response to a request, copying what must be copied (RFC 3261, 8.2.6).
func reply(req *sip.Request, code int, reason, tag string, extra string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", code, reason)
	for _, h := range req.GetHeaders("Via") {
		fmt.Fprintf(&b, "Via: %s\r\n", h.Value())
	}
	for _, h := range req.GetHeaders("Record-Route") {
		fmt.Fprintf(&b, "Record-Route: %s\r\n", h.Value())
	}
	for _, name := range [...]string{"From", "To", "Call-ID", "CSeq"} {
		h := req.GetHeader(name)
		if h == nil {
			continue
		}
		fmt.Fprintf(&b, "%s: %s", name, h.Value())
		if to, ok := h.(*sip.ToHeader); ok && !to.Params.Has("tag") {
			fmt.Fprintf(&b, ";tag=%s", tag)
		}
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "%sContent-Length: 0\r\n\r\n", extra)
	return []byte(b.String())
}

// headerMessage is what sip.Request and sip.Response share.
type headerMessage interface {
	GetHeader(name string) sip.Header
	GetHeaders(name string) []sip.Header
}

// header is the value of the first header of one of the names; empty when there is none.
func header(m headerMessage, names ...string) string {
	for _, n := range names {
		if h := m.GetHeader(n); h != nil {
			return strings.TrimSpace(h.Value())
		}
	}
	return ""
}

// seconds reads a header that begins with a number of seconds (Expires, Min-Expires, Retry-After).
func seconds(value string) (time.Duration, bool) {
	end := 0
	for end < len(value) && value[end] >= '0' && value[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(value[:end], 10, 31)
	return time.Duration(n) * time.Second, err == nil
}

// params splits `value;name=value;name` (Subscription-State, Event).
func params(s string) (value string, p map[string]string) {
	value, rest, _ := strings.Cut(s, ";")
	p = map[string]string{}
	for part := range strings.SplitSeq(rest, ";") {
		name, v, _ := strings.Cut(part, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" && len(p) < 16 {
			p[name] = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return strings.ToLower(strings.TrimSpace(value)), p
}

// contactOf is a message's Contact URI; empty when it has none that can be used.
func contactOf(c *sip.ContactHeader) string {
	if c == nil || c.Address.Host == "" {
		return ""
	}
	return clean(c.Address.String())
}

// clean is s, or nothing when it cannot stand in a header.
func clean(s string) string {
	if strings.ContainsAny(s, "\r\n<> ") {
		return ""
	}
	return s
}

// routesOf is the route set of a Record-Route list: in order for who was called, reversed for who called (RFC 3261, 12.1).
func routesOf(m headerMessage, reverse bool) []string {
	var out []string
	for _, h := range m.GetHeaders("Record-Route") {
		if v := h.Value(); !strings.ContainsAny(v, "\r\n") && len(out) < 16 {
			out = append(out, v)
		}
	}
	if reverse {
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// localParts are the sent-by of Via and the Contact for a connection from local.
func localParts(local net.Addr, user, transport string) (via, contact string) {
	via = local.String()
	if _, _, err := net.SplitHostPort(via); err != nil {
		via = "127.0.0.1:5060" // a connection without addresses, in tests
	}
	return via, contactURI(user, via, transport)
}

func contactURI(user, hostport, transport string) string {
	u := "sip:" + user + "@" + hostport
	if transport != "udp" {
		u += ";transport=" + transport
	}
	return u
}
