package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o Options) *T {
	t.Helper()
	tel, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := tel.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func scrape(t *testing.T, tel *T) string {
	t.Helper()
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("status %d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func TestMetricsSayWhatHappened(t *testing.T) {
	tel := open(t, Options{Version: "1.2.3"})
	l, s := tel.Link("pbx1", "asterisk"), tel.Sink("kafka")
	l.Received.Add(7)
	l.Normalized.Add(5)
	l.Up.Store(true)
	l.Count("unknown_type", 2)
	l.Verdict(call.Late)
	l.SetOffset(-12.5)
	l.ToTracker(3 * time.Millisecond)
	s.Acked.Add(4)
	s.Depth.Store(9)
	s.ToAcked(60 * time.Millisecond)
	tel.SetGauges(Gauges{ActiveCalls: func() int { return 42 }, QueueDepth: func() int { return 6 }})
	out := scrape(t, tel)
	for _, want := range []string{
		`cti_link_received_total{kind="asterisk",link="pbx1"} 7`,
		`cti_link_normalized_total{kind="asterisk",link="pbx1"} 5`,
		`cti_link_up{kind="asterisk",link="pbx1"} 1`,
		`cti_link_notes_total{link="pbx1",name="unknown_type"} 2`,
		`cti_link_verdicts_total{freshness="late",link="pbx1"} 1`,
		`cti_clock_offset_milliseconds{kind="asterisk",link="pbx1"} -12.5`,
		`cti_latency_tracker_seconds_bucket{link="pbx1",le="0.005"} 1`,
		`cti_latency_acked_seconds_bucket{sink="kafka",le="0.05"} 0`,
		`cti_latency_acked_seconds_bucket{sink="kafka",le="0.075"} 1`,
		`cti_sink_acked_total{sink="kafka"} 4`,
		`cti_sink_queue_depth{sink="kafka"} 9`,
		`cti_calls_active 42`,
		`cti_queue_depth 6`,
		`go_goroutines`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %s", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestHandlesAreStable(t *testing.T) {
	tel := open(t, Options{})
	link, sink := tel.Link("a", "x"), tel.Sink("a")
	if link != tel.Link("a", "x") || sink != tel.Sink("a") {
		t.Error("the same id gave another handle")
	}
	var none *T
	l, s := none.Link("a", "x"), none.Sink("b")
	l.Count("n", 1)
	l.ToTracker(time.Second)
	s.ToAcked(time.Second)
	none.SetGauges(Gauges{})
	none.Call(&call.Call{})
	if none.Shutdown(t.Context()) != nil || l.Counts()["n"] != 1 {
		t.Error("a nil T does not work")
	}
}

func TestCounterNamesAreBounded(t *testing.T) {
	var none *T
	l := none.Link("a", "x")
	for i := range 1000 {
		l.Count(fmt.Sprint("name", i), 1)
	}
	l.Count("name0", -5)
	if c := l.Counts(); len(c) != maxNames+1 || c["other"] != 1000-maxNames || c["name0"] != 1 {
		t.Errorf("%d names, other %d, name0 %d", len(c), c["other"], c["name0"])
	}
}

func record() *call.Call {
	const t0 = 1_790_000_000 * call.Second
	return &call.Call{ID: "c1", InteractionID: "i1", Switch: call.SwitchRef{ID: "pbx", Kind: "asterisk"}, StartedAt: t0, EndedAt: t0 + 60*call.Second,
		Outcome: call.Answered, From: &call.Address{Number: "+4930123"}, IVRPath: "main/sales",
		Queue: &call.Queue{ID: "sales", EnteredAt: t0 + 5*call.Second, LeftAt: t0 + 15*call.Second},
		Connections: []*call.Connection{
			{ID: "pbx/1", ConnectedAt: t0 + call.Second, ClearedAt: t0 + 60*call.Second, Party: call.Party{Role: call.RoleCaller}},
			{ID: "pbx/2", AlertingAt: t0 + 10*call.Second, ConnectedAt: t0 + 15*call.Second, ClearedAt: t0 + 59*call.Second,
				Party: call.Party{ID: "agent1", Role: call.RoleAgent}, Media: &call.Media{Codec: "PCMA", SampleRate: 8000}},
			{ID: "pbx/3", AlertingAt: t0 + 10*call.Second, ClearedAt: t0 + 15*call.Second},
		}}
}

func TestOneTracePerCall(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tel := open(t, Options{spans: []sdktrace.TracerProviderOption{sdktrace.WithSyncer(spans)}})
	tel.Call(record())
	got := spans.GetSpans()
	var names []string
	ids := map[string]bool{}
	for _, s := range got {
		names = append(names, fmt.Sprintf("%s %s", s.Name, s.EndTime.Sub(s.StartTime)))
		ids[s.SpanContext.SpanID().String()] = true
		if s.SpanContext.TraceID() != trace.TraceID(call.TraceID("i1")) {
			t.Errorf("%s has trace %s", s.Name, s.SpanContext.TraceID())
		}
		if s.Name != "call" && s.Parent.SpanID() != trace.SpanID(call.SpanID("c1", "")) {
			t.Errorf("%s hangs under %s", s.Name, s.Parent.SpanID())
		}
	}
	if want := "queue 10s, talk 59s, ring 5s, talk 44s, ring 5s, call 1m0s"; strings.Join(names, ", ") != want {
		t.Errorf("got %v, want %s", names, want)
	}
	if len(ids) != len(got) {
		t.Errorf("%d span ids for %d spans", len(ids), len(got))
	}
	// A fixed value: other nodes and sinks compute the same.
	if id := trace.TraceID(call.TraceID("i1")).String(); id != "4cd9b7672d7fbee8fb51fb1e049f6903" {
		t.Errorf("trace id %s", id)
	}
	tel.Call(&call.Call{ID: "c2"})
	if len(spans.GetSpans()) != len(got) {
		t.Error("a call without times gave a span")
	}
}

func TestOTLPExport(t *testing.T) {
	var metrics, traces atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Key") != "hush" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		switch r.URL.Path {
		case "/v1/metrics":
			metrics.Add(1)
		case "/v1/traces":
			traces.Add(1)
		}
	}))
	defer srv.Close()
	tel, err := New(t.Context(), Options{OTLP: OTLP{Endpoint: srv.URL, Headers: map[string]core.Secret{"X-Key": core.NewSecret("hush")}}})
	if err != nil {
		t.Fatal(err)
	}
	tel.Call(record())
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if metrics.Load() == 0 || traces.Load() == 0 {
		t.Errorf("metrics %d, traces %d", metrics.Load(), traces.Load())
	}
}

func TestValidate(t *testing.T) {
	token := core.NewSecret("hush")
	for _, tc := range []struct {
		s    Server
		want string
	}{
		{Server{}, ""},
		{Server{Listen: "off"}, ""},
		{Server{Listen: "localhost:0"}, ""},
		{Server{Listen: "[::1]:9464"}, ""},
		{Server{Listen: ":9464"}, "allow_remote"},
		{Server{Listen: "0.0.0.0:9464", AllowRemote: true}, "token: required"},
		{Server{Listen: "10.0.0.1:9464", Token: token}, "allow_remote"},
		{Server{Listen: "example.org:9464", AllowRemote: true, Token: token}, ""},
		{Server{Listen: "9464"}, "host:port"},
	} {
		errs := fmt.Sprint(tc.s.Validate())
		if (tc.want == "") != (errs == "[]") || !strings.Contains(errs, tc.want) {
			t.Errorf("%+v: got %s, want %q", tc.s.Listen, errs, tc.want)
		}
	}
	for endpoint, ok := range map[string]bool{"": true, "https://collector:4318": true, "collector:4318": false, "ftp://x": false} {
		if errs := (OTLP{Endpoint: endpoint}).Validate(); ok != (len(errs) == 0) {
			t.Errorf("%q: %v", endpoint, errs)
		}
	}
}

// serveFor runs the server while f talks to it.
func serveFor(t *testing.T, s Server, tel *T, ready Ready, f func(url string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	addr, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() { done <- s.Serve(ctx, tel, ready, nil, func(a net.Addr) { addr <- a }) }()
	select {
	case a := <-addr:
		f("http://" + a.String())
	case err := <-done:
		t.Fatal(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServer(t *testing.T) {
	tel := open(t, Options{})
	var ok atomic.Bool
	ready := func() (bool, any) { return ok.Load(), map[string]bool{"ready": ok.Load()} }
	serveFor(t, Server{Listen: "127.0.0.1:0"}, tel, ready, func(url string) {
		if code, body := get(t, url+"/readyz", ""); code != 503 || !json.Valid([]byte(body)) {
			t.Errorf("not ready: %d %s", code, body)
		}
		ok.Store(true)
		for path, want := range map[string]int{"/readyz": 200, "/healthz": 200, "/metrics": 200, "/": 404} {
			if code, _ := get(t, url+path, ""); code != want {
				t.Errorf("%s: %d, want %d", path, code, want)
			}
		}
	})
}

func TestServerToken(t *testing.T) {
	tel := open(t, Options{})
	ready := func() (bool, any) { return true, nil }
	serveFor(t, Server{Listen: "127.0.0.1:0", Token: core.NewSecret("hush")}, tel, ready, func(url string) {
		for _, tc := range []struct {
			path, token string
			want        int
		}{{"/metrics", "", 401}, {"/metrics", "wrong", 401}, {"/metrics", "hush", 200}, {"/readyz", "", 401}, {"/healthz", "", 200}} {
			if code, _ := get(t, url+tc.path, tc.token); code != tc.want {
				t.Errorf("%s with %q: %d, want %d", tc.path, tc.token, code, tc.want)
			}
		}
	})
	if err := (Server{Listen: "0.0.0.0:0"}).Serve(t.Context(), tel, ready, nil, nil); err == nil {
		t.Error("listened on all addresses without leave")
	}
}

func BenchmarkToTracker(b *testing.B) {
	tel, err := New(b.Context(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	l := tel.Link("a", "x")
	for b.Loop() {
		l.ToTracker(time.Millisecond)
	}
}
