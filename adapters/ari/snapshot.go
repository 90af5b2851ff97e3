package ari

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

const (
	// maxDetailed is how many channels are asked for what GET /channels does not show.
	maxDetailed = 2000
	// asking is how many requests for these are under way at once.
	asking = 4
)

// snapshot is what ARI answered of the channels and bridges there are.
type snapshot struct {
	channels, bridges []byte
	details           map[string]details // by channel id
	at                call.Time          // by the switch's clock, after the answers
	received          call.Time
	vars              map[string]map[string]string // channel variables, by channel id
	marked            bool                         // marks in the stream of events tell which of them lie around it
	touched           touches
}

// details are what a channel has to be asked for by itself.
type details struct {
	Dialed *string `json:"dialed,omitempty"` // CALLERID(dnid): what an inbound channel dialed first; empty for an outbound one
	Remote string  `json:"remote,omitempty"` // CHANNEL(pjsip,remote_uri): whom an outbound channel was made to
	Hold   string  `json:"hold,omitempty"`   // CHANNEL(rtp,hold): 1 while its party holds the call
	Start  string  `json:"start,omitempty"`  // CDR(start,u): when its call record was begun, seconds since the epoch
	Answer string  `json:"answer,omitempty"` // CDR(answer,u): when it was answered; 0.000000 when it was not
}

// raw puts the answers into one JSON object, as they came.
func (s *snapshot) raw() []byte {
	b := make([]byte, 0, len(s.channels)+len(s.bridges)+64)
	b = append(append(b, `{"channels":`...), s.channels...)
	b = append(append(b, `,"bridges":`...), s.bridges...)
	if d, err := json.Marshal(s.details); err == nil && len(s.details) > 0 {
		b = append(append(b, `,"details":`...), d...)
	}
	return append(b, '}')
}

// ask asks for channels, bridges, what must be asked for channel by channel, and the time.
func (s *session) ask(ctx context.Context) (*snapshot, error) {
	channels, err := s.rest.get(ctx, "asking ARI for channels", "/channels", maxSnapshot)
	if err != nil {
		return nil, err
	}
	bridges, err := s.rest.get(ctx, "asking ARI for bridges", "/bridges", maxSnapshot)
	if err != nil {
		return nil, err
	}
	snap := &snapshot{channels: channels, bridges: bridges, details: s.askDetails(ctx, channels)}
	snap.received = call.At(time.Now())
	snap.at = snap.received
	if sample, err := s.rest.ping(ctx); err == nil {
		snap.received = sample.Answered
		snap.at = sample.Switch
	}
	return snap, nil
}

// askDetails asks for what is not in the list: whether an answered channel's party holds the call, when it was answered,
// what was dialed first (the extension is that of the latest transfer), and whom it was made to. Channels beyond maxDetailed, and those of
// which it cannot be told, have none.
func (s *session) askDetails(ctx context.Context, channels []byte) map[string]details {
	var list []*channel
	if json.Unmarshal(channels, &list) != nil {
		return nil // who reads the snapshot will say so
	}
	out, asked := map[string]details{}, make(chan *channel)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range asking {
		wg.Go(func() {
			for ch := range asked {
				d := s.detailsOf(ctx, ch)
				mu.Lock()
				out[ch.ID] = d
				mu.Unlock()
			}
		})
	}
	left := maxDetailed
	for _, ch := range list {
		if ch == nil || !isParty(ch.Name) {
			continue
		}
		if left--; left < 0 || ctx.Err() != nil {
			s.out.Count("details_not_asked", 1)
			continue
		}
		asked <- ch
	}
	close(asked)
	wg.Wait()
	return out
}

func (s *session) detailsOf(ctx context.Context, ch *channel) (d details) {
	if dialed, ok := s.function(ctx, ch.ID, "CALLERID(dnid)"); ok {
		d.Dialed = &dialed
	}
	if d.Dialed != nil && *d.Dialed == "" {
		d.Remote, _ = s.function(ctx, ch.ID, "CHANNEL(pjsip,remote_uri)")
	}
	if ch.State != "Up" {
		return d
	}
	d.Hold, _ = s.function(ctx, ch.ID, "CHANNEL(rtp,hold)")
	if d.Answer, _ = s.function(ctx, ch.ID, "CDR(answer,u)"); d.Answer != "" {
		d.Start, _ = s.function(ctx, ch.ID, "CDR(start,u)")
	}
	return d
}

// function reads a dialplan function of a channel. It cannot be had of another channel technology, without call records,
// or when the channel is gone.
func (s *session) function(ctx context.Context, id, name string) (value string, ok bool) {
	path := "/channels/" + url.PathEscape(id) + "/variable?" + url.Values{"variable": {name}}.Encode()
	body, err := s.rest.do(ctx, request{op: "asking ARI for " + name, path: path})
	if err != nil {
		return "", false
	}
	var v struct{ Value string }
	if json.Unmarshal(body, &v) != nil {
		return "", false
	}
	return strings.TrimSpace(v.Value), true
}

// answered is when a channel that began at created was answered; 0 when its call record does not tell. A transfer begins
// another record, which knows only of itself.
func (d details) answered(created call.Time) call.Time {
	start, answer := eventTime(d.Start), eventTime(d.Answer)
	if start == 0 || answer < start || created == 0 || start > created+call.Second || start < created-call.Second {
		return 0
	}
	return answer
}

// snapshot reads s.
func (n *normalizer) snapshot(s *snapshot) ([]call.Observation, error) {
	chs, in, err := s.rows()
	if err != nil {
		return nil, err
	}
	n.begin("snapshot", s.at, s.received)
	named := map[string]bool{}
	for _, ch := range chs {
		named[ch.ID] = true
		if !s.touched.by(ch.ID, call.LegCreated) {
			n.snapshotChannel(ch, in[ch.ID], s)
		}
	}
	n.keep(s.touched, named)
	n.emit(call.SnapshotEnd, "", func(o *call.Observation) {
		o.Value, o.Native.ID = "time", "snapshot:"+n.received.String()
		if s.marked {
			o.Value = "event"
		}
	})
	return n.out, nil
}

// rows decodes the answers: the channels, oldest first, and the bridge that each is in.
func (s *snapshot) rows() (chs []*channel, in map[string]*bridge, err error) {
	var brs []*bridge
	if err := json.Unmarshal(s.channels, &chs); err != nil {
		return nil, nil, fmt.Errorf("decoding the answer to GET /channels: %w", err)
	}
	if err := json.Unmarshal(s.bridges, &brs); err != nil {
		return nil, nil, fmt.Errorf("decoding the answer to GET /bridges: %w", err)
	}
	s.readVars()
	chs = slices.DeleteFunc(chs, func(c *channel) bool { return c == nil })
	brs = slices.DeleteFunc(brs, func(b *bridge) bool { return b == nil || b.Type == "holding" })
	in = map[string]*bridge{}
	for _, b := range brs {
		for _, id := range b.Channels {
			in[id] = b
		}
	}
	slices.SortStableFunc(chs, func(a, b *channel) int {
		return cmp.Or(strings.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID))
	})
	return chs, in, nil
}

// readVars decodes all channel variables that ARI shows: which ones the operator says in ari.conf.
func (s *snapshot) readVars() {
	var list []struct {
		ID   string            `json:"id"`
		Vars map[string]string `json:"channelvars"`
	}
	if json.Unmarshal(s.channels, &list) != nil {
		return
	}
	s.vars = make(map[string]map[string]string, len(list))
	for _, ch := range list {
		s.vars[ch.ID] = ch.Vars
	}
}

// snapshotVars reports the watched variables of a channel.
func (n *normalizer) snapshotVars(ch *channel, s *snapshot) {
	set := func(kind call.Kind, name string) {
		if v := s.vars[ch.ID][name]; v != "" && !s.touched.by(ch.ID, kind) {
			n.emit(kind, ch.ID, func(o *call.Observation) {
				o.Value, o.Synthetic, o.Native.ID = v, true, n.rowID(ch)+":"+name
				if kind == call.LegVariable {
					o.Reason = name
				}
			})
		}
	}
	set(call.IVRPath, n.opt.IVRVariable)
	for _, name := range n.opt.Variables {
		set(call.LegVariable, name)
	}
}

// snapshotChannel reports one channel, but for what the events around the snapshot tell of it.
func (n *normalizer) snapshotChannel(ch *channel, b *bridge, s *snapshot) {
	c := n.know(ch, "snapshot")
	if c == nil {
		return
	}
	c.gone = false
	if c.held {
		s.details[ch.ID].complete(c, ch)
		c.create.Synthetic = true
		n.release(c)
	}
	state := s.state(ch, c)
	if at := s.details[ch.ID].answered(parseTime(ch.Created)); at != 0 && state != string(call.Initiated) {
		n.emit(call.LegConnected, c.id, func(o *call.Observation) { o.At, o.Synthetic, o.Native.ID = at, true, n.rowID(ch) })
	}
	n.emit(call.SnapshotLeg, c.id, func(o *call.Observation) {
		o.Inbound, o.SIPCallID, o.Value, o.Native.ID = c.inbound, ch.ProtocolID, state, n.rowID(ch)
		o.Bridge, o.Conference, o.Unseen = s.place(ch, b)
	})
	n.snapshotVars(ch, s)
	n.media(ch, c)
}

// complete corrects what a channel's looks suggest of its beginning.
func (d details) complete(c *chanState, ch *channel) {
	c.create.Dialed = ""
	if d.Dialed == nil {
		return
	}
	if ch.State == "Up" {
		c.inbound = *d.Dialed != ""
		c.create.Inbound = c.inbound
	}
	if c.inbound {
		c.create.Dialed = *d.Dialed
	} else if number := dialTarget(d.Remote); public(number) {
		c.create.Dialed = number
	}
}

// public reports whether what an endpoint was asked for is a number outside, rather than the name of a phone.
func public(number string) bool {
	digits := strings.TrimPrefix(number, "+")
	return len(digits) >= 7 && strings.Trim(digits, "0123456789") == ""
}

func (n *normalizer) rowID(ch *channel) string {
	return "snapshot:" + ch.ID + ":" + n.received.String()
}

// place is where a channel is: in a bridge, or in a conference, whose announcements it may still hear; unknown when it
// moved while the snapshot was taken.
func (s *snapshot) place(ch *channel, b *bridge) (bridge, room string, unknown bool) {
	if was, ok := s.touched.place(ch.ID); ok {
		return was.bridge, was.room, false
	}
	entered := s.touched.by(ch.ID, call.LegBridged)
	if b != nil && !entered {
		return b.key(), b.conference(), false
	}
	if room, _, _ = strings.Cut(ch.Dialplan.AppData, ","); ch.Dialplan.AppName == "ConfBridge" && room != "" {
		return conferenceKey(room), room, false
	}
	return "", "", entered
}

// state is what the snapshot has to say of a channel's state: nothing of what the events around it tell.
func (s *snapshot) state(ch *channel, c *chanState) string {
	state := snapshotState(ch, c)
	switch {
	case state == string(call.Alerting) && s.touched.by(c.id, call.LegAlerting), state == "up" && s.touched.by(c.id, call.LegConnected, call.LegAlerting):
		return string(call.Initiated)
	case state != "up":
		return state
	}
	switch hold, first := s.details[ch.ID].Hold, s.touched.hold(c.id); {
	case hold == "1" && first != call.LegHeld: // as it was before, even if it has ended since
		return string(call.Held)
	case hold == "0" && first != call.LegRetrieved, first == call.LegHeld:
		return string(call.Connected)
	}
	return state
}

// snapshotState names a channel's state for call.SnapshotLeg. The channel itself does not tell whether it is on hold.
func snapshotState(ch *channel, c *chanState) string {
	switch {
	case ch.State == "Up":
		return "up"
	case ch.State == "Ringing" && !c.inbound:
		return string(call.Alerting)
	}
	return string(call.Initiated)
}

// keep spares the channels that events speak of and the snapshot does not name. They are only of interest if they are
// known: of others too little is left to tell what they were.
func (n *normalizer) keep(touched touches, named map[string]bool) {
	for _, id := range slices.Sorted(maps.Keys(touched)) {
		begun := touched.by(id, call.LegCreated)
		if named[id] && !begun {
			continue
		}
		n.emit(call.SnapshotKept, id, func(o *call.Observation) {
			o.Value, o.Native.ID = touched[id].state, "kept:"+id+":"+n.received.String()
			if was, ok := touched.place(id); ok {
				o.Bridge, o.Conference = was.bridge, was.room
			}
		})
		if !begun && n.chans[id] == nil && len(n.chans) < maxChannels {
			n.chans[id] = &chanState{id: id, ghost: true}
		}
	}
}
