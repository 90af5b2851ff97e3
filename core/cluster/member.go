package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Host is what owns and publishes: the router. Its methods are called from one goroutine, one after the other, so one
// that takes long delays what is to be said of other units; heartbeats go on meanwhile. Each Acquire is followed by one
// Release or one Lost of the same unit before the next Acquire of it.
type Host interface {
	// Acquire takes a unit over: shut the predecessor out, read back, publish what is missing. It may take as long as
	// it needs; ctx ends when the unit is lost meanwhile. Before Takeover.NotBefore nothing may be published. After an
	// error the unit is given up, Lost follows, and this node leaves it to others for a while.
	Acquire(ctx context.Context, t Takeover) error
	// Release hands a unit over by plan: finish what was begun. The unit is still owned; once Release returns,
	// whatever it returns, it is not. ctx ends when the time given for it is over or the unit is lost meanwhile.
	Release(ctx context.Context, unit int) error
	// Lost says that a unit is not owned any more. Its Ownership has been invalid since that was known.
	Lost(unit int, why error)
}

// Takeover is what Host.Acquire gets to know.
type Takeover struct {
	Unit       int
	Generation int32
	Ownership  *Ownership
	Previous   Owner     // who had it last; zero when nobody is known
	Released   bool      // Previous let go by itself: there is nothing to wait for
	NotBefore  time.Time // when the lease of Previous must be over by its own clock; zero when there is nothing to wait for
}

// Owner is a member that has or had a unit.
type Owner struct {
	Node       string `json:"node"`
	Member     string `json:"member"`
	Generation int32  `json:"generation"` // in which the unit was assigned to it
}

// Options are what a member needs beside its configuration.
type Options struct {
	Config      *Config
	Prefix      string   // of topics and group, such as "cti."
	Brokers     []string // host:port of some brokers
	Dial        DialFunc // connects to a broker, TLS and SASL included
	CreateTopic bool     // create the assignment topic when it is missing
	Replication int      // of the topic when created; -1: the broker's default
	StopTimeout time.Duration
	Log         *slog.Logger
}

// Member is this node's part in the group.
type Member struct {
	cfg   *Config
	opts  Options
	group string
	topic string
	log   *slog.Logger
	clock func() time.Time // time.Now, but in tests

	control *brokers      // joins, syncs, commits
	beats   *brokers      // heartbeats, while a join is waited for as well
	kicking chan struct{} // holds one while outside and limit are in use
	outside *brokers      // kicks
	limit   limiter

	owned []atomic.Pointer[Ownership] // by unit: assigned and written down
	wake  chan struct{}               // of the control loop: look at the state
	news  chan struct{}               // of the event loop: look at the units
	beat  chan struct{}               // of the heartbeats: beat now

	mu     sync.Mutex
	state  state
	units  []unit
	kicked map[string]time.Time // members that we removed, when that was confirmed
	past   []string             // member ids that this process had
	watch  []chan struct{}      // closed at the next change

	onRenew func(o *Ownership, from, until int64) // tests record leases here
}

// state is guarded by Member.mu.
type state struct {
	phase      string
	id         string
	generation int32
	beating    bool // id and generation are those to beat for
	heard      time.Time
	rebalance  bool   // the coordinator wants everybody to join again, or to join anew
	reason     string // for the next join, as brokers log it
	idle       bool
	stopping   bool
	wished     wish // what the last join said
	settled    bool // the last plan knew that we are idle
	topic      bool // it is there
	plan       plan
	problem    error
	cancelJoin context.CancelCauseFunc
	stop       context.CancelFunc
	counts     Counts
}

// Counts are totals since the start.
type Counts struct {
	Rebalances uint64 `json:"rebalances"`
	Acquired   uint64 `json:"acquired"`
	Released   uint64 `json:"released"`
	Lost       uint64 `json:"lost"`
	Kicks      uint64 `json:"kicks"`       // members that this node removed
	KicksOver  uint64 `json:"kicks_over"`  // kicks refused because there were too many
	BeatErrors uint64 `json:"beat_errors"` // heartbeats without a good answer
}

// unit is what is known of one unit beside Member.owned; guarded by Member.mu.
type unit struct {
	pending   int32           // generation in which it was assigned and not yet written down; 0: none
	assigned  bool            // in the present generation
	told      *Ownership      // the host knows of it
	acquiring bool            // the host is at it
	releasing context.Context // it is to be released, within this
	freed     int32           // generation in which it was released and that is not yet written down
	clean     bool            // so that the next owner need not wait
	quiet     int64           // moment before which nothing may be published, whoever had it
	previous  record          // as it was when we began to take over
	begun     bool            // previous is that of the takeover in hand
	declined  time.Time       // not wanted until then
}

const (
	phaseJoining = "joining"
	phaseMember  = "member"
	phaseStopped = "stopped"
)

// NewMember checks the options. It connects to nothing.
func NewMember(opts Options) (*Member, error) {
	if errs := opts.Config.Validate(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(opts.Brokers) == 0 || opts.Dial == nil {
		return nil, errors.New("a cluster needs Kafka: brokers to connect to, and how")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.StopTimeout <= 0 {
		opts.StopTimeout = 10 * time.Second
	}
	c := opts.Config
	m := &Member{
		cfg: c, opts: opts, group: c.GroupID(opts.Prefix), topic: c.Topic(opts.Prefix), log: opts.Log.With("node", c.Node),
		clock: time.Now, owned: make([]atomic.Pointer[Ownership], c.UnitCount()), units: make([]unit, c.UnitCount()),
		wake: make(chan struct{}, 1), news: make(chan struct{}, 1), beat: make(chan struct{}, 1), kicking: make(chan struct{}, 1),
		kicked: map[string]time.Time{}, state: state{phase: phaseJoining, generation: -1},
	}
	for i := range m.units {
		m.units[i].quiet = never
	}
	m.control, m.beats, m.outside = m.brokers(), m.brokers(), m.brokers()
	return m, nil
}

func (m *Member) brokers() *brokers {
	return &brokers{dial: m.opts.Dial, seeds: m.opts.Brokers, group: m.group, timeout: max(m.cfg.Lease, time.Second)}
}

// Owned is this node's ownership of a unit. It is true from the moment the unit is this node's until it is not, also
// while the lease is lapsed or the predecessor's still runs: ask Ownership.Valid before each publication.
func (m *Member) Owned(unit int) (*Ownership, bool) {
	if unit < 0 || unit >= len(m.owned) {
		return nil, false
	}
	o := m.owned[unit].Load()
	return o, o != nil && o.endedAt.Load() == 0
}

// Run is a member of the group until ctx ends, and then releases what it owns (within Options.StopTimeout) and leaves.
// It may be called once. It goes on through every trouble with Kafka; Status tells of it.
func (m *Member) Run(ctx context.Context, host Host) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	work, stop := context.WithCancel(life)
	m.mu.Lock()
	m.state.stop = stop
	m.mu.Unlock()
	var others sync.WaitGroup
	others.Go(func() { m.pulse(life) })
	others.Go(func() { m.tell(life, host) })
	unhook := context.AfterFunc(ctx, func() { m.beginStop(life) })
	defer unhook()

	m.join(work)
	m.leave(life)
	end()
	others.Wait()
	for _, b := range []*brokers{m.control, m.beats} {
		b.close()
	}
	m.kicking <- struct{}{} // for good: no more kicks; removeTimeout bounds the wait
	m.outside.close()
	return nil
}

// beginStop releases everything; the control loop is stopped when that is done, or is late.
func (m *Member) beginStop(life context.Context) {
	limit, cancel := context.WithTimeout(life, m.opts.StopTimeout)
	m.mu.Lock()
	m.state.stopping = true
	m.mu.Unlock()
	m.releaseAll(limit)
	late := time.AfterFunc(m.opts.StopTimeout+2*m.control.timeout, func() { m.halt() })
	context.AfterFunc(life, func() { cancel(); late.Stop() })
	m.checkStop()
}

func (m *Member) halt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.stop()
}

// checkStop ends the control loop once nothing is left to be released.
func (m *Member) checkStop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.state.stopping {
		return
	}
	for i := range m.units {
		if u := &m.units[i]; u.told != nil || u.freed != 0 || m.owned[i].Load() != nil {
			return
		}
	}
	m.state.stop()
}

// Drain hands over by plan: the host's Release of each unit is run to its end, or until ctx ends, and then this node
// stays a member that wants nothing, so that the others take over at once. It returns when the group knows. Run at least
// must have been called.
func (m *Member) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.state.idle, m.state.settled = true, false
	m.mu.Unlock()
	m.releaseAll(ctx)
	m.because("draining")
	for {
		changed, done := m.drained()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("draining node %s: %w", m.cfg.Node, ctx.Err())
		}
	}
}

func (m *Member) drained() (changed <-chan struct{}, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.units {
		if m.units[i].told != nil || m.owned[i].Load() != nil {
			return m.watched(), false
		}
	}
	return m.watched(), m.state.settled || m.state.phase == phaseStopped
}

// Undrain makes this node a candidate again.
func (m *Member) Undrain() {
	m.mu.Lock()
	m.state.idle, m.state.settled = false, false
	for i := range m.units {
		m.units[i].releasing = nil
	}
	m.mu.Unlock()
	m.because("back from draining")
}

func (m *Member) releaseAll(limit context.Context) {
	m.mu.Lock()
	for i := range m.units {
		m.units[i].releasing = limit
	}
	m.mu.Unlock()
	poke(m.news)
}

// because lets the control loop see that it has to join again, and why.
func (m *Member) because(reason string) {
	m.mu.Lock()
	m.state.reason = reason
	m.mu.Unlock()
	poke(m.wake)
}

// watched is closed at the next change; m.mu is held.
func (m *Member) watched() <-chan struct{} {
	c := make(chan struct{})
	m.watch = append(m.watch, c)
	return c
}

// changed wakes who waits for a change; m.mu is held.
func (m *Member) changed() {
	for _, c := range m.watch {
		close(c)
	}
	m.watch = nil
	poke(m.news)
}

// lose ends every ownership: this process is not in the group any more under its id. m.mu is held.
func (m *Member) lose(why error) {
	m.log.Warn("no longer a member of the cluster's group: joining anew", "group", m.group, "member", m.state.id, "err", why)
	for i := range m.units {
		m.end(i, why)
		u := &m.units[i]
		u.pending, u.freed, u.assigned = 0, 0, false
	}
	m.state.id, m.state.generation, m.state.beating, m.state.rebalance = "", -1, false, true
	if m.state.cancelJoin != nil {
		m.state.cancelJoin(why)
	}
	m.changed()
	poke(m.wake)
}

// end ends the ownership of a unit, if there is one; m.mu is held.
func (m *Member) end(unit int, why error) {
	if o := m.owned[unit].Swap(nil); o != nil {
		o.finish(why, moment(m.clock()))
	}
}

// wish is what to tell the group now; m.mu is held.
func (m *Member) wish() wish {
	w := wish{Node: m.cfg.Node, Units: len(m.units), Priority: m.cfg.Priority, Idle: m.state.idle || m.state.stopping}
	now := m.clock()
	for i := range m.units {
		u := &m.units[i]
		if o := m.owned[i].Load(); o != nil {
			w.Claims = append(w.Claims, claim{i, o.generation})
		} else if u.pending != 0 && !w.Idle {
			w.Claims = append(w.Claims, claim{i, u.pending})
		}
		if now.Before(u.declined) {
			w.Declined = append(w.Declined, i)
		}
	}
	return w
}

// isPast reports whether a member id was this process's; m.mu is held.
func (m *Member) isPast(id string) bool { return slices.Contains(m.past, id) }

// became notes a member id that the coordinator gave us.
func (m *Member) became(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.id = id
	if !m.isPast(id) {
		m.past = append(m.past[max(0, len(m.past)-maxPast):], id)
	}
	maps.DeleteFunc(m.kicked, func(_ string, at time.Time) bool { return m.clock().Sub(at) > 10*time.Minute })
}

const maxPast = 64

// poke sends without blocking: the receiver looks at everything anyway.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
