package sim

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each ordered fault comes, and what was sent before it is whole.
func TestOrderedFaults(t *testing.T) {
	soon := 20 * time.Millisecond
	for name, f := range map[string]Faults{
		"disconnect": {DisconnectEvery: soon}, "half": {HalfFrameEvery: soon}, "garbage": {GarbageEvery: soon / 4, DisconnectEvery: 10 * soon},
	} {
		t.Run(name, func(t *testing.T) {
			o := quiet()
			o.Rate, o.Faults = 50, f
			a, s := startAsterisk(t, o), startFreeSWITCH(t, o)
			_, ari := dialARI(t, a.ARIAddr(), "x")
			var bad, err error
			for {
				var p []byte
				if _, p, err = readWS(ari); err != nil {
					break
				}
				var m map[string]any
				if e := json.Unmarshal(p, &m); e != nil {
					bad = e
				}
			}
			if half := err == io.ErrUnexpectedEOF; half != (name == "half") && name != "garbage" {
				t.Errorf("ARI ended with %v", err)
			}
			if (bad != nil) != (name == "garbage") {
				t.Errorf("ARI frames: %v", bad)
			}
			// On a busy machine a connection may be cut off as too slow before its fault comes: another follows.
			torn := func(dial func() io.Reader, torn func(string) bool) bool {
				for range 20 {
					b, _ := io.ReadAll(dial())
					if torn(string(b)) {
						return true
					}
					if name != "half" {
						return false
					}
				}
				return false
			}
			ami := func() io.Reader { _, r := dialAMI(t, a.AMIAddr()); return r }
			if torn(ami, func(s string) bool { return s != "" && !strings.HasSuffix(s, "\r\n\r\n") }) != (name == "half") {
				t.Error("AMI ends with half a message, or should and does not")
			}
			esl := func() io.Reader { _, r := dialESL(t, s.Addr(), "event json ALL"); return r }
			if torn(esl, func(s string) bool { return strings.HasSuffix(s, `"Core-UUID":`) }) != (name == "half") {
				t.Error("the event socket ends with half an event, or should and does not")
			}
		})
	}
}

// A slow line is slow: what comes in a time is bounded by the rate.
func TestSlowDelivery(t *testing.T) {
	o := quiet()
	o.Rate, o.Faults.SlowBytesPerSecond = 100, 4000
	s := startFreeSWITCH(t, o)
	start := time.Now()
	_, r := dialESL(t, s.Addr(), "event json ALL")
	if _, err := io.ReadFull(r, make([]byte, 1200)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("1200 bytes at 4000 a second came in %v", took)
	}
}

// A reader that does not read is cut off, and the other one keeps getting everything.
func TestSlowReaderIsCutOff(t *testing.T) {
	o := quiet()
	o.Rate, o.Buffer, o.Readers, o.MaxCalls, o.Ledger = 400, 1<<20, 2, 60, 1<<20
	s := startFreeSWITCH(t, o)
	dialESL(t, s.Addr(), "event json ALL") // never read
	_, r := dialESL(t, s.Addr(), "event json ALL")
	go hangUp(&s.front, s.Done())
	n := int64(0)
	for {
		h, _, err := readESL(r)
		if err != nil {
			break
		}
		if strings.HasPrefix(h["Content-Type"], "text/event-") {
			n++
		}
	}
	st := s.Stats()
	if st.Cut != 1 || st.Ended != 60 {
		t.Errorf("%+v", st)
	}
	if mine := slices.DeleteFunc(s.Ledger(), func(e Entry) bool { return e.Conn != 2 }); int64(len(mine)) != n {
		t.Errorf("the good reader got %d events, the ledger has %d", n, len(mine))
	}
}

// Latency and jitter delay events, never change their order within a call, and the ledger says what was written.
func TestJitterKeepsACallsOrder(t *testing.T) {
	o := quiet()
	o.Rate, o.MaxCalls, o.Readers = 200, 20, 1
	o.Latency, o.Jitter = 5*time.Millisecond, 30*time.Millisecond
	a := startAsterisk(t, o)
	_, r := dialARI(t, a.ARIAddr(), "x")
	go hangUp(&a.front, a.Done())
	n := 0
	for {
		op, _, err := readWS(r)
		if err != nil {
			break
		}
		if op == opText {
			n++
		}
	}
	last := map[int64]int{}
	for i, e := range a.Ledger() {
		if e.Nth != int64(i+1) || e.Kind != "ari" {
			t.Errorf("entry %d: %+v", i, e)
		}
		if at, ok := last[e.Call]; ok && e.Step <= at {
			t.Errorf("call %d: step %d after %d", e.Call, e.Step, at)
		}
		last[e.Call] = e.Step
	}
	if len(a.Ledger()) != n || n < 400 || len(a.Truths()) != 20 {
		t.Errorf("%d events read, %d in the ledger, %d calls", n, len(a.Ledger()), len(a.Truths()))
	}
	if st := a.Stats(); st.Started != 20 || st.Active != 0 || st.Sent["ari"] != int64(n) {
		t.Errorf("%+v", st)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		`no script named "nonsense"`: {Mix: map[string]int{"nonsense": 1}},
		"set MaxCalls":               {Unpaced: true, Rate: 1},
	} {
		if err := NewAsterisk(o).Start(t.Context(), "127.0.0.1:0", ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	a := startAsterisk(t, quiet())
	if err := a.Place("nonsense"); err == nil {
		t.Error("a script that is none can be placed")
	}
	if err := NewFreeSWITCH(Options{}).Start(t.Context(), a.AMIAddr()); err == nil {
		t.Error("an address in use can be listened on")
	}
}

// The number of calls that are up never passes MaxActive, and all calls come all the same.
func TestMaxActive(t *testing.T) {
	opt := unpaced(30, 4)
	opt.MaxActive = 3
	_, s := playFreeSWITCH(t, opt, "event json CHANNEL_CREATE")
	type edge struct {
		at time.Time
		n  int
	}
	var edges []edge
	for _, x := range s.Truths() {
		edges = append(edges, edge{x.Started, 1}, edge{x.Ended, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at)*2 + (a.n - b.n) })
	up := 0
	for _, e := range edges {
		if up += e.n; up > 3 {
			t.Fatalf("%d calls are up at %v", up, e.at)
		}
	}
	if len(edges) != 60 {
		t.Errorf("%d calls", len(edges)/2)
	}
}
