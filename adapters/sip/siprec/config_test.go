package siprec

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestConfigDefaults(t *testing.T) {
	c := NewConfig()
	text := "listen: 192.0.2.1:5070\nallow_from: [192.0.2.0/24, \"2001:db8::1\"]\nquality_interval: 20s\ncall_id_headers: [X-Original-Call-ID, sipSessionID]\n"
	if err := yaml.UnmarshalWithOptions([]byte(text), c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if errs := c.Validate(); errs != nil {
		t.Error(errs)
	}
	if c.RTPPorts != "30000-30999" || c.MaxSessions != 1000 || c.QualityInterval != 20*time.Second {
		t.Errorf("%+v", c)
	}
	s, err := New(&Config{}, nil)
	if err != nil {
		t.Fatalf("zero fields do not take their defaults: %v", err)
	}
	if s.cfg.Listen != "127.0.0.1:5080" || s.cfg.MaxStreams != 500 || s.media != netip.MustParseAddr("127.0.0.1") || strings.Join(s.cfg.Transports, " ") != "udp tcp" {
		t.Errorf("%+v", s.cfg)
	}
	s, err = New(&Config{TLS: &TLSConfig{CertFile: "x", KeyFile: "y"}}, nil)
	if err != nil || strings.Join(s.cfg.Transports, " ") != "udp tcp tls" || s.cfg.TLS.Listen != "127.0.0.1:5081" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestConfigFaults(t *testing.T) {
	mutual := &TLSConfig{Listen: "0.0.0.0:5061", CertFile: "x", KeyFile: "y", ClientCAFile: "z"}
	tests := []struct {
		name   string
		change func(c *Config)
		want   string // empty: no fault
	}{
		{"open to all", func(c *Config) { c.Listen = "192.0.2.1:5060" }, "listen: 192.0.2.1:5060 is reachable from other machines and nobody has to authenticate"},
		{"all addresses", func(c *Config) { c.Listen, c.MediaAddress = "0.0.0.0:5060", "192.0.2.1" }, "listen: 0.0.0.0:5060 is reachable"},
		{"asked for", func(c *Config) { c.Listen, c.AllowRemote = "192.0.2.1:5060", true }, ""},
		{"from known clients", func(c *Config) { c.Listen, c.AllowFrom = "192.0.2.1:5060", []string{"192.0.2.9"} }, ""},
		{"IPv6 loopback", func(c *Config) { c.Listen = "[::1]:5060" }, ""},
		{"mutual TLS alone", func(c *Config) { c.Transports, c.TLS, c.MediaAddress = []string{"tls"}, mutual, "192.0.2.1" }, ""},
		{"mutual TLS beside UDP", func(c *Config) { c.Listen, c.TLS = "192.0.2.1:5060", mutual }, "listen: 192.0.2.1:5060 is reachable"},
		{"TLS without client certificates", func(c *Config) {
			c.TLS = &TLSConfig{Listen: "192.0.2.1:5061", CertFile: "x", KeyFile: "y"}
		}, "tls.listen: 192.0.2.1:5061 is reachable"},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, `listen: "127.0.0.1" is not host:port`},
		{"bad port", func(c *Config) { c.Listen = "127.0.0.1:99999" }, `listen: port "99999"`},
		{"a name", func(c *Config) { c.Listen = "pbx:5060" }, `listen: host "pbx" is not an IP address`},
		{"transport", func(c *Config) { c.Transports = []string{"udp", "ws"} }, `transports[1]: "ws" is not known`},
		{"transport twice", func(c *Config) { c.Transports = []string{"udp", "udp"} }, "transports[1]: udp stands there twice"},
		{"tls not set", func(c *Config) { c.Transports = []string{"tls"} }, "tls: not set although transports has tls"},
		{"tls not used", func(c *Config) { c.Transports, c.TLS = []string{"udp"}, mutual }, "tls: has no effect"},
		{"no certificate", func(c *Config) { c.TLS = &TLSConfig{} }, "tls: cert_file and key_file"},
		{"media address", func(c *Config) { c.MediaAddress = "pbx" }, `media_address: "pbx"`},
		{"no media address", func(c *Config) { c.Listen, c.AllowRemote = "0.0.0.0:5060", true }, "media_address: not set"},
		{"port range", func(c *Config) { c.RTPPorts = "5000" }, `rtp_ports: "5000"`},
		{"no room", func(c *Config) { c.RTPPorts = "5001-5002" }, `rtp_ports: "5001-5002"`},
		{"low ports", func(c *Config) { c.RTPPorts = "100-200" }, `rtp_ports: "100-200"`},
		{"streams", func(c *Config) { c.MaxStreams = 501 }, "max_streams: 501 is outside 0 to 500"},
		{"sessions", func(c *Config) { c.MaxSessions = -1 }, "max_sessions: -1"},
		{"interval", func(c *Config) { c.QualityInterval = time.Millisecond }, "quality_interval: 1ms"},
		{"jitter buffer", func(c *Config) { c.JitterBuffer = time.Minute }, "jitter_buffer: 1m0s"},
		{"network", func(c *Config) { c.AllowFrom = []string{"10.0.0.0/8", "x"} }, `allow_from[1]: "x"`},
		{"header", func(c *Config) { c.CallIDHeaders = []string{"X-A", "X B"} }, `call_id_headers[1]: "X B"`},
		{"attribute", func(c *Config) { c.Attributes = []string{""} }, `attributes[0]: ""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &Config{}
			tt.change(c)
			got := c.Validate()
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("faults %v", got)
			case tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0].Error(), tt.want)):
				t.Errorf("faults %v, want one that begins %q", got, tt.want)
			}
			if _, err := New(c, nil); (err != nil) != (tt.want != "") {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestTLSFiles(t *testing.T) {
	ca, cert, key := certificates(t)
	missing := filepath.Join(t.TempDir(), "none.pem")
	for want, c := range map[string]TLSConfig{
		"":                                   {CertFile: cert, KeyFile: key, ClientCAFile: ca},
		"reading tls.cert_file":              {CertFile: missing, KeyFile: key},
		"reading tls.client_ca_file":         {CertFile: cert, KeyFile: key, ClientCAFile: missing},
		"no PEM certificate in " + key:       {CertFile: cert, KeyFile: key, ClientCAFile: key},
		"reading tls.cert_file and tls.key_": {CertFile: cert, KeyFile: cert},
	} {
		if _, err := c.config(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestPorts(t *testing.T) {
	for r, want := range map[[2]int]int{{30000, 30999}: 500, {30001, 30004}: 1, {30001, 30005}: 2, {30000, 30001}: 1, {30000, 30000}: 0, {30001, 30002}: 0, {9, 3}: 0} {
		if got := portPairs(r[0], r[1]); got != want {
			t.Errorf("%v has %d pairs, want %d", r, got, want)
		}
	}
	p := newPorts(netip.MustParseAddr("127.0.0.1"), 39001, 39007) // 39002, 39004, 39006
	var open []pair
	for range 3 {
		x, err := p.open()
		if err != nil {
			t.Fatal(err)
		}
		if x.port()%2 != 0 || x.port() < 39001 || addrPort(x.rtcp.LocalAddr()).Port() != x.port()+1 {
			t.Errorf("ports %d and %v", x.port(), x.rtcp.LocalAddr())
		}
		open = append(open, x)
	}
	if _, err := p.open(); err == nil || !strings.Contains(err.Error(), "all 3 pairs of rtp_ports are in use") {
		t.Errorf("a fourth pair: %v", err)
	}
	p.close(open[1])
	x, err := p.open()
	if err != nil || x.port() != 39004 {
		t.Errorf("after one is free: %v, %v", x, err)
	}
	for _, x := range []pair{open[0], x, open[2]} {
		p.close(x)
	}
	if taken, err := p.socket(39003); err != nil { // another program's
		t.Fatal(err)
	} else {
		defer taken.Close()
	}
	p.next = 0
	if x, err := p.open(); err != nil || x.port() != 39004 {
		t.Errorf("past a port in use: %v, %v", x, err)
	} else {
		p.close(x)
	}
}
