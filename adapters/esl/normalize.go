package esl

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// normalizer turns the events of one event-socket link into observations. It does no I/O and reads no clock.
type normalizer struct {
	opt     options
	count   func(name string, n int)
	headers *headerSet
	watched []string // headers of variables
	settled bool     // the events that came with the snapshot are through
	legs    map[string]*legState
	agents  map[string]*agentState

	out      []call.Observation
	native   call.Native
	at       call.Time
	received call.Time
}

// options are what of the configuration matters to normalizing.
type options struct {
	IVRVariable string   // the channel variable that holds the menu path; default ivr_path
	Variables   []string // channel variables (without variable_) and SIP headers (sip_h_X-…) to carry into attributes
}

// legState is what must be remembered of a channel.
type legState struct {
	created   bool
	inbound   bool
	root      bool // nobody's second leg
	sipCallID string
	codec     string
	rate      int
	dest      string // Caller-Destination-Number at its creation
	dialed    bool
	asked     bool     // put on hold, and the switch has not agreed yet
	vars      []string // last values of the watched variables
	row       uint64   // Event-Sequence of its row in the snapshot
	ghost     bool     // it was over when the snapshot was taken, and events still speak of it
}

const maxLegs = 1 << 20

// newNormalizer makes one; count is told of unknown types.
func newNormalizer(opt options, count func(name string, n int)) *normalizer {
	if opt.IVRVariable == "" {
		opt.IVRVariable = "ivr_path"
	}
	watched := []string{"variable_" + opt.IVRVariable}
	for _, v := range opt.Variables {
		watched = append(watched, "variable_"+v)
	}
	return &normalizer{
		opt: opt, count: count, headers: newHeaderSet(watched...), watched: watched, legs: map[string]*legState{}, agents: map[string]*agentState{},
	}
}

// wanted are the events that say something of a leg or an agent, and what to do with each.
var wanted = map[string]func(*normalizer, *event, string, *legState){
	"CHANNEL_CREATE":           (*normalizer).nothing,
	"CHANNEL_ORIGINATE":        (*normalizer).nothing,
	"CHANNEL_PROGRESS":         (*normalizer).progress,
	"CHANNEL_PROGRESS_MEDIA":   (*normalizer).progress,
	"CHANNEL_ANSWER":           (*normalizer).answer,
	"CHANNEL_BRIDGE":           (*normalizer).bridge,
	"CHANNEL_UNBRIDGE":         (*normalizer).unbridge,
	"CHANNEL_HOLD":             (*normalizer).hold,
	"CHANNEL_UNHOLD":           (*normalizer).unhold,
	"CHANNEL_EXECUTE":          (*normalizer).execute,
	"CHANNEL_EXECUTE_COMPLETE": (*normalizer).nothing,
	"CHANNEL_PARK":             (*normalizer).nothing,
	"CHANNEL_UNPARK":           (*normalizer).nothing,
	"CHANNEL_HANGUP_COMPLETE":  (*normalizer).hangup,
	"CHANNEL_DESTROY":          (*normalizer).destroy,
	"CALL_UPDATE":              (*normalizer).nothing,
	"CODEC":                    (*normalizer).nothing,
	"DTMF":                     (*normalizer).dtmf,
	"CUSTOM":                   (*normalizer).custom,
}

func want(name string) bool { return wanted[name] != nil }

// event reads one event body: JSON when json is true, else plain. An error means that the bytes are not an event; they
// belong in the dead-letter stream.
func (n *normalizer) event(body []byte, json bool, received call.Time) (core.Frame, error) {
	f := core.Frame{Raw: body, Received: received}
	e, err := n.headers.parse(body, json, want)
	if err != nil {
		return f, err
	}
	f.Type = e.get("Event-Name")
	h := wanted[f.Type]
	if h == nil {
		return f, nil
	}
	n.begin(&e, f.Type, received)
	h(n, &e, e.get("Unique-ID"), n.see(&e, f.Type))
	f.Observations = n.out
	return f, nil
}

func (n *normalizer) begin(e *event, typ string, received call.Time) {
	seq, _ := strconv.ParseUint(string(e.raw("Event-Sequence")), 10, 64)
	n.out, n.native = nil, call.Native{Type: typ, Seq: seq}
	n.at, n.received = e.micros("Event-Date-Timestamp"), received
	if n.at == 0 {
		n.at = received
	}
}

// emit queues an observation about a leg.
func (n *normalizer) emit(kind call.Kind, leg string, set ...func(*call.Observation)) {
	o := call.Observation{Kind: kind, Leg: leg, At: n.at, Received: n.received, Native: n.native}
	for _, f := range set {
		f(&o)
	}
	n.out = append(n.out, o)
}

// see keeps track of the channel an event is about, and reports its creation and what else became known of it.
func (n *normalizer) see(e *event, typ string) *legState {
	id := e.get("Unique-ID")
	if id == "" || typ == "CUSTOM" && e.raw("Channel-Name") == nil {
		return nil
	}
	l := n.legs[id]
	if l == nil {
		if typ == "CHANNEL_DESTROY" || len(n.legs) >= maxLegs || strings.HasPrefix(e.get("Channel-Name"), "loopback/") {
			return nil
		}
		l = &legState{vars: make([]string, len(n.opt.Variables)+1)}
		n.legs[id] = l
	}
	if !l.created {
		if typ == "CODEC" || typ == "CALL_UPDATE" { // sent for a new inbound channel before its creation
			return l
		}
		unseen := typ != "CHANNEL_CREATE" && typ != "CHANNEL_ORIGINATE"
		n.create(e, id, l, unseen)
		if unseen && typ != "snapshot" {
			n.history(e, id, l, saidBy(typ, id))
		}
	}
	n.learn(e, id, l)
	return l
}

// saidBy is what an event of type typ says itself of a leg that is first heard of by it.
func saidBy(typ, id string) touches {
	switch typ {
	case "CHANNEL_PROGRESS", "CHANNEL_PROGRESS_MEDIA":
		return touches{id: {kinds: 1 << call.LegAlerting}}
	case "CHANNEL_ANSWER":
		return touches{id: {kinds: 1 << call.LegConnected}}
	case "CHANNEL_HOLD":
		return touches{id: {hold: call.LegHeld}}
	case "CHANNEL_UNHOLD":
		return touches{id: {hold: call.LegRetrieved}}
	}
	return nil
}

// past reports whether the event being read lies before the row that a snapshot had of l: what comes and goes is as the
// row says.
func (n *normalizer) past(l *legState) bool {
	return n.settled && n.native.Seq != 0 && n.native.Seq < l.row
}

// create reports a leg's beginning.
func (n *normalizer) create(e *event, id string, l *legState, unseen bool) {
	l.created, l.inbound, l.dest = true, e.get("Call-Direction") == "inbound", e.get("Caller-Destination-Number")
	o := call.Observation{
		Kind: call.LegCreated, Leg: id, At: n.at, Received: n.received, Native: n.native, Unseen: unseen,
		Inbound: l.inbound, Parent: parent(e), Number: e.get("Caller-Caller-ID-Number"), Name: e.get("Caller-Caller-ID-Name"),
		Dialed: l.dest, Device: device(e.get("Channel-Name")), SIPCallID: e.get("variable_sip_call_id"),
	}
	if u := e.get("Channel-Call-UUID"); u != id {
		o.Link = u
	}
	if unseen && e.micros("Caller-Channel-Created-Time") != 0 {
		o.At = e.micros("Caller-Channel-Created-Time")
	}
	o.User = e.get("variable_user_name") // of an inbound leg: who logged in
	o.Local = l.inbound && o.User != ""
	if !l.inbound {
		o.User = cmp.Or(e.get("variable_dialed_user"), l.dest)
		o.Dialed = cmp.Or(e.get("variable_dialed_user"), l.dest)
	}
	if unseen {
		unmoved(e, &o)
	}
	o.Unseen = unseen || n.ghost(o.Parent) || n.ghost(o.Link)
	l.sipCallID = o.SIPCallID
	l.root = o.Parent == "" && o.Link == ""
	n.out = append(n.out, o)
}

// ghost reports whether a leg was over before the snapshot: what it began is known in part alone.
func (n *normalizer) ghost(id string) bool {
	l := n.legs[id]
	return l != nil && l.ghost
}

// unmoved takes from the row of a channel that has been up for a while what it was at its beginning: transfers and answers
// have changed what the headers show that a new channel is read by.
func unmoved(e *event, o *call.Observation) {
	if o.Inbound {
		o.Dialed = cmp.Or(e.get("variable_sip_req_user"), o.Dialed)
		return
	}
	o.Number = cmp.Or(e.get("Caller-Orig-Caller-ID-Number"), o.Number)
	if e.get("variable_dialed_user") == "" {
		o.User, o.Dialed = cmp.Or(e.get("variable_sip_to_user"), userOf(o.Device), o.User), ""
		if o.Parent != "" || o.Link != "" { // the leg that a call began with has dialed nothing yet
			o.Dialed = o.User
		}
	}
}

// userOf is agent1 of sofia/internal/agent1@127.0.0.1.
func userOf(device string) string {
	if !strings.HasPrefix(device, "sofia/") {
		return ""
	}
	user, _, _ := strings.Cut(device[strings.LastIndexByte(device, '/')+1:], "@")
	return user
}

// parent is the leg that caused a new one: its originator, or the caller that a queue is finding an agent for.
func parent(e *event) string {
	if e.get("Other-Type") == "originator" {
		return e.get("Other-Leg-Unique-ID")
	}
	return e.get("variable_cc_member_session_uuid")
}

// device is a channel name without its port: sofia/internal/agent1@127.0.0.1.
func device(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, ']') && i > 0 {
		return name[:i]
	}
	return name
}

// learn reports what an event tells of its leg besides what happened: SIP Call-ID, codec, variables.
func (n *normalizer) learn(e *event, id string, l *legState) {
	if s := e.get("variable_sip_call_id"); s != "" && s != l.sipCallID {
		l.sipCallID = s
		n.emit(call.LegUpdated, id, func(o *call.Observation) { o.SIPCallID = s })
	}
	if c := e.raw("Channel-Read-Codec-Name"); len(c) > 0 && string(c) != "L16" { // L16 is how FreeSWITCH mixes, not what it sends
		if rate := e.int("Channel-Read-Codec-Rate"); string(c) != l.codec || rate != l.rate {
			l.codec, l.rate = string(c), rate
			n.emit(call.LegMedia, id, func(o *call.Observation) { o.Value, o.Count = l.codec, l.rate })
		}
	}
	if l.root {
		n.variables(e, id, l)
	}
}

// variables reports the watched variables of the leg a call began with, when they change.
func (n *normalizer) variables(e *event, id string, l *legState) {
	if v := e.raw("variable_" + n.opt.IVRVariable); len(v) > 0 && string(v) != l.vars[0] {
		l.vars[0] = string(v)
		n.emit(call.IVRPath, id, func(o *call.Observation) { o.Value = e.get("variable_" + n.opt.IVRVariable) })
	}
	for i, name := range n.opt.Variables {
		if v := e.raw("variable_" + name); len(v) > 0 && string(v) != l.vars[i+1] {
			l.vars[i+1] = string(v)
			n.emit(call.LegVariable, id, func(o *call.Observation) {
				o.Reason, o.Value = strings.TrimPrefix(name, "sip_h_"), e.get("variable_"+name)
			})
		}
	}
}

func (n *normalizer) nothing(*event, string, *legState) {}

func (n *normalizer) progress(_ *event, id string, l *legState) {
	if l != nil && !l.inbound {
		n.emit(call.LegAlerting, id)
	}
}

func (n *normalizer) answer(_ *event, id string, l *legState) {
	if l != nil {
		n.emit(call.LegConnected, id)
	}
}

func (n *normalizer) hold(_ *event, id string, l *legState) {
	if l != nil && !n.past(l) {
		l.asked = true
		n.emit(call.LegHeld, id)
	}
}

func (n *normalizer) unhold(_ *event, id string, l *legState) {
	if l != nil && !n.past(l) {
		l.asked = false
		n.emit(call.LegRetrieved, id)
	}
}

// bridge: FreeSWITCH names a bridge by its two ends.
func (n *normalizer) bridge(e *event, _ string, _ *legState)   { n.pair(e, call.LegBridged) }
func (n *normalizer) unbridge(e *event, _ string, _ *legState) { n.pair(e, call.LegUnbridged) }

func (n *normalizer) pair(e *event, kind call.Kind) {
	a, b := e.get("Bridge-A-Unique-ID"), e.get("Bridge-B-Unique-ID")
	if a == "" || b == "" {
		return
	}
	for _, leg := range [...]string{a, b} {
		if l := n.legs[leg]; l != nil && l.created && !n.past(l) { // a loopback channel is no party
			n.emit(kind, leg, func(o *call.Observation) { o.Bridge = a + "+" + b })
		}
	}
}

// execute: an originated leg has been answered and dials on.
func (n *normalizer) execute(e *event, id string, l *legState) {
	if l == nil || l.inbound || !l.root || l.dialed {
		return
	}
	if d := e.get("Caller-Destination-Number"); d != "" && d != l.dest {
		l.dialed = true
		n.emit(call.LegUpdated, id, func(o *call.Observation) { o.Dialed = d })
	}
}

func (n *normalizer) dtmf(e *event, id string, l *legState) {
	if l != nil {
		n.emit(call.DTMFDigit, id, func(o *call.Observation) {
			o.Value, o.Count = e.get("DTMF-Digit"), e.int("DTMF-Duration")/8 // samples at 8 kHz
		})
	}
}

// hangup: the leg is over, and its variables tell why: a transfer, a diversion, or a cause.
func (n *normalizer) hangup(e *event, id string, l *legState) {
	if l == nil {
		return
	}
	n.atHangup(e)
	to := e.get("variable_transfer_destination")
	switch kind, _, _ := strings.Cut(e.get("variable_transfer_to"), ":"); kind {
	case "blind":
		n.emit(call.TransferDone, id, func(o *call.Observation) { o.Value, o.Dialed = kind, strings.TrimPrefix(to, "blind:") })
	case "att", "satt":
		n.emit(call.TransferDone, id, func(o *call.Observation) { o.Value, o.Other = "attended", e.get("variable_refer_uuid") })
	}
	if d := e.get("variable_sip_redirect_contact_user_0"); d != "" && !l.inbound && e.get("Hangup-Cause") == "REDIRECTION_TO_NEW_DESTINATION" {
		n.emit(call.Diverted, id, func(o *call.Observation) { o.Dialed = d })
	}
	n.cleared(e, id)
}

func (n *normalizer) cleared(e *event, id string) {
	n.emit(call.LegCleared, id, func(o *call.Observation) {
		o.Value, o.Q850, o.SIP = e.get("Hangup-Cause"), e.int("variable_hangup_cause_q850"), sipStatus(e)
		switch e.get("variable_sip_hangup_disposition") {
		case "recv_bye", "recv_cancel":
			o.ByParty = true
		}
	})
}

// sipStatus is the final SIP status of a failed leg, or 0.
func sipStatus(e *event) int {
	for _, s := range [...]string{
		strings.TrimPrefix(e.get("variable_proto_specific_hangup_cause"), "sip:"), e.get("variable_sip_invite_failure_status"),
		e.get("variable_sip_term_status"),
	} {
		if v, err := strconv.Atoi(s); err == nil && v >= 300 && v < 700 {
			return v
		}
	}
	return 0
}

// destroy: FreeSWITCH forgets the channel; a lost hang-up is made good.
func (n *normalizer) destroy(e *event, id string, l *legState) {
	if l != nil {
		n.atHangup(e)
		n.cleared(e, id)
		delete(n.legs, id)
	}
}

// atHangup goes back to when the leg hung up: FreeSWITCH tells of it later, and forgets the channel later still.
func (n *normalizer) atHangup(e *event) {
	if t := e.micros("Caller-Channel-Hangup-Time"); t != 0 {
		n.at = t
	}
}
