//go:build live

package live_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/router"
)

const (
	// readers read the same run, each under an application name of its own, and each loses its links at another event.
	readers   = 40
	tracesDir = "../../adapters/adaptertest/traces/asterisk"
)

// outages are how long links stay away, one for each reader and scenario by turns; 0: to the end of the scenario.
var outages = []time.Duration{30 * time.Millisecond, 300 * time.Millisecond, 1100 * time.Millisecond, 2500 * time.Millisecond, 0}

// TestReconcile plays every scenario of truth.json through Asterisk to many readers. One hears everything; each of the
// others loses both its links at another event of the scenario, together they at every one, and finds them again after a
// while. What the first records is the truth; what the others record is no different, or says what was not seen; the gap is
// published, and the calls of it are marked. Half of the readers may set marks in ARI's stream of events, half may not.
func TestReconcile(t *testing.T) {
	truth, err := adaptertest.ReadTruth(truthFile)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*reader, readers+1)
	for i := range all {
		all[i] = newReader(t, i)
	}
	for _, r := range all {
		r.waitSettled(t)
	}
	losses, cuts := adaptertest.Losses{}, 0
	for round, name := range slices.Sorted(maps.Keys(truth)) {
		if name == "idle" || name == "agent_states" { // no call
			continue
		}
		t.Run(name, func(t *testing.T) {
			for pass := range passes(recordedEvents(t, name)) {
				p := cutPlan{name, round, pass, truth[name]}
				faults := p.cutAll(t, all, losses, &cuts)
				if len(faults) == 0 {
					continue
				}
				// Two readers of a busy Asterisk may part for more than a cut: what is wrong is wrong twice.
				t.Logf("playing it again:\n%s", strings.Join(faults, "\n"))
				for _, f := range p.cutAll(t, all, losses, &cuts) {
					t.Error(f)
				}
			}
		})
	}
	t.Logf("%d cuts; what they cost:\n%s", cuts, losses)
}

// passes is how often a scenario of so many events is played, so that links are lost at each. One of more events than there
// are readers is played once, unless CTIGATE_EVERY_CUT is set: then as often as it takes.
func passes(events int) int {
	if os.Getenv("CTIGATE_EVERY_CUT") == "" {
		return 1
	}
	return step(events)
}

// step is how many events there are for each reader, at least 1.
func step(events int) int { return max(1, (events+readers-1)/readers) }

// cutPlan is one playing of a scenario.
type cutPlan struct {
	name        string
	round, pass int
	want        adaptertest.Scenario
}

// cutAll plays a scenario to all readers, each of which is cut elsewhere, and returns what is wrong with what they recorded.
func (p cutPlan) cutAll(t *testing.T, all []*reader, losses adaptertest.Losses, cuts *int) (faults []string) {
	t.Helper()
	whole := p.playToAll(t, all)
	for _, r := range all[1:] {
		cut, wrong := r.check(t, whole, p.name, losses)
		faults = append(faults, wrong...)
		if cut {
			*cuts++
		}
	}
	return faults
}

// playToAll plays a scenario to all readers, and returns what the one that hears all has heard. On a machine so busy that
// Asterisk tells late who was dialed, even that one may take a party for another: then it is played again.
func (p cutPlan) playToAll(t *testing.T, all []*reader) []*call.Event {
	t.Helper()
	events := recordedEvents(t, p.name)
	for n := 1; ; n++ {
		for i, r := range all {
			r.arm(position(i, events, p.pass), outages[(i+p.round)%len(outages)])
		}
		play(t, p.name)
		for _, r := range all {
			r.over()
		}
		for _, r := range all {
			r.waitSettled(t)
		}
		whole := all[0].heard()
		wrong, _ := compareStories(recordsIn(whole), p.want)
		if len(wrong) == 0 {
			return whole
		}
		if n == attempts {
			t.Fatalf("without a cut it was wrong %d times:\n%s", n, strings.Join(wrong, "\n"))
		}
		t.Logf("playing it again:\n%s", strings.Join(wrong, "\n"))
	}
}

// position is the event at which reader i loses its links in a pass of a scenario of so many events; 0 for the one that
// hears all. Where there are more readers than events, several share one, for outages of different lengths.
func position(i, events, pass int) int {
	if i == 0 || events == 0 {
		return 0
	}
	if each := step(events); each > 1 {
		return i*each - pass
	}
	return (i-1)%events + 1
}

// recordedEvents is how many canonical events the recording of a scenario makes.
func recordedEvents(t *testing.T, name string) int {
	t.Helper()
	c := &counting{Recorder: adaptertest.NewRecorder(t.Context()), host: adaptertest.NewHost("asterisk", "")}
	if err := ari.Replay(filepath.Join(tracesDir, name), ari.ReplayOptions{}, c); err != nil {
		t.Fatal(err)
	}
	return callEvents(c.host.Events)
}

type counting struct {
	*adaptertest.Recorder
	host *adaptertest.Host
}

func (c *counting) Frame(f core.Frame) error { c.host.Frame(f); return nil }

func callEvents(events []*call.Event) (n int) {
	for _, e := range events {
		if e.CallID != "" && e.Type != call.CallRecord {
			n++
		}
	}
	return n
}

func recordsIn(events []*call.Event) (out []*call.Event) {
	for _, e := range events {
		if e.Type == call.CallRecord {
			out = append(out, e)
		}
	}
	return out
}

// reader is a gateway without sinks, behind two relays that can be cut.
type reader struct {
	name   string
	marks  bool
	ari    *severable
	ami    *severable
	router *router.Router

	mu     sync.Mutex
	events []*call.Event
	cutAt  int // canonical event of the scenario; 0: none
	seen   int
	outage time.Duration
	cut    bool
	behind bool // has yet to be reconciled with the switch
}

func newReader(t *testing.T, i int) *reader {
	t.Helper()
	r := &reader{name: fmt.Sprintf("reader%d", i), marks: i%2 == 0, behind: true, ari: newSeverable(t, ariAddr, true), ami: newSeverable(t, amiAddr, false)}
	c := ari.NewConfig()
	c.URL, c.Application = "http://"+r.ari.addr+"/ari", r.name
	c.Username, c.Password = "ctigate", core.NewSecret(password)
	if r.marks {
		c.Username, c.Password = "stage", core.NewSecret("stagesecret")
	}
	c.AMI = &ari.AMI{Address: r.ami.addr, Username: "ctigate", Password: core.NewSecret(password)}
	quiet := slog.New(slog.DiscardHandler)
	a, err := c.Open("pbx1", core.Env{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	r.router, err = router.New(router.Options{
		Links: []router.Link{{ID: "pbx1", Kind: ari.Kind, Adapter: a}}, Tracker: call.NewTracker(call.Options{}), Log: quiet,
		OnEvent: r.event, Backoff: router.Backoff{Min: 20 * time.Millisecond, Max: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.router.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return r
}

// event notes one event, and cuts the links behind the one that it is armed for.
func (r *reader) event(e *call.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	switch e.Type {
	case call.SourceUp, call.SourceGap:
		r.behind = true
	case call.SourceReconciled:
		r.behind = false
	}
	if e.CallID == "" || e.Type == call.CallRecord {
		return
	}
	if r.seen++; r.seen == r.cutAt {
		r.cut, r.behind = true, true
		r.ari.sever()
		r.ami.sever()
		if r.outage > 0 {
			time.AfterFunc(r.outage, r.restore)
		}
	}
}

// arm starts a scenario.
func (r *reader) arm(at int, outage time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events, r.seen, r.cut, r.cutAt, r.outage = nil, 0, false, at, outage
}

// over ends an outage that lasts to the end of the scenario. The event that begins it may still come.
func (r *reader) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.outage == 0 {
		r.outage = outages[1]
		r.restore()
	}
}

func (r *reader) restore() { r.ari.restore(); r.ami.restore() }

func (r *reader) heard() []*call.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// sources are the source events of a type since the scenario began.
func (r *reader) sources(typ call.EventType) (out []*call.Event) {
	for _, e := range r.heard() {
		if e.Type == typ {
			out = append(out, e)
		}
	}
	return out
}

// waitSettled waits until the link is up, with its snapshot, and no call is in progress.
func (r *reader) waitSettled(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !r.settled(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			calls, _ := r.router.Calls(t.Context())
			for _, c := range calls {
				t.Logf("%s has call %s, %s: %+v", r.name, c.ID, c.State, c.Connections)
			}
			t.Fatalf("%s is not at rest after 30 s: %+v", r.name, r.router.Status())
		}
	}
}

func (r *reader) settled() bool {
	s := r.router.Status()
	return s.Links[0].Up && len(s.Links[0].Missing) == 0 && s.ActiveCalls == 0 && s.Queue == 0 && !r.isBehind()
}

func (r *reader) isBehind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behind
}

func (r *reader) wasCut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cut
}

// check compares what a reader recorded with what the whole run was; it reports whether its links were cut, and what is
// wrong.
func (r *reader) check(t *testing.T, whole []*call.Event, name string, losses adaptertest.Losses) (cut bool, wrong []string) {
	t.Helper()
	heard := r.heard()
	blind := adaptertest.Blind{}
	was := r.wasCut()
	if was {
		blind = r.gap(t)
	}
	lost, faults := blind.Check(whole, heard)
	for _, f := range faults {
		wrong = append(wrong, fmt.Sprintf("%s, cut at event %d of %d for %v (blind %s to %s): %s", r.name, r.cutAt, callEvents(whole), r.outage, blind.From, blind.To, f))
	}
	for _, e := range recordsIn(heard) {
		if c := e.Call; was && c.StartedAt < blind.From && c.EndedAt > blind.To && (c.Completeness == nil || c.Completeness.Gaps == 0 && !slices.Contains(c.Completeness.Missing, "start")) {
			wrong = append(wrong, fmt.Sprintf("%s: call %s lived through the gap and does not say so: %+v", r.name, c.ID, c.Completeness))
		}
	}
	if was {
		losses.Add(name, lost)
	}
	return was, wrong
}

// gap is what the reader published of the time that it did not listen.
func (r *reader) gap(t *testing.T) (b adaptertest.Blind) {
	t.Helper()
	gaps, back := r.sources(call.SourceGap), r.sources(call.SourceReconciled)
	if len(gaps) == 0 || len(back) == 0 {
		t.Errorf("%s published %d gaps and %d reconciliations", r.name, len(gaps), len(back))
		return b
	}
	b.From, b.To = gaps[0].Source.From, back[len(back)-1].Time.Received
	want := map[bool]string{true: "event", false: "time"}[r.marks]
	for _, e := range back {
		if e.Source.Mark != want {
			t.Errorf("%s was reconciled by %q, want %q", r.name, e.Source.Mark, want)
		}
	}
	for _, g := range gaps {
		if g.Source.From == 0 || g.Source.To < g.Source.From || strings.TrimSpace(g.Source.Reason) == "" {
			t.Errorf("%s published a gap without bounds or reason: %+v", r.name, g.Source)
		}
	}
	return b
}

// severable passes connections on to an address until it is told to cut them.
type severable struct {
	addr, to string
	linger   bool // the switch is not told

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool // whether it was severed
}

func newSeverable(t *testing.T, to string, linger bool) *severable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &severable{addr: ln.Addr().String(), to: to, linger: linger, conns: map[net.Conn]bool{}}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go s.relay(in)
		}
	}()
	return s
}

// relay passes one connection on. When it is severed and lingers, the switch's end of it is read on to the end of the test, and what it
// brings thrown away: Asterisk 22.10 may deadlock when an ARI websocket closes while a device's state is being sent to it
// (asterisk/asterisk#2170).
func (s *severable) relay(in net.Conn) {
	defer in.Close()
	if !s.keep(in) {
		return
	}
	defer s.forget(in)
	out, err := net.Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, in)
		if !s.severed(in) {
			out.Close()
		}
	}()
	var buf [64 << 10]byte
	for {
		n, err := out.Read(buf[:])
		if err != nil {
			return
		}
		if _, err := in.Write(buf[:n]); err != nil && !s.severed(in) {
			return
		}
	}
}

// severed reports whether a connection was cut without a word to the switch.
func (s *severable) severed(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.linger && s.conns[c]
}

func (s *severable) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		s.conns[c] = false
	}
	return !s.cut
}

func (s *severable) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// sever breaks all connections and refuses new ones.
func (s *severable) sever() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	for c := range s.conns {
		s.conns[c] = true
		c.Close()
	}
}

func (s *severable) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = false
}
