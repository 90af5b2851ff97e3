package adapters_test

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/adapters/esl"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

// tape keeps what an adapter emits, so that it can be played to trackers again and again.
type tape struct {
	name   string
	sw     call.SwitchRef
	frames []core.Frame
	refs   []call.SwitchRef // of each frame
	dead   []core.DeadLetter
}

func (r *tape) Up(i core.Instance) error {
	r.sw.Kind, r.sw.Instance = i.Kind, i.ID
	return nil
}

func (r *tape) Frame(f core.Frame) error {
	r.frames, r.refs = append(r.frames, f), append(r.refs, r.sw)
	return nil
}

func (r *tape) DeadLetter(d core.DeadLetter) error { r.dead = append(r.dead, d); return nil }
func (r *tape) Clock(core.ClockSample) error       { return nil }
func (r *tape) Gap(string, call.Time) error        { return nil }
func (r *tape) Missing([]string) error             { return nil }
func (r *tape) Count(string, int)                  {}

// tapes are all recordings, as the switches told them and as their packets do.
func tapes(t testing.TB) (out []*tape) {
	t.Helper()
	for _, f := range folders(t) {
		name := filepath.Base(filepath.Dir(f.dir)) + "/" + f.name
		told, seen := &tape{name: name, sw: call.SwitchRef{ID: "golden"}}, &tape{name: name + "/packets", sw: call.SwitchRef{ID: "wire"}}
		var err error
		if f.kind == "asterisk" {
			err = ari.Replay(f.dir, ari.ReplayOptions{}, told)
		} else {
			err = esl.Replay(f.dir, esl.ReplayOptions{}, told)
		}
		if err == nil {
			err = sip.Replay(filepath.Join(f.dir, "sip-rtp.pcap.gz"), sip.ReplayOptions{}, seen)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range [...]*tape{told, seen} {
			if len(r.frames) > 0 { // packets of an idle switch tell nothing
				out = append(out, r)
			}
		}
	}
	return out
}

// turns are the items that r becomes, frame by frame: what each sink would be given.
func (r *tape) turns() (out [][]core.Item) {
	tracker, judge := call.NewTracker(call.Options{}), fresh.New(fresh.Options{})
	for i, f := range r.frames {
		items := []core.Item{{Stream: core.StreamRaw, Key: r.refs[i].ID, Switch: r.refs[i], Dead: &core.DeadLetter{Raw: f.Raw, Received: f.Received}}}
		events := tracker.Tick(f.Received)
		for _, o := range f.Observations {
			events = append(events, tracker.Apply(r.refs[i], o)...)
		}
		for _, e := range events {
			judge.Stamp(e)
			for _, s := range [...]core.Stream{core.StreamEvents, core.StreamCalls, core.StreamStale} {
				items = append(items, core.Item{Stream: s, Key: e.CallID, Event: e, Switch: e.Switch})
			}
		}
		out = append(out, items)
	}
	for i := range r.dead {
		out = append(out, []core.Item{{Stream: core.StreamDeadLetter, Key: r.sw.ID, Switch: r.sw, Dead: &r.dead[i]}})
	}
	return out
}

func TestItemsOfRecordingsComeBackAsTheyWere(t *testing.T) {
	for _, r := range tapes(t) {
		for n, want := range r.turns() {
			got, err := codec.ReadItems(codec.AppendItems(nil, want))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s, turn %d: %v\n got %+v\nwant %+v", r.name, n, err, got, want)
			}
		}
	}
}

// events of a queue's call, which is an ordinary one.
func ordinary(b *testing.B) (items []core.Item, events []*call.Event) {
	for _, r := range tapes(b) {
		if r.name != "asterisk/queue_answered" {
			continue
		}
		for _, turn := range r.turns() {
			for _, i := range turn {
				if i.Stream == core.StreamEvents {
					events = append(events, i.Event)
				}
				if i.Event != nil && i.Stream != core.StreamStale {
					items = append(items, i)
				}
			}
		}
	}
	return items, events
}

// BenchmarkCodec compares the journal's form with JSON, by the events of a call: one event a record, and all in one.
func BenchmarkCodec(b *testing.B) {
	items, events := ordinary(b)
	n := float64(len(events))
	rate := func(b *testing.B, size int) {
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		b.ReportMetric(float64(size)/n, "B/event")
	}
	var one [][]core.Item
	for i := 0; i < len(items); i += 2 {
		one = append(one, items[i:i+2])
	}
	for name, turns := range map[string][][]core.Item{"single": one, "whole": {items}} {
		var records [][]byte
		size := 0
		b.Run("write/"+name, func(b *testing.B) {
			for b.Loop() {
				records, size = records[:0], 0
				for _, turn := range turns {
					records = append(records, codec.AppendItems(nil, turn))
					size += len(records[len(records)-1])
				}
			}
			rate(b, size)
		})
		b.Run("read/"+name, func(b *testing.B) {
			for b.Loop() {
				for _, r := range records {
					if _, err := codec.ReadItems(r); err != nil {
						b.Fatal(err)
					}
				}
			}
			rate(b, size)
		})
	}
	var texts [][]byte
	size := 0
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			b.Fatal(err)
		}
		texts = append(texts, text)
		size += len(text)
	}
	b.Run("read/json", func(b *testing.B) {
		for b.Loop() {
			for _, text := range texts {
				if err := json.Unmarshal(text, new(call.Event)); err != nil {
					b.Fatal(err)
				}
			}
		}
		rate(b, size)
	})
}

// TestPublishedCallsAreReadBack reads every call of every recording from its message on the calls stream.
func TestPublishedCallsAreReadBack(t *testing.T) {
	for _, r := range tapes(t) {
		for _, turn := range r.turns() {
			for _, i := range turn {
				if i.Stream != core.StreamCalls || i.Event.Seq == 0 || i.Event.Call == nil {
					continue
				}
				_, value, headers, err := cloudevents.Binary(i)
				if err != nil {
					t.Fatal(err)
				}
				whole, err := cloudevents.Structured(i)
				if err != nil {
					t.Fatal(err)
				}
				for mode, read := range map[string]func() (*call.Call, uint64, error){
					"binary":     func() (*call.Call, uint64, error) { return cloudevents.ReadCallState(value, headers) },
					"structured": func() (*call.Call, uint64, error) { return cloudevents.ReadCallState(whole, nil) },
				} {
					c, seq, err := read()
					if err != nil || seq != i.Event.Seq || !reflect.DeepEqual(c, i.Event.Call) {
						t.Fatalf("%s, %s: %v, number %d\n got %+v\nwant %+v", r.name, mode, err, seq, c, i.Event.Call)
					}
				}
			}
		}
	}
}
