package adaptertest

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/ctigate/ctigate/core/call"
)

// Interaction is what truth.json says of a caller's whole experience.
type Interaction struct {
	Direction    string            `json:"direction"`
	From         string            `json:"from"`
	FromName     string            `json:"from_name"`
	To           string            `json:"to"`
	Outcome      string            `json:"outcome"`
	AnsweredBy   *[]string         `json:"answered_by"`
	Offered      *[]string         `json:"offered"`
	IVRPath      string            `json:"ivr_path"`
	Digits       string            `json:"digits"`
	HangupBy     string            `json:"hangup_by"`
	Q850         int               `json:"q850"`
	Queue        *call.Queue       `json:"queue"`
	Holds        []Hold            `json:"holds"`
	Transfers    []call.Transfer   `json:"transfers"`
	Diverted     []call.Diversion  `json:"diverted"`
	CallerCodecs []string          `json:"caller_codecs"`
	Conference   bool              `json:"conference"`
	Participants []string          `json:"participants"`
	Codec        map[string]string `json:"codec"`
	Media        *json.RawMessage  `json:"media"` // packets only
}

// Hold is one stretch a party held the call; Seconds is 0 where the truth does not say how long.
type Hold struct {
	By      string  `json:"by"`
	Seconds float64 `json:"seconds"`
}

// Scenario is what truth.json says of one scenario, its interactions spelled out.
type Scenario struct {
	Interactions []Interaction `json:"interactions"`
	Count        int           `json:"count"`
	Each         *Interaction  `json:"each"`
}

// ReadTruth reads truth.json: what happened in each scenario, by its name.
func ReadTruth(path string) (map[string]Scenario, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the truth: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("reading the truth: %s: %w", path, err)
	}
	delete(raw, "_about")
	out := map[string]Scenario{}
	for name, v := range raw {
		var s Scenario
		if err := json.Unmarshal(v, &s); err != nil {
			return nil, fmt.Errorf("reading the truth of %s: %w", name, err)
		}
		if s.Each != nil {
			for range s.Count {
				s.Interactions = append(s.Interactions, *s.Each)
			}
		}
		out[name] = s
	}
	return out, nil
}
