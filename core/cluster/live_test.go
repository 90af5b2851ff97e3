package cluster

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// liveWorld is the Kafka named by CTIGATE_TEST_KAFKA (host:port), under a group of the test's own, in real time.
func liveWorld(t *testing.T) *world {
	t.Helper()
	addr := os.Getenv("CTIGATE_TEST_KAFKA")
	if addr == "" {
		t.Skip("CTIGATE_TEST_KAFKA is not set: no Kafka to test with")
	}
	return &world{t: t, ledger: &ledger{}, seeds: strings.Split(addr, ","), prefix: "test" + time.Now().UTC().Format("150405.000000") + "."}
}

// After a kick the other member has the unit well within 1.5 s and may publish once the lease is over.
func TestLiveKick(t *testing.T) {
	w := liveWorld(t)
	gates := map[string]*gate{}
	nodes := map[string]*node{}
	for _, name := range []string{"gw-a", "gw-b"} {
		g := &gate{conns: map[net.Conn]bool{}}
		gates[name] = g
		begin := time.Now()
		nodes[name] = w.start(name, func(_ *Config, o *Options) { o.Dial = g.dial(o.Dial) }).run()
		within(t, 20*time.Second, name+" is a member", func() bool { return nodes[name].Status().State == phaseMember })
		t.Logf("%s became a member after %s", name, time.Since(begin).Round(time.Millisecond))
	}
	owner, other := "gw-a", "gw-b"
	within(t, 10*time.Second, "gw-a owns", nodes[owner].owns(0))
	within(t, 10*time.Second, "both are members", func() bool { return len(nodes[other].Status().Members) == 2 })
	for i := range 10 {
		thaw := gates[owner].freeze()
		time.Sleep(time.Duration(37*i) * time.Millisecond)
		begin := time.Now()
		for {
			err := nodes[other].Kick(t.Context(), 0, "live test")
			if err == nil {
				break
			}
			if err != ErrTooManyKicks {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			begin = time.Now()
		}
		kicked := time.Since(begin)
		within(t, 10*time.Second, "assigned", func() bool { _, ok := nodes[other].Owned(0); return ok })
		assigned := time.Since(begin)
		within(t, 10*time.Second, "valid", nodes[other].owns(0))
		valid := time.Since(begin)
		t.Logf("kick answered after %s, unit assigned and written down after %s, may publish after %s",
			kicked.Round(time.Millisecond), assigned.Round(time.Millisecond), valid.Round(time.Millisecond))
		if assigned > 1500*time.Millisecond {
			t.Errorf("the kicked unit was assigned only after %s", assigned)
		}
		thaw()
		within(t, 15*time.Second, "the kicked is back", func() bool { return len(nodes[other].Status().Members) == 2 })
		owner, other = other, owner
	}
	if err := w.ledger.overlap(); err != nil {
		t.Error(err)
	}
}

// By plan it is faster: nobody waits for a lease.
func TestLiveDrainAndStop(t *testing.T) {
	w := liveWorld(t)
	a := w.start("gw-a").run()
	within(t, 20*time.Second, "a owns", a.owns(0))
	b := w.start("gw-b").run()
	within(t, 20*time.Second, "both are members", func() bool { return len(b.Status().Members) == 2 })
	begin := time.Now()
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "b owns", b.owns(0))
	t.Logf("b may publish %s after a began to drain", time.Since(begin).Round(time.Millisecond))
	a.Undrain()
	within(t, 10*time.Second, "a is back", func() bool { return !a.Status().Drained && len(a.Status().Members) == 2 })
	time.Sleep(time.Second)
	begin = time.Now()
	b.stop()
	within(t, 10*time.Second, "a owns", a.owns(0))
	t.Logf("a may publish %s after b was told to stop", time.Since(begin).Round(time.Millisecond))
	s, err := Inspect(t.Context(), Options{Config: a.cfg, Prefix: w.prefix, Brokers: w.seeds, Dial: w.dial})
	if err != nil || s.State != "Stable" || s.Units[0].Owner != "gw-a" || s.Members[0].Node != "gw-a" {
		t.Errorf("inspect: %s, %v", mustJSON(s), err)
	}
	if err := w.ledger.overlap(); err != nil {
		t.Error(err)
	}
}

// Without a kick Kafka's own session time-out does it.
func TestLiveSessionTimeout(t *testing.T) {
	w := liveWorld(t)
	g := &gate{conns: map[net.Conn]bool{}}
	a := w.start("gw-a", func(_ *Config, o *Options) { o.Dial = g.dial(o.Dial) }).run()
	within(t, 20*time.Second, "a owns", a.owns(0))
	b := w.start("gw-b").run()
	within(t, 20*time.Second, "both are members", func() bool { return len(b.Status().Members) == 2 })
	begin := time.Now()
	thaw := g.freeze()
	defer thaw()
	within(t, 15*time.Second, "b owns", b.owns(0))
	t.Logf("b may publish %s after a was silent", time.Since(begin).Round(time.Millisecond))
}
