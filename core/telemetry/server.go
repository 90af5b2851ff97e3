package telemetry

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Server is the settings of the HTTP server with /metrics, /healthz and /readyz.
type Server struct {
	Listen      string      `yaml:"listen"`       // host:port; default 127.0.0.1:9464; "off" for none
	AllowRemote bool        `yaml:"allow_remote"` // needed, with Token, to listen beyond loopback
	Token       core.Secret `yaml:"token"`        // bearer token for everything but /healthz
}

// DefaultListen is the address when none is configured.
const DefaultListen = "127.0.0.1:9464"

// Validate returns every fault, each naming the field.
func (s Server) Validate() []error {
	if s.Listen == "off" {
		return nil
	}
	host, _, err := net.SplitHostPort(s.addr())
	if err != nil {
		return []error{fmt.Errorf("listen: %q is not host:port: %w", s.Listen, err)}
	}
	if isLoopback(host) {
		return nil
	}
	var errs []error
	if !s.AllowRemote {
		errs = append(errs, fmt.Errorf("listen: %s is reachable from other machines: use 127.0.0.1, or set allow_remote: true and a token", s.Listen))
	}
	if s.Token.IsZero() {
		errs = append(errs, fmt.Errorf("token: required to listen beyond loopback (%s)", s.Listen))
	}
	return errs
}

func (s Server) addr() string {
	if s.Listen == "" {
		return DefaultListen
	}
	return s.Listen
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Ready reports whether the gateway does its work, and the detail /readyz shows as JSON. It is called from any
// goroutine and must not block.
type Ready func() (ok bool, detail any)

// OrderHeader must be there in requests that change something, with any value: a page in a browser cannot send it to
// another site unasked.
const OrderHeader = "X-Ctigate"

// Serve answers until ctx ends, then returns nil after at most two seconds for requests under way. more are handlers by
// pattern ("POST /cluster/drain"), behind the token too, and behind OrderHeader unless they are for GET. onListen, when
// set, gets the address in use before the first request is taken.
func (s Server) Serve(ctx context.Context, t *T, ready Ready, more map[string]http.HandlerFunc, onListen func(net.Addr)) error {
	if err := errors.Join(s.Validate()...); err != nil {
		return fmt.Errorf("telemetry server: %w", err)
	}
	if s.Listen == "off" {
		<-ctx.Done()
		return nil
	}
	h, err := s.handler(t, ready, more)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.addr())
	if err != nil {
		return fmt.Errorf("telemetry server: listening (choose another listen address, or \"off\"): %w", err)
	}
	if onListen != nil {
		onListen(ln.Addr())
	}
	return serve(ctx, ln, h)
}

func serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("telemetry server: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close() // the deadline passed: cut what is left
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("telemetry server: %w", err)
	}
	return nil
}

func (s Server) handler(t *T, ready Ready, more map[string]http.HandlerFunc) (http.Handler, error) {
	guard := func(h http.Handler) http.Handler { return h }
	if !s.Token.IsZero() {
		if _, err := s.Token.Reveal(); err != nil {
			return nil, fmt.Errorf("telemetry server: token: %w", err)
		}
		guard = func(h http.Handler) http.Handler { return bearer(s.Token, h) }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /metrics", guard(t.MetricsHandler()))
	mux.Handle("GET /readyz", guard(readyz(ready)))
	for pattern, h := range more {
		if !strings.HasPrefix(pattern, "GET ") {
			h = ordered(h)
		}
		mux.Handle(pattern, guard(h))
	}
	return mux, nil
}

// ordered lets through who means it.
func ordered(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(OrderHeader) == "" {
			http.Error(w, "the header "+OrderHeader+" is needed", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

func readyz(ready Ready) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		ok, detail := ready()
		status := http.StatusOK
		if !ok {
			status = http.StatusServiceUnavailable
		}
		WriteJSON(w, status, detail)
	}
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client may have gone
}

// bearer lets through who knows the token. It is read at each request, so a rotated file is picked up.
func bearer(token core.Secret, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := token.Reveal()
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if err != nil || want == "" || !ok || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="ctigate"`)
			http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}
