package call

// Quality is what was measured of one RTP stream: the detail of media.quality. Counters and statistics are those of
// From to To: one interval, or, when Final, the stream's whole life. Absent numbers are unknown or do not apply.
type Quality struct {
	Direction   string `json:"direction"`             // from_party: what the party sends; to_party: what is sent to it
	Final       bool   `json:"final,omitempty"`       // of the whole stream, after its end
	Stream      string `json:"stream,omitempty"`      // SSRC in hex; with Source and Destination it names the stream
	Source      string `json:"source,omitempty"`      // host:port it comes from
	Destination string `json:"destination,omitempty"` // host:port it goes to
	From        Time   `json:"from,omitzero"`
	To          Time   `json:"to,omitzero"`

	Codec          string  `json:"codec,omitempty"`           // of the payload type seen most, by the SDP or RFC 3551
	PayloadType    int     `json:"payload_type"`              // seen most
	NegotiatedType *int    `json:"negotiated_type,omitempty"` // by the SDP, where another one is sent
	ClockRate      int     `json:"clock_rate,omitempty"`      // of the RTP timestamps, Hz
	PTimeMS        float64 `json:"ptime_ms,omitempty"`        // of a packet, as sent
	Encrypted      bool    `json:"encrypted,omitempty"`       // SRTP: only its headers were read

	Packets     uint64  `json:"packets"` // received, without duplicates
	Bytes       uint64  `json:"bytes,omitempty"`
	Expected    uint64  `json:"expected"` // by the sequence numbers (RFC 3550, A.3)
	Lost        int64   `json:"lost"`     // Expected less Packets
	LossPercent float64 `json:"loss_percent"`
	Duplicates  uint64  `json:"duplicates,omitempty"`
	Reordered   uint64  `json:"reordered,omitempty"` // came after a later one
	Late        uint64  `json:"late,omitempty"`      // too late for a jitter buffer of JitterBufferMS
	Restarts    uint64  `json:"restarts,omitempty"`  // jumps of the sequence number that were no loss, and new SSRCs

	JitterMS       float64 `json:"jitter_ms"`                  // interarrival jitter (RFC 3550, A.8), mean over the packets
	MaxJitterMS    float64 `json:"max_jitter_ms,omitempty"`    // largest
	MaxGapMS       float64 `json:"max_gap_ms,omitempty"`       // longest time between two packets
	JitterBufferMS float64 `json:"jitter_buffer_ms,omitempty"` // assumed, for Late and MOS

	// Bursts and gaps of loss (RFC 3611, 4.7.2), Gmin 16: densities in percent, durations in ms, means.
	BurstDensity    float64 `json:"burst_density,omitempty"`
	GapDensity      float64 `json:"gap_density,omitempty"`
	BurstDurationMS float64 `json:"burst_duration_ms,omitempty"`
	GapDurationMS   float64 `json:"gap_duration_ms,omitempty"`
	Bursts          uint64  `json:"bursts,omitempty"`

	MOS     float64 `json:"mos,omitempty"`      // conversational, 1 to 4.5, by the E-model (ITU-T G.107; G.107.1 for wideband)
	RFactor float64 `json:"r_factor,omitempty"` // what MOS is made of: 0 to 93.2, to 129 for wideband
	DelayMS float64 `json:"delay_ms,omitempty"` // one way, assumed in RFactor: half the round trip, and the jitter buffer

	SilencePercent  *float64 `json:"silence_percent,omitempty"`  // of the audio, below -50 dBm0; G.711 only
	ClippingPercent *float64 `json:"clipping_percent,omitempty"` // of the samples, at full scale; G.711 only
	LevelDBM0       *float64 `json:"level_dbm0,omitempty"`       // of the audio that is not silent; G.711 only

	Flags    []string `json:"flags,omitempty"`    // no_media, one_way, unexpected_source, payload_type
	Sampling float64  `json:"sampling,omitempty"` // share of all streams that was measured, when not all were

	Remote *RemoteQuality `json:"remote,omitempty"` // what the far end says of it
}

// Flags on Quality.
const (
	FlagNoMedia          = "no_media"          // nothing was sent although it was agreed
	FlagOneWay           = "one_way"           // the other direction is silent although it was agreed
	FlagUnexpectedSource = "unexpected_source" // packets from an address that the SDP does not name were left out
	FlagPayloadType      = "payload_type"      // a payload type that was not agreed
)

// Directions of a stream, seen from the switch.
const (
	FromParty = "from_party"
	ToParty   = "to_party"
)

// RemoteQuality is a stream as its receiver reports it by RTCP (RFC 3550, 6.4; RFC 3611, 4.7), its latest report.
type RemoteQuality struct {
	At            Time    `json:"at,omitzero"`
	Lost          int64   `json:"lost"`
	LossPercent   float64 `json:"loss_percent"` // since the report before
	JitterMS      float64 `json:"jitter_ms"`
	RoundTripMS   float64 `json:"round_trip_ms,omitempty"`
	MOSLQ         float64 `json:"mos_lq,omitempty"` // XR VoIP metrics
	MOSCQ         float64 `json:"mos_cq,omitempty"`
	RFactor       float64 `json:"r_factor,omitempty"`
	BurstDensity  float64 `json:"burst_density,omitempty"` // percent
	GapDensity    float64 `json:"gap_density,omitempty"`
	EndSystemMS   float64 `json:"end_system_ms,omitempty"`
	SignalDBM     int     `json:"signal_dbm,omitempty"`
	NoiseDBM      int     `json:"noise_dbm,omitempty"`
	DiscardedPart float64 `json:"discarded_percent,omitempty"`
}
