package adapters_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim/trunk"
)

// renderTrunk writes calls of a simulated trunk into a capture file.
func renderTrunk(t *testing.T, opt trunk.Options) (file string, truths []trunk.Truth) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "trunk.pcap")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := trunk.NewPcap(f)
	if err != nil {
		t.Fatal(err)
	}
	opt.Now = func() time.Time { return time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC) }
	if truths, err = trunk.Render(opt, 0, w.Write); err != nil {
		t.Fatal(err)
	}
	return file, truths
}

// replayTrunk reads a capture file as a link to the trunk's PBX would.
func replayTrunk(t *testing.T, file string) *collector {
	t.Helper()
	c := newCollector("trunk")
	opt := sip.ReplayOptions{PBX: []string{"192.0.2.10"}, CorrelationHeaders: []string{"X-Call-Ref"}}
	if err := sip.Replay(file, opt, c); err != nil {
		t.Fatal(err)
	}
	c.finish()
	return c
}

// storiesOf finds each call's story by the Call-IDs of its dialogs.
func storiesOf(events []*call.Event) map[string]adaptertest.Story {
	by := map[string]adaptertest.Story{}
	for _, s := range adaptertest.Stories(events) {
		for _, r := range s.Records {
			for _, c := range r.Connections {
				by[c.SIPCallID] = s
			}
		}
	}
	return by
}

// What the adapter makes of a simulated trunk's packets is what was played, for every script, with and without faults.
func TestTrunkTruth(t *testing.T) {
	for name, faults := range map[string]trunk.Faults{"orderly": {}, "faulty": trunk.AllFaults(0.3)} {
		t.Run(name, func(t *testing.T) {
			mix := map[string]int{}
			for _, s := range trunk.Scripts() {
				mix[s] = 1
			}
			file, truths := renderTrunk(t, trunk.Options{Seed: 21, Rate: 0.3, MaxCalls: 100, Speed: 8, Mix: mix, Media: map[string]int{"clean": 1}, Faults: faults})
			c := replayTrunk(t, file)
			adaptertest.CheckStream(t, c.events)
			by := storiesOf(c.events)
			for _, x := range truths {
				s, ok := by[x.Dialogs[0]]
				if !ok && x.Died && c.last.Std().Sub(x.Ended) < 2*time.Minute {
					continue // the file ends before its session does
				}
				if !ok {
					t.Errorf("call %d (%s) has no record", x.Number, x.Script)
					continue
				}
				for _, fault := range compareTrunk(s, x) {
					t.Errorf("call %d (%s, linked by %q): %s", x.Number, x.Script, x.LinkedBy, fault)
				}
			}
		})
	}
}

// compareTrunk holds a story against what was played.
func compareTrunk(s adaptertest.Story, x trunk.Truth) (faults []string) {
	want := adaptertest.Interaction{Direction: string(x.Direction), From: x.From, To: x.To, Outcome: string(x.Outcome), Digits: x.Digits,
		HangupBy: x.HangupBy, Q850: x.Q850}
	if x.Direction == call.Inbound {
		want.FromName, want.AnsweredBy, want.Offered = x.FromName, &x.AnsweredBy, &x.Offered
		if want.AnsweredBy == nil || *want.AnsweredBy == nil {
			want.AnsweredBy = &[]string{}
		}
		if *want.Offered == nil {
			want.Offered = &[]string{}
		}
		want.CallerCodecs = x.CodecsSeen
	}
	for _, h := range x.Holds {
		want.Holds = append(want.Holds, adaptertest.Hold{By: h.By, Seconds: h.To.Sub(h.From).Seconds()})
	}
	for _, tr := range x.Transfers {
		want.Transfers = append(want.Transfers, call.Transfer{Kind: tr.Kind, By: tr.By, To: tr.To})
	}
	for _, d := range x.Diversions {
		want.Diverted = append(want.Diverted, call.Diversion{By: d.By, To: d.To})
	}
	faults = s.Check("sip", want)
	r := s.Records[0]
	at := func(what string, got call.Time, want time.Time, slack time.Duration) {
		if d := got.Std().Sub(want); d < -slack || d > slack {
			faults = append(faults, fmt.Sprintf("%s %s off", what, d))
		}
	}
	at("start", r.StartedAt, x.Started, 5*time.Millisecond)
	if x.Died {
		return faults
	}
	at("end", r.EndedAt, x.Ended.Add(260*time.Millisecond), 320*time.Millisecond) // a BYE counts from its answer, which may be late
	if !x.AnsweredAt.IsZero() {
		at("answer", r.AnsweredAt, x.AnsweredAt, 60*time.Millisecond)
	}
	return faults
}

// The counts of every stream agree with what passed the capture point, whatever is wrong with the audio.
func TestTrunkQuality(t *testing.T) {
	media := map[string]int{}
	for _, p := range trunk.Profiles() {
		media[p] = 1
	}
	media["clean"] = 5
	file, truths := renderTrunk(t, trunk.Options{Seed: 5, Rate: 0.5, MaxCalls: 80, Speed: 3, Media: media,
		Mix: map[string]int{"inbound_answered": 1, "hold_retrieve": 1, "codec_change": 1, "ivr_agent": 1}})
	c := replayTrunk(t, file)
	by := storiesOf(c.events)
	seen := 0
	for _, x := range truths {
		if x.Profile == "clean" {
			for _, e := range flaggedOf(c.events, x) {
				t.Errorf("call %d (%s) is clean, but a report says %v of %s", x.Number, x.Script, e.Quality.Flags, e.Quality.Source)
			}
		}
		streams := streamsOf(by[x.Dialogs[0]])
		for _, want := range x.Streams {
			got := streams[want.Source.String()+" "+want.Destination.String()]
			if want.Packets > 0 {
				seen++
			}
			for _, fault := range compareStream(x, got, want) {
				t.Errorf("call %d (%s, %s) from %s: %s", x.Number, x.Script, x.Profile, want.Source, fault)
			}
		}
	}
	if seen < 150 {
		t.Errorf("only %d streams were seen", seen)
	}
}

// flaggedOf are the reports, of intervals and final, that find fault with x's streams.
func flaggedOf(events []*call.Event, x trunk.Truth) (out []*call.Event) {
	for _, e := range events {
		if e.Type == call.MediaQuality && len(e.Quality.Flags) > 0 && slices.ContainsFunc(x.Streams, func(s trunk.StreamTruth) bool {
			return s.Source.String() == e.Quality.Source
		}) {
			out = append(out, e)
		}
	}
	return out
}

// compareStream holds the final reports on one stream against what passed.
func compareStream(x trunk.Truth, got []call.Quality, want trunk.StreamTruth) (faults []string) {
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	var packets, duplicates, reordered uint64
	var lost int64
	flags := map[string]bool{}
	for _, q := range got {
		packets, duplicates, reordered, lost = packets+q.Packets, duplicates+q.Duplicates, reordered+q.Reordered, lost+q.Lost
		for _, f := range q.Flags {
			flags[f] = true
		}
		if want.Packets > 0 && q.Packets > 100 && (q.MOS < 1 || q.MOS > 4.5 || math.IsNaN(q.MOS)) {
			bad("a MOS of %v", q.MOS)
		}
	}
	if packets != want.Packets || lost != want.Lost || duplicates != want.Duplicates || reordered != want.Reordered {
		bad("packets %d lost %d duplicates %d reordered %d, passed %d %d %d %d", packets, lost, duplicates, reordered,
			want.Packets, want.Lost, want.Duplicates, want.Reordered)
	}
	fromTrunk := want.CallID == x.Dialogs[0] && want.Source.Addr().String() == "203.0.113.10"
	if fromTrunk && x.Profile == "wrong_pt" && x.Script != "codec_change" && !flags[call.FlagPayloadType] {
		bad("flags %v say nothing of the payload type", flags)
	}
	if silent := want.Packets == 0; silent && len(got) > 0 && !flags[call.FlagNoMedia] && !flags[call.FlagOneWay] {
		bad("flags %v say nothing of the missing audio", flags)
	}
	if x.Profile == "clean" && len(flags) > 0 {
		bad("flags %v on clean audio", flags)
	}
	if fromTrunk && len(got) > 0 && got[0].Packets > 50 {
		last := got[len(got)-1]
		switch {
		case x.Profile == "silent" && (last.SilencePercent == nil || *last.SilencePercent < 95):
			bad("silence is not seen: %v", last.SilencePercent)
		case x.Profile == "clipping" && (last.ClippingPercent == nil || *last.ClippingPercent < 5):
			bad("clipping is not seen: %v", last.ClippingPercent)
		case slices.Contains([]string{"lossy", "bursty", "bad"}, x.Profile) && want.Lost > 10 && last.MOS > 4.3:
			bad("a MOS of %v with %d lost", last.MOS, want.Lost)
		}
	}
	return faults
}

// locked lets several goroutines of a session emit to one collector.
type locked struct {
	*collector
	mu    sync.Mutex
	up    chan struct{}
	frame chan struct{} // told of a frame
}

func (l *locked) Up(i core.Instance) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.up)
	return l.collector.Up(i)
}

func (l *locked) Frame(f core.Frame) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.frame <- struct{}{}:
	default:
	}
	return l.collector.Frame(f)
}

func (l *locked) DeadLetter(d core.DeadLetter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.collector.DeadLetter(d)
}

// ended says how many calls have ended.
func (l *locked) ended() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Type == call.CallEnded {
			n++
		}
	}
	return n
}

// freeUDP is an address that nobody listens on.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// A link that hears a live trunk by HEP, with a key, comes to what was played, packet for packet.
func TestTrunkByHEP(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr, begin := freeUDP(t), make(chan struct{})
	tr := trunk.New(trunk.Options{Seed: 3, Rate: 15, MaxCalls: 40, Speed: 150, Ledger: 100, HEP: addr, HEPKey: "secret", Begin: begin,
		Media: map[string]int{"clean": 2, "lossy": 1, "reordered": 1},
		Mix: map[string]int{"inbound_answered": 3, "inbound_agent_hangup": 2, "abandoned": 1, "busy": 1, "hold_retrieve": 2, "blind_transfer": 2,
			"ring_group": 1, "ivr_agent": 2, "diverted_302": 1, "early_media": 1}})
	if err := tr.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	cfg := sip.NewConfig()
	_, pbx, _ := tr.Addrs()
	cfg.PBX, cfg.CorrelationHeaders = []string{pbx}, []string{"X-Call-Ref"}
	cfg.HEP = hep.NewConfig()
	cfg.HEP.Listen, cfg.HEP.Transports, cfg.HEP.Key = addr, []string{"udp"}, core.NewSecret("secret")
	a, err := cfg.Open("trunk", core.Env{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	out, ended := &locked{collector: newCollector("trunk"), up: make(chan struct{}), frame: make(chan struct{}, 1)}, make(chan error, 1)
	go func() { ended <- a.Run(ctx, out) }()
	select {
	case <-out.up:
	case err := <-ended:
		t.Fatal(err)
	}
	close(begin)
	<-tr.Done()
	truths := tr.Truths()
	for late := time.After(10 * time.Second); out.ended() < len(truths); {
		select {
		case <-out.frame:
		case <-late:
			t.Fatalf("%d of %d calls have ended", out.ended(), len(truths))
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	out.finish()
	adaptertest.CheckStream(t, out.events)
	if s := tr.Stats(); s.Unheard > 0 || len(out.dead) > 0 {
		t.Fatalf("%+v, %d dead letters", s, len(out.dead))
	}
	checkTrunk(t, out.events, truths)
}

// checkTrunk holds records and stream reports against what was played.
func checkTrunk(t *testing.T, events []*call.Event, truths []trunk.Truth) {
	t.Helper()
	by := storiesOf(events)
	for _, x := range truths {
		s, ok := by[x.Dialogs[0]]
		if !ok {
			t.Errorf("call %d (%s) has no record", x.Number, x.Script)
			continue
		}
		for _, fault := range compareTrunk(s, x) {
			t.Errorf("call %d (%s, linked by %q): %s", x.Number, x.Script, x.LinkedBy, fault)
		}
		streams := streamsOf(s)
		for _, want := range x.Streams {
			for _, fault := range compareStream(x, streams[want.Source.String()+" "+want.Destination.String()], want) {
				t.Errorf("call %d (%s, %s) from %s: %s", x.Number, x.Script, x.Profile, want.Source, fault)
			}
		}
	}
}

// streamsOf are a story's final reports by source and destination.
func streamsOf(s adaptertest.Story) map[string][]call.Quality {
	streams := map[string][]call.Quality{}
	for _, r := range s.Records {
		for _, c := range r.Connections {
			if c.Media == nil {
				continue
			}
			for _, q := range c.Media.Streams {
				streams[q.Source+" "+q.Destination] = append(streams[q.Source+" "+q.Destination], q)
			}
		}
	}
	return streams
}
