package esl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// dumpsInFlight is how many uuid_dump commands are sent ahead of their answers.
const dumpsInFlight = 16

// snapshot is what the switch says of the channels it has, in the format of a recorded snapshot.
type snapshot struct {
	At       float64           `json:"at"` // seconds since the epoch
	Channels string            `json:"channels"`
	Calls    string            `json:"calls"`
	Dumps    map[string]string `json:"uuid_dump"`
	Agents   string            `json:"agents,omitempty"` // of mod_callcenter, where it is loaded

	dumps    map[string][]byte
	gone     []string  // channels that were listed and could not be asked for any more
	received call.Time // when the last answer came
	at       call.Time // the same by the switch's clock; 0 when that is not known
	marked   bool      // an event of our own has come since: what happened before the snapshot is through
	touched  touches
}

// errNoSnapshot is returned by takeSnapshot when the switch cannot list its channels.
var errNoSnapshot = errors.New("FreeSWITCH cannot list its channels")

// takeSnapshot asks for every channel and call. Channels that go away meanwhile are left out: their events tell.
func takeSnapshot(ctx context.Context, c *conn) (*snapshot, error) {
	channels, err := c.api(ctx, "show", "channels as json")
	if commandFailed(err) {
		return nil, fmt.Errorf("%w: %w", errNoSnapshot, err)
	} else if err != nil {
		return nil, err
	}
	uuids, err := channelUUIDs(channels.body)
	if err != nil {
		return nil, err
	}
	dumps, err := dumpAll(ctx, c, uuids)
	if err != nil {
		return nil, err
	}
	calls, err := c.api(ctx, "show", "calls as json")
	if err != nil && !commandFailed(err) {
		return nil, err
	}
	agents, err := c.api(ctx, "callcenter_config", "agent list")
	if err != nil && !commandFailed(err) { // the module need not be loaded
		return nil, err
	}
	s := &snapshot{Channels: string(channels.body), Calls: string(calls.body), Agents: string(agents.body), dumps: dumps, received: calls.received}
	for _, id := range uuids {
		if dumps[id] == nil {
			s.gone = append(s.gone, id)
		}
	}
	return s, nil
}

// raw is the snapshot's bytes for the record.
func (s *snapshot) raw() []byte {
	s.At = float64(s.received) / float64(call.Second)
	s.Dumps = make(map[string]string, len(s.dumps))
	for id, dump := range s.dumps {
		s.Dumps[id] = string(dump)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil // strings and a number always marshal
	}
	return b
}

// channelUUIDs reads the uuids of `show channels as json`.
func channelUUIDs(body []byte) ([]string, error) {
	var list struct {
		Rows []struct {
			UUID string `json:"uuid"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("reading the answer to show channels as json, %q: %w", shorten(body), err)
	}
	uuids := make([]string, 0, len(list.Rows))
	for _, row := range list.Rows {
		if validID(row.UUID) {
			uuids = append(uuids, row.UUID)
		}
	}
	return uuids, nil
}

// dumpAll asks for each channel's data, a few at a time ahead of the answers.
func dumpAll(ctx context.Context, c *conn, uuids []string) (map[string][]byte, error) {
	dumps := make(map[string][]byte, len(uuids))
	answers := make([]<-chan reply, len(uuids))
	for i := range len(uuids) + dumpsInFlight {
		if i < len(uuids) {
			var err error
			if answers[i], err = c.start(apiText("uuid_dump", uuids[i]+" json", false)); err != nil {
				return nil, err
			}
		}
		if j := i - dumpsInFlight; j >= 0 && j < len(uuids) {
			r, err := c.await(ctx, answers[j])
			if err != nil {
				return nil, fmt.Errorf("api uuid_dump: %w", err)
			}
			if r.err("uuid_dump") == nil {
				dumps[uuids[j]] = r.body
			}
		}
	}
	return dumps, nil
}

// coreUUID asks for the id of the switch process: as a variable, else by the event that a background job gives.
func coreUUID(ctx context.Context, c *conn) (string, error) {
	r, err := c.api(ctx, "global_getvar", "core_uuid")
	if err != nil && !commandFailed(err) {
		return "", err
	}
	if id := strings.TrimSpace(r.text); err == nil && len(id) == 36 && validID(id) {
		return id, nil
	}
	return "", nil // the first event tells
}

// versionOf asks for the switch's version, such as "1.10.12-release+git~20240802T210227Z~a88d069d6f~64bit".
func versionOf(ctx context.Context, c *conn) (string, error) {
	r, err := c.api(ctx, "version", "")
	if err != nil && !commandFailed(err) {
		return "", err
	}
	text := strings.TrimSpace(r.text)
	if _, after, ok := strings.Cut(text, "Version "); ok && err == nil {
		text, _, _ = strings.Cut(after, " (git")
		text, _, _ = strings.Cut(text, " ")
	}
	return text, nil
}

// moduleLoaded asks whether a module is loaded; known is false when the switch does not say.
func moduleLoaded(ctx context.Context, c *conn, module string) (loaded, known bool, err error) {
	r, err := c.api(ctx, "module_exists", module)
	if err != nil && !commandFailed(err) {
		return false, false, err
	}
	text := strings.TrimSpace(r.text)
	return text == "true", text == "true" || text == "false", nil
}

// clockTime asks for the switch's clock. FreeSWITCH's own clock runs on from its start and does not follow NTP steps.
func clockTime(ctx context.Context, c *conn) (sent, answered, at call.Time, err error) {
	sent = call.At(time.Now())
	r, err := c.api(ctx, "strmicroepoch", "")
	if err != nil {
		return 0, 0, 0, err
	}
	at = call.Time(number([]byte(strings.TrimSpace(r.text))))
	if at == 0 {
		return 0, 0, 0, newCommandError("strmicroepoch", r.text)
	}
	return sent, r.received, at, nil
}
