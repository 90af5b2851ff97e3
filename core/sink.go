package core

import (
	"context"

	"github.com/ctigate/ctigate/core/call"
)

// Sink delivers items somewhere.
//
// Write returns nil only when every item of the batch is accepted durably by the sink's own standard (acknowledged,
// fsynced). Otherwise it returns a *BatchError naming the items that were not accepted, or another error when none
// were. The host retries what failed before it offers anything later, so order inside a key holds if Write keeps it.
// The host calls Write from one goroutine at a time and does not change items or what they point to afterwards; the
// sink must not either. Close flushes and releases within ctx.
type Sink interface {
	Write(ctx context.Context, batch []Item) error
	Close(ctx context.Context) error
}

// Resumer is implemented by sinks that can tell what they delivered before, in this process or in another.
//
// Missing returns those of items that are not there yet, in their order. The host calls it before the first Write after a
// restart or a takeover, with all that may or may not have been delivered; never concurrently with Write.
type Resumer interface {
	Missing(ctx context.Context, items []Item) ([]Item, error)
}

// CallKeeper is implemented by sinks whose destination keeps the last state of each call.
//
// Calls tells of each, once, in any order: the call as it stood, the sequence number of the event that said so, and when
// that was received. Calls that ended long ago may be left out. The host calls it before the first Write, at a start
// without a state of its own; never concurrently with Write. An error that is errors.ErrUnsupported says that the sink
// knows no calls after all.
type CallKeeper interface {
	Calls(ctx context.Context, tell func(c *call.Call, seq uint64, at call.Time)) error
}

// Fencer is implemented by sinks whose destination can shut out an earlier writer of the same name. After Fence has
// returned nil, nothing that an earlier writer sent or still sends is accepted any more, wherever it had got to.
type Fencer interface {
	Fence(ctx context.Context) error
}

// Stream is the family an item belongs to; a sink maps it to a topic or file.
type Stream string

// Streams, by the names of the Kafka topics without "cti." and ".v1".
const (
	StreamEvents     Stream = "events"
	StreamCalls      Stream = "calls" // Event.Call as it stands; Tombstone when Event is nil
	StreamRecords    Stream = "records"
	StreamMedia      Stream = "media"
	StreamSources    Stream = "sources"
	StreamStale      Stream = "stale"
	StreamDeadLetter Stream = "deadletter"
	StreamRaw        Stream = "raw" // raw passthrough, one topic a switch
)

// Item is one thing to deliver. Exactly one of Event and Dead is set, or, on StreamCalls, neither for a tombstone;
// on StreamRaw, Dead carries the frame's bytes.
type Item struct {
	Stream Stream
	Key    string // interaction_id, call_id or switch_id: order is kept within it
	Event  *call.Event
	Dead   *DeadLetter
	Switch call.SwitchRef
	Seq    uint64 // the record of the journal that holds it, 0 for none
}

// SinkConfig is the settings of one sink kind, with the same contract as AdapterConfig.
type SinkConfig interface {
	Validate() []error
	// Open makes the sink; it may connect, and creates or checks what it needs (topics, folders) within ctx.
	Open(ctx context.Context, env Env) (Sink, error)
}

// Enricher adds to events before they are judged and delivered. Enrich runs on the router's one goroutine, must not
// block or do I/O, and may replace what e points to but never change it in place: e.Call is shared.
type Enricher interface {
	Enrich(e *call.Event)
}
