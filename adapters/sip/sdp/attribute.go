package sdp

import (
	"fmt"
	"strconv"
	"strings"
)

// attribute takes one a= line, of the session before the first m= line, of its media after it.
func (p *parser) attribute(line string) error {
	name, value, _ := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if len(p.d.Media) == 0 {
		p.ofSession(name, value)
		return nil
	}
	i := len(p.d.Media) - 1
	return p.ofMedia(&p.d.Media[i], &p.extra[i], name, value)
}

func (p *parser) ofSession(name, value string) {
	switch name {
	case SendRecv, SendOnly, RecvOnly, Inactive:
		p.direction = name
	case "ptime":
		p.ptime = p.number(value)
	case "candidate", "ice-ufrag":
		p.ice = true
	case "fingerprint":
		p.fingerprint = true
	}
}

func (p *parser) ofMedia(m *Media, x *extra, name, value string) error {
	switch name {
	case SendRecv, SendOnly, RecvOnly, Inactive:
		x.direction = name
	case "rtpmap":
		p.rtpmap(m, value)
	case "fmtp":
		p.fmtp(m, value)
	case "ptime":
		m.PTimeMS = p.number(value)
	case "maxptime":
		m.MaxPTimeMS = p.number(value)
	case "rtcp":
		p.rtcp(x, value)
	case "rtcp-mux", "rtcp-mux-only":
		m.Mux = true
	case "crypto":
		return p.crypto(m, value)
	case "fingerprint":
		x.fingerprint = true
	case "label":
		m.Label = value
	case "mid":
		m.Mid = value
	case "candidate", "ice-ufrag":
		m.ICE = true
	}
	return nil
}

// number reads a packet's length in ms; some write it with a fraction.
func (p *parser) number(value string) int {
	whole, _, _ := strings.Cut(value, ".")
	n, err := strconv.ParseUint(whole, 10, 16)
	if err != nil {
		p.d.Ignored++
		return 0
	}
	return int(n)
}

// rtpmap takes `type name/clock[/channels]` (RFC 8866, 6.6). One for a type that the m= line has not is passed over:
// some describe more than they offer.
func (p *parser) rtpmap(m *Media, value string) {
	pt, rest, _ := strings.Cut(value, " ")
	f := m.find(pt)
	if f == nil {
		return
	}
	name, rate, _ := strings.Cut(strings.TrimSpace(rest), "/")
	rate, channels, _ := strings.Cut(rate, "/")
	clock, err := strconv.ParseUint(strings.TrimSpace(rate), 10, 31)
	if err != nil || name == "" {
		p.d.Ignored++
		return
	}
	*f = Format{PayloadType: f.PayloadType, Codec: canonical(strings.TrimSpace(name)), ClockRate: int(clock), FMTP: f.FMTP}
	if m.Kind != "audio" {
		return
	}
	f.SampleRate, f.Channels = sampleRate(f.Codec, f.ClockRate), 1
	if n, err := strconv.ParseUint(strings.TrimSpace(channels), 10, 8); err == nil && n > 0 {
		f.Channels = int(n)
	}
}

func (p *parser) fmtp(m *Media, value string) {
	pt, rest, _ := strings.Cut(value, " ")
	if f := m.find(pt); f != nil {
		f.FMTP = strings.TrimSpace(rest)
	}
}

// find is the m= line's format of a payload type, nil when it has none.
func (m *Media) find(pt string) *Format {
	n, err := strconv.ParseUint(pt, 10, 7)
	if err != nil || !m.IsRTP() {
		return nil
	}
	for i := range m.Formats {
		if m.Formats[i].PayloadType == uint8(n) {
			return &m.Formats[i]
		}
	}
	return nil
}

// rtcp takes `port [IN IP4 address]` (RFC 3605).
func (p *parser) rtcp(x *extra, value string) {
	f := fields{value}
	port, err := strconv.ParseUint(f.next(), 10, 16)
	if err != nil {
		p.d.Ignored++
		return
	}
	x.rtcpPort = int(port)
	f.next()
	f.next()
	x.rtcpAddr = address(f.next())
}

func (p *parser) crypto(m *Media, value string) error {
	if len(m.Crypto) == MaxCrypto {
		return fmt.Errorf("more than %d a=crypto lines for one m= line", MaxCrypto)
	}
	c, ok := parseCrypto(value)
	if !ok {
		p.d.Ignored++
		return nil
	}
	m.Crypto = append(m.Crypto, c)
	return nil
}
