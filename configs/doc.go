// Package configs loads the gateway's configuration: one YAML file, read strictly, defaults filled in, every fault
// found at once and named by its line and path, and printed back without its secrets.
//
// Nothing in the file is expanded: "${…}" is text. A secret is written {env: NAME} or {file: PATH} and read when it
// is used. ctigate.example.yaml shows every key with its default.
package configs

import (
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/cluster"
)

// MaxSize bounds a configuration file, in bytes.
const MaxSize = 1 << 20

// Kinds holds the plugin kinds a program has, as constructors of their settings with defaults filled in.
type Kinds struct {
	Switches map[string]func() core.AdapterConfig
	Sinks    map[string]func() core.SinkConfig
	// Folder, when set, returns the folder that a sink must have for itself, "" for none.
	Folder func(core.SinkConfig) string
}

// Config is a validated configuration.
type Config struct {
	Path     string `yaml:"-"`
	Switches []Switch
	Sinks    []Sink
	Journal  Journal
	Cluster  *cluster.Config // nil: this gateway is alone

	Enrich    Enrich
	Freshness Freshness
	Telemetry Telemetry
	Log       Log
	// DrainTimeout bounds how long a shutdown waits for sinks to accept what was received.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	// RawPassthrough copies every native frame to the raw stream of its switch, for audit.
	RawPassthrough bool `yaml:"raw_passthrough"`

	// FileSinkByDefault is true when no sink was configured and the file sink was put in.
	FileSinkByDefault bool `yaml:"-"`
}

// Switch is one switch link.
type Switch struct {
	ID   string
	Kind string

	Config core.AdapterConfig `yaml:"-"` // the kind's own keys
}

// Sink is one delivery target.
type Sink struct {
	Name string // the kind, unless given
	Kind string
	// WhenFull says what happens once the sink's queue is full: block (everything waits), the default for a sink alone,
	// or drop (counted, and told by a source.gap), the default for one of several: sinks must not stall one another.
	WhenFull string `yaml:"when_full"`

	Config core.SinkConfig `yaml:"-"` // the kind's own keys
}

// Values of Sink.WhenFull.
const (
	Block = "block"
	Drop  = "drop"
)

// Journal is where events are kept until every sink has them, and what a restart goes on from.
type Journal struct {
	Dir      string        // a folder of its own; empty for no journal
	MaxBytes int64         `yaml:"max_bytes"` // of the folder
	MaxAge   time.Duration `yaml:"max_age"`   // of what is kept for a sink that does not take it; older events are dropped
	// WhenFull says what happens at max_bytes: block (the links wait) or drop_oldest (counted, and told by a source.gap).
	WhenFull     string `yaml:"when_full"`
	SegmentBytes int64  `yaml:"segment_bytes"` // of one file
}

// DropOldest is a value of Journal.WhenFull; Block is the other.
const DropOldest = "drop_oldest"

// Enrich is what is added to calls from tables.
type Enrich struct {
	// DefaultRegion is the ISO 3166 region that national numbers are read in: "US", "DE". Empty derives nothing from them.
	DefaultRegion string `yaml:"default_region"`
	Numbers       []Number
}

// Number says what a dialed number, or every number with a prefix, stands for.
type Number struct {
	Dialed string
	Prefix string
	Tenant string
	Queue  string
	Label  string
}

// Freshness holds the thresholds of the freshness verdicts.
type Freshness struct {
	Fresh          time.Duration         // oldest age that is fresh
	Late           time.Duration         // oldest age that is late; older is stale
	FutureSlack    time.Duration         `yaml:"future_slack"`    // how far ahead of us an event may be, beyond the clock's uncertainty
	MaxUncertainty time.Duration         `yaml:"max_uncertainty"` // of the switch's clock; above it the verdict is unknown
	PerType        map[string]Thresholds `yaml:"per_type"`
}

// Thresholds are those of one event type; zero takes the general one.
type Thresholds struct {
	Fresh time.Duration `yaml:",omitempty"`
	Late  time.Duration `yaml:",omitempty"`
}

// Telemetry is where metrics, traces and health are offered.
type Telemetry struct {
	Listen      string      // host:port of /metrics, /healthz, /readyz; "off" for none
	AllowRemote bool        `yaml:"allow_remote"` // needed, with a token, to listen beyond loopback
	Token       core.Secret // bearer token for everything but /healthz
	OTLP        OTLP
}

// OTLP is where metrics and traces are sent, by OTLP over HTTP.
type OTLP struct {
	Endpoint string // https://collector:4318; empty sends nothing
	Headers  map[string]core.Secret
	Interval time.Duration // between metric exports
	Metrics  bool
	Traces   bool // one trace a call
}

// Log is how the gateway logs.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Default returns the configuration of an empty file, without switches and sinks.
func Default() *Config {
	return &Config{
		Journal: Journal{MaxBytes: 10 << 30, MaxAge: 72 * time.Hour, WhenFull: Block, SegmentBytes: 64 << 20},
		Freshness: Freshness{
			Fresh: time.Second, Late: 10 * time.Second, FutureSlack: 250 * time.Millisecond, MaxUncertainty: time.Second,
		},
		Telemetry: Telemetry{
			Listen: "127.0.0.1:9464", OTLP: OTLP{Interval: 15 * time.Second, Metrics: true, Traces: true},
		},
		Log:          Log{Level: "info", Format: "text"},
		DrainTimeout: 15 * time.Second,
	}
}
