package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/capture"
	"github.com/ctigate/ctigate/adapters/sip/dialoginfo"
	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/adapters/sip/siprec"
	"github.com/ctigate/ctigate/core"
)

// Kind is the adapter kind as it is written in a configuration, and Instance.Kind.
const Kind = "sip"

// Views: what a dialog is.
const (
	// ViewAuto takes a dialog for one leg where one of its ends is a switch whose other legs may be seen, else for two.
	ViewAuto = "auto"
	// ViewTrunk takes every dialog for a whole call of two parties: on a trunk, what is behind the switch is not seen.
	ViewTrunk = "trunk"
)

// Defaults of Config.
const (
	DefaultQualityInterval = 10 * time.Second
	DefaultJitterBuffer    = 60 * time.Millisecond
	DefaultMaxDialogs      = 50_000
	DefaultMaxStreams      = 40_000
	DefaultMaxMessageBytes = 64 << 10
	DefaultQueue           = 16384
)

// Config is the settings of one SIP link. At least one way in is needed. A zero field takes its default.
type Config struct {
	Capture            *Capture           `yaml:"capture"`             // packets of a network interface
	HEP                *hep.Config        `yaml:"hep"`                 // packets from capture agents
	SIPREC             *siprec.Config     `yaml:"siprec"`              // streams from recording clients
	Dialogs            *dialoginfo.Config `yaml:"dialogs"`             // subscriptions; they are a link of their own
	PBX                []string           `yaml:"pbx"`                 // addresses of switches: IP, IP:port or CIDR; learned when left out
	View               string             `yaml:"view"`                // auto or trunk
	CorrelationHeaders []string           `yaml:"correlation_headers"` // of INVITEs: equal values are one call, on other switches too
	Variables          []string           `yaml:"variables"`           // headers of INVITEs to carry as attributes
	Quality            Quality            `yaml:"quality"`
	MaxDialogs         int                `yaml:"max_dialogs"`       // followed at once
	MaxStreams         int                `yaml:"max_streams"`       // RTP streams measured at once
	MaxMessageBytes    int                `yaml:"max_message_bytes"` // of one SIP message
	Queue              int                `yaml:"queue"`             // frames that may wait for the router
	Raw                bool               `yaml:"raw"`               // also deliver every SIP message to the raw stream, for audit
}

// Quality is how RTP is measured.
type Quality struct {
	Interval     time.Duration `yaml:"interval"`      // between reports of one stream
	JitterBuffer time.Duration `yaml:"jitter_buffer"` // assumed of receivers
}

// Capture is a live interface.
type Capture struct {
	Interface   string   `yaml:"interface"`   // its name, or any
	Promiscuous bool     `yaml:"promiscuous"` // for a mirrored port
	Ports       []string `yaml:"ports"`       // of SIP and RTP: 5060, 10000-20000; all when left out
	RingBytes   int      `yaml:"ring_bytes"`  // buffer shared with the kernel
}

// SetDefaults fills in every default.
func (c *Capture) SetDefaults() { c.RingBytes = capture.DefaultRingBytes }

// NewConfig returns a Config with every default filled in, to decode a configuration over.
func NewConfig() *Config {
	c := (&Config{}).withDefaults()
	return &c
}

func (c *Config) withDefaults() Config {
	d := *c
	setDefault(&d.View, ViewAuto)
	setDefault(&d.Quality.Interval, DefaultQualityInterval)
	setDefault(&d.Quality.JitterBuffer, DefaultJitterBuffer)
	setDefault(&d.MaxDialogs, DefaultMaxDialogs)
	setDefault(&d.MaxStreams, DefaultMaxStreams)
	setDefault(&d.MaxMessageBytes, DefaultMaxMessageBytes)
	setDefault(&d.Queue, DefaultQueue)
	return d
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// RawPassthrough reports whether every SIP message is also wanted on the raw stream.
func (c *Config) RawPassthrough() bool { return c.Raw }

// Validate returns every fault, each naming the field.
func (c *Config) Validate() []error {
	d := c.withDefaults()
	errs := d.validateWays()
	for i, s := range d.PBX {
		if _, err := netip.ParseAddrPort(s); err != nil {
			if _, err := parsePrefix(s); err != nil {
				errs = append(errs, fmt.Errorf("pbx[%d]: %q is no address: write 10.0.0.5, 10.0.0.5:5060 or 10.0.0.0/24", i, s))
			}
		}
	}
	if d.View != ViewAuto && d.View != ViewTrunk {
		errs = append(errs, fmt.Errorf("view: %q is not known; use auto or trunk", d.View))
	}
	errs = append(errs, headerNames("correlation_headers", d.CorrelationHeaders)...)
	errs = append(errs, headerNames("variables", d.Variables)...)
	errs = append(errs, inRange("quality.interval", d.Quality.Interval, time.Second, time.Hour)...)
	errs = append(errs, inRange("quality.jitter_buffer", d.Quality.JitterBuffer, time.Millisecond, 2*time.Second)...)
	errs = append(errs, inRange("max_dialogs", d.MaxDialogs, 16, 1_000_000)...)
	errs = append(errs, inRange("max_streams", d.MaxStreams, 16, 1_000_000)...)
	errs = append(errs, inRange("max_message_bytes", d.MaxMessageBytes, 1<<10, 1<<20)...)
	errs = append(errs, inRange("queue", d.Queue, 16, 1<<20)...)
	return errs
}

func (c *Config) validateWays() (errs []error) {
	packets := c.Capture != nil || c.HEP != nil || c.SIPREC != nil
	switch {
	case c.Dialogs != nil && packets:
		errs = append(errs, errors.New("dialogs: needs a switch of its own: what the PBX says there are is all that a link with subscriptions has"))
	case c.Dialogs == nil && !packets:
		errs = append(errs, errors.New("capture: no way in is set: give capture, hep, siprec or dialogs"))
	}
	if c.Dialogs != nil {
		errs = append(errs, under("dialogs", c.Dialogs.Validate())...)
	}
	if c.SIPREC != nil {
		errs = append(errs, under("siprec", c.SIPREC.Validate())...)
	}
	if c.Capture != nil {
		if _, err := c.Capture.live(0); err != nil {
			errs = append(errs, err)
		}
	}
	if c.HEP != nil {
		errs = append(errs, under("hep", c.HEP.Validate())...)
	}
	return errs
}

// recording is the recording server's settings, with those of the link where it has none of its own.
func (c *Config) recording() *siprec.Config {
	r := *c.SIPREC
	if len(r.CorrelationHeaders) == 0 {
		r.CorrelationHeaders = c.CorrelationHeaders
	}
	if len(r.Attributes) == 0 {
		r.Attributes = c.Variables
	}
	if r.QualityInterval == siprec.DefaultQualityInterval {
		r.QualityInterval = c.Quality.Interval
	}
	if r.JitterBuffer == siprec.DefaultJitterBuffer {
		r.JitterBuffer = c.Quality.JitterBuffer
	}
	return &r
}

// under names the section that faults are in.
func under(section string, faults []error) (errs []error) {
	for _, err := range faults {
		errs = append(errs, fmt.Errorf("%s.%w", section, err))
	}
	return errs
}

// live is the capture's own settings.
func (c *Capture) live(maxMessage int) (l capture.LiveConfig, err error) {
	l = capture.LiveConfig{Interface: c.Interface, Promiscuous: c.Promiscuous, RingBytes: c.RingBytes}
	l.MaxMessage = maxMessage
	for i, s := range c.Ports {
		first, last, isRange := strings.Cut(s, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		if err1 != nil || err2 != nil || from > to {
			return l, fmt.Errorf("capture.ports[%d]: %q is neither a port nor a range such as 10000-20000", i, s)
		}
		l.Ports = append(l.Ports, capture.PortRange{First: uint16(from), Last: uint16(to)})
	}
	if err := l.Validate(); err != nil {
		return l, fmt.Errorf("capture.%w", err)
	}
	return l, nil
}

func inRange[T int | time.Duration](field string, v, low, high T) []error {
	if v < low || v > high {
		return []error{fmt.Errorf("%s: %v is outside %v to %v", field, v, low, high)}
	}
	return nil
}

func headerNames(field string, names []string) (errs []error) {
	for i, s := range names {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
			errs = append(errs, fmt.Errorf("%s[%d]: %q is not a header's name", field, i, s))
		}
	}
	return errs
}

// Open makes the adapter for the switch link id. It does not listen yet.
func (c *Config) Open(id string, env core.Env) (core.Adapter, error) {
	if errs := c.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("opening SIP link %s: %w", id, errors.Join(errs...))
	}
	if c.Dialogs != nil {
		return dialoginfo.New(id, *c.Dialogs, env.Log)
	}
	return newAdapter(id, c.withDefaults(), env), nil
}
