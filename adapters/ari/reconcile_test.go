package ari

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

const (
	goneEvent  = `{"type":"ChannelDestroyed","timestamp":"2026-11-22T12:54:31.207+0000","cause":16,"channel":{"id":"1.1","name":"PJSIP/trunk-1","state":"Up","protocol_id":"x@lab","caller":{"name":"","number":"1"},"dialplan":{"exten":"1000","app_name":"Dial"},"creationtime":"2026-11-22T12:54:30.207+0000"},"application":"ctigate"}`
	heldEvent  = `{"type":"ChannelHold","timestamp":"2026-11-22T12:54:31.307+0000","channel":{"id":"1.2","name":"PJSIP/trunk-2","state":"Up","protocol_id":"y@lab","caller":{"name":"","number":"2"},"dialplan":{"exten":"1000","app_name":"Dial"},"creationtime":"2026-11-22T12:54:30.307+0000"},"application":"ctigate"}`
	channelsUp = `[{"id":"1.2","name":"PJSIP/trunk-2","state":"Up","protocol_id":"y@lab","caller":{"name":"Bob","number":"2"},"dialplan":{"exten":"1002","app_name":"Dial"},"creationtime":"2026-11-22T12:54:30.307+0000"},` +
		`{"id":"1.3","name":"PJSIP/agent1-3","state":"Up","protocol_id":"z@lab","caller":{"name":"","number":"1001"},"dialplan":{"exten":"","app_name":"AppDial","app_data":"(Outgoing Line)"},"creationtime":"2026-11-22T12:54:30.407+0000"}]`
)

// busySwitch has calls that end and are held while the snapshot is asked for. It sets marks, or refuses to.
func busySwitch(t *testing.T, marks bool) *fakeSwitch {
	f := newFakeSwitch(t, httptest.NewServer)
	open := make(chan *peer, 1)
	f.opening = func(p *peer) { open <- p }
	values := map[string]string{
		"1.2 CALLERID(dnid)": "1000", "1.2 CHANNEL(rtp,hold)": "1", "1.3 CALLERID(dnid)": "", "1.3 CHANNEL(rtp,hold)": "1",
		"1.3 CDR(start,u)": "1795352070.407123", "1.3 CDR(answer,u)": "1795352070.900456",
	}
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasPrefix(r.URL.Path, "/ari/events/user/") && marks:
			p := <-open
			defer func() { open <- p }()
			if got := r.URL.Query().Get("application"); got != "ctigate" {
				t.Errorf("the mark is for application %q", got)
			}
			p.text(fmt.Sprintf(`{"type":"ChannelUserevent","eventname":%q,"userevent":{},"application":"ctigate"}`, path.Base(r.URL.Path)))
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Path == "/ari/channels":
			p := <-open
			defer func() { open <- p }()
			p.text(goneEvent)
			p.text(heldEvent)
			io.WriteString(w, channelsUp)
		case strings.HasSuffix(r.URL.Path, "/variable"):
			v, ok := values[path.Base(path.Dir(r.URL.Path))+" "+r.URL.Query().Get("variable")]
			if !ok {
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}
			fmt.Fprintf(w, `{"value":%q}`, v)
		default:
			return false
		}
		return true
	}
	return f
}

func TestSnapshotIsPutInOrderWithTheEvents(t *testing.T) {
	for mark, marks := range map[string]bool{"event": true, "time": false} {
		t.Run(mark, func(t *testing.T) {
			f, out := busySwitch(t, marks), newRecorder()
			stop, _ := start(t, testConfig(f.server.URL), out)
			out.until(t, "the held channel's event", func() bool { return slices.Contains(out.order, "ChannelHold") })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			order := slices.DeleteFunc(out.order, func(s string) bool { return s == "ChannelUserevent" || s == "flush" })
			if want := []string{"up", "snapshot", "ChannelDestroyed", "ChannelHold"}; !slices.Equal(order, want) {
				t.Errorf("order %v, want %v", order, want)
			}
			for _, fr := range out.frames {
				if fr.Type == "snapshot" {
					checkBusy(t, fr.Observations, mark)
				}
			}
			if got := strings.Join(f.seen(), "\n"); marks != strings.Contains(got, "-closing") {
				t.Errorf("requests:\n%s", got)
			}
		})
	}
}

// checkBusy holds what busySwitch's snapshot says.
func checkBusy(t *testing.T, observed []call.Observation, mark string) {
	t.Helper()
	by := map[string]call.Observation{}
	for _, o := range observed {
		by[fmt.Sprint(o.Leg, " ", o.Kind)] = o
	}
	of := func(leg string, k call.Kind) call.Observation { return by[fmt.Sprint(leg, " ", k)] }
	if o := of("1.1", call.SnapshotKept); o.Leg == "" || of("1.1", call.LegCreated).Leg != "" {
		t.Errorf("the channel that went away meanwhile: %+v", observed)
	}
	if o := of("1.2", call.SnapshotLeg); o.Value != "connected" || o.Kind == 0 { // it is put on hold by its event
		t.Errorf("the channel that was put on hold meanwhile: %+v", o)
	}
	if o := of("1.2", call.LegCreated); !o.Inbound || o.Dialed != "1000" || !o.Unseen {
		t.Errorf("its beginning: %+v", o)
	}
	if o := of("1.3", call.SnapshotLeg); o.Value != string(call.Held) {
		t.Errorf("the channel on hold: %+v", o)
	}
	if o := of("1.3", call.LegConnected); o.At != 1795352070900456 || !o.Synthetic {
		t.Errorf("its answer: %+v", o)
	}
	if o := observed[len(observed)-1]; o.Kind != call.SnapshotEnd || o.Value != mark {
		t.Errorf("the end: %+v", o)
	}
}

// A transfer begins another call record: its answer is not when the channel was answered.
func TestAnswerTimeOfACallRecord(t *testing.T) {
	const created = call.Time(1795352070407000)
	for _, c := range []struct {
		start, answer string
		want          call.Time
	}{
		{"1795352070.407123", "1795352070.900456", 1795352070900456},
		{"1795352070.407123", "0.000000", 0},
		{"1795352090.407123", "1795352090.407123", 0},
		{"", "1795352070.900456", 0},
		{"soon", "later", 0},
	} {
		if got := (details{Start: c.start, Answer: c.answer}).answered(created); got != c.want {
			t.Errorf("start %s, answer %s: %d, want %d", c.start, c.answer, got, c.want)
		}
	}
}

// A leg that was found is named by what it was made to, if that is a number outside, and else by its endpoint.
func TestWhomALegWasMadeTo(t *testing.T) {
	none := ""
	for remote, want := range map[string]string{
		`"Alice" <sip:+14155550123@carrier>`: "+14155550123", "<sip:14155550123@carrier>": "14155550123",
		"<sip:1002@127.0.0.1>": "", "<sip:agent1@127.0.0.1>": "", "": "",
	} {
		c := &chanState{create: &call.Observation{Dialed: "s"}}
		(details{Dialed: &none, Remote: remote}).complete(c, &channel{State: "Up"})
		if c.inbound || c.create.Dialed != want {
			t.Errorf("made to %s: dialed %q, want %q", remote, c.create.Dialed, want)
		}
	}
}

// TestQueueSnapshotEnds: when AMI has named all who wait, and what it had to say before is through, others wait no more.
func TestQueueSnapshotEnds(t *testing.T) {
	n := newNormalizer(options{}, ignore)
	n.manager(parseLines([]string{"Event: QueueStatusComplete", "ActionID: 1", "EventList: Complete"}), 9*call.Second)
	if got := n.flush(9*call.Second + waitForARI - 1); len(got) != 0 {
		t.Errorf("too early: %+v", got)
	}
	if got := n.flush(9*call.Second + waitForARI); len(got) != 1 || got[0].Kind != call.QueueSnapshotEnd {
		t.Errorf("got %+v", got)
	}
	if got := n.flush(20 * call.Second); len(got) != 0 {
		t.Errorf("again: %+v", got)
	}
}

func ignore(string, int) {}
