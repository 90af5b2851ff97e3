package hep

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ctigate/ctigate/core"
)

func TestConfigDefaults(t *testing.T) {
	c := NewConfig()
	text := "listen: 10.0.0.5:9060\ntransports: [udp, tls]\nlisten_tls: 10.0.0.5:9061\ntls: {cert_file: a, key_file: b, client_ca_file: c}\n" +
		"key: {env: HEP_KEY}\nallow_from: [10.0.0.0/8, 192.0.2.1]\nmax_connections: 8\nidle_timeout: 5m\n"
	if err := yaml.UnmarshalWithOptions([]byte(text), c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if errs := c.Validate(); errs != nil {
		t.Error(errs)
	}
	if !slices.Equal(c.Transports, []string{UDP, TLS}) || c.Key.Env != "HEP_KEY" || c.MaxConnections != 8 || c.IdleTimeout != 5*time.Minute ||
		c.FrameTimeout != DefaultFrameTimeout || c.QueueBytes != DefaultQueueBytes || c.TLS.ClientCAFile != "c" {
		t.Errorf("%+v", c)
	}
	if errs := (&Config{}).Validate(); errs != nil {
		t.Errorf("zero fields do not take their defaults: %v", errs)
	}
}

func TestConfigFaults(t *testing.T) {
	pair := &ServerTLS{CertFile: "a", KeyFile: "b"}
	for name, c := range map[string]struct {
		conf Config
		want string // "" for none
	}{
		"loopback":             {Config{Listen: "[::1]:9060"}, ""},
		"localhost":            {Config{Listen: "localhost:9060"}, ""},
		"remote":               {Config{Listen: "10.0.0.5:9060"}, "listen: 10.0.0.5:9060 is reachable from other machines"},
		"all addresses":        {Config{Listen: ":9060"}, "allow_remote: true"},
		"a name":               {Config{Listen: "pbx1:9060"}, "listen: pbx1:9060 is reachable"},
		"remote with key":      {Config{Listen: "0.0.0.0:9060", Key: core.NewSecret("x")}, ""},
		"remote allowed":       {Config{Listen: "0.0.0.0:9060", AllowRemote: true}, ""},
		"remote TLS":           {Config{Transports: []string{TLS}, ListenTLS: "0.0.0.0:9061", TLS: pair}, "listen_tls: 0.0.0.0:9061 is reachable"},
		"listen unused":        {Config{Transports: []string{TLS}, Listen: "0.0.0.0:9060", TLS: pair}, ""},
		"no port":              {Config{Listen: "127.0.0.1"}, `listen: "127.0.0.1" is not host:port`},
		"bad port":             {Config{Listen: "127.0.0.1:99999"}, `listen: port "99999"`},
		"transport":            {Config{Transports: []string{UDP, "sctp"}}, `transports[1]: "sctp" is not known`},
		"no certificate":       {Config{Transports: []string{TLS}}, "tls: cert_file and key_file are needed"},
		"half a certificate":   {Config{Transports: []string{TLS}, TLS: &ServerTLS{CertFile: "a"}}, "tls: cert_file and key_file are needed"},
		"certificate for none": {Config{TLS: pair}, "tls: has no effect"},
		"allow_from":           {Config{AllowFrom: []string{"10.0.0.1", "10.0.0.0/40"}}, `allow_from[1]: "10.0.0.0/40"`},
		"allow_from name":      {Config{AllowFrom: []string{"pbx1"}}, `allow_from[0]: "pbx1"`},
		"connections":          {Config{MaxConnections: -1}, "max_connections: -1"},
		"idle timeout":         {Config{IdleTimeout: time.Millisecond}, "idle_timeout: 1ms"},
		"frame timeout":        {Config{FrameTimeout: time.Hour}, "frame_timeout: 1h"},
		"queue":                {Config{QueueBytes: 1000}, "queue_bytes: 1000"},
		"receive buffer":       {Config{ReceiveBuffer: 1000}, "receive_buffer: 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			errs := c.conf.Validate()
			if c.want == "" {
				if errs != nil {
					t.Error(errs)
				}
				return
			}
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
				t.Errorf("faults %v, want one with %q", errs, c.want)
			}
		})
	}
}

func TestNetworks(t *testing.T) {
	n, err := parseNetworks([]string{"10.1.2.3/16", "192.0.2.1", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]bool{
		"10.1.255.1": true, "::ffff:10.1.0.1": true, "10.2.0.1": false, "192.0.2.1": true, "192.0.2.2": false,
		"2001:db8::7": true, "2001:db9::7": false,
	} {
		if got := n.allow(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
}
