package sip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// listenFor is how long a check waits for something to come in.
const listenFor = 3 * time.Second

// Check opens each way in, as a session would, and says what comes in while it listens. It sends nothing.
func (a *adapter) Check(ctx context.Context) []core.Finding {
	p := &probe{a: a}
	if c := a.cfg.Capture; c != nil {
		one := a.cfg
		one.HEP, one.SIPREC = nil, nil
		p.listen(ctx, one, "capture on "+c.Interface, "check that the traffic passes this interface (a mirrored port needs promiscuous: true) and that capture.ports has its ports")
	}
	if c := a.cfg.HEP; c != nil {
		one := a.cfg
		one.Capture, one.SIPREC = nil, nil
		p.listen(ctx, one, "HEP on "+c.Listen, p.agentLines(c))
	}
	if c := a.cfg.SIPREC; c != nil {
		one := a.cfg
		one.Capture, one.HEP = nil, nil
		p.listen(ctx, one, "SIPREC on "+c.Listen, "point the recording client at it; nothing comes while nobody calls")
	}
	p.sides()
	return p.found
}

type probe struct {
	a     *adapter
	found []core.Finding
}

func (p *probe) add(what string, level core.Level, detail, fix string) {
	p.found = append(p.found, core.Finding{Subject: p.a.id, What: what, Level: level, Detail: detail, Fix: fix})
}

// listen runs a session with one way in for a while.
func (p *probe) listen(ctx context.Context, cfg Config, what, fix string) {
	ctx, cancel := context.WithTimeout(ctx, listenFor)
	defer cancel()
	c := &counter{counts: map[string]int{}}
	err := newAdapter(p.a.id, cfg, p.a.env).Run(ctx, c)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		p.add(what, core.Fail, err.Error(), remedy(err))
	case c.counts[hep.CountKey] > 0:
		p.add(what, core.Fail, fmt.Sprintf("%d frames with a wrong authentication key, or none", c.counts[hep.CountKey]), "set the agents' key (capture_password) to hep.key")
	case c.frames == 0 && c.dead == 0 && c.counts["rtp_of_no_call"] == 0:
		p.add(what, core.Warn, fmt.Sprintf("it listens, and nothing came in %s", listenFor), fix)
	default:
		p.add(what, core.OK, fmt.Sprintf("%d SIP messages, %d RTP packets of calls not seen from their start, %d not understood in %s", c.frames, c.counts["rtp_of_no_call"], c.dead, listenFor), "")
	}
}

// remedy says what to do about a way in that cannot be opened.
func remedy(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EPERM):
		return "capturing needs a right: setcap cap_net_raw+ep on the program, or AmbientCapabilities=CAP_NET_RAW in its systemd unit"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program listens there; when it is the gateway itself, all is well"
	}
	return "correct what the message names"
}

func (p *probe) agentLines(c *hep.Config) string {
	return "tell the agent to send here: Asterisk hep.conf \"capture_address = " + c.Listen + "\" and capture_password; Kamailio siptrace duplicate_uri \"sip:" + c.Listen + "\" and hep_mode_on 1"
}

// sides says how legs are told apart.
func (p *probe) sides() {
	switch {
	case p.a.cfg.View == ViewTrunk:
		p.add("view", core.OK, "every dialog is a whole call: what is behind the switch is not seen", "")
	case len(p.a.cfg.PBX) > 0:
		p.add("pbx", core.OK, "switches are at "+strings.Join(p.a.cfg.PBX, ", "), "")
	case p.a.cfg.Capture != nil || p.a.cfg.HEP != nil:
		p.add("pbx", core.Warn, "the switches' addresses are not configured: they are learned from the traffic, and the first calls may be told as calls between two phones", "set pbx to them, or view: trunk when only one side of the switch is seen")
	}
}

// counter is an Emitter that only counts.
type counter struct {
	mu     sync.Mutex
	frames int
	dead   int
	counts map[string]int
}

func (c *counter) Frame(core.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames++
	return nil
}

func (c *counter) DeadLetter(core.DeadLetter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead++
	return nil
}

func (c *counter) Count(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[name] += n
}

func (c *counter) Up(core.Instance) error       { return nil }
func (c *counter) Clock(core.ClockSample) error { return nil }
func (c *counter) Gap(string, call.Time) error  { return nil }
func (c *counter) Missing([]string) error       { return nil }
