package ari

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// oldestVersion is the first major version whose ARI has all that is needed (channels' protocol_id).
const oldestVersion = 18

// largestOffset is the clock difference that is not worth a word.
const largestOffset = call.Second

// neededVars are the channel variables that ARI must show with every channel.
var neededVars = []string{"CHANNEL(linkedid)", "CHANNEL(audioreadformat)", "CHANNEL(audionativeformat)"}

// checker collects the findings about one switch.
type checker struct {
	a     *Adapter
	rest  *rest
	found []core.Finding
}

// Check probes the live switch and says what works, what is missing, and the line to add. It changes nothing there:
// the websocket is tried under a name of its own, so a running gateway keeps its events.
func (a *Adapter) Check(ctx context.Context) []core.Finding {
	r, err := newREST(&a.cfg)
	if err != nil {
		return []core.Finding{{Subject: a.id, What: "TLS", Level: core.Fail, Detail: err.Error(), Fix: "correct the file named"}}
	}
	defer r.close()
	ami, ari := &checker{a: a, rest: r}, &checker{a: a, rest: r}
	ari.ari(ctx, ami.ami(ctx))
	return append(ari.found, ami.found...)
}

func (k *checker) add(level core.Level, what, detail, fix string) {
	k.found = append(k.found, core.Finding{Subject: k.a.id, What: what, Level: level, Detail: detail, Fix: fix})
}

func (k *checker) ok(what, detail string)        { k.add(core.OK, what, detail, "") }
func (k *checker) warn(what, detail, fix string) { k.add(core.Warn, what, detail, fix) }
func (k *checker) fail(what, detail, fix string) { k.add(core.Fail, what, detail, fix) }

func (k *checker) ari(ctx context.Context, conf map[string]string) {
	if !k.reach(ctx) || !k.identity(ctx) {
		return
	}
	k.clock(ctx)
	k.application(ctx)
	k.websocket(ctx)
	k.mayWrite(ctx)
	k.channelVars(ctx, conf)
	k.writeTimeout(conf)
}

// reach opens a TCP connection to ARI.
func (k *checker) reach(ctx context.Context) bool {
	u, err := url.Parse(k.rest.base)
	if err != nil {
		k.fail("ARI address", err.Error(), "correct url")
		return false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	address := net.JoinHostPort(u.Hostname(), port)
	conn, err := (&net.Dialer{Timeout: k.a.cfg.ReadTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		k.fail("ARI address", err.Error(), "check url, the firewall, and http.conf: [general] enabled=yes, bindaddr and bindport "+
			"(tlsenable=yes and tlsbindaddr for https), then: asterisk -rx 'module reload http'")
		return false
	}
	conn.Close()
	k.ok("ARI address", address+" accepts connections")
	return true
}

// identity logs in and asks for the version.
func (k *checker) identity(ctx context.Context) bool {
	info, err := k.rest.info(ctx)
	var e *Error
	switch {
	case core.IsPermanent(err):
		u := k.a.cfg.Username
		k.fail("ARI login", err.Error(), fmt.Sprintf("ari.conf: [%s] type=user, password=… as in the configuration, then: asterisk -rx 'module reload res_ari.so'", u))
		return false
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		k.fail("ARI login", err.Error(), "ari.conf: [general] enabled=yes; http.conf: does prefix= belong into url?")
		return false
	case err != nil:
		k.fail("ARI login", err.Error(), "check that url is Asterisk's ARI and http or https as http.conf has it")
		return false
	}
	k.ok("ARI login", fmt.Sprintf("user %s accepted by %s", k.a.cfg.Username, info.EntityID))
	switch major := majorVersion(info.Version); {
	case major == 0:
		k.warn("Asterisk version", fmt.Sprintf("%q tells no major version", info.Version), "make sure that it is 18 or newer")
	case major < oldestVersion:
		k.warn("Asterisk version", info.Version+" is older than 18: calls cannot be joined by their SIP Call-ID", "upgrade to a supported version")
	default:
		k.ok("Asterisk version", info.Version)
	}
	return true
}

// majorVersion is 22 of "22.10.1+dfsg", 0 when there is none ("GIT-master-…").
func majorVersion(s string) int {
	s = strings.TrimPrefix(s, "certified/")
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	n, _ := strconv.Atoi(s[:end])
	return n
}

func (k *checker) clock(ctx context.Context) {
	sample, err := k.rest.ping(ctx)
	if err != nil {
		k.warn("clock", err.Error(), "without a measured clock no event can be judged fresh: allow GET /asterisk/ping")
		return
	}
	offset := sample.Switch - (sample.Sent+sample.Answered)/2
	detail := fmt.Sprintf("the switch's clock is %+.1f ms from ours", float64(offset)/1e3)
	if offset > largestOffset || offset < -largestOffset {
		k.warn("clock", detail, "run NTP on both machines; ages are corrected meanwhile, published times are not")
		return
	}
	k.ok("clock", detail)
}

// application tells whether somebody reads under our name already.
func (k *checker) application(ctx context.Context) {
	app := k.a.cfg.Application
	_, err := k.rest.get(ctx, "asking ARI for the application", "/applications/"+url.PathEscape(app), maxSnapshot)
	switch {
	case errors.Is(err, ErrNotFound):
		k.ok("ARI application", app+" is free")
	case err == nil:
		k.warn("ARI application", app+" has a reader now", "fine when that is the running gateway; a second gateway needs another application name")
	default:
		k.warn("ARI application", err.Error(), "ari.conf: allow this user GET /applications")
	}
}

func (k *checker) websocket(ctx context.Context) {
	conn, err := dialEvents(ctx, k.rest, k.a.cfg.Application+"-check")
	if err != nil {
		k.fail("ARI websocket", err.Error(), "modules.conf: load res_http_websocket.so, res_ari_events.so and res_stasis.so; a proxy between must pass upgrades")
		return
	}
	defer conn.CloseNow()
	pctx, cancel := context.WithTimeout(ctx, k.a.cfg.ReadTimeout)
	defer cancel()
	conn.CloseRead(pctx)
	if err := conn.Ping(pctx); err != nil {
		k.fail("ARI websocket", "opened, but a ping was not answered: "+err.Error(), "look for a proxy that keeps websocket pings to itself")
		return
	}
	_ = conn.Close(websocket.StatusNormalClosure, "") // seen enough
	k.ok("ARI websocket", "opened with subscribeAll, ping answered")
}

// mayWrite asks to hang up a channel that cannot exist: a user who may write hears 404, one who may not 403.
func (k *checker) mayWrite(ctx context.Context) {
	err := k.a.control.Hangup(ctx, "ctigate-check-no-such-channel", 0)
	switch {
	case errors.Is(err, ErrNotFound):
		k.ok("ARI call control", "the user may write; snapshots are put in order with the events by marks in their stream")
	case errors.Is(err, ErrForbidden):
		k.warn("ARI call control", "the user may only read: events work, call control does not, and snapshots are put in order with the events by their times alone",
			fmt.Sprintf("for call control and marks, ari.conf: [%s] read_only=no", k.a.cfg.Username))
	default:
		k.warn("ARI call control", fmt.Sprintf("unclear: %v", err), "")
	}
}

// wantedVars are the channel variables that ari.conf should name.
func (k *checker) wantedVars() []string {
	want := slices.Clone(neededVars)
	for _, v := range append([]string{k.a.cfg.IVRVariable}, k.a.cfg.Variables...) {
		if !slices.Contains(want, v) {
			want = append(want, v)
		}
	}
	return want
}

// channelVars looks for channelvars in ari.conf, where AMI showed it, or else in the channels there are.
func (k *checker) channelVars(ctx context.Context, conf map[string]string) {
	const what = "channel variables"
	want := k.wantedVars()
	fix := "ari.conf: [general] channelvars=" + strings.Join(want, ",") + ", then: asterisk -rx 'module reload res_ari.so'"
	have, ok := splitList(conf["channelvars"]), conf != nil
	if !ok {
		var err error
		if have, ok, err = k.shownVars(ctx); err != nil {
			k.fail(what, err.Error(), "allow this user GET /channels")
			return
		}
	}
	missing := slices.DeleteFunc(want, func(v string) bool {
		return slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, v) })
	})
	switch {
	case !ok:
		k.warn(what, "cannot be seen: no channel is up, and AMI's GetConfig is not allowed", "make sure of "+fix)
	case len(missing) > 0:
		k.warn(what, "ARI does not show "+strings.Join(missing, ", "), fix)
	default:
		k.ok(what, "ARI shows "+strings.Join(have, ", "))
	}
}

// shownVars are the channel variables of some channel that is up; ok is false when there is none.
func (k *checker) shownVars(ctx context.Context) (names []string, ok bool, err error) {
	body, err := k.rest.get(ctx, "asking ARI for channels", "/channels", maxSnapshot)
	if err != nil {
		return nil, false, err
	}
	var channels []struct {
		Vars map[string]json.RawMessage `json:"channelvars"`
	}
	if err := json.Unmarshal(body, &channels); err != nil {
		return nil, false, fmt.Errorf("reading ARI's channels: %w", err)
	}
	if len(channels) == 0 {
		return nil, false, nil
	}
	return slices.Sorted(maps.Keys(channels[0].Vars)), true, nil
}

func (k *checker) writeTimeout(conf map[string]string) {
	const what = "websocket_write_timeout"
	const fix = "ari.conf: [general] websocket_write_timeout=1000, then: asterisk -rx 'module reload res_ari.so'"
	ms, err := strconv.Atoi(conf[what])
	switch {
	case conf == nil:
		k.warn(what, "cannot be seen; unless raised, Asterisk cuts off a reader that is 100 ms behind", "make sure of "+fix)
	case err != nil || ms < 500:
		k.warn(what, fmt.Sprintf("%d ms: Asterisk cuts off a reader that is so much behind", max(ms, 100)), fix)
	default:
		k.ok(what, fmt.Sprintf("%v", time.Duration(ms)*time.Millisecond))
	}
}

func splitList(s string) []string {
	var list []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			list = append(list, v)
		}
	}
	return list
}
