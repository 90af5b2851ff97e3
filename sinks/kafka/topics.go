package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
)

// streams have one topic each, made or checked when the sink opens. Raw passthrough has one a switch, made when first
// needed.
var streams = []core.Stream{
	core.StreamEvents, core.StreamCalls, core.StreamRecords, core.StreamMedia, core.StreamSources, core.StreamStale,
	core.StreamDeadLetter,
}

const (
	policyCompact = "compact"
	policyDelete  = "delete"

	configPolicy     = "cleanup.policy"
	configRetention  = "retention.ms"
	configMinInsync  = "min.insync.replicas"
	configMaxMessage = "max.message.bytes"
	configTimestamps = "message.timestamp.type"
)

// delivers reports whether a stream has a topic.
func delivers(stream core.Stream) bool {
	return slices.Contains(streams, stream) || stream == core.StreamRaw
}

// topic is what the sink wants of one topic.
type topic struct {
	name   string
	stream core.Stream
	log    *LogConfig // of a Log's topic; nil: a stream's
}

// topicOf names the topic of an item's stream: cti.events.v1, cti.raw.pbx1.v1.
func (c *Config) topicOf(stream core.Stream, switchID string) topic {
	if stream != core.StreamRaw {
		return topic{name: c.TopicPrefix + string(stream) + ".v1", stream: stream}
	}
	return topic{name: c.TopicPrefix + "raw." + topicPart(switchID) + ".v1", stream: stream}
}

func (c *Config) topics() []topic {
	ts := make([]topic, len(streams))
	for i, s := range streams {
		ts[i] = c.topicOf(s, "")
	}
	return ts
}

func (t topic) policy() string {
	if t.stream == core.StreamCalls {
		return policyCompact
	}
	return policyDelete
}

// topicPart makes any switch id fit into a topic name.
func topicPart(id string) string {
	fit := strings.Map(func(r rune) rune {
		if topicRune(r) {
			return r
		}
		return '-'
	}, id)
	return fit[:min(len(fit), 100)]
}

func topicRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// validTopic is Kafka's rule: 1 to 249 of letters, digits, dot, underscore and dash.
func validTopic(name string) bool {
	return name != "" && len(name) <= 249 && !strings.ContainsFunc(name, func(r rune) bool { return !topicRune(r) })
}

// settings are the topic configurations given on creation.
func (c *Config) settings(t topic) []createtopics.RequestConfig {
	cfg := []createtopics.RequestConfig{{Name: configPolicy, Value: t.policy()}}
	d, ok := c.Retention[t.stream]
	if t.log != nil {
		d, ok = t.log.Retention, true
		cfg = append(cfg, createtopics.RequestConfig{Name: configMaxMessage, Value: strconv.Itoa(t.log.MaxEntry + batchOverhead)},
			createtopics.RequestConfig{Name: configTimestamps, Value: "LogAppendTime"}) // retention must not go by a node's clock
	}
	if ok {
		ms := d.Milliseconds()
		if d == 0 {
			ms = -1
		}
		cfg = append(cfg, createtopics.RequestConfig{Name: configRetention, Value: strconv.FormatInt(ms, 10)})
	}
	if c.MinInsyncReplicas > 0 {
		cfg = append(cfg, createtopics.RequestConfig{Name: configMinInsync, Value: strconv.Itoa(c.MinInsyncReplicas)})
	}
	return cfg
}

// ensure makes sure that the topics exist, creating the missing ones where that is allowed.
func (cl *cluster) ensure(ctx context.Context, want []topic) error {
	missing, err := cl.missing(ctx, want)
	if err != nil || len(missing) == 0 {
		return err
	}
	if !cl.cfg.CreateTopics {
		return core.Permanent(fmt.Errorf("topic %s does not exist and create_topics is false: create it with %s=%s, "+
			"or set create_topics: true", missing[0].name, configPolicy, missing[0].policy()))
	}
	if err := cl.create(ctx, missing); err != nil {
		return err
	}
	return cl.await(ctx, missing)
}

// missing returns those of want that the cluster does not have.
func (cl *cluster) missing(ctx context.Context, want []topic) ([]topic, error) {
	if err := cl.refresh(ctx, want); err != nil {
		return nil, err
	}
	var missing []topic
	for _, t := range want {
		switch code := cl.topics[t.name].err; code {
		case 0, kafkago.LeaderNotAvailable:
		case kafkago.UnknownTopicOrPartition:
			missing = append(missing, t)
		default:
			return nil, topicError(t.name, code, "looking it up")
		}
	}
	return missing, nil
}

// await polls the metadata until created topics have spread through the cluster and have leaders.
func (cl *cluster) await(ctx context.Context, created []topic) error {
	for wait := newBackoff(); ; {
		missing, err := cl.missing(ctx, created)
		if err != nil {
			return err
		}
		if len(missing) == 0 && !slices.ContainsFunc(created, func(t topic) bool { return !cl.topics[t.name].led() }) {
			return nil
		}
		if err := wait.sleep(ctx); err != nil {
			return fmt.Errorf("waiting for created topics to get leaders (%s …): %w", created[0].name, err)
		}
	}
}

func (cl *cluster) create(ctx context.Context, missing []topic) error {
	req := &createtopics.Request{TimeoutMs: int32(cl.cfg.RequestTimeout.Milliseconds() / 2)}
	for _, t := range missing {
		partitions := cl.cfg.Partitions
		if t.log != nil {
			partitions = 1
		}
		req.Topics = append(req.Topics, createtopics.RequestTopic{
			Name: t.name, NumPartitions: int32(partitions), ReplicationFactor: int16(cl.cfg.ReplicationFactor),
			Configs: cl.cfg.settings(t),
		})
	}
	m, err := cl.askController(ctx, req)
	if err != nil {
		return fmt.Errorf("creating topics: %w", err)
	}
	for _, r := range m.(*createtopics.Response).Topics {
		switch code := kafkago.Error(r.ErrorCode); code {
		case 0:
			cl.log.Info("created Kafka topic", "topic", r.Name)
		case kafkago.TopicAlreadyExists: // another gateway was faster
		default:
			return topicError(r.Name, code, "creating it"+detail(r.ErrorMessage))
		}
	}
	return nil
}

// policies refuses topics whose cleanup.policy would delete events behind the consumers' backs, and warns of lesser
// faults. A cluster that does not let us read topic configurations is taken as it is.
func (cl *cluster) policies(ctx context.Context, want []topic) error {
	settings, err := cl.describe(ctx, want, configPolicy)
	if err != nil {
		cl.log.Warn("could not check the cleanup.policy of the topics", "err", err)
		return nil
	}
	for _, t := range want {
		got := settings[t.name][configPolicy]
		if got == "" || policyFits(t, got) {
			continue
		}
		if t.policy() == policyDelete {
			return core.Permanent(fmt.Errorf("topic %s has cleanup.policy=%s, which would keep only the last event of each key: "+
				"set it to delete", t.name, got))
		}
		cl.log.Warn("the calls topic is not compacted: calls that stand longer than its retention will be forgotten",
			"topic", t.name, "cleanup.policy", got)
	}
	return nil
}

// policyFits accepts compact,delete for the calls topic.
func policyFits(t topic, got string) bool {
	compacts := strings.Contains(got, policyCompact)
	return compacts == (t.policy() == policyCompact)
}

const resourceTopic = 2

// describe reads topic configurations: by topic, by name.
func (cl *cluster) describe(ctx context.Context, want []topic, names ...string) (map[string]map[string]string, error) {
	req := &describeconfigs.Request{}
	for _, t := range want {
		req.Resources = append(req.Resources, describeconfigs.RequestResource{
			ResourceType: resourceTopic, ResourceName: t.name, ConfigNames: names,
		})
	}
	m, err := cl.ask(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("reading topic configurations: %w", err)
	}
	got := make(map[string]map[string]string)
	for _, r := range m.(*describeconfigs.Response).Resources {
		if r.ErrorCode != 0 {
			return nil, topicError(r.ResourceName, kafkago.Error(r.ErrorCode), "reading its configuration"+detail(r.ErrorMessage))
		}
		got[r.ResourceName] = make(map[string]string)
		for _, e := range r.ConfigEntries {
			got[r.ResourceName][e.ConfigName] = e.ConfigValue
		}
	}
	return got, nil
}
