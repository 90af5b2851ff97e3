package adapters_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// line is one recorded line with its receive time, for rearranging.
type line struct {
	text []byte
	rx   float64
}

// readLines reads a recorded file.
func readLines(t testing.TB, path string) []line {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var out []line
	for _, l := range bytes.Split(bytes.TrimSpace(b), []byte("\n")) {
		var v struct {
			RX json.RawMessage `json:"rx"`
		}
		if len(l) == 0 || json.Unmarshal(l, &v) != nil {
			continue
		}
		out = append(out, line{l, seconds(t, v.RX)})
	}
	return out
}

func seconds(t testing.TB, raw json.RawMessage) float64 {
	t.Helper()
	var f float64
	if json.Unmarshal(raw, &f) == nil {
		return f
	}
	var c call.Time
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return float64(c) / 1e6
}

// rearrange writes a changed copy of a recording and plays it.
func rearrange(t *testing.T, kind, dir string, change func([]line) []line) *collector {
	t.Helper()
	out := t.TempDir()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl.gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recording in %s: %v", dir, err)
	}
	for _, f := range files {
		var b bytes.Buffer
		for _, l := range change(readLines(t, f)) {
			b.Write(l.text)
			b.WriteByte('\n')
		}
		if err := os.WriteFile(filepath.Join(out, strings.TrimSuffix(filepath.Base(f), ".gz")), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return play(t, kind, out)
}

// shuffled moves every line by up to 50 ms.
func shuffled(r *rand.Rand) func([]line) []line {
	return func(in []line) []line {
		out := slices.Clone(in)
		key := make(map[*byte]float64, len(out))
		for _, l := range out {
			key[&l.text[0]] = l.rx + r.Float64()*0.05
		}
		slices.SortStableFunc(out, func(a, b line) int {
			switch ka, kb := key[&a.text[0]], key[&b.text[0]]; {
			case ka < kb:
				return -1
			case ka > kb:
				return 1
			}
			return 0
		})
		return out
	}
}

func duplicated(r *rand.Rand) func([]line) []line {
	return func(in []line) []line {
		var out []line
		for i, l := range in {
			out = append(out, l)
			if r.IntN(3) == 0 {
				out = append(out, l)
			}
			if i > 2 && r.IntN(5) == 0 {
				out = append(out, in[i-r.IntN(3)])
			}
		}
		return out
	}
}

// TestRough plays every recording rearranged: it never panics, never ends a call twice, keeps seq and ids, and marks
// what it could not be sure of.
func TestRough(t *testing.T) {
	for _, f := range folders(t) {
		if f.name == "twenty_overlapping_calls" { // a megabyte of what the others have too
			continue
		}
		t.Run(f.kind+"/"+f.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(len(f.name))))
			want := adaptertest.Stories(play(t, f.kind, f.dir).events)
			for range 3 {
				adaptertest.CheckStream(t, rearrange(t, f.kind, f.dir, shuffled(r)).events)
			}
			c := rearrange(t, f.kind, f.dir, duplicated(r))
			adaptertest.CheckStream(t, c.events)
			if got := adaptertest.Stories(c.events); len(got) != len(want) {
				t.Errorf("duplicated lines: %d interactions, want %d", len(got), len(want))
			} else {
				for i := range got {
					sameStory(t, got[i], want[i])
				}
			}
			both := rearrange(t, f.kind, f.dir, func(in []line) []line { return duplicated(r)(shuffled(r)(in)) })
			adaptertest.CheckStream(t, both.events)
		})
	}
}

// sameStory: a repeated line changes nothing of what is told.
func sameStory(t *testing.T, got, want adaptertest.Story) {
	t.Helper()
	a, _ := json.Marshal(got.Records)
	b, _ := json.Marshal(want.Records)
	if !bytes.Equal(a, b) {
		t.Errorf("duplicated lines give another record:\n%s\nwant\n%s", a, b)
	}
}

// TestCutOff plays every recording cut off at its beginning, its end and both.
func TestCutOff(t *testing.T) {
	for _, f := range folders(t) {
		if f.name == "twenty_overlapping_calls" {
			continue
		}
		t.Run(f.kind+"/"+f.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(2, uint64(len(f.name))))
			for range 4 {
				from := r.Float64() * 0.9
				c := rearrange(t, f.kind, f.dir, func(in []line) []line { return in[int(from*float64(len(in))):] })
				adaptertest.CheckStream(t, c.events)
				checkMarked(t, c.events)
				adaptertest.CheckStream(t, rearrange(t, f.kind, f.dir, func(in []line) []line { return in[:int((1-from)*float64(len(in)))] }).events)
			}
		})
	}
}

// checkMarked: a call whose beginning was not seen says so.
func checkMarked(t *testing.T, events []*call.Event) {
	t.Helper()
	begun := map[string]bool{}
	for _, e := range events {
		if (e.Type == call.CallOffered || e.Type == call.CallInitiated) && !slices.Contains(e.Flags, call.FlagUncertain) {
			begun[e.CallID] = true
		}
		if e.Type == call.CallRecord && !begun[e.CallID] && (e.Call.Completeness == nil || len(e.Call.Completeness.Missing) == 0) {
			t.Errorf("call %s began unseen and its record does not say so", e.CallID)
		}
	}
}
