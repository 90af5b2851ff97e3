package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestConfigFaults(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"node: \"\" is no name":                      func(c *Config) { c.Node = "" },
		"node: \"a/b\" is no name":                   func(c *Config) { c.Node = "a/b" },
		"group: \"\" does not make a topic name":     func(c *Config) { c.Group = "" },
		"priority: 5000: use":                        func(c *Config) { c.Priority = 5000 },
		"lease: 100ms: use 300ms to 10s":             func(c *Config) { c.Lease, c.Heartbeat = 100*time.Millisecond, 50*time.Millisecond },
		"heartbeat: 500ms is too long for a lease":   func(c *Config) { c.Heartbeat = 500 * time.Millisecond },
		"hung_after: 1ms: use":                       func(c *Config) { c.HungAfter = time.Millisecond },
		"session: 6s is too short for a lease of 5s": func(c *Config) { c.Lease = 5 * time.Second },
		"session: 1s: use":                           func(c *Config) { c.Session, c.Lease = time.Second, 400*time.Millisecond },
		"listen: needed with peers":                  func(c *Config) { c.Peers = []Peer{{"gw-b", "127.0.0.1:1"}} },
		"listen: \"nine\" is not host:port":          func(c *Config) { c.Listen = "nine" },
		"listen: \"127.0.0.1:0\" is not host:port":   func(c *Config) { c.Listen = "127.0.0.1:0" },
		"peers[0].id: \"gw-a\" is this node itself":  func(c *Config) { c.Listen, c.Peers = "127.0.0.1:2", []Peer{{"gw-a", "127.0.0.1:1"}} },
		"peers[1].id: \"gw-b\" is there twice": func(c *Config) {
			c.Listen, c.Peers = "127.0.0.1:2", []Peer{{"gw-b", "127.0.0.1:1"}, {"gw-b", "127.0.0.1:3"}}
		},
		"peers[0].address: \"gw-b\" is not host:port": func(c *Config) { c.Listen, c.Peers = "127.0.0.1:2", []Peer{{"gw-b", "gw-b"}} },
		"tls: needed: without certificates anybody":   func(c *Config) { c.Listen = "10.0.0.1:9474" },
		"tls: ca_file, cert_file and key_file are":    func(c *Config) { c.TLS.CAFile = "ca.pem" },
		"units[1]: has no switch":                     func(c *Config) { c.Units = [][]string{{"a"}, {}} },
		"units[1][0]: \"a\" is in two units":          func(c *Config) { c.Units = [][]string{{"a"}, {"a"}} },
		"units: 257 units":                            func(c *Config) { c.Units = make([][]string, 257) },
	} {
		c := NewConfig()
		c.Node = "gw-a"
		change(c)
		if !slices.ContainsFunc(c.Validate(), func(err error) bool { return strings.HasPrefix(err.Error(), want) }) {
			t.Errorf("want %q, got %v", want, c.Validate())
		}
	}
}

func TestConfigFromYAML(t *testing.T) {
	c := NewConfig()
	err := yaml.UnmarshalWithOptions([]byte(`
node: gw-a
listen: 10.0.0.1:9474
peers: [{id: gw-b, address: 10.0.0.2:9474}]
tls: {ca_file: ca.pem, cert_file: a.pem, key_file: a.key}
lease: 2s
`), c, yaml.Strict())
	if err != nil {
		t.Fatal(err)
	}
	c.Units = [][]string{{"pbx1", "trunk1"}, {"fs1"}}
	if errs := c.Validate(); len(errs) > 0 {
		t.Error(errs)
	}
	if c.UnitCount() != 2 {
		t.Errorf("units: %+v", c.Units)
	}
	if c.GroupID("cti.") != "cti.ctigate.ctigate" || c.Topic("cti.") != "cti.cluster.ctigate.v1" {
		t.Errorf("names: %s, %s", c.GroupID("cti."), c.Topic("cti."))
	}
}
