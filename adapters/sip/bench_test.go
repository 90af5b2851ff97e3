package sip

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// nowhere counts what it is given.
type nowhere struct{ frames, observations int }

func (n *nowhere) Frame(f core.Frame) error {
	n.frames++
	n.observations += len(f.Observations)
	return nil
}
func (n *nowhere) DeadLetter(core.DeadLetter) error { panic("a dead letter") }
func (n *nowhere) Count(string, int)                {}

// calls writes the packets of n calls through a switch: 20 messages each, of both legs.
func calls(n int) (out []wire.Packet) {
	g := &stage{sheet: newSheet(), now: 1_800_000_000 * call.Second}
	g.e = nil
	keep := func(src, dst string, lines ...string) {
		g.now += call.Millisecond
		out = append(out, wire.Packet{At: g.now, Received: g.now, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Payload: []byte(text(lines...))})
	}
	for i := range n {
		usual := []string{"Contact: <sip:x@10.0.0.9:5060>", "Allow: INVITE, ACK, CANCEL, BYE, REFER, NOTIFY, INFO, UPDATE", "Supported: replaces, timer", "User-Agent: Some Phone 1.2.3"}
		leg := func(a, b, id, from, to string, rtpA, rtpB int) {
			via := fmt.Sprintf("Via: SIP/2.0/UDP %s;rport;branch=z9hG4bK%s", a, id)
			head := func(tag bool, method string) []string {
				t := fmt.Sprintf("To: <sip:%s@10.0.0.1>", to)
				if tag {
					t += ";tag=b" + id
				}
				return append([]string{via, "Max-Forwards: 70", fmt.Sprintf(`From: "Somebody" <sip:%s@10.0.0.2>;tag=a%s`, from, id), t, "Call-ID: " + id, "CSeq: 1 " + method}, usual...)
			}
			sdp := func(port int) []string {
				return with([]string{typeSDP}, append(sdpOf(fmt.Sprintf("10.0.0.7:%d", port), "sendrecv", "0", "8", "101"), "a=ptime:20", "a=fmtp:101 0-16"))
			}
			keep(a, b, append(with([]string{fmt.Sprintf("INVITE sip:%s@%s SIP/2.0", to, b)}, head(false, "INVITE")), sdp(rtpA)...)...)
			keep(b, a, with([]string{"SIP/2.0 100 Trying"}, head(false, "INVITE"))...)
			keep(b, a, with([]string{"SIP/2.0 180 Ringing"}, head(true, "INVITE"))...)
			keep(b, a, append(with([]string{"SIP/2.0 200 OK"}, head(true, "INVITE")), sdp(rtpB)...)...)
			keep(a, b, with([]string{fmt.Sprintf("ACK sip:%s@%s SIP/2.0", to, b)}, head(true, "ACK"))...)
			keep(a, b, with([]string{fmt.Sprintf("BYE sip:%s@%s SIP/2.0", to, b)}, head(true, "BYE"))...)
			keep(b, a, with([]string{"SIP/2.0 200 OK"}, head(true, "BYE"))...)
		}
		number := fmt.Sprintf("+1415555%04d", i)
		leg("10.1.0.1:5060", "10.0.0.1:5060", fmt.Sprintf("in%d", i), number, "1000", 20000+i%10000*2, 40000)
		leg("10.0.0.1:5060", "10.2.0.1:5060", fmt.Sprintf("out%d", i), number, "agent1", 20000+i%10000*2, 40002)
	}
	return out
}

// BenchmarkMessages: SIP messages, parsed and made into observations.
func BenchmarkMessages(b *testing.B) {
	packets := calls(2000)
	b.ReportAllocs()
	out := &nowhere{}
	e := newEngine((&Config{}).withDefaults(), out)
	shift := call.Time(0)
	for i := 0; b.Loop(); i++ {
		p := packets[i%len(packets)]
		if i%len(packets) == 0 && i > 0 {
			shift += 60 * call.Second
			e = newEngine((&Config{}).withDefaults(), out)
		}
		p.At += shift
		p.Received += shift
		e.packet(&p)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(out.observations)/float64(out.frames), "observations/message")
}

// talking is an engine with n calls that talk, two streams each.
func talking(n int, out output) (*engine, *stage) {
	g := newStage(Config{MaxDialogs: 100_000, MaxStreams: 100_000})
	g.e.out = out
	for i := range n {
		a, b := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		d := &dlg{g: g, a: a.String() + ":5060", b: b.String() + ":5060", id: fmt.Sprintf("c%d", i), from: "100", to: "200", fromTag: "f"}
		d.ask("INVITE", 1, with([]string{typeSDP}, sdpOf(a.String()+":4000", "sendrecv", "0", "101"))...)
		d.toTag = "t"
		d.answer(200, "INVITE", 1, with([]string{typeSDP}, sdpOf(b.String()+":4000", "sendrecv", "0", "101"))...)
		d.ask("ACK", 1)
	}
	return g.e, g
}

// rtpPacket is 20 ms of G.711.
func rtpPacket(seq uint16, ts, ssrc uint32) []byte {
	p := make([]byte, 172)
	p[0] = 0x80
	binary.BigEndian.PutUint16(p[2:], seq)
	binary.BigEndian.PutUint32(p[4:], ts)
	binary.BigEndian.PutUint32(p[8:], ssrc)
	for i := range 160 {
		p[12+i] = byte(i*7 + int(seq))
	}
	return p
}

// BenchmarkRTP: RTP packets of a thousand streams into statistics, from the datagram on.
func BenchmarkRTP(b *testing.B) {
	const pairs = 500
	e, g := talking(pairs, &nowhere{})
	packets := make([]wire.Packet, 0, 2*pairs)
	for i := range pairs {
		a, c := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		there := wire.Packet{Src: netip.AddrPortFrom(a, 4000), Dst: netip.AddrPortFrom(c, 4000), Payload: rtpPacket(0, 0, uint32(i))}
		back := wire.Packet{Src: there.Dst, Dst: there.Src, Payload: rtpPacket(0, 0, uint32(i)+1000)}
		packets = append(packets, there, back)
	}
	now := g.now
	seq := uint16(0)
	for i := 0; b.Loop(); i++ {
		p := &packets[i%len(packets)]
		if i%len(packets) == 0 {
			now += 20 * call.Millisecond
			seq++
		}
		binary.BigEndian.PutUint16(p.Payload[2:], seq)
		binary.BigEndian.PutUint32(p.Payload[4:], uint32(seq)*160)
		p.At, p.Received = now, now
		e.packet(p)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

// TestStreamMemory holds the bound of memory for each stream, with all that keeps it: its dialog's share apart.
func TestStreamMemory(t *testing.T) {
	const pairs = 10_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	out := &nowhere{}
	e, g := talking(pairs, out)
	feed := func() {
		for i := range pairs {
			a, c := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
			for seq := range uint16(3) {
				g.now++
				p := wire.Packet{At: g.now, Received: g.now, Src: netip.AddrPortFrom(a, 4000), Dst: netip.AddrPortFrom(c, 4000), Payload: rtpPacket(seq, uint32(seq)*160, uint32(i))}
				e.packet(&p)
				p.Src, p.Dst = p.Dst, p.Src
				e.packet(&p)
			}
		}
	}
	feed()
	with := heap()
	for d := e.first; d != nil; d = d.new {
		d.flows = [2]*flow{}
	}
	clear(e.flows)
	e.flows = map[netip.AddrPort]*flow{}
	without := heap()
	per := float64(with-without) / (2 * pairs)
	t.Logf("%.0f bytes a stream", per)
	if per > 2048 {
		t.Errorf("%.0f bytes a stream, at most 2048 are allowed", per)
	}
	runtime.KeepAlive(e)
}
