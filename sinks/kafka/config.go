package kafka

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Config is the settings of a Kafka sink. Start from NewConfig: it holds the defaults.
type Config struct {
	Brokers     []string `yaml:"brokers"`      // host:port of some brokers; the others are discovered
	Client      string   `yaml:"client"`       // library that produces: kafka-go (default) or franz-go
	ClientID    string   `yaml:"client_id"`    // as brokers log it; default ctigate
	TopicPrefix string   `yaml:"topic_prefix"` // default "cti.": cti.events.v1 …
	TLS         TLS      `yaml:"tls"`
	SASL        SASL     `yaml:"sasl"`

	Encoding    string `yaml:"encoding"`    // CloudEvents content mode: binary (default) or structured
	Acks        string `yaml:"acks"`        // all; nothing else keeps the promise of the journal
	Compression string `yaml:"compression"` // none, gzip, snappy, lz4 (default), zstd

	CreateTopics      bool                          `yaml:"create_topics"`       // create what is missing; default true
	Partitions        int                           `yaml:"partitions"`          // of topics that are created; default 12
	ReplicationFactor int                           `yaml:"replication_factor"`  // of topics that are created; -1: the broker's default
	MinInsyncReplicas int                           `yaml:"min_insync_replicas"` // of topics that are created; 0: the broker's default
	Retention         map[core.Stream]time.Duration `yaml:"retention"`           // of topics that are created, by stream, 0s for ever; not for calls, which is compacted

	BatchBytes     int           `yaml:"batch_bytes"`     // one partition's batch before compression; default 900 KiB
	DialTimeout    time.Duration `yaml:"dial_timeout"`    // connect, TLS and SASL together; default 10s
	RequestTimeout time.Duration `yaml:"request_timeout"` // one request and its answer; default 10s
	WriteTimeout   time.Duration `yaml:"write_timeout"`   // one Write with all its retries; default 30s

	// Set by a host that may have to take over from another, not from a file. With a TransactionalID the sink writes
	// nothing before Fence, and nothing after another sink with the same one has been fenced in; see Sink.Fence.
	TransactionalID string   `yaml:"-"`
	FenceTopics     []string `yaml:"-"` // topics besides the sink's own that Fence closes to an earlier writer

	wrap func(net.Conn) net.Conn // for tests: what becomes of each connection
}

// TLS of the connections to brokers. Files are read at each connection, so renewed certificates are picked up.
type TLS struct {
	Enabled            bool   `yaml:"enabled"`
	CAFile             string `yaml:"ca_file"`   // PEM; default the system's
	CertFile           string `yaml:"cert_file"` // PEM, for mutual TLS
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"` // default the broker's host
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// SASL authentication; no mechanism, no authentication.
type SASL struct {
	Mechanism string      `yaml:"mechanism"` // plain, scram-sha-256, scram-sha-512
	Username  string      `yaml:"username"`
	Password  core.Secret `yaml:"password"` // read at each connection
}

const (
	encodingBinary     = "binary"
	encodingStructured = "structured"

	mechanismPlain    = "plain"
	mechanismSCRAM256 = "scram-sha-256"
	mechanismSCRAM512 = "scram-sha-512"
)

// NewConfig returns the defaults. Brokers must be set.
func NewConfig() *Config {
	return &Config{
		Client: clientKafkaGo, ClientID: "ctigate", TopicPrefix: "cti.", Encoding: encodingBinary, Acks: "all", Compression: "lz4",
		CreateTopics: true, Partitions: 12, ReplicationFactor: -1, BatchBytes: 900 << 10,
		DialTimeout: 10 * time.Second, RequestTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
	}
}

// Validate returns every fault, each naming its field.
func (c *Config) Validate() []error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf(field+": "+format, args...))
	}
	c.validateBrokers(add)
	if c.Acks != "all" {
		add("acks", "%q is not allowed: an event leaves the journal once acknowledged, and only \"all\" means that it is then kept; remove the line", c.Acks)
	}
	switch {
	case c.Client != clientKafkaGo && c.Client != clientFranz:
		add("client", "%q is unknown: use kafka-go or franz-go", c.Client)
	case c.Client == clientFranz && c.TransactionalID != "":
		add("client", "franz-go cannot take turns with another node: use kafka-go with a cluster")
	}
	if c.Encoding != encodingBinary && c.Encoding != encodingStructured {
		add("encoding", "%q is unknown: use binary or structured", c.Encoding)
	}
	if _, ok := compressions[c.Compression]; !ok {
		add("compression", "%q is unknown: use none, gzip, snappy, lz4 or zstd", c.Compression)
	}
	if !validTopic(c.TopicPrefix + "events.v1") {
		add("topic_prefix", "%q does not make a topic name: use letters, digits, dots, dashes and underscores", c.TopicPrefix)
	}
	c.validateTopics(add)
	c.validateSizes(add)
	return append(append(errs, c.TLS.validate()...), c.SASL.validate()...)
}

func (c *Config) validateBrokers(add func(string, string, ...any)) {
	if len(c.Brokers) == 0 {
		add("brokers", "at least one host:port is needed")
	}
	for i, b := range c.Brokers {
		field := fmt.Sprintf("brokers[%d]", i)
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			add(field, "%q is not host:port", b)
			continue
		}
		if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
			add(field, "%q is not host:port with a port of 1 to 65535", b)
		}
	}
}

func (c *Config) validateTopics(add func(string, string, ...any)) {
	if c.Partitions < 1 || c.Partitions > 10000 {
		add("partitions", "%d: use 1 to 10000", c.Partitions)
	}
	if c.ReplicationFactor != -1 && (c.ReplicationFactor < 1 || c.ReplicationFactor > 32767) {
		add("replication_factor", "%d: use -1 for the broker's default, or at least 1", c.ReplicationFactor)
	}
	if c.MinInsyncReplicas < 0 || c.ReplicationFactor > 0 && c.MinInsyncReplicas > c.ReplicationFactor {
		add("min_insync_replicas", "%d: use 0 for the broker's default, or 1 to replication_factor", c.MinInsyncReplicas)
	}
	for stream, d := range c.Retention {
		field := "retention." + string(stream)
		switch {
		case !delivers(stream):
			add(field, "no such stream: use %s or raw", joinStreams())
		case stream == core.StreamCalls:
			add(field, "the calls topic is compacted and has no retention")
		case d != 0 && d < time.Minute:
			add(field, "%s: use at least 1m, or 0s for ever", d)
		}
	}
}

func (c *Config) validateSizes(add func(string, string, ...any)) {
	if c.BatchBytes < 16<<10 || c.BatchBytes > 64<<20 {
		add("batch_bytes", "%d: use 16384 (16 KiB) to 67108864 (64 MiB)", c.BatchBytes)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"dial_timeout", c.DialTimeout}, {"request_timeout", c.RequestTimeout}, {"write_timeout", c.WriteTimeout}} {
		if d.value < 100*time.Millisecond || d.value > time.Hour {
			add(d.field, "%s: use 100ms to 1h", d.value)
		}
	}
	if c.WriteTimeout < c.RequestTimeout {
		add("write_timeout", "%s is less than request_timeout %s: there would be no time for a retry", c.WriteTimeout, c.RequestTimeout)
	}
}

func (t *TLS) validate() []error {
	var errs []error
	if !t.Enabled && *t != (TLS{}) {
		errs = append(errs, errors.New("tls.enabled: other tls settings are given but tls is not enabled; set enabled: true"))
	}
	return append(errs, t.files().Validate("tls")...)
}

func (s *SASL) validate() []error {
	var errs []error
	switch s.Mechanism {
	case "":
		if s.Username != "" || !s.Password.IsZero() {
			errs = append(errs, errors.New("sasl.mechanism: needed with a username or password: use plain, scram-sha-256 or scram-sha-512"))
		}
		return errs
	case mechanismPlain, mechanismSCRAM256, mechanismSCRAM512:
	default:
		errs = append(errs, fmt.Errorf("sasl.mechanism: %q is unknown: use plain, scram-sha-256 or scram-sha-512", s.Mechanism))
	}
	if s.Username == "" {
		errs = append(errs, errors.New("sasl.username: needed with a mechanism"))
	}
	if s.Password.IsZero() {
		errs = append(errs, errors.New("sasl.password: needed with a mechanism, as {env: NAME} or {file: PATH}"))
	}
	return errs
}

func joinStreams() string {
	names := make([]string, len(streams))
	for i, s := range streams {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}
