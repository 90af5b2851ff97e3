package call

// EventType is an event's name in the model; on the wire it is "cti." + name + ".v1".
type EventType string

// Event types of the model.
const (
	CallOffered     EventType = "call.offered"
	CallInitiated   EventType = "call.initiated"
	CallDiverted    EventType = "call.diverted"
	CallTransferred EventType = "call.transferred"
	CallConferenced EventType = "call.conferenced"
	CallMerged      EventType = "call.merged"
	CallUpdated     EventType = "call.updated"
	CallEnded       EventType = "call.ended"
	CallRecord      EventType = "call.record"

	ConnectionInitiated EventType = "connection.initiated"
	ConnectionAlerting  EventType = "connection.alerting"
	ConnectionConnected EventType = "connection.connected"
	ConnectionHeld      EventType = "connection.held"
	ConnectionRetrieved EventType = "connection.retrieved"
	ConnectionFailed    EventType = "connection.failed"
	ConnectionCleared   EventType = "connection.cleared"

	IVRStep      EventType = "ivr.step"
	DTMFReceived EventType = "dtmf.received"

	QueueEntered  EventType = "queue.entered"
	QueueLeft     EventType = "queue.left"
	AgentOffered  EventType = "agent.offered"
	AgentAccepted EventType = "agent.accepted"
	AgentRejected EventType = "agent.rejected"
	AgentNoAnswer EventType = "agent.no_answer"
	AgentState    EventType = "agent.state"

	MediaNegotiated EventType = "media.negotiated"
	MediaChanged    EventType = "media.changed"
	MediaQuality    EventType = "media.quality"

	SourceUp         EventType = "source.up"
	SourceDown       EventType = "source.down"
	SourceGap        EventType = "source.gap"
	SourceReconciled EventType = "source.reconciled"
	SourceClock      EventType = "source.clock"
)

// CloudType is the CloudEvents type attribute: cti.call.offered.v1.
func (t EventType) CloudType() string { return "cti." + string(t) + ".v1" }

// Freshness is the verdict on an event's age.
type Freshness string

// Verdicts; the thresholds are in core/fresh.
const (
	Fresh            Freshness = "fresh"
	Late             Freshness = "late"
	Stale            Freshness = "stale"
	Future           Freshness = "future"
	FreshnessUnknown Freshness = "unknown"
)

// EventTime holds an event's times as published: never rewritten, only measured.
type EventTime struct {
	Switch        Time      `json:"switch,omitzero"`     // when the switch says it happened
	Received      Time      `json:"received,omitzero"`   // when its bytes left our socket
	OffsetMS      float64   `json:"offset_ms"`           // switch clock minus ours, measured
	UncertaintyMS float64   `json:"uncertainty_ms"`      // half-width of that measurement
	AgeMS         float64   `json:"age_ms"`              // received minus switch, corrected by the offset
	Freshness     Freshness `json:"freshness,omitempty"` // verdict
}

// AgentInfo is the detail of agent.* events.
type AgentInfo struct {
	ID     string `json:"id"`
	State  string `json:"state,omitempty"`  // agent.state: logged_in, logged_out, ready, not_ready, busy, wrapup
	Reason string `json:"reason,omitempty"` // pause reason, as the agent gave it
	Queue  string `json:"queue,omitempty"`
}

// DTMF is the detail of dtmf.received.
type DTMF struct {
	Digit      string `json:"digit"`
	DurationMS int    `json:"duration_ms,omitempty"`
}

// Source is the detail of source.* events.
type Source struct {
	Version   string  `json:"version,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	From      Time    `json:"from,omitzero"`
	To        Time    `json:"to,omitzero"`
	OffsetMS  float64 `json:"offset_ms,omitempty"`
	StepMS    float64 `json:"step_ms,omitempty"`
	Calls     int     `json:"calls,omitempty"`     // calls in the snapshot
	Synthetic int     `json:"synthetic,omitempty"` // events the snapshot made
	Mark      string  `json:"mark,omitempty"`      // how snapshot and events were put in order: event, sequence, time
}

// Event is one canonical event. Fields with a json tag are the CloudEvents data; ID and Type travel as attributes.
// An Event and everything it points to is immutable once the Tracker or router has handed it out.
type Event struct {
	ID   string    `json:"-"`
	Type EventType `json:"-"`

	InteractionID string    `json:"interaction_id,omitempty"`
	CallID        string    `json:"call_id,omitempty"`
	ConnectionID  string    `json:"connection_id,omitempty"`
	Seq           uint64    `json:"seq,omitempty"` // per call: 1, 2, 3 … without holes; media.quality has none
	Switch        SwitchRef `json:"switch"`
	Native        Native    `json:"native"`
	Synthetic     bool      `json:"synthetic"`       // made up from a snapshot rather than seen
	Flags         []string  `json:"flags,omitempty"` // why to doubt it: transition, late, uncertain
	Cause         *Cause    `json:"cause,omitempty"`
	Time          EventTime `json:"time"`

	Party      *Party      `json:"party,omitempty"` // of connection_id
	Queue      *Queue      `json:"queue,omitempty"`
	Agent      *AgentInfo  `json:"agent,omitempty"`
	Transfer   *Transfer   `json:"transfer,omitempty"`
	Diversion  *Diversion  `json:"diversion,omitempty"`
	DTMF       *DTMF       `json:"dtmf,omitempty"`
	IVRPath    string      `json:"ivr_path,omitempty"`
	Media      *Media      `json:"media,omitempty"`
	Quality    *Quality    `json:"quality,omitempty"` // media.quality
	Conference *Conference `json:"conference,omitempty"`
	MergedInto string      `json:"merged_into,omitempty"` // call.merged
	Source     *Source     `json:"source,omitempty"`

	Call *Call `json:"call,omitempty"` // the whole call as it stands after the event
}

// Flags on events.
const (
	FlagTransition = "transition" // broke the transition table
	FlagLate       = "late"       // came after its connection or call had ended
	FlagUncertain  = "uncertain"  // part of what led to it was never seen
)
