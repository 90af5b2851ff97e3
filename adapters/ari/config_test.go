package ari

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
)

func TestConfigFaultsNameTheirField(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no url":              {func(c *Config) { c.URL = "" }, "url:"},
		"not a url":           {func(c *Config) { c.URL = "http://u:hunter2@h:x/ari" }, "url:"},
		"scheme":              {func(c *Config) { c.URL = "ftp://h/ari" }, `url: scheme "ftp"`},
		"no host":             {func(c *Config) { c.URL = "http:///ari" }, "url: no host"},
		"user in url":         {func(c *Config) { c.URL = "http://u:hunter2@h/ari" }, "url: must not hold"},
		"query":               {func(c *Config) { c.URL = "http://h/ari?api_key=hunter2" }, "url: must not have a query"},
		"no path":             {func(c *Config) { c.URL = "http://h:8088" }, "url: no path"},
		"no user":             {func(c *Config) { c.Username = "" }, "username:"},
		"colon in user":       {func(c *Config) { c.Username = "a:b" }, "username:"},
		"no password":         {func(c *Config) { c.Password = core.Secret{} }, "password:"},
		"application":         {func(c *Config) { c.Application = "a,b" }, "application:"},
		"tls on http":         {func(c *Config) { c.TLS.ServerName = "x" }, "tls:"},
		"half a pair":         {func(c *Config) { c.URL = "https://h/ari"; c.TLS.CertFile = "x" }, "tls: cert_file"},
		"ca and skip":         {func(c *Config) { c.URL = "https://h/ari"; c.TLS = core.TLS{CAFile: "x", InsecureSkipVerify: true} }, "tls: ca_file"},
		"ivr variable":        {func(c *Config) { c.IVRVariable = "" }, "ivr_variable:"},
		"variable":            {func(c *Config) { c.Variables = []string{"A", "B C"} }, "variables[1]:"},
		"variable twice":      {func(c *Config) { c.Variables = []string{"A", "A"} }, "variables[1]:"},
		"too many variables":  {func(c *Config) { c.Variables = make([]string, 300) }, "variables: 300"},
		"ping interval":       {func(c *Config) { c.PingInterval = 0 }, "ping_interval:"},
		"read timeout":        {func(c *Config) { c.ReadTimeout = c.PingInterval }, "read_timeout:"},
		"frame too small":     {func(c *Config) { c.MaxFrameBytes = 1 }, "max_frame_bytes:"},
		"frame too big":       {func(c *Config) { c.MaxFrameBytes = 1 << 30 }, "max_frame_bytes:"},
		"queue":               {func(c *Config) { c.Queue = 0 }, "queue:"},
		"huge queue":          {func(c *Config) { c.Queue = 1 << 30 }, "queue:"},
		"ami address":         {func(c *Config) { c.AMI.Address = "h" }, "ami.address:"},
		"ami user":            {func(c *Config) { c.AMI.Username = "" }, "ami.username:"},
		"ami user's new line": {func(c *Config) { c.AMI.Username = "a\nb" }, "ami.username:"},
		"ami password":        {func(c *Config) { c.AMI.Password = core.Secret{} }, "ami.password:"},
		"ami tls":             {func(c *Config) { c.AMI.TLS = &core.TLS{KeyFile: "x"} }, "ami.tls: cert_file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := goodConfig()
			c.change(cfg)
			text := ""
			if err := errors.Join(cfg.Validate()...); err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("got %q, want %q", text, c.want)
			}
			if strings.Contains(text, "hunter2") {
				t.Errorf("a secret is shown: %s", text)
			}
			if _, err := cfg.Open("pbx1", core.Env{}); err == nil {
				t.Error("opened")
			}
		})
	}
}

func goodConfig() *Config {
	c := testConfig("http://127.0.0.1:8088")
	c.AMI = &AMI{Address: "127.0.0.1:5038", Username: "gw", Password: core.NewSecret(password)}
	return c
}

func TestDefaults(t *testing.T) {
	c := NewConfig()
	if c.Application != "ctigate" || c.IVRVariable != "IVR_PATH" || c.PingInterval != 5*time.Second ||
		c.ReadTimeout != 15*time.Second || c.MaxFrameBytes != 4<<20 || c.Queue != 8192 || c.RawPassthrough() {
		t.Errorf("%+v", c)
	}
	if faults := goodConfig().Validate(); len(faults) != 0 {
		t.Errorf("a good configuration has faults: %v", faults)
	}
}

func TestUnwiseSettingsAreLogged(t *testing.T) {
	var log bytes.Buffer
	c := goodConfig()
	open := func() string {
		log.Reset()
		if _, err := c.Open("pbx1", core.Env{Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	if got := open(); got != "" {
		t.Errorf("a good configuration warns: %s", got)
	}
	c.URL, c.AMI.Address = "http://pbx1.example.com:8088/ari", "pbx1.example.com:5038"
	if got := open(); strings.Count(got, "level=WARN") != 2 || !strings.Contains(got, "url:") || !strings.Contains(got, "ami.address:") {
		t.Errorf("plain text: %s", got)
	}
	c.URL, c.TLS.InsecureSkipVerify, c.AMI.TLS = "https://pbx1.example.com:8089/ari", true, &core.TLS{InsecureSkipVerify: true}
	if got := open(); strings.Count(got, "insecure_skip_verify") != 2 {
		t.Errorf("skipping: %s", got)
	}
}

func TestTLSFilesThatDoNotLoad(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string]core.TLS{
		"tls.ca_file: no PEM": {CAFile: empty},
		"tls.ca_file: open":   {CAFile: empty + ".not"},
		"tls.cert_file":       {CertFile: empty, KeyFile: empty},
	} {
		c := goodConfig()
		c.URL, c.TLS = "https://h/ari", files
		if _, err := c.Open("pbx1", core.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		c = goodConfig()
		c.AMI.TLS = &files
		if _, err := c.Open("pbx1", core.Env{}); err == nil || !strings.Contains(err.Error(), "ami."+want) {
			t.Errorf("ami.%s: %v", want, err)
		}
	}
}
