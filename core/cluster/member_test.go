package cluster

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestTwoMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("gw-a").run()
		within(t, 5*time.Second, "a owns", a.owns(0))
		b := w.start("gw-b").run()
		within(t, 5*time.Second, "b is a member", func() bool { return len(b.Status().Members) == 2 })
		time.Sleep(2 * time.Second)
		if !a.owns(0)() || b.owns(0)() {
			t.Fatal("the unit moved although its owner is alive")
		}
		took := within(t, 5*time.Second, "b owns", func() bool {
			if a.cancel != nil {
				a.cancel()
			}
			return b.owns(0)()
		})
		t.Logf("after a stopped: %s", took)
		<-a.stopped
		if got := a.host.heard(); !slices.Equal(got, []string{"acquire 0", "release 0"}) {
			t.Errorf("host a heard %q", got)
		}
		b.stop()
		if err := w.ledger.overlap(); err != nil {
			t.Error(err)
		}
	})
}

func TestSpreadKeepsAndSpreads(t *testing.T) {
	c := func(id string, priority int, idle bool, claims ...claim) candidate {
		return candidate{id: id, wish: wish{Node: id, Units: 4, Priority: priority, Idle: idle, Claims: claims}}
	}
	for _, tc := range []struct {
		name    string
		members []candidate
		want    map[string][]int
	}{
		{"spreads", []candidate{c("b", 0, false), c("a", 0, false)}, map[string][]int{"a": {0, 2}, "b": {1, 3}}},
		{"keeps", []candidate{c("a", 0, false), c("b", 0, false, claim{0, 3}, claim{1, 3}, claim{2, 3}, claim{3, 3})},
			map[string][]int{"b": {0, 1, 2, 3}}},
		{"evens out", []candidate{c("a", 0, false), c("b", 0, false, claim{0, 3}, claim{1, 3})}, map[string][]int{"a": {2, 3}, "b": {0, 1}}},
		{"the later claim", []candidate{c("a", 0, false, claim{0, 5}), c("b", 0, false, claim{0, 7})},
			map[string][]int{"a": {1, 2}, "b": {0, 3}}},
		{"priority", []candidate{c("a", 0, false), c("b", 1, false)}, map[string][]int{"b": {0, 1, 2, 3}}},
		{"idle keeps what it has not let go of", []candidate{c("a", 0, true, claim{2, 3}), c("b", 0, false)},
			map[string][]int{"a": {2}, "b": {0, 1, 3}}},
		{"all idle", []candidate{c("a", 0, true)}, map[string][]int{}},
	} {
		p := spread(4, tc.members)
		for _, m := range p.Members {
			if !slices.Equal(m.Units, tc.want[m.ID]) {
				t.Errorf("%s: %s has %v, want %v", tc.name, m.ID, m.Units, tc.want[m.ID])
			}
		}
	}
}

// A process that was killed while it joined is a member until its session is over: the next of its node has the unit.
func TestEarlierProcessGetsNothing(t *testing.T) {
	w := newWorld(t)
	a := w.start("gw-a")
	joined := &kmsg.JoinGroupResponse{LeaderID: "2", MemberID: "2"}
	for id, s := range map[string]wish{"1": {Node: "gw-a", Units: 1, Claims: []claim{{0, 3}}}, "2": {Node: "gw-a", Units: 1}, "3": {Node: "gw-b", Units: 1}} {
		joined.Members = append(joined.Members, kmsg.JoinGroupResponseMember{MemberID: id, ProtocolMetadata: subscription(a.topic, s)})
	}
	for _, given := range a.lead(joined) {
		units, _, err := readAssignment(a.topic, given.MemberAssignment)
		if err != nil || (len(units) == 1) != (given.MemberID == "2") {
			t.Errorf("member %s: %v, %v", given.MemberID, units, err)
		}
	}
}

// pair is two members of which a owns the unit.
func pair(t *testing.T, adjust ...func(*Config, *Options)) (w *world, a, b *node, ga *gate) {
	t.Helper()
	w = newWorld(t)
	ga = &gate{conns: map[net.Conn]bool{}}
	a = w.start("gw-a", append(adjust, func(_ *Config, o *Options) { o.Dial = ga.dial(o.Dial) })...).run()
	within(t, 5*time.Second, "a owns", a.owns(0))
	b = w.start("gw-b", adjust...).run()
	within(t, 5*time.Second, "b is a member", func() bool { return len(b.Status().Members) == 2 })
	return w, a, b, ga
}

// A hung owner is kicked: the other may publish once the hung one's lease is over by its own clock, and not before.
func TestKickOfAHungOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, a, b, ga := pair(t)
		thaw := ga.freeze()
		time.Sleep(100 * time.Millisecond)
		if err := b.Kick(t.Context(), 0, "hung"); err != nil {
			t.Fatal(err)
		}
		assigned := within(t, time.Second, "b is assigned the unit", func() bool { _, ok := b.Owned(0); return ok })
		took := within(t, 5*time.Second, "b may publish", b.owns(0))
		t.Logf("assigned after %s, valid after %s", assigned, took)
		if took < a.cfg.Lease || took > a.cfg.Lease+500*time.Millisecond {
			t.Errorf("b may publish %s after the kick, want the lease and its margin", took)
		}
		if last := b.host.takeover(); last.Previous.Node != "gw-a" || last.Released || last.NotBefore.IsZero() {
			t.Errorf("b was told %+v", last)
		}
		thaw()
		within(t, 5*time.Second, "a is back", func() bool { return len(b.Status().Members) == 2 })
		time.Sleep(time.Second)
		if got := a.host.heard(); !slices.Equal(got, []string{"acquire 0", "lost 0"}) || a.owns(0)() {
			t.Errorf("host a heard %q", got)
		}
		if err := w.ledger.overlap(); err != nil {
			t.Error(err)
		}
		if n := b.Status().Counts.Kicks; n != 1 {
			t.Errorf("%d kicks counted", n)
		}
	})
}

func TestKicksAreLimitedAndRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, b, _ := pair(t)
		if err := a.Kick(t.Context(), 0, "self"); !errors.Is(err, ErrOwnUnit) {
			t.Errorf("kicking itself: %v", err)
		}
		if err := b.Kick(t.Context(), 7, "nobody"); !errors.Is(err, ErrNoOwner) {
			t.Errorf("kicking nobody: %v", err)
		}
		var err error
		for range kickBurst + 1 {
			err = b.KickMember(t.Context(), "no-such-member", "test")
		}
		if !errors.Is(err, ErrTooManyKicks) || b.Status().Counts.KicksOver != 1 {
			t.Errorf("the kick after the burst: %v", err)
		}
		time.Sleep(kickEvery)
		if err := b.KickMember(t.Context(), "no-such-member", "test"); err != nil {
			t.Error(err)
		}
	})
}

// A lease that lapsed while Kafka was away runs again when the group still stands.
func TestLapsedLeaseResumes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, _, ga := pair(t)
		before, _ := a.Owned(0)
		ga.set(true, 0)
		within(t, 2*time.Second, "the lease lapses", func() bool { return !a.owns(0)() })
		ga.set(false, 0)
		took := within(t, 2*time.Second, "the lease runs", a.owns(0))
		if after, _ := a.Owned(0); after != before || after.Err() != nil {
			t.Error("another ownership")
		}
		t.Logf("resumed after %s", took)
	})
}

// Kafka is away for longer than any session: afterwards one of the two owns again.
func TestKafkaAwayForLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gates := map[string]*gate{}
		w, a, b, _ := pair(t, func(c *Config, o *Options) {
			gates[c.Node] = &gate{conns: map[net.Conn]bool{}}
			o.Dial = gates[c.Node].dial(o.Dial)
		})
		for _, g := range gates {
			g.set(true, 0)
		}
		time.Sleep(10 * time.Minute)
		if a.owns(0)() || b.owns(0)() || a.Status().Problem == "" {
			t.Error("somebody may publish while Kafka is away, or does not say that it is")
		}
		for _, g := range gates {
			g.set(false, 0)
		}
		took := within(t, 10*time.Second, "one owns", func() bool { return a.owns(0)() || b.owns(0)() })
		t.Logf("owned again after %s", took)
		if err := w.ledger.overlap(); err != nil {
			t.Error(err)
		}
	})
}

// Without a kick Kafka drops a silent node after the session time-out.
func TestSessionTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, _, b, ga := pair(t)
		ga.set(true, 0)
		took := within(t, 10*time.Second, "b may publish", b.owns(0))
		if took < 5*time.Second {
			t.Errorf("after %s", took)
		}
	})
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, a, b, _ := pair(t)
		a.host.onRelease(func(ctx context.Context, _ int) error { return sleep(ctx, 3*time.Second) }) // heartbeats go on
		drained := make(chan time.Time, 1)
		go func() {
			if err := a.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			drained <- time.Now()
		}()
		time.Sleep(2900 * time.Millisecond)
		if !a.owns(0)() {
			t.Error("a may not finish what it began")
		}
		within(t, time.Second, "b owns", b.owns(0))
		if took := time.Since(<-drained); took > 300*time.Millisecond {
			t.Errorf("b may publish %s after a has drained", took)
		}
		if last := b.host.takeover(); !last.Released || !last.NotBefore.IsZero() || last.Previous.Node != "gw-a" {
			t.Errorf("b was told %+v", last)
		}
		if s := a.Status(); !s.Drained {
			t.Errorf("a's status: %+v", s)
		}
		b.stop()
		time.Sleep(3 * time.Second)
		if _, ok := a.Owned(0); ok {
			t.Error("a drained node took over")
		}
		a.Undrain()
		within(t, 5*time.Second, "a owns again", a.owns(0))
		if err := w.ledger.overlap(); err != nil {
			t.Error(err)
		}
	})
}

// A node that releases while it still waits for its predecessor does not say that its successor need not wait.
func TestReleaseWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, _, b, ga := pair(t)
		c := w.start("gw-c").run()
		within(t, 5*time.Second, "three members", func() bool { return len(c.Status().Members) == 3 })
		defer ga.freeze()()
		if err := c.Kick(t.Context(), 0, "hung"); err != nil {
			t.Fatal(err)
		}
		within(t, time.Second, "b is assigned the unit", func() bool { _, ok := b.Owned(0); return ok })
		if err := b.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "c owns", c.owns(0))
		if c.host.takeover().Released {
			t.Error("b said that there is nothing to wait for")
		}
		if err := w.ledger.overlap(); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedTakeoverGoesToAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, b, _ := pair(t)
		b.host.onAcquire(func(context.Context, Takeover) error { return errors.New("cannot read back") })
		a.stop()
		within(t, 2*time.Second, "b tried", func() bool { return len(b.host.heard()) == 2 })
		if got := b.host.heard(); !slices.Equal(got, []string{"acquire 0", "lost 0"}) {
			t.Errorf("host b heard %q", got)
		}
		within(t, 2*declineFor, "b tries again", func() bool { return len(b.host.heard()) == 4 })
	})
}

func TestAcquireEndsWithTheOwnership(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("gw-a")
		why := make(chan error, 1)
		a.host.acquire = func(ctx context.Context, _ Takeover) error {
			<-ctx.Done()
			why <- context.Cause(ctx)
			return ctx.Err()
		}
		a.run()
		within(t, 5*time.Second, "a owns", a.owns(0))
		b := w.start("gw-b").run()
		within(t, 5*time.Second, "b is a member", func() bool { return len(b.Status().Members) == 2 })
		if err := b.Kick(t.Context(), 0, "test"); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "b owns", b.owns(0))
		time.Sleep(time.Second)
		if err := <-why; !errors.Is(err, kerr.UnknownMemberID) || !slices.Equal(a.host.heard(), []string{"acquire 0", "lost 0"}) {
			t.Errorf("Acquire ended with %v; host a heard %q", err, a.host.heard())
		}
	})
}

func TestInspect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, a, b, _ := pair(t)
		look := func() Status {
			s, err := Inspect(t.Context(), Options{Config: a.cfg, Prefix: "cti.", Brokers: w.seeds, Dial: w.dial})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := look()
		if len(s.Members) != 2 || s.State != "Stable" || s.Units[0].Owner != "gw-a" || s.Units[0].Since == 0 {
			t.Errorf("got %s", mustJSON(s))
		}
		a.stop()
		b.stop()
		if s = look(); len(s.Members) != 0 || s.Units[0].Owner != "" || !s.Units[0].Released {
			t.Errorf("when all have stopped: %s", mustJSON(s))
		}
	})
}

func TestInspectBeforeAnythingRan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		s, err := Inspect(t.Context(), Options{Config: NewConfig(), Prefix: "cti.", Brokers: w.seeds, Dial: w.dial})
		if err != nil || len(s.Members) != 0 || len(s.Units) != 1 || s.Units[0].Owner != "" {
			t.Errorf("got %s, %v", mustJSON(s), err)
		}
	})
}

func TestStopWithoutKafka(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		g := &gate{conns: map[net.Conn]bool{}, cut: true}
		a := w.start("gw-a", func(_ *Config, o *Options) { o.Dial = g.dial(o.Dial) }).run()
		time.Sleep(time.Minute)
		begin := time.Now()
		a.stop()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("stopping took %s", took)
		}
	})
}
