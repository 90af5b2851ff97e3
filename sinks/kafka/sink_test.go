package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/sinktest"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sinkItems are events of about 2.5 KB.
func sinkItems(n int) []core.Item {
	items := sinktest.Events("k", n, 50)
	for i := range items {
		c := items[i].Event.Call
		for j := range 4 {
			c.Connections = append(c.Connections, &call.Connection{
				ID: fmt.Sprintf("%s:%d", items[i].Key, j+2), SIPCallID: fmt.Sprintf("%x@192.0.2.10", (i+1)*(j+7)*7919),
				State: call.Connected, OfferedAt: 1.8e15, ConnectedAt: 1.8e15 + call.Time(i*j), Party: call.Party{ID: "agent", Number: "+49301234"},
				Media: &call.Media{Codec: "opus", SampleRate: 48000},
			})
		}
	}
	return items
}

func TestTopicsAreCreatedAsTheModelWants(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	cfg := f.config()
	cfg.Retention = map[core.Stream]time.Duration{core.StreamRecords: 720 * time.Hour, core.StreamEvents: 0}
	s := open(t, cfg)
	defer shut(t, s)
	for _, tp := range cfg.topics() {
		info := f.TopicInfo(tp.name)
		if info == nil {
			t.Fatalf("%s was not created", tp.name)
		}
		want := "delete"
		if tp.name == "cti.calls.v1" {
			want = "compact"
		}
		if got := info.Configs["cleanup.policy"]; got == nil || *got != want {
			t.Errorf("%s: cleanup.policy %v, want %s", tp.name, got, want)
		}
		if n := len(f.PartitionInfos(tp.name)); n != 3 {
			t.Errorf("%s: %d partitions, want 3", tp.name, n)
		}
	}
	for name, want := range map[string]string{"cti.records.v1": "2592000000", "cti.events.v1": "-1"} {
		if got := f.TopicInfo(name).Configs["retention.ms"]; got == nil || *got != want {
			t.Errorf("%s: retention.ms %v, want %s", name, got, want)
		}
	}
	again := open(t, cfg) // nothing to create now
	shut(t, again)
}

func TestOpenRefuses(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	create := func(name, policy string) {
		if err := f.CreateTopic(name, 3, map[string]string{"cleanup.policy": policy}); err != nil {
			t.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, c := range []struct {
		name      string
		change    func(*Config)
		want      string
		permanent bool
	}{
		{"missing topics it may not create", func(c *Config) { c.CreateTopics = false }, "topic cti.events.v1 does not exist and create_topics is false", true},
		{"an unreachable broker", func(c *Config) { c.Brokers = []string{free.Addr().String()} }, free.Addr().String(), false},
		{"a broker that speaks no TLS", func(c *Config) { c.TLS.Enabled = true; c.DialTimeout = time.Second }, "may not speak TLS on this port", false},
		{"a topic that forgets events", func(c *Config) { create("x.events.v1", "compact"); c.TopicPrefix = "x." }, "would keep only the last event of each key", true},
		{"more replicas than brokers", func(c *Config) { c.TopicPrefix = "r."; c.ReplicationFactor = 9 }, "replication_factor", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := f.config()
			c.change(cfg)
			s, err := cfg.Open(t.Context(), core.Env{})
			if err == nil {
				shut(t, s)
				t.Fatal("Open succeeded")
			}
			if !strings.Contains(err.Error(), c.want) || core.IsPermanent(err) != c.permanent {
				t.Errorf("got %v (permanent %v), want %q (permanent %v)", err, core.IsPermanent(err), c.want, c.permanent)
			}
		})
	}
}

func TestSASL(t *testing.T) { eachClient(t, testSASL) }

func testSASL(t *testing.T, client string) {
	f := newFake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "pat", "pw1"), kfake.Superuser("SCRAM-SHA-256", "sam", "pw2"),
		kfake.Superuser("SCRAM-SHA-512", "sue", "pw3"))
	defer f.Close()
	const hangUp = "it hung up during the login: it may be starting or stopping, or refuse sasl.username"
	for _, c := range []struct{ mechanism, user, password, refusal string }{
		{mechanismPlain, "pat", "pw1", ""},
		{mechanismSCRAM256, "sam", "pw2", ""},
		{mechanismSCRAM512, "sue", "pw3", ""},
		{mechanismPlain, "pat", "wrong", hangUp}, // this broker's way to refuse
		{mechanismSCRAM256, "sam", "wrong", hangUp},
		{mechanismSCRAM512, "nobody", "pw3", hangUp},
		{"", "", "", "may expect TLS (tls.enabled: true) or SASL"},
	} {
		t.Run(c.mechanism+"/"+c.user+"/"+c.password, func(t *testing.T) {
			cfg := f.config()
			cfg.SASL = SASL{Mechanism: c.mechanism, Username: c.user, Password: core.NewSecret(c.password)}
			s, err := cfg.Open(t.Context(), core.Env{})
			if c.refusal == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer shut(t, s)
				if err := s.Write(t.Context(), sinkItems(2)); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				shut(t, s)
			}
			if err == nil || !strings.Contains(err.Error(), c.refusal) || core.IsPermanent(err) {
				t.Errorf("got %v, permanent %v, want %q, retryable", err, core.IsPermanent(err), c.refusal)
			}
			if c.password != "" && err != nil && strings.Contains(err.Error(), c.password) {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

// pki makes a CA and a certificate for 127.0.0.1 that serves both ends, and returns their files.
func pki(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"broker.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	private8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = write("cert.pem", "CERTIFICATE", der)
	return cert, cert, write("key.pem", "PRIVATE KEY", private8)
}

func TestMutualTLS(t *testing.T) { eachClient(t, testMutualTLS) }

func testMutualTLS(t *testing.T, client string) {
	ca, cert, key := pki(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	text, _ := os.ReadFile(ca)
	pool.AppendCertsFromPEM(text)
	cluster, err := kfake.NewCluster(kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{client: client, Cluster: cluster}
	defer f.Close()
	for _, c := range []struct {
		name string
		tls  TLS
		want string
	}{
		{"right", TLS{Enabled: true, CAFile: ca, CertFile: cert, KeyFile: key}, ""},
		{"unverified", TLS{Enabled: true, InsecureSkipVerify: true, CertFile: cert, KeyFile: key}, ""},
		{"no client certificate", TLS{Enabled: true, CAFile: ca}, "client certificate"},
		{"unknown authority", TLS{Enabled: true, CertFile: cert, KeyFile: key}, "set tls.ca_file"},
		{"another name", TLS{Enabled: true, CAFile: ca, CertFile: cert, KeyFile: key, ServerName: "other.test"}, "set tls.server_name"},
		{"no such file", TLS{Enabled: true, CAFile: ca + ".none"}, "reading tls.ca_file"},
		{"not PEM", TLS{Enabled: true, CAFile: os.Args[0]}, "no PEM certificate"},
		{"plain text", TLS{}, "tls.enabled: true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := f.config()
			cfg.TLS = c.tls
			s, err := cfg.Open(t.Context(), core.Env{})
			if err == nil {
				defer shut(t, s)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// An item that its topic will never take must not hold up the others, nor get lost without a trace.
func TestTooLargeItemsAreSetAside(t *testing.T) { eachClient(t, testTooLargeItemsAreSetAside) }

func testTooLargeItemsAreSetAside(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	var log bytes.Buffer
	cfg := f.config()
	opened, err := cfg.Open(t.Context(), core.Env{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*Sink)
	defer shut(t, s)
	items := sinkItems(60)
	noise := make([]byte, 2<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	big := *items[30].Event
	big.Call = &call.Call{ID: "big", Digits: fmt.Sprintf("%x", noise)}
	items[30].Event = &big
	bigDead := core.Item{Stream: core.StreamDeadLetter, Key: "pbx1", Switch: items[0].Switch, Dead: &core.DeadLetter{Raw: noise, Reason: "a 2 MB frame"}}
	if err := s.Write(t.Context(), append(items, bigDead)); err != nil {
		t.Fatal(err)
	}
	got, err := f.records()
	if err != nil {
		t.Fatal(err)
	}
	var aside []string
	for _, r := range got {
		if r.Topic == "cti.deadletter.v1" {
			aside = append(aside, header(r, "reason"))
			if len(r.Value) != asideBytes {
				t.Errorf("%d bytes kept, want %d", len(r.Value), asideBytes)
			}
		}
	}
	if len(got) != 61 || len(aside) != 2 || s.Stats().SetAside != 2 || s.Stats().Acknowledged != 61 {
		t.Fatalf("%d records, aside %q, %+v", len(got), aside, s.Stats())
	}
	all := strings.Join(aside, "\n")
	for _, want := range []string{big.ID, "refused by topic cti.events.v1", "Message Size Too Large", "first 65536 of"} {
		if !strings.Contains(all, want) || !strings.Contains(log.String(), big.ID) {
			t.Errorf("%q is not in the reasons %q or the log %s", want, all, log.String())
		}
	}
}

func TestBatchesThatAreTooLargeAreSplit(t *testing.T) {
	eachClient(t, testBatchesThatAreTooLargeAreSplit)
}

func testBatchesThatAreTooLargeAreSplit(t *testing.T, client string) {
	f := newFake(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "9000"}))
	f.client = client
	defer f.Close()
	cfg := f.config()
	cfg.Compression = "none"
	s := open(t, cfg)
	defer shut(t, s)
	if err := s.Write(t.Context(), sinkItems(90)); err != nil {
		t.Fatal(err)
	}
	got, err := f.records()
	if err != nil || len(got) != 90 || s.Stats().SetAside != 0 {
		t.Errorf("%d records, %v, %+v", len(got), err, s.Stats())
	}
}

// A refusal must not hold up other topics, nor count as the items' fault.
func TestRefusedTopicFailsAtOnceAndAlone(t *testing.T) {
	eachClient(t, testRefusedTopicFailsAtOnceAndAlone)
}

func testRefusedTopicFailsAtOnceAndAlone(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	cfg := f.config()
	s := open(t, cfg)
	defer shut(t, s)
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "cti.calls.v1", Err: kerr.TopicAuthorizationFailed, Count: -1})
	items := sinkItems(4)
	items[1].Stream, items[3].Stream = core.StreamCalls, core.StreamCalls
	began := time.Now()
	err := s.Write(t.Context(), items)
	wantGivenBack(t, err, "grant it Write on the topic", 1, 3)
	if core.IsPermanent(err) {
		t.Error("asking again costs nothing here, and delivers as soon as the right is there")
	}
	if time.Since(began) > cfg.WriteTimeout/2 {
		t.Error("retried what no retry can help")
	}
	fault.Remove()
	if err := s.Write(t.Context(), []core.Item{items[1], items[3]}); err != nil {
		t.Error(err)
	}
	if got, err := f.records(); err != nil || len(got) != 4 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func TestDeletedTopicIsMadeAgain(t *testing.T) { eachClient(t, testDeletedTopicIsMadeAgain) }

func testDeletedTopicIsMadeAgain(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	s := open(t, f.config())
	defer shut(t, s)
	for range 2 {
		if err := s.Write(t.Context(), sinkItems(20)); err != nil {
			t.Fatal(err)
		}
		if err := f.DeleteTopic("cti.events.v1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(t.Context(), sinkItems(20)); err != nil {
		t.Fatal(err)
	}
	if got, err := f.records(); err != nil || len(got) != 20 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

// Close must not wait for ever for a Write that Kafka holds up.
func TestCloseEndsAWriteInProgress(t *testing.T) { eachClient(t, testCloseEndsAWriteInProgress) }

func testCloseEndsAWriteInProgress(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	cfg := f.config()
	cfg.WriteTimeout, cfg.RequestTimeout = time.Minute, time.Minute
	s := open(t, cfg)
	reached := make(chan struct{})
	f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(reached)
		return nil, nil, true // never answered
	})
	done := make(chan error, 1)
	go func() { done <- s.Write(context.Background(), sinkItems(3)) }()
	<-reached
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	var be *core.BatchError
	if err := <-done; !errors.As(err, &be) || len(be.Failed) != 3 {
		t.Errorf("got %v, want all three items as not accepted", err)
	}
}

func TestWithoutProducerIDs(t *testing.T) { eachClient(t, testWithoutProducerIDs) }

func testWithoutProducerIDs(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ClusterAuthorizationFailed, Count: -1, TopLevel: true})
	s := open(t, f.config())
	defer shut(t, s)
	if s.by != noProducer {
		t.Fatalf("got producer %+v, want none", s.by)
	}
	if err := s.Write(t.Context(), sinkItems(20)); err != nil {
		t.Error(err)
	}
	if got, err := f.records(); err != nil || len(got) != 20 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

// A fault that holds up one partition must not hold up the others, and comes out as exactly the items it kept back.
func TestOnePartitionOutOfOrderLeavesTheOthersAlone(t *testing.T) {
	eachClient(t, testOnePartitionOutOfOrderLeavesTheOthersAlone)
}

func testOnePartitionOutOfOrderLeavesTheOthersAlone(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	cfg := f.config()
	cfg.RequestTimeout, cfg.WriteTimeout = 2*time.Second, 4*time.Second // in which the others get through
	s := open(t, cfg)
	defer shut(t, s)
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "cti.events.v1", Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
	items := sinkItems(100)
	err := s.Write(t.Context(), items)
	var be *core.BatchError
	if !errors.As(err, &be) {
		t.Fatalf("got %v, want a BatchError", err)
	}
	var failed []core.Item
	for i, it := range items {
		if (be.Failed[i] != nil) != (partition(it.Key, 3) == 1) {
			t.Errorf("item %d, key %s, partition %d: failed %v", i, it.Key, partition(it.Key, 3), be.Failed[i])
		}
		if be.Failed[i] != nil {
			failed = append(failed, it)
			if core.IsPermanent(be.Failed[i]) || client == clientKafkaGo && !strings.Contains(be.Failed[i].Error(), "Not Enough Replicas") {
				t.Errorf("item %d: %v, want the broker's reason, retryable", i, be.Failed[i])
			}
		}
	}
	fault.Remove()
	if err := s.Write(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	if got, err := f.records(); err != nil || len(got) != 100 {
		t.Errorf("%d records, %v", len(got), err)
	}
}
