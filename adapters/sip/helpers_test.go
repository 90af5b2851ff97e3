package sip

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// sheet keeps what an engine hands over, and the events that a tracker makes of it.
type sheet struct {
	frames []core.Frame
	dead   []core.DeadLetter
	counts map[string]int
	t      *call.Tracker
	events []*call.Event
	last   call.Time
}

func newSheet() *sheet {
	return &sheet{counts: map[string]int{}, t: call.NewTracker(call.Options{})}
}

func (s *sheet) Frame(f core.Frame) error {
	s.frames = append(s.frames, f)
	s.last = max(s.last, f.Received)
	s.events = append(s.events, s.t.Tick(f.Received)...)
	for _, o := range f.Observations {
		s.events = append(s.events, s.t.Apply(call.SwitchRef{ID: "wire", Kind: Kind}, o)...)
	}
	return nil
}

func (s *sheet) DeadLetter(d core.DeadLetter) error { s.dead = append(s.dead, d); return nil }
func (s *sheet) Count(name string, n int)           { s.counts[name] += n }

// record is the only call's record.
func (s *sheet) records() (out []*call.Call) {
	for _, e := range s.events {
		if e.Type == call.CallRecord {
			out = append(out, e.Call)
		}
	}
	return out
}

// types tells the events in a line each.
func (s *sheet) types(t call.EventType) (out []*call.Event) {
	for _, e := range s.events {
		if e.Type == t {
			out = append(out, e)
		}
	}
	return out
}

// stage plays packets to an engine, with a clock of its own.
type stage struct {
	*sheet
	e   *engine
	now call.Time
}

func newStage(c Config) *stage {
	s := newSheet()
	return &stage{sheet: s, e: newEngine(c.withDefaults(), s), now: 1_800_000_000 * call.Second}
}

// wait lets time pass, as the adapter's ticks do.
func (g *stage) wait(d call.Time) {
	for end, step := g.now+d, max(call.Second, d/1000); g.now < end; {
		g.now = min(end, g.now+step)
		g.e.advance(g.now)
	}
}

func (g *stage) packet(kind wire.Kind, src, dst string, payload []byte) {
	g.e.packet(&wire.Packet{Kind: kind, At: g.now, Received: g.now, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Payload: payload})
}

// send plays one SIP message a millisecond after the one before. Lines are its first line and headers; an empty line is
// followed by the body.
func (g *stage) send(src, dst string, lines ...string) {
	g.now += call.Millisecond
	g.packet(wire.Datagram, src, dst, []byte(text(lines...)))
}

func text(lines ...string) string {
	head, body := lines, ""
	for i, l := range lines {
		if l == "" {
			head, body = lines[:i], strings.Join(lines[i+1:], "\r\n")+"\r\n"
			break
		}
	}
	return strings.Join(head, "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// phone is one end of a dialog that tests write messages of.
type dlg struct {
	g        *stage
	a, b     string // addresses of caller and callee
	id       string
	from, to string
	fromTag  string
	toTag    string
	branch   int
}

func (d *dlg) head(cseq int, method string) []string {
	to := fmt.Sprintf("To: <sip:%s@example.com>", d.to)
	if d.toTag != "" {
		to += ";tag=" + d.toTag
	}
	return []string{fmt.Sprintf("From: <sip:%s@example.com>;tag=%s", d.from, d.fromTag), to, "Call-ID: " + d.id, fmt.Sprintf("CSeq: %d %s", cseq, method)}
}

func (d *dlg) via(host string) string {
	return fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%s%d", host, d.id, d.branch)
}

// ask sends a request of the caller; answer, a response of the callee to it.
func (d *dlg) ask(method string, cseq int, more ...string) {
	if method != "ACK" && method != "CANCEL" {
		d.branch++
	}
	lines := append([]string{fmt.Sprintf("%s sip:%s@%s SIP/2.0", method, d.to, d.b), d.via(d.a), "Max-Forwards: 70"}, d.head(cseq, method)...)
	d.g.send(d.a, d.b, append(lines, more...)...)
}

func (d *dlg) answer(status int, method string, cseq int, more ...string) {
	lines := append([]string{fmt.Sprintf("SIP/2.0 %d Whatever", status), d.via(d.a)}, d.head(cseq, method)...)
	d.g.send(d.b, d.a, append(lines, more...)...)
}

// back is the dialog seen from the callee, for its requests.
func (d *dlg) back() *dlg {
	return &dlg{g: d.g, a: d.b, b: d.a, id: d.id, from: d.to, to: d.from, fromTag: d.toTag, toTag: d.fromTag, branch: 1000}
}

func sdpOf(addr string, direction string, formats ...string) []string {
	ap := netip.MustParseAddrPort(addr)
	if len(formats) == 0 {
		formats = []string{"0"}
	}
	return []string{"", "v=0", "o=- 1 1 IN IP4 " + ap.Addr().String(), "s=-", "c=IN IP4 " + ap.Addr().String(), "t=0 0",
		fmt.Sprintf("m=audio %d RTP/AVP %s", ap.Port(), strings.Join(formats, " ")), "a=rtpmap:101 telephone-event/8000", "a=" + direction}
}

const typeSDP = "Content-Type: application/sdp"

func with(headers []string, body []string) []string {
	return append(append([]string(nil), headers...), body...)
}
