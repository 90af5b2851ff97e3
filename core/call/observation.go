package call

// Kind says what an adapter saw happen to a leg.
type Kind uint8

// Observation kinds. The comment after each names the fields it uses beyond Leg, Link, At, Received and Native.
const (
	// LegCreated: a leg exists. Inbound, Parent, Number, Name, Dialed, User, Device, SIPCallID.
	LegCreated Kind = iota + 1
	// LegUpdated: more became known of it. Number, Name, Dialed, User, SIPCallID; empty fields change nothing.
	LegUpdated
	// LegAlerting: its party is being rung.
	LegAlerting
	// LegConnected: its party (or, for an inbound leg, the switch) answered.
	LegConnected
	// LegHeld: its party put the call on hold. A second one during the hold moves its beginning: to when the switch
	// agreed to it rather than when it was asked.
	LegHeld
	// LegRetrieved: its party took the call back.
	LegRetrieved
	// LegBridged: it joined bridge Bridge; Conference names the room when it is one.
	LegBridged
	// LegUnbridged: it left bridge Bridge.
	LegUnbridged
	// LegVariable: a configured channel variable or header. Reason is its name, Value its value.
	LegVariable
	// IVRPath: the menu path became Value.
	IVRPath
	// DTMFDigit: its party pressed Value; Count is the duration in ms.
	DTMFDigit
	// LegMedia: codec Value at Count Hz; Media has what else is known of it.
	LegMedia
	// LegReleasing: its party asked to hang up (BYE, CANCEL). Nothing is cleared yet.
	LegReleasing
	// LegCleared: it is over; the call ends with its last leg. Q850, SIP, ByParty; Value is the switch's own word for the
	// cause; Unseen says that who ended it is not told.
	LegCleared
	// QueueEnter: it entered Queue at position Count.
	QueueEnter
	// QueueLeave: it left Queue with result Value (answered, abandoned, timeout, transferred).
	QueueLeave
	// AgentOffer: Agent of Queue is being offered Leg's call; Other is the agent's leg where known.
	AgentOffer
	// AgentAccept, AgentReject, AgentTimeout: how that offer ended.
	AgentAccept
	AgentReject
	AgentTimeout
	// AgentStateChange: Agent is now Value (logged_in, …), with Reason, in Queue. Other is the agent's full name where
	// that says more (a domain). No leg.
	AgentStateChange
	// TransferDone: Leg's party passed the call on. Value is blind or attended, Dialed the target number; for
	// attended, Other is the transferring party's second leg.
	TransferDone
	// Diverted: Leg's party sent the call on to Dialed; Other is who did, when it was somebody else, before the call came here.
	Diverted
	// SnapshotLeg: a leg found in the switch's snapshot: LegCreated's fields, and Value its state: initiated (or later:
	// nothing is claimed), alerting, up (connected; whether on hold is not told), connected (and not on hold), held.
	// Bridge is the bridge it is in, none when empty; Unseen says that its bridge is not told. Reason is NeverBridged
	// where the switch says so.
	SnapshotLeg
	// SnapshotEnd: the snapshot is complete; legs of this switch that it did not name are gone, since At at the latest.
	// Value says how it was put in order with the events: by a mark in their stream (event), by the switch's sequence
	// numbers (sequence), or by times alone (time). No leg.
	SnapshotEnd
	// LinkDown: nobody listens to this switch any more; its calls become unknown until a snapshot. No leg.
	LinkDown
	// LinkGap: native events were, or may have been, lost inside a session: the switch's calls are less complete. No leg.
	LinkGap
	// LegQuality: what was measured of one of its RTP streams. Quality.
	LegQuality
	// SnapshotKept: events that came while the snapshot was taken speak of the leg; that the snapshot does not name it
	// says nothing. Value is the state that they found it in, as SnapshotLeg's, and Bridge where; they may be empty. A leg
	// that is not known stays so.
	SnapshotKept
	// QueueSnapshotEnd: the switch has named, by QueueEnter, all who wait in its queues; others have left. No leg.
	QueueSnapshotEnd
)

// NeverBridged is SnapshotLeg's Reason for a leg that has never talked to another.
const NeverBridged = "never bridged"

// OfSnapshot reports whether k is a part of a switch's answer to what there is, rather than of what happens.
func (k Kind) OfSnapshot() bool {
	switch k {
	case SnapshotLeg, SnapshotEnd, SnapshotKept, QueueSnapshotEnd:
		return true
	}
	return false
}

// Observation is one thing an adapter saw. Adapters decide nothing about calls; they say what happened to which leg,
// when by the switch's clock, and what native event said so.
type Observation struct {
	Kind      Kind
	Leg       string // the switch's own leg id
	Link      string // the switch's own id of the leg's call: the native id of its first leg, when known
	Other     string
	Parent    string // the leg that caused this one
	At        Time   // switch time
	Received  Time   // our time
	Native    Native
	Synthetic bool // from a snapshot or guessed at a time-out
	Feed      Feed // which of the link's connections told of it

	Inbound   bool
	Local     bool // LegCreated: its party logged in as a user of this switch
	Unseen    bool // LegCreated: inferred from something later; its beginning was not seen. LegCleared: who did it was not. SnapshotLeg: its bridge is not told
	Forward   bool // LegCreated: the switch follows a diversion with this leg; Dialed is its target
	ByParty   bool
	Number    string // what the leg's party calls itself
	Name      string
	Dialed    string
	User      string // directory user or endpoint: agent1
	Device    string // PJSIP/agent1, sofia/internal/agent1@…
	SIPCallID string
	// Correlation is the value of a configured header: legs of any switch that carry the same belong to one interaction.
	Correlation string
	// Evidence says how Parent or Link was found where the switch does not tell.
	Evidence string

	Bridge     string
	Conference string
	Queue      string
	Agent      string
	Reason     string
	Value      string
	Count      int
	Q850       int
	SIP        int
	Media      *Media
	Quality    *Quality
}

// Feed is one of a link's connections to its switch. Order is kept within each only: one may stand still while another goes
// on.
type Feed uint8

// Feeds are how many connections a link has at most.
const Feeds = 2

// Key names the native event, and what was seen in it of which leg, alike for every reader of the switch; 0 when it has no
// identity of its own. Two observations of one frame may share it.
func (o *Observation) Key() uint64 {
	if o.Native.ID == "" && o.Native.Seq == 0 {
		return 0
	}
	direction := ""
	if o.Media != nil {
		direction = o.Media.Direction
	}
	return digest64(o.Kind, o.Native.Seq, o.Native.ID, o.Leg, o.Value, o.Reason, direction)
}
