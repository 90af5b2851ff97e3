package siprec

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/core"
)

// Transports a recording server can be reached by.
const (
	UDP = "udp"
	TCP = "tcp"
	TLS = "tls"
)

// Defaults of Config.
const (
	DefaultListen          = "127.0.0.1:5080"
	DefaultTLSListen       = "127.0.0.1:5081"
	DefaultRTPPorts        = "30000-30999"
	DefaultMaxSessions     = 1000
	DefaultQualityInterval = 10 * time.Second
	DefaultJitterBuffer    = media.DefaultJitterBufferMS * time.Millisecond
)

// Config is the settings of one session recording server. A zero field takes its default.
type Config struct {
	Listen             string        `yaml:"listen"`              // host:port of UDP and TCP
	Transports         []string      `yaml:"transports"`          // udp, tcp, tls; udp and tcp, and tls where tls is set, when left out
	TLS                *TLSConfig    `yaml:"tls"`                 // where and how TLS is listened for
	MediaAddress       string        `yaml:"media_address"`       // IP address that recording clients send RTP to; that of listen when left out
	RTPPorts           string        `yaml:"rtp_ports"`           // first-last; a stream takes an even port and the one after it
	AllowFrom          []string      `yaml:"allow_from"`          // networks (CIDR) or addresses of the recording clients; empty allows all
	AllowRemote        bool          `yaml:"allow_remote"`        // listen beyond loopback although nobody has to authenticate
	MaxSessions        int           `yaml:"max_sessions"`        // recording sessions at a time
	MaxStreams         int           `yaml:"max_streams"`         // RTP streams at a time; what rtp_ports has room for when left out
	CallIDHeaders      []string      `yaml:"call_id_headers"`     // INVITE headers or metadata elements with the recorded call's Call-ID
	CorrelationHeaders []string      `yaml:"correlation_headers"` // INVITE headers or metadata elements that mark legs of one interaction
	Attributes         []string      `yaml:"attributes"`          // INVITE headers or metadata elements to carry as attributes of the call
	QualityInterval    time.Duration `yaml:"quality_interval"`    // between two reports on a stream
	JitterBuffer       time.Duration `yaml:"jitter_buffer"`       // assumed of receivers: what comes later is lost to the MOS
}

// TLSConfig is where TLS is listened for, and how both sides show who they are.
type TLSConfig struct {
	Listen       string `yaml:"listen"`         // host:port
	CertFile     string `yaml:"cert_file"`      // PEM; our certificate
	KeyFile      string `yaml:"key_file"`       // PEM
	ClientCAFile string `yaml:"client_ca_file"` // PEM; clients must show a certificate of these authorities (mutual TLS)
}

// NewConfig returns a Config with every default filled in, to decode a configuration over.
func NewConfig() *Config {
	c := (&Config{}).withDefaults()
	c.Transports = nil // depends on tls
	return &c
}

// SetDefaults fills in every default, for a section that a configuration has: what is in effect can be printed.
func (c *Config) SetDefaults() { *c = *NewConfig() }

func (c *Config) withDefaults() Config {
	d := *c
	setDefault(&d.Listen, DefaultListen)
	setDefault(&d.RTPPorts, DefaultRTPPorts)
	setDefault(&d.MaxSessions, DefaultMaxSessions)
	setDefault(&d.QualityInterval, DefaultQualityInterval)
	setDefault(&d.JitterBuffer, DefaultJitterBuffer)
	if d.TLS != nil {
		s := *d.TLS
		setDefault(&s.Listen, DefaultTLSListen)
		d.TLS = &s
	}
	if len(d.Transports) == 0 {
		d.Transports = []string{UDP, TCP}
		if d.TLS != nil {
			d.Transports = append(d.Transports, TLS)
		}
	}
	return d
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns every fault, each naming the field.
func (c *Config) Validate() []error {
	d := c.withDefaults()
	errs := d.validateTransports()
	if _, err := d.mediaAddress(); err != nil && (len(errs) == 0 || d.MediaAddress != "") {
		errs = append(errs, err)
	}
	errs = append(errs, d.validatePorts()...)
	if _, err := prefixes(d.AllowFrom); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, inRange("max_sessions", d.MaxSessions, 1, 100_000)...)
	errs = append(errs, inRange("quality_interval", d.QualityInterval, time.Second, time.Hour)...)
	errs = append(errs, inRange("jitter_buffer", d.JitterBuffer, time.Millisecond, 2*time.Second)...)
	errs = append(errs, names("call_id_headers", d.CallIDHeaders)...)
	errs = append(errs, names("correlation_headers", d.CorrelationHeaders)...)
	errs = append(errs, names("attributes", d.Attributes)...)
	return errs
}

func (c *Config) validateTransports() []error {
	var errs []error
	for i, t := range c.Transports {
		switch t {
		case UDP, TCP:
			errs = append(errs, c.validateListen("listen", c.Listen, false)...)
		case TLS:
			errs = append(errs, c.validateTLS()...)
		default:
			errs = append(errs, fmt.Errorf("transports[%d]: %q is not known; use udp, tcp or tls", i, t))
		}
		if slices.Index(c.Transports, t) != i {
			errs = append(errs, fmt.Errorf("transports[%d]: %s stands there twice", i, t))
		}
	}
	if c.TLS != nil && !slices.Contains(c.Transports, TLS) {
		errs = append(errs, errors.New("tls: has no effect: add tls to transports, or remove it"))
	}
	return dedupe(errs)
}

func (c *Config) validateTLS() []error {
	if c.TLS == nil {
		return []error{errors.New("tls: not set although transports has tls; give listen, cert_file and key_file")}
	}
	var errs []error
	if c.TLS.CertFile == "" || c.TLS.KeyFile == "" {
		errs = append(errs, errors.New("tls: cert_file and key_file are both needed"))
	}
	return append(errs, c.validateListen("tls.listen", c.TLS.Listen, c.TLS.ClientCAFile != "")...)
}

// validateListen holds the house rule: nothing listens beyond loopback without authentication unless that is asked for.
func (c *Config) validateListen(field, address string, authenticated bool) []error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return []error{fmt.Errorf("%s: %q is not host:port", field, address)}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return []error{fmt.Errorf("%s: port %q is not between 0 and 65535", field, port)}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil && host != "localhost" {
		return []error{fmt.Errorf("%s: host %q is not an IP address", field, host)}
	}
	if host == "localhost" || ip.IsLoopback() || authenticated || len(c.AllowFrom) > 0 || c.AllowRemote {
		return nil
	}
	return []error{fmt.Errorf("%s: %s is reachable from other machines and nobody has to authenticate: list the recording clients in allow_from, use tls with client_ca_file, or set allow_remote: true", field, address)}
}

func (c *Config) validatePorts() []error {
	var errs []error
	first, last, err := portRange(c.RTPPorts)
	if err != nil {
		errs = append(errs, err)
	} else if pairs := portPairs(first, last); c.MaxStreams < 0 || c.MaxStreams > pairs {
		errs = append(errs, fmt.Errorf("max_streams: %d is outside 0 to %d, what rtp_ports %s has room for: widen it, a stream takes two ports", c.MaxStreams, pairs, c.RTPPorts))
	}
	return errs
}

// mediaAddress is the address that answers name.
func (c *Config) mediaAddress() (netip.Addr, error) {
	if c.MediaAddress != "" {
		ip, err := netip.ParseAddr(c.MediaAddress)
		if err != nil || ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" {
			return ip, fmt.Errorf("media_address: %q is not an IP address that RTP can be sent to", c.MediaAddress)
		}
		return ip.Unmap(), nil
	}
	for _, l := range c.listeners() {
		host, _, _ := net.SplitHostPort(l)
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() {
			return ip.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("media_address: not set, and listen names no address: give the IP address that recording clients reach this machine by")
}

func (c *Config) listeners() []string {
	var l []string
	if slices.Contains(c.Transports, UDP) || slices.Contains(c.Transports, TCP) {
		l = append(l, c.Listen)
	}
	if c.TLS != nil {
		l = append(l, c.TLS.Listen)
	}
	return l
}

// portRange reads first-last.
func portRange(s string) (first, last int, err error) {
	a, b, ok := strings.Cut(s, "-")
	first, err1 := strconv.Atoi(strings.TrimSpace(a))
	last, err2 := strconv.Atoi(strings.TrimSpace(b))
	if !ok || err1 != nil || err2 != nil || first < 1024 || last > 65535 || portPairs(first, last) < 1 {
		return 0, 0, fmt.Errorf("rtp_ports: %q is not a range of ports with room for a stream, such as %s (1024 at least)", s, DefaultRTPPorts)
	}
	return first, last, nil
}

// portPairs is how many even ports with an odd one after them there are from first to last.
func portPairs(first, last int) int { return max(0, (last+1)/2-(first+1)/2) }

// prefixes reads networks and single addresses.
func prefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for i, s := range list {
		p, err := netip.ParsePrefix(s)
		if ip, e := netip.ParseAddr(s); err != nil && e == nil {
			p, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("allow_from[%d]: %q is neither a network such as 192.0.2.0/24 nor an address", i, s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func inRange[T int | time.Duration](field string, v, low, high T) []error {
	if v < low || v > high {
		return []error{fmt.Errorf("%s: %v is outside %v to %v", field, v, low, high)}
	}
	return nil
}

func names(field string, list []string) (errs []error) {
	for i, s := range list {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
			errs = append(errs, fmt.Errorf("%s[%d]: %q is not the name of a header or element", field, i, s))
		}
	}
	return errs
}

// dedupe leaves out a fault that two transports share.
func dedupe(errs []error) []error {
	var out []error
	for _, e := range errs {
		if !slices.ContainsFunc(out, func(o error) bool { return o.Error() == e.Error() }) {
			out = append(out, e)
		}
	}
	return out
}

// config reads the files (TLS 1.2 at least).
func (s *TLSConfig) config() (*tls.Config, error) {
	return core.ServerTLS("tls", s.CertFile, s.KeyFile, s.ClientCAFile)
}
