package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

// Player serves a recorded trace over the protocols it was recorded from. What it sends is the recording, byte for
// byte, but for the ARI application's name and, where a reader asks for the other event format, that.
type Player struct {
	front
	frames   []frame
	speed    float64
	kind     string // asterisk, freeswitch
	id       string // asterisk_id or Core-UUID
	main     net.Listener
	ami      net.Listener
	boot     time.Time
	played   chan struct{}
	anything map[proto]bool
}

// PlayTrace opens a trace folder (ari.jsonl and ami.jsonl, or esl.jsonl, plain or .gz) to be served speed times as fast
// as it was recorded, or, with speed 0, as fast as it is read. Users and passwords are the simulation's defaults.
func PlayTrace(dir string, speed float64) (*Player, error) {
	return PlayTraceWith(dir, speed, Options{})
}

// PlayTraceWith is PlayTrace with other users, passwords, readers, latency and faults; what belongs to scripted calls
// is without effect.
func PlayTraceWith(dir string, speed float64, opt Options) (*Player, error) {
	frames, err := readRecording(os.DirFS(dir), ".")
	if err != nil {
		return nil, fmt.Errorf("playing trace %s: %w", dir, err)
	}
	p := &Player{speed: speed, kind: "asterisk", played: make(chan struct{}), anything: map[proto]bool{}}
	for _, f := range frames {
		if f.proto == protoAnswer || f.proto == protoAMI && (frameType(f) == "" || frameType(f) == "FullyBooted") {
			continue
		}
		p.frames = append(p.frames, f)
		p.anything[f.proto] = true
		p.learnID(f)
	}
	if len(p.frames) == 0 {
		return nil, fmt.Errorf("playing trace %s: it holds no event", dir)
	}
	password := "gwsecret"
	if p.anything[protoESL] {
		p.kind, password = "freeswitch", "ClueCon"
	}
	opt.Wait = opt.Wait || speed <= 0
	p.opt = opt.withDefaults(password)
	return p, nil
}

func (p *Player) learnID(f frame) {
	if p.id != "" || f.proto == protoAMI {
		return
	}
	fs, _ := f.fields()
	if p.id = value(fs, "asterisk_id"); p.id == "" {
		p.id = value(fs, "Core-UUID")
	}
}

// Kind is asterisk or freeswitch.
func (p *Player) Kind() string { return p.kind }

// Start listens: on addr for ARI or the event socket, on amiAddr for AMI (empty: none). It plays once readers of each
// recorded protocol that is served take events, or, where Options.Readers is set, that many readers.
func (p *Player) Start(ctx context.Context, addr, amiAddr string) error {
	p.open(ctx, p.opt)
	p.boot = p.opt.Now().Add(-time.Hour)
	if err := p.serve(addr, amiAddr); err != nil {
		p.Close()
		return fmt.Errorf("playing a trace: %w", err)
	}
	p.group.Go(func() {
		if p.await() {
			p.run()
			close(p.played)
		}
	})
	return nil
}

func (p *Player) serve(addr, amiAddr string) (err error) {
	if p.kind == "freeswitch" {
		p.main, err = p.listen(addr, func(k net.Conn) { p.serveESL(k, p) })
		return err
	}
	if p.main, err = net.Listen("tcp", addr); err != nil {
		return err
	}
	p.serveHTTP(p.main, p.ariHandler(p))
	if amiAddr != "" {
		p.ami, err = p.listen(amiAddr, func(k net.Conn) { p.serveAMI(k, p) })
	}
	return err
}

// Addr is host:port of the ARI or the event socket.
func (p *Player) Addr() string { return p.main.Addr().String() }

// AMIAddr is host:port of the AMI, empty without one.
func (p *Player) AMIAddr() string {
	if p.ami == nil {
		return ""
	}
	return p.ami.Addr().String()
}

// Done is closed when the last frame has been handed to the connections.
func (p *Player) Done() <-chan struct{} { return p.played }

// Close stops serving and waits until all it started has ended.
func (p *Player) Close() { p.close() }

// Stats says what has been sent so far.
func (p *Player) Stats() Stats { return p.stats() }

// Ledger returns the last Options.Ledger events written to open sockets.
func (p *Player) Ledger() []Entry { return p.ledger.entries() }

// await waits for the readers.
func (p *Player) await() bool {
	for !p.complete() {
		select {
		case <-p.ctx.Done():
			return false
		case <-p.arrived:
		}
	}
	return true
}

func (p *Player) complete() bool {
	if n := p.opt.Readers; n > 0 {
		return p.readers() >= n
	}
	need := map[string]bool{}
	switch {
	case p.kind == "freeswitch":
		need["esl"] = true
	default:
		need["ari"] = p.anything[protoARI]
		need["ami"] = p.anything[protoAMI] && p.ami != nil
	}
	for _, c := range p.list() {
		if sub := c.sub.Load(); c.ready.Load() || sub != nil && sub.on {
			delete(need, c.kind)
		}
	}
	for _, missing := range need {
		if missing {
			return false
		}
	}
	return true
}

// run sends every frame at its time.
func (p *Player) run() {
	start, first := time.Now(), p.frames[0].at
	for i, f := range p.frames {
		if p.speed > 0 {
			due := start.Add(time.Duration(float64(f.at-first)/p.speed) * time.Microsecond)
			if !wait(p.ctx, time.Until(due)) {
				return
			}
		}
		if p.ctx.Err() != nil {
			return
		}
		p.send(i, f)
	}
}

func (p *Player) send(i int, f frame) {
	typ := frameType(f)
	for _, c := range p.list() {
		e := Entry{Type: typ, Step: i, Kind: c.kind}
		switch {
		case f.proto == protoARI && c.kind == "ari" && c.ready.Load():
			text, at := withoutApp(f.raw)
			p.deliverARI(c, &e, nil, text, at)
		case f.proto == protoAMI && c.kind == "ami" && c.ready.Load():
			p.deliver(c, &e, nil, f.raw)
		case f.proto == protoESL && c.kind == "esl":
			p.sendESL(c, &e, f)
		}
	}
}

// withoutApp cuts the application's name out of an ARI event and says where it was.
func withoutApp(raw []byte) ([]byte, int) {
	key := []byte(`"application":"`)
	i := bytes.Index(raw, key)
	if i < 0 {
		return raw, len(raw)
	}
	i += len(key)
	n := bytes.IndexByte(raw[i:], '"')
	if n < 0 {
		return raw, len(raw)
	}
	return append(append([]byte(nil), raw[:i]...), raw[i+n:]...), i
}

func (p *Player) sendESL(c *conn, e *Entry, f frame) {
	sub := c.sub.Load()
	fs, _ := f.fields()
	if sub == nil || !sub.wants(e.Type, value(fs, "Event-Subclass")) {
		return
	}
	var all pairs
	for _, x := range fs {
		all = append(all, x.key, x.val)
	}
	if len(sub.filters) > 0 && !sub.passes(all.appendJSON(nil)) {
		return
	}
	body, format := f.raw, "json"
	if sub.plain {
		format = "plain"
	}
	switch {
	case sub.plain && !f.plain:
		body = all.appendPlain(nil)
	case !sub.plain && f.plain:
		body = all.appendJSON(nil)
	}
	p.deliverESL(c, e, nil, format, body)
}

// What the control interfaces answer while a trace is played: a switch without calls, for the trace says only what
// happened, not what the switch would have answered.

func (p *Player) channels(context.Context) []json.RawMessage    { return []json.RawMessage{} }
func (p *Player) bridges(context.Context) []json.RawMessage     { return []json.RawMessage{} }
func (p *Player) hangupLeg(context.Context, string) bool        { return false }
func (p *Player) originate(context.Context, string) bool        { return false }
func (p *Player) entity() string                                { return p.id }
func (p *Player) booted() time.Time                             { return p.boot }
func (p *Player) queueMembers(context.Context) []member         { return nil }
func (p *Player) queues() []string                              { return nil }
func (p *Player) waitingIn(context.Context) map[string][]waiter { return nil }

func (p *Player) api(_ context.Context, command string) string {
	now := p.now().UnixMicro()
	switch verb, rest, _ := strings.Cut(command, " "); {
	case verb == "status":
		return "UP " + upTime(p.now().Sub(p.boot)) + "\nFreeSWITCH (Version 1.10.12-release git a88d069 2024-08-02 21:02:27Z 64bit) is ready\n"
	case verb == "version":
		return "FreeSWITCH Version " + freeswitchVersion + " (git a88d069 2024-08-02 21:02:27Z 64bit)\n"
	case verb == "show":
		return rows(nil)
	case verb == "strmicroepoch":
		return fmt.Sprint(now)
	case verb == "strepoch":
		return fmt.Sprint(now / second)
	case command == "global_getvar core_uuid":
		return p.id
	case verb == "module_exists":
		return fmt.Sprint(strings.Contains(strings.Join(modules, " ")+" ", rest+" "))
	case verb == "callcenter_config":
		return "+OK\n"
	}
	return "-ERR " + command + " Command not found!\n"
}

func (p *Player) background(string, string, string) {}

func (p *Player) newUUID() string {
	return randomLike(rand.New(rand.NewPCG(uint64(p.now().UnixNano()), 1)), "16b894de-02df-4902-a4c3-17c2275ab1a2")
}
