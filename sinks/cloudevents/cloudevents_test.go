package cloudevents

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func ms(n int64) call.Time { return call.Time(1_800_000_000_000_000 + n*1000) }

// sample is a queued, answered, transferred call of three parties: a usual event of a contact centre.
func sample() *call.Event {
	conn := func(id string, role call.Role) *call.Connection {
		return &call.Connection{
			ID: "pbx1:1800000000." + id, SIPCallID: "7f3a9b2c-" + id + "@192.0.2.10",
			Party:     call.Party{ID: "agent" + id, Role: role, Number: "+49301234" + id, Device: "PJSIP/agent" + id},
			State:     call.Connected,
			OfferedAt: ms(1), AlertingAt: ms(20), ConnectedAt: ms(4200),
			Holds: []call.Span{{From: ms(9000), To: ms(12000)}},
			Media: &call.Media{Codec: "opus", SampleRate: 48000, CodecsSeen: []string{"opus"}},
		}
	}
	sw := call.SwitchRef{ID: "pbx1", Kind: "asterisk", Instance: "00:11:22:33:44:55"}
	c := &call.Call{
		ID: "0f6f8d2e-5b1c-5e7e-9a55-6f1f5c1d0a01", InteractionID: "0f6f8d2e-5b1c-5e7e-9a55-6f1f5c1d0a01", Switch: sw,
		State: call.StateActive, Direction: call.Inbound,
		From: &call.Address{Number: "+4915112345678", E164: "+4915112345678", Name: "Caller"}, To: &call.Address{Number: "8000"},
		StartedAt: ms(0), OfferedAt: ms(0), AnsweredAt: ms(4200),
		Queue:   &call.Queue{ID: "sales", EnteredAt: ms(500), LeftAt: ms(4200), Result: "answered"},
		IVRPath: "main/sales", Attributes: map[string]string{"tenant": "acme", "X-Customer": "4711", "language": "de"},
		Connections:  []*call.Connection{conn("1", call.RoleCaller), conn("2", call.RoleAgent), conn("3", call.RoleAgent)},
		Transfers:    []call.Transfer{{Kind: "blind", By: "agent2", To: "agent3", At: ms(13000), Result: "done"}},
		Durations:    &call.Durations{RingMS: 3700, QueueMS: 3700, TalkMS: 9000, HoldMS: 3000, TotalMS: 13000},
		Completeness: &call.Completeness{},
	}
	return &call.Event{
		ID: "b1946ac92492d2347c6235b4d2611184", Type: call.ConnectionConnected,
		InteractionID: c.InteractionID, CallID: c.ID, ConnectionID: c.Connections[2].ID, Seq: 17,
		Switch: sw, Native: call.Native{Type: "ChannelStateChange", ID: "1800000000.3"},
		Time:  call.EventTime{Switch: ms(13500), Received: ms(13504), OffsetMS: -1.25, UncertaintyMS: 0.5, AgeMS: 5.25, Freshness: call.Fresh},
		Party: &c.Connections[2].Party, Call: c,
	}
}

func eventItem() core.Item {
	e := sample()
	return core.Item{Stream: core.StreamEvents, Key: e.InteractionID, Event: e, Switch: e.Switch}
}

func headerMap(hs []Header) map[string]string {
	m := map[string]string{}
	for _, h := range hs {
		m[h.Name] = string(h.Value)
	}
	return m
}

func TestBinaryHeaders(t *testing.T) {
	key, value, hs, err := Binary(eventItem())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": "b1946ac92492d2347c6235b4d2611184", "ce_source": "/ctigate/switch/pbx1",
		"ce_type": "cti.connection.connected.v1", "ce_subject": "0f6f8d2e-5b1c-5e7e-9a55-6f1f5c1d0a01",
		"ce_time": "2027-01-15T08:00:13.500000Z", "content-type": "application/json", "ce_dataschema": SchemaEvent,
		"ce_sequence": "00000000000000000017", "ce_recordedtime": "2027-01-15T08:00:13.504000Z",
		"ce_partitionkey": "0f6f8d2e-5b1c-5e7e-9a55-6f1f5c1d0a01",
	}
	got := headerMap(hs)
	parent := got["traceparent"]
	delete(got, "traceparent")
	if len(got) != len(want) {
		t.Errorf("headers: got %d, want %d: %v", len(got), len(want), got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: got %q, want %q", k, got[k], v)
		}
	}
	if len(parent) != 55 || !strings.HasPrefix(parent, "00-") || !strings.HasSuffix(parent, "-01") {
		t.Errorf("traceparent: got %q, want version-trace-span-flags", parent)
	}
	if string(key) != eventItem().Key {
		t.Errorf("key: got %q", key)
	}
	if want := reference(t, sample()); !bytes.Equal(value, want) {
		t.Errorf("value:\n got %s\nwant %s", value, want)
	}
}

func TestSubjectSourceAndTime(t *testing.T) {
	agent := call.Event{ID: "a", Type: call.AgentState, Agent: &call.AgentInfo{ID: "agent7"}, Switch: call.SwitchRef{ID: "pbx 1/ä"}}
	agent.Time.Received = ms(7)
	source := call.Event{ID: "s", Type: call.SourceUp, Source: &call.Source{}, Switch: call.SwitchRef{ID: "fs1"}}
	for _, c := range []struct {
		name                  string
		ev                    *call.Event
		subject, source, time string
	}{
		{"agent without a call", &agent, "agent7", "/ctigate/switch/pbx%201%2F%C3%A4", "2027-01-15T08:00:00.007000Z"},
		{"source", &source, "fs1", "/ctigate/switch/fs1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, hs, err := Binary(core.Item{Stream: core.StreamEvents, Key: "k", Event: c.ev})
			got := headerMap(hs)
			if err != nil || got["ce_subject"] != c.subject || got["ce_source"] != c.source || got["ce_time"] != c.time {
				t.Errorf("got %v, %v", got, err)
			}
			if _, ok := got["traceparent"]; ok {
				t.Error("an event outside a call has a traceparent")
			}
			if _, ok := got["ce_sequence"]; ok {
				t.Error("an event outside a call has a sequence")
			}
		})
	}
}

func TestRowsAreTheCallItself(t *testing.T) {
	e := sample()
	row := reference(t, e.Call)
	record := *e
	record.Type = call.CallRecord
	for _, c := range []struct {
		item     core.Item
		typ, sub string
	}{
		{core.Item{Stream: core.StreamCalls, Key: e.CallID, Event: e}, TypeCallState, "-state"},
		{core.Item{Stream: core.StreamRecords, Key: e.CallID, Event: &record}, "cti.call.record.v1", ""},
	} {
		_, value, hs, err := Binary(c.item)
		got := headerMap(hs)
		if err != nil || !bytes.Equal(value, row) {
			t.Errorf("%s: %v\n got %s\nwant %s", c.typ, err, value, row)
		}
		if got["ce_type"] != c.typ || got["ce_id"] != e.ID+c.sub || got["ce_dataschema"] != SchemaCall {
			t.Errorf("%s: got %v", c.typ, got)
		}
	}
}

func TestTombstone(t *testing.T) {
	it := core.Item{Stream: core.StreamCalls, Key: "c1", Switch: call.SwitchRef{ID: "pbx1"}}
	key, value, hs, err := Binary(it)
	if string(key) != "c1" || value != nil || hs != nil || err != nil {
		t.Errorf("got %q %q %v %v, want the key alone", key, value, hs, err)
	}
	line, err := Structured(it)
	want := `{"specversion":"1.0","id":"c1-expired","source":"/ctigate/switch/pbx1","type":"cti.call.expired.v1",` +
		`"subject":"c1","partitionkey":"c1"}`
	if err != nil || string(line) != want {
		t.Errorf("got %s, %v\nwant %s", line, err, want)
	}
}

func TestDeadLetters(t *testing.T) {
	for _, c := range []struct {
		name, raw, contentType, data string
	}{
		{"text", "Event: \"x\"\r\n", contentText, `"data":"Event: \"x\"\r\n"`},
		{"bytes", "\xff\x00\x01", contentBytes, `"data_base64":"/wAB"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			it := core.Item{
				Stream: core.StreamDeadLetter, Key: "pbx1", Switch: call.SwitchRef{ID: "pbx1"},
				Dead: &core.DeadLetter{Raw: []byte(c.raw), Reason: "parsing: no \"type\"", Received: ms(1)},
			}
			_, value, hs, err := Binary(it)
			got := headerMap(hs)
			if err != nil || string(value) != c.raw {
				t.Errorf("value %q, %v: want the bytes as received", value, err)
			}
			for k, v := range map[string]string{
				"reason": "parsing: no \"type\"", "switch": "pbx1", "received": "2027-01-15T08:00:00.001000Z",
				"ce_type": TypeDeadLetter, "content-type": c.contentType,
			} {
				if got[k] != v {
					t.Errorf("%s: got %q, want %q", k, got[k], v)
				}
			}
			line, err := Structured(it)
			if err != nil || !strings.Contains(string(line), c.data) || !json.Valid(line) {
				t.Errorf("structured: got %s, %v, want %s in it", line, err, c.data)
			}
		})
	}
}

func TestStructured(t *testing.T) {
	line, err := Structured(eventItem())
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := Structured(eventItem()); !bytes.Equal(line, again) {
		t.Error("two encodings of one event differ")
	}
	if bytes.ContainsRune(line, '\n') {
		t.Error("a line has a newline in it")
	}
	var got struct {
		SpecVersion, ID, Type, Sequence string
		Data                            call.Event
	}
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if got.SpecVersion != "1.0" || got.Sequence != "00000000000000000017" || got.Data.Call.Queue.ID != "sales" {
		t.Errorf("got %+v", got)
	}
}

func TestWrongItemsAreErrors(t *testing.T) {
	for _, it := range []core.Item{
		{Stream: core.StreamEvents, Key: "k"},
		{Stream: core.StreamCalls, Key: "k", Event: &call.Event{ID: "e"}},
		{Stream: core.StreamRecords, Key: "k", Event: &call.Event{ID: "e", Type: call.CallRecord}},
	} {
		if _, err := Structured(it); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v, want ErrInvalid", it, err)
		}
		if _, _, _, err := Binary(it); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v, want ErrInvalid", it, err)
		}
	}
}

func TestEncoderSharesACallOnlyWithItself(t *testing.T) {
	var e Encoder
	one, two := sample(), sample()
	two.Call.Digits = "42"
	for _, ev := range []*call.Event{one, two, one} {
		it := core.Item{Stream: core.StreamCalls, Key: "k", Event: ev}
		got, err := e.AppendData(nil, &it)
		if err != nil || !bytes.Equal(got, reference(t, ev.Call)) {
			t.Errorf("got %s, %v", got, err)
		}
	}
}

func BenchmarkBinary(b *testing.B) {
	var e Encoder
	var out []byte
	var hs []Header
	it := eventItem()
	b.ReportAllocs()
	for b.Loop() {
		e.Reset()
		out, hs, _ = e.AppendBinary(out[:0], hs[:0], &it)
	}
	b.SetBytes(int64(len(out)))
}

func BenchmarkStructured(b *testing.B) {
	var e Encoder
	var out []byte
	it := eventItem()
	b.ReportAllocs()
	for b.Loop() {
		e.Reset()
		out, _ = e.AppendStructured(out[:0], &it)
	}
	b.SetBytes(int64(len(out)))
}

func BenchmarkEncodingJSON(b *testing.B) {
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(e); err != nil {
			b.Fatal(err)
		}
	}
}
