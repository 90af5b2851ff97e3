package kafka

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stateOf is an item of the calls stream.
func stateOf(id string, seq uint64, state call.State, at time.Time) core.Item {
	c := &call.Call{ID: id, InteractionID: id, Switch: call.SwitchRef{ID: "pbx1", Kind: "asterisk"}, State: state, StartedAt: call.At(at)}
	return core.Item{Stream: core.StreamCalls, Key: id, Switch: c.Switch, Event: &call.Event{ID: fmt.Sprintf("%s-%d", id, seq), Type: call.CallUpdated,
		CallID: id, InteractionID: id, Seq: seq, Switch: c.Switch, Call: c, Time: call.EventTime{Received: call.At(at)}}}
}

func callsOf(t *testing.T, s *Sink) (told map[string]string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told = map[string]string{}
	err = s.Calls(ctx, func(c *call.Call, seq uint64, at call.Time) {
		if _, twice := told[c.ID]; twice {
			t.Errorf("%s is told twice", c.ID)
		}
		told[c.ID] = fmt.Sprintf("%s %d %s", c.State, seq, at.Std().UTC().Format(time.TimeOnly))
	})
	return told, err
}

// The last state of each call is told: of those in progress and of those that ended lately, in either content mode.
func TestCalls(t *testing.T) {
	onBrokers(t, func(t *testing.T, base *Config, _ *fake) {
		for _, encoding := range []string{encodingBinary, encodingStructured} {
			own := *base
			cfg := &own
			cfg.TopicPrefix, cfg.Encoding = base.TopicPrefix+encoding+".", encoding
			s := open(t, cfg)
			defer shut(t, s)
			if told, err := callsOf(t, s); err != nil || len(told) > 0 {
				t.Fatalf("%s: %v, %v", encoding, told, err)
			}
			now := time.Now().UTC().Truncate(time.Second)
			hours := func(h int) time.Time { return now.Add(-time.Duration(h) * time.Hour) }
			var items []core.Item
			for i := range 300 { // on all partitions, with what supersedes it
				id := fmt.Sprint("call", i)
				items = append(items, stateOf(id, 1, call.StateOffered, hours(5)), stateOf(id, uint64(i+2), call.StateActive, hours(4)))
			}
			items = append(items, stateOf("old", 1, call.StateActive, hours(3)), stateOf("old", 9, call.StateEnded, hours(3)),
				stateOf("gone", 1, call.StateActive, hours(3)), core.Item{Stream: core.StreamCalls, Key: "gone", Switch: call.SwitchRef{ID: "pbx1"}},
				stateOf("late", 4, call.StateActive, now), stateOf("late", 5, call.StateEnded, now))
			if err := s.Write(t.Context(), items); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"late": "ended 5 " + now.Format(time.TimeOnly)}
			for i := range 300 {
				want[fmt.Sprint("call", i)] = fmt.Sprintf("active %d %s", i+2, hours(4).Format(time.TimeOnly))
			}
			if told, err := callsOf(t, s); err != nil || !maps.Equal(told, want) {
				t.Errorf("%s: %v, told %d, not %d; of the one that has just ended %q, not %q", encoding, err, len(told), len(want), told["late"], want["late"])
			}
			unreadable(t, cfg, s, len(want))
		}
	})
}

// unreadable puts what is no state onto the topic: the others are told, and the error says so.
func unreadable(t *testing.T, cfg *Config, s *Sink, others int) {
	t.Helper()
	strange := admin(t, cfg)
	defer strange.Close()
	if err := strange.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.TopicPrefix + "calls.v1", Key: []byte("x"), Value: []byte("{")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	told, err := callsOf(t, s)
	if err == nil || !strings.Contains(err.Error(), "1 states are not readable") || len(told) != others {
		t.Errorf("%d told: %v", len(told), err)
	}
}
