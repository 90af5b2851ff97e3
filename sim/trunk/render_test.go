package trunk

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// day is n calls of the ordinary mix, quick ones.
func day(n int, seed uint64) Options {
	return Options{Seed: seed, Rate: 1, MaxCalls: n, Speed: 10, Now: func() time.Time { return noon }}
}

// record renders into memory.
func record(t testing.TB, opt Options) ([]Packet, []Truth) {
	t.Helper()
	var all []Packet
	truths, err := Render(opt, 0, func(p Packet) error {
		p.Payload = bytes.Clone(p.Payload)
		all = append(all, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, truths
}

// one plays one script with one audio profile.
func one(t testing.TB, script, profile string, change func(*Options)) ([]Packet, Truth) {
	t.Helper()
	opt := day(1, 7)
	opt.Speed, opt.Mix, opt.Media = 4, map[string]int{script: 1}, map[string]int{profile: 1}
	if change != nil {
		change(&opt)
	}
	all, truths := record(t, opt)
	if len(truths) != 1 {
		t.Fatalf("%d calls", len(truths))
	}
	return all, truths[0]
}

func digest(t *testing.T, opt Options) string {
	h := sha256.New()
	_, err := Render(opt, 0, func(p Packet) error { _, err := h.Write(AppendHEP(nil, p, "k")); return err })
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestTheSameSeedGivesTheSamePackets(t *testing.T) {
	opt := day(15, 3)
	opt.Faults = AllFaults(0.5)
	a, b := digest(t, opt), digest(t, opt)
	opt.Seed++
	if c := digest(t, opt); a != b || a == c {
		t.Errorf("seed 3: %s and %s, seed 4: %s", a, b, c)
	}
}

// Other people's parsers take everything that is sent, but for the ordered junk.
func TestOthersUnderstandWhatIsSent(t *testing.T) {
	opt := day(120, 5)
	opt.Faults = AllFaults(0.3)
	all, truths := record(t, opt)
	var last time.Time
	junk, seen := 0, map[string]int{}
	for _, p := range all {
		if p.At.Before(last) {
			t.Fatalf("time goes back from %s to %s", last, p.At)
		}
		last = p.At
		switch p.Kind {
		case SIP:
			if p.CallID == "" {
				junk++
				continue
			}
			seen[checkSIP(t, p)]++
		case RTP:
			var r rtp.Packet
			if err := r.Unmarshal(p.Payload); err != nil || r.Version != 2 || len(r.Payload) != frameSize && len(r.Payload) != 4 {
				t.Fatalf("RTP: %v %v", err, r)
			}
		case RTCP:
			checkRTCP(t, p)
		}
	}
	want := 0
	for _, x := range truths {
		want += x.Malformed
	}
	if junk < want || want == 0 {
		t.Errorf("%d malformed messages, the truth says %d", junk, want)
	}
	for _, m := range []string{"INVITE", "ACK", "BYE", "CANCEL", "REFER", "NOTIFY", "INFO", "PRACK", "UPDATE", "100", "180", "183", "200", "202", "302", "403", "404", "480", "486", "487", "603"} {
		if seen[m] == 0 {
			t.Errorf("no %s in 120 calls", m)
		}
	}
}

func checkSIP(t *testing.T, p Packet) string {
	t.Helper()
	m, err := sip.ParseMessage(p.Payload)
	if err != nil {
		t.Fatalf("%v in\n%s", err, p.Payload)
	}
	if id := m.CallID(); id == nil || id.Value() != p.CallID || m.Via() == nil || m.From() == nil || m.To() == nil || m.CSeq() == nil {
		t.Fatalf("headers are missing in\n%s", p.Payload)
	}
	if b := m.Body(); len(b) > 0 && bytes.Contains(p.Payload, []byte("application/sdp")) {
		var d sdp.SessionDescription
		if err := d.Unmarshal(b); err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
	}
	if n := m.GetHeaders("Content-Length"); len(n) != 1 || n[0].Value() != fmt.Sprint(len(m.Body())) {
		t.Fatalf("Content-Length %v of %d", n, len(m.Body()))
	}
	if r, ok := m.(*sip.Request); ok {
		return string(r.Method)
	}
	return fmt.Sprint(m.(*sip.Response).StatusCode)
}

func checkRTCP(t *testing.T, p Packet) {
	t.Helper()
	all, err := rtcp.Unmarshal(p.Payload)
	if err != nil {
		t.Fatalf("RTCP: %v", err)
	}
	if err := rtcp.CompoundPacket(all).Validate(); err != nil {
		t.Fatalf("RTCP: %v in %v", err, all)
	}
	if sr, ok := all[0].(*rtcp.SenderReport); ok {
		off := time.Unix(int64(sr.NTPTime>>32)-2_208_988_800, 0).Sub(p.At)
		if off < -2*time.Second || off > time.Second {
			t.Fatalf("an SR of %s says %v else", p.At, off)
		}
	}
}

// Every request but ACK is answered in its transaction, and every final answer to an INVITE acknowledged.
func TestEveryRequestIsAnswered(t *testing.T) {
	opt := day(80, 9)
	opt.Faults = Faults{Retransmit: 0.2, Duplicate: 0.2, Swap: 0.2, LostACK: 0.2, SpoofedBYE: 0.2}
	all, _ := record(t, opt)
	asked, final, acked := map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, p := range all {
		if p.Kind != SIP {
			continue
		}
		m, err := sip.ParseMessage(p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		branch, _ := m.Via().Params.Get("branch")
		key := branch + " " + m.CSeq().Value()
		switch x := m.(type) {
		case *sip.Request:
			if x.Method == "ACK" {
				acked[fmt.Sprint(p.CallID, m.CSeq().SeqNo)] = true
				continue
			}
			asked[key] = p.CallID + " " + fmt.Sprint(p.CallID, m.CSeq().SeqNo)
		case *sip.Response:
			if !strings.HasPrefix(asked[key], p.CallID+" ") {
				t.Fatalf("an answer to nothing:\n%s", p.Payload)
			}
			if x.StatusCode >= 200 {
				final[key] = true
			}
			if !m.To().Params.Has("tag") && x.StatusCode > 100 {
				t.Fatalf("no tag in\n%s", p.Payload)
			}
		}
	}
	for key, id := range asked {
		_, id, _ = strings.Cut(id, " ")
		if !final[key] || strings.HasSuffix(key, "INVITE") && !acked[id] {
			t.Errorf("%s: final answer %v, ACK %v", key, final[key], acked[id])
		}
	}
	if len(asked) < 300 {
		t.Errorf("only %d requests", len(asked))
	}
}

func methods(all []Packet, callID string) string {
	var s []string
	for _, p := range all {
		if p.Kind == SIP && p.CallID == callID {
			line, _, _ := strings.Cut(string(p.Payload), "\r\n")
			f := strings.Fields(line)
			if f[0] == "SIP/2.0" {
				f[0] = f[1]
			}
			s = append(s, f[0])
		}
	}
	return strings.Join(s, " ")
}

// What stands in the truth is what the messages say.
func TestScriptsHappenAsTheTruthSays(t *testing.T) {
	for _, x := range []struct {
		script, caller, second string // messages of the first two dialogs
		outcome                call.Outcome
		by                     string
		legs, answered         int
	}{
		{"inbound_answered", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "caller", 2, 1},
		{"inbound_agent_hangup", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "agent", 2, 1},
		{"abandoned", "INVITE 100 180 CANCEL 200 487 ACK", "INVITE 100 180 CANCEL 200 487 ACK", call.Abandoned, "caller", 2, 0},
		{"busy", "INVITE 100 486 ACK", "INVITE 100 486 ACK", call.Busy, "switch", 2, 0},
		{"declined", "INVITE 100 180 603 ACK", "INVITE 100 180 603 ACK", call.Rejected, "switch", 2, 0},
		{"no_answer", "INVITE 100 180 480 ACK", "INVITE 100 180 CANCEL 200 487 ACK", call.NoAnswer, "switch", 2, 0},
		{"unallocated", "INVITE 100 404 ACK", "", call.Failed, "switch", 1, 0},
		{"hold_retrieve", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK INVITE 200 ACK INVITE 200 ACK BYE 200", call.Answered, "caller", 2, 1},
		{"blind_transfer", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK REFER 202 NOTIFY 200 NOTIFY 200 NOTIFY 200 BYE 200", call.Answered, "caller", 3, 2},
		{"attended_transfer", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK INVITE 200 ACK REFER 202 NOTIFY 200 BYE 200", call.Answered, "caller", 4, 2},
		{"diverted_302", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 302 ACK", call.Answered, "caller", 3, 1},
		{"ring_group", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 CANCEL 200 487 ACK", call.Answered, "caller", 3, 1},
		{"ivr_agent", "INVITE 100 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "", 2, 1},
		{"codec_change", "INVITE 100 180 200 ACK INVITE 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "caller", 2, 1},
		{"early_media", "INVITE 100 183 PRACK 200 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "caller", 2, 1},
		{"late_offer", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "caller", 2, 1},
		{"session_refresh", "INVITE 100 180 200 ACK UPDATE 200 UPDATE 200 BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "caller", 2, 1},
		{"half_open", "INVITE 100 180 200 ACK", "INVITE 100 180 200 ACK", call.Answered, "", 2, 1},
		{"outbound_answered", "INVITE 100 180 200 ACK BYE 200", "INVITE 100 180 200 ACK BYE 200", call.Answered, "", 2, 1},
		{"outbound_busy", "INVITE 100 486 ACK", "INVITE 100 486 ACK", call.Busy, "switch", 2, 0},
	} {
		t.Run(x.script, func(t *testing.T) {
			all, truth := one(t, x.script, "clean", nil)
			if got := methods(all, truth.Dialogs[0]); got != x.caller {
				t.Errorf("caller's leg: %s", got)
			}
			if len(truth.Dialogs) != x.legs {
				t.Fatalf("%d dialogs", len(truth.Dialogs))
			}
			if x.second != "" && methods(all, truth.Dialogs[1]) != x.second {
				t.Errorf("second leg: %s", methods(all, truth.Dialogs[1]))
			}
			if truth.Outcome != x.outcome || !strings.HasPrefix(truth.HangupBy, x.by) || len(truth.AnsweredBy) != x.answered {
				t.Errorf("%+v", truth)
			}
			if truth.Ended.IsZero() || truth.Ended.Before(truth.Started) || truth.AnsweredAt.IsZero() == (x.outcome == call.Answered) {
				t.Errorf("times %s %s %s", truth.Started, truth.AnsweredAt, truth.Ended)
			}
		})
	}
}

func TestEveryScriptIsInTheMix(t *testing.T) {
	mix, media := DefaultMix(), DefaultMedia()
	for _, s := range Scripts() {
		if mix[s] == 0 {
			t.Errorf("%s is never played", s)
		}
	}
	for _, p := range Profiles() {
		if media[p] == 0 {
			t.Errorf("%s is never heard", p)
		}
	}
	if _, err := Render(Options{MaxCalls: 1, Rate: 1, Mix: map[string]int{"x": 1}}, 0, nil); err == nil || !strings.Contains(err.Error(), `no script named "x"`) {
		t.Error(err)
	}
	if _, err := Render(Options{MaxCalls: 1, Rate: 1, Media: map[string]int{"x": 1}}, 0, nil); err == nil || !strings.Contains(err.Error(), `no audio profile named "x"`) {
		t.Error(err)
	}
	if _, err := Render(Options{Rate: 1}, 0, nil); err == nil {
		t.Error("rendering without an end")
	}
}

func TestFaultsOfSIP(t *testing.T) {
	for _, x := range []struct {
		faults Faults
		want   string // on the caller's leg
	}{
		{Faults{LostACK: 1}, "INVITE 100 180 200 200 200 ACK BYE 200"},
		{Faults{Swap: 1}, "INVITE 100 200 180 ACK BYE 200"},
		{Faults{SpoofedBYE: 1}, "INVITE 100 180 200 ACK BYE 403 BYE 200"},
	} {
		all, truth := one(t, "inbound_answered", "clean", func(o *Options) { o.Faults = x.faults })
		if got := methods(all, truth.Dialogs[0]); got != x.want {
			t.Errorf("%+v: %s", x.faults, got)
		}
	}
	_, truth := one(t, "inbound_answered", "clean", func(o *Options) { o.Faults.SpoofedBYE = 1 })
	if truth.SpoofedBYEs != 1 || truth.Ended.Sub(truth.AnsweredAt) < time.Second {
		t.Errorf("%+v", truth)
	}
	opt := day(40, 2)
	opt.Faults = Faults{Retransmit: 1, Duplicate: 1}
	all, _ := record(t, opt)
	times := map[string][]time.Time{}
	for _, p := range all {
		if p.Kind == SIP {
			times[string(p.Payload)] = append(times[string(p.Payload)], p.At)
		}
	}
	soon, later := 0, 0
	for _, at := range times {
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < time.Millisecond {
				soon++
			} else if d > 400*time.Millisecond {
				later++
			}
		}
	}
	if soon < 40 || later < 40 {
		t.Errorf("%d duplicates, %d retransmissions in 40 calls", soon, later)
	}
}

func TestHoldsAreSaidInEveryWay(t *testing.T) {
	said := map[string]bool{}
	for seed := range uint64(12) {
		all, truth := one(t, "hold_retrieve", "clean", func(o *Options) { o.Seed = seed })
		if len(truth.Holds) != 1 || truth.Holds[0].To.Sub(truth.Holds[0].From) < time.Second {
			t.Fatalf("%+v", truth.Holds)
		}
		for _, p := range all {
			for _, w := range []string{"a=sendonly", "a=inactive", "c=IN IP4 0.0.0.0"} {
				if p.Kind == SIP && bytes.Contains(p.Payload, []byte(w)) {
					said[w] = true
				}
			}
		}
	}
	if len(said) != 3 {
		t.Errorf("said %v", said)
	}
}

// Legs are tied together by a header on some calls and by nothing on others.
func TestLegsAreLinkedInVariousWays(t *testing.T) {
	opt := day(40, 4)
	opt.Mix = map[string]int{"inbound_answered": 1}
	all, truths := record(t, opt)
	ways := map[string]int{}
	for _, x := range truths {
		ways[x.LinkedBy]++
		var refs []string
		for _, p := range all {
			if p.Kind == SIP && slices.Contains(x.Dialogs, p.CallID) && bytes.HasPrefix(p.Payload, []byte("INVITE")) {
				m, err := sip.ParseMessage(p.Payload)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{linkRef, linkCID} {
					for _, h := range m.GetHeaders(name) {
						refs = append(refs, h.Value())
					}
				}
			}
		}
		switch x.LinkedBy {
		case linkRef:
			if len(refs) != 2 || refs[0] != refs[1] {
				t.Errorf("call %d: %v", x.Number, refs)
			}
		case linkCID:
			if len(refs) != 1 || refs[0] != x.Dialogs[0] {
				t.Errorf("call %d: %v of %v", x.Number, refs, x.Dialogs)
			}
		default:
			if len(refs) != 0 {
				t.Errorf("call %d: %v", x.Number, refs)
			}
		}
	}
	if len(ways) != 3 {
		t.Errorf("ways %v", ways)
	}
}
