package ari

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/CyCoreSystems/ari/v5"
)

func TestControlAsksAsARIWantsIt(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/ari/channels":
			w.Write([]byte(`{"id":"17.1","creationtime":"odd"}`))
		case r.Method == http.MethodGet:
			w.Write([]byte(`{"value":"a b"}`))
		default:
			w.WriteHeader(http.StatusNoContent)
		}
		return true
	}
	c := open(t, testConfig(f.server.URL)).Control()
	defer c.Close()
	ctx := t.Context()
	id, err := c.Originate(ctx, ari.OriginateRequest{Endpoint: "PJSIP/agent1", App: "ctigate", Variables: map[string]string{"A": "b"}})
	if err != nil || id != "17.1" {
		t.Errorf("originate: %q, %v", id, err)
	}
	v, err := c.Variable(ctx, "17.1", "CHANNEL(linkedid)")
	if err != nil || v != "a b" {
		t.Errorf("variable: %q, %v", v, err)
	}
	err = errors.Join(c.Hangup(ctx, "17.1", 0), c.Hangup(ctx, "17.1", 17), c.Hold(ctx, "a/b?c"), c.Unhold(ctx, "17.1"),
		c.Redirect(ctx, "17.1", "PJSIP/agent2"), c.Continue(ctx, "17.1", "internal", "1001", 2), c.Move(ctx, "17.1", "other", "x"),
		c.SetVariable(ctx, "17.1", "N", "v&w"))
	if err != nil {
		t.Error(err)
	}
	want := []string{
		`POST /ari/channels {"endpoint":"PJSIP/agent1","app":"ctigate","variables":{"A":"b"}}`,
		`GET /ari/channels/17.1/variable?variable=CHANNEL%28linkedid%29 `,
		`DELETE /ari/channels/17.1 `,
		`DELETE /ari/channels/17.1?reason_code=17 `,
		`POST /ari/channels/a%2Fb%3Fc/hold `,
		`DELETE /ari/channels/17.1/hold `,
		`POST /ari/channels/17.1/redirect?endpoint=PJSIP%2Fagent2 `,
		`POST /ari/channels/17.1/continue?context=internal&extension=1001&priority=2 `,
		`POST /ari/channels/17.1/move?app=other&appArgs=x `,
		`POST /ari/channels/17.1/variable {"value":"v\u0026w","variable":"N"}`,
	}
	if got := f.seen(); !slices.Equal(got, want) {
		t.Errorf("asked\n%s", strings.Join(got, "\n"))
	}
}

func TestControlErrorsSayWhatTheyMean(t *testing.T) {
	status := 0
	f := newFakeSwitch(t, httptest.NewServer)
	f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		w.Write([]byte(`{"message":"Asterisk's words"}`))
		return true
	}
	c := open(t, testConfig(f.server.URL)).Control()
	defer c.Close()
	for code, want := range map[int]error{
		400: ErrInvalid, 401: ErrUnauthorized, 403: ErrForbidden, 404: ErrNotFound, 409: ErrNotInStasis, 412: ErrNotInStasis, 422: ErrInvalid, 500: ErrUnavailable, 503: ErrUnavailable,
	} {
		status = code
		err := c.Hangup(t.Context(), "17.1", 0)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "Asterisk's words") || !strings.Contains(err.Error(), "hanging up channel 17.1") {
			t.Errorf("%d: %v", code, err)
		}
	}
	if err := c.Hangup(t.Context(), "", 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("no channel: %v", err)
	}
}

func TestAnswersAreBoundedAndRedirectsRefused(t *testing.T) {
	f := newFakeSwitch(t, httptest.NewServer)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("variable") == "FAR" {
			http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusFound)
			return true
		}
		w.Write(make([]byte, maxAnswer+1))
		return true
	}
	c := open(t, testConfig(f.server.URL)).Control()
	defer c.Close()
	if _, err := c.Variable(t.Context(), "17.1", "BIG"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("big: %v", err)
	}
	var e *Error
	if _, err := c.Variable(t.Context(), "17.1", "FAR"); !errors.As(err, &e) || e.Status != http.StatusFound {
		t.Errorf("far: %v", err)
	}
}
