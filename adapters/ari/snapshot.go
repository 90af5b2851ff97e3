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
	asking = 8
)

// snapshot is what ARI answered of the channels and bridges there are.
type snapshot struct {
	channels, bridges []byte
	details           map[string]details // by channel id
	at                call.Time          // by the switch's clock, after the answers
	received          call.Time
	marked            bool // marks in the stream of events tell which of them lie around it
	touched           touches
}

// details are what a channel has to be asked for by itself.
type details struct {
	Hold   string `json:"hold,omitempty"`   // CHANNEL(rtp,hold): 1 while its party holds the call
	Start  string `json:"start,omitempty"`  // CDR(start,u): when its call record was begun, seconds since the epoch
	Answer string `json:"answer,omitempty"` // CDR(answer,u): when it was answered; 0.000000 when it was not
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

// askDetails asks for what is not in the list: whether an answered channel's party holds the call, and when it was
// answered. Channels beyond maxDetailed, and those of which it cannot be told, have none.
func (s *session) askDetails(ctx context.Context, channels []byte) map[string]details {
	var list []*channel
	if json.Unmarshal(channels, &list) != nil {
		return nil // who reads the snapshot will say so
	}
	out, asked := map[string]details{}, make(chan string)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range asking {
		wg.Go(func() {
			for id := range asked {
				d := s.detailsOf(ctx, id)
				mu.Lock()
				out[id] = d
				mu.Unlock()
			}
		})
	}
	left := maxDetailed
	for _, ch := range list {
		if ch.State != "Up" || !isParty(ch.Name) {
			continue
		}
		if left--; left < 0 || ctx.Err() != nil {
			s.out.Count("details_not_asked", 1)
			continue
		}
		asked <- ch.ID
	}
	close(asked)
	wg.Wait()
	return out
}

func (s *session) detailsOf(ctx context.Context, id string) details {
	answer := s.function(ctx, id, "CDR(answer,u)")
	d := details{Hold: s.function(ctx, id, "CHANNEL(rtp,hold)"), Answer: answer}
	if answer != "" {
		d.Start = s.function(ctx, id, "CDR(start,u)")
	}
	return d
}

// function reads a dialplan function of a channel; "" when it cannot be had: another channel technology, no call records,
// or the channel is gone.
func (s *session) function(ctx context.Context, id, name string) string {
	path := "/channels/" + url.PathEscape(id) + "/variable?" + url.Values{"variable": {name}}.Encode()
	body, err := s.rest.do(ctx, request{op: "asking ARI for " + name, path: path})
	if err != nil {
		return ""
	}
	var v struct{ Value string }
	if json.Unmarshal(body, &v) != nil {
		return ""
	}
	return strings.TrimSpace(v.Value)
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

// snapshotChannel reports one channel, but for what the events around the snapshot tell of it.
func (n *normalizer) snapshotChannel(ch *channel, b *bridge, s *snapshot) {
	c := n.know(ch, "snapshot")
	if c == nil {
		return
	}
	c.gone = false
	if c.held {
		c.create.Synthetic = true
		n.release(c)
	}
	state := s.state(ch, c)
	if at := s.details[ch.ID].answered(parseTime(ch.Created)); at != 0 && state != string(call.Initiated) {
		n.emit(call.LegConnected, c.id, func(o *call.Observation) { o.At, o.Synthetic, o.Native.ID = at, true, n.rowID(ch) })
	}
	n.emit(call.SnapshotLeg, c.id, func(o *call.Observation) {
		o.Inbound, o.SIPCallID, o.Value, o.Native.ID = c.inbound, ch.ProtocolID, state, n.rowID(ch)
		o.Bridge, o.Conference = place(ch, b)
		if s.touched.by(ch.ID, call.LegBridged, call.LegUnbridged) {
			o.Bridge, o.Conference, o.Unseen = "", "", true
		}
	})
	n.media(ch, c)
}

func (n *normalizer) rowID(ch *channel) string {
	return "snapshot:" + ch.ID + ":" + n.received.String()
}

// place is where a channel is: in a bridge, or in a conference, whose announcements it may still hear.
func place(ch *channel, b *bridge) (bridge, room string) {
	if b != nil {
		return b.key(), b.conference()
	}
	if room, _, _ = strings.Cut(ch.Dialplan.AppData, ","); ch.Dialplan.AppName == "ConfBridge" && room != "" {
		return conferenceKey(room), room
	}
	return "", ""
}

// state is what the snapshot has to say of a channel's state: nothing of what the events around it tell.
func (s *snapshot) state(ch *channel, c *chanState) string {
	state := snapshotState(ch, c)
	if s.touched.by(c.id, call.LegConnected, call.LegAlerting) {
		return string(call.Initiated)
	}
	if state != "up" || s.touched.by(c.id, call.LegHeld, call.LegRetrieved) {
		return state
	}
	switch s.details[ch.ID].Hold {
	case "1":
		return string(call.Held)
	case "0":
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

// keep spares the channels that events speak of and the snapshot does not name.
func (n *normalizer) keep(touched touches, named map[string]bool) {
	for _, id := range slices.Sorted(maps.Keys(touched)) {
		if !named[id] || touched.by(id, call.LegCreated) {
			n.emit(call.SnapshotKept, id, func(o *call.Observation) { o.Native.ID = "kept:" + id + ":" + n.received.String() })
		}
	}
}
