package ari

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// Kind is the switch kind that events carry.
const Kind = "asterisk"

// event is what of an ARI event matters here. Fields are those of Asterisk's events.json; what it does not know is
// ignored.
type event struct {
	Type        string   `json:"type"`
	Timestamp   string   `json:"timestamp"`
	AsteriskID  string   `json:"asterisk_id"`
	Channel     *channel `json:"channel"`
	Bridge      *bridge  `json:"bridge"`
	Variable    string   `json:"variable"`
	Value       string   `json:"value"`
	Digit       string   `json:"digit"`
	DurationMS  int      `json:"duration_ms"`
	Cause       int      `json:"cause"`
	TechCause   int      `json:"tech_cause"`
	Soft        bool     `json:"soft"`
	Caller      *channel `json:"caller"`
	Peer        *channel `json:"peer"`
	Forwarded   *channel `json:"forwarded"`
	Forward     string   `json:"forward"`
	DialString  string   `json:"dialstring"`
	Exten       string   `json:"exten"`
	Result      string   `json:"result"`
	FirstLeg    *channel `json:"transferer_first_leg"`
	SecondLeg   *channel `json:"transferer_second_leg"`
	Target      *channel `json:"transfer_target"`
	Application string   `json:"application"`
	App         string   `json:"dialplan_app"`
	AppData     string   `json:"dialplan_app_data"`
}

type channel struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	State      string   `json:"state"`
	ProtocolID string   `json:"protocol_id"`
	Caller     identity `json:"caller"`
	Dialplan   struct {
		Exten   string `json:"exten"`
		AppName string `json:"app_name"`
		AppData string `json:"app_data"`
	} `json:"dialplan"`
	Created string `json:"creationtime"`
	Vars    struct {
		LinkedID string `json:"CHANNEL(linkedid)"`
		Native   string `json:"CHANNEL(audionativeformat)"`
	} `json:"channelvars"`
}

type identity struct {
	Name   string `json:"name"`
	Number string `json:"number"`
}

type bridge struct {
	ID         string   `json:"id"`
	Technology string   `json:"technology"`
	Type       string   `json:"bridge_type"`
	Creator    string   `json:"creator"`
	Name       string   `json:"name"`
	Channels   []string `json:"channels"`
}

// key names the bridge, a conference by its room: a caller who hears the room's announcement is not in its bridge yet.
func (b *bridge) key() string {
	if room := b.conference(); room != "" {
		return conferenceKey(room)
	}
	return b.ID
}

func conferenceKey(room string) string { return "conference:" + room }

// conference returns the room a bridge is, or "".
func (b *bridge) conference() string {
	if b.Name != "" && (b.Creator == "ConfBridge" || b.Technology == "softmix") {
		return b.Name
	}
	return ""
}

// decoder holds the memory that events are decoded into, one after the other.
type decoder struct {
	ev       event
	channels [7]channel
	bridge   bridge
}

// decode reads one ARI event. It is valid until the next call.
func (d *decoder) decode(raw []byte) (*event, error) {
	*d = decoder{}
	ev := &d.ev
	parts := [...]**channel{&ev.Channel, &ev.Caller, &ev.Peer, &ev.Forwarded, &ev.FirstLeg, &ev.SecondLeg, &ev.Target}
	for i, p := range parts {
		*p = &d.channels[i]
	}
	ev.Bridge = &d.bridge
	if err := json.Unmarshal(raw, ev); err != nil {
		return nil, fmt.Errorf("decoding ARI event: %w", err)
	}
	if ev.Type == "" {
		return nil, fmt.Errorf("decoding ARI event: no \"type\" in it")
	}
	for _, p := range parts { // what the event does not have
		if *p != nil && (*p).ID == "" {
			*p = nil
		}
	}
	if ev.Bridge != nil && ev.Bridge.ID == "" {
		ev.Bridge = nil
	}
	return ev, nil
}

// decode reads one ARI event.
func decode(raw []byte) (*event, error) { return new(decoder).decode(raw) }

// parseTime reads ARI's 2026-11-22T12:54:30.207+0000; other RFC 3339 forms are accepted, anything else is unknown.
func parseTime(s string) call.Time {
	if len(s) == 28 && s[23:] == "+0000" {
		if t, ok := fastTime(s); ok {
			return t
		}
	}
	for _, layout := range [...]string{"2006-01-02T15:04:05.000-0700", time.RFC3339Nano} {
		if t, err := time.Parse(layout, s); err == nil {
			return call.At(t)
		}
	}
	return 0
}

// fastTime reads the fixed form in UTC.
func fastTime(s string) (call.Time, bool) {
	var n [7]int
	for i, f := range [...][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}, {20, 23}} {
		for _, c := range []byte(s[f[0]:f[1]]) {
			if c < '0' || c > '9' {
				return 0, false
			}
			n[i] = n[i]*10 + int(c-'0')
		}
	}
	if n[1] < 1 || n[1] > 12 || n[2] < 1 || n[2] > 31 {
		return 0, false
	}
	return call.At(time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6]*1e6, time.UTC)), true
}

// digest identifies an event that has no id of its own: FNV-1a over its bytes but for the name of the application that
// received it, so that every reader of a switch gives it the same.
func digest(raw []byte, application string) string {
	h := fnv.New64a()
	if i := bytes.LastIndex(raw, []byte(`"`+application+`"`)); application != "" && i >= 0 {
		_, _ = h.Write(raw[:i])
		raw = raw[i+len(application)+2:]
	}
	_, _ = h.Write(raw)
	return fmt.Sprintf("%016x", h.Sum64())
}

// endpoint splits a channel name: PJSIP/agent1-00000364 is technology PJSIP, resource agent1.
func endpoint(name string) (device, resource string) {
	device = name
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		device = name[:i]
	}
	_, resource, _ = strings.Cut(device, "/")
	return device, resource
}

// internalTech are channels that are not parties: Asterisk's own plumbing.
var internalTech = map[string]bool{
	"Local": true, "CBAnn": true, "CBRec": true, "Snoop": true, "Surrogate": true, "Recorder": true, "Announcer": true,
	"UnicastRTP": true, "Message": true, "Bridge": true, "Parking": true, "MulticastRTP": true, "AudioSocket": true,
	"WebSocket": true, "Multicast": true,
}

func isParty(name string) bool {
	tech, _, _ := strings.Cut(name, "/")
	return !internalTech[tech]
}

// dialTarget is the number or user a dial string asks an endpoint for: "agent1/sip:1002@host" is 1002,
// "+15550100@trunk" and "trunk/15550100" are the number, "agent1" is "".
func dialTarget(s string) string {
	if i := strings.Index(s, "sip:"); i >= 0 {
		s = s[i+4:]
	} else if i := strings.Index(s, "sips:"); i >= 0 {
		s = s[i+5:]
	} else if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	} else if !strings.Contains(s, "@") {
		return ""
	}
	user, _, _ := strings.Cut(s, "@")
	return user
}

// codecs maps Asterisk format names to IANA's, with the audio's sample rate in Hz.
var codecs = map[string]struct {
	name string
	rate int
}{
	"ulaw": {"PCMU", 8000}, "alaw": {"PCMA", 8000}, "g722": {"G722", 16000}, "opus": {"opus", 48000},
	"g729": {"G729", 8000}, "gsm": {"GSM", 8000}, "ilbc": {"iLBC", 8000}, "g723": {"G723", 8000},
	"g726": {"G726-32", 8000}, "speex": {"speex", 8000}, "speex16": {"speex", 16000}, "siren7": {"G7221", 16000},
	"slin": {"L16", 8000}, "slin16": {"L16", 16000}, "slin48": {"L16", 48000}, "amr": {"AMR", 8000}, "amrwb": {"AMR-WB", 16000},
}

// codec reads the format in use: the native one, of several the first, which Asterisk sends and prefers. The read format
// is no help: it is what the other end of the bridge wants.
func (c *channel) codec() (string, int) {
	native, _, _ := strings.Cut(strings.Trim(c.Vars.Native, "()"), "|")
	if native == "none" || native == "nothing" || native == "" {
		return "", 0
	}
	k, ok := codecs[native]
	if !ok {
		return native, 0
	}
	return k.name, k.rate
}
