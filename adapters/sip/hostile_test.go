package sip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestASpoofedByeEndsNothing(t *testing.T) {
	const stranger = "10.66.6.6:5060"
	g := newStage(Config{})
	d := g.talkTo(g.call(phoneA, phoneB, "x", "100", "200"))
	spoof := *d
	spoof.a, spoof.branch = stranger, 66
	for range 3 {
		spoof.ask("BYE", 99)
		g.wait(call.Second)
	}
	want(t, "calls, counted", []int{g.t.Active(), g.counts["unexpected_source"]}, []int{1, 3})
	d.ask("BYE", 2)
	want(t, "hangup", g.one(t).HangupBy, "caller")
}

func TestAByeFromABehindAProxyThatNamedItselfCounts(t *testing.T) {
	const edge = "10.9.0.2:5060"
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, "Record-Route: <sip:10.9.0.2;lr>")
	d.toTag = "t"
	d.answer(200, "INVITE", 1)
	bye := *d
	bye.a = edge
	bye.ask("BYE", 2)
	want(t, "hangup", g.one(t).HangupBy, "caller")
}

// rtpStage is a call with audio between two phones.
func rtpStage(cfg Config) (*stage, *dlg) {
	g := newStage(cfg)
	d := g.call(phoneA, phoneB, "x", "100", "200")
	d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.1.0.1:4000", "sendrecv", "0", "101"))...)
	d.toTag = "t"
	d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf("10.2.0.1:4000", "sendrecv", "0", "101"))...)
	d.ask("ACK", 1)
	return g, d
}

// speak plays n packets of 20 ms in the directions whose source is given.
func (g *stage) speak(n int, seq uint16, routes ...[2]string) {
	for i := range n {
		g.now += 20 * call.Millisecond
		for j, r := range routes {
			g.packet(wire.Datagram, r[0], r[1], rtpPacket(seq+uint16(i), uint32(seq+uint16(i))*160, uint32(j)+7))
		}
		g.e.advance(g.now)
	}
}

var there, back = [2]string{"10.1.0.1:4000", "10.2.0.1:4000"}, [2]string{"10.2.0.1:4000", "10.1.0.1:4000"}

func TestRTPFromAWrongSourceChangesNothing(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(100, 0, there, back)
	for i := range 500 {
		g.packet(wire.Datagram, "10.66.6.6:4000", "10.2.0.1:4000", rtpPacket(uint16(i)*31, 1, 99))
	}
	g.speak(100, 100, there, back)
	d.ask("BYE", 2)
	r := g.one(t)
	m := r.Connections[0].Media
	want(t, "packets, lost, counted", []any{m.Packets, m.Lost, g.counts["rtp_unexpected_source"]}, []any{200, 0, 500})
	if !slices.Contains(m.Streams[0].Flags, call.FlagUnexpectedSource) {
		t.Errorf("flags %v", m.Streams[0].Flags)
	}
}

func TestOneWayAndNoMediaAreSeen(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(1100, 0, there)
	d.ask("BYE", 2)
	r := g.one(t)
	q := g.types(call.MediaQuality)
	if len(q) < 4 {
		t.Fatalf("%d reports", len(q))
	}
	want(t, "interval, from the caller", q[0].Quality.Flags, []string{call.FlagOneWay})
	want(t, "interval, from the callee", q[1].Quality.Flags, []string{call.FlagNoMedia})
	want(t, "record", r.Connections[1].Media.Streams[0].Flags, []string{call.FlagNoMedia})
	want(t, "seq", q[0].Seq, 0)
}

func TestNobodyMissesAudioWhereNoneIsCaptured(t *testing.T) {
	g, d := rtpStage(Config{})
	g.wait(60 * call.Second)
	d.ask("BYE", 2)
	g.one(t)
	want(t, "reports", len(g.types(call.MediaQuality)), 0)
}

func TestReportsComeEveryInterval(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(50*65, 0, there, back)
	d.ask("BYE", 2)
	r := g.one(t)
	finals, intervals := 0, uint64(0)
	for _, e := range g.types(call.MediaQuality) {
		if e.Quality.Final {
			finals++
		} else if e.ConnectionID == r.Connections[0].ID {
			intervals += e.Quality.Packets
		}
	}
	want(t, "finals", finals, 2)
	if intervals < 50*59 || intervals > 50*62 {
		t.Errorf("the intervals of a minute have %d packets", intervals)
	}
	want(t, "packets of the record", r.Connections[0].Media.Packets, 50*65)
}

func TestDigitsInRTP(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(10, 0, there, back)
	for i := range 6 {
		p := make([]byte, 16)
		p[0], p[1] = 0x80, 101
		binary.BigEndian.PutUint16(p[2:], uint16(10+i))
		binary.BigEndian.PutUint32(p[4:], 1600)
		binary.BigEndian.PutUint32(p[8:], 7)
		p[12], p[13] = 5, 10
		if i >= 3 {
			p[13] |= 0x80
		}
		binary.BigEndian.PutUint16(p[14:], uint16(160*min(i+1, 4)))
		g.now += 20 * call.Millisecond
		g.packet(wire.Datagram, there[0], there[1], p)
	}
	d.ask("INFO", 2, "Content-Type: application/dtmf-relay", "", "Signal=5\r\nDuration=80") // the same key, told twice
	g.speak(10, 16, there, back)
	d.ask("BYE", 3)
	r := g.one(t)
	want(t, "digits", []any{r.Digits, g.counts["dtmf_twice"]}, []any{"5", 1})
}

func TestOverloadLeavesOutWholeStreams(t *testing.T) {
	out := &nowhere{}
	e, g := talking(1000, out)
	e.sample(2)
	measured := 0
	for _, f := range e.flows {
		if !f.off {
			measured++
		}
	}
	if measured < 400 || measured > 600 {
		t.Errorf("%d of 2000 streams are measured, want about a quarter", measured)
	}
	s := newSheet()
	e.out = s
	for _, f := range e.flows {
		if !f.off {
			p := wire.Packet{At: g.now, Received: g.now, Src: f.src, Dst: f.dst, Payload: rtpPacket(1, 1, 1)}
			e.packet(&p)
			e.vanish(f.d, "test")
			break
		}
	}
	for _, fr := range s.frames {
		for _, o := range fr.Observations {
			if o.Quality != nil && o.Quality.Sampling != 0.25 {
				t.Errorf("sampling %v", o.Quality.Sampling)
			}
		}
	}
}

// TestAFloodIsBounded: INVITEs from everywhere take no more than they may, and calls that are under way go on.
func TestAFloodIsBounded(t *testing.T) {
	g := newStage(Config{MaxDialogs: 2000})
	out := &nowhere{}
	good := g.talkTo(g.call(phoneA, phoneB, "good", "100", "200"))
	g.e.out = out
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	flood := func(n, from int) {
		for i := range n {
			d := g.call(fmt.Sprintf("10.%d.%d.%d:5060", 100+i%100, i>>8&255, i&255), phoneB, fmt.Sprint("f", from+i), fmt.Sprint(i), "200")
			d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf("10.5.0.1:4000", "sendrecv"))...)
		}
	}
	flood(10_000, 0)
	before := heap()
	flood(100_000, 10_000)
	after := heap()
	if g.e.n > 2000 || len(g.e.dialogs) > 2000 || g.e.streams > 2000 || len(g.e.index) > 6*2000 || len(g.e.unanswered.list) > 4000 {
		t.Errorf("%d dialogs, %d by Call-ID, %d streams, %d keys, %d unanswered", g.e.n, len(g.e.dialogs), g.e.streams, len(g.e.index), len(g.e.unanswered.list))
	}
	if after > before+4<<20 {
		t.Errorf("memory grew from %d to %d bytes", before, after)
	}
	g.e.out = g.sheet
	good.ask("BYE", 2)
	for _, r := range g.records() {
		if r.Connections[0].SIPCallID == "good" && r.HangupBy == "caller" {
			return
		}
	}
	t.Error("the call that was under way has no record of how it ended")
}

func TestHugeSDPIsRefused(t *testing.T) {
	g := newStage(Config{})
	d := g.call(phoneA, phoneB, "x", "100", "200")
	body := append(sdpOf("10.1.0.1:4000", "sendrecv"), slices.Repeat([]string{"m=audio 4000 RTP/AVP 0"}, 1500)...)
	d.ask("INVITE", 1, with([]string{typeSDP}, body)...)
	want(t, "dead letters, calls", []int{len(g.dead), g.t.Active()}, []int{1, 1})
	g.packet(wire.SIP, phoneA, phoneB, []byte(text(append([]string{"INVITE sip:x@y SIP/2.0", strings.Repeat("X: y\r\n", 20000) + "Z: z"}, "A: b")...)))
	want(t, "dead letters", len(g.dead), 2)
}

// torture is the messages of RFC 4475, as sipgo's tests have them.
func torture(t testing.TB) (files []string) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatalf("finding sipgo's test data: %v", err)
	}
	files, err = filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "sip/testdata/torture/*/*.dat"))
	if err != nil || len(files) < 49 {
		t.Fatalf("%d messages of RFC 4475 in %s: %v", len(files), dir, err)
	}
	return files
}

// What RFC 4475 calls invalid, or odd, and what becomes of it here. A gateway that watches is no element of the network:
// what only an element that has to act would refuse (an unknown scheme, an unacceptable extension, a Max-Forwards of
// zero) happened all the same, and is taken as it is.
var tortureTaken = map[string]string{
	"baddate":   "3.1.2.12 Date is not read",
	"badbranch": "3.1.3 a branch without its cookie is one of RFC 2543",
	"bext01":    "3.3.4, 3.3.5 what Require and Proxy-Require say is the endpoints' affair",
	"cparam01":  "3.3.9 Contact parameters are not read",
	"cparam02":  "3.3.10 likewise",
	"inv2543":   "3.4.1 RFC 2543 is taken, as the section asks",
	"invut":     "3.3.6 a body of an unknown type",
	"regaut01":  "3.3.7 credentials are not read",
	"regbadct":  "3.1.2.10 of a REGISTER only who is registered is read",
	"regescrt":  "3.3.11 likewise",
	"sdp01":     "3.3.8 an Accept that cannot be met",
	"unkscm":    "3.3.2 an unknown scheme",
	"unksm2":    "3.3.2 likewise, in To and From",
	"zeromf":    "3.3.1 Max-Forwards of zero",
	"bcast":     "3.3.12 a response that names no dialog of ours",
}

// TestTorture: valid messages of RFC 4475 are taken, invalid ones are dead letters, none does harm.
func TestTorture(t *testing.T) {
	for _, file := range torture(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".dat")
		t.Run(filepath.Base(filepath.Dir(file))+"/"+name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			g := newStage(Config{})
			g.packet(wire.SIP, phoneA, phoneB, b)
			if len(g.dead)+len(g.frames) == 0 {
				t.Fatal("neither taken nor a dead letter")
			}
			_, odd := tortureTaken[name]
			valid := strings.Contains(file, "/valid/") || odd
			if refused := len(g.dead) > 0; refused == valid {
				t.Errorf("refused: %v %s", refused, g.reasons())
			}
			if len(g.dead) != g.counts["invalid_sip"] {
				t.Errorf("%d dead letters, %d counted", len(g.dead), g.counts["invalid_sip"])
			}
			g.wait(7 * 3600 * call.Second)
			want(t, "calls that go on", g.t.Active(), 0)
		})
	}
}

func (s *sheet) reasons() (out []string) {
	for _, d := range s.dead {
		out = append(out, d.Reason)
	}
	return out
}

// TestDisorderDoesNoHarm plays a call's messages in every disorder, some twice, some never.
func TestDisorderDoesNoHarm(t *testing.T) {
	packets := calls(3)
	for i := range 300 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		g := newStage(Config{})
		list := slices.Clone(packets)
		for j := range list {
			if k := j + r.IntN(4) - 1; k >= 0 && k < len(list) {
				list[j], list[k] = list[k], list[j]
			}
			if r.IntN(8) == 0 {
				list[j] = list[r.IntN(len(list))]
			}
		}
		for _, p := range list {
			g.now = max(g.now, p.At)
			p.At, p.Received = g.now, g.now
			g.e.packet(&p)
		}
		g.wait(8 * 3600 * call.Second)
		want(t, "calls that go on", g.t.Active(), 0)
		ended := map[string]int{}
		for _, e := range g.types(call.CallEnded) {
			ended[e.CallID]++
		}
		for id, n := range ended {
			if n != 1 {
				t.Errorf("call %s ended %d times", id, n)
			}
		}
	}
}

func FuzzEngine(f *testing.F) {
	for _, p := range calls(1) {
		f.Add(p.Payload, uint8(0))
	}
	for _, file := range torture(f) {
		if b, err := os.ReadFile(file); err == nil {
			f.Add(b, uint8(1))
		}
	}
	f.Add(rtpPacket(1, 2, 3), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		g, _ := rtpStage(Config{CorrelationHeaders: []string{"X-Ref"}, Variables: []string{"Subject"}})
		half := len(b) / 2
		g.packet(wire.Kind(kind%5), there[0], there[1], b)
		g.packet(wire.Kind(kind%5), phoneA, phoneB, b)
		g.packet(wire.Kind(kind%5), phoneB, phoneA, bytes.Replace(b, []byte("INVITE"), []byte("BYE"), 1))
		g.packet(wire.Kind(kind%5), phoneB, phoneA, b[half:])
		g.wait(7 * 3600 * call.Second)
		if n := g.t.Active(); n != 0 {
			t.Errorf("%d calls go on for ever", n)
		}
	})
}

var _ core.Adapter = (*adapter)(nil)

// TestReportsAlone: where no RTP is seen, what the far ends say by RTCP is told all the same.
func TestReportsAlone(t *testing.T) {
	g, d := rtpStage(Config{})
	g.wait(2 * call.Second)
	p := wire.Packet{Kind: wire.RTCPJSON, Correlation: "x", At: g.now, Received: g.now,
		Src: netip.MustParseAddrPort("10.2.0.1:4001"), Dst: netip.MustParseAddrPort("10.1.0.1:4001"),
		Payload: []byte(`{"type":201,"ssrc":77,"report_count":1,"report_blocks":[{"source_ssrc":5,"fraction_lost":64,"packets_lost":12,"highest_seq_no":900,"ia_jitter":80,"lsr":0,"dlsr":0}]}`)}
	g.e.packet(&p)
	g.wait(20 * call.Second)
	d.ask("BYE", 2)
	r := g.one(t)
	q := g.types(call.MediaQuality)
	if len(q) != 2 || q[0].ConnectionID != r.Connections[0].ID {
		t.Fatalf("%d reports, want one of the caller's stream and its final one", len(q))
	}
	for _, e := range q {
		want(t, "packets, flags", []any{e.Quality.Packets, len(e.Quality.Flags)}, []any{0, 0})
		want(t, "lost, percent, jitter there", []any{e.Quality.Remote.Lost, e.Quality.Remote.LossPercent, e.Quality.Remote.JitterMS}, []any{12, 25.0, 10.0})
	}
	want(t, "packets of the record", r.Connections[0].Media.Packets, 0)
}

// TestTheLastDigitIsHeard: its end is lost, and the caller hangs up: it is a digit of the RTP all the same.
func TestTheLastDigitIsHeard(t *testing.T) {
	g, d := rtpStage(Config{})
	g.speak(10, 0, there, back)
	for i := range uint16(3) {
		p := make([]byte, 16)
		p[0], p[1], p[12], p[13] = 0x80, 101, 9, 10
		binary.BigEndian.PutUint16(p[2:], 10+i)
		binary.BigEndian.PutUint32(p[4:], 1600)
		binary.BigEndian.PutUint32(p[8:], 7)
		binary.BigEndian.PutUint16(p[14:], 160*(i+1))
		g.now += 20 * call.Millisecond
		g.packet(wire.Datagram, there[0], there[1], p)
	}
	d.ask("BYE", 2)
	want(t, "digits", g.one(t).Digits, "9")
	want(t, "native", g.types(call.DTMFReceived)[0].Native.Type, "RTP telephone-event")
}
