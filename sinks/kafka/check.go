package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
)

// Check probes the brokers and topics and changes nothing: reach, login, each topic's existence, partitions,
// cleanup.policy, replicas, and the right to write.
func (c *Config) Check(ctx context.Context) []core.Finding {
	ch := checker{cfg: c, cl: newCluster(c, slog.New(slog.DiscardHandler))}
	defer ch.cl.close()
	if ch.brokers(ctx) {
		ch.topics(ctx)
	}
	return ch.findings
}

type checker struct {
	cfg      *Config
	cl       *cluster
	findings []core.Finding
}

func (ch *checker) add(level core.Level, what, detail, fix string) {
	ch.findings = append(ch.findings, core.Finding{Subject: "kafka", What: what, Level: level, Detail: detail, Fix: fix})
}

// brokers tries each configured address and reports whether one can be used.
func (ch *checker) brokers(ctx context.Context) (usable bool) {
	for _, addr := range ch.cfg.Brokers {
		cn, err := dial(ctx, ch.cfg, addr)
		if err != nil {
			ch.add(core.Fail, "broker "+addr, err.Error(), brokerFix(err))
			continue
		}
		cn.close()
		usable = true
		ch.add(core.OK, "broker "+addr, ch.cfg.security(), "")
	}
	return usable
}

func brokerFix(err error) string {
	if errors.Is(err, errSASLHangUp) {
		return "check the sasl settings, and that the broker runs: its log says why it hung up"
	}
	if core.IsPermanent(err) {
		return "correct the tls or sasl settings, or the user's rights on the broker"
	}
	return "check the address, that the broker runs, and that no firewall is between"
}

// security says in words how we are connected.
func (c *Config) security() string {
	s := "reached"
	if c.TLS.Enabled {
		s += " over TLS"
	}
	if c.SASL.Mechanism != "" {
		s += ", logged in as " + c.SASL.Username + " by " + c.SASL.Mechanism
	}
	return s
}

func (ch *checker) topics(ctx context.Context) {
	want := ch.cfg.topics()
	if err := ch.cl.refresh(ctx, want); err != nil {
		ch.add(core.Fail, "topics", err.Error(), "see the broker's log")
		return
	}
	settings := map[string]map[string]string{}
	for _, t := range want {
		if ch.cl.topics[t.name].err != 0 {
			continue
		}
		got, err := ch.cl.describe(ctx, []topic{t}, configPolicy, configMinInsync, configMaxMessage)
		if err != nil {
			ch.add(core.Warn, "topic "+t.name, err.Error(), "grant the user DescribeConfigs on the topic to have its settings checked")
			continue
		}
		settings[t.name] = got[t.name]
	}
	for _, t := range want {
		ch.topic(t, settings[t.name])
	}
}

func (ch *checker) topic(t topic, settings map[string]string) {
	info, what := ch.cl.topics[t.name], "topic "+t.name
	switch {
	case info.err == kafkago.UnknownTopicOrPartition && ch.cfg.CreateTopics:
		ch.add(core.OK, what, fmt.Sprintf("does not exist yet; run creates it with %d partitions and cleanup.policy=%s",
			ch.cfg.Partitions, t.policy()), "")
		return
	case info.err == kafkago.UnknownTopicOrPartition:
		ch.add(core.Fail, what, "does not exist", fmt.Sprintf("create it with cleanup.policy=%s, or set create_topics: true", t.policy()))
		return
	case info.err != 0:
		ch.add(core.Fail, what, info.err.Error(), "grant the user Describe and Write on the topic")
		return
	}
	before := len(ch.findings)
	ch.policy(t, what, settings[configPolicy])
	ch.replicas(what, info, settings[configMinInsync])
	ch.sizes(what, settings[configMaxMessage])
	ch.rights(what, info)
	if n := len(info.leaders); n != ch.cfg.Partitions {
		ch.add(core.Warn, what, fmt.Sprintf("has %d partitions, the configuration says %d", n, ch.cfg.Partitions),
			"set partitions to what the topic has; adding partitions to a topic moves its keys")
	}
	if len(ch.findings) == before {
		ch.add(core.OK, what, fmt.Sprintf("%d partitions, cleanup.policy=%s", len(info.leaders), settings[configPolicy]), "")
	}
}

func (ch *checker) policy(t topic, what, got string) {
	switch {
	case got == "" || policyFits(t, got):
	case t.policy() == policyCompact:
		ch.add(core.Fail, what, "cleanup.policy is "+got+": calls that stand longer than its retention will be forgotten",
			"set cleanup.policy=compact on the topic")
	default:
		ch.add(core.Fail, what, "cleanup.policy is "+got+": only the last event of each key would be kept",
			"set cleanup.policy=delete on the topic")
	}
}

// replicas compares each partition's replicas with min.insync.replicas.
func (ch *checker) replicas(what string, info topicInfo, setting string) {
	minInsync, err := strconv.Atoi(setting)
	if err != nil {
		minInsync = 1
	}
	fewest, insync := 1<<30, 1<<30
	var leaderless []string
	for _, p := range info.replica {
		fewest, insync = min(fewest, len(p.ReplicaNodes)), min(insync, len(p.IsrNodes))
		if p.LeaderID < 0 {
			leaderless = append(leaderless, strconv.Itoa(int(p.PartitionIndex)))
		}
	}
	switch {
	case len(info.replica) == 0:
	case len(leaderless) > 0:
		ch.add(core.Fail, what, "no leader for partition "+strings.Join(leaderless, ", "), "bring the brokers that hold it back")
	case insync < minInsync:
		ch.add(core.Fail, what, fmt.Sprintf("%d replicas are in sync, min.insync.replicas is %d: writes are refused", insync, minInsync),
			"bring the missing brokers back, or lower min.insync.replicas")
	case fewest == 1:
		ch.add(core.Warn, what, "has one replica: a lost disk loses events", "use a replication factor of 3 in production")
	case minInsync == 1:
		ch.add(core.Warn, what, fmt.Sprintf("has %d replicas but min.insync.replicas is 1: an event counts as delivered with one copy", fewest),
			"set min.insync.replicas=2 on the topic")
	}
}

func (ch *checker) sizes(what, setting string) {
	if n, err := strconv.Atoi(setting); err == nil && n < ch.cfg.BatchBytes {
		ch.add(core.Warn, what, fmt.Sprintf("max.message.bytes is %d, batch_bytes %d: full batches will be refused and split", n, ch.cfg.BatchBytes),
			"lower batch_bytes, or raise max.message.bytes on the topic")
	}
}

// operationWrite is the bit of AclOperation.WRITE in the authorized operations.
const operationWrite = 1 << 4

func (ch *checker) rights(what string, info topicInfo) {
	if info.allowed != noOperations && info.allowed != 0 && info.allowed&operationWrite == 0 {
		ch.add(core.Fail, what, "this user may not write to it", "grant the user Write on the topic")
	}
}
