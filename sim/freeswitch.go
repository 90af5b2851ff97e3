package sim

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

// FreeSWITCH is a simulated FreeSWITCH 1.10 with an event socket.
type FreeSWITCH struct {
	front
	eng   *engine
	esl   net.Listener
	json  []byte // scratch
	plain []byte
	peak  int
}

// freeswitchVersion is that of the recorded switch.
const freeswitchVersion = "1.10.12-release+git~20240802T210227Z~a88d069d6f~64bit"

// heartbeat is how often HEARTBEAT is sent, in microseconds.
const heartbeat = 20 * second

// NewFreeSWITCH makes the switch; Start brings it up.
func NewFreeSWITCH(opt Options) *FreeSWITCH {
	s := &FreeSWITCH{}
	s.opt = opt.withDefaults("ClueCon")
	return s
}

// Start listens on addr (":0" picks a port) and plays until ctx ends or Close is called.
func (s *FreeSWITCH) Start(ctx context.Context, addr string) error {
	if err := s.opt.validate(); err != nil {
		return fmt.Errorf("starting the simulated FreeSWITCH: %w", err)
	}
	s.open(ctx, s.opt)
	s.eng = newEngine("freeswitch", s.opt, s)
	s.eng.skew = s.clockSkew
	if err := s.eng.load(); err != nil {
		return err
	}
	if !s.opt.Unpaced {
		s.eng.at(s.eng.boot+heartbeat, s.beat)
	}
	var err error
	if s.esl, err = s.listen(addr, func(k net.Conn) { s.serveESL(k, s) }); err != nil {
		s.Close()
		return err
	}
	s.group.Go(func() { s.eng.run(s.ctx, &s.front) })
	return nil
}

// Addr is host:port of the event socket.
func (s *FreeSWITCH) Addr() string { return s.esl.Addr().String() }

// Close stops the switch and waits until all it started has ended. Connections are closed.
func (s *FreeSWITCH) Close() { s.close() }

// Wait blocks until the context given to Start ends, and then until the switch has stopped.
func (s *FreeSWITCH) Wait() {
	<-s.ctx.Done()
	s.close()
}

// Done is closed when Options.MaxCalls calls have ended.
func (s *FreeSWITCH) Done() <-chan struct{} { return s.eng.done }

// Place starts one call of a script (see Scripts) now.
func (s *FreeSWITCH) Place(script string) error { return s.eng.placeNow(s.ctx, script) }

// Stats says what has been done so far.
func (s *FreeSWITCH) Stats() Stats { return s.eng.addTo(s.ctx, s.stats()) }

// Ledger returns the last Options.Ledger events written to open sockets, oldest first by connection.
func (s *FreeSWITCH) Ledger() []Entry { return s.ledger.entries() }

// Truths returns what happened in the last Options.Ledger calls that ended.
func (s *FreeSWITCH) Truths() []Truth { return s.ledger.ended() }

// SetClockSkew steps the switch's clock.
func (s *FreeSWITCH) SetClockSkew(d time.Duration) { s.skew.Store(int64(d)) }

// Disconnect closes every connection.
func (s *FreeSWITCH) Disconnect() { s.disconnect() }

func (s *FreeSWITCH) ended(c *simCall) { c.settle(&s.ledger) }

// send renders a step once in each format that is asked for.
func (s *FreeSWITCH) send(c *simCall, st *step) {
	s.json, s.plain = s.json[:0], s.plain[:0]
	for _, k := range s.list() {
		sub := k.sub.Load()
		if sub == nil || !sub.wants(st.typ, st.sub) {
			continue
		}
		if len(sub.filters) > 0 && !sub.passes(st.json.append(nil, c)) {
			continue
		}
		e := c.entry(st, "esl")
		if sub.plain {
			if len(s.plain) == 0 {
				s.plain = st.plain.append(s.plain, c)
			}
			s.deliverESL(k, &e, s.eng.cmds, "plain", s.plain)
			continue
		}
		if len(s.json) == 0 {
			s.json = st.json.append(s.json, c)
		}
		s.deliverESL(k, &e, s.eng.cmds, "json", s.json)
	}
}

// deliverESL frames one event.
func (f *front) deliverESL(k *conn, e *Entry, serve <-chan func(), format string, body []byte) {
	var tmp [96]byte
	head := append(tmp[:0], "Content-Length: "...)
	head = strconv.AppendInt(head, int64(len(body)), 10)
	head = append(head, "\nContent-Type: text/event-"...)
	head = append(head, format...)
	f.deliver(k, e, serve, append(head, "\n\n"...), body)
}

// pairs is an event that belongs to no call: names and values in turn.
type pairs []string

func (p pairs) appendJSON(b []byte) []byte {
	b = append(b, '{')
	for i := 0; i+1 < len(p); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONText(append(b, '"'), p[i])
		b = appendJSONText(append(b, `":"`...), p[i+1])
		b = append(b, '"')
	}
	return append(b, '}')
}

func (p pairs) appendPlain(b []byte) []byte {
	body := ""
	for i := 0; i+1 < len(p); i += 2 {
		if p[i] == "_body" {
			body = p[i+1]
			continue
		}
		b = append(append(b, p[i]...), ": "...)
		b = append(appendURL(b, []byte(p[i+1])), '\n')
	}
	return append(append(b, '\n'), body...)
}

// common begins an event with the headers that all have.
func (s *FreeSWITCH) common(name, file, function, at string, micros int64) pairs {
	t := time.UnixMicro(micros).UTC()
	return pairs{"Event-Name", name, "Core-UUID", s.eng.globals[globalCore], "FreeSWITCH-Hostname", "vm", "FreeSWITCH-Switchname", "vm",
		"FreeSWITCH-IPv4", "192.0.2.2", "FreeSWITCH-IPv6", "fd00::2", "Event-Date-Local", t.Format(time.DateTime),
		"Event-Date-GMT", t.Format("Mon, 02 Jan 2006 15:04:05 GMT"), "Event-Date-Timestamp", strconv.FormatInt(micros, 10),
		"Event-Calling-File", file, "Event-Calling-Function", function, "Event-Calling-Line-Number", at,
		"Event-Sequence", strconv.FormatInt(s.eng.count(countEvent), 10)}
}

// tell sends an event that belongs to no call.
func (s *FreeSWITCH) tell(name string, p pairs) {
	for _, k := range s.list() {
		sub := k.sub.Load()
		if sub == nil || !sub.wants(name, "") {
			continue
		}
		if len(sub.filters) > 0 && !sub.passes(p.appendJSON(nil)) {
			continue
		}
		e := Entry{Kind: "esl", Type: name}
		if sub.plain {
			s.deliverESL(k, &e, s.eng.cmds, "plain", p.appendPlain(nil))
		} else {
			s.deliverESL(k, &e, s.eng.cmds, "json", p.appendJSON(nil))
		}
	}
}

// beat sends HEARTBEAT and the note of the next one.
func (s *FreeSWITCH) beat() {
	at := s.eng.heap[0].at
	now := s.eng.stamp(at)
	up := time.Duration(at-s.eng.boot) * time.Microsecond
	n := strconv.Itoa(s.sessions())
	s.peak = max(s.peak, s.sessions())
	peak := strconv.Itoa(s.peak)
	s.tell("HEARTBEAT", append(s.common("HEARTBEAT", "switch_core.c", "send_heartbeat", "95", now),
		"Event-Info", "System Ready", "Up-Time", upTime(up), "FreeSWITCH-Version", freeswitchVersion,
		"Uptime-msec", strconv.FormatInt(up.Milliseconds(), 10), "Session-Count", n, "Max-Sessions", "5000",
		"Session-Per-Sec", "500", "Session-Per-Sec-Last", "0", "Session-Per-Sec-Max", peak, "Session-Per-Sec-FiveMin", peak,
		"Session-Since-Startup", strconv.FormatInt(s.eng.counts[countSession], 10), "Session-Peak-Max", peak, "Session-Peak-FiveMin", peak,
		"Idle-CPU", "98.966667"))
	s.tell("RE_SCHEDULE", append(s.common("RE_SCHEDULE", "switch_scheduler.c", "switch_scheduler_execute", "73", now),
		"Task-ID", "1", "Task-Desc", "heartbeat", "Task-Group", "core", "Task-Runtime", strconv.FormatInt((now+heartbeat)/second, 10)))
	s.eng.at(at+heartbeat, s.beat)
}

// upTime words a duration as FreeSWITCH does.
func upTime(d time.Duration) string {
	us := d.Microseconds()
	return fmt.Sprintf("%d years, %d days, %d hours, %d minutes, %d seconds, %d milliseconds, %d microseconds",
		us/(365*24*3600*second), us/(24*3600*second)%365, us/(3600*second)%24, us/(60*second)%60, us/second%60, us/1000%1000, us%1000)
}

// sessions counts the legs that are up.
func (s *FreeSWITCH) sessions() int {
	n := 0
	for _, c := range s.eng.calls {
		up := c.alive()
		n += len(up.legs) - len(up.hungup)
	}
	return n
}
