package cloudevents

import (
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestReadCallStateOfATombstone(t *testing.T) {
	whole, err := Structured(core.Item{Stream: core.StreamCalls, Key: "k", Switch: call.SwitchRef{ID: "pbx"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range [][]byte{nil, whole} {
		if c, _, err := ReadCallState(value, nil); c != nil || err != nil {
			t.Errorf("%q: %+v, %v", value, c, err)
		}
	}
}

func TestReadCallStateOfSomethingElse(t *testing.T) {
	for value, sequence := range map[string]string{
		`{"type":"cti.call.ended.v1","sequence":"1","data":{}}`: "", "{": "", "[]": "1", "{}": "1", `{"call_id":"x"}`: "one",
		`{"call_id":"x","started_at":"yesterday","switch":{"id":"pbx"}}`: "1",
	} {
		var headers []Header
		if sequence != "" {
			headers = append(headers, Header{"ce_sequence", []byte(sequence)})
		}
		if c, _, err := ReadCallState([]byte(value), headers); err == nil {
			t.Errorf("%s was taken for %+v", value, c)
		}
	}
}

func FuzzReadCallState(f *testing.F) {
	f.Add([]byte(`{"type":"cti.call.state.v1","sequence":"7","data":{"call_id":"x","switch":{"id":"pbx"},"connections":[null,{}]}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if c, seq, err := ReadCallState(value, nil); err == nil && c != nil {
			call.NewTracker(call.Options{}).Adopt(c, seq, 1)
		}
	})
}
