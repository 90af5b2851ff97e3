package kafka

import (
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/goccy/go-yaml"
)

func TestConfigFromYAML(t *testing.T) {
	text := `
brokers: [kafka1:9093, kafka2:9093]
tls: {enabled: true, ca_file: /etc/ctigate/ca.pem}
sasl: {mechanism: scram-sha-512, username: ctigate, password: {env: KAFKA_PASSWORD}}
compression: zstd
retention: {records: 720h, events: 168h}
write_timeout: 45s
`
	cfg := NewConfig()
	if err := yaml.NewDecoder(strings.NewReader(text), yaml.Strict()).Decode(cfg); err != nil {
		t.Fatal(err)
	}
	if errs := cfg.Validate(); len(errs) != 0 {
		t.Fatal(errs)
	}
	if cfg.Retention[core.StreamRecords] != 720*time.Hour || cfg.WriteTimeout != 45*time.Second || cfg.SASL.Password.Env != "KAFKA_PASSWORD" {
		t.Errorf("got %+v", cfg)
	}
	if cfg.Partitions != 12 || !cfg.CreateTopics || cfg.Encoding != "binary" {
		t.Errorf("defaults are lost: %+v", cfg)
	}
	if err := yaml.NewDecoder(strings.NewReader("brokers: [a:1]\npasswrd: x\n"), yaml.Strict()).Decode(NewConfig()); err == nil {
		t.Error("an unknown key was taken")
	}
}
