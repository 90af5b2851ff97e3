package cluster

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Config is the settings of a cluster of gateways. Start from NewConfig: it holds the defaults. What is said about
// "all nodes" must be the same there.
type Config struct {
	Node      string        `yaml:"node"`       // this node's name; default the host name
	Group     string        `yaml:"group"`      // all nodes: names the consumer group and the topics; default ctigate
	Priority  int           `yaml:"priority"`   // units without an owner go to the highest; default 0
	Listen    string        `yaml:"listen"`     // host:port that the peers connect to; none: no peer link
	Peers     []Peer        `yaml:"peers"`      // the other nodes
	TLS       TLS           `yaml:"tls"`        // of the peer link; needed but on loopback
	Lease     time.Duration `yaml:"lease"`      // all nodes: how long an owner may publish after a heartbeat; default 1s
	Heartbeat time.Duration `yaml:"heartbeat"`  // to Kafka; default 250ms
	HungAfter time.Duration `yaml:"hung_after"` // events seen here and not in Kafka for so long: the owner hangs; default 2s
	Session   time.Duration `yaml:"session"`    // after which Kafka drops a silent node by itself; default 6s
	Units     [][]string    `yaml:"-"`          // all nodes: switch ids that move together; default one unit with all
}

// Peer is another node.
type Peer struct {
	ID      string `yaml:"id"`      // its node
	Address string `yaml:"address"` // its listen, as reached from here
}

// TLS of the peer link, mutual: the certificate names the node, as a DNS name or as its common name. Files are read at
// each connection.
type TLS struct {
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// NewConfig returns the defaults.
func NewConfig() *Config {
	host, _ := os.Hostname() // Validate says so when there is none
	return &Config{
		Node: host, Group: "ctigate", Lease: time.Second, Heartbeat: 250 * time.Millisecond,
		HungAfter: 2 * time.Second, Session: 6 * time.Second,
	}
}

// SetDefaults makes c what NewConfig returns.
func (c *Config) SetDefaults() { *c = *NewConfig() }

type adder func(field, format string, args ...any)

// Validate returns every fault, each naming its field.
func (c *Config) Validate() []error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf(field+": "+format, args...))
	}
	if !validName(c.Node) {
		add("node", "%q is no name for a node: use 1 to 63 letters, digits, dots, dashes and underscores", c.Node)
	}
	if !validName(c.Group) {
		add("group", "%q does not make a topic name: use 1 to 63 letters, digits, dots, dashes and underscores", c.Group)
	}
	if c.Priority < -1000 || c.Priority > 1000 {
		add("priority", "%d: use -1000 to 1000", c.Priority)
	}
	c.validateTimes(add)
	c.validateLink(add)
	c.validateUnits(add)
	return errs
}

func (c *Config) validateTimes(add adder) {
	for _, d := range []struct {
		field            string
		value, low, high time.Duration
	}{
		{"lease", c.Lease, 300 * time.Millisecond, 10 * time.Second},
		{"heartbeat", c.Heartbeat, 50 * time.Millisecond, 3 * time.Second},
		{"hung_after", c.HungAfter, 500 * time.Millisecond, time.Minute},
		{"session", c.Session, 3 * time.Second, 5 * time.Minute},
	} {
		if d.value < d.low || d.value > d.high {
			add(d.field, "%s: use %s to %s", d.value, d.low, d.high)
		}
	}
	if c.Heartbeat*5 > c.Lease*2 {
		add("heartbeat", "%s is too long for a lease of %s: use at most two fifths of it, so that one may be lost", c.Heartbeat, c.Lease)
	}
	if c.Lease*2 > c.Session {
		add("session", "%s is too short for a lease of %s: use at least twice as long", c.Session, c.Lease)
	}
}

func (c *Config) validateLink(add adder) {
	if c.Listen == "" && len(c.Peers) > 0 {
		add("listen", "needed with peers: the host:port at which they reach this node")
	}
	loopback := c.Listen == "" || c.validateAddress(add, "listen", c.Listen)
	seen := map[string]bool{c.Node: true}
	for i, p := range c.Peers {
		field := fmt.Sprintf("peers[%d]", i)
		switch {
		case !validName(p.ID):
			add(field+".id", "%q is no name for a node: use 1 to 63 letters, digits, dots, dashes and underscores", p.ID)
		case p.ID == c.Node:
			add(field+".id", "%q is this node itself: list the others only", p.ID)
		case seen[p.ID]:
			add(field+".id", "%q is there twice", p.ID)
		}
		seen[p.ID] = true
		loopback = c.validateAddress(add, field+".address", p.Address) && loopback
	}
	c.validateTLS(add, loopback)
}

// validateAddress reports whether addr is on loopback.
func (c *Config) validateAddress(add adder, field, addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		add(field, "%q is not host:port", addr)
		return true
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		add(field, "%q is not host:port with a port of 1 to 65535", addr)
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) validateTLS(add adder, loopback bool) {
	switch t := c.TLS; {
	case t == (TLS{}):
		if !loopback {
			add("tls", "needed: without certificates anybody who reaches the peer link could declare a node dead; "+
				"give ca_file, cert_file and key_file, or use loopback addresses only")
		}
	case t.CAFile == "" || t.CertFile == "" || t.KeyFile == "":
		add("tls", "ca_file, cert_file and key_file are all needed: both sides show a certificate")
	}
}

func (c *Config) validateUnits(add adder) {
	if len(c.Units) > maxUnits {
		add("units", "%d units: use at most %d", len(c.Units), maxUnits)
	}
	seen := map[string]bool{}
	for i, unit := range c.Units {
		if len(unit) == 0 {
			add(fmt.Sprintf("units[%d]", i), "has no switch")
		}
		for j, id := range unit {
			if seen[id] {
				add(fmt.Sprintf("units[%d][%d]", i, j), "%q is in two units", id)
			}
			seen[id] = true
		}
	}
}

// UnitCount is how many units there are, at least 1.
func (c *Config) UnitCount() int { return max(1, len(c.Units)) }

// GroupID is the name of the consumer group, under a topic prefix such as "cti.".
func (c *Config) GroupID(prefix string) string { return prefix + "ctigate." + c.Group }

// Topic is the name of the assignment topic.
func (c *Config) Topic(prefix string) string { return prefix + "cluster." + c.Group + ".v1" }

// maxUnits bounds what members tell each other.
const maxUnits = 256

func validName(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-') {
			return false
		}
	}
	return true
}

// link is the TLS of the peer link as the settings that core reads.
func (t TLS) files() core.TLS {
	return core.TLS{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile}
}
