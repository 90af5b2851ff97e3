package call

// SwitchRef names one switch link and the process behind it.
type SwitchRef struct {
	ID       string `json:"id"`                 // from the configuration
	Kind     string `json:"kind"`               // asterisk, freeswitch, sip
	Instance string `json:"instance,omitempty"` // Asterisk asterisk_id, FreeSWITCH Core-UUID
}

// Native says where an event came from in the switch's own words.
type Native struct {
	Type string `json:"type,omitempty"` // ChannelCreated, CHANNEL_ANSWER, QueueCallerJoin …
	ID   string `json:"id,omitempty"`   // the switch's id of the native event, or a digest of its content
	Seq  uint64 `json:"seq,omitempty"`  // the switch's sequence number, where it has one
}

// Cause is why a leg or a call was cleared, in the three vocabularies that meet in a call centre.
type Cause struct {
	CSTA string `json:"csta,omitempty"` // ECMA-269 event cause
	Q850 int    `json:"q850,omitempty"` // ITU-T Q.850, 1..127
	SIP  int    `json:"sip,omitempty"`  // final SIP status, 3xx..6xx
}

// Role is what a party is in a call.
type Role string

// Roles of a party.
const (
	RoleCaller     Role = "caller"
	RoleAgent      Role = "agent"
	RoleExternal   Role = "external"
	RoleIVR        Role = "ivr"
	RoleConference Role = "conference"
)

// Direction of a call, seen from the switch's owner.
type Direction string

// Directions of a call.
const (
	Inbound  Direction = "inbound"
	Outbound Direction = "outbound"
	Internal Direction = "internal"
)

// Outcome of a call (the caller's) or of one connection (its party's).
type Outcome string

// Outcomes.
const (
	Answered       Outcome = "answered"
	Abandoned      Outcome = "abandoned"
	Busy           Outcome = "busy"
	NoAnswer       Outcome = "no_answer"
	Rejected       Outcome = "rejected"
	Failed         Outcome = "failed"
	OutcomeUnknown Outcome = "unknown"
)

// Address is a number as given, with E.164 beside it where that can be derived.
type Address struct {
	Number string `json:"number,omitempty"`
	E164   string `json:"e164,omitempty"`
	Name   string `json:"name,omitempty"`
}

// Party is who is at the far end of a connection.
type Party struct {
	ID     string `json:"id,omitempty"` // user or extension, the same on every switch
	Role   Role   `json:"role,omitempty"`
	Number string `json:"number,omitempty"`
	E164   string `json:"e164,omitempty"`
	Name   string `json:"name,omitempty"`
	Device string `json:"device,omitempty"`
}

// Span is a stretch of time; To is zero while it lasts.
type Span struct {
	From Time `json:"from"`
	To   Time `json:"to,omitzero"`
}

// Media is what is known of a connection's audio. Codec is the one negotiated when the party connected; CodecsSeen
// lists all that followed it, in order.
type Media struct {
	Codec      string   `json:"codec,omitempty"`       // IANA name: PCMU, PCMA, G722, opus
	SampleRate int      `json:"sample_rate,omitempty"` // of the audio, Hz
	CodecsSeen []string `json:"codecs_seen,omitempty"`
	ClockRate  int      `json:"clock_rate,omitempty"` // of the RTP timestamps, Hz
	PTimeMS    int      `json:"ptime_ms,omitempty"`   // agreed length of a packet
	Direction  string   `json:"direction,omitempty"`  // agreed, seen from the party: sendrecv, sendonly, recvonly, inactive
	Encryption string   `json:"encryption,omitempty"` // srtp-sdes, srtp-dtls; absent when there is none or it is unknown

	// Measured of what the party sends, where packets are seen.
	Packets  uint64  `json:"packets,omitempty"`
	Lost     int64   `json:"lost,omitempty"`
	JitterMS float64 `json:"jitter_ms,omitempty"`
	MOS      float64 `json:"mos,omitempty"`
	// Streams are the final reports of the connection's streams, in both directions.
	Streams []Quality `json:"streams,omitempty"`
}

// Connection is one party's attachment to a call: one leg.
type Connection struct {
	ID          string          `json:"connection_id"`
	SIPCallID   string          `json:"sip_call_id,omitempty"`
	LinkedBy    string          `json:"linked_by,omitempty"` // evidence that it belongs to the call, where the switch does not tell
	Party       Party           `json:"party"`
	State       ConnectionState `json:"state"`
	Outcome     Outcome         `json:"outcome,omitempty"`
	OfferedAt   Time            `json:"offered_at,omitzero"`
	AlertingAt  Time            `json:"alerting_at,omitzero"`
	ConnectedAt Time            `json:"connected_at,omitzero"`
	ClearedAt   Time            `json:"cleared_at,omitzero"`
	Holds       []Span          `json:"holds,omitempty"`
	Cause       *Cause          `json:"cause,omitempty"`
	Media       *Media          `json:"media,omitempty"`
}

// Queue is a call's stay in a queue.
type Queue struct {
	ID        string `json:"id"`
	EnteredAt Time   `json:"entered_at,omitzero"`
	LeftAt    Time   `json:"left_at,omitzero"`
	Result    string `json:"result,omitempty"` // answered, abandoned, timeout, transferred
	Position  int    `json:"position,omitempty"`
}

// Transfer is one party passing the call on.
type Transfer struct {
	Kind   string `json:"kind"` // blind, attended
	By     string `json:"by,omitempty"`
	To     string `json:"to,omitempty"`
	At     Time   `json:"at"`
	Result string `json:"result,omitempty"`
}

// Diversion is one party sending an offered call elsewhere.
type Diversion struct {
	By string `json:"by,omitempty"`
	To string `json:"to,omitempty"`
	At Time   `json:"at"`
}

// Conference is the room a call met in.
type Conference struct {
	ID           string   `json:"id"`
	Participants []string `json:"participants,omitempty"`
}

// Durations are in whole milliseconds of switch time.
type Durations struct {
	RingMS  int64 `json:"ring_ms"`
	QueueMS int64 `json:"queue_ms"`
	TalkMS  int64 `json:"talk_ms"`
	HoldMS  int64 `json:"hold_ms"`
	TotalMS int64 `json:"total_ms"`
}

// Completeness says how far a call can be trusted.
type Completeness struct {
	Missing         []string `json:"missing,omitempty"`          // what was never seen: start, queue …
	SyntheticEvents int      `json:"synthetic_events,omitempty"` // events made up from a snapshot
	Gaps            int      `json:"gaps,omitempty"`             // blind intervals during the call
	Violations      int      `json:"violations,omitempty"`       // events that broke the transition table
	Late            int      `json:"late,omitempty"`             // observations that came after the leg or call had ended
}

// Call is a call as it stands, and, once ended, its record.
type Call struct {
	ID            string            `json:"call_id"`
	InteractionID string            `json:"interaction_id"`
	MergedInto    string            `json:"merged_into,omitempty"`
	Switch        SwitchRef         `json:"switch"`
	State         State             `json:"state"`
	Direction     Direction         `json:"direction,omitempty"`
	From          *Address          `json:"from,omitempty"`
	To            *Address          `json:"to,omitempty"`
	StartedAt     Time              `json:"started_at,omitzero"`
	OfferedAt     Time              `json:"offered_at,omitzero"`
	AnsweredAt    Time              `json:"answered_at,omitzero"`
	EndedAt       Time              `json:"ended_at,omitzero"`
	Outcome       Outcome           `json:"outcome,omitempty"`
	HangupBy      string            `json:"hangup_by,omitempty"`
	Cause         *Cause            `json:"cause,omitempty"`
	Queue         *Queue            `json:"queue,omitempty"`
	IVRPath       string            `json:"ivr_path,omitempty"`
	Digits        string            `json:"digits,omitempty"`
	Attributes    map[string]string `json:"attributes,omitempty"`
	Connections   []*Connection     `json:"connections,omitempty"`
	Transfers     []Transfer        `json:"transfers,omitempty"`
	Diversions    []Diversion       `json:"diversions,omitempty"`
	Conference    *Conference       `json:"conference,omitempty"`
	Durations     *Durations        `json:"durations,omitempty"`
	Completeness  *Completeness     `json:"completeness,omitempty"`
}
