package core

import (
	"context"
	"log/slog"

	"github.com/ctigate/ctigate/core/call"
)

// Adapter reads one switch link.
//
// Run is ONE session: connect, take the snapshot, emit until ctx ends (then nil) or the link drops (then an error).
// All goroutines it started have ended when it returns. Reconnecting, backing off and reporting source.up, source.down
// and source.gap are the router's work. The router calls Run again on the same Adapter, never concurrently.
//
// A *PermanentError from Run (a refused password, say) is retried slowly; any other error with capped backoff.
type Adapter interface {
	Run(ctx context.Context, out Emitter) error
}

// Emitter is how a session hands things to the router. Its methods may be called from any goroutine of the session;
// what one goroutine emits is handled in the order it was emitted. They block while the router's queue is full.
//
// When the session's context ends, the session stops reading and hands over what it has read: the router still takes
// that while it drains. An error means that the router takes nothing more: the session counts what it still holds as
// CountDropped and returns.
type Emitter interface {
	// Frame hands over one native frame and what was observed in it, possibly nothing. The router owns it from then on.
	Frame(Frame) error
	// DeadLetter hands over native bytes that could not be understood.
	DeadLetter(DeadLetter) error
	// Up says that the session is established: logged in and subscribed. Frames may come before it (the snapshot's come after).
	Up(Instance) error
	// Clock reports one measurement of the switch's clock.
	Clock(ClockSample) error
	// Gap says that native events were, or may have been, lost inside a session that goes on: after since, up to which all was
	// heard; 0 for the last frame.
	Gap(reason string, since call.Time) error
	// Missing replaces what Up said of Instance.Missing: what the session cannot see now; nothing when it sees all. It
	// comes after Up.
	Missing(what []string) error
	// Count adds n to the link's counter name (unknown_type, unknown_field …); it never blocks.
	Count(name string, n int)
}

// CountDropped is the counter of frames that were read but not emitted, since an earlier one was refused. A frame that
// was emitted and refused is counted by the router.
const CountDropped = "dropped"

// Frame is one native frame: a websocket message, an AMI message, an event-socket frame.
type Frame struct {
	Type         string             // native event type
	Raw          []byte             // its bytes, as received
	Received     call.Time          // when they left the socket
	Observations []call.Observation // in the order they happened
}

// DeadLetter is native bytes that could not be understood, and why.
type DeadLetter struct {
	Raw      []byte
	Reason   string // what was being done and what was found
	Received call.Time
}

// Instance identifies the switch process behind an established session.
type Instance struct {
	Kind    string   // asterisk, freeswitch, sip
	ID      string   // Asterisk asterisk_id, FreeSWITCH Core-UUID
	Version string   // as the switch states it
	Missing []string // what this link cannot see, in words ("queue and agent events: no AMI configured")
	// Shared says that another reader of the switch makes the same observations, by call.Observation.Key, but for a
	// snapshot's: a standby can take over without a gap.
	Shared bool
}

// ClockSample is one request and answer about the switch's clock.
type ClockSample struct {
	Sent     call.Time // ours, before asking
	Answered call.Time // ours, after the answer
	Switch   call.Time // the switch's, somewhere between
}

// Env is what a plugin gets from its host when it is opened.
type Env struct {
	Log *slog.Logger
}

// AdapterConfig is the settings of one adapter kind. YAML is decoded into it strictly, then it is validated, then opened.
type AdapterConfig interface {
	// Validate returns every fault, each naming the field ("url: …").
	Validate() []error
	// Open makes the adapter for the switch link id. It does not connect.
	Open(id string, env Env) (Adapter, error)
}

// Finding is one line of `ctigate check`.
type Finding struct {
	Subject string // "pbx1", "kafka"
	What    string // "ARI websocket", "topic cti.events.v1"
	Level   Level
	Detail  string // what was found
	Fix     string // what to do, empty when OK
}

// Level of a finding.
type Level string

// Levels.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Checker is implemented by adapters and sinks that can probe the live system behind them. Check makes no change there.
type Checker interface {
	Check(ctx context.Context) []Finding
}
