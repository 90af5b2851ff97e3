package adapters_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// transcript tells a recording without ids and times: for each interaction what happened to the call, then what
// happened to each party, each in its order. How the two interleave within a few milliseconds is the switch's affair.
func transcript(events []*call.Event) []string {
	var out []string
	for i, s := range adaptertest.Stories(events) {
		ids := map[string]bool{}
		for _, r := range s.Records {
			ids[r.ID] = true
		}
		var about []string
		parties := map[string][]string{}
		var order []string
		for _, e := range events {
			if !ids[e.CallID] {
				continue
			}
			name := strings.HasPrefix(string(e.Type), "connection.") || strings.HasPrefix(string(e.Type), "media.")
			if !name {
				about = append(about, tell(e))
				continue
			}
			who := party(e)
			if parties[who] == nil {
				order = append(order, who)
			}
			parties[who] = append(parties[who], tell(e))
		}
		slices.Sort(order)
		for _, l := range about {
			out = append(out, fmt.Sprintf("%d %s", i+1, l))
		}
		for _, who := range order {
			for _, l := range parties[who] {
				out = append(out, fmt.Sprintf("%d %s: %s", i+1, who, l))
			}
		}
	}
	for _, e := range events {
		if e.Type == call.AgentState {
			out = append(out, "agent "+e.Agent.ID+" "+e.Agent.State)
		}
	}
	return out
}

func party(e *call.Event) string {
	if e.Party.Role == call.RoleCaller {
		return "caller"
	}
	return e.Party.ID
}

// tell says what one event says.
func tell(e *call.Event) string {
	s := string(e.Type)
	switch {
	case e.Queue != nil:
		s += " " + e.Queue.ID + " " + e.Queue.Result
	case e.Agent != nil:
		s += " " + e.Agent.ID + " of " + e.Agent.Queue
	case e.Transfer != nil:
		s += fmt.Sprintf(" %s by %s to %s", e.Transfer.Kind, e.Transfer.By, e.Transfer.To)
	case e.Diversion != nil:
		s += fmt.Sprintf(" by %s to %s", e.Diversion.By, e.Diversion.To)
	case e.DTMF != nil:
		s += fmt.Sprintf(" %s for %d ms", e.DTMF.Digit, e.DTMF.DurationMS)
	case e.IVRPath != "":
		s += " " + e.IVRPath
	case e.Conference != nil:
		s += fmt.Sprintf(" %s %d", e.Conference.ID, len(e.Conference.Participants))
	case e.Media != nil:
		s += fmt.Sprintf(" %s %d", e.Media.Codec, e.Media.SampleRate)
	case e.Type == call.CallRecord:
		s += fmt.Sprintf(" %s by %s", e.Call.Outcome, e.Call.HangupBy)
	case e.Cause != nil && e.Cause.Q850 != 0:
		s += fmt.Sprintf(" cause %d", e.Cause.Q850)
	}
	return strings.TrimSpace(s)
}

// differences.txt holds, scenario by scenario, the lines only Asterisk (-) or only FreeSWITCH (+) tells; docs/switches.md
// explains each. UPDATE=1 rewrites it.
const differences = "testdata/differences.txt"

// TestTranscripts compares what the two switches tell of each scenario.
func TestTranscripts(t *testing.T) {
	var got strings.Builder
	for _, f := range folders(t) {
		other := filepath.Join(traces, "freeswitch", f.name)
		if f.kind != "asterisk" {
			continue
		}
		if _, err := os.Stat(other); err != nil {
			continue
		}
		d := diff(transcript(play(t, "asterisk", f.dir).events), transcript(play(t, "freeswitch", other).events))
		if len(d) > 0 {
			fmt.Fprintf(&got, "%s\n%s\n", f.name, strings.Join(d, "\n"))
		}
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(differences, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(differences)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the switches differ in other ways than %s says (UPDATE=1 rewrites it):\n%s", differences,
			strings.Join(diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")), "\n"))
	}
}

// diff lists the lines only a (-) or only b (+) has, by the longest common subsequence.
func diff(a, b []string) []string {
	n := make([][]int, len(a)+1)
	for i := range n {
		n[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j >= len(b) || i < len(a) && n[i+1][j] >= n[i][j+1]:
			out = append(out, "  - "+a[i])
			i++
		default:
			out = append(out, "  + "+b[j])
			j++
		}
	}
	return out
}
