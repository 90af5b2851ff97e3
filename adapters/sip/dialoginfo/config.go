// Package dialoginfo watches the extensions of a PBX that offers nothing but SIP: it subscribes (RFC 6665) to the dialog
// package (RFC 4235) of each and makes observations of the NOTIFYs.
//
// Messages are read by sipgo's parser. Transport and transactions are this package's own, since sipgo hands every
// message to a goroutine of its own, and the order of NOTIFYs is what all of this rests on.
package dialoginfo

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/ctigate/ctigate/core"
)

// Defaults and bounds of Config.
const (
	DefaultExpires  = 600 * time.Second
	DefaultRate     = 50
	DefaultInFlight = 20
	MaxResources    = 10_000
)

// Config is the settings of the subscriptions to one PBX. A zero field takes its default.
type Config struct {
	Server    string        `yaml:"server"`    // sip:pbx.example.com:5060;transport=tcp; udp (default), tcp or tls
	TLS       *core.TLS     `yaml:"tls"`       // for transport=tls
	Username  string        `yaml:"username"`  // for digest authentication
	Password  core.Secret   `yaml:"password"`  // for digest authentication
	From      string        `yaml:"from"`      // who subscribes; sip:username@server when left out
	Resources []string      `yaml:"resources"` // what is watched: sip:100@pbx.example.com, or 100 for that at the server
	Expires   time.Duration `yaml:"expires"`   // of a subscription; the PBX may shorten it
	Listen    string        `yaml:"listen"`    // local address, with or without a port, where the route does not tell
	Rate      int           `yaml:"rate"`      // most SUBSCRIBEs begun in a second
	InFlight  int           `yaml:"in_flight"` // most SUBSCRIBEs that wait for an answer at once
}

// NewConfig returns a Config with every default filled in, to decode a configuration over.
func NewConfig() *Config {
	c := (&Config{}).withDefaults()
	return &c
}

// SetDefaults fills in every default, for a section that a configuration has: what is in effect can be printed.
func (c *Config) SetDefaults() { *c = *NewConfig() }

func (c *Config) withDefaults() Config {
	d := *c
	setDefault(&d.Expires, DefaultExpires)
	setDefault(&d.Rate, DefaultRate)
	setDefault(&d.InFlight, DefaultInFlight)
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
	var errs []error
	srv, err := d.server()
	if err != nil {
		errs = append(errs, fmt.Errorf("server: %w", err))
	}
	if d.TLS != nil {
		errs = append(errs, d.TLS.Validate("tls")...)
		if err == nil && srv.transport != "tls" {
			errs = append(errs, errors.New("tls: has no effect unless server says ;transport=tls"))
		}
	}
	errs = append(errs, d.validateIdentity(srv.host)...)
	errs = append(errs, d.validateResources(srv.host)...)
	if _, err := d.local(); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	}
	errs = append(errs, inRange("expires", d.Expires, 30*time.Second, 24*time.Hour)...)
	errs = append(errs, inRange("rate", d.Rate, 1, 1000)...)
	return append(errs, inRange("in_flight", d.InFlight, 1, 1000)...)
}

func (c *Config) validateIdentity(host string) (errs []error) {
	if (c.Username == "") != c.Password.IsZero() {
		errs = append(errs, errors.New("username: username and password go together; leave both out when the PBX asks for neither"))
	}
	if strings.ContainsAny(c.Username, "\"\\\r\n<>") {
		errs = append(errs, fmt.Errorf("username: %q holds a character that SIP cannot carry", c.Username))
	}
	if c.From == "" && c.Username == "" {
		errs = append(errs, errors.New("from: not set, and there is no username to make one of; give sip:name@host"))
	} else if _, err := resourceURI(c.identity(host), host); err != nil {
		errs = append(errs, fmt.Errorf("from: %w", err))
	}
	return errs
}

func (c *Config) validateResources(host string) (errs []error) {
	if len(c.Resources) == 0 {
		errs = append(errs, errors.New("resources: none; list the extensions to watch, such as 100 or sip:100@pbx.example.com"))
	}
	if len(c.Resources) > MaxResources {
		return append(errs, fmt.Errorf("resources: %d, over the limit of %d", len(c.Resources), MaxResources))
	}
	seen := map[string]bool{}
	for i, r := range c.Resources {
		u, err := resourceURI(r, host)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("resources[%d]: %w", i, err))
		case seen[u]:
			errs = append(errs, fmt.Errorf("resources[%d]: %s is listed twice", i, u))
		}
		seen[u] = true
	}
	return errs
}

// identity is the address of the From header.
func (c *Config) identity(host string) string {
	if c.From != "" {
		return c.From
	}
	return "sip:" + c.Username + "@" + host
}

// server is where the PBX is.
type server struct {
	host      string // as written, IPv6 in brackets
	addr      string // host:port to dial
	transport string // udp, tcp, tls
}

func (c *Config) server() (s server, err error) {
	var u sip.Uri
	if c.Server == "" {
		return s, errors.New("not set; give the address of the PBX, such as sip:pbx.example.com:5060;transport=tcp")
	}
	if err := parseURI(c.Server, &u); err != nil {
		return s, err
	}
	t, ok := u.UriParams.Get("transport")
	switch s.transport = strings.ToLower(t); {
	case u.Scheme == "sips":
		s.transport = "tls"
	case !ok:
		s.transport = "udp"
	case s.transport != "udp" && s.transport != "tcp" && s.transport != "tls":
		return s, fmt.Errorf("transport %q is not known; use udp, tcp or tls", t)
	}
	port := u.Port
	if port == 0 {
		port = sip.DefaultPort(s.transport)
	}
	if port < 1 || port > 65535 {
		return s, fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	s.host = u.Host
	s.addr = net.JoinHostPort(strings.Trim(u.Host, "[]"), strconv.Itoa(port))
	return s, nil
}

// local is the address to send from; the zero value leaves that to the system.
func (c *Config) local() (a netip.AddrPort, err error) {
	if c.Listen == "" {
		return a, nil
	}
	if a, err := netip.ParseAddrPort(c.Listen); err == nil {
		return a, nil
	}
	ip, err := netip.ParseAddr(strings.Trim(c.Listen, "[]"))
	if err != nil {
		return a, fmt.Errorf("%q is not an IP address or address:port of this machine", c.Listen)
	}
	return netip.AddrPortFrom(ip, 0), nil
}

// resourceURI is r as a SIP URI; a bare extension is one of host.
func resourceURI(r, host string) (string, error) {
	if r == "" {
		return "", errors.New("empty")
	}
	if !strings.HasPrefix(strings.ToLower(r), "sip:") && !strings.HasPrefix(strings.ToLower(r), "sips:") {
		r = "sip:" + r + "@" + host
	}
	var u sip.Uri
	if err := parseURI(r, &u); err != nil {
		return "", err
	}
	if u.User == "" {
		return "", fmt.Errorf("%q has no user part: sip:100@pbx.example.com is expected", r)
	}
	return r, nil
}

func parseURI(s string, u *sip.Uri) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("<>\"", r) }) {
		return fmt.Errorf("%q is not a SIP URI: it holds blanks or brackets", s)
	}
	if err := sip.ParseUri(s, u); err != nil {
		return fmt.Errorf("%q is not a SIP URI: %w", s, err)
	}
	if u.Host == "" || u.Scheme != "sip" && u.Scheme != "sips" {
		return fmt.Errorf("%q is not a SIP URI such as sip:100@pbx.example.com", s)
	}
	return nil
}

func inRange[T int | time.Duration](field string, v, low, high T) []error {
	if v < low || v > high {
		return []error{fmt.Errorf("%s: %v is outside %v to %v", field, v, low, high)}
	}
	return nil
}
