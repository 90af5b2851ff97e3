package esl

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recordedSnapshot is one of the recordings' snapshots.
func recordedSnapshot(t *testing.T, name string) snapshot {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "adaptertest", "traces", "freeswitch", "midcall_snapshots", "snapshot-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fakeSwitch) has(s snapshot) {
	f.answers["show channels as json"], f.answers["show calls as json"] = s.Channels, s.Calls
	for id, dump := range s.Dumps {
		f.answers["uuid_dump "+id+" json"] = dump
	}
}

func TestSnapshotOfALiveSwitch(t *testing.T) {
	for _, name := range []string{"ringing", "talking", "held", "after"} {
		t.Run(name, func(t *testing.T) {
			want := recordedSnapshot(t, name)
			sw := newFakeSwitch(t)
			sw.has(want)
			r := run(t, testConfig(sw.listen()))
			r.next(t, "up")
			f := r.next(t, "frame").frame
			var got snapshot
			if err := json.Unmarshal(f.Raw, &got); err != nil {
				t.Fatal(err)
			}
			if got.Channels != want.Channels || got.Calls != want.Calls || got.At == 0 || f.Received.IsZero() {
				t.Errorf("channels or calls differ")
			}
			if len(got.Dumps) != len(want.Dumps) {
				t.Errorf("%d dumps, want %d", len(got.Dumps), len(want.Dumps))
			}
			for id, dump := range want.Dumps {
				if got.Dumps[id] != dump {
					t.Errorf("dump of %s differs", id)
				}
			}
		})
	}
}

func TestSnapshotLeavesOutWhatWentMeanwhile(t *testing.T) {
	sw := newFakeSwitch(t)
	var rows []string
	for i := range 100 {
		id := fmt.Sprintf("0cad1beb-7b46-4483-99f5-%012d", i)
		rows = append(rows, fmt.Sprintf(`{"uuid":%q}`, id))
		if i%3 != 0 {
			sw.answers["uuid_dump "+id+" json"] = fmt.Sprintf(`{"Unique-ID":%q}`, id)
		}
	}
	rows = append(rows, `{"uuid":"x json\nexit"}`, `{"uuid":""}`)
	sw.answers["show channels as json"] = `{"row_count":102,"rows":[` + strings.Join(rows, ",") + `]}`
	c := connected(t, sw)
	s, err := takeSnapshot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.dumps) != 66 {
		t.Errorf("%d dumps, want 66", len(s.dumps))
	}
	for id, dump := range s.dumps {
		if string(dump) != fmt.Sprintf(`{"Unique-ID":%q}`, id) {
			t.Errorf("%s has the dump %s", id, dump)
		}
	}
}

func TestSwitchThatCannotListChannels(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.answers["show channels as json"] = "-ERR SQL disabled, no data available!\n"
	sw.afterStart(func(p *peer) { p.event(event1("DTMF", 1)) })
	r := run(t, testConfig(sw.listen()))
	inst := r.next(t, "up").inst
	if len(inst.Missing) != 2 || !strings.Contains(inst.Missing[1], "SQL disabled") {
		t.Errorf("missing %q", inst.Missing)
	}
	if f := r.next(t, "frame").frame; string(f.Raw) != event1("DTMF", 1) {
		t.Errorf("first frame is %.80q, want the event and no snapshot", f.Raw)
	}
}

func TestBrokenChannelListEndsTheSessionAndKeepsTheEvents(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.answers["show channels as json"] = `{"row_count":1,"rows":[{"uu`
	sw.after = func(p *peer) { p.event(event1("DTMF", 1)) }
	r := run(t, testConfig(sw.listen()))
	if f := r.next(t, "frame").frame; string(f.Raw) != event1("DTMF", 1) {
		t.Errorf("got %.80q", f.Raw)
	}
	if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "show channels as json") {
		t.Errorf("got %v", err)
	}
}

func TestCoreUUIDFromTheFirstEvent(t *testing.T) {
	sw := newFakeSwitch(t)
	delete(sw.answers, "global_getvar core_uuid")
	if inst := run(t, testConfig(sw.listen())).next(t, "up").inst; inst.ID != testCore {
		t.Errorf("instance %+v", inst)
	}
}

func TestTooManyEventsDuringTheSnapshot(t *testing.T) {
	const events = 16*startupFactor + 50
	sw := newFakeSwitch(t)
	sw.after = func(p *peer) {
		for i := range events {
			p.event(event1("DTMF", i+1))
		}
	}
	cfg := testConfig(sw.listen())
	cfg.Queue = 16
	r := run(t, cfg)
	if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "raise queue") {
		t.Errorf("got %v", err)
	}
	if len(r.news) != 16*startupFactor {
		t.Errorf("%d events handed over, want %d", len(r.news), 16*startupFactor)
	}
}
