package esl

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const (
	// checkTimeout bounds a whole check.
	checkTimeout = 30 * time.Second
	// clockTolerance is the clock offset from which Check warns.
	clockTolerance = call.Second
	// defaultPassword is what FreeSWITCH ships with.
	defaultPassword = "ClueCon"
)

// Check probes the live switch: whether it can be reached and logged in to, what it is, what it will not show, and
// which of its settings to correct. It changes nothing there.
func (a *Adapter) Check(ctx context.Context) []core.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	p := &probe{a: a}
	c, err := dial(ctx, a.cfg, a.open, func(string, int) {})
	if err != nil {
		p.add("event socket", core.Fail, err.Error(), "start FreeSWITCH, load mod_event_socket, and let listen-ip in event_socket.conf and the firewall admit this machine")
		return p.found
	}
	defer c.close()
	stop := context.AfterFunc(ctx, func() { c.fail(ctx.Err()) })
	defer stop()
	p.c = c
	p.add("event socket", core.OK, "connected to "+c.nc.RemoteAddr().String(), "")
	if p.login(ctx) {
		p.probeAll(ctx)
	}
	return p.found
}

// probe collects findings over one connection.
type probe struct {
	a     *Adapter
	c     *conn
	found []core.Finding
}

func (p *probe) add(what string, level core.Level, detail, fix string) {
	p.found = append(p.found, core.Finding{Subject: p.a.id, What: what, Level: level, Detail: detail, Fix: fix})
}

func (p *probe) login(ctx context.Context) bool {
	err := p.c.login(ctx, p.a.cfg.Password)
	switch {
	case err == nil:
		p.add("login", core.OK, "password accepted, address admitted", "")
	case core.IsPermanent(err):
		p.add("login", core.Fail, err.Error(), "correct what the message names, here or in event_socket.conf")
	default:
		p.add("login", core.Fail, err.Error(), "see FreeSWITCH's log for why it ended the connection")
	}
	return err == nil
}

func (p *probe) probeAll(ctx context.Context) {
	for _, f := range []func(context.Context) error{p.version, p.events, p.modules, p.channels, p.clock, p.socketConfig, p.heartbeat, p.ivr} {
		if err := f(ctx); err != nil {
			p.add("event socket", core.Fail, err.Error(), "check the network and FreeSWITCH's log, then check again")
			return
		}
	}
}

func (p *probe) version(ctx context.Context) error {
	v, err := versionOf(ctx, p.c)
	if err != nil {
		return err
	}
	var major, minor int
	switch n, _ := fmt.Sscanf(v, "%d.%d", &major, &minor); {
	case n < 2:
		p.add("version", core.Warn, fmt.Sprintf("FreeSWITCH states its version as %q", v), "let the event-socket user run the version command")
	case major < 1 || major == 1 && minor < 10:
		p.add("version", core.Warn, "FreeSWITCH "+v, "upgrade to 1.10: older versions are not tried")
	default:
		p.add("version", core.OK, "FreeSWITCH "+v, "")
	}
	return nil
}

// events subscribes as a session would, and has a background job send one event through.
func (p *probe) events(ctx context.Context) error {
	format := p.a.cfg.Format
	err := subscribe(ctx, p.c, format, subscribed)
	if err == nil {
		_, err = p.c.bgapi(ctx, "status", "")
	}
	switch {
	case err == nil:
		p.add("events", core.OK, "subscribed in format "+format+", and one event came through", "")
	case commandFailed(err):
		p.add("events", core.Fail, err.Error(), "log in with the password of event_socket.conf, or allow the user esl-allowed-events and esl-allowed-api")
	default:
		return err
	}
	return nil
}

func (p *probe) modules(ctx context.Context) error {
	for _, m := range wantedModules {
		loaded, known, err := moduleLoaded(ctx, p.c, m.name)
		switch {
		case err != nil:
			return err
		case !known:
			p.add("module "+m.name, core.Warn, "FreeSWITCH does not say whether it is loaded", "let the event-socket user run module_exists")
		case !loaded:
			p.add("module "+m.name, core.Warn, "not loaded: there will be no "+m.gives, "if you use it, load it in modules.conf.xml")
		default:
			p.add("module "+m.name, core.OK, "loaded: "+m.gives, "")
		}
	}
	return nil
}

// channels asks for what the snapshot needs.
func (p *probe) channels(ctx context.Context) error {
	r, err := p.c.api(ctx, "show", "channels as json")
	if err != nil && !commandFailed(err) {
		return err
	}
	uuids, parseErr := channelUUIDs(r.body)
	if err = errors.Join(err, parseErr); err != nil {
		p.add("snapshot", core.Warn, err.Error(), "calls that are up when the link comes up will not be seen; remove -nosql from FreeSWITCH's start and let the event-socket user run show")
		return nil
	}
	p.add("snapshot", core.OK, fmt.Sprintf("%d channels are up", len(uuids)), "")
	return nil
}

func (p *probe) clock(ctx context.Context) error {
	sent, answered, at, err := clockTime(ctx, p.c)
	if commandFailed(err) {
		p.add("clock", core.Warn, err.Error(), "load mod_dptools, whose strmicroepoch tells the clock")
		return nil
	}
	if err != nil {
		return err
	}
	offset := at - (sent+answered)/2
	detail := fmt.Sprintf("%+d ms from ours, measured within %d ms", offset.Sub(0), (answered-sent).Sub(0)/2+1)
	if max(offset, -offset) > clockTolerance {
		p.add("clock", core.Warn, detail, "run NTP on both machines, then fsctl sync_clock: FreeSWITCH keeps the offset it started with")
		return nil
	}
	p.add("clock", core.OK, detail, "")
	return nil
}

// socketConfig looks for an event socket that the network can reach with the password everybody knows.
func (p *probe) socketConfig(ctx context.Context) error {
	params, err := p.configuration(ctx, "event_socket.conf")
	if err != nil {
		return err
	}
	ip := params["listen-ip"]
	if params == nil { // it does not show its configuration: judge by how we came in
		host, _, _ := net.SplitHostPort(p.c.nc.RemoteAddr().String())
		ip = host
	}
	secret, err := p.a.cfg.Password.Reveal()
	if err != nil {
		return err
	}
	open, known := !isLoopback(ip), secret == defaultPassword
	switch {
	case open && known:
		p.add("event_socket.conf", core.Warn, "the event socket listens on "+ip+" with FreeSWITCH's default password: whoever reaches it runs commands on this machine", "set a password of your own, listen-ip 127.0.0.1 or one inner address, and apply-inbound-acl")
	case known:
		p.add("event_socket.conf", core.Warn, "FreeSWITCH's default password", "set a password of your own in event_socket.conf and here")
	case open && params != nil && params["apply-inbound-acl"] == "":
		p.add("event_socket.conf", core.OK, "listens on "+ip+"; apply-inbound-acl is not set, so only loopback addresses are admitted", "")
	default:
		p.add("event_socket.conf", core.OK, "listens on "+ip+", the password is not the default", "")
	}
	return nil
}

// isLoopback reports whether only this machine reaches ip. Empty is FreeSWITCH's default, 127.0.0.1.
func isLoopback(ip string) bool {
	if ip == "" || strings.EqualFold(ip, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(ip)
	return err == nil && a.Unmap().IsLoopback()
}

// heartbeat compares the switch's HEARTBEAT interval, 20 s unless set, with how long the link waits for one.
func (p *probe) heartbeat(ctx context.Context) error {
	params, err := p.configuration(ctx, "switch.conf")
	if err != nil {
		return err
	}
	interval, wait := 20*time.Second, p.a.cfg.HeartbeatTimeout
	if n, err := strconv.Atoi(params["event-heartbeat-interval"]); err == nil && n > 0 {
		interval = time.Duration(n) * time.Second
	}
	detail := fmt.Sprintf("HEARTBEAT every %v, heartbeat_timeout %v", interval, wait)
	if wait < 2*interval {
		p.add("heartbeat", core.Warn, detail, fmt.Sprintf("set heartbeat_timeout to %v or more, or event-heartbeat-interval in switch.conf lower", 2*interval+interval/2))
		return nil
	}
	p.add("heartbeat", core.OK, detail, "")
	return nil
}

// ivr looks for the menu path's variable in the dialplan that FreeSWITCH holds itself.
func (p *probe) ivr(ctx context.Context) error {
	name := p.a.cfg.IVRVariable
	r, err := p.c.api(ctx, "xml_locate", "dialplan")
	switch {
	case err != nil && !commandFailed(err):
		return err
	case strings.Contains(string(r.body), name+"="):
		p.add("ivr path", core.OK, "the dialplan sets "+name, "")
	default:
		p.add("ivr path", core.Warn, "FreeSWITCH's own dialplan does not set "+name+": calls have no ivr_path unless a script sets it",
			`if there is a menu, set it at each step: <action application="export" data="`+name+`=main>billing"/>`)
	}
	return nil
}

// configuration asks for the parameters of a configuration file as FreeSWITCH reads it. Nil when it does not say.
func (p *probe) configuration(ctx context.Context, file string) (map[string]string, error) {
	r, err := p.c.api(ctx, "xml_locate", "configuration configuration name "+file)
	if commandFailed(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		Params []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"settings>param"`
	}
	if xml.Unmarshal(r.body, &doc) != nil {
		return nil, nil // "can't find anything"
	}
	params := make(map[string]string, len(doc.Params))
	for _, param := range doc.Params {
		params[param.Name] = param.Value
	}
	return params, nil
}
