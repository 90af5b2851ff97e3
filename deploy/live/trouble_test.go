//go:build live

package live_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

// TestCheck probes the live systems. What cannot be seen is a warning; nothing may be called broken.
func TestCheck(t *testing.T) {
	out, err := settings{prefix: "check."}.ctigate(t, "check").CombinedOutput()
	t.Logf("\n%s", out)
	if err != nil || strings.Contains(string(out), "FAIL") {
		t.Errorf("check of a sound configuration: %v", err)
	}
	for _, want := range []string{"ARI login", "ARI websocket", "AMI login", "clock", "topic check.events.v1", " 0 failed"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the table does not speak of %q", want)
		}
	}
}

func TestCheckWrongPassword(t *testing.T) {
	out, err := settings{prefix: "check.", password: "mistaken"}.ctigate(t, "check").CombinedOutput()
	t.Logf("\n%s", out)
	if err == nil || !strings.Contains(string(out), "FAIL") || !strings.Contains(string(out), "ari.conf") {
		t.Errorf("a refused password: %v", err)
	}
	if strings.Contains(string(out), "mistaken") {
		t.Error("the password is printed")
	}
}

// counter passes connections on to an address and counts them.
type counter struct {
	addr string
	n    atomic.Int64
}

func count(t *testing.T, to string) *counter {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	c := &counter{addr: ln.Addr().String()}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			c.n.Add(1)
			go relay(in, to)
		}
	}()
	return c
}

func relay(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() { io.Copy(out, in); out.Close() }()
	io.Copy(in, out)
}

// TestWrongPassword holds that a refused login is one clear message and a slow retry.
func TestWrongPassword(t *testing.T) {
	ari, ami := count(t, ariAddr), count(t, amiAddr)
	g := start(t, settings{ari: ari.addr, ami: ami.addr, prefix: "refused.", password: "mistaken"})
	eventually(t, "the log speaks of the refusal", time.Minute, func() bool { return strings.Contains(g.logged(), "refused") })
	time.Sleep(10 * time.Second)
	if a, m := ari.n.Load(), ami.n.Load(); a > 4 || m > 4 {
		t.Errorf("%d connections to ARI and %d to AMI within 10 s", a, m)
	} else {
		t.Logf("%d connections to ARI and %d to AMI within 10 s", a, m)
	}
	if n := strings.Count(g.logged(), "link refused"); n != 1 || strings.Contains(g.logged(), "mistaken") {
		t.Errorf("the refusal is logged %d times", n)
	}
	if g.status().Ready {
		t.Error("ready without a switch")
	}
	if code, took := g.stop(); code != 0 || took > 10*time.Second {
		t.Errorf("stopping took %v and ended with %d", took, code)
	}
}

// TestStopUnderTraffic stops the gateway in the midst of calls: what was received is delivered within the bound.
func TestStopUnderTraffic(t *testing.T) {
	const prefix = "stopped."
	g := start(t, settings{prefix: prefix})
	g.waitReady()
	wait := playing(t, false, "--traffic", "16")
	eventually(t, "calls are up", time.Minute, func() bool { return g.status().Active >= 4 })
	g.stopClean()
	c := readAll(t, prefix)
	seq := map[string]uint64{}
	for _, e := range c.events(t, "events") {
		if e.CallID == "" {
			continue
		}
		if seq[e.CallID]++; e.Seq != seq[e.CallID] {
			t.Errorf("%s of %s has seq %d, want %d", e.Type, e.CallID, e.Seq, seq[e.CallID])
		}
	}
	if len(seq) < 4 {
		t.Errorf("only %d calls reached Kafka", len(seq))
	}
	if last := c.events(t, "sources"); last[len(last)-1].Type != call.SourceDown {
		t.Errorf("the sources topic ends with %s", last[len(last)-1].Type)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestGatewayKilled kills the gateway in the midst of a call and starts it again, with its journal, and then on a new disk:
// the call goes on under its id and its numbers, ends once, and the time without a gateway is told.
func TestGatewayKilled(t *testing.T) {
	for _, how := range []string{"journal", "newdisk"} {
		t.Run(how, func(t *testing.T) {
			s := settings{prefix: how + ".", journal: filepath.Join(t.TempDir(), "journal")}
			g := start(t, s)
			g.waitReady()
			wait := playing(t, true, "--talk", "8")
			eventually(t, "the call is up", time.Minute, func() bool { return g.status().Active > 0 })
			time.Sleep(1500 * time.Millisecond) // it is answered, and all of it published
			g.kill()
			if how == "newdisk" {
				if err := os.RemoveAll(s.journal); err != nil {
					t.Fatal(err)
				}
			}
			g = start(t, s)
			g.waitReady()
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			g.waitIdle()
			g.stopClean()
			checkGoesOn(t, readAll(t, s.prefix))
		})
	}
}

func checkGoesOn(t *testing.T, c content) {
	if n := checkCalls(t, c); n != 1 {
		t.Errorf("%d calls, not 1", n)
	}
	var gaps []*call.Event
	for _, e := range c.events(t, "sources") {
		if e.Type == call.SourceGap {
			gaps = append(gaps, e)
		}
	}
	if len(gaps) != 1 || gaps[0].Source.From == 0 || gaps[0].Source.To <= gaps[0].Source.From {
		t.Errorf("%d gaps, not 1: %+v", len(gaps), gaps)
	}
	for _, r := range c.events(t, "records") {
		if k := r.Call; k.Outcome != call.Answered || k.Durations.TalkMS < 7_000 || k.Durations.TalkMS > 9_500 || k.Completeness == nil || k.Completeness.Gaps == 0 {
			t.Errorf("the record: %s, talk %d ms, completeness %+v", k.Outcome, k.Durations.TalkMS, k.Completeness)
		}
	}
}

// TestAsteriskKilled kills Asterisk in the midst of a call and starts it again: the link's loss and return are told, the
// call ends once, marked, and the next call is whole.
func TestAsteriskKilled(t *testing.T) {
	const prefix = "killed."
	g := start(t, settings{prefix: prefix})
	g.waitReady()
	wait := playing(t, true, "--talk", "20")
	eventually(t, "the call is up", time.Minute, func() bool { return g.status().Active > 0 })
	kill(lab.asterisk, syscall.SIGKILL)
	eventually(t, "the link is down", time.Minute, func() bool { return !g.status().Links[0].Up })
	if err := asteriskUp(); err != nil {
		t.Fatal(err)
	}
	g.waitReady()
	g.waitIdle()
	wait() // the phones are alone by now
	from := time.Now()
	play(t, "hold_retrieve")
	g.waitIdle()
	after := recordsOf(t, prefix, from, time.Now())
	if len(after) != 1 || after[0].Call.Completeness != nil || after[0].Call.Outcome != call.Answered {
		t.Errorf("the call after the restart: %d records, %+v", len(after), after)
	}
	g.stopClean()
	checkKilled(t, readAll(t, prefix))
}

func checkKilled(t *testing.T, c content) {
	checkCalls(t, c)
	var told []call.EventType
	for _, e := range c.events(t, "sources") {
		if e.Type != call.SourceClock && e.Type != call.SourceReconciled {
			told = append(told, e.Type)
		}
		if e.Type == call.SourceGap && (e.Source == nil || e.Source.From == 0 || e.Source.To <= e.Source.From) {
			t.Errorf("the gap has no bounds: %+v", e.Source)
		}
	}
	t.Logf("the sources topic: %v", told)
	next := 0
	for _, want := range []call.EventType{call.SourceUp, call.SourceDown, call.SourceUp, call.SourceGap, call.SourceDown} {
		i := slices.Index(told[next:], want)
		if i < 0 {
			t.Fatalf("the sources topic tells %v, without %s after %v", told, want, told[:next])
		}
		if want != call.SourceUp && want != call.SourceGap { // these two may come in either order
			next += i + 1
		}
	}
	first := c.events(t, "records")
	slices.SortFunc(first, func(a, b *call.Event) int { return int(a.Call.StartedAt - b.Call.StartedAt) })
	if r := first[0].Call; r.Completeness == nil || r.Completeness.Gaps == 0 {
		t.Errorf("the record of the call that was cut off does not say so: %+v", r.Completeness)
	}
}

// TestKafkaKilled kills Kafka under traffic and starts it again after 20 s: everything arrives, and in order.
func TestKafkaKilled(t *testing.T) {
	const prefix, calls = "outage.", 60
	g := start(t, settings{drain: "60s", prefix: prefix})
	t.Cleanup(func() { kafkaUp() }) // for the next tests
	g.waitReady()
	wait := playing(t, false, "--traffic", fmt.Sprint(calls))
	eventually(t, "events are acknowledged", time.Minute, func() bool { return g.status().Sinks[0].Acked > 100 })
	kill(lab.kafka, syscall.SIGKILL)
	down := time.Now()
	eventually(t, "the log speaks of it", time.Minute, func() bool { return strings.Contains(g.logged(), "asking kafka broker") })
	time.Sleep(20*time.Second - time.Since(down))
	t.Logf("after %v without Kafka: %+v", time.Since(down).Round(time.Second), g.status().Sinks)
	if err := kafkaUp(); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
	eventually(t, "everything is delivered", 60*time.Second, func() bool {
		s := g.status()
		return s.Active == 0 && s.Sinks[0].Produced == s.Sinks[0].Acked
	})
	g.stopClean()
	c, again := once(readAll(t, prefix))
	if n := checkCalls(t, c); n != calls {
		t.Errorf("%d calls reached Kafka, %d were made", n, calls)
	}
	// The broker knows a batch the sink sends again; one that the sink had given back to the router is new to it.
	if gaveBack := strings.Contains(g.logged(), "sink not accepting"); again > 0 && !gaveBack {
		t.Errorf("%d messages are there twice", again)
	}
	t.Logf("%d calls, %d messages twice", calls, again)
}

// once leaves out what is there again under the same id, as a consumer does, and says how much that is.
func once(c content) (content, int) {
	again := 0
	for stream, all := range c.messages {
		ids := map[string]bool{}
		c.messages[stream] = slices.DeleteFunc(all, func(m message) bool {
			id := m.Headers["ce_id"]
			seen := ids[id]
			if ids[id] = true; seen {
				again++
			}
			return seen
		})
	}
	return c, again
}

// TestSecuredKafka delivers one call to five sinks at once: over mutual TLS and three SASL mechanisms, and in structured
// mode. All hold the same.
func TestSecuredKafka(t *testing.T) {
	sasl := func(mechanism string) string {
		return fmt.Sprintf("    brokers: [\"%s\"]\n    sasl: {mechanism: %s, username: gw, password: {env: KAFKA_PASSWORD}}\n", kafkaSASL, mechanism)
	}
	tls := filepath.Join(lab.dir, "kafka", "tls")
	ways := map[string]string{
		"plain": sasl("plain"), "scram256": sasl("scram-sha-256"), "scram512": sasl("scram-sha-512"),
		"mtls": fmt.Sprintf("    brokers: [\"%s\"]\n    tls: {enabled: true, ca_file: %s/ca.pem, cert_file: %s/client.pem, key_file: %s/client.key}\n",
			kafkaTLS, tls, tls, tls),
		"structured": fmt.Sprintf("    brokers: [\"%s\"]\n    encoding: structured\n", kafkaAddr),
	}
	sinks := ""
	for name, way := range ways {
		sinks += fmt.Sprintf("  - kind: kafka\n    name: %s\n    topic_prefix: %s.\n%s", name, name, way)
	}
	s := settings{sinks: sinks}
	if out, err := s.ctigate(t, "check").CombinedOutput(); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	g := start(t, s)
	g.waitReady()
	play(t, "queue_answered")
	g.waitIdle()
	g.stopClean()
	var want []string
	for _, name := range []string{"plain", "scram256", "scram512", "mtls", "structured"} {
		c := readAll(t, name+".")
		var ids []string
		for _, m := range append(c.messages["events"], c.messages["records"]...) {
			ids = append(ids, identity(t, m))
		}
		slices.Sort(ids)
		if want == nil {
			want = ids
		}
		if len(ids) < 10 || !slices.Equal(ids, want) {
			t.Errorf("%s: %d events, want the %d of the others", name, len(ids), len(want))
		}
	}
}

// identity is a CloudEvent's type and id, in either content mode.
func identity(t *testing.T, m message) string {
	if m.Headers["content-type"] == "application/json" {
		return m.Headers["ce_type"] + " " + m.Headers["ce_id"]
	}
	var e struct{ SpecVersion, ID, Type, Subject string }
	m.decode(t, &e)
	if !strings.HasPrefix(m.Headers["content-type"], "application/cloudevents+json") {
		t.Errorf("content-type %q of a structured CloudEvent", m.Headers["content-type"])
	}
	if e.SpecVersion != "1.0" {
		t.Errorf("specversion %q", e.SpecVersion)
	}
	return e.Type + " " + e.ID
}

// TestPartitions holds that a key goes where every Java client, and librdkafka told to, would put it.
func TestPartitions(t *testing.T) {
	c := readAll(t, "stopped.")
	const create = `
import sys
from confluent_kafka.admin import AdminClient, NewTopic
admin = AdminClient({"bootstrap.servers": sys.argv[1]})
for f in admin.create_topics([NewTopic("murmur2", 12, 1)]).values(): f.result(15)`
	mustOutput(t, "/usr/bin/python3", "-c", create, kafkaAddr)
	want, lines := map[string]int{}, ""
	for _, m := range c.messages["events"] {
		if _, ok := want[m.Key]; !ok {
			want[m.Key] = m.Partition
			lines += m.Key + "\tx\n"
		}
	}
	cmd := exec.Command("kcat", "-P", "-b", kafkaAddr, "-t", "murmur2", "-K", "\t", "-X", "topic.partitioner=murmur2_random")
	cmd.Stdin, cmd.Stderr = strings.NewReader(lines), os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	got := kcat(t, "murmur2")
	for _, m := range got {
		if want[m.Key] != m.Partition {
			t.Errorf("key %s is in partition %d, librdkafka puts it into %d", m.Key, want[m.Key], m.Partition)
		}
	}
	if len(got) != len(want) || len(want) < 4 {
		t.Errorf("%d keys compared, of %d", len(got), len(want))
	}
}

// TestSinkAgainstRealKafka runs the Kafka sink's own tests against this broker.
func TestSinkAgainstRealKafka(t *testing.T) {
	cmd := exec.Command("go", "test", "-count=1", "-run", "Live", "-v", repository+"/sinks/kafka")
	cmd.Env = append(os.Environ(), "CTIGATE_TEST_KAFKA="+kafkaAddr)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLive") {
		t.Errorf("%v\n%s", err, out)
	}
}
