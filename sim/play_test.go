package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rawEvents reads a recording's events by hand: not with what the player reads it with.
func rawEvents(t *testing.T, dir, name, member string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(recordings, dir, name+".jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for _, l := range bytes.Split(gunzip(t, f), []byte("\n")) {
		var m map[string]json.RawMessage
		if len(l) == 0 || json.Unmarshal(l, &m) != nil {
			continue
		}
		out = append(out, string(m[member]))
	}
	return out
}

func TestPlayTraceAsterisk(t *testing.T) {
	p, err := PlayTrace(filepath.Join(recordings, "asterisk", "queue_answered"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(context.Background(), "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, ami := dialAMI(t, p.AMIAddr())
	_, ari := dialARI(t, p.Addr(), "other")
	go hangUp(&p.front, p.Done())
	var got []string
	for {
		op, b, err := readWS(ari)
		if err != nil {
			break
		}
		if op == opText {
			got = append(got, string(b))
		}
	}
	want := rawEvents(t, "asterisk/queue_answered", "ari", "ev")
	if len(got) != len(want) {
		t.Fatalf("%d ARI events, want %d", len(got), len(want))
	}
	for i := range want {
		if w := strings.Replace(want[i], `"application":"gateway"`, `"application":"other"`, 1); got[i] != w {
			t.Errorf("event %d:\n got %s\nwant %s", i, got[i], w)
		}
	}
	kinds := map[string]int{}
	for {
		m := readAMI(t, ami)
		if m["error"] != "" {
			break
		}
		kinds[m["Event"]]++
	}
	if kinds["QueueCallerJoin"] != 1 || kinds["AgentComplete"] != 1 || kinds["VarSet"] < 30 {
		t.Errorf("AMI events: %v", kinds)
	}
}

// A trace recorded in one event format can be read in both.
func TestPlayTraceFreeSWITCH(t *testing.T) {
	bodies := map[string][]string{}
	for _, c := range [][2]string{{"freeswitch-plain", "json"}, {"freeswitch-plain", "plain"}, {"freeswitch", "json"}} {
		p, err := PlayTrace(filepath.Join(recordings, c[0], "queue_answered"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(context.Background(), "127.0.0.1:0", ""); err != nil {
			t.Fatal(err)
		}
		_, r := dialESL(t, p.Addr(), "event "+c[1]+" ALL")
		go hangUp(&p.front, p.Done())
		for {
			h, b, err := readESL(r)
			if err != nil {
				break
			}
			if h["Content-Type"] != "text/event-"+c[1] {
				t.Errorf("%v: %v", c, h)
			}
			bodies[c[0]+c[1]] = append(bodies[c[0]+c[1]], b)
		}
		p.Close()
	}
	for _, c := range [][3]string{{"freeswitch-plainplain", "freeswitch-plain"}, {"freeswitchjson", "freeswitch"}} {
		want := rawEvents(t, c[1]+"/queue_answered", "esl", "body")
		if len(bodies[c[0]]) != len(want) {
			t.Fatalf("%s: %d events, want %d", c[0], len(bodies[c[0]]), len(want))
		}
		for i, w := range want {
			var s string
			if err := json.Unmarshal([]byte(w), &s); err != nil {
				t.Fatal(err)
			}
			if bodies[c[0]][i] != s {
				t.Errorf("%s event %d:\n got %.300s\nwant %.300s", c[0], i, bodies[c[0]][i], s)
			}
		}
	}
	for i, b := range bodies["freeswitch-plainjson"] {
		e := jsonEvent(t, []byte(b))
		if !strings.Contains(bodies["freeswitch-plainplain"][i], "Event-Name: "+e[".Event-Name"]+"\n") || len(e) < 10 {
			t.Errorf("event %d in JSON: %v", i, e)
		}
	}
}

func TestPlayTraceRefuses(t *testing.T) {
	if _, err := PlayTrace(t.TempDir(), 1); err == nil || !strings.Contains(err.Error(), "no frames") {
		t.Errorf("an empty folder: %v", err)
	}
	d := t.TempDir()
	for text, want := range map[string]string{
		`{"rx":"soon","ev":{}}`:                            "receive time",
		`{"rx":1,"ev":`:                                    "line 1",
		`{"rx":1795351714.5,"head":{}}`:                    "no frames",
		`{"rx":1,"head":{"Content-Type":"command/reply"}}`: "no event",
	} {
		if err := os.WriteFile(filepath.Join(d, "esl.jsonl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := PlayTrace(d, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Reading a line never panics, and what it gives can be taken apart and put together again.
func FuzzParseLine(f *testing.F) {
	for _, s := range []string{
		`{"rx":1795351714.5,"ev":{"type":"ChannelCreated","channel":{"id":"1.1"}}}`, `{"rx":"2026-11-22T12:48:34.751174363Z","lines":["Event: Hangup","A: b"]}`,
		`{"rx":1,"head":{"Content-Type":"text/event-json"},"body":"{\"Event-Name\":\"DTMF\",\"x\":\"\\u00e9\\n\"}"}`,
		`{"rx":1,"head":{"Content-Type":"text/event-plain"},"body":"Event-Name: A%20b\nx: %zz%\n\n"}`, `{"rx":-1}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, ok, err := parseLine(b)
		if err != nil || !ok {
			return
		}
		fs, tail := fr.fields()
		if fr.proto == protoAMI && bytes.Count(fr.raw, []byte("\r\n")) < 100 {
			if got := encode(fr.proto, fs, tail); !bytes.Equal(bytes.TrimRight(got, "\r\n"), bytes.TrimRight(fr.raw, "\r\n")) {
				t.Errorf("%q came back as %q", fr.raw, got)
			}
		}
		_ = frameType(fr)
		_ = fmt.Sprint(withoutApp(fr.raw))
	})
}
