package media

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/rtcp"
)

// ErrNotRTCP is wrapped by every error of ParseRTCP and ParseRTCPJSON.
var ErrNotRTCP = errors.New("no RTCP packet")

// maxBlocks bounds what is taken out of one compound packet: one SR or RR holds 31.
const maxBlocks = 64

// RTCP is what one RTCP packet says, compound or not, whether it came as bytes or as a HEP agent's JSON.
type RTCP struct {
	SSRC    uint32         // of the sender of the packet
	Opaque  bool           // SRTCP (RFC 3711, 3.4): nothing but SSRC can be read
	Senders []SenderReport // SR
	Blocks  []Block        // of SR and RR
	Metrics []VoIPMetrics  // XR
	Bye     []uint32       // sources that left
	CNAME   string
	Skipped int // packets in the compound that were unknown or malformed
}

// SenderReport is the sender information of an SR (RFC 3550, 6.4.1).
type SenderReport struct {
	SSRC    uint32
	NTP     uint64 // seconds since 1900 and their fraction, 32 bits each
	RTP     uint32
	Packets uint32
	Octets  uint32
}

// Block is one reception report block (RFC 3550, 6.4.1).
type Block struct {
	Reporter     uint32 // SSRC of who says it
	SSRC         uint32 // of the stream it is said of
	FractionLost uint8  // of 256, since the report before
	Lost         int32  // cumulative, signed 24 bits
	HighestSeq   uint32 // extended
	Jitter       uint32 // timestamp units
	LSR          uint32 // middle 32 bits of the NTP time of the last SR received, 0 when none was
	DLSR         uint32 // since then, 1/65536 s
}

// VoIPMetrics is an XR VoIP metrics block (RFC 3611, 4.7). Rates and densities are of 256; 127 stands for an unknown
// R factor, MOS or level.
type VoIPMetrics struct {
	Reporter, SSRC                               uint32
	LossRate, DiscardRate                        uint8
	BurstDensity, GapDensity                     uint8
	BurstMS, GapMS, RoundTripMS, EndSystemMS     uint16
	SignalLevel, NoiseLevel                      int8 // dBm
	RFactor, MOSLQ, MOSCQ                        uint8
	JitterBufferNominalMS, JitterBufferMaximumMS uint16
}

// ParseRTCP reads a compound RTCP packet. Packets in it that are unknown or malformed are skipped and counted, since
// the others are still good. With encrypted, or where the bytes can only be SRTCP, the result is Opaque. Errors wrap
// ErrNotRTCP.
func ParseRTCP(b []byte, encrypted bool) (*RTCP, error) {
	if len(b) < 8 || b[0]>>6 != 2 || b[1] < 192 || b[1] > 223 {
		return nil, notRTCP("%d bytes beginning %x", len(b), b[:min(len(b), 4)])
	}
	r := &RTCP{SSRC: binary.BigEndian.Uint32(b[4:])}
	if encrypted || !whole(b) {
		if !encrypted && !protected(b) {
			return nil, notRTCP("the lengths of its packets do not add up to its %d bytes", len(b))
		}
		r.Opaque = true
		return r, nil
	}
	for len(b) > 0 {
		n := size(b)
		if err := r.packet(b[:n]); err != nil {
			r.Skipped++
		}
		b = b[n:]
	}
	return r, nil
}

// size is the length of the first packet in b by its header, 0 when it is not there.
func size(b []byte) int {
	if len(b) < 4 || b[0]>>6 != 2 {
		return 0
	}
	if n := 4 * (1 + int(binary.BigEndian.Uint16(b[2:]))); n <= len(b) {
		return n
	}
	return 0
}

// whole says that b is packets from end to end.
func whole(b []byte) bool {
	for len(b) > 0 {
		n := size(b)
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// protected says that b may be SRTCP: a plain first header of an SR or RR whose length fits, and after the packets at
// least the index and a tag of 4 bytes (RFC 3711, 3.4).
func protected(b []byte) bool {
	n := 4 * (1 + int(binary.BigEndian.Uint16(b[2:])))
	return (b[1] == uint8(rtcp.TypeSenderReport) || b[1] == uint8(rtcp.TypeReceiverReport)) && n >= 8 && n+8 <= len(b)
}

// packet takes one packet of the compound.
func (r *RTCP) packet(b []byte) error {
	switch rtcp.PacketType(b[1]) {
	case rtcp.TypeSenderReport:
		return r.senderReport(b)
	case rtcp.TypeReceiverReport:
		var p rtcp.ReceiverReport
		if err := p.Unmarshal(b); err != nil {
			return err
		}
		r.blocks(p.SSRC, p.Reports)
	case rtcp.TypeSourceDescription:
		return r.description(b)
	case rtcp.TypeGoodbye:
		var p rtcp.Goodbye
		if err := p.Unmarshal(b); err != nil {
			return err
		}
		r.Bye = append(r.Bye, p.Sources[:min(len(p.Sources), maxBlocks-min(len(r.Bye), maxBlocks))]...)
	case rtcp.TypeApplicationDefined, rtcp.TypeTransportSpecificFeedback, rtcp.TypePayloadSpecificFeedback:
		// Nothing in them is about quality.
	case rtcp.TypeExtendedReport:
		return r.extended(b)
	default:
		return notRTCP("packet type %d", b[1])
	}
	return nil
}

func (r *RTCP) senderReport(b []byte) error {
	var p rtcp.SenderReport
	if err := p.Unmarshal(b); err != nil {
		return err
	}
	if len(r.Senders) < maxBlocks {
		r.Senders = append(r.Senders, SenderReport{
			SSRC: p.SSRC, NTP: p.NTPTime, RTP: p.RTPTime, Packets: p.PacketCount, Octets: p.OctetCount,
		})
	}
	r.blocks(p.SSRC, p.Reports)
	return nil
}

func (r *RTCP) blocks(reporter uint32, reports []rtcp.ReceptionReport) {
	for i := range reports {
		p := &reports[i]
		if len(r.Blocks) == maxBlocks {
			return
		}
		r.Blocks = append(r.Blocks, Block{
			Reporter: reporter, SSRC: p.SSRC, FractionLost: p.FractionLost, Lost: signed24(p.TotalLost),
			HighestSeq: p.LastSequenceNumber, Jitter: p.Jitter, LSR: p.LastSenderReport, DLSR: p.Delay,
		})
	}
}

// signed24 gives the cumulative loss its sign, which pion/rtcp leaves out: duplicates make it negative.
func signed24(v uint32) int32 { return int32(v<<8) >> 8 }

func (r *RTCP) description(b []byte) error {
	var p rtcp.SourceDescription
	if err := p.Unmarshal(b); err != nil {
		return err
	}
	for _, c := range p.Chunks {
		for _, item := range c.Items {
			if item.Type == rtcp.SDESCNAME && r.CNAME == "" {
				r.CNAME = item.Text
			}
		}
	}
	return nil
}

func (r *RTCP) extended(b []byte) error {
	var p rtcp.ExtendedReport
	if err := p.Unmarshal(b); err != nil {
		return err
	}
	for _, block := range p.Reports {
		v, ok := block.(*rtcp.VoIPMetricsReportBlock)
		if !ok || len(r.Metrics) == maxBlocks {
			continue
		}
		r.Metrics = append(r.Metrics, VoIPMetrics{
			Reporter: p.SenderSSRC, SSRC: v.SSRC, LossRate: v.LossRate, DiscardRate: v.DiscardRate,
			BurstDensity: v.BurstDensity, GapDensity: v.GapDensity, BurstMS: v.BurstDuration, GapMS: v.GapDuration,
			RoundTripMS: v.RoundTripDelay, EndSystemMS: v.EndSystemDelay,
			SignalLevel: int8(v.SignalLevel), NoiseLevel: int8(v.NoiseLevel),
			RFactor: v.RFactor, MOSLQ: v.MOSLQ, MOSCQ: v.MOSCQ,
			JitterBufferNominalMS: v.JBNominal, JitterBufferMaximumMS: v.JBMaximum,
		})
	}
	return nil
}

func notRTCP(format string, args ...any) error {
	return fmt.Errorf("reading RTCP: %w: "+format, append([]any{ErrNotRTCP}, args...)...)
}
