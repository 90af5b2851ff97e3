package esl

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Kind is the adapter kind as it is written in a configuration, and Instance.Kind.
const Kind = "freeswitch"

// Formats an event socket can be asked to send events in; both carry the same fields.
const (
	FormatJSON  = "json"
	FormatPlain = "plain"
)

// Defaults of Config.
const (
	DefaultPort             = "8021"
	DefaultHeartbeatTimeout = 50 * time.Second
	DefaultReadTimeout      = 10 * time.Second
	DefaultMaxHeaderBytes   = 64 << 10
	DefaultMaxHeaders       = 256
	DefaultMaxBodyBytes     = 4 << 20
	DefaultQueue            = 8192
	DefaultIVRVariable      = "ivr_path"
)

// Config is the settings of one FreeSWITCH event-socket link. A zero field takes its default.
type Config struct {
	Address          string        `yaml:"address"`           // host or host:port; port 8021 when left out
	Password         core.Secret   `yaml:"password"`          // of event_socket.conf
	Format           string        `yaml:"format"`            // json or plain
	TLS              *core.TLS     `yaml:"tls"`               // for a link behind stunnel or another TLS relay
	IVRVariable      string        `yaml:"ivr_variable"`      // the channel variable that holds the menu path
	Variables        []string      `yaml:"variables"`         // channel variables and sip_h_X-… headers to carry as attributes
	HeartbeatTimeout time.Duration `yaml:"heartbeat_timeout"` // silence after which the link counts as dead
	ReadTimeout      time.Duration `yaml:"read_timeout"`      // longest a started frame may take to arrive, per MiB
	MaxHeaderBytes   int           `yaml:"max_header_bytes"`  // of one frame
	MaxHeaders       int           `yaml:"max_headers"`       // of one frame
	MaxBodyBytes     int           `yaml:"max_body_bytes"`    // of one event
	Queue            int           `yaml:"queue"`             // events that may wait between the socket and the router
	Raw              bool          `yaml:"raw"`               // also deliver every native frame to the raw stream, for audit
}

// NewConfig returns a Config with every default filled in, to decode a configuration over.
func NewConfig() *Config {
	c := (&Config{}).withDefaults()
	return &c
}

func (c *Config) withDefaults() Config {
	d := *c
	setDefault(&d.Format, FormatJSON)
	setDefault(&d.IVRVariable, DefaultIVRVariable)
	setDefault(&d.HeartbeatTimeout, DefaultHeartbeatTimeout)
	setDefault(&d.ReadTimeout, DefaultReadTimeout)
	setDefault(&d.MaxHeaderBytes, DefaultMaxHeaderBytes)
	setDefault(&d.MaxHeaders, DefaultMaxHeaders)
	setDefault(&d.MaxBodyBytes, DefaultMaxBodyBytes)
	setDefault(&d.Queue, DefaultQueue)
	return d
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// RawPassthrough reports whether every native frame is also wanted on the raw stream. The bytes are in Frame.Raw anyway;
// copying them there is the host's work.
func (c *Config) RawPassthrough() bool { return c.Raw }

// Validate returns every fault, each naming the field.
func (c *Config) Validate() []error {
	d := c.withDefaults()
	errs := d.validateLink()
	errs = append(errs, inRange("heartbeat_timeout", d.HeartbeatTimeout, time.Second, time.Hour)...)
	errs = append(errs, inRange("read_timeout", d.ReadTimeout, 100*time.Millisecond, 10*time.Minute)...)
	errs = append(errs, inRange("max_header_bytes", d.MaxHeaderBytes, 1<<10, 1<<20)...)
	errs = append(errs, inRange("max_headers", d.MaxHeaders, 8, 100_000)...)
	errs = append(errs, inRange("max_body_bytes", d.MaxBodyBytes, 16<<10, 64<<20)...)
	errs = append(errs, inRange("queue", d.Queue, 16, 1<<20)...)
	errs = append(errs, variableName("ivr_variable", d.IVRVariable)...)
	for i, v := range d.Variables {
		errs = append(errs, variableName(fmt.Sprintf("variables[%d]", i), v)...)
	}
	return errs
}

func (c *Config) validateLink() []error {
	var errs []error
	if err := validAddress(c.Address); err != nil {
		errs = append(errs, fmt.Errorf("address: %w", err))
	}
	if c.Password.IsZero() {
		errs = append(errs, errors.New("password: not set; write {env: NAME} or {file: PATH} with the password of event_socket.conf"))
	}
	if c.Format != FormatJSON && c.Format != FormatPlain {
		errs = append(errs, fmt.Errorf("format: %q is not known; use json or plain", c.Format))
	}
	if c.TLS != nil {
		errs = append(errs, c.TLS.Validate("tls")...)
	}
	return errs
}

func validAddress(s string) error {
	if s == "" {
		return errors.New("not set; give the host and port of the event socket, such as pbx1.example.com:8021")
	}
	host, port, err := net.SplitHostPort(withPort(s))
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not between 1 and 65535", port)
	}
	if host == "" || strings.ContainsAny(host, " /\r\n\t") {
		return fmt.Errorf("host %q is not a host name or address", host)
	}
	return nil
}

// withPort adds the default port to a bare host or IPv6 address.
func withPort(s string) string {
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s
	}
	if ip := net.ParseIP(strings.Trim(s, "[]")); ip != nil {
		return net.JoinHostPort(ip.String(), DefaultPort)
	}
	if strings.Contains(s, ":") {
		return s
	}
	return net.JoinHostPort(s, DefaultPort)
}

func inRange[T int | time.Duration](field string, v, low, high T) []error {
	if v < low || v > high {
		return []error{fmt.Errorf("%s: %v is outside %v to %v", field, v, low, high)}
	}
	return nil
}

func variableName(field, s string) []error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' }) {
		return []error{fmt.Errorf("%s: %q is not a channel variable's name", field, s)}
	}
	if strings.HasPrefix(s, "variable_") {
		return []error{fmt.Errorf("%s: write %q without variable_", field, s)}
	}
	return nil
}

// Open makes the adapter for the switch link id. It does not connect.
func (c *Config) Open(id string, env core.Env) (core.Adapter, error) {
	if errs := c.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("opening FreeSWITCH link %s: %w", id, errors.Join(errs...))
	}
	return newAdapter(id, c.withDefaults(), env), nil
}
