package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/adapters/esl"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/deploy/chaos/oracle"
)

// witness is a gateway in this process that reads the same switches, undisturbed, and keeps what it made of them.
type witness struct {
	r    *router.Router
	stop context.CancelFunc
	done chan error

	mu      sync.Mutex
	events  []*call.Event
	natives map[oracle.Native]bool
}

// startWitness begins to listen and returns when it hears both switches.
func startWitness(s *switches) (*witness, error) {
	links, err := witnessLinks(s)
	if err != nil {
		return nil, err
	}
	w := &witness{done: make(chan error, 1), natives: map[oracle.Native]bool{}}
	for i := range links {
		links[i].Adapter = overheard{links[i].Adapter, links[i].ID, w}
	}
	w.r, err = router.New(router.Options{Links: links, Tracker: call.NewTracker(call.Options{}), Log: slog.New(slog.DiscardHandler),
		OnEvent: w.note, DrainTimeout: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("making the witness: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() { w.done <- w.r.Run(ctx) }()
	for range 500 {
		if w.r.Status().Ready {
			return w, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.close()
	return nil, fmt.Errorf("the witness does not hear the switches: %+v", w.r.Status().Links)
}

func witnessLinks(s *switches) ([]router.Link, error) {
	a := ari.NewConfig()
	a.URL, a.Application = "http://"+s.ast.ARIAddr()+"/ari", "witness"
	a.Username, a.Password = simUser, core.NewSecret(simPassword)
	a.AMI = &ari.AMI{Address: s.ast.AMIAddr(), Username: simUser, Password: a.Password}
	f := esl.NewConfig()
	f.Address, f.Password = s.fs.Addr(), core.NewSecret(simPassword)
	hear, err := a.Open(asterisk, core.Env{})
	if err != nil {
		return nil, fmt.Errorf("making the witness: %w", err)
	}
	listen, err := f.Open(freeswitch, core.Env{})
	if err != nil {
		return nil, fmt.Errorf("making the witness: %w", err)
	}
	return []router.Link{{ID: asterisk, Kind: "asterisk", Adapter: hear}, {ID: freeswitch, Kind: "freeswitch", Adapter: listen}}, nil
}

func (w *witness) note(e *call.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *witness) heard() []*call.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events[:len(w.events):len(w.events)]
}

// disturbed says what the witness missed, which nobody ordered: then there is nothing to judge by. What it only suspects,
// for the switch's clock was stepped, it has not missed.
func (w *witness) disturbed() error {
	for _, e := range w.heard() {
		if e.Type == call.SourceGap && !strings.HasPrefix(e.Source.Reason, oracle.Suspected) || e.Type == call.SourceDown {
			return fmt.Errorf("the witness was disturbed: %s on %s: %s", e.Type, e.Switch.ID, e.Source.Reason)
		}
	}
	return nil
}

func (w *witness) idle() bool {
	s := w.r.Status()
	return s.ActiveCalls == 0 && s.Queue == 0
}

func (w *witness) close() {
	w.stop()
	if err := <-w.done; err != nil {
		slog.Debug("the witness has ended", "error", err)
	}
}

// overheard is an adapter of which the witness notes what it is told.
type overheard struct {
	core.Adapter
	id string
	w  *witness
}

// Run is the adapter's.
func (o overheard) Run(ctx context.Context, out core.Emitter) error {
	return o.Adapter.Run(ctx, overhearing{out, o.id, o.w})
}

type overhearing struct {
	core.Emitter
	id string
	w  *witness
}

// Frame notes the native events of a frame.
func (o overhearing) Frame(f core.Frame) error {
	o.w.mu.Lock()
	for _, x := range f.Observations {
		o.w.natives[oracle.Native{Switch: o.id, ID: x.Native.ID, Seq: x.Native.Seq}] = true
	}
	if m := sequence.FindSubmatch(f.Raw); m != nil { // FreeSWITCH numbers what it tells
		seq, _ := strconv.ParseUint(string(m[1]), 10, 64)
		o.w.natives[oracle.Native{Switch: o.id, Seq: seq}] = true
	}
	o.w.mu.Unlock()
	return o.Emitter.Frame(f)
}

var sequence = regexp.MustCompile(`"Event-Sequence":\s*"(\d+)"`)

func (w *witness) told() map[oracle.Native]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.natives)
}
