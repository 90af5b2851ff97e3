package esl

import (
	"fmt"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// Events that come while the snapshot is taken follow it, and what they tell of a channel the snapshot leaves to them.
func TestSnapshotIsPutInOrderWithTheEvents(t *testing.T) {
	const a, b = "0cad1beb-7b46-4483-99f5-382665520437", "a08aa170-095a-44a5-aaeb-312b0c9bb33a"
	for order, jobs := range map[string]bool{"event": true, "sequence": false} {
		t.Run(order, func(t *testing.T) {
			sw := newFakeSwitch(t)
			sw.has(recordedSnapshot(t, "held"))
			if jobs {
				sw.answers["hostname"] = "vm"
			}
			sw.onCommand = func(p *peer, cmd string) bool {
				if cmd == "api show calls as json" { // b is taken back, and a third channel has gone, before the last answer
					p.event(event1("CHANNEL_UNHOLD", 4706, "Unique-ID", b, "Channel-Name", "sofia/internal/agent1@127.0.0.1:26070", "Call-Direction", "outbound"))
					p.event(event1("CHANNEL_HANGUP_COMPLETE", 4707, "Unique-ID", "gone", "Channel-Name", "sofia/internal/x@y", "Call-Direction", "inbound"))
				}
				return false
			}
			r := run(t, testConfig(sw.listen()))
			r.next(t, "up")
			f := r.next(t, "frame").frame
			by := map[string]call.Observation{}
			for _, o := range f.Observations {
				by[fmt.Sprint(o.Leg, " ", o.Kind)] = o
			}
			of := func(leg string, k call.Kind) call.Observation { return by[fmt.Sprint(leg, " ", k)] }
			if o := of(b, call.SnapshotLeg); o.Value != string(call.Held) || o.Bridge != a+"+"+b {
				t.Errorf("the channel that was on hold: %+v", o)
			}
			if o := of(b, call.LegHeld); o.At != 1795351659237329 {
				t.Errorf("its hold: %+v", o)
			}
			if o := of("gone", call.SnapshotKept); o.Kind == 0 || of("gone", call.LegCreated).Kind != 0 {
				t.Errorf("the channel that went away meanwhile: %+v", f.Observations)
			}
			if o := f.Observations[len(f.Observations)-1]; o.Kind != call.SnapshotEnd || o.Value != order {
				t.Errorf("the end: %+v", o)
			}
			if next := r.next(t, "frame").frame; next.Type != "CHANNEL_UNHOLD" || len(next.Observations) == 0 || next.Observations[0].Kind != call.LegRetrieved {
				t.Errorf("then came %+v", next)
			}
		})
	}
}

// FreeSWITCH's dispatchers may swap events: one that lies before its channel's row comes and goes no more.
func TestEventsBehindTheSnapshotThatLieBeforeIt(t *testing.T) {
	n := newNormalizer(options{}, func(string, int) {})
	row := `{"Event-Name":"CHANNEL_DATA","Event-Sequence":"50","Unique-ID":"u","Channel-Name":"sofia/internal/x@y","Call-Direction":"inbound","Caller-Channel-Answered-Time":"1795351659000000"}`
	if _, err := n.snapshot(&snapshot{dumps: map[string][]byte{"u": []byte(row)}, received: call.Second}); err != nil {
		t.Fatal(err)
	}
	n.settled = true
	for seq, want := range map[int]int{49: 0, 51: 1} {
		f, err := n.event([]byte(event1("CHANNEL_HOLD", seq, "Unique-ID", "u", "Channel-Name", "sofia/internal/x@y")), true, call.Second)
		if err != nil || len(f.Observations) != want {
			t.Errorf("sequence %d: %+v (%v)", seq, f.Observations, err)
		}
	}
}

// What a caller's variables tell of a queue of mod_callcenter.
func TestSnapshotOfAQueue(t *testing.T) {
	for extra, want := range map[string]string{
		``: "waits",
		`"variable_cc_queue_answered_epoch":"1795351547"`:                                                   "answered 1795351547",
		`"variable_cc_queue_canceled_epoch":"1795351557","variable_cc_cancel_reason":"BREAK_OUT"`:           "abandoned 1795351557",
		`"variable_cc_queue_canceled_epoch":"1795351557","variable_cc_cancel_reason":"TIMEOUT"`:             "timeout 1795351557",
		`"variable_cc_queue_answered_epoch":"1795351547","variable_cc_queue_terminated_epoch":"1795351551"`: "answered 1795351547",
	} {
		row := `{"Event-Name":"CHANNEL_DATA","Unique-ID":"u","Channel-Name":"sofia/internal/x@y","Call-Direction":"inbound",
			"variable_cc_side":"member","variable_cc_queue":"support@default","variable_cc_queue_joined_epoch":"1795351546"`
		if extra != "" {
			row += "," + extra
		}
		n := newNormalizer(options{}, func(string, int) {})
		obs, err := n.snapshot(&snapshot{dumps: map[string][]byte{"u": []byte(row + "}")}, received: call.Second})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, o := range obs {
			switch {
			case o.Kind == call.QueueEnter && o.Queue == "support" && o.At == 1795351546*call.Second:
				got = "waits"
			case o.Kind == call.QueueLeave:
				got = fmt.Sprint(o.Value, " ", int64(o.At/call.Second))
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", extra, got, want)
		}
	}
}
