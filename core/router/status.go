package router

import (
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Status is the router as it stands, for /readyz and the live table.
type Status struct {
	Ready       bool           `json:"ready"` // every link up, no sink failing or full, not stopping
	Stopping    bool           `json:"stopping,omitempty"`
	ActiveCalls int            `json:"active_calls"`
	Queue       int            `json:"queue"` // frames waiting for the tracker
	Links       []LinkStatus   `json:"links"`
	Sinks       []SinkStatus   `json:"sinks"`
	Journal     *JournalStatus `json:"journal,omitempty"` // nil: none
	Cluster     *ClusterStatus `json:"cluster,omitempty"` // nil: alone
}

// JournalStatus is the journal as it stands.
type JournalStatus struct {
	Bytes    int64     `json:"bytes"`
	Segments int       `json:"segments"`
	First    uint64    `json:"first"` // records that are kept
	Last     uint64    `json:"last"`
	OldestAt call.Time `json:"oldest_at,omitzero"`
	Full     bool      `json:"full,omitempty"`     // at its bound: the links wait
	Trouble  string    `json:"trouble,omitempty"`  // why it cannot be written; what is received meanwhile is not kept
	Bypassed int64     `json:"bypassed,omitempty"` // items that were delivered without it
}

// ClusterStatus is this node's part in a cluster.
type ClusterStatus struct {
	Node   string `json:"node"`
	Owner  bool   `json:"owner"`  // of the links, and allowed to publish
	Turn   uint64 `json:"turn"`   // of the core loop, the latest that this node knows
	Held   int    `json:"held"`   // observations that the owner has not told of, on a standby
	Synced bool   `json:"synced"` // the cluster's log was read to its end within the last seconds, on a standby that has the owner's state
	Logged bool   `json:"logged"` // the cluster's log has taken something from this node within the last seconds, on an owner

	// Unproven are links of which it is not proved that this standby hears all that the owner does: a takeover now would
	// ask their switches for a snapshot, and publish a gap.
	Unproven []string `json:"unproven,omitempty"`
}

// LinkStatus is one link as it stands.
type LinkStatus struct {
	ID            string            `json:"id"`
	Kind          string            `json:"kind"`
	Instance      string            `json:"instance,omitempty"`
	Version       string            `json:"version,omitempty"`
	Up            bool              `json:"up"`
	Since         call.Time         `json:"since,omitzero"`       // up or down since
	LastFrame     call.Time         `json:"last_frame,omitzero"`  // received
	LastFrameAge  time.Duration     `json:"-"`                    // before Status was called; 0 when none came yet
	LastError     string            `json:"last_error,omitempty"` // why it is down
	Failures      int               `json:"failures,omitempty"`   // in a row
	OffsetMS      *float64          `json:"offset_ms,omitempty"`  // the switch's clock minus ours; nil: not measured
	UncertaintyMS *float64          `json:"uncertainty_ms,omitempty"`
	Missing       []string          `json:"missing,omitempty"` // what the link cannot see
	Received      uint64            `json:"received"`
	Normalized    uint64            `json:"normalized"`
	DeadLetters   uint64            `json:"dead_letters"`
	Dropped       uint64            `json:"dropped"`
	Counters      map[string]uint64 `json:"counters,omitempty"` // the adapter's own
}

// SinkStatus is one sink as it stands.
type SinkStatus struct {
	Name         string    `json:"name"`
	Queue        int       `json:"queue"` // items queued or being written
	QueueMax     int       `json:"queue_max"`
	Full         bool      `json:"full,omitempty"`         // its queue has no room now; with a journal: it lags and reads from there
	Behind       int64     `json:"behind,omitempty"`       // records of the journal that it has not been given yet
	FailingSince call.Time `json:"failing_since,omitzero"` // zero: the last write succeeded
	LastError    string    `json:"last_error,omitempty"`   // of a sink that is failing
	LastAck      call.Time `json:"last_ack,omitzero"`
	Produced     uint64    `json:"produced"`
	Acked        uint64    `json:"acked"`
	Retried      uint64    `json:"retried"`
	Dropped      uint64    `json:"dropped"`
	DeadLetters  uint64    `json:"dead_letters"`
}

// Status may be called at any time from any goroutine.
func (r *Router) Status() Status {
	s := Status{Ready: r.ran.Load() && !r.draining.Load(), Stopping: r.draining.Load(),
		ActiveCalls: r.ActiveCalls(), Queue: r.in.len()}
	now := call.At(r.o.Now())
	for _, l := range r.links {
		ls := l.status(now)
		s.Ready = s.Ready && ls.Up
		s.Links = append(s.Links, ls)
	}
	for _, w := range r.sinks {
		ws := w.status(now)
		s.Ready = s.Ready && !ws.Full && ws.FailingSince == 0
		s.Sinks = append(s.Sinks, ws)
	}
	if r.keeper != nil {
		s.Journal = r.keeper.status()
		s.Ready = s.Ready && !s.Journal.Full && s.Journal.Trouble == ""
	}
	if r.follower != nil {
		s.Cluster = r.follower.status()
		s.Ready = s.Ready && (s.Cluster.Owner && s.Cluster.Logged || !s.Cluster.Owner && s.Cluster.Synced)
	}
	return s
}

func (k *keeper) status() *JournalStatus {
	j := k.j.Stats()
	s := &JournalStatus{Bytes: j.Bytes, Segments: j.Segments, First: j.First, Last: j.Last, OldestAt: j.OldestAt,
		Full: k.blocked.Load(), Bypassed: k.bypassed.Load(), Trouble: j.CursorFailure}
	if why := k.trouble.Load(); why != nil {
		s.Trouble = *why
	}
	return s
}

func (f *follower) status() *ClusterStatus {
	s := &ClusterStatus{Node: f.c.Node, Owner: f.c.Owner(), Turn: f.turn.Load(), Held: int(f.holds.Load()),
		Synced: f.live.Ago() < staleRead && !f.blind.Load()}
	if now := f.r.current.Load(); now != nil {
		s.Logged = now.x.sent.Ago() < staleLog
	}
	if unproven := f.unproven.Load(); unproven != nil && !s.Owner {
		s.Unproven = *unproven
	}
	return s
}

// Ready has the shape /readyz wants.
func (r *Router) Ready() (ok bool, detail any) {
	s := r.Status()
	return s.Ready, s
}

// ActiveCalls is how many calls have not ended, from any goroutine.
func (r *Router) ActiveCalls() int { return int(r.loop.active.Load()) }

func (l *link) status(now call.Time) LinkStatus {
	s := LinkStatus{ID: l.id, Received: l.tel.Received.Load(), Normalized: l.tel.Normalized.Load(),
		DeadLetters: l.tel.DeadLetters.Load(), Dropped: l.tel.Dropped.Load(), Counters: l.tel.Counts(),
		LastFrame: call.Time(l.stats.lastFrame.Load())}
	if s.LastFrame != 0 {
		s.LastFrameAge = time.Duration(now-s.LastFrame) * time.Microsecond
	}
	st := &l.stats
	st.mu.Lock()
	defer st.mu.Unlock()
	s.Kind, s.Instance, s.Version, s.Missing = def(st.instance.Kind, st.kind), st.instance.ID, st.instance.Version, st.instance.Missing
	s.Up, s.Since, s.LastError, s.Failures = st.up, st.since, st.lastErr, st.failures
	if st.clock != nil {
		offset, uncertainty := st.clock.offset, st.clock.uncertainty
		s.OffsetMS, s.UncertaintyMS = &offset, &uncertainty
	}
	return s
}

// slowWrite is how long one Write may take, with its own retries, before the sink counts as failing.
const slowWrite = 5 * call.Second

func (w *writer) status(now call.Time) SinkStatus {
	s := SinkStatus{Name: w.name, Queue: int(w.tel.Depth.Load()), QueueMax: w.q.maxItems, Full: w.full.Load(),
		Produced: w.tel.Produced.Load(), Acked: w.tel.Acked.Load(), Retried: w.tel.Retried.Load(),
		Dropped: w.tel.Dropped.Load(), DeadLetters: w.tel.DeadLettered.Load(), LastAck: call.Time(w.lastAck.Load())}
	if w.lag != nil {
		s.Behind = w.lag.records()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.FailingSince, s.LastError = w.failingSince, w.lastErr
	if since := call.Time(w.writing.Load()); s.FailingSince == 0 && since != 0 && now-since > slowWrite {
		s.FailingSince, s.LastError = since, "a write has been under way since then and is not acknowledged"
	}
	return s
}

func (r *Router) stillRunning() []string {
	var ids []string
	for _, l := range r.links {
		if l.running.Load() {
			ids = append(ids, l.id)
		}
	}
	return ids
}
