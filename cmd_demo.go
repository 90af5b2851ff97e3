package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/adapters/esl"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim"
	"github.com/ctigate/ctigate/sim/trunk"
	"github.com/ctigate/ctigate/sinks/kafka"
)

type demoFlags struct {
	length time.Duration
	rate   float64
	speed  float64
	seed   uint64
	port   int
	plain  bool
	listen string
	logs   logFlags
}

func newDemo() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See everything at work: simulated switches, the gateway, a broker to read from",
		Long: `Start a simulated Asterisk, a simulated FreeSWITCH and a simulated SIP trunk with real RTP on 127.0.0.1, the gateway
and an embedded Kafka-compatible broker, and show the calls and how those of the trunk sound. Any Kafka client can read
the topics while it runs.

The broker is for trying out: it lives in this process and in memory, and is gone when the demo ends.

Ends with Ctrl-C or after --for, and sums up what was delivered.`,
		Example: `  ctigate demo
  ctigate demo --for 30s --rate 10
  ctigate demo & kcat -C -b 127.0.0.1:9092 -t cti.events.v1 -o beginning`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			if f.rate <= 0 || f.rate > 1000 {
				return usageError{fmt.Errorf("--rate %v: give more than 0 and at most 1000 calls a second", f.rate)}
			}
			if f.port < 0 || f.port > 65535 {
				return usageError{fmt.Errorf("--kafka-port %d is no port", f.port)}
			}
			defer endOnSignal(cmd)()
			return demo(cmd, f)
		}),
	}
	fl := cmd.Flags()
	fl.DurationVar(&f.length, "for", 0, "end by itself after `TIME`, such as 30s")
	fl.Float64Var(&f.rate, "rate", 1, "new calls a second, on Asterisk and FreeSWITCH; half of it on the trunk")
	fl.Float64Var(&f.speed, "speed", 4, "how many times faster than life people ring, wait and talk")
	fl.Uint64Var(&f.seed, "seed", 1, "the same calls for the same `SEED`")
	fl.IntVar(&f.port, "kafka-port", 9092, "`PORT` of the broker on 127.0.0.1; another when it is taken")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:0", "`HOST:PORT` of /metrics, /healthz and /readyz, or off")
	fl.BoolVar(&f.plain, "plain", false, "log lines instead of the live table, on a terminal too")
	f.logs.add(cmd)
	return cmd
}

func demo(cmd *cobra.Command, f demoFlags) error {
	b, err := startBroker(f.port)
	if err != nil {
		return err
	}
	defer b.cluster.Close()
	// The switches outlive the gateway's drain.
	around, stop := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer stop()
	pbx, err := startSwitches(around, f)
	if err != nil {
		return err
	}
	defer pbx.close()
	cfg := demoConfig(f, b, pbx)
	if err := f.logs.apply(&cfg.Log); err != nil {
		return err
	}
	w := newWatch(cmd, cfg, f.plain)
	w.also = pbx.beginWhenUp()
	w.title, w.hint, w.every = "demo", demoHint(b), 5*time.Second
	if w.screen == nil {
		fmt.Fprint(cmd.ErrOrStderr(), demoIntro(b, f))
	}
	w.length = f.length
	g, err := serve(cmd.Context(), cfg, w, nil)
	w.tail(cmd.ErrOrStderr())
	if g == nil {
		return err
	}
	return errors.Join(err, summarize(cmd.OutOrStdout(), w, g, b))
}

// demoTopics are those whose messages the summary counts.
var demoTopics = []string{"cti.events.v1", "cti.calls.v1", "cti.records.v1", "cti.media.v1", "cti.sources.v1", "cti.stale.v1", "cti.deadletter.v1"}

// summarize says what the demo delivered. It fails when the sink, or the broker, has less than the gateway produced.
func summarize(out io.Writer, w *watch, g *gateway, b *broker) error {
	var s strings.Builder
	c := &w.counts
	fmt.Fprintf(&s, "demo: %s, %d calls of which %d ended, %d records, %d events\n",
		w.took.Round(time.Second), c.started.Load(), c.ended.Load(), c.records.Load(), c.events.Load())
	var onBroker int64
	for _, t := range demoTopics {
		if n := b.messages(t); n > 0 {
			fmt.Fprintf(&s, "  %-18s %d messages\n", t, n)
			onBroker += n
		}
	}
	var missing error
	for _, k := range g.router.Status().Sinks {
		fmt.Fprintf(&s, "%s: %d of %d messages acknowledged\n", k.Name, k.Acked, k.Produced)
		if k.Acked != k.Produced || onBroker < int64(k.Acked) {
			missing = fmt.Errorf("demo: %d messages produced, %d acknowledged, %d on the broker: some are missing", k.Produced, k.Acked, onBroker)
		}
	}
	if _, err := io.WriteString(out, s.String()); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return missing
}

func demoHint(b *broker) string {
	return "read it: kcat -C -b " + b.addr + " -t cti.events.v1   (Ctrl-C ends)"
}

func demoIntro(b *broker, f demoFlags) string {
	var s strings.Builder
	s.WriteString("ctigate demo: a simulated Asterisk, FreeSWITCH and SIP trunk, the gateway, and an embedded broker for trying out.\n")
	if !b.wanted {
		fmt.Fprintf(&s, "Port %d is taken: the broker listens on %s instead.\n", f.port, b.addr)
	}
	fmt.Fprintf(&s, "Read the events with any Kafka client, such as\n"+
		"  kcat -C -b %[1]s -t cti.events.v1 -o beginning -f '%%k %%h\\n%%s\\n'\n"+
		"  kcat -C -b %[1]s -t cti.records.v1 -o beginning\n", b.addr)
	return s.String()
}

// demoConfig is what a user would write for the demo's switches and broker.
func demoConfig(f demoFlags, b *broker, pbx *switches) *configs.Config {
	cfg := configs.Default()
	asterisk := ari.NewConfig()
	asterisk.URL = "http://" + pbx.asterisk.ARIAddr() + "/ari"
	asterisk.Username, asterisk.Password = demoUser, core.NewSecret(demoPassword)
	asterisk.AMI = &ari.AMI{Address: pbx.asterisk.AMIAddr(), Username: demoUser, Password: core.NewSecret(demoPassword)}
	freeswitch := esl.NewConfig()
	freeswitch.Address, freeswitch.Password = pbx.freeswitch.Addr(), core.NewSecret(demoPassword)
	sink := kafka.NewConfig()
	sink.Brokers, sink.Partitions = []string{b.addr}, brokerPartitions
	cfg.Switches = []configs.Switch{{ID: "ast-sim", Kind: "ari", Config: asterisk}, {ID: "fs-sim", Kind: "esl", Config: freeswitch},
		{ID: demoTrunk, Kind: "sip", Config: demoSIP(pbx)}}
	cfg.Sinks = []configs.Sink{{Name: "kafka", Kind: "kafka", WhenFull: configs.Block, Config: sink}}
	cfg.Enrich = configs.Enrich{DefaultRegion: "US"}
	cfg.Telemetry.Listen = f.listen
	cfg.DrainTimeout = 5 * time.Second
	return cfg
}

// demoSIP is what a user would write for the trunk: its PBX, and a HEP agent beside it.
func demoSIP(pbx *switches) *sip.Config {
	c := sip.NewConfig()
	_, addr, _ := pbx.trunk.Addrs()
	c.PBX, c.CorrelationHeaders = []string{addr}, []string{"X-Call-Ref"}
	c.Quality.Interval = 3 * time.Second
	c.HEP = hep.NewConfig()
	c.HEP.Listen, c.HEP.Transports, c.HEP.Key = pbx.hep, []string{"udp"}, core.NewSecret(demoPassword)
	return c
}

const (
	demoUser     = "demo"
	demoPassword = "demo"
	demoTrunk    = "sip-sim"
	// maxTrunkCalls bounds the calls whose RTP the demo sends at once.
	maxTrunkCalls = 20
)

// switches are the demo's.
type switches struct {
	asterisk   *sim.Asterisk
	freeswitch *sim.FreeSWITCH
	trunk      *trunk.Trunk
	hep        string        // host:port that the trunk is mirrored to
	begin      chan struct{} // closed when the trunk's calls may begin
}

func startSwitches(ctx context.Context, f demoFlags) (*switches, error) {
	o := sim.Options{Seed: f.seed, Rate: f.rate, Speed: f.speed, User: demoUser, Password: demoPassword, Readers: 1}
	s := &switches{asterisk: sim.NewAsterisk(o), begin: make(chan struct{})}
	o.Seed++
	s.freeswitch = sim.NewFreeSWITCH(o)
	var err error
	if s.hep, err = freeUDP(); err != nil {
		return nil, fmt.Errorf("starting the simulated switches: %w", err)
	}
	s.trunk = trunk.New(trunk.Options{Seed: f.seed + 2, Rate: f.rate / 2, Speed: f.speed, MaxActive: maxTrunkCalls, HEP: s.hep, HEPKey: demoPassword,
		Begin: s.begin, Faults: trunk.Faults{Retransmit: 0.05, Duplicate: 0.05, LostACK: 0.02}})
	for _, start := range []func() error{
		func() error { return s.asterisk.Start(ctx, "127.0.0.1:0", "127.0.0.1:0") },
		func() error { return s.freeswitch.Start(ctx, "127.0.0.1:0") },
		func() error { return s.trunk.Start(ctx) },
	} {
		if err := start(); err != nil {
			s.close()
			return nil, fmt.Errorf("starting the simulated switches: %w", err)
		}
	}
	return s, nil
}

// freeUDP is an address on loopback that nobody listens on.
func freeUDP() (string, error) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free UDP port: %w", err)
	}
	defer func() { _ = c.Close() }() // it was only to find the port
	return c.LocalAddr().String(), nil
}

// beginWhenUp lets the trunk's calls begin when the gateway hears them: what is mirrored before that is lost.
func (s *switches) beginWhenUp() func(*call.Event) {
	var once sync.Once
	return func(e *call.Event) {
		if e.Type == call.SourceUp && e.Switch.ID == demoTrunk {
			once.Do(func() { close(s.begin) })
		}
	}
}

func (s *switches) close() {
	s.asterisk.Close()
	s.freeswitch.Close()
	s.trunk.Close()
}
