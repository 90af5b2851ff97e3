package kafka

import (
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	gateways "github.com/ctigate/ctigate/core/cluster"
	"github.com/twmb/franz-go/pkg/kfake"
)

// The cluster of gateways talks to Kafka through the sink's settings.
func TestDialIsAuthenticated(t *testing.T) {
	f := newFake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "gw", "secret"))
	defer f.Close()
	cfg := f.config()
	cfg.SASL = SASL{Mechanism: mechanismSCRAM256, Username: "gw", Password: core.NewSecret("secret")}
	inspect := func(cfg *Config) error {
		_, err := gateways.Inspect(t.Context(), gateways.Options{Config: gateways.NewConfig(), Prefix: "cti.", Brokers: cfg.Brokers, Dial: cfg.Dial})
		return err
	}
	if err := inspect(cfg); err != nil {
		t.Error(err)
	}
	wrong := *cfg
	wrong.SASL.Password, wrong.DialTimeout = core.NewSecret("wrong"), 500*time.Millisecond
	if err := inspect(&wrong); err == nil {
		t.Error("a wrong password was accepted")
	}
}
