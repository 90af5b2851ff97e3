package sinktest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

// epoch is when the invented calls happen.
const epoch = call.Time(1_800_000_000 * 1e6)

// Events invents n events of as many calls as there are keys, taking turns: the i'th belongs to key i%keys and is
// number i/keys+1 of its call. The same arguments give equal items.
func Events(prefix string, n, keys int) []core.Item {
	items := make([]core.Item, n)
	for i := range items {
		key := fmt.Sprintf("%s-call-%d", prefix, i%keys)
		items[i] = core.Item{Stream: core.StreamEvents, Key: key, Event: event(key, i/keys+1), Switch: link()}
	}
	return items
}

func link() call.SwitchRef {
	return call.SwitchRef{ID: "pbx1", Kind: "asterisk", Instance: "00:11:22:33:44:55"}
}

func event(key string, seq int) *call.Event {
	at := epoch + call.Time(seq)*call.Millisecond
	return &call.Event{
		ID: fmt.Sprintf("%s-%06d", key, seq), Type: call.ConnectionConnected, InteractionID: key, CallID: key,
		ConnectionID: key + ":1", Seq: uint64(seq), Switch: link(), Native: call.Native{Type: "ChannelStateChange"},
		Time: call.EventTime{Switch: at, Received: at + call.Millisecond, Freshness: call.Fresh},
		Call: &call.Call{
			ID: key, InteractionID: key, Switch: link(), State: call.StateActive, StartedAt: epoch,
			Attributes:  map[string]string{"tenant": "Grüße \"& <Co>\"\n", "queue": "sales"},
			Connections: []*call.Connection{{ID: key + ":1", State: call.Connected, Party: call.Party{ID: "agent1", Role: call.RoleAgent}}},
		},
	}
}

// Everything is one item of each shape: all streams, a tombstone, text and bytes that were not understood.
func Everything(prefix string) []core.Item {
	key := prefix + "-call"
	item := func(stream core.Stream, key string, seq int, t call.EventType) core.Item {
		e := event(key, seq)
		e.Type = t
		return core.Item{Stream: stream, Key: key, Event: e, Switch: link()}
	}
	dead := func(stream core.Stream, raw string) core.Item {
		return core.Item{Stream: stream, Key: "pbx1", Switch: link(), Dead: &core.DeadLetter{
			Raw: []byte(raw), Reason: "parsing: " + prefix, Received: epoch,
		}}
	}
	up := core.Item{Stream: core.StreamSources, Key: "pbx1", Switch: link(), Event: &call.Event{
		ID: prefix + "-up", Type: call.SourceUp, Switch: link(), Source: &call.Source{Version: "22.10", Calls: 3},
	}}
	return []core.Item{
		item(core.StreamEvents, key, 1, call.CallOffered), item(core.StreamCalls, key, 1, call.CallOffered),
		item(core.StreamEvents, key, 2, call.CallEnded), item(core.StreamCalls, key, 2, call.CallEnded),
		item(core.StreamRecords, key, 3, call.CallRecord), item(core.StreamMedia, key, 4, call.MediaQuality),
		item(core.StreamStale, key, 2, call.CallEnded), up,
		dead(core.StreamDeadLetter, prefix+" {not json\r\n"), dead(core.StreamDeadLetter, prefix+"\xff\x00\xfe"),
		dead(core.StreamRaw, prefix+`{"type":"ChannelCreated"}`),
		{Stream: core.StreamCalls, Key: key, Switch: link()},
	}
}

// Tombstone is the Delivered.ID of a tombstone, whatever id the sink gave it.
const Tombstone = "tombstone"

// ID is the CloudEvents id that an item has at the far end.
func ID(t testing.TB, it core.Item) string {
	t.Helper()
	if cloudevents.Tombstone(&it) {
		return Tombstone
	}
	line, err := cloudevents.Structured(it)
	if err != nil {
		t.Fatalf("encoding a test item: %v", err)
	}
	var attributes struct{ ID string }
	if err := json.Unmarshal(line, &attributes); err != nil {
		t.Fatalf("reading back %s: %v", line, err)
	}
	return attributes.ID
}
