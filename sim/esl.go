package sim

import (
	"bufio"
	"context"
	"crypto/subtle"
	"fmt"
	"net"
	"slices"
	"strings"
)

// subscription is what an event-socket client asked for. It is replaced as a whole, never changed.
type subscription struct {
	plain   bool
	on      bool
	all     bool
	names   map[string]bool
	custom  map[string]bool
	without map[string]bool // nixed after ALL
	filters []filter
}

// filter lets pass what has, or with not set has not, the value in the header.
type filter struct {
	header, value string
	not           bool
}

// wants reports whether an event is asked for; CUSTOM events by their subclass.
func (s *subscription) wants(name, subclass string) bool {
	switch {
	case !s.on || s.without[name] || subclass != "" && s.without[subclass]:
		return false
	case s.all:
		return true
	case name == "CUSTOM":
		return s.names[name] && s.custom[subclass]
	}
	return s.names[name]
}

// passes applies the filters to an event in JSON: one that fits is enough, a negative one that fits forbids.
func (s *subscription) passes(event []byte) bool {
	fs, _ := jsonFields(string(event))
	ok, positive := false, false
	for _, f := range s.filters {
		hit := strings.EqualFold(value(fs, f.header), f.value)
		if f.not && hit {
			return false
		}
		positive = positive || !f.not
		ok = ok || !f.not && hit
	}
	return ok || !positive
}

// core is what the event socket asks of what is behind it.
type core interface {
	api(ctx context.Context, command string) string
	background(job, command, result string)
	newUUID() string
}

// eslSession is one client of the event socket.
type eslSession struct {
	f      *front
	core   core
	c      *conn
	in     *bufio.Reader
	authed bool
	sub    subscription
}

func (f *front) serveESL(k net.Conn, x core) {
	s := &eslSession{f: f, core: x, in: bufio.NewReader(k)}
	s.c = f.admit("esl", k, func(*conn) {})
	defer f.leave(s.c)
	s.c.answer([]byte("Content-Type: auth/request\n\n"))
	for {
		cmd, headers, ok := s.read()
		if !ok || !wait(f.ctx, f.opt.Latency) {
			return
		}
		if cmd != "" && !s.act(cmd, headers) {
			s.bye()
			return
		}
	}
}

// bye sends what FreeSWITCH says before it closes.
func (s *eslSession) bye() {
	const text = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
	s.c.answer(fmt.Appendf(nil, "Content-Type: text/disconnect-notice\nContent-Length: %d\n\n%s", len(text), text))
	s.c.finish()
	<-s.c.done
}

// maxCommand bounds the lines of one command, in bytes.
const maxCommand = 64 << 10

// read reads one command: its first line, and the headers after it up to an empty line.
func (s *eslSession) read() (cmd string, headers map[string]string, ok bool) {
	headers = map[string]string{}
	for n := 0; n < maxCommand; {
		l, err := s.in.ReadSlice('\n')
		if err != nil {
			return "", nil, false
		}
		n += len(l)
		t := strings.TrimRight(string(l), "\r\n")
		switch {
		case t == "":
			return cmd, headers, true
		case cmd == "":
			cmd = t
		default:
			k, v, _ := strings.Cut(t, ":")
			headers[strings.ToLower(k)] = strings.TrimSpace(v)
		}
	}
	return "", nil, false
}

func (s *eslSession) reply(text string, headers ...string) {
	var b strings.Builder
	b.WriteString("Content-Type: command/reply\nReply-Text: " + text + "\n")
	for i := 0; i+1 < len(headers); i += 2 {
		b.WriteString(headers[i] + ": " + headers[i+1] + "\n")
	}
	s.c.answer([]byte(b.String() + "\n"))
}

// act carries out one command and reports whether the session goes on.
func (s *eslSession) act(cmd string, headers map[string]string) bool {
	verb, rest, _ := strings.Cut(cmd, " ")
	verb = strings.ToLower(verb)
	switch {
	case verb == "auth":
		if subtle.ConstantTimeCompare([]byte(rest), []byte(s.f.opt.Password)) != 1 {
			s.reply("-ERR invalid")
			return false
		}
		s.authed = true
		s.reply("+OK accepted")
	case verb == "exit":
		s.reply("+OK bye")
		return false
	case !s.authed:
		s.reply("-ERR command not found")
	default:
		s.command(verb, strings.TrimSpace(rest), headers)
	}
	return true
}

func (s *eslSession) command(verb, rest string, headers map[string]string) {
	switch verb {
	case "api":
		out := s.core.api(s.f.ctx, rest)
		s.c.answer(fmt.Appendf(nil, "Content-Type: api/response\nContent-Length: %d\n\n%s", len(out), out))
	case "bgapi":
		job := headers["job-uuid"]
		if job == "" {
			job = s.core.newUUID()
		}
		s.reply("+OK Job-UUID: "+job, "Job-UUID", job)
		s.core.background(job, rest, s.core.api(s.f.ctx, rest))
	case "event", "nixevent", "noevents", "filter":
		s.subscribe(verb, strings.Fields(rest))
	case "log":
		s.reply("+OK log level  " + rest + " [7]")
	case "nolog":
		s.reply("+OK no longer logging")
	case "linger", "nolinger", "nixlog":
		s.reply("+OK")
	case "sendmsg":
		if headers["call-command"] == "hangup" {
			s.core.api(s.f.ctx, "uuid_kill "+rest)
		}
		s.reply("+OK")
	default:
		s.reply("-ERR command not found")
	}
}

// subscribe changes what is sent to this client.
func (s *eslSession) subscribe(verb string, words []string) {
	n := s.sub.clone()
	var text string
	switch verb {
	case "event":
		text = n.add(words)
	case "nixevent":
		text = n.nix(words)
	case "noevents":
		text = "-ERR not listening for events"
		if n.on {
			text = "+OK no longer listening for events"
		}
		n = subscription{plain: n.plain, filters: n.filters}
	case "filter":
		text = n.filter(words)
	}
	s.sub = n
	s.reply(text) // before the first event it brings
	s.c.sub.Store(&n)
	s.f.arrive()
}

func (s *subscription) clone() subscription {
	n := *s
	for _, m := range []*map[string]bool{&n.names, &n.custom, &n.without} {
		c := map[string]bool{}
		for k := range *m {
			c[k] = true
		}
		*m = c
	}
	n.filters = slices.Clone(n.filters)
	return n
}

func (s *subscription) add(words []string) string {
	s.plain = true
	if len(words) > 0 {
		switch strings.ToLower(words[0]) {
		case "plain":
			words = words[1:]
		case "json":
			s.plain, words = false, words[1:]
		case "xml":
			return "-ERR xml is not simulated: use json or plain"
		}
	}
	if len(words) == 0 {
		return "-ERR no keywords supplied"
	}
	custom := false
	for _, w := range words {
		up := strings.ToUpper(w)
		switch {
		case custom:
			s.custom[w] = true
			delete(s.without, w)
		case up == "ALL":
			s.all, s.without = true, map[string]bool{}
		default:
			custom = up == "CUSTOM"
			s.names[up] = true
			delete(s.without, up)
		}
	}
	s.on = true
	if s.plain {
		return "+OK event listener enabled plain"
	}
	return "+OK event listener enabled json"
}

func (s *subscription) nix(words []string) string {
	if len(words) == 0 {
		return "-ERR no keywords supplied"
	}
	custom := false
	for _, w := range words {
		up := strings.ToUpper(w)
		switch {
		case custom:
			delete(s.custom, w)
			s.without[w] = true
		case up == "ALL":
			s.all, s.names, s.custom = false, map[string]bool{}, map[string]bool{}
		case up == "CUSTOM":
			custom = true
		default:
			delete(s.names, up)
			s.without[up] = true
		}
	}
	return "+OK events nixed"
}

func (s *subscription) filter(words []string) string {
	if len(words) == 0 {
		return "-ERR invalid syntax"
	}
	if strings.EqualFold(words[0], "delete") {
		s.filters = slices.DeleteFunc(s.filters, func(f filter) bool {
			return len(words) > 1 && strings.EqualFold(f.header, words[1]) && (len(words) < 3 || f.value == words[2])
		})
		return "+OK filter deleted. [" + strings.Join(words[1:], " ") + "]"
	}
	if strings.EqualFold(words[0], "add") {
		words = words[1:]
	}
	if len(words) < 2 {
		return "-ERR invalid syntax"
	}
	v := strings.Join(words[1:], " ")
	text, not := strings.CutPrefix(v, "-")
	s.filters = append(s.filters, filter{words[0], text, not})
	return "+OK filter added. [" + words[0] + "]=[" + v + "]"
}
