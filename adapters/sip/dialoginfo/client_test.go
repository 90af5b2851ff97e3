package dialoginfo

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const patience = time.Minute // for what must happen

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, n *notifier, resources ...string) *Client {
	t.Helper()
	c := *NewConfig()
	c.Server, c.Username, c.Password, c.Resources = n.uri(), "gate", core.NewSecret("s3cret-s3cret"), resources
	k, err := New("pbx", c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var numbered = regexp.MustCompile(`id="number-(\d+)"`)

func TestConformance(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{
		Secret: "s3cret-s3cret",
		Open: func(t *testing.T, o adaptertest.Options) *adaptertest.Switch {
			n := startNotifier(t, "tcp", func(n *notifier) { n.password, n.refuse = "s3cret-s3cret", o.Refuse })
			version := 0
			return &adaptertest.Switch{
				Adapter: open(t, n, "100"),
				Send: func(first, count int) error {
					for i := range count {
						version++
						if err := n.say("100", document("100", 1000+version, "full", element(fmt.Sprintf("number-%d", first+i), "", "", Recipient, in(Early), "")), "active"); err != nil {
							return err
						}
					}
					return nil
				},
				Number: func(f core.Frame) (int, bool) {
					m := numbered.FindSubmatch(f.Raw)
					if m == nil {
						return 0, false
					}
					x, err := strconv.Atoi(string(m[1]))
					return x, err == nil
				},
				Garbage: func() error { return n.say("100", "<dialog-info><!DOCTYPE", "active") },
				Cut:     n.cut,
				Close:   n.close,
			}
		},
	})
}

// run is a session under way, and what a tracker makes of it.
type run struct {
	*adaptertest.Recorder
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, c *Client) *run {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{Recorder: adaptertest.NewRecorder(ctx), cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- c.Run(ctx, r.Recorder) }()
	t.Cleanup(func() { cancel(); r.end(t) })
	return r
}

func (r *run) end(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- err
	case <-time.After(patience):
		t.Fatal("Run did not return")
	}
}

// until waits for an observation that fits.
func (r *run) until(t *testing.T, what string, ok func(call.Observation) bool) {
	t.Helper()
	_, err := r.Wait(patience, what, func(l adaptertest.Log) bool { return slices.ContainsFunc(observations(l), ok) })
	if err != nil {
		t.Fatal(err)
	}
}

func observations(l adaptertest.Log) (out []call.Observation) {
	for _, f := range l.Frames {
		out = append(out, f.Observations...)
	}
	return out
}

func kind(k call.Kind) func(call.Observation) bool {
	return func(o call.Observation) bool { return o.Kind == k }
}

// record plays what was observed into a tracker and returns the only record.
func record(t *testing.T, l adaptertest.Log) *call.Call {
	t.Helper()
	tr := call.NewTracker(call.Options{})
	var out []*call.Call
	for _, o := range observations(l) {
		for _, e := range tr.Apply(call.SwitchRef{ID: "pbx", Kind: Kind}, o) {
			if e.Type == call.CallRecord {
				out = append(out, e.Call)
			}
		}
	}
	if len(out) != 1 || tr.Active() != 0 {
		t.Fatalf("%d records and %d calls that go on, want one record: %+v", len(out), tr.Active(), observations(l))
	}
	return out[0]
}

// TestACallBetweenTwoExtensions: 100 calls 101, both are watched; the two dialogs are one call.
func TestACallBetweenTwoExtensions(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		for _, id := range []string{"same-call", ""} { // without a Call-ID the numbers tell
			t.Run(transport+id, func(t *testing.T) {
				n := startNotifier(t, transport, func(n *notifier) { n.password = "s3cret-s3cret" })
				r := start(t, open(t, n, "100", "101"))
				r.until(t, "the snapshot", kind(call.SnapshotEnd))
				say := func(user, direction, tag string, version int, state, event string) {
					other := map[string]string{"100": "101", "101": "100"}[user]
					s := "<state>" + state + "</state>"
					if event != "" {
						s = fmt.Sprintf(`<state event="%s">%s</state>`, event, state)
					}
					if err := n.say(user, document(user, version, "partial", element("d"+user, id, tag, direction, s, with(user, other))), "active"); err != nil {
						t.Fatal(err)
					}
				}
				say("100", Initiator, "a", 1, Trying, "")
				r.until(t, "100's leg", kind(call.LegCreated))
				say("101", Recipient, "b", 1, Early, "")
				r.until(t, "ringing", kind(call.LegAlerting))
				say("100", Initiator, "a", 2, Early, "")
				say("101", Recipient, "b", 2, Confirmed, "")
				say("100", Initiator, "a", 3, Confirmed, "")
				time.Sleep(20 * time.Millisecond)
				say("100", Initiator, "a", 4, Terminated, "local-bye")
				say("101", Recipient, "b", 3, Terminated, "remote-bye")
				r.until(t, "the end of 101's leg", func(o call.Observation) bool {
					return o.Kind == call.LegCleared && (strings.HasSuffix(o.Leg, ";b") || strings.Contains(o.Leg, "101@"))
				})
				c := record(t, r.Log())
				if c.Outcome != call.Answered || c.Direction != call.Internal || c.HangupBy != "100" || len(c.Connections) != 2 {
					t.Errorf("%s, %s, by %q, %d connections", c.Outcome, c.Direction, c.HangupBy, len(c.Connections))
				}
				r.end(t)
				n.until(t, "that the subscriptions are taken back", func() bool {
					last := n.requests("SUBSCRIBE")
					return header(last[len(last)-1], "Expires") == "0"
				})
				n.mu.Lock()
				defer n.mu.Unlock()
				for _, code := range n.codes {
					if code != 200 {
						t.Errorf("a NOTIFY was answered %d", code)
					}
				}
			})
		}
	}
}

func TestAnOutsideCallIsTwoParties(t *testing.T) {
	n := startNotifier(t, "udp", nil)
	r := start(t, open(t, n, "100"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	say := func(version int, s string) {
		if err := n.say("100", document("100", version, "partial", element("d", "c", "x", Recipient, s, with("100", "+14155550100"))), "active"); err != nil {
			t.Fatal(err)
		}
	}
	say(1, in(Early))
	say(2, in(Confirmed))
	say(3, `<state event="remote-bye">terminated</state>`)
	r.until(t, "the end", kind(call.LegCleared))
	c := record(t, r.Log())
	if c.Outcome != call.Answered || c.Direction != call.Inbound || c.From.Number != "+14155550100" || c.HangupBy != "caller" {
		t.Errorf("%s, %s, from %+v, by %q", c.Outcome, c.Direction, c.From, c.HangupBy)
	}
}

// TestAsteriskSaysLittle: an id that is the extension's, and no more; it is used again for the next call.
func TestAsteriskSaysLittle(t *testing.T) {
	n := startNotifier(t, "udp", nil)
	r := start(t, open(t, n, "100"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	for i, s := range []string{in(Early), in(Confirmed), in(Terminated), in(Early), in(Terminated)} {
		if err := n.say("100", document("100", i+1, "full", element("100", "", "", Recipient, s, "")), "active"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.Wait(patience, "two ends", func(l adaptertest.Log) bool {
		ends := 0
		for _, o := range observations(l) {
			if o.Kind == call.LegCleared {
				ends++
			}
		}
		return ends == 2
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeWatched(t *testing.T) {
	n := startNotifier(t, "udp", func(n *notifier) {
		n.answers = map[string]string{"101": "404 Not Found", "102": "423 Interval Too Brief\nMin-Expires: 1200\r\n"}
	})
	r := start(t, open(t, n, "100", "101", "102"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	_, err := r.Wait(patience, "what is missing", func(l adaptertest.Log) bool {
		return slices.ContainsFunc(append(l.Missing, l.Ups[0].Missing), func(m []string) bool {
			return len(m) == 1 && strings.Contains(m[0], "101") && strings.Contains(m[0], "404")
		})
	})
	if err != nil {
		t.Error(err)
	}
	n.until(t, "that 102 is asked for with the shortest time that the PBX grants", func() bool {
		return slices.ContainsFunc(n.requests("SUBSCRIBE"), func(q *sip.Request) bool { return q.To().Address.User == "102" && header(q, "Expires") == "1200" })
	})
}

func TestARestartedPBXIsAskedAgain(t *testing.T) {
	n := startNotifier(t, "udp", nil)
	r := start(t, open(t, n, "100"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	if err := n.say("100", document("100", 1, "partial", element("d", "c", "x", Recipient, in(Early), with("100", "200"))), "active"); err != nil {
		t.Fatal(err)
	}
	r.until(t, "ringing", kind(call.LegAlerting))
	if err := n.say("100", "", "terminated;reason=deactivated"); err != nil {
		t.Fatal(err)
	}
	// The next subscription's full state does not have the dialog any more.
	r.until(t, "the end, unseen", func(o call.Observation) bool { return o.Kind == call.LegCleared && o.Synthetic })
}

func TestHolesInVersionsAreAskedFor(t *testing.T) {
	n := startNotifier(t, "udp", nil)
	r := start(t, open(t, n, "100"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	if err := n.say("100", document("100", 7, "partial"), "active"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Wait(patience, "a gap and another SUBSCRIBE", func(l adaptertest.Log) bool {
		return len(l.Gaps) == 1 && len(n.requests("SUBSCRIBE")) == 2
	})
	if err != nil {
		t.Error(err)
	}
}

func TestForeignNotifiesAreRefused(t *testing.T) {
	n := startNotifier(t, "udp", nil)
	r := start(t, open(t, n, "100"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	n.mu.Lock()
	w := *n.subs["100"]
	w.tag = "somebody-else"
	n.notify(&w, document("100", 9, "full", element("d", "c", "x", Recipient, in(Early), "")), "active")
	n.mu.Unlock()
	_, err := r.Wait(patience, "a count", func(l adaptertest.Log) bool { return l.Counts[countOutOfDialog] == 1 })
	if err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(observations(r.Log()), kind(call.LegCreated)) {
		t.Error("a NOTIFY of another dialog was believed")
	}
}

func TestNobodyThere(t *testing.T) {
	n := startNotifier(t, "tcp", nil)
	n.close()
	err := open(t, n, "100").Run(t.Context(), adaptertest.NewRecorder(t.Context()))
	if err == nil || core.IsPermanent(err) || !strings.Contains(err.Error(), "check server") {
		t.Error(err)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add(document("100", 1, "full", element("d", "c", "x", Recipient, in(Early), with("100", "200"))), document("100", 2, "partial", element("d", "c", "x", Recipient, in(Terminated), "")))
	f.Add(`<dialog-info version="0" state="full" entity="sip:100@x"><dialog id="100"><state>confirmed</state></dialog></dialog-info>`, "<!DOCTYPE x>")
	f.Fuzz(func(t *testing.T, first, second string) {
		n := newNormalizer([]string{"sip:100@x", "sip:200@x"}, func(string, int) {})
		tr := call.NewTracker(call.Options{})
		apply := func(obs []call.Observation) {
			for _, o := range obs {
				tr.Apply(call.SwitchRef{ID: "pbx"}, o)
			}
		}
		for i, doc := range []string{first, second, first} {
			info, err := Parse([]byte(doc))
			if err != nil {
				continue
			}
			for _, uri := range []string{"sip:100@x", "sip:200@x"} {
				apply(n.document(uri, info, how(i%3), call.Time(i+1)*call.Second, call.Native{Type: "NOTIFY", ID: strconv.Itoa(i)}))
			}
		}
		apply(n.lost("sip:100@x", 9*call.Second, call.Native{}))
		apply(n.lost("sip:200@x", 9*call.Second, call.Native{}))
		if n.tracked != 0 || len(n.legs.byCall) != 0 || len(n.legs.byPair) != 0 {
			t.Errorf("%d dialogs are still followed", n.tracked)
		}
	})
}
