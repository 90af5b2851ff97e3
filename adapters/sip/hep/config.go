package hep

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Transports that frames can come by.
const (
	UDP = "udp"
	TCP = "tcp"
	TLS = "tls"
)

// Defaults of Config.
const (
	DefaultListen         = "127.0.0.1:9060"
	DefaultListenTLS      = "127.0.0.1:9061"
	DefaultMaxConnections = 256
	DefaultIdleTimeout    = time.Hour
	DefaultFrameTimeout   = 10 * time.Second
	DefaultQueueBytes     = 16 << 20
	DefaultReceiveBuffer  = 8 << 20
)

// Config is the settings of one HEP receiver. A zero field takes its default.
type Config struct {
	Listen         string        `yaml:"listen"`          // host:port of UDP and TCP
	Transports     []string      `yaml:"transports"`      // of udp, tcp, tls; udp and tcp when left out
	ListenTLS      string        `yaml:"listen_tls"`      // host:port of TLS
	TLS            *ServerTLS    `yaml:"tls"`             // for the transport tls
	Key            core.Secret   `yaml:"key"`             // what agents send as authentication key (capture_password)
	AllowRemote    bool          `yaml:"allow_remote"`    // needed, or a key, to listen beyond loopback
	AllowFrom      []string      `yaml:"allow_from"`      // addresses and networks (CIDR) of the agents; all when left out
	MaxConnections int           `yaml:"max_connections"` // of TCP and TLS together
	IdleTimeout    time.Duration `yaml:"idle_timeout"`    // silence after which a connection is closed
	FrameTimeout   time.Duration `yaml:"frame_timeout"`   // longest a started frame or a TLS handshake may take
	QueueBytes     int           `yaml:"queue_bytes"`     // of what has come and is not handled yet; twice that is the memory used
	ReceiveBuffer  int           `yaml:"receive_buffer"`  // bytes the kernel may hold for the UDP socket
}

// ServerTLS is the certificate shown to agents.
type ServerTLS struct {
	CertFile     string `yaml:"cert_file"`      // PEM
	KeyFile      string `yaml:"key_file"`       // PEM
	ClientCAFile string `yaml:"client_ca_file"` // PEM; agents must then show a certificate by one of these authorities
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
	if len(d.Transports) == 0 {
		d.Transports = []string{UDP, TCP}
	}
	setDefault(&d.Listen, DefaultListen)
	setDefault(&d.ListenTLS, DefaultListenTLS)
	setDefault(&d.MaxConnections, DefaultMaxConnections)
	setDefault(&d.IdleTimeout, DefaultIdleTimeout)
	setDefault(&d.FrameTimeout, DefaultFrameTimeout)
	setDefault(&d.QueueBytes, DefaultQueueBytes)
	setDefault(&d.ReceiveBuffer, DefaultReceiveBuffer)
	return d
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) has(transport string) bool { return slices.Contains(c.Transports, transport) }

// Validate returns every fault, each naming the field.
func (c *Config) Validate() []error {
	d := c.withDefaults()
	errs := d.validateTransports()
	if d.has(UDP) || d.has(TCP) {
		errs = append(errs, d.validateListen("listen", d.Listen)...)
	}
	if d.has(TLS) {
		errs = append(errs, d.validateListen("listen_tls", d.ListenTLS)...)
		errs = append(errs, d.TLS.validate()...)
	}
	if _, err := parseNetworks(d.AllowFrom); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, inRange("max_connections", d.MaxConnections, 1, 65536)...)
	errs = append(errs, inRange("idle_timeout", d.IdleTimeout, time.Second, 24*time.Hour)...)
	errs = append(errs, inRange("frame_timeout", d.FrameTimeout, 100*time.Millisecond, 10*time.Minute)...)
	errs = append(errs, inRange("queue_bytes", d.QueueBytes, 1<<20, 1<<30)...)
	errs = append(errs, inRange("receive_buffer", d.ReceiveBuffer, 64<<10, 1<<30)...)
	return errs
}

func (c *Config) validateTransports() (errs []error) {
	for i, t := range c.Transports {
		if t != UDP && t != TCP && t != TLS {
			errs = append(errs, fmt.Errorf("transports[%d]: %q is not known; use udp, tcp or tls", i, t))
		}
	}
	if c.TLS != nil && !c.has(TLS) {
		errs = append(errs, errors.New("tls: has no effect; add tls to transports"))
	}
	return errs
}

// validateListen wants host:port, and beyond loopback either a key or the operator's word.
func (c *Config) validateListen(field, address string) []error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return []error{fmt.Errorf("%s: %q is not host:port, such as %s", field, address, DefaultListen)}
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return []error{fmt.Errorf("%s: port %q is not between 0 and 65535", field, port)}
	}
	if !loopback(host) && c.Key.IsZero() && !c.AllowRemote {
		return []error{fmt.Errorf("%s: %s is reachable from other machines, and anyone there could make up calls: set key to the agents' authentication key (capture_password), or allow_remote: true to take frames without one", field, address)}
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (t *ServerTLS) validate() []error {
	if t == nil || t.CertFile == "" || t.KeyFile == "" {
		return []error{errors.New("tls: cert_file and key_file are needed for the transport tls")}
	}
	return nil
}

// load reads the files.
func (t *ServerTLS) load() (*tls.Config, error) {
	return core.ServerTLS("tls", t.CertFile, t.KeyFile, t.ClientCAFile)
}

// networks are the sources that may send; none means all.
type networks []netip.Prefix

func parseNetworks(from []string) (networks, error) {
	var nets networks
	for i, s := range from {
		p, err := parseNetwork(s)
		if err != nil {
			return nil, fmt.Errorf("allow_from[%d]: %q is neither an address nor a network such as 10.1.0.0/16", i, s)
		}
		nets = append(nets, p)
	}
	return nets, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen()), err
}

func (n networks) allow(a netip.Addr) bool {
	a = a.Unmap()
	return len(n) == 0 || slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) })
}

func inRange[T int | time.Duration](field string, v, low, high T) []error {
	if v < low || v > high {
		return []error{fmt.Errorf("%s: %v is outside %v to %v", field, v, low, high)}
	}
	return nil
}
