package call

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// reborn is t after a restart.
func reborn(t testing.TB, tr *Tracker) *Tracker {
	t.Helper()
	state := tr.AppendState(nil)
	again, err := RestoreTracker(tr.opt, state)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// sameState compares all that two trackers know. What lasts for one Apply, forgotten room in slices and numbers of the
// last saving aside.
func sameState(t testing.TB, got, want *Tracker) {
	t.Helper()
	for _, tr := range [...]*Tracker{got, want} {
		tr.out, tr.sw = nil, SwitchRef{}
		tr.ended, tr.endedHead = append([]tombstone{}, tr.ended[tr.endedHead:]...), 0
		if tr.waiting == nil {
			tr.waiting = []*tracked{}
		}
	}
	a, b := string(got.AppendState(nil)), string(want.AppendState(nil)) // which numbers both alike
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the state that was restored is another:\n got %+v\nwant %+v", got, want)
	}
	if a != b {
		t.Fatal("the same state is written in two ways")
	}
}

// busy is a tape of n observations of overlapping calls of every kind: queues, transfers, conferences, standing agents,
// switches that go away and come back.
func busy(seed uint64, n int) (out []Observation) {
	r := rand.New(rand.NewPCG(seed, 2))
	now := 1_700_000_000 * Second
	leg := func() string { return strconv.Itoa(r.IntN(40)) }
	for i := range n {
		now += Time(r.Int64N(int64(3 * Second)))
		o := Observation{
			Kind: Kind(1 + r.IntN(int(LegQuality))), Leg: leg() + strings.Repeat("'", i/400), At: now - Time(r.IntN(5))*Millisecond, Received: now,
			Native: Native{Type: "t", ID: strconv.Itoa(i - r.IntN(2)), Seq: uint64(i)}, Value: []string{"answered", "up", "held", "blind", "1"}[r.IntN(5)],
			Bridge: "b" + strconv.Itoa(r.IntN(8)), Queue: []string{"support", "sales"}[r.IntN(2)], Agent: "agent" + strconv.Itoa(r.IntN(3)),
			Inbound: r.IntN(2) == 0, ByParty: r.IntN(2) == 0, User: "agent" + strconv.Itoa(r.IntN(3)), Q850: []int{0, 16, 17, 21}[r.IntN(4)],
		}
		switch r.IntN(6) {
		case 0:
			o.Parent = leg()
		case 1:
			o.Number, o.SIPCallID = "+1415555"+leg(), "dialog"+leg()
		case 2:
			o.Conference, o.Other = "room", leg()
		case 3:
			o.Correlation, o.Dialed = "header"+leg(), "1000"
		case 4:
			o.Reason, o.Unseen = "account", true
		}
		if o.Kind == LegQuality {
			o.Quality = &Quality{Direction: FromParty, Final: r.IntN(2) == 0, Packets: 50, MOS: 4.1}
		}
		if (o.Kind == LinkDown || o.Kind == SnapshotEnd) && r.IntN(8) > 0 {
			o.Kind = LegCreated
		}
		out = append(out, o)
	}
	return out
}

// TestRestartGoesOn saves and restores before every observation: the events are those of a tracker that ran through.
func TestRestartGoesOn(t *testing.T) {
	for seed := range uint64(12) {
		whole, cut := NewTracker(Options{Linger: 60 * Second}), NewTracker(Options{Linger: 60 * Second})
		for i, o := range busy(seed, 500) {
			again := reborn(t, cut)
			if i%50 == 0 {
				sameState(t, again, cut)
			}
			cut = again
			sw := SwitchRef{ID: "pbx" + strconv.Itoa(i%2), Kind: "test", Instance: strconv.Itoa(i / 400)}
			want, got := whole.Tick(o.Received), cut.Tick(o.Received)
			want, got = append(want, whole.Apply(sw, o)...), append(got, cut.Apply(sw, o)...)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, observation %d (%+v):\n got %s\nwant %s", seed, i, o, told(got), told(want))
			}
		}
	}
}

func told(events []*Event) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString("\n  " + string(e.Type) + " " + e.CallID + " " + e.ConnectionID + " " + strconv.FormatUint(e.Seq, 10))
	}
	return b.String()
}

// TestCutAnywhere restores at every tenth place and runs to the end without another restart.
func TestCutAnywhere(t *testing.T) {
	sw := SwitchRef{ID: "pbx", Kind: "test"}
	tape := busy(99, 400)
	whole := NewTracker(Options{})
	var states [][]byte
	var want [][]*Event
	for _, o := range tape {
		states = append(states, whole.AppendState(nil))
		want = append(want, append(whole.Tick(o.Received), whole.Apply(sw, o)...))
	}
	for from := 0; from < len(tape); from += 10 {
		tr, err := RestoreTracker(Options{}, states[from])
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < len(tape); i++ {
			if got := append(tr.Tick(tape[i].Received), tr.Apply(sw, tape[i])...); !reflect.DeepEqual(got, want[i]) {
				t.Fatalf("cut before %d, observation %d:\n got %s\nwant %s", from, i, told(got), told(want[i]))
			}
		}
	}
}

// TestFewerEndedCalls: what is not told is as if it had been forgotten.
func TestFewerEndedCalls(t *testing.T) {
	tr := NewTracker(Options{SaveEnded: 3})
	now := 1_700_000_000 * Second
	for i := range 10 {
		id := strconv.Itoa(i)
		for _, o := range []Observation{caller(id, "+1", "2"), cleared(id, 16)} {
			now += Second
			o.At, o.Received, o.SIPCallID = now, now, "dialog"+id
			tr.Apply(testSwitch, o)
		}
	}
	again := reborn(t, tr)
	if len(again.ended) != 3 || len(again.legs) != 3 || len(again.sip) != 3 || len(again.roots) != 3 || len(again.spent.list) != 7 {
		t.Errorf("%d ended, %d legs, %d dialogs, %d roots, %d spent ids", len(again.ended), len(again.legs), len(again.sip), len(again.roots), len(again.spent.list))
	}
	tr.opt.MaxEnded = 3
	tr.forget()
	tr.opt = again.opt
	sameState(t, again, tr)
	if e := again.Apply(testSwitch, caller("1", "+1", "2")); e[0].CallID == NewID(testSwitch.ID, "1") {
		t.Error("an id was used again")
	}
}

// TestShedLegsAreSaved: a queue rings more agents than a call shows.
func TestShedLegsAreSaved(t *testing.T) {
	s := answered()
	for i := range 2 * maxLegs {
		id := "x" + strconv.Itoa(i)
		s.do(agentLeg(id, "a", "agent"+id)).do(is(LegAlerting, id)).do(cleared(id, 19))
	}
	if len(s.t.first.shedLegs) == 0 {
		t.Fatal("no leg was shed")
	}
	again := reborn(t, s.t)
	sameState(t, again, s.t)
	for _, o := range []Observation{cleared("b", 16), cleared("a", 16)} {
		o.At, o.Received = s.now, s.now
		if want, got := s.t.Apply(testSwitch, o), again.Apply(testSwitch, o); !reflect.DeepEqual(got, want) {
			t.Errorf("got %s\nwant %s", told(got), told(want))
		}
	}
}

// graph are the fields that lead to other parts of the state, or are not part of it.
var graph = map[string]string{
	"Tracker.opt": "from RestoreTracker", "Tracker.sw": "for one Apply", "Tracker.out": "for one Apply",
	"Tracker.legs": "", "Tracker.roots": "", "Tracker.rooms": "", "Tracker.sip": "", "Tracker.agents": "", "Tracker.first": "",
	"Tracker.last": "", "Tracker.active": "", "Tracker.waiting": "", "Tracker.ended": "", "Tracker.endedHead": "", "Tracker.spent": "",
	"Tracker.instances": "", "leg.c": "", "leg.conn": "", "leg.bridge": "", "leg.agreed": "", "leg.key": "", "leg.mark": "for one saving",
	"tracked.call": "", "tracked.legs": "", "tracked.shedLegs": "", "tracked.first": "", "tracked.hangup": "", "tracked.missing": "",
	"tracked.recent": "", "tracked.recentN": "", "tracked.prev": "", "tracked.next": "", "tracked.mark": "for one saving",
	"tracked.done": "checked against those in progress",
	"room.id":      "", "room.legs": "", "room.mark": "for one saving", "tombstone.c": "", "tombstone.legs": "",
}

// TestEveryFieldIsSaved sets every plain field, one after the other: one that is added and not saved is found. A field
// that is not plain must be named above, and be part of what the other tests restore.
func TestEveryFieldIsSaved(t *testing.T) {
	s := answered()
	s.do(Observation{Kind: LegBridged, Leg: "a", Bridge: "b1"}).do(Observation{Kind: QueueEnter, Leg: "a", Queue: "support"})
	s.do(caller("gone", "+1", "2")).do(cleared("gone", 16))
	l := s.t.legs[legKey{testSwitch.ID, "a"}]
	if l.bridge == nil || len(s.t.ended) == 0 {
		t.Fatal("the call is not as this test needs it")
	}
	for name, v := range map[string]any{"Tracker": s.t, "leg": l, "tracked": l.c, "room": l.bridge, "tombstone": &s.t.ended[0]} {
		for i, v := 0, reflect.ValueOf(v).Elem(); i < v.NumField(); i++ {
			field := name + "." + v.Type().Field(i).Name
			if _, known := graph[field]; known {
				continue
			}
			f := reflect.NewAt(v.Field(i).Type(), unsafe.Pointer(v.Field(i).UnsafeAddr())).Elem()
			old := reflect.New(f.Type()).Elem()
			old.Set(f)
			switch f.Kind() {
			case reflect.Bool:
				f.SetBool(!f.Bool())
			case reflect.Int, reflect.Int64:
				f.SetInt(f.Int() + 3)
			case reflect.Uint32, reflect.Uint64:
				f.SetUint(f.Uint() + 3)
			case reflect.String:
				f.SetString(f.String() + "x")
			default:
				t.Errorf("%s is new: save it (save_state.go), let busy() fill it, and name it in this test", field)
			}
			if again := reborn(t, s.t); !reflect.DeepEqual(fields(again), fields(s.t)) {
				t.Errorf("%s is not saved: see save_state.go", field)
			}
			f.Set(old)
		}
	}
}

// fields is t without what is not part of its state.
func fields(t *Tracker) Tracker {
	t.AppendState(nil) // which numbers all alike
	c := *t
	c.sw, c.out = SwitchRef{}, nil
	if c.waiting == nil {
		c.waiting = []*tracked{}
	}
	return c
}

func TestDamagedState(t *testing.T) {
	s := answered()
	state := s.t.AppendState([]byte("before"))[len("before"):]
	for n := range state {
		if _, err := RestoreTracker(Options{}, state[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are taken for whole", n, len(state))
		}
	}
	for i := range state {
		for bit := range 8 {
			state[i] ^= 1 << bit
			if _, err := RestoreTracker(Options{}, state); err == nil {
				t.Fatalf("bit %d of byte %d is another, and nobody notices", bit, i)
			}
			state[i] ^= 1 << bit
		}
	}
	newer := append([]byte(stateName), 9, 0, 0, 0, 0)
	if _, err := RestoreTracker(Options{}, newer); err == nil || !strings.Contains(err.Error(), "use the version that wrote it") {
		t.Errorf("a newer format: %v", err)
	}
	if _, err := RestoreTracker(Options{}, append(state, 0)); err == nil {
		t.Error("a byte too many is taken")
	}
}

// TestDamagedStateOfGoodChecksum restores what no tracker wrote, and goes on with what comes of it.
func TestDamagedStateOfGoodChecksum(t *testing.T) {
	tr := NewTracker(Options{})
	for _, o := range busy(5, 200) {
		tr.Apply(testSwitch, o)
	}
	state := tr.AppendState(nil)
	r, restored := rand.New(rand.NewPCG(1, 1)), 0
	for range 2000 {
		body := append([]byte(nil), state[:len(state)-4]...)
		for range 1 + r.IntN(3) {
			body[r.IntN(len(body))] = byte(r.Uint32() >> r.IntN(6))
		}
		if tr, err := RestoreTracker(Options{}, checksummed(body, 0)); err == nil {
			restored++
			goOn(tr)
		}
	}
	if restored == 0 {
		t.Error("none was restored")
	}
}

func goOn(tr *Tracker) {
	for _, o := range busy(6, 50) {
		tr.Apply(testSwitch, o)
	}
	tr.Tick(tr.now + 10*3600*Second)
}

// FuzzRestore restores states whose checksum is right and whose contents are not, and goes on with what comes of it.
func FuzzRestore(f *testing.F) {
	tr := NewTracker(Options{})
	for i, o := range busy(5, 200) {
		tr.Apply(testSwitch, o)
		if i%40 == 0 {
			state := tr.AppendState(nil)
			f.Add(state[:len(state)-4])
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if tr, err := RestoreTracker(Options{}, checksummed(body, 0)); err == nil {
			goOn(tr)
		}
	})
}
