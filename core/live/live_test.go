package live

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func item(id string, state call.State, change func(*call.Call)) core.Item {
	c := &call.Call{
		ID: id, State: state, Switch: call.SwitchRef{ID: "pbx1", Kind: "asterisk"}, StartedAt: call.At(start.Add(-10 * time.Second)),
		From: &call.Address{Number: "+14155550100"}, To: &call.Address{Number: "1001"},
	}
	if change != nil {
		change(c)
	}
	e := &call.Event{Type: call.CallUpdated, CallID: id, Call: c}
	e.Time.AgeMS = 1.24
	return core.Item{Stream: core.StreamEvents, Event: e}
}

func table(t *testing.T, now *time.Time, items ...core.Item) *Table {
	t.Helper()
	tab := NewTable(func() time.Time { return *now })
	if err := tab.Write(context.Background(), items); err != nil {
		t.Fatal(err)
	}
	return tab
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

func view(w, h int, now time.Time) View {
	return View{
		Width: w, Height: h, Title: "demo", Now: now, Hint: "kcat -b 127.0.0.1:9092 -t cti.events.v1 · Ctrl-C ends",
		Log: []string{"one", "two\x1b[2J", "three", "four"},
		Status: Status{
			Started: start.Add(-32 * time.Second), Events: 5233,
			Links: []Link{
				{ID: "asterisk", Up: true, Detail: "22.10", ClockKnown: true, OffsetMS: 0.42, UncertaintyMS: 0.2},
				{ID: "freeswitch", Detail: "dialing 127.0.0.1:8021: connection refused"},
			},
			Sinks: []Sink{{Name: "kafka", Acked: 5230, Waiting: 3}},
		},
	}
}

func TestPicture(t *testing.T) {
	now := start
	tab := table(t, &now,
		item("a", call.StateActive, func(c *call.Call) {
			c.Queue = &call.Queue{ID: "support"}
			c.Connections = []*call.Connection{
				{Party: call.Party{ID: "alice", Role: call.RoleCaller}, State: call.Connected},
				{Party: call.Party{ID: "agent1", Role: call.RoleAgent}, State: call.Connected},
				{Party: call.Party{ID: "agent2", Role: call.RoleAgent}, State: call.Null},
			}
		}),
	)
	got := strings.Join(tab.Render(view(80, 14, now)), "\n")
	want := strings.TrimPrefix(`
ctigate demo  up 0:32   calls 1 now, 0 ended   events 5,233, 0/s
link asterisk    up   clock +0.4 ms ±0.2   22.10
link freeswitch  DOWN dialing 127.0.0.1:8021: connection refused
sink kafka       ok   acked 5,230   waiting 3

STATE     SWITCH  CALLER        DIALED        QUEUE    AGENT       AGE     LAG
active    pbx1    +14155550100  1001          support  agent1     0:10  1.2 ms



two·[2J
three
four
kcat -b 127.0.0.1:9092 -t cti.events.v1 · Ctrl-C ends`, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// quality is a report on one stream of the call that it reports on.
func quality(of core.Item, connection string, q call.Quality) core.Item {
	e := *of.Event
	e.Type, e.ConnectionID, e.Quality = call.MediaQuality, connection, &q
	e.Time.AgeMS = 9000
	return core.Item{Stream: core.StreamEvents, Event: &e}
}

// The audio of the worst stream has its columns as soon as any is measured; narrow terminals have less of it.
func TestPictureWithAudio(t *testing.T) {
	now := start
	active := func(id, number string) core.Item {
		return item(id, call.StateActive, func(c *call.Call) { c.From = &call.Address{Number: number} })
	}
	a, b, c, d := active("a", "1"), active("b", "2"), active("c", "3"), active("d", "4")
	tab := table(t, &now, a, b, c, d,
		quality(a, "x", call.Quality{Direction: call.FromParty, MOS: 2.0, LossPercent: 30}), // an older report
		quality(a, "x", call.Quality{Direction: call.FromParty, MOS: 4.41}),
		quality(a, "y", call.Quality{Direction: call.ToParty, MOS: 3.46, LossPercent: 2.25}),
		quality(b, "x", call.Quality{Direction: call.FromParty, MOS: 4.41}),
		quality(b, "x", call.Quality{Direction: call.ToParty, Flags: []string{call.FlagOneWay}}),
		quality(c, "x", call.Quality{Direction: call.FromParty, Flags: []string{call.FlagNoMedia}}),
	)
	for width, want := range map[int]string{
		80: `
STATE     SWITCH  CALLER       DIALED       QUEUE   AGENT      MOS   AGE     LAG
active    pbx1    1            1001                            3.5  0:10  1.2 ms
active    pbx1    2            1001                          1-way  0:10  1.2 ms
active    pbx1    3            1001                           none  0:10  1.2 ms
active    pbx1    4            1001                                 0:10  1.2 ms`,
		100: `
STATE     SWITCH   CALLER          DIALED         QUEUE     AGENT        MOS   LOSS   AGE     LAG
active    pbx1     1               1001                                  3.5   2.2%  0:10  1.2 ms
active    pbx1     2               1001                                1-way   0.0%  0:10  1.2 ms
active    pbx1     3               1001                                 none         0:10  1.2 ms
active    pbx1     4               1001                                              0:10  1.2 ms`,
	} {
		got := strings.Join(tab.Render(view(width, 24, now))[5:10], "\n")
		if got != want[1:] {
			t.Errorf("%d columns: got\n%s\nwant%s", width, got, want)
		}
	}
	v := view(100, 24, now)
	v.Color = true
	if got := strings.Join(tab.Render(v), "\n"); !strings.Contains(got, "\x1b[33m  3.5") || !strings.Contains(got, "\x1b[31m1-way") || !strings.Contains(got, "\x1b[33m  2.2%") {
		t.Errorf("bad audio does not stand out: %q", got)
	}
	var many []core.Item
	for i := range 100 {
		many = append(many, quality(d, fmt.Sprint(i), call.Quality{Direction: call.FromParty, MOS: 4}))
	}
	if err := tab.Write(context.Background(), many); err != nil || len(tab.calls["d"].heard) != maxHearings {
		t.Errorf("%v, %d reports kept", err, len(tab.calls["d"].heard))
	}
}

func TestEveryPictureFits(t *testing.T) {
	now := start
	var items []core.Item
	for i := range 50 {
		items = append(items, item(fmt.Sprint("call", i), call.StateQueued, func(c *call.Call) {
			c.From = &call.Address{Name: "山田太郎さん\x1b[31m\r\n e\u0301 \u202e far too long a name for any column"}
			c.Queue = &call.Queue{ID: "queue with a name that does not fit either"}
		}))
	}
	items = append(items, quality(items[0], "x", call.Quality{MOS: 4.4, LossPercent: 100}))
	tab := table(t, &now, items...)
	for w := 1; w <= 200; w += 3 {
		for h := 1; h <= 60; h += 3 {
			v := view(w, h, now)
			v.Color = true
			lines := tab.Render(v)
			if len(lines) > h {
				t.Fatalf("%dx%d: %d lines", w, h, len(lines))
			}
			for _, l := range lines {
				plain := sgr.ReplaceAllString(l, "")
				if cells(plain) > w || strings.ContainsAny(plain, "\x1b\r\n\t") {
					t.Fatalf("%dx%d: %d cells in %q", w, h, cells(plain), l)
				}
			}
		}
	}
}

func TestNoColourUnlessWanted(t *testing.T) {
	now := start
	tab := table(t, &now, item("a", call.StateActive, nil))
	if got := strings.Join(tab.Render(view(80, 24, now)), "\n"); strings.Contains(got, "\x1b") {
		t.Errorf("escape codes in %q", got)
	}
	v := view(80, 24, now)
	v.Color = true
	if got := strings.Join(tab.Render(v), "\n"); !strings.Contains(got, "\x1b[32mactive") {
		t.Errorf("no colour in %q", got)
	}
}

func TestCallsKeepTheirLines(t *testing.T) {
	now := start
	tab := table(t, &now, item("a", call.StateActive, nil), item("b", call.StateActive, nil))
	first := func() []string { tab.Render(view(80, 24, now)); return append([]string(nil), tab.slots[:3]...) }
	if got := fmt.Sprint(first()); got != "[a b ]" {
		t.Fatal(got)
	}
	_ = tab.Write(context.Background(), []core.Item{item("a", call.StateEnded, func(c *call.Call) { c.Outcome = call.Abandoned }), item("c", call.StateOffered, nil)})
	if got := fmt.Sprint(first()); got != "[a b c]" {
		t.Errorf("just ended: %s", got)
	}
	if got := strings.Join(tab.Render(view(80, 24, now)), "\n"); !strings.Contains(got, "abandoned") {
		t.Errorf("the outcome does not show:\n%s", got)
	}
	now = now.Add(linger + time.Millisecond)
	if got := fmt.Sprint(first()); got != "[ b c]" {
		t.Errorf("swept: %s", got)
	}
	_ = tab.Write(context.Background(), []core.Item{item("d", call.StateOffered, nil)})
	if got := fmt.Sprint(first()); got != "[d b c]" {
		t.Errorf("the free line is not used: %s", got)
	}
	if active, ended, events := tab.Counts(); active != 3 || ended != 1 || events != 5 {
		t.Errorf("counts %d %d %d", active, ended, events)
	}
}

func TestMoreCallsThanLines(t *testing.T) {
	now := start
	var items []core.Item
	for i := range 30 {
		items = append(items, item(fmt.Sprintf("%02d", i), call.StateActive, nil))
	}
	tab := table(t, &now, items...)
	lines := tab.Render(view(80, 24, now))
	shown := 0
	for _, l := range lines {
		if strings.HasPrefix(l, "active") {
			shown++
		}
	}
	if got := strings.Join(lines, "\n"); !strings.Contains(got, fmt.Sprintf("… and %d more calls", 30-shown)) || shown < 10 {
		t.Errorf("%d shown:\n%s", shown, got)
	}
}

func TestMergedAndUnseenCallsEnd(t *testing.T) {
	now := start
	merged := item("b", call.StateActive, func(c *call.Call) { c.MergedInto = "a" })
	merged.Event.Type = call.CallMerged
	unseen := item("z", call.StateEnded, nil)
	unseen.Event.Type = call.CallEnded
	late := item("y", call.StateEnded, nil)
	tab := table(t, &now, item("b", call.StateActive, nil), merged, unseen, late, core.Item{Stream: core.StreamEvents, Event: &call.Event{Type: call.AgentState}})
	if active, ended, _ := tab.Counts(); active != 0 || ended != 2 {
		t.Errorf("active %d ended %d", active, ended)
	}
}

func TestRateIsOfTheLastSeconds(t *testing.T) {
	now := start
	tab := table(t, &now)
	for i := range 20 {
		got := tab.rate(now, uint64(i*25))
		if i > 10 && (got < 95 || got > 105) {
			t.Errorf("step %d: %v events/s, want 100", i, got)
		}
		now = now.Add(Refresh)
	}
	if len(tab.samples) > 12 {
		t.Errorf("%d samples kept", len(tab.samples))
	}
}

func TestTextHelpers(t *testing.T) {
	for in, want := range map[time.Duration]string{-time.Second: "0:00", 67 * time.Second: "1:07", 3723 * time.Second: "1:02:03"} {
		if got := clock(in); got != want {
			t.Errorf("clock(%v) = %s", in, got)
		}
	}
	for in, want := range map[float64]string{0: "0.0 ms", -4: "-4.0 ms", -0.4: "0.0 ms", 12.6: "13 ms", 1500: "1.5 s", 600_000: "10 min"} {
		if got := span(in); got != want {
			t.Errorf("span(%v) = %s", in, got)
		}
	}
	for in, want := range map[float64]string{0.42: "+0.4 ms", -2: "-2.0 ms", -0.04: "0.0 ms"} {
		if got := offset(in); got != want {
			t.Errorf("offset(%v) = %s", in, got)
		}
	}
	for in, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(in); got != want {
			t.Errorf("grouped(%d) = %s", in, got)
		}
	}
	if got := pad("山田太郎", 6); got != "山田… " {
		t.Errorf("pad = %q", got)
	}
}

func TestScreenGivesTheTerminalBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		pictures := 0
		s := &Screen{out: &out, size: func() (int, int) { return 20, 3 }}
		ctx, cancel := context.WithTimeout(t.Context(), 1100*time.Millisecond)
		defer cancel()
		s.Run(ctx, func(int, int) []string { pictures++; return []string{"a", "b"} })
		got := out.String()
		if !strings.HasPrefix(got, enter) || !strings.HasSuffix(got, leave) || pictures != 5 {
			t.Errorf("%d pictures, %q", pictures, got)
		}
		if strings.Count(got, "\x1b[2J") != 1 || !strings.Contains(got, home+"a"+clearLine+"\r\nb"+clearLine+clearRest) {
			t.Errorf("it flickers, or does not clear line ends: %q", got)
		}
	})
}

// What reaches the right edge is not cleared there: the cursor stands on its last character.
func TestScreenKeepsTheLastColumn(t *testing.T) {
	var out bytes.Buffer
	s := &Screen{out: &out, size: func() (int, int) { return 5, 3 }}
	p := painter(true)
	s.draw(func(int, int) []string {
		return []string{"12345", p.in(red, "12") + "3" + p.in(bold, "45"), p.in(red, "1234")}
	})
	if got := strings.Count(out.String(), clearLine); got != 1 || !strings.HasSuffix(out.String(), "\x1b[0m"+clearLine) {
		t.Errorf("%d lines are cleared: %q", got, out.String())
	}
}

func TestLogKeepsTheLatest(t *testing.T) {
	var l Log
	for i := range 200 {
		fmt.Fprintf(&l, "line %d\n", i)
	}
	fmt.Fprint(&l, "x\ny\n")
	lines := l.Lines()
	if len(lines) != keptLines || lines[keptLines-1] != "y" || lines[keptLines-2] != "x" {
		t.Errorf("%d lines, last %q", len(lines), lines[len(lines)-2:])
	}
}
