package sim

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// pbx is what the control interfaces of an Asterisk ask of what is behind them: the live simulation or a played trace.
type pbx interface {
	channels(ctx context.Context) []json.RawMessage
	bridges(ctx context.Context) []json.RawMessage
	hangupLeg(ctx context.Context, id string) bool
	originate(ctx context.Context, agent string) bool
	entity() string
	booted() time.Time
	queueMembers(ctx context.Context) []member
	queues() []string
	waitingIn(ctx context.Context) map[string][]waiter
}

// isoMilli is how Asterisk writes times.
const isoMilli = "2006-01-02T15:04:05.000-0700"

// asteriskVersion is that of the recorded switch.
const asteriskVersion = "22.10.1+dfsg+~cs6.17.60671434-1"

// ariServer is the HTTP side of ARI.
type ariServer struct {
	f *front
	p pbx
}

// ariHandler serves ARI's REST interface and its websocket.
func (f *front) ariHandler(p pbx) http.Handler {
	s := &ariServer{f, p}
	m := http.NewServeMux()
	m.HandleFunc("GET /ari/events", s.events)
	m.HandleFunc("GET /ari/asterisk/info", s.info)
	m.HandleFunc("GET /ari/asterisk/ping", s.ping)
	m.HandleFunc("GET /ari/channels", func(w http.ResponseWriter, r *http.Request) { reply(w, 200, p.channels(r.Context())) })
	m.HandleFunc("POST /ari/channels", s.originate)
	m.HandleFunc("GET /ari/channels/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.one(w, r, p.channels(r.Context()), "Channel not found")
	})
	m.HandleFunc("DELETE /ari/channels/{id}", s.hangup)
	m.HandleFunc("GET /ari/channels/{id}/variable", s.variable)
	m.HandleFunc("POST /ari/channels/{id}/{action}", s.accept)
	m.HandleFunc("DELETE /ari/channels/{id}/{action}", s.accept)
	m.HandleFunc("GET /ari/bridges", func(w http.ResponseWriter, r *http.Request) { reply(w, 200, p.bridges(r.Context())) })
	m.HandleFunc("GET /ari/bridges/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.one(w, r, p.bridges(r.Context()), "Bridge not found")
	})
	m.HandleFunc("GET /ari/endpoints", s.endpoints)
	m.HandleFunc("GET /ari/applications", s.applications)
	m.HandleFunc("GET /ari/applications/{app}", s.application)
	m.HandleFunc("PUT /ari/applications/{app}/eventFilter", s.application)
	m.HandleFunc("POST /ari/applications/{app}/subscription", s.application)
	m.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fault(w, 404, "Resource not found") })
	return s.guard(m)
}

// guard checks the password, and answers after the ordered latency.
func (s *ariServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.f.group.Add(1)
		defer s.f.group.Done()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.f.ctx, cancel)()
		if !s.allowed(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="Asterisk REST Interface"`)
			fault(w, 401, "Authentication required")
			return
		}
		if wait(ctx, s.f.opt.Latency) {
			next.ServeHTTP(w, r.WithContext(ctx))
		}
	})
}

func (s *ariServer) allowed(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	if !ok {
		user, password, ok = strings.Cut(r.URL.Query().Get("api_key"), ":")
	}
	return ok && subtle.ConstantTimeCompare([]byte(user+"\x00"+password), []byte(s.f.opt.User+"\x00"+s.f.opt.Password)) == 1
}

// events is the websocket. A second one for an application takes it over from the first.
func (s *ariServer) events(w http.ResponseWriter, r *http.Request) {
	app := r.URL.Query().Get("app")
	if app == "" {
		fault(w, 400, "Missing param 'app'")
		return
	}
	k, in, err := wsUpgrade(w, r)
	if err != nil {
		fault(w, 426, "Upgrade Required: "+err.Error())
		return
	}
	for _, old := range s.f.list() {
		if old.kind == "ari" && old.app == app {
			s.replaced(old)
		}
	}
	c := s.f.admit("ari", k, func(c *conn) {
		c.app = app
		c.ready.Store(r.URL.Query().Get("subscribeAll") == "true")
	})
	defer s.f.leave(c)
	c.wsServe(in)
}

// replaced tells a reader that another one has its application now.
func (s *ariServer) replaced(old *conn) {
	old.ready.Store(false)
	b, err := json.Marshal(struct {
		Type        string `json:"type"`
		Application string `json:"application"`
		Timestamp   string `json:"timestamp"`
		AsteriskID  string `json:"asterisk_id"`
	}{"ApplicationReplaced", old.app, s.f.now().UTC().Format(isoMilli), s.p.entity()})
	if err == nil {
		old.answer(wsFrame(opText, b), wsFrame(opClose, []byte{0x03, 0xe8}))
	}
	old.finish()
}

func (s *ariServer) info(w http.ResponseWriter, _ *http.Request) {
	type m = map[string]any
	boot := s.p.booted().UTC().Format(isoMilli)
	reply(w, 200, m{
		"build": m{"os": "Linux", "kernel": "unknown", "machine": "unknown", "options": "OPTIONAL_API, TEST_FRAMEWORK",
			"date": "2026-07-20 21:35:32 UTC", "user": "nobody"},
		"system": m{"version": asteriskVersion, "entity_id": s.p.entity()},
		"config": m{"name": "", "default_language": "en", "setid": m{"user": "", "group": ""}},
		"status": m{"startup_time": boot, "last_reload_time": boot},
	})
}

func (s *ariServer) ping(w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, map[string]string{"ping": "pong", "timestamp": s.f.now().UTC().Format(isoMilli), "asterisk_id": s.p.entity()})
}

// one answers the object with the id asked for.
func (s *ariServer) one(w http.ResponseWriter, r *http.Request, all []json.RawMessage, missing string) {
	for _, o := range all {
		if idOf(o) == r.PathValue("id") {
			reply(w, 200, o)
			return
		}
	}
	fault(w, 404, missing)
}

func idOf(o json.RawMessage) string {
	var x struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(o, &x) != nil {
		return ""
	}
	return x.ID
}

func (s *ariServer) hangup(w http.ResponseWriter, r *http.Request) {
	if !s.p.hangupLeg(r.Context(), r.PathValue("id")) {
		fault(w, 404, "Channel not found")
		return
	}
	w.WriteHeader(204)
}

// actions that are taken note of and change nothing.
var channelActions = []string{"answer", "ring", "hold", "moh", "mute", "silence", "dtmf", "variable", "continue", "move", "redirect"}

func (s *ariServer) accept(w http.ResponseWriter, r *http.Request) {
	switch {
	case !slices.Contains(channelActions, r.PathValue("action")):
		fault(w, 404, "Resource not found")
	case !hasID(s.p.channels(r.Context()), r.PathValue("id")):
		fault(w, 404, "Channel not found")
	default:
		w.WriteHeader(204)
	}
}

func hasID(all []json.RawMessage, id string) bool {
	return slices.ContainsFunc(all, func(o json.RawMessage) bool { return idOf(o) == id })
}

func (s *ariServer) variable(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("variable")
	for _, o := range s.p.channels(r.Context()) {
		var x struct {
			ID   string            `json:"id"`
			Vars map[string]string `json:"channelvars"`
		}
		if json.Unmarshal(o, &x) != nil || x.ID != r.PathValue("id") {
			continue
		}
		v, ok := x.Vars[name]
		if !ok {
			fault(w, 404, "Provided variable was not found")
			return
		}
		reply(w, 200, map[string]string{"value": v})
		return
	}
	fault(w, 404, "Channel not found")
}

// originate rings the agent of the endpoint and dials on, as the recorded click-to-call does.
func (s *ariServer) originate(w http.ResponseWriter, r *http.Request) {
	agent, ok := strings.CutPrefix(r.URL.Query().Get("endpoint"), "PJSIP/")
	if !ok {
		fault(w, 400, "Endpoint must be specified")
		return
	}
	if !s.p.originate(r.Context(), agent) {
		fault(w, 500, "Allocation failed")
		return
	}
	for range 100 {
		for _, o := range slices.Backward(s.p.channels(r.Context())) {
			if strings.Contains(string(o), `"name":"PJSIP/`+agent+`-`) {
				reply(w, 200, o)
				return
			}
		}
		if !wait(r.Context(), 5*time.Millisecond) {
			return
		}
	}
	fault(w, 500, "Allocation failed")
}

func (s *ariServer) endpoints(w http.ResponseWriter, r *http.Request) {
	type endpoint struct {
		Technology string   `json:"technology"`
		Resource   string   `json:"resource"`
		State      string   `json:"state"`
		Channels   []string `json:"channel_ids"`
	}
	out := []endpoint{{"PJSIP", "trunk", "online", []string{}}}
	for _, m := range s.p.queueMembers(r.Context()) {
		if e := (endpoint{"PJSIP", m.user, "online", []string{}}); !slices.ContainsFunc(out, func(x endpoint) bool { return x.Resource == m.user }) {
			out = append(out, e)
		}
	}
	for _, o := range s.p.channels(r.Context()) {
		var x struct{ ID, Name string }
		if json.Unmarshal(o, &x) != nil {
			continue
		}
		for i := range out {
			if strings.HasPrefix(x.Name, "PJSIP/"+out[i].Resource+"-") {
				out[i].Channels = append(out[i].Channels, x.ID)
			}
		}
	}
	reply(w, 200, out)
}

type application struct {
	Name       string   `json:"name"`
	Channels   []string `json:"channel_ids"`
	Bridges    []string `json:"bridge_ids"`
	Endpoints  []string `json:"endpoint_ids"`
	Devices    []string `json:"device_names"`
	Allowed    []any    `json:"events_allowed"`
	Disallowed []any    `json:"events_disallowed"`
}

func newApplication(name string) application {
	none := []string{}
	return application{name, none, none, none, none, []any{}, []any{}}
}

func (s *ariServer) applications(w http.ResponseWriter, _ *http.Request) {
	out := []application{}
	for _, c := range s.f.list() {
		if c.kind == "ari" {
			out = append(out, newApplication(c.app))
		}
	}
	reply(w, 200, out)
}

func (s *ariServer) application(w http.ResponseWriter, r *http.Request) {
	for _, c := range s.f.list() {
		if c.kind == "ari" && c.app == r.PathValue("app") {
			reply(w, 200, newApplication(c.app))
			return
		}
	}
	fault(w, 404, "Application not found")
}

func reply(w http.ResponseWriter, code int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // IVR_PATH holds main>billing
	if err := enc.Encode(v); err != nil {
		fault(w, 500, "Allocation failed")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(bytes.TrimSpace(b.Bytes())) // the client may be gone: nobody is left to tell
}

func fault(w http.ResponseWriter, code int, message string) {
	reply(w, code, map[string]string{"message": message})
}
