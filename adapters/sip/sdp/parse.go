package sdp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Parse reads a description. It wants a v= or m= line; what else is missing, in a strange order or unreadable is passed
// over and counted. It is an error when a bound is broken, and when an m= line cannot be read, since those of offer and
// answer are matched by their place.
func Parse(b []byte) (*Description, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("reading SDP: %d bytes, over the limit of %d", len(b), MaxBytes)
	}
	p := parser{d: new(Description)}
	p.direction = SendRecv
	if err := p.lines(string(b)); err != nil {
		return nil, fmt.Errorf("reading SDP: %w", err)
	}
	for i := range p.d.Media {
		p.finish(&p.d.Media[i], i)
	}
	return p.d, nil
}

// parser holds what one pass over the lines finds.
type parser struct {
	d     *Description
	began bool    // a v= or m= line was seen
	extra []extra // beside each Media

	// Of the whole session, for the media that say nothing of their own.
	addr        netip.Addr
	direction   string
	ptime       int
	ice         bool
	fingerprint bool
}

// extra is what the lines after an m= line say that its Media has no place for.
type extra struct {
	addr        netip.Addr
	connected   bool // has a c= line of its own
	direction   string
	rtcpPort    int
	rtcpAddr    netip.Addr
	fingerprint bool
}

func (p *parser) lines(text string) error {
	for n := 1; text != ""; {
		line := text
		if end := strings.IndexAny(text, "\r\n"); end >= 0 { // CRLF, LF and CR all occur
			line, text = text[:end], text[end+1:]
		} else {
			text = ""
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if n++; n > MaxLines {
			return fmt.Errorf("more than %d lines", MaxLines)
		}
		if len(line) < 2 || line[1] != '=' {
			p.d.Ignored++
			continue
		}
		if err := p.line(line[0], strings.TrimSpace(line[2:])); err != nil {
			return fmt.Errorf("line %d: %w", n-1, err)
		}
	}
	if !p.began {
		return fmt.Errorf("no v= and no m= line in it: this is no SDP")
	}
	return nil
}

func (p *parser) line(kind byte, value string) error {
	switch kind {
	case 'v':
		p.began = true
	case 'o':
		p.origin(value)
	case 'c':
		p.connection(value)
	case 'm':
		p.began = true
		return p.media(value)
	case 'a':
		return p.attribute(value)
	}
	return nil
}

func (p *parser) origin(value string) {
	f := strings.Fields(value)
	if len(f) < 3 {
		p.d.Ignored++
		return
	}
	// Read from the end where the line is complete: there are user names with blanks in them.
	o := Origin{User: f[0], SessionID: f[1], Version: f[2]}
	if n := len(f); n >= 6 {
		o = Origin{User: strings.Join(f[:n-5], " "), SessionID: f[n-5], Version: f[n-4], Address: f[n-1]}
	}
	p.d.Origin = o
}

// connection takes `IN IP4 address[/ttl[/count]]` (RFC 8866, 5.7). The first of several holds.
func (p *parser) connection(value string) {
	f := fields{value}
	f.next()
	f.next()
	host, _, _ := strings.Cut(f.next(), "/")
	if host == "" {
		p.d.Ignored++
		return
	}
	addr := address(host) // of a name: not valid
	if n := len(p.extra); n == 0 {
		if !p.addr.IsValid() {
			p.addr = addr
		}
	} else if x := &p.extra[n-1]; !x.connected {
		x.addr, x.connected = addr, true
	}
}

func address(host string) netip.Addr {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.WithZone("").Unmap()
}

// media takes `kind port[/count] profile format …` (RFC 8866, 5.14).
func (p *parser) media(value string) error {
	if len(p.d.Media) == MaxMedia {
		return fmt.Errorf("more than %d m= lines", MaxMedia)
	}
	f := fields{value}
	m := Media{Kind: strings.ToLower(f.next())}
	port, _, _ := strings.Cut(f.next(), "/")
	m.Profile = profile(f.next())
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || m.Profile == "" {
		return fmt.Errorf("m=%.80q is no media line: kind, port and profile are expected", value)
	}
	m.Port = int(n)
	m.Formats = make([]Format, 0, min(MaxFormats, strings.Count(f.rest, " ")+1))
	for s := f.next(); s != ""; s = f.next() {
		if len(m.Formats) == MaxFormats {
			return fmt.Errorf("more than %d formats in m=%.80q", MaxFormats, value)
		}
		p.format(&m, s)
	}
	p.d.Media = append(p.d.Media, m)
	p.extra = append(p.extra, extra{})
	return nil
}

func (p *parser) format(m *Media, s string) {
	if !m.IsRTP() {
		m.Formats = append(m.Formats, Format{Codec: s})
		return
	}
	pt, err := strconv.ParseUint(s, 10, 7)
	if err != nil {
		p.d.Ignored++
		return
	}
	f, _ := static(uint8(pt))
	m.Formats = append(m.Formats, f)
}

// profile is in upper case where it is one of RTP, as those are registered.
func profile(s string) string {
	if u := strings.ToUpper(s); isRTP(u) {
		return u
	}
	return s
}

func isRTP(profile string) bool { return strings.Contains(profile, "RTP/") }

// finish fills in what holds for the whole session.
func (p *parser) finish(m *Media, i int) {
	x := &p.extra[i]
	addr := p.addr
	if x.connected {
		addr = x.addr
	}
	m.Direction = x.direction
	if m.Direction == "" {
		m.Direction = p.direction
	}
	if m.PTimeMS == 0 {
		m.PTimeMS = p.ptime
	}
	m.ICE = m.ICE || p.ice
	m.Encryption = encryption(m, x.fingerprint || p.fingerprint)
	if m.Port == 0 || !addr.IsValid() {
		return
	}
	m.Addr = netip.AddrPortFrom(addr, uint16(m.Port))
	// With ICE, 0.0.0.0 and port 9 mean that the address is still to come (RFC 8839, 4.3).
	m.Null = addr.IsUnspecified() && !(m.ICE && m.Port == 9)
	if m.IsRTP() {
		m.RTCP = rtcp(m.Addr, x)
	}
}

// rtcp is RFC 3605's a=rtcp, else RFC 3550's next port.
func rtcp(rtp netip.AddrPort, x *extra) netip.AddrPort {
	switch {
	case x.rtcpPort != 0 && x.rtcpAddr.IsValid():
		return netip.AddrPortFrom(x.rtcpAddr, uint16(x.rtcpPort))
	case x.rtcpPort != 0:
		return netip.AddrPortFrom(rtp.Addr(), uint16(x.rtcpPort))
	case rtp.Port() == 65535:
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(rtp.Addr(), rtp.Port()+1)
}

// encryption tells by profile and keys: some offer SRTP within RTP/AVP, to be had by who understands it (RFC 8643).
func encryption(m *Media, fingerprint bool) string {
	secure := strings.Contains(m.Profile, "SAVP")
	switch {
	case !m.IsRTP():
		return ""
	case strings.HasPrefix(m.Profile, "UDP/TLS/"), fingerprint && len(m.Crypto) == 0:
		return DTLS
	case len(m.Crypto) > 0:
		return SDES
	case secure:
		return OtherSRTP
	}
	return ""
}

// fields takes a line's words one by one.
type fields struct{ rest string }

func (f *fields) next() string {
	s := strings.TrimLeft(f.rest, " \t")
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		f.rest = ""
		return s
	}
	f.rest = s[i+1:]
	return s[:i]
}
