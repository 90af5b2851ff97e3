package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// node is one `ctigate run` with its own links to everything.
type node struct {
	name    string // n1, n2
	dir     string // its configuration, log, journal
	binary  string
	listen  string // of its telemetry
	cable   *cable // nil: it shares the driver's network
	clocked bool   // its clock can be set
	links   map[string][]*proxy
	lines   func(n *node) string // more of its configuration
	brokers []string
	prefix  string            // of its topics
	peer    string            // host:port that the others reach it at, without a proxy
	ways    map[string]string // where it reaches the others, by name
	peers   map[string]*proxy // to the others, by name

	life sync.Mutex // held while it is ended and started again
	disk sync.Mutex // held while its disk is full

	mu      sync.Mutex
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // after done
	wanted  bool  // it should be running
	stopped bool  // SIGSTOP
	mounted bool  // its journal has a small disk of its own
	starts  int
}

// newNode makes a node and its proxies to the switches; start starts it.
func newNode(name, dir string, set *settings, s *switches, brokers []string, prefix string) (*node, error) {
	n := &node{name: name, dir: filepath.Join(dir, name), binary: set.binary, clocked: set.clocks, lines: set.lines, links: map[string][]*proxy{}, peers: map[string]*proxy{}, ways: map[string]string{}, brokers: brokers, prefix: prefix}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	if n.clocked {
		if err := n.setClock(0); err != nil {
			return nil, err
		}
	}
	host := loopback
	if set.namespaces {
		var err error
		if n.cable, err = newCable(); err != nil {
			return nil, err
		}
		host = n.cable.host
	}
	var err error
	if n.listen, err = freePort(host); err != nil {
		return nil, err
	}
	if n.peer, err = freePort(host); err != nil {
		return nil, err
	}
	for _, l := range []struct{ sw, what, addr string }{{asterisk, "ari", s.ast.ARIAddr()}, {asterisk, "ami", s.ast.AMIAddr()},
		{freeswitch, "esl", s.fs.Addr()}} {
		p, err := newProxy(set.host(), name+" "+l.what, l.addr)
		if err != nil {
			n.close()
			return nil, err
		}
		n.links[l.sw] = append(n.links[l.sw], p)
	}
	return n, nil
}

func (n *node) journal() string { return filepath.Join(n.dir, "journal") }
func (n *node) log() string     { return filepath.Join(n.dir, "ctigate.log") }

// config is what the node runs with.
func (n *node) config() string {
	more := ""
	if n.lines != nil {
		more = n.lines(n)
	}
	return fmt.Sprintf(`switches:
  - id: %s
    kind: ari
    url: "http://%s/ari"
    username: %s
    password: {env: CHAOS_PASSWORD}
    application: ctigate-%s
    ami: {address: "%s", username: %[3]s, password: {env: CHAOS_PASSWORD}}
    ping_interval: 500ms
    read_timeout: 3s
  - id: %[6]s
    kind: esl
    address: "%[7]s"
    password: {env: CHAOS_PASSWORD}
sinks:
  - kind: kafka
    brokers: ["%[8]s"]
    topic_prefix: "%[11]s"
    when_full: block
    partitions: 3
    dial_timeout: 2s
    request_timeout: 2s
    write_timeout: 6s
telemetry:
  listen: "%[9]s"
  allow_remote: true
  token: {env: CHAOS_PASSWORD}
drain_timeout: 15s
%[10]s`, asterisk, n.links[asterisk][0].addr(), simUser, n.name, n.links[asterisk][1].addr(),
		freeswitch, n.links[freeswitch][0].addr(), strings.Join(n.brokers, `", "`), n.listen, more, n.prefix)
}

// start starts the process. What it logs goes behind what earlier ones logged.
func (n *node) start() error {
	file := filepath.Join(n.dir, "ctigate.yaml")
	if err := os.WriteFile(file, []byte(n.config()), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.binary, "run", "-c", file, "--plain")
	if n.cable != nil {
		cmd = n.cable.in(n.binary, "run", "-c", file, "--plain")
	}
	cmd.Env = append(os.Environ(), "CHAOS_PASSWORD="+simPassword, "GOMAXPROCS=2")
	if n.clocked {
		cmd.Env = append(cmd.Env, clockVar+"="+n.clock())
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the driver
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := startKept(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", n.name, err)
	}
	done := make(chan struct{})
	n.cmd, n.done, n.wanted, n.stopped = cmd, done, true, false
	n.starts++
	go func() {
		err := cmd.Wait()
		n.mu.Lock()
		n.err = err
		n.mu.Unlock()
		close(done)
	}()
	return nil
}

// running reports whether the process is there. One that has ended although it should not have is an error.
func (n *node) running() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done == nil {
		return false, nil
	}
	select {
	case <-n.done:
		if n.wanted {
			return false, fmt.Errorf("%s ended by itself: %w: %s", n.name, n.err, n.lastWords())
		}
		return false, nil
	default:
		return true, nil
	}
}

func (n *node) lastWords() string {
	b, _ := os.ReadFile(n.log()) // it is only for a message
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " / ")
}

// pid is its process's, 0 when there is none.
func (n *node) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil || n.cmd.Process == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

func (n *node) signal(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(sig) // it may have ended
		n.stopped = sig == syscall.SIGSTOP
	}
}

// kill ends the process at once and waits until it is gone.
func (n *node) kill() {
	n.mu.Lock()
	n.wanted = false
	done := n.done
	n.mu.Unlock()
	if done != nil {
		n.signal(syscall.SIGKILL)
		<-done
	}
}

// drain stops the process as an operator does; it must end by itself and say that all is well.
func (n *node) drain(within time.Duration) error {
	n.mu.Lock()
	n.wanted = false
	done := n.done
	n.mu.Unlock()
	if done == nil {
		return nil
	}
	n.signal(syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(within):
		n.signal(syscall.SIGQUIT) // its log then ends with where every goroutine is
		sleepOr(done, 2*time.Second)
		n.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", n.name, within)
	}
	var exit *exec.ExitError
	if errors.As(n.err, &exit) {
		return fmt.Errorf("%s ended with %w: %s", n.name, n.err, n.lastWords())
	}
	return nil
}

func (n *node) close() {
	n.signal(syscall.SIGCONT)
	n.kill()
	for _, ps := range n.links {
		for _, p := range ps {
			p.close()
		}
	}
	for _, p := range n.peers {
		p.close()
	}
	if n.cable != nil {
		n.cable.remove()
	}
}

// status is what /readyz tells that the driver wants to know.
type status struct {
	Ready  bool `json:"ready"`
	Active int  `json:"active_calls"`
	Queue  int  `json:"queue"`

	Cluster struct {
		Unproven []string `json:"unproven"`
	} `json:"cluster"`
	Sinks []struct {
		Queue int `json:"queue"`
	} `json:"sinks"`
}

func (s status) idle() bool {
	for _, k := range s.Sinks {
		if k.Queue > 0 {
			return false
		}
	}
	return s.Active == 0 && s.Queue == 0
}

var asking = &http.Client{Timeout: 2 * time.Second}

func (n *node) readyz() (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+n.listen+"/readyz", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+simPassword)
	return asking.Do(req)
}

func (n *node) status() (s status, err error) {
	resp, err := n.readyz()
	if err != nil {
		return s, fmt.Errorf("asking %s how it is: %w", n.name, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("asking %s how it is: %w", n.name, err)
	}
	return s, nil
}

var errNotReady = errors.New("/readyz says no")

// ready waits until the node says so.
func (n *node) ready(within time.Duration) error {
	last := errNotReady
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		if ok, err := n.running(); !ok {
			return err
		}
		s, err := n.status()
		if err == nil && s.Ready {
			return nil
		}
		if err != nil {
			last = err
		}
	}
	return fmt.Errorf("%s was not ready within %v: %w: %s: it says %s", n.name, within, last, n.lastWords(), n.says())
}

// says is what /readyz answers, for a message.
func (n *node) says() string {
	resp, err := n.readyz()
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b)), " ")
}
