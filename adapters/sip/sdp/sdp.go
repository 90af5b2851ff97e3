// Package sdp reads session descriptions (RFC 8866) as phones and switches really send them, says what an offer and its
// answer agreed on (RFC 3264), and writes the answer of a party that only receives.
//
// Reading is by hand. pion/sdp accepts only what the grammar allows and gives nothing back otherwise: it refuses every
// fax (m=image), a missing s= or t= line, a session id that is no number, b= before c=, and a last line without an end.
// What is written is written by pion/sdp.
package sdp

import "net/netip"

// Bounds of what Parse accepts.
const (
	MaxBytes   = 64 << 10 // of a description
	MaxLines   = 2048     // of a description
	MaxMedia   = 32       // m= lines
	MaxFormats = 128      // formats of one m= line: RTP has no more payload types
	MaxCrypto  = 16       // a=crypto lines of one m= line
)

// Directions of a stream, seen from the party whose description or side they stand in (RFC 8866, 6.7).
const (
	SendRecv = "sendrecv"
	SendOnly = "sendonly"
	RecvOnly = "recvonly"
	Inactive = "inactive"
)

// What protects a stream.
const (
	SDES      = "srtp-sdes" // keys in a=crypto lines (RFC 4568)
	DTLS      = "srtp-dtls" // keys by DTLS (RFC 5763)
	OtherSRTP = "srtp"      // an SRTP profile without either: keys by MIKEY or from elsewhere
)

// Description is what one party says of a session. Its strings share the text it was parsed from.
type Description struct {
	Origin  Origin
	Media   []Media
	Ignored int // lines that are no SDP, or whose value made no sense: the rest was read without them
}

// Origin is the o= line: a description with the same Origin as the one before changed nothing (RFC 3264, 8). All its
// fields are as given: real phones put anything there.
type Origin struct {
	User      string
	SessionID string
	Version   string
	Address   string
}

// Media is one m= line and what follows it, with what holds for the whole session filled in.
type Media struct {
	Kind    string // audio, video, image, application …
	Port    int    // 0: refused, or no longer wanted
	Profile string // RTP/AVP, RTP/SAVP, UDP/TLS/RTP/SAVPF, udptl …

	// Addr is where it wants to receive. Not valid when Port is 0, and when the address is absent or a name.
	Addr netip.AddrPort
	// RTCP is where it wants to receive RTCP when that does not share Addr: a=rtcp (RFC 3605), else the next port.
	RTCP netip.AddrPort
	Mux  bool // can receive RTP and RTCP on one port (RFC 5761): done only when both sides say so
	// Null: the connection address is 0.0.0.0 or ::, so nothing can be sent to it: put on hold as in RFC 2543.
	Null bool

	Direction  string // default sendrecv
	PTimeMS    int    // of a packet it would like to receive; 0 when not said
	MaxPTimeMS int    // 0 when not said
	Formats    []Format
	Encryption string // "", SDES, DTLS or OtherSRTP
	Crypto     []Crypto
	Label      string // a=label (RFC 4574)
	Mid        string // a=mid (RFC 5888)
	ICE        bool   // has candidates or ICE credentials: the addresses used may be others
}

// Format is one format of an m= line, in the order of preference.
type Format struct {
	PayloadType uint8  // 0 for what is not RTP
	Codec       string // IANA name: PCMU, G722, opus, telephone-event; for what is not RTP, the format as given (t38)
	ClockRate   int    // of the RTP timestamps, Hz; 0 when unknown
	SampleRate  int    // of the audio, Hz; 0 for what is no audio
	Channels    int    // 1 when not said; 0 for what is no audio
	FMTP        string // a=fmtp, without the payload type
}

// IsRTP reports whether the stream is RTP.
func (m *Media) IsRTP() bool { return isRTP(m.Profile) }

// Format returns the format of a payload type.
func (m *Media) Format(payloadType uint8) (Format, bool) {
	for i := range m.Formats {
		if m.Formats[i].PayloadType == payloadType {
			return m.Formats[i], true
		}
	}
	return Format{}, false
}

// CanReceive reports whether the party lets the other one send to it.
func (m *Media) CanReceive() bool {
	return m.Port != 0 && !m.Null && (m.Direction == SendRecv || m.Direction == RecvOnly)
}

// CanSend reports whether the party wants to send.
func (m *Media) CanSend() bool {
	return m.Port != 0 && (m.Direction == SendRecv || m.Direction == SendOnly)
}
