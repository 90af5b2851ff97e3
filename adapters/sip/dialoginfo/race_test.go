package dialoginfo

import (
	"fmt"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// bench is a session without its loop: messages are fed, and timers rung, by hand.
type bench struct {
	*session
	sub *subscription
	rec *adaptertest.Recorder
}

func newBench(t *testing.T) *bench {
	t.Helper()
	c := open(t, startNotifier(t, "udp", nil), "100")
	nc, err := c.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rec := adaptertest.NewRecorder(t.Context())
	c.counts = rec.Count
	k := newConn(nc, false, rec.Count)
	b := &bench{session: newSession(c, k, rec), rec: rec}
	t.Cleanup(func() { k.close(); b.outbox.close() })
	if err := b.begin(); err != nil {
		t.Fatal(err)
	}
	b.sub = b.subs[0]
	return b
}

func (b *bench) feed(text string) {
	b.handle(message{raw: []byte(text), received: call.At(b.now)})
}

// asked is the SUBSCRIBE under way.
func (b *bench) asked(t *testing.T) ask {
	t.Helper()
	for _, x := range b.tx {
		return x.ask
	}
	t.Fatal("no request is under way")
	return ask{}
}

func granted(a ask) string {
	return fmt.Sprintf("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=%s\r\nFrom: <sip:gate@x>;tag=%s\r\nTo: <sip:100@x>;tag=P\r\nCall-ID: %s\r\n"+
		"CSeq: %d SUBSCRIBE\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n", a.branch, a.fromTag, a.callID, a.seq)
}

func notified(a ask, state, body string) string {
	return fmt.Sprintf("NOTIFY sip:gate@x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKq\r\nFrom: <sip:100@x>;tag=P\r\nTo: <sip:gate@x>;tag=%s\r\n"+
		"Call-ID: %s\r\nCSeq: 1 NOTIFY\r\nEvent: dialog\r\nSubscription-State: %s\r\nContent-Length: %d\r\n\r\n%s", a.fromTag, a.callID, state, len(body), body)
}

// The PBX ends the subscription before it answers the request for it: another one is asked for at once, and the answer
// to the first is nobody's.
func TestAnEndOvertakesTheAnswer(t *testing.T) {
	b := newBench(t)
	a := b.asked(t)
	b.feed(notified(a, "terminated;reason=deactivated", ""))
	b.feed(granted(a))
	if b.sub.callID == a.callID || b.sub.active || !b.sub.asking && !b.sub.queued {
		t.Errorf("the resource is not asked for anew: %+v", *b.sub)
	}
}

func TestAnUnreadableDocumentDelaysNoSnapshot(t *testing.T) {
	b := newBench(t)
	a := b.asked(t)
	b.feed(granted(a))
	b.feed(notified(a, "active;expires=600", "<dialog-info><dialog"))
	if !b.complete {
		t.Error("the snapshot has not ended")
	}
}

func TestSilenceEndsTheSession(t *testing.T) {
	b := newBench(t)
	sent := 0
	for end := b.now.Add(40 * time.Second); b.fatal == nil; {
		at, ok := b.timers.Next()
		if !ok || at.After(end) {
			break
		}
		b.now = at
		b.timers.Ring(at)
		sent++
	}
	if b.fatal == nil || core.IsPermanent(b.fatal) || sent < 8 {
		t.Errorf("after %d alarms: %v", sent, b.fatal)
	}
}

// A login that one resource refuses is not wrong for the others.
func TestOneResourceRefusesTheLogin(t *testing.T) {
	n := startNotifier(t, "udp", func(n *notifier) {
		n.answers = map[string]string{"101": "401 Unauthorized\nWWW-Authenticate: Digest realm=\"pbx\", nonce=\"n\", qop=\"auth\"\r\n"}
	})
	for range 5 {
		r := start(t, open(t, n, "100", "101"))
		r.until(t, "the snapshot", kind(call.SnapshotEnd))
		r.end(t)
	}
}

// The nonce has run out when the subscriptions are taken back.
func TestLeavingIsProvedAnew(t *testing.T) {
	n := startNotifier(t, "udp", func(n *notifier) { n.password = "s3cret-s3cret" })
	r := start(t, open(t, n, "100"))
	r.until(t, "the snapshot", kind(call.SnapshotEnd))
	n.mu.Lock()
	n.refuse = true
	n.mu.Unlock()
	before := len(n.requests("SUBSCRIBE"))
	r.end(t)
	if last := n.requests("SUBSCRIBE")[before:]; len(last) < 2 {
		t.Errorf("%d requests to take the subscription back", len(last))
	}
}

// What goes on when the link comes up, with holds, and what has gone at the next.
func TestSnapshots(t *testing.T) {
	n := newNormalizer([]string{"sip:100@x"}, func(string, int) {})
	tr := call.NewTracker(call.Options{})
	var events []*call.Event
	at := call.Time(1_800_000_000) * call.Second
	take := func(how how, dialogs ...string) {
		at += call.Second
		info, err := Parse([]byte(document("100", 1, "full", dialogs...)))
		if err != nil {
			t.Fatal(err)
		}
		obs := n.document("sip:100@x", info, how, at, call.Native{Type: "NOTIFY", ID: at.String()})
		if how == snapshot {
			obs = append(obs, call.Observation{Kind: call.SnapshotEnd, At: at, Received: at})
		}
		for _, o := range obs {
			events = append(events, tr.Apply(call.SwitchRef{ID: "pbx"}, o)...)
		}
	}
	held := "<local><identity>sip:100@pbx</identity><target uri=\"sip:100@pbx\"><param pname=\"+sip.rendering\" pvalue=\"no\"/></target></local><remote><identity>sip:+14155550100@pbx</identity></remote>"
	state := func() call.ConnectionState {
		calls := tr.Calls()
		if len(calls) != 1 {
			t.Fatalf("%d calls", len(calls))
		}
		for _, c := range calls[0].Connections {
			if c.Party.ID == "100" {
				return c.State
			}
		}
		return ""
	}
	take(snapshot, element("d", "c", "x", Recipient, in(Confirmed), with("100", "+14155550100")))
	if s := state(); s != call.Connected {
		t.Errorf("found as %s", s)
	}
	take(live, element("d", "c", "x", Recipient, in(Confirmed), held))
	if s := state(); s != call.Held {
		t.Errorf("on hold it is %s", s)
	}
	tr.Apply(call.SwitchRef{ID: "pbx"}, call.Observation{Kind: call.LinkDown, Received: at})
	take(snapshot, element("d", "c", "x", Recipient, in(Confirmed), held))
	if s := state(); s != call.Held {
		t.Errorf("found again as %s", s)
	}
	take(snapshot)
	if tr.Active() != 0 {
		t.Error("the call that is gone goes on")
	}
}
