package ari

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core"
)

// found runs Check and gives "level detail fix" by what was looked at.
func found(t *testing.T, cfg *Config) map[string]string {
	t.Helper()
	a := open(t, cfg)
	defer a.Control().Close()
	m := map[string]string{}
	for _, f := range a.Check(t.Context()) {
		if f.Subject != "pbx1" || f.Level != core.OK && f.Level != core.Warn && f.Level != core.Fail {
			t.Errorf("finding %+v", f)
		}
		m[f.What] = fmt.Sprintf("%s %s | %s", f.Level, f.Detail, f.Fix)
		if strings.Contains(m[f.What], password) {
			t.Errorf("%s shows the password", f.What)
		}
	}
	return m
}

func expect(t *testing.T, got map[string]string, want map[string]string) {
	t.Helper()
	for what, w := range want {
		level, text, _ := strings.Cut(w, " ")
		if !strings.HasPrefix(got[what], level+" ") || !strings.Contains(got[what], text) {
			t.Errorf("%s: got %q, want %q", what, got[what], w)
		}
	}
}

// configAMI also answers GetConfig, from files.
func configAMI(files map[string]string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for a := action(r); a != nil; a = action(r) {
			id, lines := a["ActionID"], files[a["Filename"]+" "+a["Category"]]
			switch a["Action"] {
			case "GetConfig":
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\nCategory-000000: %s\r\n", id, a["Category"])
				for i, l := range strings.Fields(lines) {
					fmt.Fprintf(c, "Line-000000-%06d: %s\r\n", i, l)
				}
				io.WriteString(c, "\r\n")
			case "QueueStatus":
				fmt.Fprintf(c, "Response: Success\r\nActionID: %[1]s\r\nEventList: start\r\n\r\n"+
					"Event: QueueParams\r\nQueue: support\r\nActionID: %[1]s\r\n\r\n"+
					"Event: QueueMember\r\nQueue: support\r\nActionID: %[1]s\r\n\r\n"+
					"Event: QueueStatusComplete\r\nActionID: %[1]s\r\nEventList: Complete\r\n\r\n", id)
			default:
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\nTimestamp: 1795412518.687879\r\n\r\n", id)
			}
		}
	}
}

func TestCheckOfAWellConfiguredSwitch(t *testing.T) {
	cfg := withAMI(t, configAMI(map[string]string{
		"ari.conf general":     "channelvars=CHANNEL(linkedid),CHANNEL(audioreadformat),CHANNEL(audionativeformat),IVR_PATH websocket_write_timeout=1000",
		"manager.conf general": "timestampevents=yes",
		"manager.conf gw":      "secret=" + password + " read=agent,call eventfilter(name(Hangup))=",
	}))
	got := found(t, cfg)
	for what, f := range got {
		if !strings.HasPrefix(f, "ok ") && what != "clock" && what != "ARI application" { // the fake's clock stands, its applications answer 404
			t.Errorf("%s: %s", what, f)
		}
	}
	expect(t, got, map[string]string{
		"clock": "warn NTP", "ARI application": "ok ctigate is free", "ARI call control": "ok may write", "AMI eventfilter": "ok set",
		"queues": `ok "support" (1 members)`, "Asterisk version": "ok 22.10.1", "websocket_write_timeout": "ok 1s",
	})
}

func TestCheckNamesTheLineThatIsMissing(t *testing.T) {
	cfg := withAMI(t, configAMI(map[string]string{
		"ari.conf general": "channelvars=CHANNEL(linkedid)",
		"manager.conf gw":  "read=system,call",
	}))
	cfg.Variables = []string{"TENANT"}
	expect(t, found(t, cfg), map[string]string{
		"channel variables": "warn CHANNEL(audioreadformat), CHANNEL(audionativeformat), IVR_PATH, TENANT | ari.conf: [general] channelvars=" +
			"CHANNEL(linkedid),CHANNEL(audioreadformat),CHANNEL(audionativeformat),IVR_PATH,TENANT",
		"websocket_write_timeout": "warn 100 ms",
		"AMI privileges":          "fail read=system,call lacks agent",
		"AMI timestampevents":     "warn manager.conf: [general] timestampevents=yes",
	})
}

func TestCheckWithoutPrivileges(t *testing.T) {
	cfg := withAMI(t, goodAMI(nil))
	expect(t, found(t, cfg), map[string]string{
		"channel variables":       "warn cannot be seen",
		"websocket_write_timeout": "warn cannot be seen",
		"AMI privileges":          "warn make sure of manager.conf: [gw] read=agent,call",
		"AMI timestampevents":     "warn cannot be seen",
	})
	cfg.AMI = nil
	expect(t, found(t, cfg), map[string]string{"AMI": "warn not configured", "ARI login": "ok gw accepted"})
}

func TestCheckOfWhatIsSeenInChannelsAndApplications(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/ari/channels":
			w.Write([]byte(`[{"id":"1.1","channelvars":{"CHANNEL(linkedid)":"1.1"}}]`))
		case r.URL.Path == "/ari/applications/ctigate":
			w.Write([]byte(`{"name":"ctigate"}`))
		case r.URL.Path == "/ari/asterisk/info":
			w.Write([]byte(`{"system":{"version":"16.2.1","entity_id":"x"}}`))
		default:
			return false
		}
		return true
	}
	expect(t, found(t, testConfig(f.server.URL)), map[string]string{
		"channel variables": "warn does not show CHANNEL(audioreadformat)", "ARI call control": "warn [gw] read_only=no",
		"ARI application": "warn has a reader now", "Asterisk version": "warn older than 18", "ARI websocket": "ok ping answered",
	})
	for _, s := range f.seen() {
		if strings.Contains(s, "app=ctigate&") {
			t.Errorf("the check took the gateway's application: %s", s)
		}
	}
}

func TestCheckOfWhatDoesNotAnswer(t *testing.T) {
	cfg := withAMI(t, goodAMI(nil))
	cfg.Password, cfg.AMI.Password = core.NewSecret("wrong"), core.NewSecret("wrong")
	expect(t, found(t, cfg), map[string]string{"ARI login": "fail ari.conf: [gw]", "AMI login": "fail manager.conf: [gw] secret"})
	cfg.URL, cfg.AMI.Address = "http://127.0.0.1:1/ari", "127.0.0.1:1"
	expect(t, found(t, cfg), map[string]string{"ARI address": "fail http.conf", "AMI login": "fail ami.address"})
}

func TestMajorVersion(t *testing.T) {
	for in, want := range map[string]int{"22.10.1+dfsg": 22, "certified/18.9-cert1": 18, "GIT-master-abc": 0, "": 0, "13": 13} {
		if got := majorVersion(in); got != want {
			t.Errorf("%q: %d", in, got)
		}
	}
}
