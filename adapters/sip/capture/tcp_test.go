package capture

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// link is a decoder that is fed TCP segments by hand.
type tcpLink struct {
	d   *decoder
	at  call.Time
	got []string
}

func newLink(o Options) *tcpLink {
	l := &tcpLink{at: start}
	l.d = newDecoder(o, func(p *wire.Packet) {
		arrow := "→"
		if p.Src != a4 {
			arrow = "←"
		}
		if !p.Stream || p.Kind != wire.SIP {
			arrow = "?"
		}
		l.got = append(l.got, arrow+string(p.Payload))
	})
	return l
}

func (l *tcpLink) ip(src, dst netip.AddrPort, tcp []byte) {
	f := as4(src, dst, protoTCP, tcp)
	l.d.packet(&frame{link: linkRaw, at: l.at, data: f, length: len(f)})
	l.at += call.Millisecond
}

// ab sends from a to b.
func (l *tcpLink) ab(seq, ack uint32, flags byte, payload string) {
	l.ip(a4, b4, tcpPacket(a4, b4, seq, ack, flags, payload))
}

// ba sends from b to a.
func (l *tcpLink) ba(seq, ack uint32, flags byte, payload string) {
	l.ip(b4, a4, tcpPacket(b4, a4, seq, ack, flags, payload))
}

// open is the handshake; both sides go on with sequence numbers 1000 and 5000.
func (l *tcpLink) open() {
	l.ab(999, 0, flagSYN, "")
	l.ba(4999, 1000, flagSYN|flagACK, "")
	l.ab(1000, 5000, flagACK, "")
}

func (l *tcpLink) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.got, want) {
		t.Errorf("got %q\nwant %q\n%+v", l.got, want, l.d.stats)
	}
}

var (
	msgA = invite("v=0\r\no=a\r\n")
	msgB = invite("v=0\r\no=b\r\n")
	lenA = uint32(len(msgA))
)

func TestConversation(t *testing.T) {
	l := newLink(Options{})
	l.open()
	l.ab(1000, 5000, flagACK, "\r\n\r\n"+msgA[:20])
	l.ba(5000, 1024, flagACK, "\r\n")
	l.ab(1024, 5002, flagACK|flagPSH, msgA[20:]+msgB)
	l.ba(5002, 1004+2*lenA, flagACK, ringing[:5])
	l.ba(5007, 1004+2*lenA, flagACK|flagPSH, ringing[5:])
	l.want(t, "→"+msgA, "→"+msgB, "←"+ringing)
	st := l.d.stats
	if st.Messages != 3 || st.Segments != 5 || st.Connections != 1 || st.KeepAlives != 3 || st.Skipped+st.Gaps+st.Retransmitted+st.OutOfOrder != 0 {
		t.Errorf("%+v", st)
	}
	end := 5002 + uint32(len(ringing))
	l.ab(1004+2*lenA, end, flagFIN|flagACK, "")
	if len(l.d.tcp.byKey) != 1 {
		t.Error("forgotten when half closed")
	}
	l.ba(end, 1005+2*lenA, flagFIN|flagACK, "")
	if len(l.d.tcp.byKey) != 0 || l.d.tcp.cost != 0 {
		t.Errorf("%d connections after their end, %d bytes", len(l.d.tcp.byKey), l.d.tcp.cost)
	}
}

// Segments in any order, doubled and overlapping, give what was sent.
func TestSegmentsInAnyOrder(t *testing.T) {
	stream := strings.Repeat(msgA+ringing+msgB+"\r\n\r\n", 20)
	want := slices.Repeat([]string{"→" + msgA, "→" + ringing, "→" + msgB}, 20)
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		first := uint32(0) - uint32(r.IntN(len(stream))) // the sequence numbers wrap on the way
		l := newLink(Options{})
		l.ab(first-1, 0, flagSYN, "")
		var segments [][2]int
		for at := 0; at < len(stream); {
			end := min(at+1+r.IntN(200), len(stream))
			segments = append(segments, [2]int{at, min(end+r.IntN(50), len(stream))}, [2]int{max(at-r.IntN(50), 0), end})
			at = end
		}
		for i := range segments { // each comes up to six places late
			j := min(i+r.IntN(7), len(segments)-1)
			segments[i], segments[j] = segments[j], segments[i]
		}
		for _, s := range segments {
			l.ab(first+uint32(s[0]), 1, flagACK, stream[s[0]:s[1]])
		}
		if !slices.Equal(l.got, want) || l.d.stats.Gaps != 0 || l.d.stats.Skipped != 0 {
			t.Fatalf("seed %d: %d messages of %d, %+v", seed, len(l.got), len(want), l.d.stats)
		}
		for _, c := range l.d.tcp.byKey {
			if c.half[0].held != nil || c.half[0].heldBytes != 0 {
				t.Fatalf("%d bytes held after the end", c.half[0].heldBytes)
			}
		}
	}
}

func TestLostSegments(t *testing.T) {
	const hole = 500
	next := 1000 + hole + lenA
	tests := []struct {
		name string
		then func(l *tcpLink)
		gaps uint64
	}{
		{"the receiver has them", func(l *tcpLink) { l.ba(5000, next, flagACK, "") }, 1},
		{"nobody sends them again", func(l *tcpLink) { l.at += holdTime + call.Second; l.ba(5000, 1000, flagACK, "") }, 1},
		{"nothing comes at all", func(l *tcpLink) { l.d.tick(l.at + holdTime); l.d.tick(l.at + holdTime + call.Second) }, 1},
		{"the capture ends", func(l *tcpLink) { l.d.flush() }, 1},
		{"the capture ends, with a time before", func(l *tcpLink) { l.d.at = 0; l.d.flush() }, 1},
		{"too many wait", func(l *tcpLink) {
			for i := range uint32(maxHeld) {
				l.ab(next+100_000+i, 5000, flagACK, "x")
			}
		}, 1},
		{"too much waits", func(l *tcpLink) {
			for i := range uint32(5) {
				l.ab(next+100_000+60_000*i, 5000, flagACK, strings.Repeat("x", 60_000))
			}
		}, 2},
		{"much more is lost", func(l *tcpLink) { l.ab(1000+maxAhead+1, 5000, flagACK, msgB) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLink(Options{})
			l.open()
			l.ab(1000+hole, 5000, flagACK, msgA)
			l.want(t)
			tt.then(l)
			if tt.name == "much more is lost" {
				l.want(t, "→"+msgB) // what waited in the old place is not believed
			} else {
				l.want(t, "→"+msgA)
			}
			if l.d.stats.Gaps != tt.gaps {
				t.Errorf("%+v", l.d.stats)
			}
		})
	}
}

func TestGapInsideAMessage(t *testing.T) {
	l := newLink(Options{})
	l.open()
	l.ab(1000, 5000, flagACK, msgA+msgA[:30])
	l.ab(1000+lenA+60, 5000, flagACK, msgA[60:]+msgB)
	l.ba(5000, 1000+3*lenA, flagACK, ringing)
	l.want(t, "→"+msgA, "→"+msgB, "←"+ringing)
	if st := l.d.stats; st.Gaps != 1 || st.Skipped != uint64(lenA)-30 {
		t.Errorf("%+v", st)
	}
}

func TestJoiningInTheMiddle(t *testing.T) {
	l := newLink(Options{})
	l.ab(7000, 1, flagACK, msgA[50:])
	l.ab(7100, 1, flagACK, "SIP/2.0 200 OK\r\n\r\n") // the body of a NOTIFY
	l.ab(8000, 1, flagACK, msgA[:30])
	l.ab(8030, 1, flagACK, msgA[30:]+msgB)
	l.ba(1, 8000+2*lenA, flagACK, "ot this\r\n\r\n")
	l.ba(12, 8000+2*lenA, flagACK, ringing)
	l.want(t, "→"+msgA, "→"+msgB, "←"+ringing)
	if st := l.d.stats; st.NotSIP != 2 {
		t.Errorf("%+v", st)
	}
}

func TestPortsUsedAnew(t *testing.T) {
	l := newLink(Options{})
	l.open()
	l.ab(1000, 5000, flagACK, msgA+msgA[:40])
	l.ab(90_000_000, 0, flagSYN, "") // no end of the first was seen
	l.ba(80_000_000, 90_000_001, flagSYN|flagACK, "")
	l.ab(90_000_001, 80_000_001, flagACK, msgB)
	l.ba(80_000_001, 90_000_001, flagACK, ringing)
	l.want(t, "→"+msgA, "→"+msgB, "←"+ringing)
	l.ab(70_000_000, 60_000_000, flagACK, msgA) // nor the beginning of this one
	l.want(t, "→"+msgA, "→"+msgB, "←"+ringing, "→"+msgA)
}

func TestReset(t *testing.T) {
	l := newLink(Options{})
	l.open()
	l.ab(1000, 5000, flagACK, msgA)
	l.ba(4_000_000_000, 0, flagRST, "") // from somebody who does not know the sequence number
	if len(l.d.tcp.byKey) != 1 {
		t.Fatal("a reset outside of the window was believed")
	}
	l.ab(1000+lenA, 5000, flagACK, msgB[:10])
	l.ab(1010+lenA, 5000, flagRST, "")
	if len(l.d.tcp.byKey) != 0 || l.d.stats.Skipped != 10 {
		t.Errorf("%d connections, %+v", len(l.d.tcp.byKey), l.d.stats)
	}
}

func TestOtherProtocolsTakeNoRoom(t *testing.T) {
	l := newLink(Options{})
	for _, hello := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "220 mail ready\r\n", "\r\nINVITE me to tea\r\n", "\r\nIN 42"} {
		l.open()
		l.ab(1000, 5000, flagACK, hello)
		l.ab(1000+uint32(len(hello)), 5000, flagACK, "\r\n"+msgA)
		if n := len(l.d.tcp.byKey); n != 0 {
			t.Errorf("%d connections for %q", n, hello)
		}
	}
	l.want(t)
	if l.d.tcp.cost != 0 {
		t.Errorf("%d bytes", l.d.tcp.cost)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	const connections = 50
	l := newLink(Options{MaxConnections: connections})
	for i := range 1000 {
		src := netip.AddrPortFrom(a4.Addr(), uint16(10_000+i))
		l.ip(src, b4, tcpPacket(src, b4, 1, 0, flagSYN, ""))
	}
	if n := len(l.d.tcp.byKey); n != connections || l.d.stats.Evicted != 1000-connections || l.d.tcp.order.Len() != n {
		t.Errorf("%d connections, %+v", n, l.d.stats)
	}
	l.at += openIdle + call.Second
	l.open()
	if n := len(l.d.tcp.byKey); n != 1 {
		t.Errorf("%d connections after %v s of silence", n, openIdle/call.Second)
	}
	l.ab(1000, 5000, flagACK, msgA)
	l.at += streamIdle - call.Second
	l.ab(1000+lenA, 5000, flagACK, "\r\n\r\n")
	l.at += streamIdle - call.Second
	l.ab(1004+lenA, 5000, flagACK, msgB)
	l.want(t, "→"+msgA, "→"+msgB)
	l.at += streamIdle + 2*call.Second
	l.ip(b4, b4, tcpPacket(b4, b4, 1, 1, flagACK, ""))
	if n := len(l.d.tcp.byKey); n != 0 || l.d.tcp.cost != 0 {
		t.Errorf("%d connections after %v s of silence, %d bytes", n, streamIdle/call.Second, l.d.tcp.cost)
	}
}

func TestStreamBytesAreBounded(t *testing.T) {
	const limit = 1 << 20
	l := newLink(Options{MaxStreamBytes: limit})
	start := fmt.Sprintf("INVITE sip:b@x SIP/2.0\r\nContent-Length: 60000\r\n\r\n%s", strings.Repeat("x", 50_000))
	for i := range 100 {
		src := netip.AddrPortFrom(a4.Addr(), uint16(10_000+i))
		l.ip(src, b4, tcpPacket(src, b4, 1, 0, flagACK, start))
		l.ip(src, b4, tcpPacket(src, b4, 200_000, 0, flagACK, start))
		if l.d.tcp.cost > limit {
			t.Fatalf("%d bytes", l.d.tcp.cost)
		}
	}
	if n := len(l.d.tcp.byKey); n < 5 || l.d.stats.Evicted != uint64(100-n) {
		t.Errorf("%d connections, %+v", n, l.d.stats)
	}
}

func FuzzSegments(f *testing.F) {
	f.Add(uint64(1), msgA+ringing+"\r\n\r\n"+msgB, uint16(1000))
	f.Add(uint64(7), strings.Repeat(msgA, 9), uint16(3))
	f.Fuzz(func(t *testing.T, seed uint64, stream string, lose uint16) {
		if len(stream) > 20_000 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLink(Options{MaxMessage: 2048})
		l.open()
		lost := false
		for at, i := 0, uint16(0); at < len(stream); i++ {
			end := min(at+1+r.IntN(700), len(stream))
			if from := at - r.IntN(at+1)%300; i != lose {
				l.ab(1000+uint32(from), 5000, flagACK, stream[from:end])
			} else {
				lost = true
			}
			at = end
		}
		l.d.flush()
		if l.d.tcp.cost != 0 || len(l.d.tcp.byKey) != 0 {
			t.Fatalf("%d bytes left", l.d.tcp.cost)
		}
		checkMessages(t, stream, l.got, lost)
	})
}

// checkMessages holds messages against the stream that they were taken from: they are in it, in their order, and, when
// nothing was lost and nothing but SIP is in it, all of them. A stream that begins with a method of nobody's is not
// followed when its first segment ends inside of the line.
func checkMessages(t *testing.T, stream string, got []string, lost bool) {
	rest := stream
	for _, m := range got {
		_, after, ok := strings.Cut(rest, strings.TrimPrefix(m, "→"))
		if !ok {
			t.Fatalf("message %q is not in the stream, or not there", m)
		}
		rest = after
	}
	fr, want := framer.New(2048), 0
	fr.Write([]byte(stream), func([]byte) { want++ })
	line, _, _ := strings.Cut(strings.TrimLeft(stream, "\r\n"), "\n")
	if believed := framer.Start([]byte(line)) != framer.No; !lost && believed && fr.Stats().Skipped == 0 && len(got) != want {
		t.Fatalf("%d messages of %d", len(got), want)
	}
}
