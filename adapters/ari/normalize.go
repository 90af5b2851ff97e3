package ari

import (
	"cmp"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// normalizer turns the ARI events and AMI messages of one link into observations. It does no I/O and reads no clock.
//
// What a channel's creation lacks (SIP Call-ID, caller, who dialed it) comes a few events later, within a millisecond,
// so a creation is held back until then: at most until the switch tells of something holdFor later, or holdSilent.
type normalizer struct {
	opt     options
	count   func(name string, n int)
	chans   map[string]*chanState
	pending map[string]*chanState // whose creation is held back
	latest  call.Time             // ARI: the switch's time of the latest event
	gone    []string              // destroyed channels, oldest first, remembered for what AMI says late
	dialEnd map[string]string     // AMI: how the dial to a channel ended
	waiting []waitingAMI          // AMI: about channels that ARI has not shown yet
	paused  map[string]string     // AMI: agents on a break, and why
	leaving []string              // AMI: channels that left a queue for a reason not told yet

	decoder  decoder
	quickly  quickIndex
	out      []call.Observation
	native   call.Native
	raw      []byte // AMI: the message that is being read
	at       call.Time
	received call.Time
	ahead    call.Time // the switch's clock before ours, where a message tells no time
	since    call.Time // AMI: when it was first heard, or began anew
	asked    call.Time // AMI: when all who wait in queues had been told
}

// options are what of the configuration matters to normalizing.
type options struct {
	IVRVariable string   // the channel variable that holds the menu path; default IVR_PATH
	Variables   []string // channel variables to carry into attributes
}

// chanState is what must be remembered of a channel.
type chanState struct {
	held    bool // creation not emitted yet
	early   bool // it was emitted before what completes it came
	inbound bool
	root    bool // outbound, and nobody's second leg: a call began with it
	gone    bool
	ghost   bool // it was over when the snapshot was taken, and events still speak of it
	named   bool // its own caller id is known
	dialed  bool // what it dials is known
	sip     bool // its SIP Call-ID is known
	id      string
	codec   string
	rate    int
	codecAt call.Time
	create  *call.Observation // while held
	since   call.Time         // when it was received
	told    call.Time         // and when the switch told of it
	leftAt  call.Time         // AMI: when it left its queue, until the reason is known
	leftRx  call.Time         // and when that was received
	queue   string
	found   string // its state when first heard of, while held
}

const (
	holdFor     = 20 * call.Millisecond  // by the switch's time
	holdSilent  = 150 * call.Millisecond // by ours, while the switch says nothing: its messages may be under way
	waitForARI  = 200 * call.Millisecond
	maxGone     = 4096
	maxWaiting  = 4096
	maxChannels = 1 << 20
)

// newNormalizer makes one; count is told of unknown types.
func newNormalizer(opt options, count func(name string, n int)) *normalizer {
	if opt.IVRVariable == "" {
		opt.IVRVariable = "IVR_PATH"
	}
	return &normalizer{
		opt: opt, count: count, chans: map[string]*chanState{}, pending: map[string]*chanState{}, dialEnd: map[string]string{},
		quickly: newQuickIndex(), paused: map[string]string{},
	}
}

// event reads one ARI event. An error means that the bytes are not an ARI event; they belong in the dead-letter stream.
func (n *normalizer) event(raw []byte, received call.Time) (core.Frame, error) {
	f := core.Frame{Raw: raw, Received: received}
	if n.quick(raw) {
		f.Type = "ChannelVarset"
		return f, nil
	}
	ev, err := n.decoder.decode(raw)
	if err != nil {
		return f, err
	}
	f.Type = ev.Type
	n.begin(ev.Type, parseTime(ev.Timestamp), received)
	n.latest = n.at
	n.observe(ev)
	n.identify(raw, ev.Application)
	f.Observations = n.out
	return f, nil
}

func (n *normalizer) begin(native string, at, received call.Time) {
	n.out, n.native, n.at, n.received = nil, call.Native{Type: native}, at, received
	if n.at == 0 {
		n.at = received
	}
}

// identify gives the observations of one message its digest as their native id, but for those that have one.
func (n *normalizer) identify(raw []byte, application string) {
	if len(n.out) == 0 {
		return
	}
	id := digest(raw, application)
	for i := range n.out {
		if n.out[i].Native.ID == "" {
			n.out[i].Native.ID = id
		}
	}
}

// emit queues an observation about a channel.
func (n *normalizer) emit(kind call.Kind, leg string, set ...func(*call.Observation)) {
	o := call.Observation{Kind: kind, Leg: leg, At: n.at, Received: n.received, Native: n.native}
	for _, f := range set {
		f(&o)
	}
	n.out = append(n.out, o)
}

// observe turns one event into observations.
func (n *normalizer) observe(ev *event) {
	switch ev.Type {
	case "Dial":
		n.dial(ev)
		return
	case "BridgeBlindTransfer":
		n.blindTransfer(ev)
		return
	case "BridgeAttendedTransfer":
		n.attendedTransfer(ev)
		return
	}
	if ev.Channel == nil {
		n.unknown(ev.Type)
		return
	}
	c := n.see(ev.Channel, ev.Type)
	if c == nil {
		return
	}
	n.channelEvent(ev, c)
	n.media(ev.Channel, c)
}

// plain are the event types that say nothing of a leg.
var plain = map[string]bool{
	"DeviceStateChanged": true, "BridgeCreated": true, "BridgeDestroyed": true, "BridgeMerged": true, "ChannelDialplan": true,
	"ChannelConnectedLine": true, "ChannelCallerId": true, "ChannelCreated": true, "ChannelVarset": true, "StasisStart": true,
	"StasisEnd": true, "EndpointStateChange": true, "PeerStatusChange": true, "ContactStatusChange": true,
	"PlaybackStarted": true, "PlaybackFinished": true, "PlaybackContinuing": true, "ChannelUserevent": true,
	"ChannelTalkingStarted": true, "ChannelTalkingFinished": true, "RecordingStarted": true, "RecordingFinished": true,
	"RecordingFailed": true, "ApplicationReplaced": true, "TextMessageReceived": true, "BridgeVideoSourceChanged": true,
	"ChannelToneDetected": true, "ApplicationRegistered": true, "ApplicationUnregistered": true, "ChannelTransfer": true,
	"ApplicationMoveFailed": true, "ChannelUnhold": true, "ChannelHold": true, "RESTResponse": true,
}

func (n *normalizer) unknown(typ string) {
	if !plain[typ] {
		n.count("unknown_type", 1)
	}
}

// channelEvent handles the events about one channel.
func (n *normalizer) channelEvent(ev *event, c *chanState) {
	switch ev.Type {
	case "ChannelStateChange":
		n.stateChange(ev.Channel, c)
	case "ChannelHold":
		n.emit(call.LegHeld, c.id)
	case "ChannelUnhold":
		n.emit(call.LegRetrieved, c.id)
	case "ChannelEnteredBridge":
		n.bridged(call.LegBridged, ev.Bridge, c)
	case "ChannelLeftBridge":
		n.bridged(call.LegUnbridged, ev.Bridge, c)
	case "ChannelDtmfReceived":
		n.emit(call.DTMFDigit, c.id, func(o *call.Observation) { o.Value, o.Count = ev.Digit, ev.DurationMS })
	case "ChannelVarset":
		n.varset(ev, c)
	case "ChannelHangupRequest":
		if !ev.Soft {
			n.emit(call.LegReleasing, c.id)
		}
	case "ChannelDestroyed":
		n.emit(call.LegCleared, c.id, func(o *call.Observation) { o.Q850, o.SIP = ev.Cause, ev.TechCause })
		n.destroyed(c)
	case "ChannelDialplan":
		n.learn(ev.Channel, c)
		n.dialplan(ev, c)
	case "ChannelCallerId":
		n.learn(ev.Channel, c)
	default:
		n.unknown(ev.Type)
	}
}

func (n *normalizer) stateChange(ch *channel, c *chanState) {
	switch ch.State {
	case "Ringing":
		if !c.inbound {
			n.emit(call.LegAlerting, c.id)
		}
	case "Up":
		n.emit(call.LegConnected, c.id)
	}
}

func (n *normalizer) bridged(kind call.Kind, b *bridge, c *chanState) {
	if b == nil || b.Type == "holding" {
		return
	}
	n.emit(kind, c.id, func(o *call.Observation) { o.Bridge, o.Conference = b.key(), b.conference() })
}

// varset handles nine of ten events: most variables say nothing of a call.
func (n *normalizer) varset(ev *event, c *chanState) {
	name := strings.TrimLeft(ev.Variable, "_")
	if name == n.opt.IVRVariable {
		n.emit(call.IVRPath, c.id, func(o *call.Observation) { o.Value = ev.Value })
	}
	for _, v := range n.opt.Variables {
		if v == name {
			n.emit(call.LegVariable, c.id, func(o *call.Observation) { o.Reason, o.Value = name, ev.Value })
		}
	}
}

// dialplan: a caller is in a conference from the application on, not from the end of its announcements.
func (n *normalizer) dialplan(ev *event, c *chanState) {
	room, _, _ := strings.Cut(ev.AppData, ",")
	if ev.App == "ConfBridge" && room != "" {
		n.emit(call.LegBridged, c.id, func(o *call.Observation) { o.Bridge, o.Conference = conferenceKey(room), room })
	}
}

// learn completes what is known of the leg that a call began with.
func (n *normalizer) learn(ch *channel, c *chanState) {
	if c.held || !c.root {
		return
	}
	var o call.Observation
	if !c.named && ch.Caller.Number != "" {
		c.named, o.Number, o.Name = true, ch.Caller.Number, ch.Caller.Name
	}
	if e := ch.Dialplan.Exten; !c.dialed && dialedExten(e) {
		c.dialed, o.Dialed = true, e
	}
	if o.Number != "" || o.Dialed != "" {
		n.emit(call.LegUpdated, c.id, func(x *call.Observation) { x.Number, x.Name, x.Dialed = o.Number, o.Name, o.Dialed })
	}
}

// dialedExten tells a number somebody dialed from Asterisk's special extensions.
func dialedExten(e string) bool { return e != "" && e != "s" && e != "h" && e != "i" && e != "t" }

// media reports a change of codec.
func (n *normalizer) media(ch *channel, c *chanState) {
	name, rate := ch.codec()
	if !c.held && !c.gone {
		n.quickly.put(c.id, ch.Vars.Native)
	}
	if name == "" || c.held || name == c.codec && rate == c.rate || n.at <= c.codecAt {
		return // the last: events are not in the order of their times, and an older one shows an older codec
	}
	c.codec, c.rate, c.codecAt = name, rate, n.at
	n.emit(call.LegMedia, c.id, func(o *call.Observation) { o.Value, o.Count = name, rate })
}

// dial handles Dial: who calls whom, and a diversion being followed.
func (n *normalizer) dial(ev *event) {
	if ev.Caller != nil {
		n.see(ev.Caller, ev.Type)
	}
	if ev.Peer == nil {
		return
	}
	peer := n.know(ev.Peer, ev.Type)
	if peer == nil {
		return
	}
	peer.early = false
	if peer.held {
		if ev.Caller != nil {
			peer.create.Parent = ev.Caller.ID
		}
		if t := dialTarget(ev.DialString); t != "" {
			peer.create.Dialed = t
		}
		n.release(peer)
	}
	if ev.Forward != "" {
		n.forward(ev, peer)
	}
	n.media(ev.Peer, peer)
}

// forward handles a dial that the peer answered with a diversion, and the leg that follows it.
func (n *normalizer) forward(ev *event, peer *chanState) {
	to := cmp.Or(dialTarget(ev.Forward), ev.Forward)
	n.emit(call.Diverted, peer.id, func(o *call.Observation) { o.Dialed = to })
	if ev.Forwarded == nil {
		return
	}
	if next := n.know(ev.Forwarded, ev.Type); next != nil && next.held {
		next.create.Forward, next.create.Dialed = true, to
		if ev.Caller != nil {
			next.create.Parent = ev.Caller.ID
		}
	}
}

func (n *normalizer) blindTransfer(ev *event) {
	if ev.Channel == nil || ev.Result != "Success" {
		return
	}
	if c := n.see(ev.Channel, ev.Type); c != nil {
		n.emit(call.TransferDone, c.id, func(o *call.Observation) { o.Value, o.Dialed = "blind", ev.Exten })
	}
}

func (n *normalizer) attendedTransfer(ev *event) {
	if ev.FirstLeg == nil || ev.Result != "Success" {
		return
	}
	c := n.see(ev.FirstLeg, ev.Type)
	if c == nil {
		return
	}
	n.emit(call.TransferDone, c.id, func(o *call.Observation) {
		o.Value = "attended"
		switch { // a feature code transfers with one channel: the target tells where to
		case ev.SecondLeg != nil && ev.SecondLeg.ID != ev.FirstLeg.ID:
			o.Other = ev.SecondLeg.ID
		case ev.Target != nil:
			_, o.Dialed = endpoint(ev.Target.Name)
			o.Dialed = cmp.Or(ev.Target.Caller.Number, o.Dialed)
		}
	})
}
