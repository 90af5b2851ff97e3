// Package live shows a gateway at work on a terminal: a table of the calls in progress, and the state of links and
// sinks. Table is a core.Sink fed with what the other sinks get; Screen draws it in place, in plain ANSI.
package live

import "time"

// View is what a rendering depends on beside the calls.
type View struct {
	Width, Height int
	Color         bool
	Title         string    // "demo", "run"
	Hint          string    // last line: what the reader may do
	Now           time.Time // the gateway's clock
	Status        Status
	Log           []string // latest log lines, oldest first
}

// Status is the gateway's own state, as its host knows it.
type Status struct {
	Started time.Time
	Events  uint64 // canonical events so far
	Links   []Link
	Sinks   []Sink
}

// Link is one switch link.
type Link struct {
	ID            string
	Kind          string
	Up            bool
	Detail        string // version while up, reason while down
	ClockKnown    bool
	OffsetMS      float64 // switch clock minus ours
	UncertaintyMS float64
}

// Sink is one delivery target.
type Sink struct {
	Name    string
	Acked   uint64
	Waiting int    // accepted by the gateway, not yet by the sink
	Dropped uint64 // shed because the sink's queue was full
	Error   string // why it is not delivering, "" when it is
}
