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
	cfg.DialTimeout = 500 * time.Millisecond
	cfg.SASL = SASL{Mechanism: mechanismSCRAM256, Username: "gw", Password: core.NewSecret("secret")}
	inspect := func() error {
		_, err := gateways.Inspect(t.Context(), gateways.Options{Config: gateways.NewConfig(), Prefix: "cti.", Brokers: cfg.Brokers, Dial: cfg.Dial})
		return err
	}
	if err := inspect(); err != nil {
		t.Error(err)
	}
	cfg.SASL.Password = core.NewSecret("wrong")
	if err := inspect(); err == nil {
		t.Error("a wrong password was accepted")
	}
}
