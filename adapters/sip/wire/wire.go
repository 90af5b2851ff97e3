// Package wire is what every way into the SIP adapter hands over: packets as they were on the network.
package wire

import (
	"net/netip"

	"github.com/ctigate/ctigate/core/call"
)

// Kind says what a packet's payload is, as far as the way in knows.
type Kind uint8

// Kinds.
const (
	Datagram Kind = iota // a UDP payload: SIP, RTP, RTCP or something else
	SIP                  // one whole SIP message, of UDP or taken out of a TCP stream
	RTP                  // one RTP packet
	RTCP                 // one RTCP packet, compound or not
	RTCPJSON             // RTCP in the JSON form of HEP agents
)

// Packet is one packet. It and its payload are valid only until the handler returns: what is kept is copied.
type Packet struct {
	Kind     Kind
	Stream   bool      // carried by TCP or TLS rather than UDP
	At       call.Time // when it passed the capture point, by the capturing machine's clock
	Received call.Time // when it reached this process; for a file, At
	Src, Dst netip.AddrPort
	// Correlation is what the capture agent says the packet belongs to: for RTCP, the SIP Call-ID. HEP only.
	Correlation string
	Payload     []byte
}

// Handler takes packets, one at a time and in the order they came.
type Handler func(*Packet)
