package kafka

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func findings(fs []core.Finding, level core.Level) (out []string) {
	for _, f := range fs {
		if f.Level == level {
			out = append(out, fmt.Sprintf("%s: %s [%s]", f.What, f.Detail, f.Fix))
		}
	}
	return out
}

func TestCheckOfAnEmptyClusterCreatesNothing(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	cfg := f.config()
	got := cfg.Check(t.Context())
	if bad := append(findings(got, core.Fail), findings(got, core.Warn)...); len(bad) != 0 || len(got) != 3+len(streams) {
		t.Errorf("got %+v", got)
	}
	if names := f.topicNames(); len(names) != 0 {
		t.Errorf("Check created %v", names)
	}
	cfg.CreateTopics = false
	if fails := findings(cfg.Check(t.Context()), core.Fail); len(fails) != len(streams) {
		t.Errorf("create_topics: false: got %q, want every topic to fail", fails)
	}
}

func TestCheckFindsFaults(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	cfg := f.config()
	shut(t, open(t, cfg))
	set := func(topic, name, value string) {
		t.Helper()
		if err := f.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		n := int32(3)
		if name == "" {
			n = 5
		}
		if err := f.CreateTopic(topic, n, map[string]string{"cleanup.policy": "delete", name: value}); err != nil {
			t.Fatal(err)
		}
	}
	if bad := findings(cfg.Check(t.Context()), core.Fail); len(bad) != 0 {
		t.Fatalf("a cluster we made ourselves: %q", bad)
	}
	set("cti.calls.v1", "cleanup.policy", "delete")
	set("cti.events.v1", "cleanup.policy", "compact")
	set("cti.media.v1", "max.message.bytes", "10000")
	set("cti.records.v1", "min.insync.replicas", "4")
	got := cfg.Check(t.Context())
	fails, warns := strings.Join(findings(got, core.Fail), "\n"), strings.Join(findings(got, core.Warn), "\n")
	for _, want := range []string{
		"cti.calls.v1: cleanup.policy is delete", "[set cleanup.policy=compact on the topic]",
		"cti.events.v1: cleanup.policy is compact", "cti.records.v1: 3 replicas are in sync, min.insync.replicas is 4",
	} {
		if !strings.Contains(fails, want) {
			t.Errorf("%q is not among the failures:\n%s", want, fails)
		}
	}
	if !strings.Contains(warns, "cti.media.v1: max.message.bytes is 10000") {
		t.Errorf("warnings:\n%s", warns)
	}
}

func TestCheckOfBrokersOutOfReach(t *testing.T) {
	f := newFake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "pat", "pw"))
	defer f.Close()
	cfg := f.config()
	cfg.SASL = SASL{Mechanism: mechanismPlain, Username: "pat", Password: core.NewSecret("wrong")}
	fails := findings(cfg.Check(t.Context()), core.Fail)
	if len(fails) != 3 || !strings.Contains(fails[0], "hung up during the login") || !strings.Contains(fails[0], "sasl settings") {
		t.Errorf("got %q", fails)
	}
	f.refuseLogin()
	fails = findings(cfg.Check(t.Context()), core.Fail)
	if len(fails) != 3 || !strings.Contains(fails[0], "authentication was refused") || !strings.Contains(fails[0], "sasl settings") {
		t.Errorf("got %q", fails)
	}
}

func TestCheckSeesMissingRights(t *testing.T) {
	allow := func(op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "cti.", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: op, Allow: true}
	}
	f := newFake(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "root", "pw"),
		kfake.User("PLAIN", "reader", "pw", allow(kmsg.ACLOperationDescribe), allow(kmsg.ACLOperationDescribeConfigs), allow(kmsg.ACLOperationRead)))
	defer f.Close()
	cfg := f.config()
	cfg.SASL = SASL{Mechanism: mechanismPlain, Username: "root", Password: core.NewSecret("pw")}
	shut(t, open(t, cfg))
	cfg.SASL.Username = "reader"
	fails := findings(cfg.Check(t.Context()), core.Fail)
	if len(fails) != len(streams) || !strings.Contains(fails[0], "may not write") {
		t.Errorf("got %q", fails)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Brokers = nil }, "brokers: "},
		{func(c *Config) { c.Brokers = []string{"kafka"} }, "brokers[0]: "},
		{func(c *Config) { c.Brokers = []string{"kafka:99999"} }, "brokers[0]: "},
		{func(c *Config) { c.Acks = "one" }, "acks: \"one\" is not allowed: an event leaves the journal"},
		{func(c *Config) { c.Encoding = "avro" }, "encoding: "},
		{func(c *Config) { c.Client = "sarama" }, "client: \"sarama\" is unknown: use kafka-go or franz-go"},
		{func(c *Config) { c.Client = "franz-go"; c.TransactionalID = "a" }, "client: franz-go cannot take turns"},
		{func(c *Config) { c.Compression = "lzma" }, "compression: "},
		{func(c *Config) { c.TopicPrefix = "a b" }, "topic_prefix: "},
		{func(c *Config) { c.Partitions = 0 }, "partitions: "},
		{func(c *Config) { c.ReplicationFactor = 0 }, "replication_factor: "},
		{func(c *Config) { c.ReplicationFactor = 2; c.MinInsyncReplicas = 3 }, "min_insync_replicas: "},
		{func(c *Config) { c.Retention = map[core.Stream]time.Duration{"evnts": time.Hour} }, "retention.evnts: no such stream"},
		{func(c *Config) { c.Retention = map[core.Stream]time.Duration{"calls": time.Hour} }, "retention.calls: "},
		{func(c *Config) { c.Retention = map[core.Stream]time.Duration{"events": time.Second} }, "retention.events: "},
		{func(c *Config) { c.BatchBytes = 1 }, "batch_bytes: "},
		{func(c *Config) { c.RequestTimeout = 0 }, "request_timeout: "},
		{func(c *Config) { c.WriteTimeout = time.Second }, "write_timeout: "},
		{func(c *Config) { c.TLS.CAFile = "x" }, "tls.enabled: "},
		{func(c *Config) { c.TLS = TLS{Enabled: true, CertFile: "x"} }, "tls: cert_file"},
		{func(c *Config) { c.SASL.Username = "x" }, "sasl.mechanism: "},
		{func(c *Config) { c.SASL = SASL{Mechanism: "gssapi", Username: "x", Password: core.NewSecret("y")} }, "sasl.mechanism: "},
		{func(c *Config) { c.SASL = SASL{Mechanism: "plain", Password: core.NewSecret("y")} }, "sasl.username: "},
		{func(c *Config) { c.SASL = SASL{Mechanism: "plain", Username: "x"} }, "sasl.password: "},
	} {
		cfg := NewConfig()
		cfg.Brokers = []string{"kafka1:9092", "[::1]:9092"}
		if errs := cfg.Validate(); len(errs) != 0 {
			t.Fatalf("the defaults have faults: %v", errs)
		}
		c.change(cfg)
		if errs := cfg.Validate(); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), c.want) {
			t.Errorf("got %v, want %q", errs, c.want)
		}
	}
}
