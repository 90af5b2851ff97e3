package call

// Options tune a Tracker; the zero value of each means its default.
type Options struct {
	// EndGrace is how long a call whose legs are all gone waits for the end of its stay in a queue, which may travel
	// on a second link (AMI). Default 250 ms.
	EndGrace Time
	// Linger is how long ended calls are remembered, so that what arrives late is recognized. Default 5 min.
	Linger Time
	// MaxEnded bounds how many are remembered. Default 50,000.
	MaxEnded int
	// SaveEnded bounds how many of them AppendState tells, the newest. Default 5,000.
	SaveEnded int
}

// Tracker makes calls, events and records of what adapters observe on legs, for every switch. It is not safe for
// concurrent use, reads no clock and does no I/O.
type Tracker struct {
	opt    Options
	now    Time // the latest Received seen
	legs   map[legKey]*leg
	roots  map[string]*tracked // active calls by call_id
	rooms  map[legKey]*room    // bridges with somebody in them
	sip    map[string]*leg     // by SIP Call-ID and correlation value: what joins calls into interactions
	agents map[legKey]string   // known agents of each switch, and their last state
	order  uint64              // of creation, to tell older from younger at equal times
	merges uint64              // calls that were merged

	first, last *tracked // active calls, oldest first
	active      int
	waiting     []*tracked // legs gone, queue still open
	ended       []tombstone
	spent       spentIDs
	blindDue    Time
	instances   map[string]string // by switch: the process its calls belong to
	endedHead   int

	sw  SwitchRef
	out []*Event
}

type legKey struct{ sw, id string }

// leg is a connection with what the tracker must remember to maintain it.
type leg struct {
	key         legKey
	c           *tracked
	conn        *Connection
	epoch       uint32 // of c when conn was last copied: an older one is in a published event
	inbound     bool
	cleared     bool
	standing    bool // its agent waited alone when this call met the leg
	inferred    bool // its creation was not seen
	seen        bool // in the snapshot being read
	lost        bool // it ended unseen
	bridge      *room
	dialed      string
	correlation string
	agreed      *Media // the latest
	joined      Time   // when it became part of c
	release     Time   // when its party asked to hang up
	mark        uint32 // its number in the state being saved
}

// tracked is an active call.
type tracked struct {
	call       Call
	legs       []*leg
	shedLegs   []*leg // dropped from legs, to be forgotten with the call
	first      *leg
	live       int // legs not gone
	seq        uint64
	epoch      uint32 // counts snapshots, from 1
	settled    State  // as derived from legs and queue
	dirty      bool   // settled is to be derived anew
	order      uint64
	answering  bool // a second party is or was connected
	queueOpen  bool
	queued     bool // once ended: it had been in a queue
	queueMS    int64
	blind      bool // nobody listens; state unknown
	blindAt    Time
	backAt     Time // when the latest snapshot was complete
	passed     bool // a blind interval, and the snapshot has not settled what happened in it
	waits      bool // in a queue, as heard in this session
	unsure     bool // somebody may have answered unseen
	headless   bool // its first leg was gone before it was seen
	uncertain  bool // part of what led here was never seen
	synthetic  int
	violations int
	late       int
	gaps       int
	missing    []string
	hangup     *leg
	hangupOpen bool // a leg was cleared, and by whom is not told
	endDue     Time
	done       bool
	recent     [32]uint64 // native events already applied, for those that are not idempotent
	recentN    int
	prev, next *tracked
	mark       uint32 // its number in the state being saved
}

// tombstone is what remains of an ended call.
type tombstone struct {
	due  Time
	c    *tracked
	legs []*leg
}

type room struct {
	id   legKey
	legs []*leg
	mark uint32 // its number in the state being saved
}

// NewTracker returns an empty tracker.
func NewTracker(o Options) *Tracker {
	if o.EndGrace == 0 {
		o.EndGrace = 250 * Millisecond
	}
	if o.Linger == 0 {
		o.Linger = 300 * Second
	}
	if o.MaxEnded == 0 {
		o.MaxEnded = 50_000
	}
	if o.SaveEnded == 0 {
		o.SaveEnded = 5_000
	}
	return &Tracker{
		opt: o, legs: map[legKey]*leg{}, roots: map[string]*tracked{}, rooms: map[legKey]*room{},
		sip: map[string]*leg{}, agents: map[legKey]string{},
		instances: map[string]string{}, spent: newSpentIDs(o.MaxEnded * 4),
	}
}

// Active returns how many calls are in progress.
func (t *Tracker) Active() int { return t.active }

// Calls returns the calls in progress as they stand, oldest first.
func (t *Tracker) Calls() []*Call {
	out := make([]*Call, 0, t.active)
	for c := t.first; c != nil; c = c.next {
		out = append(out, c.snapshot())
	}
	return out
}

// Apply takes one observation and returns the events it makes, in order. A call that ends gives call.ended and then
// call.record, its last. The events belong to the caller and are never changed afterwards.
func (t *Tracker) Apply(sw SwitchRef, o Observation) []*Event {
	t.sw, t.out = sw, nil
	t.now = max(t.now, o.Received)
	if o.At == 0 {
		o.At = o.Received
	}
	o.clip()
	t.newInstance(&o)
	switch o.Kind {
	case AgentStateChange:
		t.agentState(&o)
	case SnapshotEnd:
		t.snapshotEnd(&o)
	case QueueSnapshotEnd:
		t.queueSnapshotEnd(&o)
	case LinkDown:
		t.linkDown()
	case LinkGap:
		t.linkGap()
	default:
		if l := t.find(&o); l == nil {
			t.unknownLeg(&o)
		} else {
			t.handle(l, &o)
		}
	}
	return t.out
}

// handle applies o to l unless it is a repetition, and settles what follows for the call.
func (t *Tracker) handle(l *leg, o *Observation) {
	h, c := o.Kind.handler(), l.c
	if h == nil {
		return
	}
	if c.done {
		t.afterEnd(l, o)
		return
	}
	if o.Kind.once() && c.repeated(o) {
		return
	}
	if !o.Synthetic {
		c.blind = false // somebody listens again
	}
	h(t, l, o)
	t.settle(l.c, o)
}

// handler is what applies an observation of kind k to a known leg; nil when there is none.
func (k Kind) handler() func(*Tracker, *leg, *Observation) {
	switch k {
	case LegCreated:
		return (*Tracker).createdAgain
	case LegUpdated:
		return (*Tracker).updated
	case LegAlerting:
		return (*Tracker).alerting
	case LegConnected:
		return (*Tracker).connected
	case LegHeld:
		return (*Tracker).held
	case LegRetrieved:
		return (*Tracker).retrieved
	case LegBridged:
		return (*Tracker).bridged
	case LegUnbridged:
		return (*Tracker).unbridged
	case LegVariable:
		return (*Tracker).variable
	case IVRPath:
		return (*Tracker).ivrPath
	case DTMFDigit:
		return (*Tracker).dtmf
	case LegMedia:
		return (*Tracker).media
	case LegQuality:
		return (*Tracker).quality
	case LegReleasing:
		return (*Tracker).releasing
	case LegCleared:
		return (*Tracker).clear
	case QueueEnter:
		return (*Tracker).queueEnter
	case QueueLeave:
		return (*Tracker).queueLeave
	case AgentOffer, AgentAccept, AgentReject, AgentTimeout:
		return (*Tracker).agentEvent
	case TransferDone:
		return (*Tracker).transferred
	case Diverted:
		return (*Tracker).diverted
	case SnapshotLeg:
		return (*Tracker).snapshotKnown
	case SnapshotKept:
		return (*Tracker).snapshotKept
	}
	return nil
}

// once says that a kind is not idempotent, so a repeated native event must be recognized.
func (k Kind) once() bool {
	switch k {
	case DTMFDigit, AgentOffer, AgentAccept, AgentReject, AgentTimeout, TransferDone, Diverted, LegHeld, LegRetrieved,
		QueueEnter, QueueLeave, LegBridged, LegUnbridged, LegMedia, LegQuality, IVRPath, LegVariable:
		return true
	}
	return false
}

// repeated notes o's native event and reports whether it had been applied to this call before.
func (c *tracked) repeated(o *Observation) bool {
	d := o.Key()
	if d == 0 {
		return false
	}
	for _, r := range c.recent {
		if r == d {
			return true
		}
	}
	c.recent[c.recentN%len(c.recent)] = d
	c.recentN++
	return false
}

func (t *Tracker) find(o *Observation) *leg { return t.legs[legKey{t.sw.ID, o.Leg}] }

// unknownLeg handles what is said of a leg never seen before. Only its creation counts: an adapter that joins a call in
// the middle says so by LegCreated with Unseen. Anything else is about a channel that is no party.
func (t *Tracker) unknownLeg(o *Observation) {
	switch o.Kind {
	case LegCreated:
		t.created(o)
	case SnapshotLeg:
		t.snapshotNew(o)
	}
}

// emit publishes one event of c. l may be nil.
func (t *Tracker) emit(c *tracked, typ EventType, l *leg, o *Observation) *Event {
	if typ != MediaQuality { // a stream of its own
		c.seq++
	}
	e := &Event{
		Type: typ, InteractionID: c.call.InteractionID, CallID: c.call.ID, Seq: c.seq, Switch: c.call.Switch,
		Native: o.Native, Synthetic: o.Synthetic, Time: EventTime{Switch: o.At, Received: o.Received},
	}
	subject := c.call.ID
	if l != nil {
		e.ConnectionID = l.conn.ID
		subject = l.conn.ID
		p := l.conn.Party
		e.Party = &p
	}
	if o.Synthetic {
		c.synthetic++
	}
	if o.Synthetic && l != nil { // a snapshot may speak of a leg in two calls, one after the other
		subject = c.call.ID + "/" + subject
	}
	if typ == CallUpdated && o.Reason != "" { // one native event may set several variables
		subject += "/" + o.Reason
	}
	if c.uncertain && (typ == CallOffered || typ == CallInitiated || typ == CallEnded || typ == CallRecord) {
		e.Flags = append(e.Flags, FlagUncertain)
	}
	e.ID = EventID(e.Switch, o.Native, typ, subject)
	e.Call = c.snapshot()
	t.out = append(t.out, e)
	return e
}

// snapshot returns the call as it stands, sharing what will not change.
func (c *tracked) snapshot() *Call {
	c.call.State = c.state()
	s := c.call
	s.Connections = make([]*Connection, len(c.call.Connections))
	copy(s.Connections, c.call.Connections)
	c.epoch++ // every connection is shared now
	s.Completeness = c.completeness()
	return &s
}

func (c *tracked) completeness() *Completeness {
	if len(c.missing)+c.synthetic+c.gaps+c.violations+c.late == 0 {
		return nil
	}
	return &Completeness{
		Missing: c.missing, SyntheticEvents: c.synthetic, Gaps: c.gaps, Violations: c.violations, Late: c.late,
	}
}

// write returns l's connection for changing, copied first if an event shares it.
func (l *leg) write() *Connection {
	l.c.dirty = true
	if l.epoch == l.c.epoch {
		return l.conn
	}
	n := *l.conn
	for i, p := range l.c.call.Connections {
		if p == l.conn {
			l.c.call.Connections[i] = &n
		}
	}
	l.conn, l.epoch = &n, l.c.epoch
	return l.conn
}

// state is the call's state: derived from its legs and queue when something of them changed.
func (c *tracked) state() State {
	switch {
	case c.done:
		return StateEnded
	case c.blind:
		return StateUnknown
	case c.live == 0: // about to end
		return c.call.State
	case c.dirty || c.settled == "":
		c.settled, c.dirty = c.derive(), false
	}
	return c.settled
}

func (c *tracked) derive() State {
	switch {
	case c.has(Connected, true) || c.has(Held, true):
		return StateActive
	case c.has(Alerting, true) || (c.first != nil && c.first.conn.State == Alerting):
		return StateAlerting
	case c.queueOpen:
		return StateQueued
	case c.has(Connected, false) && c.answering: // between two parties
		return StateActive
	case c.has(Connected, false):
		return StateIVR
	case c.first != nil && c.first.inbound:
		return StateOffered
	}
	return StateNew
}

// has reports whether a live leg, only among second parties when second is true, is in state s.
func (c *tracked) has(s ConnectionState, second bool) bool {
	for _, l := range c.legs {
		if l.conn.State == s && !(second && !l.secondParty()) {
			return true
		}
	}
	return false
}

// secondParty reports whether l is somebody other than the call's first party: not an IVR, not a queue.
func (l *leg) secondParty() bool {
	return l != l.c.first && (l.conn.Party.Role == RoleAgent || l.conn.Party.Role == RoleExternal || l.conn.Party.Role == RoleCaller)
}
