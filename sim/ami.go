package sim

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Limits of what an AMI client may send.
const (
	maxAMILine  = 1025
	maxAMILines = 128
)

// amiSession is one client of the manager interface.
type amiSession struct {
	f    *front
	p    pbx
	c    *conn
	user bool // logged in
}

func (f *front) serveAMI(k net.Conn, p pbx) {
	s := &amiSession{f: f, p: p}
	s.c = f.admit("ami", k, func(*conn) {})
	defer f.leave(s.c)
	s.c.answer([]byte("Asterisk Call Manager/11.0.0\r\n"))
	in := bufio.NewScanner(k)
	in.Buffer(make([]byte, 4096), 64<<10)
	msg := map[string]string{}
	for n := 0; in.Scan(); {
		l := strings.TrimRight(in.Text(), "\r")
		if l != "" {
			if n++; n > maxAMILines || len(l) > maxAMILine {
				s.answer(msg, "Error", "Message", "Too many lines in message or allocation failure")
				return
			}
			k, v, _ := strings.Cut(l, ":")
			msg[strings.ToLower(k)] = strings.TrimSpace(v)
			continue
		}
		if n > 0 && (!wait(f.ctx, f.opt.Latency) || !s.act(msg)) {
			s.c.finish()
			<-s.c.done
			return
		}
		n, msg = 0, map[string]string{}
	}
}

// answer sends a response with pairs of names and values.
func (s *amiSession) answer(msg map[string]string, response string, pairs ...string) {
	var b strings.Builder
	b.WriteString("Response: " + response + "\r\n")
	if id := msg["actionid"]; id != "" {
		b.WriteString("ActionID: " + id + "\r\n")
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(pairs[i] + ": " + pairs[i+1] + "\r\n")
	}
	s.c.answer([]byte(b.String() + "\r\n"))
}

// item sends one event of an answered list.
func (s *amiSession) item(msg map[string]string, name string, pairs ...string) {
	var b strings.Builder
	b.WriteString("Event: " + name + "\r\n")
	if id := msg["actionid"]; id != "" {
		b.WriteString("ActionID: " + id + "\r\n")
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(pairs[i] + ": " + pairs[i+1] + "\r\n")
	}
	s.c.answer([]byte(b.String() + "\r\n"))
}

// act carries out one action and reports whether the session goes on.
func (s *amiSession) act(msg map[string]string) bool {
	action := strings.ToLower(msg["action"])
	switch {
	case action == "":
		s.answer(msg, "Error", "Message", "Missing action in request")
	case action == "login":
		return s.login(msg)
	case action == "logoff":
		s.answer(msg, "Goodbye", "Message", "Thanks for all the fish.")
		return false
	case !s.user:
		s.answer(msg, "Error", "Message", "Permission denied")
	default:
		s.command(action, msg)
	}
	return true
}

func (s *amiSession) login(msg map[string]string) bool {
	given := msg["username"] + "\x00" + msg["secret"]
	if subtle.ConstantTimeCompare([]byte(given), []byte(s.f.opt.User+"\x00"+s.f.opt.Password)) != 1 {
		s.answer(msg, "Error", "Message", "Authentication failed")
		return false
	}
	s.user = true
	s.answer(msg, "Success", "Message", "Authentication accepted")
	up := int(s.f.now().Sub(s.p.booted()).Seconds())
	s.c.answer(fmt.Appendf(nil, "Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: %d\r\nLastReload: %d\r\nStatus: Fully Booted\r\n\r\n", up, up))
	s.events(msg["events"])
	return true
}

// events switches the events of the session on or off.
func (s *amiSession) events(mask string) bool {
	on := mask == "" || strings.EqualFold(mask, "on") || strings.EqualFold(mask, "all")
	if !on && !strings.EqualFold(mask, "off") {
		on = strings.Contains(mask, "call") || strings.Contains(mask, "agent")
	}
	s.c.ready.Store(on)
	s.f.arrive()
	return on
}

func (s *amiSession) command(action string, msg map[string]string) {
	switch action {
	case "ping":
		now := s.f.now()
		s.answer(msg, "Success", "Ping", "Pong", "Timestamp", fmt.Sprintf("%d.%06d", now.Unix(), now.Nanosecond()/1000))
	case "events":
		on := "Off"
		if s.events(msg["eventmask"]) {
			on = "On"
		}
		s.answer(msg, "Success", "Events", on)
	case "queuestatus":
		s.queueStatus(msg)
	case "coreshowchannels":
		s.coreShowChannels(msg)
	case "coresettings":
		s.answer(msg, "Success", "AMIversion", "11.0.0", "AsteriskVersion", asteriskVersion, "SystemName", "", "CoreMaxCalls", "0",
			"CoreMaxLoadAvg", "0.000000", "CoreRunUser", "", "CoreRunGroup", "", "CoreMaxFilehandles", "0", "CoreRealTimeEnabled", "No",
			"CoreCDRenabled", "No", "CoreHTTPenabled", "Yes", "SoundsSearchCustomDir", "No")
	case "corestatus":
		t := s.p.booted().UTC()
		s.answer(msg, "Success", "CoreStartupDate", t.Format(time.DateOnly), "CoreStartupTime", t.Format(time.TimeOnly),
			"CoreReloadDate", t.Format(time.DateOnly), "CoreReloadTime", t.Format(time.TimeOnly), "CoreCurrentCalls", fmt.Sprint(len(s.p.bridges(s.f.ctx))))
	case "hangup":
		s.hangup(msg)
	default:
		s.answer(msg, "Error", "Message", "Invalid/unknown command: "+msg["action"]+". Use Action: ListCommands to show available commands.")
	}
}

func (s *amiSession) hangup(msg map[string]string) {
	for _, o := range s.p.channels(s.f.ctx) {
		var x struct{ ID, Name string }
		if json.Unmarshal(o, &x) == nil && (x.Name == msg["channel"] || x.ID == msg["channel"]) && s.p.hangupLeg(s.f.ctx, x.ID) {
			s.answer(msg, "Success", "Message", "Channel Hungup")
			return
		}
	}
	s.answer(msg, "Error", "Message", "No such channel")
}

func (s *amiSession) queueStatus(msg map[string]string) {
	s.answer(msg, "Success", "EventList", "start", "Message", "Queue status will follow")
	items := 0
	entries := s.p.waitingIn(s.f.ctx)
	members := s.p.queueMembers(s.f.ctx)
	for _, q := range s.p.queues() {
		if want := msg["queue"]; want != "" && want != q {
			continue
		}
		in := entries[q]
		s.item(msg, "QueueParams", "Queue", q, "Max", "0", "Strategy", "ringall", "Calls", fmt.Sprint(len(in)), "Holdtime", "0", "TalkTime", "0",
			"Completed", "0", "Abandoned", "0", "ServiceLevel", "0", "ServicelevelPerf", "0.0", "ServicelevelPerf2", "0.0", "Weight", "0")
		items++
		for _, m := range members {
			if m.queue == q {
				s.queueMember(msg, m)
				items++
			}
		}
		for i, w := range in {
			s.queueEntry(msg, i+1, w)
			items++
		}
	}
	s.item(msg, "QueueStatusComplete", "EventList", "Complete", "ListItems", fmt.Sprint(items))
}

func (s *amiSession) queueMember(msg map[string]string, m member) {
	status, inCall := "1", "0"
	if m.busy {
		status, inCall = "2", "1"
	}
	s.item(msg, "QueueMember", "Queue", m.queue, "Name", "PJSIP/"+m.user, "Location", "PJSIP/"+m.user, "StateInterface", "PJSIP/"+m.user,
		"Membership", "static", "Penalty", "0", "CallsTaken", fmt.Sprint(m.taken), "LastCall", fmt.Sprint(m.last), "LastPause", "0",
		"LoginTime", fmt.Sprint(s.p.booted().Unix()), "InCall", inCall, "Status", status, "Paused", "0", "PausedReason", "", "Wrapuptime", "0")
}

func (s *amiSession) queueEntry(msg map[string]string, place int, w waiter) {
	channel := value(messageOf(w.message), "Channel")
	s.item(msg, "QueueEntry", "Queue", w.queue, "Position", fmt.Sprint(place), "Channel", channel, "Uniqueid", w.id,
		"CallerIDNum", w.number, "CallerIDName", w.name, "ConnectedLineNum", "unknown", "ConnectedLineName", "unknown",
		"Wait", fmt.Sprint((s.f.opt.Now().UnixMicro()-w.joined)/second), "Priority", "0")
}

func messageOf(b []byte) []field {
	fs, _ := frame{proto: protoAMI, raw: b}.fields()
	return fs
}

// coreShowChannels repeats what was last said of each channel that is up.
func (s *amiSession) coreShowChannels(msg map[string]string) {
	s.answer(msg, "Success", "EventList", "start", "Message", "Channels will follow")
	all := s.p.channels(s.f.ctx)
	for _, o := range all {
		s.item(msg, "CoreShowChannel", channelPairs(o, s.p.bridges(s.f.ctx), s.f.now())...)
	}
	s.item(msg, "CoreShowChannelsComplete", "EventList", "Complete", "ListItems", fmt.Sprint(len(all)))
}

// channelPairs tells in AMI's words what ARI says of a channel.
func channelPairs(o json.RawMessage, bridges []json.RawMessage, now time.Time) []string {
	var x struct {
		ID, Name, State, Accountcode, Language, Creationtime string
		Caller, Connected                                    struct{ Name, Number string }
		Dialplan                                             struct {
			Context, Exten string
			Priority       int
			AppName        string `json:"app_name"`
			AppData        string `json:"app_data"`
		}
		Vars map[string]string `json:"channelvars"`
	}
	if json.Unmarshal(o, &x) != nil {
		return nil
	}
	states := []string{"Down", "Rsrved", "OffHook", "Dialing", "Ring", "Ringing", "Up", "Busy"}
	created, _ := time.Parse(isoMilli, x.Creationtime)
	age := max(0, now.Sub(created)).Truncate(time.Second)
	unknown := func(v string) string {
		if v == "" {
			return "<unknown>"
		}
		return v
	}
	return []string{"Channel", x.Name, "ChannelState", fmt.Sprint(max(0, slices.Index(states, x.State))), "ChannelStateDesc", x.State,
		"CallerIDNum", unknown(x.Caller.Number), "CallerIDName", unknown(x.Caller.Name), "ConnectedLineNum", unknown(x.Connected.Number),
		"ConnectedLineName", unknown(x.Connected.Name), "Language", x.Language, "AccountCode", x.Accountcode, "Context", x.Dialplan.Context,
		"Exten", x.Dialplan.Exten, "Priority", fmt.Sprint(x.Dialplan.Priority), "Uniqueid", x.ID, "Linkedid", x.Vars["CHANNEL(linkedid)"],
		"Application", x.Dialplan.AppName, "ApplicationData", x.Dialplan.AppData, "Duration", time.Time{}.Add(age).Format("15:04:05"),
		"BridgeId", bridgeOf(bridges, x.ID)}
}

func bridgeOf(bridges []json.RawMessage, id string) string {
	for _, o := range bridges {
		var b struct {
			ID       string
			Channels []string
		}
		if json.Unmarshal(o, &b) == nil && slices.Contains(b.Channels, id) {
			return b.ID
		}
	}
	return ""
}

func (a *Asterisk) waitingIn(ctx context.Context) map[string][]waiter { return a.eng.waiting(ctx) }
