package ari

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/CyCoreSystems/ari/v5"
)

// What an *Error means; use errors.Is.
var (
	ErrNotFound     = errors.New("no such channel")                                          // 404
	ErrNotInStasis  = errors.New("the channel's state or place forbids it")                  // 409, 412
	ErrForbidden    = errors.New("the ARI user may only read: read_only = no in ari.conf")   // 403
	ErrUnauthorized = errors.New("the ARI user was refused: check password and ari.conf")    // 401
	ErrInvalid      = errors.New("a parameter is missing or wrong")                          // 400, 422
	ErrUnavailable  = errors.New("the switch could not do it, though asking again may help") // 5xx
)

// Error is ARI's refusal of one request.
type Error struct {
	Op      string // what was being done
	Status  int    // HTTP
	Message string // ARI's own words, possibly ""
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: ARI answered %d", e.Op, e.Status)
	if e.Message != "" {
		text += ": " + e.Message
	}
	if is := e.Unwrap(); is != nil {
		text += " (" + is.Error() + ")"
	}
	return text
}

// Unwrap gives the Err… value that the status stands for, or nil.
func (e *Error) Unwrap() error {
	switch {
	case e.Status == http.StatusNotFound:
		return ErrNotFound
	case e.Status == http.StatusConflict || e.Status == http.StatusPreconditionFailed:
		return ErrNotInStasis
	case e.Status == http.StatusForbidden:
		return ErrForbidden
	case e.Status == http.StatusUnauthorized:
		return ErrUnauthorized
	case e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity:
		return ErrInvalid
	case e.Status >= 500:
		return ErrUnavailable
	}
	return nil
}

// Control places and steers calls over ARI. Its methods may be called at any time, from any goroutine, whether a
// session is up or not; each takes at most the read timeout. A channel is named by its Asterisk unique id. Asterisk
// lets ARI hold, redirect, move and continue only channels that are in a Stasis application; for others those methods
// give an error that Is ErrNotInStasis.
type Control struct{ rest *rest }

// NewControl makes a Control with the link's settings. It does not connect.
func NewControl(cfg *Config) (*Control, error) {
	r, err := newREST(cfg)
	if err != nil {
		return nil, err
	}
	return &Control{r}, nil
}

// Close lets go of idle connections. The Control stays usable.
func (c *Control) Close() { c.rest.close() }

// Originate rings an endpoint and, on answer, sends it to an extension or an application. It returns the new
// channel's id without waiting for the answer.
func (c *Control) Originate(ctx context.Context, o ari.OriginateRequest) (string, error) {
	body, err := c.rest.do(ctx, request{op: "originating to " + o.Endpoint, method: http.MethodPost, path: "/channels", body: o})
	if err != nil {
		return "", err
	}
	var ch struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &ch); err != nil || ch.ID == "" {
		return "", fmt.Errorf("originating to %s: placed, but the answer names no channel: %.100q", o.Endpoint, body)
	}
	return ch.ID, nil
}

// Hangup ends a channel; q850 is the cause the far end is told, 0 for a normal clearing.
func (c *Control) Hangup(ctx context.Context, channel string, q850 int) error {
	query := url.Values{}
	if q850 > 0 {
		query.Set("reason_code", strconv.Itoa(q850))
	}
	return c.channel(ctx, "hanging up", http.MethodDelete, channel, "", query, nil)
}

// Hold puts a channel's party on hold.
func (c *Control) Hold(ctx context.Context, channel string) error {
	return c.channel(ctx, "holding", http.MethodPost, channel, "/hold", nil, nil)
}

// Unhold takes it back.
func (c *Control) Unhold(ctx context.Context, channel string) error {
	return c.channel(ctx, "retrieving", http.MethodDelete, channel, "/hold", nil, nil)
}

// Redirect tells a channel's party to go to another endpoint by itself, as a SIP 302 or REFER does.
func (c *Control) Redirect(ctx context.Context, channel, endpoint string) error {
	return c.channel(ctx, "redirecting", http.MethodPost, channel, "/redirect", url.Values{"endpoint": {endpoint}}, nil)
}

// Continue sends a channel out of its application to a place in the dialplan; zero fields keep the present ones.
func (c *Control) Continue(ctx context.Context, channel, dialplanContext, extension string, priority int) error {
	query := url.Values{}
	setNonEmpty(query, "context", dialplanContext)
	setNonEmpty(query, "extension", extension)
	if priority > 0 {
		query.Set("priority", strconv.Itoa(priority))
	}
	return c.channel(ctx, "continuing", http.MethodPost, channel, "/continue", query, nil)
}

// Move hands a channel to another Stasis application.
func (c *Control) Move(ctx context.Context, channel, app, args string) error {
	query := url.Values{"app": {app}}
	setNonEmpty(query, "appArgs", args)
	return c.channel(ctx, "moving", http.MethodPost, channel, "/move", query, nil)
}

// SetVariable sets a channel variable. The value travels in the body, where no access log keeps it.
func (c *Control) SetVariable(ctx context.Context, channel, name, value string) error {
	body := map[string]string{"variable": name, "value": value}
	return c.channel(ctx, "setting "+name+" of", http.MethodPost, channel, "/variable", nil, body)
}

// Variable reads a channel variable or dialplan function.
func (c *Control) Variable(ctx context.Context, channel, name string) (string, error) {
	op := "reading " + name + " of channel " + channel
	path := "/channels/" + url.PathEscape(channel) + "/variable"
	body, err := c.rest.do(ctx, request{op: op, path: path, query: url.Values{"variable": {name}}})
	if err != nil {
		return "", err
	}
	var v struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	return v.Value, nil
}

func (c *Control) channel(ctx context.Context, doing, method, id, tail string, query url.Values, body any) error {
	op := doing + " channel " + id
	if id == "" {
		return &Error{Op: op, Status: http.StatusBadRequest, Message: "no channel given"}
	}
	_, err := c.rest.do(ctx, request{op: op, method: method, path: "/channels/" + url.PathEscape(id) + tail, query: query, body: body})
	return err
}

func setNonEmpty(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}
