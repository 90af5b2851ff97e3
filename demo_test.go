package main

import (
	"bytes"
	"context"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDemoEndsByItselfWithEverythingAcknowledged(t *testing.T) {
	code, out, errOut := cli(t, "demo", "--for", "2s", "--rate", "20", "--speed", "50", "--kafka-port", "0")
	if code != exitOK {
		t.Fatalf("exit %d\n%s", code, errOut)
	}
	m := regexp.MustCompile(`demo: \d+s, (\d+) calls of which (\d+) ended, (\d+) records, (\d+) events`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no summary in %q", out)
	}
	for i, least := range []int{5, 1, 1, 20} {
		if n, _ := strconv.Atoi(m[i+1]); n < least {
			t.Errorf("%s: the number %d is less than %d", m[0], n, least)
		}
	}
	acked := regexp.MustCompile(`kafka: (\d+) of (\d+) messages acknowledged`).FindStringSubmatch(out)
	if acked == nil || acked[1] != acked[2] {
		t.Errorf("not all acknowledged: %q", out)
	}
	if !strings.Contains(errOut, "for trying out") || !strings.Contains(errOut, "kcat -C -b 127.0.0.1:") {
		t.Errorf("it does not say how to read it:\n%s", errOut)
	}
}

// trigger is a writer that calls fire once text has come by.
type trigger struct {
	bytes.Buffer
	text string
	fire func()
}

func (w *trigger) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.text) {
		w.fire()
	}
	return w.Buffer.Write(b)
}

func (w *trigger) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// The trunk's calls are heard, and how they sound is published.
func TestDemoHearsTheTrunk(t *testing.T) {
	code, out, errOut := cli(t, "demo", "--for", "6s", "--rate", "6", "--speed", "40", "--kafka-port", "0")
	if code != exitOK {
		t.Fatalf("exit %d\n%s", code, errOut)
	}
	m := regexp.MustCompile(`cti\.media\.v1 +(\d+) messages`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no media.quality in %s", out)
	}
	if n, _ := strconv.Atoi(m[1]); n < 20 {
		t.Errorf("%s: fewer than 20", m[0])
	}
}

func TestDemoEndsOnASignalWithinItsBound(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	var asked time.Time
	errOut := &trigger{text: "link up", fire: func() { asked = time.Now(); cancel() }}
	code := execute(ctx, []string{"demo", "--rate", "20", "--kafka-port", "0"}, &out, errOut)
	if code != exitOK || !strings.Contains(out.String(), "messages acknowledged") {
		t.Errorf("exit %d %s\n%s", code, &out, errOut)
	}
	if took := time.Since(asked); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestDemoTakesAnotherPortWhenItsOwnIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	b, err := startBroker(port)
	if err != nil {
		t.Fatal(err)
	}
	defer b.cluster.Close()
	if b.wanted || strings.HasSuffix(b.addr, ":"+strconv.Itoa(port)) || !strings.HasPrefix(b.addr, "127.0.0.1:") {
		t.Errorf("listens on %s", b.addr)
	}
	if s := demoIntro(b, demoFlags{port: port}); !strings.Contains(s, "is taken: the broker listens on "+b.addr) {
		t.Errorf("it does not say so: %s", s)
	}
}

func TestSimCommands(t *testing.T) {
	if code, out, _ := cli(t, "sim", "scripts"); code != exitOK || !strings.Contains(out, "queue_answered") {
		t.Errorf("exit %d %s", code, out)
	}
	for _, args := range []string{"sim asterisk --ari 127.0.0.1:0 --ami 127.0.0.1:0", "sim freeswitch --listen 127.0.0.1:0",
		"sim play " + traces + "/asterisk/busy", "sim play " + traces + "/freeswitch/busy"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, errOut := &trigger{text: "127.0.0.1:", fire: cancel}, &bytes.Buffer{}
		code := execute(ctx, strings.Fields(args), out, errOut)
		cancel()
		if code != exitOK || !strings.Contains(out.String(), "127.0.0.1:") {
			t.Errorf("%s: exit %d, %q, %q", args, code, out, errOut)
		}
	}
	if code, _, errOut := cli(t, "sim", "asterisk", "--mix", "nonsense=1", "--ari", "127.0.0.1:0"); code != exitFailed || !strings.Contains(errOut, `no script named "nonsense"`) {
		t.Errorf("exit %d %s", code, errOut)
	}
	for _, args := range []string{"demo --rate 0", "demo --kafka-port 70000"} {
		if code, _, _ := cli(t, strings.Fields(args)...); code != exitUsage {
			t.Errorf("%s: exit %d", args, code)
		}
	}
}
