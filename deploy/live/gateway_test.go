//go:build live

package live_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// settings are what the tests change of a configuration.
type settings struct {
	ari, ami string // addresses; default the live Asterisk
	prefix   string // of the topics
	sinks    string // YAML of the sinks section; default the live Kafka
	password string // default the right one
	drain    string // default 15s
	journal  string // folder; default none
	whole    string // a whole configuration instead
}

func (s settings) yaml() string {
	if s.whole != "" {
		return s.whole
	}
	or := func(v, d string) string {
		if v == "" {
			return d
		}
		return v
	}
	journal := ""
	if s.journal != "" {
		journal = "journal:\n  dir: " + s.journal + "\n"
	}
	sinks := or(s.sinks, fmt.Sprintf("  - kind: kafka\n    brokers: [\"%s\"]\n    topic_prefix: \"%s\"\n", kafkaAddr, or(s.prefix, "cti.")))
	return fmt.Sprintf(`switches:
  - id: pbx1
    kind: ari
    url: "http://%s/ari"
    username: ctigate
    password: {env: LIVE_PASSWORD}
    ami:
      address: "%s"
      username: ctigate
      password: {env: LIVE_PASSWORD}
sinks:
%stelemetry:
  listen: "127.0.0.1:0"
drain_timeout: %s
%s`, or(s.ari, ariAddr), or(s.ami, amiAddr), sinks, or(s.drain, "15s"), journal)
}

// ctigate makes the command for a configuration.
func (s settings) ctigate(t testing.TB, command string, args ...string) *exec.Cmd {
	t.Helper()
	file := filepath.Join(t.TempDir(), "live.yaml")
	if err := os.WriteFile(file, []byte(s.yaml()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(lab.ctigate, append([]string{command, "-c", file}, args...)...)
	secret := password
	if s.password != "" {
		secret = s.password
	}
	cmd.Env = append(os.Environ(), "LIVE_PASSWORD="+secret, "KAFKA_PASSWORD="+password)
	return cmd
}

// gateway is a running `ctigate run`.
type gateway struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	err  error // after done
	log  lockedBuffer
	url  string
}

// lockedBuffer can be read while a process writes into it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (g *gateway) logged() string { return g.log.String() }

// start starts the gateway and waits until its telemetry is served. When the test fails, its log is shown.
func start(t testing.TB, s settings) *gateway {
	t.Helper()
	g := &gateway{t: t, cmd: s.ctigate(t, "run", "--plain"), done: make(chan struct{})}
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { g.err = g.cmd.Wait(); close(g.done) }()
	t.Cleanup(func() {
		if t.Failed() {
			g.cmd.Process.Signal(syscall.SIGQUIT) // the log then ends with where every goroutine is
		} else {
			g.cmd.Process.Kill()
		}
		<-g.done
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.logged())
		}
	})
	served := regexp.MustCompile(`url=(http://\S+)/metrics`)
	eventually(t, "the gateway serves telemetry", time.Minute, func() bool {
		g.alive()
		m := served.FindStringSubmatch(g.logged())
		if m != nil {
			g.url = m[1]
		}
		return m != nil
	})
	return g
}

func (g *gateway) alive() {
	g.t.Helper()
	select {
	case <-g.done:
		g.t.Fatalf("the gateway ended: %v", g.err)
	default:
	}
}

// status is what /readyz tells.
type status struct {
	Ready  bool `json:"ready"`
	Active int  `json:"active_calls"`
	Queue  int  `json:"queue"`
	Links  []struct {
		Up       bool     `json:"up"`
		Missing  []string `json:"missing"`
		Received uint64   `json:"received"`
		Dead     uint64   `json:"dead_letters"`
	} `json:"links"`
	Sinks []struct {
		Name         string     `json:"name"`
		Queue        int        `json:"queue"`
		FailingSince *time.Time `json:"failing_since"`
		Produced     uint64     `json:"produced"`
		Acked        uint64     `json:"acked"`
		Retried      uint64     `json:"retried"`
	} `json:"sinks"`
}

func (g *gateway) status() (s status) {
	g.t.Helper()
	resp, err := (&http.Client{Timeout: time.Minute}).Get(g.url + "/readyz")
	if err != nil {
		g.alive()
		g.t.Fatalf("asking for the gateway's status: %v", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		g.t.Fatalf("reading the gateway's status: %v", err)
	}
	if s.Ready != (resp.StatusCode == http.StatusOK) {
		g.t.Errorf("/readyz says ready %v with status %d", s.Ready, resp.StatusCode)
	}
	return s
}

func (g *gateway) waitReady() {
	g.t.Helper()
	eventually(g.t, "the gateway is ready", time.Minute, func() bool { return g.status().Ready })
}

// waitIdle waits until every call has ended and all is delivered.
func (g *gateway) waitIdle() {
	g.t.Helper()
	before, looks := uint64(0), 0 // what a busy gateway has not read yet is in none of the numbers
	eventually(g.t, "every call has ended and is delivered", time.Minute, func() bool {
		s := g.status()
		idle, received := s.Active == 0 && s.Queue == 0, uint64(0)
		for _, k := range s.Sinks {
			idle = idle && k.Queue == 0 && k.Produced == k.Acked
		}
		for _, l := range s.Links {
			received += l.Received
		}
		if looks++; !idle || received != before {
			looks = 0
		}
		before = received
		return looks >= 2
	})
}

// stop sends SIGTERM and returns the exit code and how long the end took.
func (g *gateway) stop() (code int, took time.Duration) {
	g.t.Helper()
	began := time.Now()
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(60 * time.Second):
		g.t.Fatal("the gateway did not end within 60 s of SIGTERM")
	}
	var exit *exec.ExitError
	if errors.As(g.err, &exit) {
		return exit.ExitCode(), time.Since(began)
	}
	return 0, time.Since(began)
}

// kill ends the gateway with SIGKILL.
func (g *gateway) kill() {
	g.cmd.Process.Kill()
	<-g.done
}

// stopClean stops a gateway that has nothing to lose.
func (g *gateway) stopClean() {
	g.t.Helper()
	if code, took := g.stop(); code != 0 || took > 20*time.Second {
		g.t.Errorf("stopping took %v and ended with %d", took, code)
	}
	if !strings.Contains(g.logged(), "everything received was delivered") {
		g.t.Error("the log does not say that everything was delivered")
	}
}
