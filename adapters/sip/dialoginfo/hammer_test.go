package dialoginfo

import (
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

const (
	asked = patience    // to wait for what comes
	storm = time.Second // in which a storm would show
)

// TestAPBXThatEndsEverySubscriptionIsNotStormed: the first is renewed at once, the next ones after pauses.
func TestAPBXThatEndsEverySubscriptionIsNotStormed(t *testing.T) {
	for _, state := range []string{"terminated;reason=deactivated", "terminated"} {
		n := startNotifier(t, "udp", func(n *notifier) { n.state = state })
		r := start(t, open(t, n, "100"))
		calm(t, r, n)
	}
}

// TestAPBXThatTellsOnlyChangesIsNotStormed: it is asked for the whole state once, and its changes are taken.
func TestAPBXThatTellsOnlyChangesIsNotStormed(t *testing.T) {
	n := startNotifier(t, "udp", func(n *notifier) { n.partial = true })
	r := start(t, open(t, n, "100"))
	calm(t, r, n)
	if err := n.say("100", document("100", 0, "partial", element("d", "c", "x", Recipient, in(Early), with("100", "200"))), "active"); err != nil {
		t.Fatal(err)
	}
	r.until(t, "a call told with the version of the document before", kind(call.LegAlerting))
}

// calm waits for the second SUBSCRIBE and sees that no third comes in the time that a hundred would take.
func calm(t *testing.T, r *run, n *notifier) {
	t.Helper()
	if _, err := r.Wait(asked, "two SUBSCRIBEs", func(adaptertest.Log) bool { return len(n.requests("SUBSCRIBE")) == 2 }); err != nil {
		t.Fatal(err)
	}
	_, err := r.Wait(storm, "a third SUBSCRIBE", func(adaptertest.Log) bool { return len(n.requests("SUBSCRIBE")) > 2 })
	if err == nil || len(n.requests("SUBSCRIBE")) > 2 {
		t.Errorf("%d SUBSCRIBEs for one resource", len(n.requests("SUBSCRIBE")))
	}
}
