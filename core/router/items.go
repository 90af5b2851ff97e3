package router

import (
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/fresh"
)

// route appends the items that e becomes:
//
//   - its own stream: sources, media, records, or events;
//   - beside events, the call as it stands on calls, keyed by call_id;
//   - a copy on stale when its verdict is stale or future;
//   - but on stale alone when its call had already ended, so that call.ended stays a call's last event.
func route(items []core.Item, e *call.Event) []core.Item {
	key := e.InteractionID
	if key == "" {
		key = e.Switch.ID // agent.state and the like belong to no call
	}
	item := core.Item{Stream: streamOf(e.Type), Key: key, Event: e, Switch: e.Switch}
	if item.Stream == core.StreamSources {
		item.Key = e.Switch.ID
		return append(items, item)
	}
	after := fresh.AfterEnd(e)
	if !after {
		items = append(items, item)
		if item.Stream == core.StreamEvents && e.Call != nil {
			items = append(items, core.Item{Stream: core.StreamCalls, Key: e.Call.ID, Event: e, Switch: e.Switch})
		}
	}
	if after || e.Time.Freshness == call.Stale || e.Time.Freshness == call.Future {
		item.Stream = core.StreamStale
		items = append(items, item)
	}
	return items
}

func streamOf(t call.EventType) core.Stream {
	switch t {
	case call.CallRecord:
		return core.StreamRecords
	case call.MediaQuality:
		return core.StreamMedia
	case call.SourceUp, call.SourceDown, call.SourceGap, call.SourceReconciled, call.SourceClock:
		return core.StreamSources
	}
	return core.StreamEvents
}

// itemSize estimates the memory an item keeps alive. Copies of one event share it, so only one stream is charged.
func itemSize(i *core.Item) int {
	const item, event, connection = 128, 1024, 512
	n := item
	if i.Dead != nil {
		n += len(i.Dead.Raw) + len(i.Dead.Reason)
	}
	if i.Event != nil && i.Stream != core.StreamCalls && i.Stream != core.StreamStale {
		n += event
		if i.Event.Call != nil {
			n += connection * len(i.Event.Call.Connections)
		}
	}
	return n
}

func itemsSize(items []core.Item) (n int) {
	for i := range items {
		n += itemSize(&items[i])
	}
	return n
}
