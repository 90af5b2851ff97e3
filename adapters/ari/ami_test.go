package ari

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
)

// shortRead is a read timeout to wait for, in which all else comes also on a busy machine.
const shortRead = 3 * time.Second

func withAMI(t *testing.T, script func(net.Conn, *bufio.Reader)) *Config {
	cfg := testConfig(newFakeSwitch(t, httptest.NewServer).server.URL)
	cfg.AMI = &AMI{Username: "gw", Password: core.NewSecret(password), Address: fakeAMI(t, script)}
	return cfg
}

// missing runs a session until it is up and returns what it cannot see.
func missing(t *testing.T, cfg *Config) string {
	t.Helper()
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "the snapshot", func() bool { return len(out.raws("snapshot")) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out.ups[0].Missing, "; ")
}

func TestSessionWithoutAMI(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  func(*Config)
		play func(net.Conn, *bufio.Reader)
		want string
	}{
		"not configured": {cfg: func(c *Config) { c.AMI = nil }, want: "no AMI configured"},
		"refused":        {cfg: func(c *Config) { c.AMI.Password = core.NewSecret("wrong-word") }, want: `refused user "gw" (Authentication failed)`},
		"not there":      {cfg: func(c *Config) { c.AMI.Address = "127.0.0.1:1" }, want: "connecting to AMI"},
		"no secret":      {cfg: func(c *Config) { c.AMI.Password = core.Secret{Env: "CTIGATE_TEST_UNSET"} }, want: "CTIGATE_TEST_UNSET is not set"},
		"secret of two lines": {cfg: func(c *Config) { c.AMI.Password = core.NewSecret("wrong-word\r\nEvents: off") },
			want: `"Secret" holds a line break`},
		"closes at once": {play: func(net.Conn, *bufio.Reader) {}, want: "waiting for the AMI login"},
		"silent": {cfg: func(c *Config) { c.ReadTimeout = shortRead },
			play: func(_ net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }, want: "AMI"},
	} {
		t.Run(name, func(t *testing.T) {
			play := c.play
			if play == nil {
				play = goodAMI(nil)
			}
			cfg := withAMI(t, play)
			if c.cfg != nil {
				c.cfg(cfg)
			}
			got := missing(t, cfg)
			if !strings.Contains(got, "queue and agent events") || !strings.Contains(got, c.want) {
				t.Errorf("missing: %s", got)
			}
			if strings.Contains(got, "wrong-word") {
				t.Error("the secret is shown")
			}
		})
	}
}

func TestNotAMI(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			c.Close()
		}
	}()
	_, err = dialAMI(t.Context(), &AMI{Address: l.Addr().String()}, patience, nil)
	if err == nil || !strings.Contains(err.Error(), `is not AMI: it greets with "SSH-2.0`) {
		t.Error(err)
	}
}

// TestLostAMIIsAGapAndComesBack breaks the link in several ways; the session must outlive each.
func TestLostAMIIsAGapAndComesBack(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string // sent after the first login; then the peer goes on or hangs up
		close bool
		dead  string // how the dead letter begins
		quick bool   // a read timeout short enough to wait for
	}{
		"closes":              {close: true},
		"cuts a message":      {bytes: "Event: Cut\r\nQueue: sup", close: true, dead: "Event: Cut"},
		"endless line":        {bytes: strings.Repeat("x", maxLine+1), dead: "xxx"},
		"header flood":        {bytes: strings.Repeat("A: b\r\n", maxFields+1), dead: "A: b"},
		"endless message":     {bytes: strings.Repeat("A: "+strings.Repeat("b", 15000)+"\r\n", 71), dead: "A: bbb"},
		"stops in the middle": {bytes: "Event: Half", dead: "Event: Half", quick: true},
	} {
		t.Run(name, func(t *testing.T) {
			var times atomic.Int32
			cfg := withAMI(t, func(conn net.Conn, r *bufio.Reader) {
				first := times.Add(1) == 1
				play := goodAMI(func(a map[string]string, conn net.Conn) {
					if a["Action"] != "QueueStatus" {
						return
					}
					if !first {
						io.WriteString(conn, queueEvent)
						return
					}
					io.WriteString(conn, c.bytes)
					if c.close {
						conn.Close()
					} else if c.quick {
						io.Copy(io.Discard, r) // answers nothing any more
					}
				})
				play(conn, r)
			})
			if c.quick {
				cfg.ReadTimeout = shortRead
			}
			out := newRecorder()
			stop, _ := start(t, cfg, out)
			out.until(t, "an event of the second link", func() bool { return len(out.raws("QueueMemberPause")) > 0 })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if len(out.gaps) == 0 || !strings.Contains(out.gaps[0], "AMI link was lost") || len(out.ups) != 1 {
				t.Errorf("gaps %v, ups %v", out.gaps, out.ups)
			}
			if c.dead != "" && (len(out.dead) == 0 || !strings.HasPrefix(string(out.dead[0].Raw), c.dead) || len(out.dead[0].Raw) > keptBytes) {
				t.Errorf("dead letters: %.200q", out.dead)
			}
		})
	}
}

func TestAMITricklesIntoADeadline(t *testing.T) {
	cfg := withAMI(t, goodAMI(func(a map[string]string, c net.Conn) {
		if a["Action"] != "QueueStatus" {
			return
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
		}
	}))
	cfg.ReadTimeout = shortRead
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "the gap", func() bool { return len(out.gaps) > 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.gaps[0], "i/o timeout") {
		t.Errorf("gap: %v", out.gaps)
	}
}

func TestUnknownAMIMessagesAreDeadLettersAndTheLinkGoesOn(t *testing.T) {
	cfg := withAMI(t, goodAMI(func(a map[string]string, c net.Conn) {
		if a["Action"] == "QueueStatus" {
			io.WriteString(c, "Nonsense\r\nmore of it\r\n\r\n"+"Response: Success\r\nActionID: nobody-asked\r\n\r\n"+queueEvent)
		}
	}))
	out := newRecorder()
	stop, _ := start(t, cfg, out)
	out.until(t, "the good event", func() bool { return len(out.raws("QueueMemberPause")) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(out.dead) != 1 || string(out.dead[0].Raw) != "Nonsense\r\nmore of it\r\n\r\n" || len(out.gaps) != 0 {
		t.Errorf("dead %q, gaps %v", out.dead, out.gaps)
	}
}

func TestReadMessage(t *testing.T) {
	long := strings.Repeat("v", maxLine-len("K: \r\n"))
	for name, c := range map[string]struct {
		in     string
		fields []field
		err    error
	}{
		"usual":           {in: "Event: Hangup\r\nCause: 16\r\n\r\n", fields: []field{{"Event", "Hangup"}, {"Cause", "16"}}},
		"line feeds only": {in: "Event: Hangup\n\n", fields: []field{{"Event", "Hangup"}}},
		"stray blanks":    {in: "\r\n\r\nEvent: X\r\n\r\n", fields: []field{{"Event", "X"}}},
		"colon in value":  {in: "A: b: c:d\r\n\r\n", fields: []field{{"A", "b: c:d"}}},
		"empty value":     {in: "A: \r\nB:\r\n\r\n", fields: []field{{"A", ""}, {"B", ""}}},
		"spaces are kept": {in: "A:  b \r\n\r\n", fields: []field{{"A", " b "}}},
		"no colon":        {in: "A\r\n\r\n", fields: []field{{"", "A"}}},
		"longest line":    {in: "K: " + long + "\r\n\r\n", fields: []field{{"K", long}}},
		"line too long":   {in: "K: " + long + "v\r\n\r\n", err: errLineTooLong},
		"most fields":     {in: strings.Repeat("A: b\r\n", maxFields) + "\r\n", fields: slices.Repeat([]field{{"A", "b"}}, maxFields)},
		"too many fields": {in: strings.Repeat("A: b\r\n", maxFields+1) + "\r\n", err: errTooManyFields},
		"too long":        {in: strings.Repeat("K: "+long+"\r\n", 65) + "\r\n", err: errMessageTooLong},
		"nothing":         {in: "", err: io.EOF},
		"blanks, the end": {in: "\r\n\r\n", err: io.EOF},
		"cut in a line":   {in: "Event: H", err: io.ErrUnexpectedEOF},
		"cut after one":   {in: "Event: H\r\n", err: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := readMessage(bufio.NewReaderSize(strings.NewReader(c.in), maxLine))
			if !errors.Is(err, c.err) || !slices.Equal(m.fields, c.fields) {
				t.Errorf("%.200v, %v", m.fields, err)
			}
			if err == nil && !strings.HasSuffix(c.in, string(m.raw)) {
				t.Errorf("raw is %q", m.raw)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) && string(m.raw) != c.in {
				t.Errorf("what was read is %q", m.raw)
			}
		})
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte(queueEvent + queueEvent))
	f.Add([]byte("Response: Success\nOutput: a\nOutput: b\n\n\r\n"))
	f.Add([]byte(":\r\n::\r\n\r\n\x00\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), maxLine)
		for read := 0; ; {
			m, err := readMessage(r)
			if err != nil {
				if err != io.EOF && len(m.raw) == 0 {
					t.Fatalf("%v without the bytes", err)
				}
				return
			}
			if read += len(m.raw); read > len(in) || len(m.fields) == 0 || len(m.fields) > maxFields || len(m.raw) > maxMessage {
				t.Fatalf("%d fields of %d bytes, %d of %d read", len(m.fields), len(m.raw), read, len(in))
			}
			if !bytes.Contains(in, m.raw) {
				t.Fatalf("raw %q is not in the input", m.raw)
			}
		}
	})
}

func TestPingTime(t *testing.T) {
	for in, want := range map[string]int64{
		"1795412518.687879": 1795412518687879, "1795412518": 1795412518000000, "1795412518.5": 1795412518500000,
		"1795412518.6878791": 1795412518687879, "": -1, "x.1": -1, "-5.0": -1, "1.-23456": -1, "1.x": -1, "99999999999999999999.0": -1, "9999999999999.0": -1,
	} {
		got, err := pingTime(in)
		if want == -1 && err == nil || want != -1 && (err != nil || int64(got) != want) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}

func TestAMIAsksAreAnsweredToTheirAsker(t *testing.T) {
	held := make(chan string, 1)
	cfg := &AMI{Username: "gw", Password: core.NewSecret(password)}
	cfg.Address = fakeAMI(t, func(c net.Conn, r *bufio.Reader) {
		for a := action(r); a != nil; a = action(r) {
			switch a["Action"] {
			case "Slow":
				held <- a["ActionID"] // answered after Fast
			case "Fast":
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\nMessage: fast\r\n\r\n", a["ActionID"])
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\nMessage: slow\r\n\r\n", <-held)
			case "Fail":
				fmt.Fprintf(c, "Response: Error\r\nActionID: %s\r\nMessage: no\r\n\r\n", a["ActionID"])
			case "Hang":
				c.Close()
			default:
				fmt.Fprintf(c, "Response: Success\r\nActionID: %s\r\n\r\n", a["ActionID"])
			}
		}
	})
	c, err := dialAMI(t.Context(), cfg, patience, func(inbound) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup(t.Context())
	g.start(c.run)
	slow := make(chan string, 1)
	go func() {
		m, err := c.request(t.Context(), "Slow")
		slow <- fmt.Sprint(m.get("Message"), err)
	}()
	id := <-held
	held <- id
	if m, err := c.request(t.Context(), "Fast"); err != nil || m.get("Message") != "fast" {
		t.Errorf("fast: %q, %v", m.raw, err)
	}
	if got := <-slow; got != "slow<nil>" {
		t.Errorf("slow: %s", got)
	}
	var refused *amiError
	if _, err := c.request(t.Context(), "Fail"); !errors.As(err, &refused) || !strings.Contains(err.Error(), "refused: no") {
		t.Errorf("fail: %v", err)
	}
	if _, err := c.request(t.Context(), "Fast", "A", "b\r\nAction: Command"); err == nil {
		t.Error("a line break got through")
	}
	if _, err := c.request(t.Context(), "Hang"); !errors.Is(err, io.EOF) {
		t.Errorf("hang: %v", err)
	}
	g.stop(nil)
	if _, err := c.request(t.Context(), "Fast"); err == nil {
		t.Error("asked a closed link")
	}
}
