package router

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// clockRig is a loop with one link and a wall clock that is set, driven by hand inside a bubble.
type clockRig struct {
	t    *testing.T
	p    *loop
	l    *link
	jump time.Duration
}

func newClockRig(t *testing.T) *clockRig {
	g := &clockRig{t: t}
	r, err := New(Options{Links: pbx(sessions()), Tracker: newFakeTracker(), Log: quiet(), Now: func() time.Time { return time.Now().Add(g.jump) }})
	must(t, err)
	g.p, g.l = r.loop, r.links[0]
	g.p.handle(g.up())
	g.beat(10 * time.Second)
	g.frame()
	return g
}

func (g *clockRig) wall() call.Time { return call.At(g.p.r.o.Now()) }

func (g *clockRig) beat(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(tickEvery)
		g.p.tick(g.p.clockTime())
	}
}

func (g *clockRig) up() *message {
	return &message{kind: msgUp, link: g.l, at: g.wall(), inst: &core.Instance{Kind: "asterisk", ID: "x"}}
}

func (g *clockRig) frame() {
	g.p.handle(&message{kind: msgFrame, link: g.l, at: g.wall(), obs: []call.Observation{{Kind: call.LegCreated, Leg: "a", At: g.wall() - 1000}}})
}

// lost ends the session, and begins another a second later.
func (g *clockRig) lost() {
	g.p.handle(&message{kind: msgDown, link: g.l, at: g.wall(), text: "lost"})
	g.beat(time.Second)
	g.p.handle(g.up())
}

// back is by how much the clock is set back.
const back = -time.Minute

// setBackAfter sets the clock back when the loop has stood still for so long, and the link is lost a while later.
func setBackAfter(still time.Duration) func(g *clockRig) call.Time {
	return func(g *clockRig) call.Time {
		heard := g.wall() + call.Time(back.Microseconds())
		time.Sleep(still)
		g.jump = back
		g.beat(5 * time.Second)
		g.lost()
		return heard
	}
}

// TestGapsOfASetClock: a gap begins when the link was last heard, by the clock as it is at its end, whatever that clock was
// set to meanwhile and whether anybody looked at it.
func TestGapsOfASetClock(t *testing.T) {
	for name, do := range map[string]func(g *clockRig) (heard call.Time){
		"set back":                                 setBackAfter(0),
		"set back while the loop stood still":      setBackAfter(30 * time.Second),
		"set back while it stood still for longer": setBackAfter(10 * time.Minute),
		"set right again": func(g *clockRig) call.Time {
			g.jump = back
			g.beat(time.Second)
			g.frame()
			heard := g.wall() - call.Time(back.Microseconds())
			g.jump = 0
			g.beat(time.Second)
			g.lost()
			return heard
		},
		"set right again, and a frame comes first": func(g *clockRig) call.Time {
			g.jump = back
			g.beat(time.Second)
			g.frame()
			g.jump = 0
			g.frame()
			heard := g.wall()
			g.beat(time.Second)
			g.lost()
			return heard
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newClockRig(t)
				heard := do(g)
				gap := g.gap()
				if gap.To != g.wall() || gap.From > heard || gap.From < heard-10*call.Millisecond {
					t.Errorf("the gap is from %s to %s, heard was %s, now it is %s", gap.From, gap.To, heard, g.wall())
				}
			})
		})
	}
}

// A session begins and the clock is set right before the loop hears of it: the gap, told by the clock of before, is as long as
// it was.
func TestGapOfAClockSetRightMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newClockRig(t)
		g.jump = back
		g.beat(time.Second)
		g.frame()
		g.p.handle(&message{kind: msgDown, link: g.l, at: g.wall(), text: "lost"})
		g.beat(5 * time.Second)
		up := g.up()
		g.jump = 0
		g.p.tick(g.p.clockTime())
		g.p.handle(up)
		if gap := g.gap(); gap.To != up.at || gap.To-gap.From < 5*call.Second || gap.To-gap.From > 6*call.Second {
			t.Errorf("the gap is from %s to %s, 5 s up to %s were not heard", gap.From, gap.To, up.at)
		}
	})
}

// What came while a snapshot was taken is told behind it. The session is lost, or another node takes over, in between: the gap
// begins where the session did.
func TestGapReachesBackBehindASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newClockRig(t)
		g.lost()
		began := g.wall()
		g.beat(3 * time.Second) // the snapshot is being taken, events wait
		snapshot := []call.Observation{{Kind: call.SnapshotLeg, Leg: "a", At: g.wall() - 1000}, {Kind: call.SnapshotEnd, At: g.wall() - 1000}}
		g.p.handle(&message{kind: msgFrame, link: g.l, at: g.wall(), obs: snapshot})
		g.beat(3 * time.Second)
		g.p.items = nil
		g.lost()
		if gap := g.gap(); gap.From != began {
			t.Errorf("the gap is from %s, want %s, when the session began", gap.From, began)
		}
	})
}

// gap is the one that was told.
func (g *clockRig) gap() *call.Source {
	var gaps []*call.Source
	for _, i := range g.p.items {
		if i.Event != nil && i.Event.Type == call.SourceGap {
			gaps = append(gaps, i.Event.Source)
		}
	}
	if len(gaps) != 1 {
		g.t.Fatalf("%d gaps", len(gaps))
	}
	return gaps[0]
}

// TestTakeoverByAnotherClock: the owner's clock is ahead of this node's, or behind it. Received time goes on as the owner's
// would, and what nobody heard since the owner's last word is in the gap.
func TestTakeoverByAnotherClock(t *testing.T) {
	for skew, want := range map[time.Duration]call.Time{time.Hour: call.Time(time.Hour.Microseconds()), 5 * time.Second: 5 * call.Second,
		50 * time.Millisecond: 0, -time.Hour: 0} {
		synctest.Test(t, func(t *testing.T) {
			g := newClockRig(t)
			f := &follower{toldNow: call.At(time.Now().Add(skew)), toldAt: time.Now()}
			g.p.now = f.toldNow
			time.Sleep(40 * time.Second)
			g.p.goOnFrom(f)
			if now := g.p.clockTime(); g.p.ahead != want || now != g.wall()+want {
				t.Errorf("skew %v: received time is %s ahead, want %s; it is %s", skew, g.p.ahead, want, now)
			}
		})
	}
}
