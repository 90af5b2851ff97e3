package esl

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ctigate/ctigate/core"
)

func coreEnv() core.Env { return core.Env{} }

func TestConfigDefaults(t *testing.T) {
	c := NewConfig()
	if err := yaml.UnmarshalWithOptions([]byte("address: pbx1\npassword: {env: ESL_PASSWORD}\nheartbeat_timeout: 90s\nraw: true\n"), c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if errs := c.Validate(); errs != nil {
		t.Error(errs)
	}
	if c.Format != "json" || c.Queue != 8192 || c.MaxBodyBytes != 4<<20 || c.IVRVariable != "ivr_path" || c.HeartbeatTimeout != 90*time.Second || !c.RawPassthrough() || NewConfig().RawPassthrough() {
		t.Errorf("%+v", c)
	}
	if errs := (&Config{Address: "pbx1", Password: core.NewSecret("x")}).Validate(); errs != nil {
		t.Errorf("zero fields do not take their defaults: %v", errs)
	}
}

func TestConfigFaults(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *Config)
		want   string
	}{
		{"no address", func(c *Config) { c.Address = "" }, "address: not set"},
		{"bad port", func(c *Config) { c.Address = "pbx1:99999" }, `address: port "99999"`},
		{"port 0", func(c *Config) { c.Address = "pbx1:0" }, `address: port "0"`},
		{"no host", func(c *Config) { c.Address = ":8021" }, `address: host ""`},
		{"a url", func(c *Config) { c.Address = "tcp://pbx1:8021" }, "address: "},
		{"no password", func(c *Config) { c.Password = core.Secret{} }, "password: not set"},
		{"format", func(c *Config) { c.Format = "xml" }, `format: "xml" is not known`},
		{"half a certificate", func(c *Config) { c.TLS = &core.TLS{CertFile: "x"} }, "tls: cert_file and key_file"},
		{"heartbeat", func(c *Config) { c.HeartbeatTimeout = -1 }, "heartbeat_timeout: "},
		{"read timeout", func(c *Config) { c.ReadTimeout = time.Millisecond }, "read_timeout: 1ms is outside"},
		{"header bytes", func(c *Config) { c.MaxHeaderBytes = 5 }, "max_header_bytes: 5"},
		{"headers", func(c *Config) { c.MaxHeaders = 1 }, "max_headers: 1"},
		{"body", func(c *Config) { c.MaxBodyBytes = 1 << 30 }, "max_body_bytes: "},
		{"queue", func(c *Config) { c.Queue = 1 }, "queue: 1"},
		{"ivr variable", func(c *Config) { c.IVRVariable = "a b" }, "ivr_variable: "},
		{"prefixed variable", func(c *Config) { c.Variables = []string{"ok", "variable_x"} }, `variables[1]: write "variable_x" without`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig("pbx1")
			tt.change(&c)
			errs := c.Validate()
			if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), tt.want) {
				t.Errorf("got %v, want %q", errs, tt.want)
			}
			if _, err := c.Open("fs1", core.Env{}); err == nil {
				t.Error("opened")
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"pbx1": "pbx1:8021", "pbx1:9000": "pbx1:9000", "10.0.0.1": "10.0.0.1:8021",
		"::1": "[::1]:8021", "[::1]": "[::1]:8021", "[::1]:9000": "[::1]:9000",
	} {
		if got := withPort(in); got != want {
			t.Errorf("%s gives %s, want %s", in, got, want)
		}
	}
}

func TestLinkThroughATLSRelay(t *testing.T) {
	relay := httptest.NewTLSServer(nil) // for its certificate
	cert, ca := relay.TLS.Certificates[0], filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: relay.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	relay.Close()
	sw := newFakeSwitch(t)
	address := sw.listenWith(func() (net.Listener, error) {
		return tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	})
	cfg := testConfig(address)
	cfg.TLS = &core.TLS{CAFile: ca, ServerName: "example.com"}
	run(t, cfg).next(t, "up")
	cfg.TLS = &core.TLS{ServerName: "example.com"}
	if err := run(t, cfg).ends(t); err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("an unknown authority gave %v", err)
	}
	cfg.TLS = &core.TLS{CAFile: ca + ".none"}
	if err := run(t, cfg).ends(t); err == nil || !strings.Contains(err.Error(), "tls.ca_file") {
		t.Errorf("a missing file gave %v", err)
	}
}
