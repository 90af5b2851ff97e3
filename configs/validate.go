package configs

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// report tells of one fault.
type report func(path, format string, args ...any)

// validate checks what the plugins do not check themselves.
func validate(c *Config, fault report) {
	if len(c.Switches) == 0 {
		fault("switches", "is empty: name at least one switch, as in \"- {id: pbx1, kind: ari, url: …}\"")
	}
	validateNames(c, fault)
	validateJournal(c.Journal, fault)
	validateCluster(c, fault)
	validateEnrich(c.Enrich, fault)
	validateFreshness(c.Freshness, fault)
	validateTelemetry(c.Telemetry, fault)
	oneOf("log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}, fault)
	oneOf("log.format", c.Log.Format, []string{"text", "json"}, fault)
	within("drain_timeout", c.DrainTimeout, 0, 10*time.Minute, fault)
}

// nameRule keeps ids fit for topic names, file names and metric labels.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func validateNames(c *Config, fault report) {
	ids := map[string]int{}
	for i, s := range c.Switches {
		checkName(fmt.Sprintf("switches[%d].id", i), "switches", s.ID, i, ids, fault)
	}
	sinks := map[string]int{}
	for i, s := range c.Sinks {
		path := fmt.Sprintf("sinks[%d]", i)
		checkName(path+".name", "sinks", s.Name, i, sinks, fault)
		oneOf(path+".when_full", s.WhenFull, []string{Block, Drop}, fault)
	}
}

func checkName(path, list, name string, i int, seen map[string]int, fault report) {
	first, twice := seen[name]
	switch {
	case name == "":
		fault(path, "is missing: give it a short name of its own")
	case !nameRule.MatchString(name):
		fault(path, "%q must be 1 to 63 letters, digits, dots, dashes or underscores, and start with a letter or digit", name)
	case twice:
		fault(path, "%q is also the name of %s[%d]: each needs its own", name, list, first)
	default:
		seen[name] = i
	}
}

func validateJournal(j Journal, fault report) {
	oneOf("journal.when_full", j.WhenFull, []string{Block, DropOldest}, fault)
	within("journal.max_age", j.MaxAge, time.Minute, 10*365*24*time.Hour, fault)
	if j.SegmentBytes < 16<<20 || j.SegmentBytes > 1<<30 {
		fault("journal.segment_bytes", "%d must be between 16777216 (16 MiB) and 1073741824 (1 GiB)", j.SegmentBytes)
	}
	if j.MaxBytes < 4*j.SegmentBytes {
		fault("journal.max_bytes", "%d must be at least four times segment_bytes, %d", j.MaxBytes, 4*j.SegmentBytes)
	}
}

func validateCluster(c *Config, fault report) {
	if c.Cluster == nil {
		return
	}
	for _, err := range c.Cluster.Validate() {
		field, what, _ := strings.Cut(err.Error(), ": ")
		fault("cluster."+field, "%s", what)
	}
	if c.Journal.Dir == "" {
		fault("journal.dir", "is needed in a cluster: events are kept there until Kafka has them")
	}
	if n := len(slices.DeleteFunc(slices.Clone(c.Sinks), func(s Sink) bool { return s.Kind != "kafka" })); n != 1 {
		fault("cluster", "needs exactly one sink of kind kafka, there are %d: that Kafka decides which node owns the switches", n)
	}
}

var regionRule = regexp.MustCompile(`^[A-Z]{2}$`)

func validateEnrich(e Enrich, fault report) {
	if e.DefaultRegion != "" && !regionRule.MatchString(e.DefaultRegion) {
		fault("enrich.default_region", "%q is not a region: use the two capital letters of ISO 3166, such as US or DE", e.DefaultRegion)
	}
	seen := map[Number]int{}
	for i, n := range e.Numbers {
		path := fmt.Sprintf("enrich.numbers[%d]", i)
		if (n.Dialed == "") == (n.Prefix == "") {
			fault(path, "needs exactly one of dialed and prefix")
			continue
		}
		if n.Tenant == "" && n.Queue == "" && n.Label == "" {
			fault(path, "says nothing about the number: give it a tenant, a queue or a label")
		}
		key := Number{Dialed: n.Dialed, Prefix: n.Prefix}
		if first, twice := seen[key]; twice {
			fault(path, "is the same number as enrich.numbers[%d]: keep one", first)
		}
		seen[key] = i
	}
}

func validateFreshness(f Freshness, fault report) {
	thresholds("freshness", Thresholds{f.Fresh, f.Late}, fault)
	within("freshness.future_slack", f.FutureSlack, time.Millisecond, time.Hour, fault)
	within("freshness.max_uncertainty", f.MaxUncertainty, time.Millisecond, time.Hour, fault)
	for _, name := range names(f.PerType) {
		path := "freshness.per_type." + name
		if !slices.Contains(eventTypes, call.EventType(name)) {
			hint := "see the event types in the documentation"
			if near := nearest(name, typeNames()); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			fault(path, "unknown event type; %s", hint)
			continue
		}
		t := f.PerType[name]
		if t.Fresh == 0 {
			t.Fresh = f.Fresh
		}
		if t.Late == 0 {
			t.Late = f.Late
		}
		thresholds(path, t, fault)
	}
}

func thresholds(path string, t Thresholds, fault report) {
	switch {
	case t.Fresh <= 0:
		fault(path+".fresh", "must be more than 0, such as 1s")
	case t.Late < t.Fresh:
		fault(path+".late", "%s is less than fresh (%s): late must be the larger", t.Late, t.Fresh)
	}
}

func validateTelemetry(t Telemetry, fault report) {
	if t.Listen != Off {
		validateListen(t, fault)
	}
	within("telemetry.otlp.interval", t.OTLP.Interval, time.Second, time.Hour, fault)
	if t.OTLP.Endpoint == "" {
		return
	}
	u, err := url.Parse(t.OTLP.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		fault("telemetry.otlp.endpoint", "is not a URL: write http://HOST:4318 or https://HOST:4318")
	} else if u.User != nil {
		fault("telemetry.otlp.endpoint", "must not hold a password: put it in telemetry.otlp.headers")
	}
}

// Off turns the telemetry server off, as its listen address.
const Off = "off"

func validateListen(t Telemetry, fault report) {
	host, port, err := net.SplitHostPort(t.Listen)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 || strings.ContainsAny(host, " /") {
		fault("telemetry.listen", "%q is not host:port: write 127.0.0.1:9464, or off for none", t.Listen)
		return
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return
	}
	if !t.AllowRemote {
		fault("telemetry.listen", "%s is reachable from other machines: use 127.0.0.1, or set allow_remote: true and a token", t.Listen)
	}
	if t.Token.IsZero() {
		fault("telemetry.token", "is needed to listen beyond loopback (%s)", t.Listen)
	}
}

func within(path string, v, low, high time.Duration, fault report) {
	if v < low || v > high {
		fault(path, "%s must be between %s and %s", v, low, high)
	}
}

func oneOf(path, v string, allowed []string, fault report) {
	if !slices.Contains(allowed, v) {
		fault(path, "%q must be one of %s", v, strings.Join(allowed, ", "))
	}
}

var eventTypes = []call.EventType{
	call.CallOffered, call.CallInitiated, call.CallDiverted, call.CallTransferred, call.CallConferenced, call.CallMerged,
	call.CallUpdated, call.CallEnded, call.CallRecord, call.ConnectionInitiated, call.ConnectionAlerting,
	call.ConnectionConnected, call.ConnectionHeld, call.ConnectionRetrieved, call.ConnectionFailed, call.ConnectionCleared,
	call.IVRStep, call.DTMFReceived, call.QueueEntered, call.QueueLeft, call.AgentOffered, call.AgentAccepted,
	call.AgentRejected, call.AgentNoAnswer, call.AgentState, call.MediaNegotiated, call.MediaChanged, call.MediaQuality,
	call.SourceUp, call.SourceDown, call.SourceGap, call.SourceReconciled, call.SourceClock,
}

func typeNames() []string {
	all := make([]string, len(eventTypes))
	for i, t := range eventTypes {
		all[i] = string(t)
	}
	return all
}
