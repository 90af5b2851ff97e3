package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/sinks/sinktest"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// wantGivenBack wants exactly these items back, retryable.
func wantGivenBack(t *testing.T, err error, why string, items ...int) {
	t.Helper()
	var be *core.BatchError
	if !errors.As(err, &be) || len(be.Failed) != len(items) {
		t.Fatalf("got %v, want %d items given back", err, len(items))
	}
	for _, i := range items {
		if e := be.Failed[i]; e == nil || core.IsPermanent(e) || !strings.Contains(e.Error(), why) {
			t.Errorf("item %d: got %v, want %q, retryable", i, e, why)
		}
	}
}

// newSecured wants a login.
func newSecured(t *testing.T) *fake {
	t.Helper()
	f := newFake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "pat", "pw"))
	f.login = []kgo.Opt{kgo.SASL(plain.Auth{User: "pat", Pass: "pw"}.AsMechanism())}
	return f
}

func (f *fake) loginConfig() *Config {
	cfg := f.config()
	cfg.RequestTimeout = 2 * time.Second // after which franz-go is asked why
	cfg.SASL = SASL{Mechanism: mechanismPlain, Username: "pat", Password: core.NewSecret("pw")}
	return cfg
}

// refuseLogin answers every login with SASL_AUTHENTICATION_FAILED.
func (f *fake) refuseLogin() (mend func()) {
	return f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Err: kerr.SaslAuthenticationFailed, TopLevel: true, Count: -1}).Remove
}

// drop breaks the sink's connections, as an idle time-out or a broker's restart does.
func (s *Sink) drop() {
	s.cl.seed.net.Close()
	for _, cn := range s.cl.conns {
		cn.net.Close()
	}
}

// all lists the indices of n items.
func all(n int) (is []int) {
	for i := range n {
		is = append(is, i)
	}
	return is
}

func TestNothingIsLostToARefusedConnection(t *testing.T) {
	eachClient(t, testNothingIsLostToARefusedConnection)
}

func testNothingIsLostToARefusedConnection(t *testing.T, client string) {
	f := newSecured(t)
	f.client = client
	defer f.Close()
	for _, c := range []struct {
		name, why string
		spoil     func(s *Sink) (mend func())
	}{
		{"refused login", "authentication was refused", func(*Sink) func() { return f.refuseLogin() }},
		{"unoffered mechanism", "does not offer sasl.mechanism", func(*Sink) func() {
			return f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLHandshake}, Err: kerr.UnsupportedSaslMechanism, TopLevel: true, Count: -1}).Remove
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, f.loginConfig())
			defer shut(t, s)
			givesBackUntilMended(t, f, s, c.why, c.spoil)
		})
	}
}

// With kafka-go alone: franz-go reads the settings, which this changes, from goroutines of its own.
func TestNothingIsLostToACertificate(t *testing.T) {
	ca, cert, key := pki(t)
	server, err := (core.TLS{CAFile: ca, CertFile: cert, KeyFile: key}).Client("tls", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := kfake.NewCluster(kfake.TLS(server))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := core.TLS{CAFile: ca}.Client("tls", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{Cluster: cluster, login: []kgo.Opt{kgo.DialTLSConfig(reader)}}
	defer f.Close()
	cfg := f.config()
	cfg.TLS = TLS{Enabled: true, CAFile: ca}
	s := open(t, cfg)
	defer shut(t, s)
	givesBackUntilMended(t, f, s, "set tls.server_name", func(s *Sink) func() {
		s.cfg.TLS.ServerName = "other.test"
		return func() { s.cfg.TLS.ServerName = "" }
	})
}

// givesBackUntilMended reconnects into a fault, and wants all items back, and all of them delivered when it is over.
func givesBackUntilMended(t *testing.T, f *fake, s *Sink, why string, spoil func(*Sink) (mend func())) {
	t.Helper()
	before, err := f.records()
	if err != nil {
		t.Fatal(err)
	}
	items := sinkItems(30)
	mend := spoil(s)
	s.drop()
	err = s.Write(t.Context(), items)
	wantGivenBack(t, err, why, all(30)...)
	if !core.IsPermanent(err) {
		t.Errorf("%v: the host is not told to take its time", err)
	}
	mend()
	if err := s.Write(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	if got, err := f.records(); err != nil || len(got)-len(before) != 30 {
		t.Errorf("%d records, %v, want 30", len(got)-len(before), err)
	}
}

// A broker that stops in the middle of a login says nothing about the password.
func TestHangUpDuringLoginIsRetried(t *testing.T) { eachClient(t, testHangUpDuringLoginIsRetried) }

func testHangUpDuringLoginIsRetried(t *testing.T, client string) {
	f := newSecured(t)
	f.client = client
	defer f.Close()
	s := open(t, f.loginConfig())
	defer shut(t, s)
	cuts := times(6)
	f.ControlKey(int16(kmsg.SASLAuthenticate), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if cuts() {
			return nil, errors.New("cut"), true
		}
		return nil, nil, false
	})
	s.drop()
	if err := s.Write(t.Context(), sinkItems(30)); err != nil {
		t.Fatal(err)
	}
	if cuts() {
		t.Error("the logins were not cut")
	}
	if got, err := f.records(); err != nil || len(got) != 30 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

// A batch that was appended without an acknowledgement must not be taken for a different one that follows it, when its
// partition's broker refuses us in between.
func TestRefusalAfterALostAcknowledgement(t *testing.T) {
	f := newSecured(t)
	defer f.Close()
	s := open(t, f.loginConfig())
	defer shut(t, s)
	items := sinktest.Events("d", 10, 1) // of one key: one partition
	if err := s.Write(t.Context(), items[:1]); err != nil {
		t.Fatal(err)
	}
	mend := f.refuseLogin()
	f.cutAnswer.Store(1)
	wantGivenBack(t, s.Write(t.Context(), items[1:4]), "authentication was refused", 0, 1, 2)
	mend()
	if err := s.Write(t.Context(), items[4:7]); err != nil { // as many as before
		t.Fatal(err)
	}
	got, err := f.delivered()
	if err != nil {
		t.Fatal(err)
	}
	for i, it := range items[4:7] {
		if !slices.ContainsFunc(got, func(d sinktest.Delivered) bool { return d.ID == it.Event.ID }) {
			t.Errorf("item %d was acknowledged and is not there", 4+i)
		}
	}
}

// onRetry calls retry once, when the host offers again what failed.
type onRetry struct {
	core.Sink
	retry  func()
	failed bool
}

func (s *onRetry) Write(ctx context.Context, batch []core.Item) error {
	if s.failed && s.retry != nil {
		s.retry()
		s.retry = nil
	}
	err := s.Sink.Write(ctx, batch)
	s.failed = s.failed || err != nil
	return err
}

// calls is a switch on which n calls begin, once begin is closed.
type calls struct {
	n     int
	begin chan struct{}
}

func (c *calls) Run(ctx context.Context, out core.Emitter) error {
	out.Up(core.Instance{Kind: "asterisk", ID: "x"})
	<-c.begin
	for i := range c.n {
		now := call.At(time.Now())
		out.Frame(core.Frame{Type: "X", Raw: []byte("{}"), Received: now, Observations: []call.Observation{
			{Kind: call.LegCreated, Leg: fmt.Sprint("leg", i), At: now, Received: now},
		}})
	}
	<-ctx.Done()
	return nil
}

// The host keeps everything while a right is missing, says that it is not ready, and delivers when the right is there.
func TestHostKeepsWhatIsRefused(t *testing.T) { eachClient(t, testHostKeepsWhatIsRefused) }

func testHostKeepsWhatIsRefused(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	var (
		r     *router.Router
		ready = true
		last  string
		sw    = &calls{n: 50, begin: make(chan struct{})}
		retry = make(chan struct{})
	)
	sink := &onRetry{Sink: open(t, f.config())}
	sink.retry = func() {
		st := r.Status()
		ready, last = st.Ready, st.Sinks[0].LastError
		fault.Remove()
		close(retry)
	}
	r, err := router.New(router.Options{
		Links: []router.Link{{ID: "pbx1", Kind: "asterisk", Adapter: sw}}, Sinks: []router.NamedSink{{Name: "kafka", Sink: sink}},
		Tracker: call.NewTracker(call.Options{}), Log: slog.New(slog.DiscardHandler),
		SinkBackoff: router.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond, Permanent: 20 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	close(sw.begin)
	<-retry
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if ready || !strings.Contains(last, "grant it Write") {
		t.Errorf("during the fault: ready %v, last error %q", ready, last)
	}
	wantCalls(t, f, 50)
}

func wantCalls(t *testing.T, f *fake, n int) {
	t.Helper()
	got, err := f.records()
	if err != nil {
		t.Fatal(err)
	}
	keys, dead := make(map[string]bool), 0
	for _, rec := range got {
		switch rec.Topic {
		case "cti.calls.v1":
			keys[string(rec.Key)] = true
		case "cti.deadletter.v1":
			dead++
		}
	}
	if len(keys) != n || dead != 0 {
		t.Errorf("%d calls and %d dead letters on the broker, want %d and none", len(keys), dead, n)
	}
}
