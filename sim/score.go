package sim

import (
	"bytes"
	"embed"
	"fmt"
	"sync"
)

// scoreFiles are recordings of real switches; TestScoresAreTheRecordings compares them with the project's own.
//
//go:embed scores
var scoreFiles embed.FS

// slotKind says where a call's value for an id, a name or a number comes from.
type slotKind uint8

const (
	slotUnique    slotKind = iota // Asterisk Uniqueid: second of creation and a counter
	slotChan                      // Asterisk channel name suffix, eight hex digits of a counter
	slotCallID                    // Asterisk C-00000166
	slotSession                   // FreeSWITCH session counter
	slotRandom                    // random, each character of the same class as recorded
	slotCaller                    // the caller's number without +
	slotName                      // the caller's name
	slotAgent                     // agentN
	slotAgentName                 // its display name
	slotExt                       // its extension
	slotQueue                     // queue name
	slotQueueExt                  // and extension
	slotCRM                       // the caller's C-… customer number
	slotDigits                    // digits pressed: all, or one of them
)

type slot struct {
	kind  slotKind
	rec   string // as recorded
	arg   int    // which agent, which digit
	first int    // step that first shows it
}

// span is a wait between two steps, in recorded time. It is stretched or shrunk for each call.
type span struct {
	name     string // of the wait: ring, talk …; empty: left as it is
	from, to int64
}

// touch says that a step shows leg slot, under the JSON key where there is one.
type touch struct {
	slot int
	key  string
}

// step is one frame to be sent at a time of the recording.
type step struct {
	at                int64
	own               int64 // the time it states as its own
	proto             proto
	typ               string // ChannelCreated, Newchannel, CHANNEL_ANSWER …
	sub               string // CUSTOM events: the subclass; TestEvent and the like: nothing
	action            string // CC-Action
	vary              string // what distinguishes steps of one type: Dial status, channel state
	varName, varValue string
	leg               int // slot of the leg it is about, -1: none
	bridge            int // slot of the bridge, -1: none
	touches           []touch
	full              bool // FreeSWITCH: carries the channel's variables
	float             bool // may come at any time: quality reports, test events
	adv               int64
	back              int64
	begins            []int // slots first shown here
	holes             []hole
	json              template // ARI, ESL
	plain             template // AMI, ESL
}

// hole is an event number that was used up without an event, and shown later.
type hole struct {
	slot int
	back int64
}

// score is a compiled recording: one call that can be played any number of times.
type score struct {
	name  string
	kind  string // asterisk, freeswitch
	steps []step
	slots []slot
	spans []span
	end   int64 // of the last step
	last  int64 // of the last step that is no floating one
}

// scores is every script that was wanted, compiled: scoreKey → func() (*score, error).
var scores sync.Map

type scoreKey struct{ kind, name string }

// loadScore is the score of a script, which nobody may write to: it is compiled once for all switches of the process.
func loadScore(kind, name string) (*score, error) {
	sp, ok := scripts[name]
	if !ok {
		return nil, fmt.Errorf("no script named %q: choose from %v", name, Scripts())
	}
	load, _ := scores.LoadOrStore(scoreKey{kind, name}, sync.OnceValues(func() (*score, error) { return newScore(kind, name, sp) }))
	return load.(func() (*score, error))()
}

// newScore compiles the recording of a script.
func newScore(kind, name string, sp script) (*score, error) {
	frames, err := scoreFrames(kind, sp)
	if err != nil {
		return nil, err
	}
	return compile(kind, name, sp, frames)
}

// scoreFrames reads a script's recording, or splices two.
func scoreFrames(kind string, sp script) ([]frame, error) {
	frames, err := readRecording(scoreFiles, "scores/"+kind+"/"+sp.recording)
	if err != nil {
		return nil, err
	}
	frames = trim(frames)
	if sp.intro == "" {
		return frames, nil
	}
	intro, err := readRecording(scoreFiles, "scores/"+kind+"/"+sp.intro)
	if err != nil {
		return nil, err
	}
	return splice(kind, trim(intro), frames)
}

// trim leaves out what belongs to the recorder's own connections and to the switch rather than to the call.
func trim(in []frame) []frame {
	out := in[:0:0]
	for _, f := range in {
		if f.proto == protoAnswer || unscored[frameType(f)] {
			continue
		}
		out = append(out, f)
	}
	first := 0
	for first < len(out) && floating[frameType(out[first])] {
		first++
	}
	for first > 0 && out[first].at-out[first-1].at < 50_000 {
		first--
	}
	return out[first:]
}

var unscored = map[string]bool{
	"": true, "FullyBooted": true, "SuccessfulAuth": true, "ChallengeSent": true, "HEARTBEAT": true, "RE_SCHEDULE": true, "API": true,
	"ApplicationReplaced": true,
}

var floating = map[string]bool{"TestEvent": true, "RTCPSent": true, "RTCPReceived": true, "RECV_RTCP_MESSAGE": true}

// frameType is the event's name, or nothing for a frame that is no event.
func frameType(f frame) string {
	before, after := `"type":"`, `"`
	switch {
	case f.proto == protoAMI:
		before, after = "Event: ", "\r\n"
	case f.proto == protoESL && f.plain:
		before, after = "Event-Name: ", "\n"
	case f.proto == protoESL:
		before = `"Event-Name":"`
	case f.proto == protoAnswer:
		return ""
	}
	i := bytes.Index(f.raw, []byte(before))
	if i < 0 || f.proto == protoAMI && i > 0 {
		return ""
	}
	name, _, _ := bytes.Cut(f.raw[i+len(before):], []byte(after))
	return string(name)
}
