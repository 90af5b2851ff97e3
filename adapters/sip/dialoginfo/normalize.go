package dialoginfo

import (
	"cmp"
	"net/url"
	"strings"

	"github.com/ctigate/ctigate/core/call"
)

// how says what a document is to the session.
type how uint8

const (
	live     how = iota // what changed since the document before
	snapshot            // the first of the session for its resource
	resync              // the first of a new subscription inside of the session: what happened between was not seen
)

// Counters of the normalizer.
const (
	countRegressions = "dialog_state_regressions"
	countUnknown     = "dialog_state_unknown"
	countShed        = "dialogs_shed"
)

// maxTracked bounds the dialogs that are followed at once, of all resources.
const maxTracked = 100_000

// normalizer turns dialog-info documents into observations. It keeps what it knows of each dialog from one session to
// the next, so that a leg has the same id in the next snapshot. Time comes in with each document.
type normalizer struct {
	count     func(string, int)
	resources map[string]*resource // by URI
	users     map[string]bool      // the users of all resources
	legs      links
	tracked   int

	// Of the document being read.
	r      *resource
	how    how
	at     call.Time
	native call.Native
	out    []call.Observation
}

// resource is one watched address and its dialogs.
type resource struct {
	uri, user string
	dialogs   map[string]*dialog // by dialog id
}

// dialog is one dialog of a resource: the leg of the watched user, and that of the far end where nobody watches it.
type dialog struct {
	leg       string
	far       string // leg id of the far end; empty when it has a subscription of its own or is not known
	root      string // first leg of the call, as far as known
	callID    string
	tag       string
	initiator bool
	state     string
	held      bool
	number    string // of the far end
	began     call.Time
	seen      bool // in the document being read
	paired    bool // its call's other leg is found
	user      string
}

func newNormalizer(uris []string, count func(string, int)) *normalizer {
	n := &normalizer{count: count, resources: map[string]*resource{}, users: map[string]bool{}, legs: newLinks()}
	for _, u := range uris {
		r := &resource{uri: u, user: userOf(u), dialogs: map[string]*dialog{}}
		n.resources[u] = r
		n.users[r.user] = true
	}
	return n
}

// document gives the observations of one document about the resource uri, which arrived at at.
func (n *normalizer) document(uri string, info *Info, how how, at call.Time, native call.Native) []call.Observation {
	n.r, n.how, n.at, n.native, n.out = n.resources[uri], how, at, native, nil
	for _, d := range n.r.dialogs {
		d.seen = false
	}
	for i := range info.Dialogs {
		n.dialog(&info.Dialogs[i])
	}
	if info.Full {
		n.absent()
	}
	return n.out
}

// absent ends the dialogs that a full document does not name any more. Those of a session before are forgotten without
// a word: the end of the snapshot says it.
func (n *normalizer) absent() {
	for id, d := range n.r.dialogs {
		switch {
		case d.seen:
		case n.how == snapshot:
			n.forget(id, d)
		default:
			n.clear(id, d, &Dialog{Event: "absent"})
		}
	}
}

// lost ends what is known of a resource that can no longer be watched.
func (n *normalizer) lost(uri string, at call.Time, native call.Native) []call.Observation {
	n.r, n.how, n.at, n.native, n.out = n.resources[uri], resync, at, native, nil
	for id, d := range n.r.dialogs {
		n.clear(id, d, &Dialog{Event: "unwatched"})
	}
	return n.out
}

// drop forgets a resource of which the session got no snapshot: the end of the snapshot clears its legs.
func (n *normalizer) drop(uri string) {
	r := n.resources[uri]
	n.r = r
	for id, d := range r.dialogs {
		n.forget(id, d)
	}
}

func (n *normalizer) forget(id string, d *dialog) {
	n.legs.remove(d)
	delete(n.r.dialogs, id)
	n.tracked--
}

// rank orders the states; a dialog only moves up (RFC 4235, 3.7.1).
func rank(state string) int {
	switch state {
	case Trying:
		return 1
	case Proceeding:
		return 2
	case Early:
		return 3
	case Confirmed:
		return 4
	case Terminated:
		return 5
	}
	return 0
}

func (n *normalizer) dialog(x *Dialog) {
	d := n.r.dialogs[x.ID]
	if rank(x.State) == 0 {
		n.count(countUnknown, 1)
		if d != nil {
			d.seen = true
		}
		return
	}
	if d != nil && n.replaced(d, x) { // PBXs that name dialogs after the extension use the id again
		n.clear(x.ID, d, &Dialog{Event: "absent"})
		d = nil
	}
	switch {
	case d == nil && x.State == Terminated: // an idle extension, or one whose beginning was not seen
		return
	case d == nil:
		if d = n.begin(x); d == nil {
			return
		}
	case n.how == snapshot && x.State != Terminated:
		n.again(d, x)
	default:
		n.learn(d, x)
	}
	d.seen = true
	n.follow(d, x)
}

// replaced reports whether x is another dialog than d, under the same id.
func (n *normalizer) replaced(d *dialog, x *Dialog) bool {
	if x.CallID != "" && d.callID != "" {
		return x.CallID != d.callID
	}
	return d.state == Confirmed && x.State != Confirmed && x.State != Terminated
}

// begin starts a dialog.
func (n *normalizer) begin(x *Dialog) *dialog {
	if n.tracked >= maxTracked {
		n.count(countShed, 1)
		return nil
	}
	d := &dialog{callID: x.CallID, tag: x.LocalTag, began: n.at, user: n.r.user, number: number0(x.Remote)}
	if n.how != live {
		d.began -= call.Time(x.Seconds) * call.Second
	}
	d.leg = n.legID(x)
	// Without a direction, one that rings is being called, and Asterisk says confirmed of who places a call.
	d.initiator = x.Direction == Initiator || x.Direction == "" && x.State != Early
	n.r.dialogs[x.ID] = d
	n.tracked++
	parent, evidence := n.legs.find(d, x, n.how == snapshot)
	d.root = d.leg
	if parent != nil {
		d.root = parent.root
	} else if d.number != "" && !n.users[d.number] {
		d.far = d.leg + ";remote"
		if !d.initiator {
			d.root = d.far
		}
	}
	n.legs.add(d)
	n.create(d, x, parent, evidence)
	return d
}

// legID is the dialog's identification by its notifier where it is unique (RFC 4235, 3.1), else it is made so.
func (n *normalizer) legID(x *Dialog) string {
	switch {
	case x.CallID != "" && x.LocalTag != "":
		return x.CallID + ";" + x.LocalTag
	case x.CallID != "":
		return n.r.uri + ";" + x.ID + ";" + x.CallID
	}
	return n.r.uri + ";" + x.ID + ";" + n.at.String()
}

// create says that the dialog's legs exist, the one that was first first.
func (n *normalizer) create(d *dialog, x *Dialog, parent *dialog, evidence string) {
	own := n.own(d, x)
	own.Evidence = evidence
	if parent != nil {
		own.Parent, own.Link = parent.leg, parent.root
	}
	far := n.far(d, x)
	if d.far == "" {
		n.start(d, own, x)
		return
	}
	if d.initiator {
		far.Parent, far.Link = d.leg, d.root
		n.start(d, own, x)
		n.start(d, far, x)
		return
	}
	own.Parent, own.Link = d.far, d.far
	n.start(d, far, x)
	n.start(d, own, x)
}

// own describes the leg of the watched user.
func (n *normalizer) own(d *dialog, x *Dialog) call.Observation {
	o := call.Observation{Leg: d.leg, User: d.user, SIPCallID: d.callID, Inbound: d.initiator, Local: d.initiator}
	if d.initiator {
		o.Number, o.Name, o.Dialed = cmp.Or(number0(x.Local), d.user), x.Local.Display, d.number
	} else { // an outbound leg presents the caller
		o.Number, o.Name = d.number, x.Remote.Display
	}
	return o
}

// far describes the leg of the far end: the dialog shows that it exists and how it fares.
func (n *normalizer) far(d *dialog, x *Dialog) call.Observation {
	o := call.Observation{Leg: d.far, Inbound: !d.initiator, Evidence: "remote_identity"}
	if d.initiator {
		o.Dialed = d.number
	} else {
		o.Number, o.Name, o.Dialed = d.number, x.Remote.Display, d.user
	}
	return o
}

// start emits the beginning of a leg: as it happens, or as found.
func (n *normalizer) start(d *dialog, o call.Observation, x *Dialog) {
	if n.how != live {
		o.Synthetic, o.Unseen = true, true
	}
	o.Kind, o.At = call.LegCreated, d.began
	n.emit(o)
	if n.how == snapshot {
		o.Kind, o.At, o.Value = call.SnapshotLeg, n.at, n.found(d, o.Leg == d.leg, x)
		n.emit(o)
	}
}

// found is the state of a leg in a snapshot.
func (n *normalizer) found(d *dialog, own bool, x *Dialog) string {
	switch {
	case own && x.State == Confirmed && x.Local.Rendering == "no":
		return string(call.Held)
	case x.State == Confirmed:
		return string(call.Connected)
	case x.State == Early && own != d.initiator: // the called party's leg
		return string(call.Alerting)
	}
	return string(call.Initiated)
}

// again tells the snapshot of a dialog that was known in the session before.
func (n *normalizer) again(d *dialog, x *Dialog) {
	o := n.own(d, x)
	o.Kind, o.Link, o.Synthetic, o.Value = call.SnapshotLeg, d.root, true, n.found(d, true, x)
	n.emit(o)
	if d.far != "" {
		o = n.far(d, x)
		o.Kind, o.Link, o.Synthetic, o.Value = call.SnapshotLeg, d.root, true, n.found(d, false, x)
		n.emit(o)
	}
}

// learn tells what a later document knows more of a dialog.
func (n *normalizer) learn(d *dialog, x *Dialog) {
	number := number0(x.Remote)
	if (d.number != "" || number == "") && (d.callID != "" || x.CallID == "") {
		return
	}
	d.number, d.callID, d.tag = cmp.Or(d.number, number), cmp.Or(d.callID, x.CallID), cmp.Or(d.tag, x.LocalTag)
	n.legs.add(d)
	o := n.own(d, x)
	n.emit(call.Observation{Kind: call.LegUpdated, Leg: d.leg, Number: o.Number, Name: o.Name, Dialed: o.Dialed, SIPCallID: d.callID})
}

// follow tells how a dialog's state has changed.
func (n *normalizer) follow(d *dialog, x *Dialog) {
	if x.State == Terminated {
		n.clear(x.ID, d, x)
		return
	}
	if rank(x.State) < rank(d.state) {
		n.count(countRegressions, 1)
		return
	}
	if x.State != d.state && n.how != snapshot {
		n.progress(d, x.State)
	}
	d.state = x.State
	if held := x.State == Confirmed && x.Local.Rendering == "no"; held != d.held {
		d.held = held
		if n.how != snapshot {
			n.hold(d)
		}
	}
}

func (n *normalizer) progress(d *dialog, state string) {
	called := d.leg // who is rung
	if d.initiator {
		called = d.far
	}
	switch state {
	case Early:
		n.say(call.LegAlerting, called)
	case Confirmed:
		n.say(call.LegConnected, d.leg)
		n.say(call.LegConnected, d.far)
	}
}

func (n *normalizer) hold(d *dialog) {
	if d.held {
		n.say(call.LegHeld, d.leg)
	} else {
		n.say(call.LegRetrieved, d.leg)
	}
}

func (n *normalizer) say(kind call.Kind, leg string) {
	if leg != "" {
		n.emit(call.Observation{Kind: kind, Leg: leg, Synthetic: n.how != live})
	}
}

// clear ends a dialog: first the leg of the party that ended it.
func (n *normalizer) clear(id string, d *dialog, x *Dialog) {
	own := call.Observation{Kind: call.LegCleared, Leg: d.leg, SIP: status(x.Code), Value: x.Event, Synthetic: n.how != live}
	own.Q850, own.Unseen = q850(x.Event, own.SIP, d.state == Confirmed), x.Event == ""
	far := own
	far.Leg = d.far
	switch x.Event {
	case "local-bye":
		own.ByParty = true
	case "remote-bye":
		far.ByParty = true
	case "cancelled": // by who placed the call
		own.ByParty, far.ByParty = d.initiator, !d.initiator
	}
	first, second := own, far
	if far.ByParty {
		first, second = far, own
	}
	for _, o := range [...]call.Observation{first, second} {
		if o.Leg != "" {
			n.emit(o)
		}
	}
	n.forget(id, d)
}

func (n *normalizer) emit(o call.Observation) {
	if o.At == 0 {
		o.At = n.at
	}
	o.Received, o.Native = n.at, n.native
	n.out = append(n.out, o)
}

// status is a final SIP status that says why; a 2xx does not.
func status(code int) int {
	if code >= 300 {
		return code
	}
	return 0
}

// q850 is the cause of what a dialog says of its end (RFC 4235, 3.7.1; RFC 3398, 8.2.6.1). 0 where it says nothing.
func q850(event string, code int, talked bool) int {
	switch event {
	case "local-bye", "remote-bye", "replaced":
		return 16
	case "cancelled":
		if code == 0 || code == 487 {
			return 16
		}
	}
	switch code {
	case 486, 600:
		return 17
	case 603, 403, 401, 407:
		return 21
	case 404, 604:
		return 1
	case 408, 480:
		return 18
	case 410:
		return 22
	case 484:
		return 28
	case 487:
		return 16
	case 301, 302:
		return 23
	case 488, 606:
		return 65
	case 500, 502, 503:
		return 41
	case 504:
		return 102
	}
	switch {
	case event == "rejected":
		return 21
	case event == "timeout" && !talked:
		return 19
	case event == "timeout", event == "error":
		return 41
	}
	return 0
}

// number0 is who a participant is: the user of its identity, else of its contact.
func number0(p Participant) string { return cmp.Or(userOf(p.URI), userOf(p.Target)) }

// userOf is the user part of a SIP URI or the number of a tel URI, without parameters.
func userOf(uri string) string {
	uri = strings.Trim(uri, "<> ")
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return ""
	}
	user, _, at := strings.Cut(rest, "@")
	if !at && !strings.EqualFold(scheme, "tel") {
		return ""
	}
	user, _, _ = strings.Cut(user, ";")
	user, _, _ = strings.Cut(user, ":") // a password
	if plain, err := url.PathUnescape(user); err == nil {
		user = plain
	}
	switch strings.ToLower(user) {
	case "anonymous", "unknown", "unavailable":
		return ""
	}
	return user
}
