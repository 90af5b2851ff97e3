package sdp

import "net/netip"

// Agreed is what an offer and its answer settled for one m= line (RFC 3264).
type Agreed struct {
	Index   int    // of the m= line
	Kind    string // audio, video, image …
	Refused bool   // by either side: its port is 0, or the answer lacks it
	Label   string // the offerer's a=label
	Profile string // the answer's

	// Codec is the answer's first format that the offer has too and that carries speech, with the answer's payload type.
	// Its Codec is empty when there is none.
	Codec      Format
	Encryption string // as answered
	Mux        bool   // RTP and RTCP share a port

	Offerer, Answerer Side
}

// Side is one party's part of an agreed stream.
type Side struct {
	Addr      netip.AddrPort // where it receives RTP; not valid when unknown
	RTCP      netip.AddrPort // where it receives RTCP: Addr when Mux
	Direction string         // as agreed, seen from it: sendonly when it sends and does not receive
	PTimeMS   int            // of a packet it would like to receive; 0 when not said

	// Formats are those that both know, by the payload types that this party receives: what the other one sends.
	Formats []Format
	Codec   int // payload type at which it receives the agreed codec; -1 for none
	DTMF    int // payload type at which it receives telephone-event; -1 for none
	Crypto  []Crypto
}

// Negotiate says for each m= line of the offer what was agreed. An answer may lack m= lines, or be nil: those are refused.
func Negotiate(offer, answer *Description) []Agreed {
	if offer == nil {
		return nil
	}
	out := make([]Agreed, len(offer.Media))
	for i := range offer.Media {
		var a *Media
		if answer != nil && i < len(answer.Media) {
			a = &answer.Media[i]
		}
		out[i] = agree(&offer.Media[i], a)
		out[i].Index = i
	}
	return out
}

func agree(o, a *Media) Agreed {
	g := Agreed{Kind: o.Kind, Label: o.Label, Profile: o.Profile, Refused: true}
	g.Offerer = Side{Direction: Inactive, Codec: -1, DTMF: -1}
	g.Answerer = g.Offerer
	if a == nil || a.Port == 0 || o.Port == 0 {
		return g
	}
	g.Profile, g.Encryption = a.Profile, a.Encryption
	g.Mux, g.Refused = o.Mux && a.Mux, false
	g.Offerer.take(o, g.Mux)
	g.Answerer.take(a, g.Mux)
	g.formats(o, a)
	forth, back := o.CanSend() && a.CanReceive(), a.CanSend() && o.CanReceive()
	g.Offerer.Direction, g.Answerer.Direction = direction(forth, back), direction(back, forth)
	return g
}

func (s *Side) take(m *Media, mux bool) {
	s.Addr, s.RTCP, s.PTimeMS, s.Crypto = m.Addr, m.RTCP, m.PTimeMS, m.Crypto
	if mux {
		s.RTCP = m.Addr
	}
}

// formats pairs each format of the answer with the offer's of the same codec. Each side names the payload types that it
// wants to receive, and they may differ (RFC 3264, 5.1 and 6.1).
func (g *Agreed) formats(o, a *Media) {
	for _, f := range a.Formats {
		if f.Codec == "" { // an answer without a=rtpmap: it can only mean the offer's
			f, _ = o.Format(f.PayloadType)
		}
		match, ok := counterpart(o.Formats, f)
		if !ok {
			continue
		}
		g.Offerer.Formats = append(g.Offerer.Formats, match)
		g.Answerer.Formats = append(g.Answerer.Formats, f)
		if g.Codec == (Format{}) && f.IsSpeech() {
			g.Codec, g.Offerer.Codec, g.Answerer.Codec = f, int(match.PayloadType), int(f.PayloadType)
		}
	}
	g.Offerer.dtmf(g.Codec.ClockRate)
	g.Answerer.dtmf(g.Codec.ClockRate)
}

// counterpart finds the format in list that is the same codec: at best with the same payload type and parameters too,
// since one codec may be offered in several ways.
func counterpart(list []Format, f Format) (best Format, ok bool) {
	score := 0
	for _, g := range list {
		if f.Codec == "" || !f.same(g) {
			continue
		}
		n := 1
		if g.PayloadType == f.PayloadType {
			n += 2
		}
		if g.FMTP == f.FMTP {
			n++
		}
		if n > score {
			best, score = g, n
		}
	}
	return best, score > 0
}

// dtmf prefers the telephone-event at the codec's clock: that is the one used beside it (RFC 4733, 2.1).
func (s *Side) dtmf(clock int) {
	for _, f := range s.Formats {
		if f.Codec == "telephone-event" && (s.DTMF < 0 || f.ClockRate == clock) {
			s.DTMF = int(f.PayloadType)
			if f.ClockRate == clock {
				return
			}
		}
	}
}

func direction(sends, receives bool) string {
	switch {
	case sends && receives:
		return SendRecv
	case sends:
		return SendOnly
	case receives:
		return RecvOnly
	}
	return Inactive
}

// Hold is what an offer and answer say of whether a party has put the other one on hold.
type Hold uint8

// Holds.
const (
	HoldUnchanged Hold = iota // it could say nothing of its own: what was so before is so now
	HoldOn                    // it refuses to hear the other party
	HoldOff
)

// Holds says for one m= line which party holds the other one (RFC 3264, 8.4). An offer with sendonly, inactive or the
// null address holds. The answer holds when it refuses what the offer would send: recvonly as the answer to sendonly
// merely follows. Where the offer does not want to send, the answerer had no choice, and a hold of its own goes on.
func Holds(offer, answer *Media) (offerer, answerer Hold) {
	if offer == nil || offer.Port == 0 {
		return HoldUnchanged, HoldUnchanged
	}
	offerer = hold(offer)
	if answer != nil && answer.Port != 0 && offer.CanSend() {
		answerer = hold(answer)
	}
	return offerer, answerer
}

func hold(m *Media) Hold {
	if m.CanReceive() {
		return HoldOff
	}
	return HoldOn
}
