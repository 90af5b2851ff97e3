package call

// ConnectionState is a CSTA connection state (ECMA-269, 6.1.5).
type ConnectionState string

// Connection states.
const (
	Null      ConnectionState = "null"
	Initiated ConnectionState = "initiated"
	Alerting  ConnectionState = "alerting"
	Connected ConnectionState = "connected"
	Held      ConnectionState = "held"
	Queued    ConnectionState = "queued"
	FailedC   ConnectionState = "failed"
)

// State is a call's state.
type State string

// Call states.
const (
	StateNew      State = "new"
	StateOffered  State = "offered"
	StateIVR      State = "ivr"
	StateQueued   State = "queued"
	StateAlerting State = "alerting"
	StateActive   State = "active"
	StateEnded    State = "ended"
	StateUnknown  State = "unknown" // after a blind interval, until the switch's snapshot settles it
)

type verdict uint8

const (
	illegal verdict = iota // flagged and counted; the state stays
	same                   // nothing new
	moves                  // the state changes
)

// transitions is the one table of allowed connection transitions. What is not in it is illegal.
var transitions = map[ConnectionState]map[ConnectionState]verdict{
	Null:      {Initiated: moves, Alerting: moves, Connected: moves, Queued: moves, Held: moves, FailedC: moves, Null: same},
	Initiated: {Initiated: same, Alerting: moves, Connected: moves, Queued: moves, Held: moves, FailedC: moves, Null: moves},
	Alerting:  {Initiated: same, Alerting: same, Connected: moves, Queued: moves, Held: moves, FailedC: moves, Null: moves},
	Connected: {Initiated: same, Connected: same, Held: moves, Queued: moves, Null: moves},
	Held:      {Initiated: same, Connected: moves, Held: same, Queued: moves, Null: moves},
	Queued:    {Initiated: same, Connected: moves, Held: moves, Queued: same, Null: moves},
	FailedC:   {Null: moves, FailedC: same},
}
