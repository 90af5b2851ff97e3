package media

import (
	"bytes"
	"encoding/json"
	"strconv"
)

const (
	// ntpEpoch is 1970 in seconds since 1900.
	ntpEpoch = 2208988800
	// maxJSON bounds the JSON that is decoded: a report with 31 blocks has 6 KB.
	maxJSON = 64 << 10
	// maxText is the longest text of SDES (RFC 3550, 6.5).
	maxText = 255
)

// number is an integer as the agents write it: a number, a string, or an unsigned value that was printed as signed.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	b = bytes.Trim(b, `"`)
	if v, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		*n = number(v)
		return nil
	}
	if v, err := strconv.ParseFloat(string(b), 64); err == nil && v > -1<<62 && v < 1<<62 {
		*n = number(v)
	}
	return nil // null, "", or a word: as if it were not there
}

func (n number) u32() uint32 { return uint32(n) }

// limited is n between 0 and top.
func (n number) limited(top number) number { return min(max(n, 0), top) }

// report is the JSON of RTCP in HEP, as captagent made it and Asterisk (res_hep_rtcp), rtpengine, heplify and others
// write it.
type report struct {
	SSRC   number `json:"ssrc"`
	Type   number `json:"type"`
	Sender *struct {
		Sec     number `json:"ntp_timestamp_sec"`
		USec    number `json:"ntp_timestamp_usec"`
		RTP     number `json:"rtp_timestamp"`
		Packets number `json:"packets"`
		Octets  number `json:"octets"`
	} `json:"sender_information"`
	Blocks []struct {
		SSRC     number `json:"source_ssrc"`
		Fraction number `json:"fraction_lost"`
		Lost     number `json:"packets_lost"`
		Highest  number `json:"highest_seq_no"`
		Jitter   number `json:"ia_jitter"`
		LSR      number `json:"lsr"`
		DLSR     number `json:"dlsr"`
	} `json:"report_blocks"`
	Heplify   *heplifyXR   `json:"report_blocks_xr"`
	Captagent *captagentXR `json:"extended_report_information"`
	SDES      []struct {
		Type number `json:"type"`
		Text string `json:"text"`
	} `json:"sdes_information"`
}

// heplifyXR is the part of a VoIP metrics block that heplify sends; type is 0 when there was none.
type heplifyXR struct {
	Type     number `json:"type"`
	ID       number `json:"id"`
	Loss     number `json:"fraction_lost"`
	Discard  number `json:"fraction_discard"`
	BurstPt  number `json:"burst_density"`
	GapPt    number `json:"gap_density"`
	Burst    number `json:"burst_duration"`
	Gap      number `json:"gap_duration"`
	RTT      number `json:"round_trip_delay"`
	EndDelay number `json:"end_system_delay"`
}

// captagentXR is the VoIP metrics block as captagent sends it.
type captagentXR struct {
	Type     number `json:"type"`
	ID       number `json:"identifier"`
	Loss     number `json:"loss_rate"`
	Discard  number `json:"discard_rate"`
	BurstPt  number `json:"burst_rate"`
	GapPt    number `json:"gap_rate"`
	Burst    number `json:"burst_duration"`
	Gap      number `json:"gap_duration"`
	RTT      number `json:"round_trip_delay"`
	EndDelay number `json:"end_sys_delay"`
	Signal   number `json:"signal_lev"`
	Noise    number `json:"noise_lev"`
	R        number `json:"R_fact"`
	MOSLQ    number `json:"MOS_LQ"`
	MOSCQ    number `json:"MOS_CQ"`
	Nominal  number `json:"JB_nom"`
	Maximum  number `json:"JB_max"`
}

// voipMetrics is the block type of XR VoIP metrics (RFC 3611, 4.7).
const voipMetrics = 7

// ParseRTCPJSON reads the JSON form of RTCP that HEP agents send (HEP payload type 5). Numbers may be strings, and
// signed where RTCP has unsigned ones. The NTP time may be that of the SR, two 32-bit words, or seconds since 1970 and
// microseconds, as Asterisk sends it. Errors wrap ErrNotRTCP.
func ParseRTCPJSON(b []byte) (*RTCP, error) {
	if len(b) > maxJSON {
		return nil, notRTCP("JSON of %d bytes is over the limit of %d", len(b), maxJSON)
	}
	var j report
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, notRTCP("decoding the JSON form: %v", err)
	}
	if j.SSRC == 0 && j.Sender == nil && len(j.Blocks) == 0 {
		return nil, notRTCP("JSON without ssrc, sender_information and report_blocks: %.80s", b)
	}
	r := &RTCP{SSRC: j.SSRC.u32()}
	j.senderInto(r)
	j.blocksInto(r)
	j.metricsInto(r)
	for _, s := range j.SDES {
		if s.Type == 1 && r.CNAME == "" {
			r.CNAME = s.Text[:min(len(s.Text), maxText)]
		}
	}
	return r, nil
}

// senderInto adds the sender information, unless it is the zeros that heplify sends with an RR.
func (j *report) senderInto(r *RTCP) {
	s := j.Sender
	if s == nil || (s.Sec == 0 && s.Packets == 0 && s.RTP == 0) {
		return
	}
	r.Senders = []SenderReport{{
		SSRC: r.SSRC, NTP: ntp(s.Sec, s.USec), RTP: s.RTP.u32(), Packets: s.Packets.u32(), Octets: s.Octets.u32(),
	}}
}

// ntp makes an NTP time of either form. Seconds since 1970 stay below the NTP time of 1970 until 2039.
func ntp(sec, sub number) uint64 {
	if sec >= ntpEpoch || sec < 0 {
		return uint64(sec.u32())<<32 | uint64(sub.u32())
	}
	micros := uint64(sub.limited(999999))
	return uint64(sec+ntpEpoch)<<32 | (micros<<32+500000)/1000000
}

func (j *report) blocksInto(r *RTCP) {
	for _, b := range j.Blocks[:min(len(j.Blocks), maxBlocks)] {
		lost := b.Lost.limited(1<<24 - 1)
		if b.Lost < 0 {
			lost = max(b.Lost, -1<<23)
		}
		r.Blocks = append(r.Blocks, Block{
			Reporter: r.SSRC, SSRC: b.SSRC.u32(), FractionLost: uint8(b.Fraction.limited(255)), Lost: signed24(uint32(lost)),
			HighestSeq: b.Highest.u32(), Jitter: b.Jitter.u32(), LSR: b.LSR.u32(), DLSR: b.DLSR.u32(),
		})
	}
}

func (j *report) metricsInto(r *RTCP) {
	if x := j.Captagent; x != nil && x.Type == voipMetrics {
		r.Metrics = append(r.Metrics, VoIPMetrics{
			Reporter: r.SSRC, SSRC: x.ID.u32(), LossRate: u8(x.Loss), DiscardRate: u8(x.Discard),
			BurstDensity: u8(x.BurstPt), GapDensity: u8(x.GapPt), BurstMS: u16(x.Burst), GapMS: u16(x.Gap),
			RoundTripMS: u16(x.RTT), EndSystemMS: u16(x.EndDelay), SignalLevel: int8(x.Signal), NoiseLevel: int8(x.Noise),
			RFactor: u8(x.R), MOSLQ: u8(x.MOSLQ), MOSCQ: u8(x.MOSCQ),
			JitterBufferNominalMS: u16(x.Nominal), JitterBufferMaximumMS: u16(x.Maximum),
		})
	}
	if x := j.Heplify; x != nil && x.Type == voipMetrics {
		r.Metrics = append(r.Metrics, VoIPMetrics{
			Reporter: r.SSRC, SSRC: x.ID.u32(), LossRate: u8(x.Loss), DiscardRate: u8(x.Discard),
			BurstDensity: u8(x.BurstPt), GapDensity: u8(x.GapPt), BurstMS: u16(x.Burst), GapMS: u16(x.Gap),
			RoundTripMS: u16(x.RTT), EndSystemMS: u16(x.EndDelay),
			SignalLevel: unavailable, NoiseLevel: unavailable, RFactor: unavailable, MOSLQ: unavailable, MOSCQ: unavailable,
		})
	}
}

func u8(n number) uint8   { return uint8(n.limited(1<<8 - 1)) }
func u16(n number) uint16 { return uint16(n.limited(1<<16 - 1)) }
