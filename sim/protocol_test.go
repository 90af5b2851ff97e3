package sim

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// quiet is a switch that plays only what is placed, in real time, with very short waits.
func quiet() Options {
	return Options{Seed: 1, Speed: 1000, Agents: 3, Ledger: 10_000}
}

func rest(t *testing.T, a *Asterisk, method, path, password string) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.ARIAddr()+"/ari"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		r.SetBasicAuth("gw", password)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("401 without a challenge: %v", res.Header)
	}
	return res.StatusCode, b
}

func TestARIAnswers(t *testing.T) {
	o := quiet()
	o.ClockSkew = 3 * time.Second
	a := startAsterisk(t, o)
	for _, c := range []struct {
		method, path, password string
		code                   int
		has                    string
	}{
		{"GET", "/asterisk/info", "", 401, `{"message":"Authentication required"}`},
		{"GET", "/asterisk/info", "wrong", 401, "message"},
		{"GET", "/asterisk/info?api_key=gw:gwsecret", "", 200, `"version":"22.`},
		{"GET", "/asterisk/info", "gwsecret", 200, `"entity_id":"02:fc`},
		{"GET", "/asterisk/ping", "gwsecret", 200, `"ping":"pong"`},
		{"GET", "/channels", "gwsecret", 200, `[]`},
		{"GET", "/bridges", "gwsecret", 200, `[]`},
		{"GET", "/endpoints", "gwsecret", 200, `"resource":"trunk"`},
		{"GET", "/applications/none", "gwsecret", 404, `{"message":"Application not found"}`},
		{"GET", "/channels/1.1", "gwsecret", 404, `{"message":"Channel not found"}`},
		{"DELETE", "/channels/1.1", "gwsecret", 404, `{"message":"Channel not found"}`},
		{"POST", "/channels/1.1/hold", "gwsecret", 404, `{"message":"Channel not found"}`},
		{"POST", "/channels?endpoint=PJSIP/nobody", "gwsecret", 500, `Allocation failed`},
		{"GET", "/events", "gwsecret", 400, `app`},
		{"GET", "/events?app=x", "gwsecret", 426, `Upgrade`},
		{"GET", "/nothing", "gwsecret", 404, `{"message":"Resource not found"}`},
	} {
		code, b := rest(t, a, c.method, c.path, c.password)
		if code != c.code || !strings.Contains(string(b), c.has) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, code, b, c.code, c.has)
		}
	}
	asked := time.Now()
	_, b := rest(t, a, "GET", "/asterisk/ping", "gwsecret")
	at, err := time.Parse(isoMilli, decode(t, b)["timestamp"].(string))
	if d := time.Until(at); err != nil || at.Sub(asked) < 2*time.Second || d > 4*time.Second {
		t.Errorf("a clock ordered 3 s ahead is %v ahead", d)
	}
}

// until reads ARI events until one fits.
func until(t *testing.T, r *bufio.Reader, fits func(wireEvent) bool) wireEvent {
	t.Helper()
	for {
		op, p, err := readWS(r)
		if err != nil {
			t.Fatalf("waiting for an event: %v", err)
		}
		if op != opText {
			continue
		}
		if e := jsonEvent(t, p); fits(e) {
			return e
		}
	}
}

// The snapshot has the keys that the recorded one has, and hanging up a channel ends the call.
func TestARISnapshotAndHangup(t *testing.T) {
	o := quiet()
	o.Speed = 1
	a := startAsterisk(t, o)
	_, r := dialARI(t, a.ARIAddr(), "gateway")
	if err := a.Place("busy"); err != nil {
		t.Fatal(err)
	}
	gone := until(t, r, func(e wireEvent) bool {
		return e[".type"] == "ChannelDestroyed" && strings.HasPrefix(e[".channel.name"], "PJSIP/trunk")
	})
	if gone[".cause"] != "17" {
		t.Errorf("a busy call ends with cause %s", gone[".cause"])
	}
	if code, _ := rest(t, a, "POST", "/channels?endpoint=PJSIP/agent2&extension=1002", "gwsecret"); code != 200 {
		t.Fatalf("originate: %d", code)
	}
	e := until(t, r, func(e wireEvent) bool { return e[".channel.state"] == "Ringing" })
	if !strings.HasPrefix(e[".channel.name"], "PJSIP/agent2-") {
		t.Errorf("originate to agent2 rings %s", e[".channel.name"])
	}
	_, b := rest(t, a, "GET", "/channels", "gwsecret")
	sameKeys(t, b, "snapshot-talking.json", "channels")
	if code, b := rest(t, a, "POST", "/channels/"+e[".channel.id"]+"/hold", "gwsecret"); code != 204 {
		t.Errorf("hold: %d %s", code, b)
	}
	if code, b := rest(t, a, "DELETE", "/channels/"+e[".channel.id"], "gwsecret"); code != 204 {
		t.Fatalf("hang-up: %d %s", code, b)
	}
	until(t, r, func(x wireEvent) bool {
		return x[".type"] == "ChannelDestroyed" && x[".channel.id"] == e[".channel.id"]
	})
	if _, b := rest(t, a, "GET", "/channels", "gwsecret"); strings.Contains(string(b), e[".channel.id"]) {
		t.Errorf("after the hang-up: %s", b)
	}
}

func sameKeys(t *testing.T, got []byte, file, member string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recordings, "asterisk", "midcall_snapshots", file))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	var g, w []any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal(want[member], &w) != nil || len(g) == 0 {
		t.Fatalf("%s: %s", member, got)
	}
	x, y := wireEvent{}, wireEvent{}
	flatten("", g[0], x)
	flatten("", w[0], y)
	for k := range y {
		if _, ok := x[k]; !ok {
			t.Errorf("%s lacks %s", member, k)
		}
	}
	for k := range x {
		if _, ok := y[k]; !ok {
			t.Errorf("%s has %s, which the recorded one has not", member, k)
		}
	}
}

// Two readers get the same events; a second one for the same application takes it over.
func TestTwoReadersAndTakeover(t *testing.T) {
	o := quiet()
	o.Readers = 2
	a := startAsterisk(t, o)
	if err := a.Place("busy"); err != nil {
		t.Fatal(err)
	}
	_, one := dialARI(t, a.ARIAddr(), "one")
	_, two := dialARI(t, a.ARIAddr(), "two")
	end := func(e wireEvent) bool {
		return e[".type"] == "ChannelDestroyed" && strings.Contains(e[".channel.name"], "trunk")
	}
	collect := func(r *bufio.Reader, app string) string {
		var all []string
		until(t, r, func(e wireEvent) bool {
			if e[".application"] != app {
				t.Errorf("an event for %s at %s", e[".application"], app)
			}
			delete(e, ".application")
			all = append(all, fmt.Sprint(map[string]string(e)))
			return end(e)
		})
		return strings.Join(all, "\n")
	}
	if x, y := collect(one, "one"), collect(two, "two"); x != y || strings.Count(x, "\n") < 10 {
		t.Errorf("two readers got different events:\n%s\n---\n%s", x, y)
	}
	dialARI(t, a.ARIAddr(), "one")
	if e := until(t, one, func(e wireEvent) bool { return e[".type"] == "ApplicationReplaced" }); e[".application"] != "one" {
		t.Errorf("%v", e)
	}
	for {
		if _, _, err := readWS(one); err != nil {
			break
		}
	}
}

func TestAMIAnswers(t *testing.T) {
	a := startAsterisk(t, quiet())
	k, r := dial(t, a.AMIAddr())
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(k, "Action: Ping\r\nActionID: 0\r\n\r\n")
	if m := readAMI(t, r); m["Response"] != "Error" || m["Message"] != "Permission denied" || m["ActionID"] != "0" {
		t.Errorf("before login: %v", m)
	}
	fmt.Fprint(k, "Action: Login\r\nUsername: gw\r\nSecret: wrong\r\nActionID: 9\r\n\r\n")
	if m := readAMI(t, r); m["Response"] != "Error" || m["Message"] != "Authentication failed" || m["ActionID"] != "9" {
		t.Errorf("wrong secret: %v", m)
	}
	if m := readAMI(t, r); m["error"] == "" {
		t.Errorf("after a wrong secret the connection stays: %v", m)
	}
	k, r = dialAMI(t, a.AMIAddr())
	for _, c := range []struct{ send, key, want string }{
		{"Action: Ping\r\nActionID: 7", "Ping", "Pong"},
		{"Action: CoreSettings\r\nActionID: 7", "AMIversion", "11.0.0"},
		{"Action: Events\r\nEventMask: off\r\nActionID: 7", "Events", "Off"},
		{"Action: Nonsense\r\nActionID: 7", "Message", "Invalid/unknown command: Nonsense. Use Action: ListCommands to show available commands."},
		{"ActionID: 7", "Message", "Missing action in request"},
		{"Action: Hangup\r\nChannel: PJSIP/none\r\nActionID: 7", "Message", "No such channel"},
	} {
		fmt.Fprintf(k, "%s\r\n\r\n", c.send)
		if m := readAMI(t, r); m[c.key] != c.want || m["ActionID"] != "7" {
			t.Errorf("%q: %v", c.send, m)
		}
	}
	fmt.Fprint(k, "Action: QueueStatus\r\nActionID: q\r\n\r\n")
	list := map[string]int{}
	for {
		m := readAMI(t, r)
		list[m["Event"]+m["Response"]]++
		if m["ActionID"] != "q" {
			t.Errorf("an answer without its ActionID: %v", m)
		}
		if m["Event"] == "QueueStatusComplete" {
			if m["ListItems"] != "8" {
				t.Errorf("%v", m)
			}
			break
		}
	}
	if list["QueueParams"] != 2 || list["QueueMember"] != 6 || list["Success"] != 1 {
		t.Errorf("QueueStatus of two queues with three agents: %v", list)
	}
	fmt.Fprint(k, "Action: CoreShowChannels\r\n\r\nAction: Logoff\r\n\r\n")
	if m := readAMI(t, r); m["Message"] != "Channels will follow" {
		t.Errorf("%v", m)
	}
	if m := readAMI(t, r); m["Event"] != "CoreShowChannelsComplete" || m["ListItems"] != "0" {
		t.Errorf("%v", m)
	}
	if m := readAMI(t, r); m["Response"] != "Goodbye" {
		t.Errorf("%v", m)
	}
}

// ask sends a command and returns the answer to it, skipping events.
func ask(t *testing.T, k io.Writer, r *bufio.Reader, cmd string) (map[string]string, string) {
	t.Helper()
	fmt.Fprintf(k, "%s\n\n", cmd)
	for {
		h, b, err := readESL(r)
		if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		if !strings.HasPrefix(h["Content-Type"], "text/event-") {
			return h, b
		}
	}
}

func TestESLAnswers(t *testing.T) {
	o := quiet()
	o.ClockSkew = -5 * time.Second
	s := startFreeSWITCH(t, o)
	k, r := dial(t, s.Addr())
	if h, _, err := readESL(r); err != nil || h["Content-Type"] != "auth/request" {
		t.Fatal(h, err)
	}
	if h, _ := ask(t, k, r, "api status"); h["Reply-Text"] != "-ERR command not found" {
		t.Errorf("before auth: %v", h)
	}
	if h, _ := ask(t, k, r, "auth wrong"); h["Reply-Text"] != "-ERR invalid" {
		t.Errorf("wrong password: %v", h)
	}
	if h, b, _ := readESL(r); h["Content-Type"] != "text/disconnect-notice" || !strings.HasPrefix(b, "Disconnected, goodbye.") {
		t.Errorf("after a wrong password: %v %q", h, b)
	}
	k, r = dialESL(t, s.Addr(), "")
	for cmd, want := range map[string]string{
		"api status": "UP 0 years", "api version": "FreeSWITCH Version 1.10.12", "api show channels as json": `{"row_count": 0}`,
		"api show calls as json": `{"row_count": 0}`, "api uuid_dump 1234 json": "-ERR No such channel!", "api module_exists mod_callcenter": "true",
		"api module_exists mod_none": "false", "api callcenter_config queue list": "support@default|", "api callcenter_config agent list": "agent3@default|",
		"api callcenter_config queue list members support@default": "+OK", "api nonsense": "-ERR nonsense Command not found!", "api uuid_kill 1": "-ERR",
	} {
		if h, b := ask(t, k, r, cmd); h["Content-Type"] != "api/response" || !strings.HasPrefix(b, want) && !strings.Contains(b, want) {
			t.Errorf("%s: %v %q", cmd, h, b)
		}
	}
	if _, b := ask(t, k, r, "api global_getvar core_uuid"); len(b) != 36 {
		t.Errorf("core_uuid %q", b)
	}
	asked := time.Now()
	_, b := ask(t, k, r, "api strmicroepoch")
	at := time.UnixMicro(num(t, b))
	if d := time.Until(at); d > -4*time.Second || at.Sub(asked) < -6*time.Second {
		t.Errorf("a clock ordered 5 s behind is %v off", d)
	}
	for _, c := range [][2]string{
		{"noevents", "-ERR not listening for events"}, {"event", "-ERR no keywords supplied"}, {"event plain DTMF", "+OK event listener enabled plain"},
		{"event json DTMF CUSTOM callcenter::info", "+OK event listener enabled json"}, {"nixevent DTMF", "+OK events nixed"},
		{"filter Unique-ID 5", "+OK filter added. [Unique-ID]=[5]"}, {"noevents", "+OK no longer listening for events"},
		{"nonsense", "-ERR command not found"}, {"log 7", "+OK log level"}, {"exit", "+OK bye"},
	} {
		if h, _ := ask(t, k, r, c[0]); !strings.HasPrefix(h["Reply-Text"], c[1]) {
			t.Errorf("%s: %v", c[0], h)
		}
	}
}

// Only what was asked for is sent, a killed call ends, and a background job reports.
func TestESLSubscriptionAndKill(t *testing.T) {
	o := quiet()
	o.Speed = 1
	s := startFreeSWITCH(t, o)
	k, r := dialESL(t, s.Addr(), "event json CHANNEL_PROGRESS CHANNEL_DESTROY BACKGROUND_JOB CUSTOM callcenter::info")
	fmt.Fprint(k, "bgapi originate {x=1}sofia/internal/agent1@127.0.0.1:26070 1002\nJob-UUID: job-1\n\n")
	leg, names := "", map[string]bool{}
	for leg == "" || !names["BACKGROUND_JOB"] {
		h, b, err := readESL(r)
		if err != nil {
			t.Fatal(err)
		}
		if h["Content-Type"] != "text/event-json" {
			continue
		}
		e := jsonEvent(t, []byte(b))
		names[e[".Event-Name"]] = true
		if e[".Event-Name"] == "CHANNEL_PROGRESS" {
			leg = e[".Unique-ID"]
		}
		if e[".Event-Name"] == "BACKGROUND_JOB" && (e[".Job-UUID"] != "job-1" || !strings.HasPrefix(e["._body"], "+OK ")) {
			t.Errorf("%v", e)
		}
	}
	_, rows := ask(t, k, r, "api show channels as json")
	if !strings.Contains(rows, `"row_count":1`) || !strings.Contains(rows, leg) || !strings.Contains(rows, `"callstate":"`) {
		t.Errorf("show channels: %s", rows)
	}
	snapshotKeys(t, rows)
	_, dump := ask(t, k, r, "api uuid_dump "+leg+" json")
	if e := jsonEvent(t, []byte(dump)); e[".Unique-ID"] != leg || e[".Event-Name"] != "CHANNEL_DATA" || e[".variable_uuid"] != leg {
		t.Errorf("uuid_dump: %s", dump)
	}
	if _, b := ask(t, k, r, "api uuid_kill "+leg); b != "+OK\n" {
		t.Errorf("uuid_kill: %q", b)
	}
	for !names["CHANNEL_DESTROY"] {
		h, b, err := readESL(r)
		if err != nil {
			t.Fatal(err)
		}
		if h["Content-Type"] == "text/event-json" {
			names[jsonEvent(t, []byte(b))[".Event-Name"]] = true
		}
	}
	for n := range names {
		if !strings.Contains("CHANNEL_PROGRESS CHANNEL_DESTROY BACKGROUND_JOB CUSTOM", n) {
			t.Errorf("%s was sent, though not asked for", n)
		}
	}
}

func snapshotKeys(t *testing.T, got string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recordings, "freeswitch", "midcall_snapshots", "snapshot-talking.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rec struct{ Channels string }
	var g, w struct{ Rows []map[string]string }
	if json.Unmarshal(b, &rec) != nil || json.Unmarshal([]byte(rec.Channels), &w) != nil || json.Unmarshal([]byte(got), &g) != nil || len(g.Rows) == 0 {
		t.Fatalf("rows: %s", got)
	}
	for k := range w.Rows[0] {
		if _, ok := g.Rows[0][k]; !ok {
			t.Errorf("show channels lacks %s", k)
		}
	}
	for k := range g.Rows[0] {
		if _, ok := w.Rows[0][k]; !ok {
			t.Errorf("show channels has %s, which the recorded one has not", k)
		}
	}
}

// A handshake without its parts is refused, and a client that speaks no websocket is dropped.
func TestWebsocketManners(t *testing.T) {
	a := startAsterisk(t, quiet())
	k, r := dialARI(t, a.ARIAddr(), "x")
	if _, err := k.Write([]byte{0x89, 0x83, 1, 2, 3, 4, 'a' ^ 1, 'b' ^ 2, 'c' ^ 3}); err != nil {
		t.Fatal(err)
	}
	if op, p, err := readWS(r); op != opPong || string(p) != "abc" || err != nil {
		t.Errorf("ping was answered with %d %q %v", op, p, err)
	}
	if _, err := k.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}); err != nil {
		t.Fatal(err)
	}
	if op, p, err := readWS(r); op != opClose || string(p) != "\x03\xe8" || err != nil {
		t.Errorf("close was answered with %d %q %v", op, p, err)
	}
	k, r = dialARI(t, a.ARIAddr(), "x")
	if _, err := k.Write([]byte{0x81, 0x01, 'x'}); err != nil { // unmasked
		t.Fatal(err)
	}
	if _, _, err := readWS(r); err == nil {
		t.Error("an unmasked client frame is taken")
	}
	if got := base64.StdEncoding.EncodeToString(wsHead(nil, opText, 70000)); got != base64.StdEncoding.EncodeToString([]byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70}) {
		t.Errorf("head of a long frame: %s", got)
	}
}

// No client input makes the websocket reader panic or allocate beyond its bound.
func FuzzClientFrame(f *testing.F) {
	f.Add([]byte{0x89, 0x83, 1, 2, 3, 4, 5, 6, 7})
	f.Add([]byte{0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x81, 0xfe, 0, 1, 0, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(strings.NewReader(string(b)))
		for {
			_, p, err := wsRead(r)
			if err != nil {
				return
			}
			if len(p) > maxControl {
				t.Errorf("a frame of %d bytes was read", len(p))
			}
		}
	})
}
