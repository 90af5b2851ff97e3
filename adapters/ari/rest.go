package ari

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/CyCoreSystems/ari/v5"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Limits of an HTTP answer, in bytes.
const (
	maxSnapshot = 64 << 20
	maxAnswer   = 1 << 20
)

// rest makes ARI's HTTP requests. The native client of CyCoreSystems/ari/v5 has an http.Client of its own that cannot be
// reached: no timeout, no context, no authority of one's own, no limit of the answer's size. So only its types are used.
type rest struct {
	cfg    *Config
	base   string
	client *http.Client
}

func newREST(cfg *Config) (*rest, error) {
	tlsConfig, err := cfg.TLS.Client("tls", "")
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{ // no proxy: a switch is reached directly
		DialContext:            (&net.Dialer{Timeout: cfg.ReadTimeout}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    cfg.ReadTimeout,
		ResponseHeaderTimeout:  cfg.ReadTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    asking,
		IdleConnTimeout:        12 * time.Second, // less than http.conf's session_keep_alive, 15 s
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &rest{cfg: cfg, base: strings.TrimRight(cfg.URL, "/"), client: &http.Client{Transport: transport, CheckRedirect: stay}}, nil
}

func (r *rest) close() { r.client.CloseIdleConnections() }

// authorization reads the password anew, so that a rotated one is picked up.
func (r *rest) authorization() (http.Header, error) {
	password, err := r.cfg.Password.Reveal()
	if err != nil {
		return nil, core.Permanent(fmt.Errorf("password: %w", err))
	}
	basic := base64.StdEncoding.EncodeToString([]byte(r.cfg.Username + ":" + password))
	return http.Header{"Authorization": {"Basic " + basic}}, nil
}

// refused is the one message about a user that ARI does not let in.
func (r *rest) refused(status int) error {
	return core.Permanent(fmt.Errorf("ARI at %s refused user %q (%d): check username and password in the configuration and [%s] in ari.conf",
		r.base, r.cfg.Username, status, r.cfg.Username))
}

// request is one ARI request; op says what it does, for errors.
type request struct {
	op     string
	method string
	path   string
	query  url.Values
	body   any
	limit  int64
}

// do makes the request within the read timeout and returns the answer's body. A refusal is an *Error.
func (r *rest) do(ctx context.Context, q request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ReadTimeout)
	defer cancel()
	req, err := r.build(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.op, err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.op, err)
	}
	defer resp.Body.Close()
	limit := cmp.Or(q.limit, maxAnswer)
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: reading the answer: %w", q.op, err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("%s: the answer is longer than %d bytes", q.op, limit)
	case resp.StatusCode/100 != 2:
		return nil, &Error{Op: q.op, Status: resp.StatusCode, Message: reason(body)}
	}
	return body, nil
}

func (r *rest) build(ctx context.Context, q request) (*http.Request, error) {
	header, err := r.authorization()
	if err != nil {
		return nil, err
	}
	var body io.Reader = http.NoBody
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	address := r.base + q.path
	if len(q.query) > 0 {
		address += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(q.method, http.MethodGet), address, body)
	if err != nil {
		return nil, err
	}
	req.Header = header
	return req, nil
}

// reason is what ARI says in {"message": …} or {"error": …}.
func reason(body []byte) string {
	var m struct{ Message, Error string }
	if json.Unmarshal(body, &m) != nil {
		return ""
	}
	text := cmp.Or(m.Message, m.Error)
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

// get reads path for the session: there a refused user is permanent.
func (r *rest) get(ctx context.Context, op, path string, limit int64) ([]byte, error) {
	body, err := r.do(ctx, request{op: op, path: path, limit: limit})
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		return nil, r.refused(e.Status)
	}
	return body, err
}

// info asks who the switch is. Only the part that is needed is decoded, so that an odd time elsewhere does no harm.
func (r *rest) info(ctx context.Context) (ari.SystemInfo, error) {
	body, err := r.get(ctx, "asking ARI for asterisk/info", "/asterisk/info", 0)
	if err != nil {
		return ari.SystemInfo{}, err
	}
	var info struct {
		System ari.SystemInfo `json:"system"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return ari.SystemInfo{}, fmt.Errorf("reading ARI's asterisk/info: %w", err)
	}
	if info.System.EntityID == "" {
		return ari.SystemInfo{}, fmt.Errorf("reading ARI's asterisk/info: no system.entity_id: is %s really Asterisk's ARI?", r.base)
	}
	return info.System, nil
}

// ping measures the switch's clock. ARI gives whole milliseconds, cut off: half of one is added to the switch's time
// and the interval is widened by as much on both sides, so that the sample claims no more than is known.
func (r *rest) ping(ctx context.Context) (core.ClockSample, error) {
	sent := call.At(time.Now())
	body, err := r.get(ctx, "asking ARI for asterisk/ping", "/asterisk/ping", 0)
	answered := call.At(time.Now())
	if err != nil {
		return core.ClockSample{}, err
	}
	var pong struct {
		Timestamp string `json:"timestamp"`
	}
	if err := json.Unmarshal(body, &pong); err != nil {
		return core.ClockSample{}, fmt.Errorf("reading ARI's asterisk/ping: %w", err)
	}
	at, err := switchTime(pong.Timestamp)
	if err != nil {
		return core.ClockSample{}, fmt.Errorf("reading ARI's asterisk/ping: %w", err)
	}
	const half = call.Millisecond / 2
	return core.ClockSample{Sent: sent - half, Answered: answered + half, Switch: at + half}, nil
}

func switchTime(s string) (call.Time, error) {
	t, err := time.Parse(ari.DateFormat, s)
	if err != nil {
		t, err = time.Parse(time.RFC3339Nano, s)
	}
	if err != nil {
		return 0, fmt.Errorf("timestamp %.40q is in no known format", s)
	}
	return call.At(t), nil
}
