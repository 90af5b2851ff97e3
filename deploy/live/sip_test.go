//go:build live

package live_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// Where Asterisk and Kamailio send HEP to, with which key, and where Kamailio takes calls for Asterisk.
const (
	asteriskHEP  = "127.0.0.1:23960"
	kamailioHEP  = "127.0.0.1:23961"
	hepKey       = "hepsecret"
	kamailioPort = "25060"
)

// The links of a gateway that sees the same calls three ways.
const (
	byARI   = "pbx1"   // Asterisk's ARI
	byHEP   = "wire1"  // Asterisk's res_hep_pjsip and res_hep_rtcp
	byProxy = "proxy1" // Kamailio's siptrace
	byWire  = "cap1"   // the packets on loopback
	byRec   = "rec1"   // a recording client
)

// recorder is where the gateway takes recordings.
const recorder = "127.0.0.1:23962"

// allViews configures a gateway that sees the same calls in every way.
func allViews(t *testing.T, prefix string) settings {
	t.Helper()
	key := scratch("hep.key")
	if err := os.WriteFile(key, []byte(hepKey), 0o600); err != nil {
		t.Fatal(err)
	}
	sip := fmt.Sprintf(`  - id: %s
    kind: sip
    hep: {listen: "%s", key: {file: "%s"}}
  - id: %s
    kind: sip
    view: trunk
    hep: {listen: "%s", key: {file: "%s"}}
  - id: %s
    kind: sip
    capture: {interface: lo}
  - id: %s
    kind: sip
    siprec: {listen: "%s", rtp_ports: 29200-29299, call_id_headers: [X-Original-Call-ID]}
`, byHEP, asteriskHEP, key, byProxy, kamailioHEP, key, byWire, byRec, recorder)
	s := settings{prefix: prefix}
	s.whole = strings.Replace(s.yaml(), "sinks:\n", sip+"sinks:\n", 1)
	return s
}

// viewCase is calls that are placed, directly or through the proxy.
type viewCase struct {
	name  string // of the scenario; its truth is compared if there is one
	proxy bool
	place func(t *testing.T)
}

func viewCases() (all []viewCase) {
	scripted := func(name string, proxy bool) {
		args := []string{name}
		if proxy {
			args = append([]string{"--via", kamailioPort}, args...)
		}
		all = append(all, viewCase{name, proxy, func(t *testing.T) { play(t, args...) }})
	}
	for _, name := range []string{
		"inbound_answered_agent_hangup", "abandoned_while_ringing", "busy", "queue_answered", "hold_retrieve",
		"attended_transfer", "ring_group",
	} {
		scripted(name, false)
	}
	for _, name := range []string{"inbound_answered_caller_hangup", "no_answer", "unallocated", "blind_transfer"} {
		scripted(name, true)
	}
	for _, by := range []struct{ name, port, transport string }{
		{"sipp", sipPort, "u1"}, {"sipp over the proxy", kamailioPort, "u1"}, {"sipp over the proxy by TCP", kamailioPort, "t1"},
	} {
		all = append(all, viewCase{by.name, by.port == kamailioPort, func(t *testing.T) { sippCall(t, by.port, by.transport, "") }})
	}
	return append(all, viewCase{"sipp gives up", true, func(t *testing.T) { sippGivesUp(t, kamailioPort) }},
		viewCase{recorded, false, recordedCall})
}

// recorded is the case of a call that is recorded by SIPREC while it lasts.
const recorded = "sipp, recorded"

func recordedCall(t *testing.T) {
	done := make(chan struct{})
	id := fmt.Sprintf("recorded-%d@live", time.Now().UnixNano())
	go func() {
		defer close(done)
		time.Sleep(time.Second) // into the call: the client is told of it by its own switch
		sippRecordingClient(t, "u1", recorder, id)
	}()
	sippCall(t, sipPort, "u1", id)
	<-done
}

// TestViews plays calls through Asterisk, some of them over Kamailio, with the scripted phones and with sipp. Each of them
// is one interaction, seen by ARI, by the HEP of each server that it passed, in the packets on loopback, and, where it is
// recorded, by the recording server.
func TestViews(t *testing.T) {
	if _, err := output("./need.sh", "sipp=sip-tester"); err != nil {
		t.Fatal(err)
	}
	kamailio, err := up("./kamailio-up.sh", scratch("kamailio"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(kamailio, syscall.SIGTERM) })
	truth, err := adaptertest.ReadTruth(truthFile)
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, allViews(t, "hep."))
	g.waitReady()
	for _, c := range viewCases() {
		t.Run(c.name, func(t *testing.T) { playViews(t, g, c, truth[c.name].Interactions) })
	}
	t.Run("links", func(t *testing.T) {
		links := g.status().Links
		for _, l := range links {
			if !l.Up || l.Dead != 0 || l.Received == 0 {
				t.Errorf("a link is up: %v, has %d dead letters of %d received", l.Up, l.Dead, l.Received)
			}
		}
		if len(links) != 5 {
			t.Errorf("%d links, want 5", len(links))
		}
		checkNotes(t, g)
	})
	t.Run("stop", func(t *testing.T) { g.stopClean() })
	c := readAll(t, "hep.")
	t.Run("order", func(t *testing.T) {
		if calls := checkCalls(t, c); calls < 2*len(viewCases()) {
			t.Errorf("only %d calls", calls)
		}
	})
	if n := len(c.messages["deadletter"]); n > 0 {
		t.Errorf("%d dead letters: %s", n, c.messages["deadletter"][0])
	}
}

// badNote is a count of something that no packet of these calls may be.
var badNote = regexp.MustCompile(`(?m)^cti_link_notes_total\{link="(?:wire1|proxy1|cap1|rec1)",name="(?:hep_|siprec_|kernel_drops|invalid_|foreign_tags|unexpected_source).*$`)

// checkNotes looks for what was refused, dropped or not understood.
func checkNotes(t *testing.T, g *gateway) {
	t.Helper()
	resp, err := http.Get(g.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range badNote.FindAllString(string(b), -1) {
		t.Error(line)
	}
}

// playViews plays a case, again when only its times were wrong.
func playViews(t *testing.T, g *gateway, c viewCase, truth []adaptertest.Interaction) {
	for n := 1; ; n++ {
		from := time.Now()
		c.place(t)
		g.waitIdle()
		stories := adaptertest.Stories(recordsOf(t, "hep.", from, time.Now()))
		if len(stories) != max(len(truth), 1) {
			for _, s := range stories {
				t.Logf("interaction %s: %s", s.Records[0].InteractionID, views(s))
			}
			t.Fatalf("%d interactions, want %d", len(stories), max(len(truth), 1))
		}
		var late []string
		for i, s := range stories {
			want := adaptertest.Interaction{}
			if truth != nil {
				want = truth[i]
			}
			late = append(late, checkViews(t, s, c, want)...)
		}
		if t.Failed() || len(late) == 0 {
			return
		}
		if n == attempts {
			t.Fatalf("the times were wrong %d times:\n%s", n, strings.Join(late, "\n"))
		}
		t.Logf("playing it again, for its times:\n%s", strings.Join(late, "\n"))
	}
}

// bySwitch are a story's records, by the link that they came from.
func bySwitch(s adaptertest.Story) map[string]adaptertest.Story {
	by := map[string]adaptertest.Story{}
	for _, r := range s.Records {
		of := by[r.Switch.ID]
		of.Records = append(of.Records, r)
		by[r.Switch.ID] = of
	}
	return by
}

func views(s adaptertest.Story) string {
	return strings.Join(slices.Sorted(maps.Keys(bySwitch(s))), ", ")
}

// checkViews compares what was seen of one interaction with the truth and with each other. Faults in times are returned.
func checkViews(t *testing.T, s adaptertest.Story, c viewCase, want adaptertest.Interaction) (late []string) {
	t.Helper()
	wantViews := []string{byWire, byARI, byHEP}
	if c.proxy {
		wantViews = []string{byWire, byARI, byProxy, byHEP}
	}
	if c.name == recorded {
		wantViews = []string{byWire, byARI, byRec, byHEP}
	}
	if got := views(s); got != strings.Join(wantViews, ", ") {
		t.Errorf("seen by %s; want %s", got, strings.Join(wantViews, ", "))
		return nil
	}
	by := bySwitch(s)
	check := func(view string, want adaptertest.Interaction) {
		for _, fault := range by[view].Check("asterisk", want) {
			if strings.HasPrefix(fault, "hold is ") {
				late = append(late, view+": "+fault)
			} else {
				t.Errorf("%s: %s", view, fault)
			}
		}
	}
	check(byARI, want)
	want.Queue, want.IVRPath = nil, "" // these are inside the switch
	for _, view := range []string{byHEP, byWire} {
		check(view, want)
		late = append(late, sameLegs(t, by[byARI], by[view], true)...)
	}
	if c.proxy {
		late = append(late, sameLegs(t, by[byARI], by[byProxy], false)...)
	}
	checkAudio(t, by[byWire], 20, 0)
	if c.name == recorded {
		checkAudio(t, by[byRec], 200, 13)
	}
	return late
}

// checkAudio wants the audio of every leg that was up for two seconds and sent any to be measured. Loopback loses nothing
// beyond what the sender leaves out.
func checkAudio(t *testing.T, s adaptertest.Story, atLeast uint64, lost int64) {
	t.Helper()
	var most uint64
	for _, r := range s.Records {
		for _, c := range r.Connections {
			if c.Media == nil {
				continue
			}
			most = max(most, c.Media.Packets)
			if c.Media.Packets > 100 && (c.Media.Lost < 0 || c.Media.Lost > lost || c.Media.MOS < 1 || c.Media.JitterMS <= 0) { // how good it is, is up to what else the machine does
				t.Errorf("%s: %s: %+v", r.Switch.ID, c.Party.ID, c.Media)
			}
		}
	}
	if s.Records[0].Outcome == call.Answered && most < atLeast {
		t.Errorf("%s: no party's audio has more than %d packets", s.Records[0].Switch.ID, most)
	}
}

// sameLegs compares, by SIP Call-ID, the legs of two views. The second has all of the first when whole is set, and the
// caller's otherwise.
func sameLegs(t *testing.T, a, b adaptertest.Story, whole bool) (late []string) {
	t.Helper()
	if x, y := a.Records[0].Outcome, b.Records[0].Outcome; x != y {
		t.Errorf("%s says %s, %s %s", a.Records[0].Switch.ID, x, b.Records[0].Switch.ID, y)
	}
	theirs := legs(b)
	n := 0
	for id, x := range legs(a) {
		y := theirs[id]
		if y == nil {
			if whole || x.Party.Role == call.RoleCaller {
				t.Errorf("%s does not have %s of %s", b.Records[0].Switch.ID, id, x.Party.ID)
			}
			continue
		}
		n++
		late = append(late, sameTimes(t, x, y, within(a, x))...)
		if x.Media != nil && (y.Media == nil || y.Media.Codec != x.Media.Codec) {
			t.Errorf("%s: media %+v and %+v", id, x.Media, y.Media)
		}
	}
	if n != len(theirs) {
		t.Errorf("%s has %d dialogs, of which %d are there by ARI", b.Records[0].Switch.ID, len(theirs), n)
	}
	return late
}

func legs(s adaptertest.Story) map[string]*call.Connection {
	all := map[string]*call.Connection{}
	for _, r := range s.Records {
		for _, c := range r.Connections {
			if old := all[c.SIPCallID]; c.SIPCallID != "" && (old == nil || old.ClearedAt == 0) {
				all[c.SIPCallID] = c
			}
		}
	}
	return all
}

// within is how far two views of a leg may be apart. A party that has passed its call on, and says no BYE, has left for
// the switch when the target is called, and on the wire when the switch tells it of the answer.
func within(s adaptertest.Story, leg *call.Connection) call.Time {
	for _, r := range s.Records {
		for _, x := range r.Transfers {
			if x.By == leg.Party.ID {
				return 500 * call.Millisecond
			}
		}
	}
	return 60 * call.Millisecond
}

// sameTimes wants two views of a leg to agree on when it was answered and cleared, and on whether it was.
func sameTimes(t *testing.T, a, b *call.Connection, within call.Time) (late []string) {
	t.Helper()
	for what, at := range map[string][2]call.Time{"connected": {a.ConnectedAt, b.ConnectedAt}, "cleared": {a.ClearedAt, b.ClearedAt}} {
		if (at[0] == 0) != (at[1] == 0) {
			t.Errorf("%s %s at %s and at %s", a.SIPCallID, what, at[0], at[1])
		} else if off := at[0] - at[1]; off > within || off < -within {
			late = append(late, fmt.Sprintf("%s of %s %s at %s and at %s", a.SIPCallID, a.Party.ID, what, at[0], at[1]))
		}
	}
	return late
}

// sipp runs one call of a scenario of the folder sipp and returns how to wait for its end.
func sipp(t *testing.T, scenario string, args ...string) (wait func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "sipp", append([]string{
		"-sf", "sipp/" + scenario + ".xml", "-i", "127.0.0.1", "-mi", "127.0.0.1", "-m", "1", "-nostdin",
	}, args...)...)
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("sipp %s: %v:\n%s", scenario, err, said.String())
		}
	}
}

// agentPhone is sipp in the place of agent1's phone.
func agentPhone(t *testing.T, scenario string, args ...string) (wait func()) {
	t.Helper()
	wait = sipp(t, scenario, append([]string{"-p", "24061", "-mp", "24200"}, args...)...)
	eventually(t, "sipp listens", time.Minute, func() bool { return udpSocket(24061) != nil })
	return wait
}

// sippCall is a call of 3 s between two sipps, with G.711 A-law from the caller that the agent's phone sends back. Its Call-ID is id, or sipp's own when that is empty.
func sippCall(t *testing.T, port, transport, id string) {
	t.Helper()
	if id == "" {
		id = "%u-%p@%s"
	}
	answered := agentPhone(t, "uas", "-rtp_echo", "-d", "500")
	sipp(t, "uac", "127.0.0.1:"+port, "-t", transport, "-s", "1001", "-p", "24060", "-mp", "24110", "-d", "3000", "-cid_str", id)()
	answered()
}

// sippGivesUp is a call that the caller gives up while a phone rings.
func sippGivesUp(t *testing.T, port string) {
	t.Helper()
	rang := agentPhone(t, "uas_cancelled")
	sipp(t, "uac_cancel", "127.0.0.1:"+port, "-s", "1001", "-p", "24060", "-mp", "24110", "-d", "800")()
	rang()
}
