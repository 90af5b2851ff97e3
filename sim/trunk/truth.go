package trunk

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Truth is what a person watching one call at the PBX would say happened, with the packets counted at the capture
// point. It is what a gateway must come to.
type Truth struct {
	Number      int64 // of the call: 1, 2, 3 …
	Script      string
	Profile     string   // of its audio, see Profiles
	Dialogs     []string // the SIP Call-IDs of its legs, the caller's first
	LinkedBy    string   // what names one leg in the other: X-Call-Ref, X-CID, or nothing (number and time alone)
	Direction   call.Direction
	From        string // "+14155550100", or an agent's extension
	FromName    string
	To          string   // as dialed
	Offered     []string // agents that were rung
	AnsweredBy  []string // agents, or the number of an outside party
	Outcome     call.Outcome
	SIPCode     int    // final answer to the caller
	Q850        int    // cause of a call that failed
	HangupBy    string // caller (one from outside), switch, an agent's id or the number called; empty when nobody did (Died)
	Digits      string
	Holds       []Hold
	Transfers   []Transfer
	Diversions  []Transfer // Kind is empty
	Codec       string     // on the caller's leg, first agreed
	CodecsSeen  []string   // on the caller's leg, in order
	EarlyMedia  bool
	Died        bool      // both ends fell silent without a BYE
	Started     time.Time // the caller's INVITE
	AnsweredAt  time.Time // the first agent's or outside party's 200 OK
	Ended       time.Time // BYE, or the final answer, on the caller's leg; for Died the last packet
	SpoofedBYEs int
	Malformed   int // messages that are no SIP
	Streams     []StreamTruth
}

// Hold is an agent's putting the caller on hold.
type Hold struct {
	By       string
	From, To time.Time // when the PBX agreed to it, and to the retrieval
}

// Transfer is one party passing the call on.
type Transfer struct {
	Kind string // blind, attended
	By   string
	To   string // as dialed
	At   time.Time
}

// StreamTruth is one end's RTP to another in one dialog, as it passed the capture point.
type StreamTruth struct {
	CallID              string
	Source, Destination netip.AddrPort
	SSRCs               []uint32
	Packets             uint64 // without duplicates
	Lost                int64  // between the first and the last packet seen, for each beginning
	Duplicates          uint64
	Reordered           uint64 // came after a later one
	Restarts            int    // new SSRCs and jumps of the sequence number
	PayloadTypes        map[uint8]uint64
	From, To            time.Time

	base, top int64 // extended sequence numbers since it began anew
	since     int64 // packets since then
}

// see counts one packet.
func (t *StreamTruth) see(at int64, b []byte, again bool) {
	seq, ssrc := int64(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint32(b[8:])
	now := time.UnixMicro(at).UTC()
	if t.PayloadTypes == nil {
		t.PayloadTypes, t.From = map[uint8]uint64{}, now
	}
	t.To = now
	if again {
		t.Duplicates++
		return
	}
	t.Packets++
	t.PayloadTypes[b[1]&0x7f]++
	known := len(t.SSRCs) > 0 && t.SSRCs[len(t.SSRCs)-1] == ssrc
	step := int64(int16(uint16(seq) - uint16(t.top)))
	if !known || step > 3000 || step < -3000 {
		t.close()
		if t.since > 0 {
			t.Restarts++
		}
		if !known {
			t.SSRCs = append(t.SSRCs, ssrc)
		}
		t.base, t.top, t.since = seq, seq, 1
		return
	}
	t.since++
	if step < 0 {
		t.Reordered++
		return
	}
	t.top += step
}

// close adds the loss since it last began.
func (t *StreamTruth) close() {
	if t.since > 0 {
		t.Lost += t.top - t.base + 1 - t.since
	}
}

// settle fills in what is known only at the end.
func (p *plan) settle() {
	for _, l := range p.legs {
		for _, s := range []*stream{l.out, l.back} {
			s.truth.close()
			s.truth.CallID = s.callID
			p.truth.Streams = append(p.truth.Streams, s.truth)
		}
	}
}
