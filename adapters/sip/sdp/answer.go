package sdp

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	pion "github.com/pion/sdp/v3"
)

// Session is what an answer says of itself.
type Session struct {
	ID, Version uint64     // of the o= line: Version grows with each description that differs
	Name        string     // of the s= line; "-" when empty
	Addr        netip.Addr // where its media are received
}

// Receive is how one m= line of an offer is answered by a party that only receives, such as a recorder (RFC 7866, 7.1).
type Receive struct {
	Port   uint16   // 0 refuses the stream
	RTCP   uint16   // 0 for the port after Port
	Mux    bool     // receive RTCP on Port; only where the offer has it too
	Codecs []string // IANA names of those accepted; none: all that the offer names
	Crypto *Crypto  // our key, when the offer is encrypted by SDES: see AnswerCrypto
}

// Answer writes the answer to offer: each stream recvonly, or inactive where the offer does not send, with its label
// and mid mirrored. media stands for the offer's m= lines in order; what is missing is refused, and so is a stream none
// of whose formats is accepted. It returns the text and what it says.
func Answer(offer *Description, s Session, media []Receive) ([]byte, *Description, error) {
	if !s.Addr.IsValid() {
		return nil, nil, fmt.Errorf("writing SDP answer: no address to receive at is given")
	}
	kind := addressType(s.Addr)
	d := pion.SessionDescription{
		Origin: pion.Origin{
			Username: "-", SessionID: s.ID, SessionVersion: s.Version,
			NetworkType: "IN", AddressType: kind, UnicastAddress: s.Addr.String(),
		},
		SessionName:           pion.SessionName(cmpOr(s.Name, "-")),
		ConnectionInformation: &pion.ConnectionInformation{NetworkType: "IN", AddressType: kind, Address: &pion.Address{Address: s.Addr.String()}},
		TimeDescriptions:      []pion.TimeDescription{{}},
	}
	for i := range offer.Media {
		var r Receive
		if i < len(media) {
			r = media[i]
		}
		m, err := answerMedia(&offer.Media[i], r)
		if err != nil {
			return nil, nil, fmt.Errorf("writing SDP answer: m= line %d: %w", i+1, err)
		}
		d.MediaDescriptions = append(d.MediaDescriptions, m)
	}
	text, err := d.Marshal()
	if err != nil {
		return nil, nil, fmt.Errorf("writing SDP answer: %w", err)
	}
	said, err := Parse(text)
	if err != nil {
		return nil, nil, fmt.Errorf("writing SDP answer: %w", err)
	}
	return text, said, nil
}

func answerMedia(o *Media, r Receive) (*pion.MediaDescription, error) {
	m := &pion.MediaDescription{MediaName: pion.MediaName{Media: o.Kind, Protos: strings.Split(o.Profile, "/")}}
	accepted := o.accepted(r.Codecs)
	if r.Port == 0 || o.Port == 0 || len(accepted) == 0 {
		for _, f := range o.Formats[:min(1, len(o.Formats))] {
			m.MediaName.Formats = []string{f.token(o)}
		}
		return m, nil
	}
	m.MediaName.Port = pion.RangedPort{Value: int(r.Port)}
	for _, f := range accepted {
		m.MediaName.Formats = append(m.MediaName.Formats, f.token(o))
		describe(m, o, f)
	}
	if o.PTimeMS > 0 {
		m.WithValueAttribute("ptime", strconv.Itoa(o.PTimeMS))
	}
	if err := protect(m, o, r); err != nil {
		return nil, err
	}
	ports(m, o, r)
	if o.Label != "" {
		m.WithValueAttribute("label", o.Label)
	}
	if o.Mid != "" {
		m.WithValueAttribute("mid", o.Mid)
	}
	if o.CanSend() {
		m.WithPropertyAttribute(RecvOnly)
	} else {
		m.WithPropertyAttribute(Inactive)
	}
	return m, nil
}

// accepted keeps the formats of codecs, in the offer's order, and telephone-event, since it costs nothing to receive.
func (m *Media) accepted(codecs []string) []Format {
	var out []Format
	speech := false
	for _, f := range m.Formats {
		known := f.Codec != "" && (len(codecs) == 0 || slices.ContainsFunc(codecs, func(c string) bool { return strings.EqualFold(c, f.Codec) }))
		speech = speech || known && f.IsSpeech()
		if known || f.Codec == "telephone-event" {
			out = append(out, f)
		}
	}
	if !speech {
		return nil
	}
	return out
}

func (f Format) token(m *Media) string {
	if !m.IsRTP() {
		return f.Codec
	}
	return strconv.Itoa(int(f.PayloadType))
}

func describe(m *pion.MediaDescription, o *Media, f Format) {
	if !o.IsRTP() {
		return
	}
	rtpmap := fmt.Sprintf("%d %s/%d", f.PayloadType, f.Codec, f.ClockRate)
	if f.Channels > 1 {
		rtpmap += "/" + strconv.Itoa(f.Channels)
	}
	m.WithValueAttribute("rtpmap", rtpmap)
	if f.FMTP != "" {
		m.WithValueAttribute("fmtp", fmt.Sprintf("%d %s", f.PayloadType, f.FMTP))
	}
}

// protect answers SDES. Whoever answers an encrypted offer without a key would record noise.
func protect(m *pion.MediaDescription, o *Media, r Receive) error {
	switch {
	case o.Encryption == "" || o.Encryption == SDES && !strings.Contains(o.Profile, "SAVP") && r.Crypto == nil:
		return nil
	case o.Encryption != SDES:
		return fmt.Errorf("it is %s, which can be refused (port 0) and not answered", o.Encryption)
	case r.Crypto == nil:
		return fmt.Errorf("it is encrypted and no a=crypto is given: see AnswerCrypto")
	}
	line, err := r.Crypto.line()
	if err != nil {
		return err
	}
	m.WithValueAttribute("crypto", line)
	return nil
}

func ports(m *pion.MediaDescription, o *Media, r Receive) {
	if o.Mux && r.Mux {
		m.WithPropertyAttribute("rtcp-mux")
	}
	if r.RTCP != 0 && o.IsRTP() {
		m.WithValueAttribute("rtcp", strconv.Itoa(int(r.RTCP)))
	}
}

func addressType(a netip.Addr) string {
	if a.Is4() {
		return "IP4"
	}
	return "IP6"
}

func cmpOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
