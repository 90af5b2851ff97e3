package ari

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Config is the settings of one Asterisk link. Start from NewConfig, which holds the defaults.
type Config struct {
	URL         string      `yaml:"url"`         // http(s)://host:8088/ari; the websocket's address is derived from it
	Username    string      `yaml:"username"`    // a [user] of ari.conf
	Password    core.Secret `yaml:"password"`    // its password
	Application string      `yaml:"application"` // ARI application; one reader each (default ctigate)
	TLS         core.TLS    `yaml:"tls"`         // for https
	AMI         *AMI        `yaml:"ami"`         // optional: queue and agent events

	IVRVariable string   `yaml:"ivr_variable"` // channel variable holding the menu path (default IVR_PATH)
	Variables   []string `yaml:"variables"`    // channel variables to carry into attributes

	PingInterval  time.Duration `yaml:"ping_interval"`   // how often an idle link is asked for a sign of life (default 5s)
	ReadTimeout   time.Duration `yaml:"read_timeout"`    // longest silence, and longest time for one message (default 15s)
	MaxFrameBytes int           `yaml:"max_frame_bytes"` // longest websocket message (default 4 MiB)
	Queue         int           `yaml:"queue"`           // frames read but not yet handled (default 8192)
	Raw           bool          `yaml:"raw"`             // also deliver every native frame to the raw stream, for audit
}

// AMI is the settings of the manager link beside ARI.
type AMI struct {
	Address  string      `yaml:"address"`  // host:port, usually port 5038, 5039 with TLS
	Username string      `yaml:"username"` // a [user] of manager.conf
	Password core.Secret `yaml:"password"` // its secret
	TLS      *core.TLS   `yaml:"tls"`      // present (even empty): TLS
}

// Limits of what may be configured.
const (
	maxQueue      = 1 << 17
	minFrameBytes = 1 << 10
	maxFrameBytes = 64 << 20
	maxNames      = 256
	maxInterval   = 10 * time.Minute
)

// NewConfig returns the defaults.
func NewConfig() *Config {
	return &Config{
		Application:   "ctigate",
		IVRVariable:   "IVR_PATH",
		PingInterval:  5 * time.Second,
		ReadTimeout:   15 * time.Second,
		MaxFrameBytes: 4 << 20,
		Queue:         8192,
	}
}

// Open makes the adapter for switch link id. It does not connect; settings that are legal but unwise are logged.
func (c *Config) Open(id string, env core.Env) (core.Adapter, error) {
	if err := errors.Join(c.Validate()...); err != nil {
		return nil, fmt.Errorf("opening asterisk link %s: %w", id, err)
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a, err := newAdapter(id, *c, log.With("switch", id))
	if err != nil {
		return nil, fmt.Errorf("opening asterisk link %s: %w", id, err)
	}
	for _, w := range c.warnings() {
		a.log.Warn(w)
	}
	return a, nil
}

var applicationName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,80}$`)

// RawPassthrough reports whether every native frame is also wanted on the raw stream. The bytes are in Frame.Raw anyway;
// copying them there is the host's work.
func (c *Config) RawPassthrough() bool { return c.Raw }

// Validate returns every fault, each naming the field.
func (c *Config) Validate() []error {
	f := &faults{}
	validateURL(f, c.URL)
	f.need(c.Username != "" && !strings.ContainsRune(c.Username, ':'), "username: needed, without ':': a [user] of ari.conf")
	f.need(!c.Password.IsZero(), "password: needed: the password of [%s] in ari.conf, as {env: NAME} or {file: PATH}", c.Username)
	f.need(applicationName.MatchString(c.Application),
		"application: %q is not 1 to 80 letters, digits, '.', '_' or '-'", c.Application)
	f.all = append(f.all, c.TLS.Validate("tls")...)
	f.need(c.TLS == core.TLS{} || !strings.HasPrefix(c.URL, "http:"), "tls: set, but url is http: write https")
	c.AMI.validate(f)
	c.validateNames(f)
	c.validateSizes(f)
	return f.all
}

func (c *Config) validateNames(f *faults) {
	f.need(variableName(c.IVRVariable), "ivr_variable: %q is not a channel variable's name", c.IVRVariable)
	f.need(len(c.Variables) <= maxNames, "variables: %d of them, at most %d", len(c.Variables), maxNames)
	for i, v := range c.Variables {
		f.need(variableName(v), "variables[%d]: %q is not a channel variable's name", i, v)
		f.need(slices.Index(c.Variables, v) == i, "variables[%d]: %q is given twice", i, v)
	}
}

func (c *Config) validateSizes(f *faults) {
	f.need(c.PingInterval >= 10*time.Millisecond && c.PingInterval <= maxInterval,
		"ping_interval: %v is not between 10ms and %v", c.PingInterval, maxInterval)
	f.need(c.ReadTimeout > c.PingInterval && c.ReadTimeout <= 2*maxInterval,
		"read_timeout: %v is not longer than ping_interval (%v) and at most %v", c.ReadTimeout, c.PingInterval, 2*maxInterval)
	f.need(c.MaxFrameBytes >= minFrameBytes && c.MaxFrameBytes <= maxFrameBytes,
		"max_frame_bytes: %d is not between %d and %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes)
	f.need(c.Queue >= 1 && c.Queue <= maxQueue, "queue: %d is not between 1 and %d", c.Queue, maxQueue)
}

func (m *AMI) validate(f *faults) {
	if m == nil {
		return
	}
	host, port, err := net.SplitHostPort(m.Address)
	f.need(err == nil && host != "" && port != "", "ami.address: %q is not host:port, such as 127.0.0.1:5038", m.Address)
	f.need(m.Username != "", "ami.username: needed: a [user] of manager.conf")
	f.need(!strings.ContainsAny(m.Username, "\r\n"), "ami.username: must be one line")
	f.need(!m.Password.IsZero(), "ami.password: needed: the secret of [%s] in manager.conf, as {env: NAME} or {file: PATH}", m.Username)
	if m.TLS != nil {
		f.all = append(f.all, m.TLS.Validate("ami.tls")...)
	}
}

func validateURL(f *faults, raw string) {
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		f.add("url: %q is not a URL: write http(s)://host:8088/ari", redactURL(raw))
		return
	}
	f.need(u.Scheme == "http" || u.Scheme == "https", "url: scheme %q: write http or https", u.Scheme)
	f.need(u.Hostname() != "", "url: no host: write http(s)://host:8088/ari")
	f.need(u.User == nil, "url: must not hold a user or password: use username and password")
	f.need(u.RawQuery == "" && u.Fragment == "", "url: must not have a query or fragment")
	f.need(strings.Trim(u.Path, "/") != "", "url: no path: with the default http.conf it ends in /ari")
}

// redactURL keeps what a message may show of a URL that did not parse.
func redactURL(raw string) string {
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		return "…" + raw[i:]
	}
	return raw
}

// variableName reports whether s may name a channel variable or a dialplan function, such as CHANNEL(linkedid).
func variableName(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == ',' || r == 0x7f })
}

// warnings are settings that work and should not stay so.
func (c *Config) warnings() []string {
	var w []string
	u, err := url.Parse(c.URL)
	if err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
		w = append(w, "url: the ARI password and all call data travel unencrypted: set tlsenable=yes in http.conf and use https")
	}
	if c.TLS.InsecureSkipVerify {
		w = append(w, "tls.insecure_skip_verify: anybody on the way can pose as the switch: set tls.ca_file instead")
	}
	if c.AMI == nil {
		return w
	}
	host, _, _ := net.SplitHostPort(c.AMI.Address)
	if c.AMI.TLS == nil && !loopback(host) {
		w = append(w, "ami.address: the manager secret travels unencrypted: set tlsenable=yes in manager.conf and ami.tls")
	}
	if c.AMI.TLS != nil && c.AMI.TLS.InsecureSkipVerify {
		w = append(w, "ami.tls.insecure_skip_verify: anybody on the way can pose as the switch: set ami.tls.ca_file instead")
	}
	return w
}

func loopback(host string) bool {
	if strings.EqualFold(cmp.Or(host, "localhost"), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// faults collects what is wrong with a configuration.
type faults struct{ all []error }

func (f *faults) add(format string, args ...any) { f.all = append(f.all, fmt.Errorf(format, args...)) }

func (f *faults) need(ok bool, format string, args ...any) {
	if !ok {
		f.add(format, args...)
	}
}
