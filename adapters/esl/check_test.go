package esl

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
)

// healthy is a switch with nothing to correct.
func healthy(t *testing.T) *fakeSwitch {
	sw := newFakeSwitch(t)
	sw.answers["module_exists mod_fifo"] = "true"
	sw.answers["xml_locate configuration configuration name event_socket.conf"] = `<configuration name="event_socket.conf"><settings><param name="listen-ip" value="127.0.0.1"/><param name="password" value="s3cret"/></settings></configuration>`
	sw.answers["xml_locate configuration configuration name switch.conf"] = `<configuration name="switch.conf"><settings><param name="max-sessions" value="5000"/></settings></configuration>`
	sw.answers["xml_locate dialplan"] = `<section name="dialplan"><action application="export" data="ivr_path=main"/></section>`
	sw.answers["strmicroepoch"] = strconv.FormatInt(time.Now().UnixMicro(), 10)
	return sw
}

func findings(t *testing.T, cfg Config) map[string]core.Finding {
	t.Helper()
	a, err := cfg.Open("fs1", core.Env{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]core.Finding{}
	for _, f := range a.(core.Checker).Check(t.Context()) {
		if f.Subject != "fs1" || f.Detail == "" || (f.Level == core.OK) != (f.Fix == "") {
			t.Errorf("incomplete finding %+v", f)
		}
		if strings.Contains(f.Detail+f.Fix, testPassword) {
			t.Errorf("the password shows in %+v", f)
		}
		all[f.What] = f
	}
	return all
}

func TestCheckOfAHealthySwitch(t *testing.T) {
	all := findings(t, testConfig(healthy(t).listen()))
	if len(all) != 13 {
		t.Errorf("%d findings: %v", len(all), all)
	}
	for what, f := range all {
		if f.Level != core.OK {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

func TestCheckFindsWhatToCorrect(t *testing.T) {
	const socketConf = "xml_locate configuration configuration name event_socket.conf"
	tests := []struct {
		name   string
		change func(sw *fakeSwitch, cfg *Config)
		what   string
		level  core.Level
		detail string
	}{
		{"password", func(_ *fakeSwitch, cfg *Config) { cfg.Password = core.NewSecret("no") }, "login", core.Fail, "refused the password"},
		{"address list", func(sw *fakeSwitch, _ *Config) {
			sw.greeting = "Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
		}, "login", core.Fail, "acl.conf"},
		{"old version", func(sw *fakeSwitch, _ *Config) { sw.answers["version"] = "FreeSWITCH Version 1.6.20 (git)" }, "version", core.Warn, "1.6.20"},
		{"module", func(sw *fakeSwitch, _ *Config) { sw.answers["module_exists mod_callcenter"] = "false" }, "module mod_callcenter", core.Warn, "no callcenter queue and agent events"},
		{"no sql", func(sw *fakeSwitch, _ *Config) {
			sw.answers["show channels as json"] = "-ERR SQL disabled, no data available!"
		}, "snapshot", core.Warn, "SQL disabled"},
		{"clock", func(sw *fakeSwitch, _ *Config) { sw.answers["strmicroepoch"] = "1795351509748907" }, "clock", core.Warn, "ms from ours"},
		{"no clock", func(sw *fakeSwitch, _ *Config) { delete(sw.answers, "strmicroepoch") }, "clock", core.Warn, "not found"},
		{"default password, open", func(sw *fakeSwitch, cfg *Config) {
			cfg.Password = core.NewSecret("ClueCon")
			sw.onCommand = func(p *peer, cmd string) bool {
				if cmd == "auth ClueCon" {
					p.write("Content-Type: command/reply\nReply-Text: +OK accepted\n\n")
					return true
				}
				return false
			}
			sw.answers[socketConf] = strings.Replace(sw.answers[socketConf], "127.0.0.1", "0.0.0.0", 1)
		}, "event_socket.conf", core.Warn, "listens on 0.0.0.0 with FreeSWITCH's default password"},
		{"heartbeat", func(sw *fakeSwitch, _ *Config) {
			name := "xml_locate configuration configuration name switch.conf"
			sw.answers[name] = strings.Replace(sw.answers[name], "max-sessions", "event-heartbeat-interval", 1)
		}, "heartbeat", core.Warn, "HEARTBEAT every 1h23m20s"},
		{"ivr", func(sw *fakeSwitch, _ *Config) { delete(sw.answers, "xml_locate dialplan") }, "ivr path", core.Warn, "does not set ivr_path"},
		{"dies on the way", func(sw *fakeSwitch, _ *Config) {
			sw.onCommand = func(p *peer, cmd string) bool {
				if cmd == "api strmicroepoch" {
					_ = p.Close()
					return true
				}
				return false
			}
		}, "event socket", core.Fail, "closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sw := healthy(t)
			cfg := testConfig("")
			tt.change(sw, &cfg)
			cfg.Address = sw.listen()
			all := findings(t, cfg)
			if f := all[tt.what]; f.Level != tt.level || !strings.Contains(f.Detail, tt.detail) {
				t.Errorf("got %+v of %v", f, all)
			}
		})
	}
}

func TestCheckOfAnUnreachableSwitch(t *testing.T) {
	all := findings(t, testConfig("127.0.0.1:1"))
	if f := all["event socket"]; len(all) != 1 || f.Level != core.Fail || !strings.Contains(f.Fix, "listen-ip") {
		t.Errorf("%+v", all)
	}
}
