//go:build live

package live_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/sim"
)

// load is a simulated Asterisk and a simulated FreeSWITCH that play the ordinary mix of calls.
type load struct {
	a *sim.Asterisk
	f *sim.FreeSWITCH
}

// Events of an average call of the mix, and how much faster than life calls go: an hour's talk need not be waited for.
const (
	eventsPerAsteriskCall   = 115.0
	eventsPerFreeSWITCHCall = 60.0
	speed                   = 20
)

// offer starts simulated switches that send, together, about so many native events a second.
func offer(b *testing.B, perSecond float64) load {
	b.Helper()
	options := func(perCall float64, readers int) sim.Options {
		return sim.Options{Seed: 1, Rate: perSecond / 2 / perCall, Speed: speed, Wait: true, Password: password, Readers: readers}
	}
	l := load{sim.NewAsterisk(options(eventsPerAsteriskCall, 2)), sim.NewFreeSWITCH(options(eventsPerFreeSWITCHCall, 1))}
	if err := l.a.Start(b.Context(), "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	if err := l.f.Start(b.Context(), "127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.a.Close(); l.f.Close() })
	return l
}

func (l load) sent() (n int64) {
	for _, s := range []sim.Stats{l.a.Stats(), l.f.Stats()} {
		for _, k := range s.Sent {
			n += k
		}
	}
	return n
}

// gateway reads the load, with a journal where journal names a folder.
func (l load) gateway(b *testing.B, prefix, journal string) *gateway {
	config := fmt.Sprintf(`switches:
  - id: pbx1
    kind: ari
    url: "http://%s/ari"
    username: gw
    password: {env: LIVE_PASSWORD}
    ami: {address: "%s", username: gw, password: {env: LIVE_PASSWORD}}
  - id: fs1
    kind: esl
    address: "%s"
    password: {env: LIVE_PASSWORD}
sinks:
  - kind: kafka
    brokers: ["%s"]
    topic_prefix: %s
    when_full: block
telemetry:
  listen: "127.0.0.1:0"
journal: {dir: %q}
drain_timeout: 60s
`, l.a.ARIAddr(), l.a.AMIAddr(), l.f.Addr(), kafkaAddr, prefix, journal)
	return start(b, settings{whole: config})
}

// instant is what the gateway's metrics say at one time.
type instant struct {
	at              time.Time
	received, acked float64
	latency         map[float64]float64 // upper bound, seconds → events so far
}

var metricLine = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)
var bound = regexp.MustCompile(`le="([^"]+)"`)

func measure(b *testing.B, g *gateway) instant {
	b.Helper()
	resp, err := http.Get(g.url + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	m := instant{at: time.Now(), latency: map[float64]float64{}}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		f := metricLine.FindStringSubmatch(lines.Text())
		if f == nil {
			continue
		}
		v, _ := strconv.ParseFloat(f[3], 64)
		switch f[1] {
		case "cti_link_received_total":
			m.received += v
		case "cti_sink_acked_total":
			m.acked += v
		case "cti_latency_acked_seconds_bucket":
			le, _ := strconv.ParseFloat(bound.FindStringSubmatch(f[2])[1], 64)
			m.latency[le] += v
		}
	}
	if m.received == 0 || len(m.latency) == 0 {
		b.Fatal("the gateway's metrics do not say what was received and how long it took")
	}
	return m
}

// quantile estimates the latency below which a part q of the events between two instants was, in milliseconds.
func quantile(from, to instant, q float64) float64 {
	bounds := []float64{}
	for le := range to.latency {
		bounds = append(bounds, le)
	}
	slices.Sort(bounds)
	count := func(le float64) float64 { return to.latency[le] - from.latency[le] }
	want, below, last := q*count(bounds[len(bounds)-1]), 0.0, 0.0
	for _, le := range bounds {
		if n := count(le); n >= want && n > below {
			return 1000 * (last + (le-last)*(want-below)/(n-below))
		}
		below, last = count(le), le
	}
	return 1000 * last
}

// BenchmarkEndToEnd offers native events at a rate, with a journal and without, and reports what came through to Kafka's
// acknowledgement, by the gateway's own metrics; then it counts with kcat what Kafka holds. CTIGATE_RATES replaces the
// rates.
func BenchmarkEndToEnd(b *testing.B) {
	rates := "1000,20000,30000"
	if v := os.Getenv("CTIGATE_RATES"); v != "" {
		rates = v
	}
	for rate := range strings.SplitSeq(rates, ",") {
		perSecond, err := strconv.ParseFloat(rate, 64)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(rate+"/alone", func(b *testing.B) {
			for b.Loop() {
				endToEnd(b, perSecond, "bench"+rate+".", "")
			}
		})
		b.Run(rate+"/journal", func(b *testing.B) {
			for b.Loop() {
				endToEnd(b, perSecond, "journal"+rate+".", b.TempDir())
			}
		})
	}
}

func endToEnd(b *testing.B, perSecond float64, prefix, journal string) {
	l := offer(b, perSecond)
	g := l.gateway(b, prefix, journal)
	g.waitReady()
	time.Sleep(25 * time.Second) // until as many calls end as begin
	from := measure(b, g)
	sent := l.sent()
	time.Sleep(30 * time.Second)
	to := measure(b, g)
	seconds := to.at.Sub(from.at).Seconds()
	behind := g.status()
	b.ReportMetric(float64(l.sent()-sent)/seconds, "offered/s")
	b.ReportMetric((to.received-from.received)/seconds, "native/s")
	b.ReportMetric((to.acked-from.acked)/seconds, "messages/s")
	b.ReportMetric(quantile(from, to, 0.5), "p50-ms")
	b.ReportMetric(quantile(from, to, 0.99), "p99-ms")
	b.ReportMetric(float64(behind.Active), "calls")
	b.ReportMetric(float64(behind.Sinks[0].Queue), "queued")
	b.ReportMetric(0, "ns/op")
	l.a.Close()
	l.f.Close()
	checkCounts(b, g, prefix)
	if code, took := g.stop(); code != 0 {
		b.Errorf("stopping took %v and ended with %d", took, code)
	}
}

// checkCounts compares what the gateway says was acknowledged with what kcat says Kafka holds.
func checkCounts(b *testing.B, g *gateway, prefix string) {
	last := uint64(0)
	eventually(b, "everything is delivered", time.Minute, func() bool {
		time.Sleep(time.Second)
		s := g.status()
		k := s.Sinks[0]
		settled := s.Queue == 0 && k.Produced == k.Acked && k.Acked == last
		last = k.Acked
		return settled
	})
	held := uint64(0)
	for _, stream := range []string{"events", "calls", "records", "media", "sources", "stale", "deadletter"} {
		args := []string{"-Q", "-b", kafkaAddr}
		for p := range 12 {
			args = append(args, "-t", fmt.Sprintf("%s%s.v1:%d:-1", prefix, stream, p))
		}
		n := uint64(0)
		for _, f := range endOffset.FindAllStringSubmatch(mustOutput(b, "kcat", args...), -1) {
			v, _ := strconv.ParseUint(f[1], 10, 64)
			n += v
		}
		b.Logf("%s holds %d messages", stream, n)
		held += n
	}
	if held != last || held == 0 {
		b.Errorf("%d messages were acknowledged, and Kafka holds %d", last, held)
	}
}

var endOffset = regexp.MustCompile(`offset (\d+)`)
