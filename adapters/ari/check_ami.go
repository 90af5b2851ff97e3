package ari

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ctigate/ctigate/core"
)

// amiUser is the section that manager.conf should have.
const amiUser = "manager.conf: [%s] read=agent,call"

// ami logs in and looks around. It returns ari.conf's [general] section when the user may see it, else nil.
func (k *checker) ami(ctx context.Context) map[string]string {
	cfg := k.a.cfg.AMI
	if cfg == nil {
		k.warn("AMI", "not configured: no queue and agent events", "add ami: {address, username, password} to this switch, and "+
			"to manager.conf: [ctigate] secret=… read=agent,call")
		return nil
	}
	c, err := dialAMI(ctx, cfg, k.a.cfg.ReadTimeout, func(inbound) error { return nil })
	if err != nil {
		fix := "check ami.address, the firewall, and manager.conf: [general] enabled=yes, port, bindaddr (tlsenable=yes for TLS)"
		if core.IsPermanent(err) {
			fix = fmt.Sprintf("manager.conf: [%s] secret=… as in the configuration, permit= with this machine's address, then: asterisk -rx 'manager reload'", cfg.Username)
		}
		k.fail("AMI login", err.Error(), fix)
		return nil
	}
	g := newGroup(ctx)
	g.start(c.run)
	defer func() { _ = g.stop(nil) }()
	k.ok("AMI login", fmt.Sprintf("user %s accepted by %s", cfg.Username, cfg.Address))
	k.amiClock(ctx, c)
	k.amiPrivileges(ctx, c)
	k.amiTimestamps(ctx, c)
	k.queues(ctx, c)
	conf, err := c.config(ctx, "ari.conf", "general")
	if err != nil {
		return nil
	}
	return conf
}

func (k *checker) amiClock(ctx context.Context, c *amiClient) {
	if _, err := c.ping(ctx); err != nil {
		k.fail("AMI ping", err.Error(), "look into the Asterisk log: the link is up and Ping needs no privilege")
		return
	}
	k.ok("AMI ping", "answered, with the switch's clock in microseconds")
}

// config reads one section of a configuration file by GetConfig, which needs write=config or write=system.
func (c *amiClient) config(ctx context.Context, file, section string) (map[string]string, error) {
	m, err := c.request(ctx, "GetConfig", "Filename", file, "Category", section)
	if err != nil {
		return nil, err
	}
	conf := map[string]string{}
	for _, f := range m.fields {
		if !strings.HasPrefix(f.key, "Line-") {
			continue
		}
		name, value, _ := strings.Cut(f.value, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); name != "secret" {
			conf[name] = strings.TrimSpace(value)
		}
	}
	return conf, nil
}

// amiPrivileges looks up what the user may read. Only read and eventfilter are looked at, never the secret.
func (k *checker) amiPrivileges(ctx context.Context, c *amiClient) {
	user := k.a.cfg.AMI.Username
	fix := fmt.Sprintf(amiUser+", then: asterisk -rx 'manager reload'", user)
	conf, err := c.config(ctx, "manager.conf", user)
	if err != nil || len(conf) == 0 {
		k.warn("AMI privileges", "cannot be seen by this user: without agent there are no queue and agent events, "+
			"without call an agent's refusal looks like no answer", "make sure of "+fix)
		return
	}
	read := splitList(strings.ToLower(conf["read"]))
	var missing []string
	for _, class := range splitList(amiEvents) {
		if !slices.Contains(read, class) && !slices.Contains(read, "all") {
			missing = append(missing, class)
		}
	}
	if len(missing) > 0 {
		k.fail("AMI privileges", fmt.Sprintf("read=%s lacks %s: queue and agent events do not arrive", conf["read"], strings.Join(missing, ",")), fix)
		return
	}
	k.ok("AMI privileges", "read="+conf["read"])
	k.amiFilter(conf)
}

// amiFilter recommends that Asterisk send only what is used.
func (k *checker) amiFilter(conf map[string]string) {
	for key := range conf {
		if strings.HasPrefix(key, "eventfilter") {
			k.ok("AMI eventfilter", "set")
			return
		}
	}
	k.warn("AMI eventfilter", "not set: Asterisk also sends some thirty events a call that nobody here needs",
		"manager.conf: the eventfilter lines of configs/asterisk/manager.conf")
}

func (k *checker) amiTimestamps(ctx context.Context, c *amiClient) {
	const what = "AMI timestampevents"
	const fix = "manager.conf: [general] timestampevents=yes, then: asterisk -rx 'manager reload'"
	conf, err := c.config(ctx, "manager.conf", "general")
	switch {
	case err != nil:
		k.warn(what, "cannot be seen by this user; without it queue and agent events bear the time of their arrival", "make sure of "+fix)
	case !truth(conf["timestampevents"]):
		k.warn(what, "not set: queue and agent events bear the time of their arrival", fix)
	default:
		k.ok(what, "queue and agent events bear the switch's time")
	}
}

// truth is Asterisk's ast_true.
func truth(s string) bool {
	return slices.Contains([]string{"yes", "true", "y", "t", "1", "on"}, strings.ToLower(s))
}

// queues lists the queues and their members. What they send is up to Asterisk: since version 12 it always sends the
// agent events, whatever eventwhencalled says.
func (k *checker) queues(ctx context.Context, c *amiClient) {
	events, err := c.list(ctx, "QueueStatus")
	var refused *amiError
	if errors.As(err, &refused) {
		k.warn("queues", err.Error(), "modules.conf: load app_queue.so, if this switch has queues")
		return
	}
	if err != nil {
		k.fail("queues", err.Error(), "try again; see the Asterisk log when it stays so")
		return
	}
	members := map[string]int{}
	var names []string
	for _, m := range events {
		switch m.get("Event") {
		case "QueueParams":
			names = append(names, m.get("Queue"))
		case "QueueMember":
			members[m.get("Queue")]++
		}
	}
	if len(names) == 0 {
		k.warn("queues", "this switch has none", "queues.conf, if it should have; configs/asterisk/queues.conf is an example")
		return
	}
	k.ok("queues", describeQueues(names, members))
}

func describeQueues(names []string, members map[string]int) string {
	const most = 20
	var b strings.Builder
	for i, n := range names[:min(len(names), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		quoted, _ := json.Marshal(n)
		fmt.Fprintf(&b, "%s (%d members)", quoted, members[n])
	}
	if len(names) > most {
		fmt.Fprintf(&b, " and %d more", len(names)-most)
	}
	return b.String()
}
