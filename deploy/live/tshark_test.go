//go:build live

package live_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/capture"
	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// tsharkStream is a line of Wireshark's RTP stream analysis.
type tsharkStream struct {
	key           string // source and destination port, SSRC
	packets, lost int64
	mean, top     float64 // jitter, ms
}

// tsharkLine takes the columns of tshark 4: times, addresses, SSRC, payload, packets, lost, and the deltas and jitters,
// each as minimum, mean and maximum.
var tsharkLine = regexp.MustCompile(`^ *[\d.]+ +[\d.]+ +\S+ +(\d+) +\S+ +(\d+) +0x([0-9A-Fa-f]+) +.*? +(\d+) +(-?\d+) \(-?[\d.]+%\) +(?:[\d.]+ +){4}([\d.]+) +([\d.]+)`)

// tshark runs the analysis of a capture.
func tshark(t *testing.T, file string) []tsharkStream {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command("tshark", "-n", "-r", file, "-q", "-z", "rtp,streams")
	cmd.Env, cmd.Stderr = append(os.Environ(), "LC_ALL=C"), &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, said.String())
	}
	var streams []tsharkStream
	for _, line := range strings.Split(string(out), "\n") {
		m := tsharkLine.FindStringSubmatch(line)
		if m == nil {
			if strings.Contains(line, "0x") {
				t.Fatalf("not understood: %q", line)
			}
			continue
		}
		ssrc, _ := strconv.ParseUint(m[3], 16, 32)
		s := tsharkStream{key: fmt.Sprintf("%s>%s %08x", m[1], m[2], ssrc)}
		s.packets, _ = strconv.ParseInt(m[4], 10, 64)
		s.lost, _ = strconv.ParseInt(m[5], 10, 64)
		s.mean, _ = strconv.ParseFloat(m[6], 64)
		s.top, _ = strconv.ParseFloat(m[7], 64)
		streams = append(streams, s)
	}
	if len(streams) == 0 {
		t.Fatalf("tshark found no stream in %s:\n%s", file, out)
	}
	return streams
}

// measureRTP reads a capture as ctigate does, and measures each SSRC by itself, as Wireshark does, and each direction as a
// whole (its key has no SSRC).
func measureRTP(t *testing.T, file string, formats []media.Format) map[string]*call.Quality {
	t.Helper()
	streams := map[string]*media.Stream{}
	take := func(key string, p *wire.Packet) {
		s := streams[key]
		if s == nil {
			s = media.New(nil, p.At)
			s.Negotiate(formats, false)
			streams[key] = s
		}
		if _, err := s.RTP(p.At, p.Payload); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	_, err := capture.ReadFile(context.Background(), file, capture.Options{}, func(p *wire.Packet) {
		ssrc, ok := media.SSRC(p.Payload)
		if p.Kind != wire.Datagram || !ok {
			return
		}
		direction := fmt.Sprintf("%d>%d", p.Src.Port(), p.Dst.Port())
		take(fmt.Sprintf("%s %08x", direction, ssrc), p)
		take(direction, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*call.Quality{}
	for key, s := range streams {
		out[key] = s.Report(0, true)
	}
	return out
}

// near says that two jitters agree to 2 %, or to what tshark prints, a microsecond.
func near(got, want float64) bool { return math.Abs(got-want) <= max(0.02*want, 0.0011) }

// sameLoss compares what must agree exactly. Wireshark counts a duplicate as received.
func sameLoss(t *testing.T, want tsharkStream, q *call.Quality) {
	t.Helper()
	if q == nil {
		t.Errorf("%s: not seen", want.key)
		return
	}
	if int64(q.Packets+q.Duplicates) != want.packets || q.Lost-int64(q.Duplicates) != want.lost {
		t.Errorf("%s: %d packets, %d duplicates, %d lost; tshark has %d packets and %d lost", want.key, q.Packets, q.Duplicates,
			q.Lost, want.packets, want.lost)
	}
}

// sameJitter compares mean and maximum. After reordering it asks tshark 4.0 alone: later ones compare a packet with the
// latest in time order, not with the one before, as RFC 3550 does.
func sameJitter(t *testing.T, want tsharkStream, q *call.Quality) {
	t.Helper()
	if q != nil && q.Reordered > 0 && !tshark40(t) {
		t.Logf("%s: jitter %.3f ms, at most %.3f; this tshark has %.3f and %.3f after reordering", want.key, q.JitterMS,
			q.MaxJitterMS, want.mean, want.top)
		return
	}
	if q != nil && (!near(q.JitterMS, want.mean) || !near(q.MaxJitterMS, want.top)) {
		t.Errorf("%s: jitter %.3f ms, at most %.3f; tshark has %.3f and %.3f", want.key, q.JitterMS, q.MaxJitterMS, want.mean, want.top)
	}
}

// tshark40 says that tshark is of Debian 12, or older.
func tshark40(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("tshark", "--version").Output()
	var major, minor int
	if err == nil {
		_, err = fmt.Sscanf(string(out), "TShark (Wireshark) %d.%d", &major, &minor)
	}
	if err != nil {
		t.Fatalf("asking tshark's version: %v: %.80s", err, out)
	}
	return major*100+minor <= 400
}

func needTshark(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("./need.sh", "tshark").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Each stream of the recordings with RTP has the loss that tshark counts, and its jitter.
func TestRTPAgreesWithTsharkOnRecordings(t *testing.T) {
	needTshark(t)
	for _, sw := range []string{"asterisk", "freeswitch"} {
		for _, scenario := range []string{"lossy_media", "codec_change", "inbound_answered_caller_hangup"} {
			t.Run(sw+"/"+scenario, func(t *testing.T) {
				file := filepath.Join("../../adapters/adaptertest/traces", sw, scenario, "sip-rtp.pcap.gz")
				ours := measureRTP(t, file, nil)
				for _, s := range tshark(t, file) {
					sameLoss(t, s, ours[s.key])
					sameJitter(t, s, ours[s.key])
				}
			})
		}
	}
}

// The SDP that both sides of the made captures have, and what it says.
const madeSDP = "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0 8 9 13 18 97 101 111\r\n" +
	"a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:18 G729/8000\r\n" +
	"a=rtpmap:97 AMR-WB/16000\r\na=rtpmap:101 telephone-event/8000\r\na=rtpmap:111 opus/48000/2\r\n"

var madeFormats = []media.Format{
	{PayloadType: 0, Codec: "PCMU", ClockRate: 8000}, {PayloadType: 8, Codec: "PCMA", ClockRate: 8000},
	{PayloadType: 9, Codec: "G722", ClockRate: 8000}, {PayloadType: 13, Codec: "CN", ClockRate: 8000},
	{PayloadType: 18, Codec: "G729", ClockRate: 8000}, {PayloadType: 97, Codec: "AMR-WB", ClockRate: 16000},
	{PayloadType: 101, Codec: "telephone-event", ClockRate: 8000}, {PayloadType: 111, Codec: "opus", ClockRate: 48000},
}

var (
	madeCaller = netip.MustParseAddrPort("10.1.0.1:40000")
	madeCallee = netip.MustParseAddrPort("10.1.0.2:40002")
)

// made is a capture being made: one call, whose caller sends RTP.
type made struct {
	rng    *rand.Rand
	frames []frame
	at     float64 // s
	seq    uint16
	ts     uint32
	ssrc   uint32
	pt     uint8
	ptime  float64 // s
	rate   uint32
	marker bool
	body   []byte
	late   func() float64 // network delay of the next packet, s
}

// frame is a packet and when it arrives.
type frame struct {
	at       float64
	src, dst netip.AddrPort
	payload  []byte
}

func newMade(seed uint64) *made {
	m := &made{rng: rand.New(rand.NewPCG(seed, 7)), at: 1, seq: 100, ts: 12345, ssrc: 0x11223344, ptime: 0.02, rate: 8000,
		body: bytes.Repeat([]byte{0xd5}, 160), late: func() float64 { return 0 }}
	m.invite()
	return m
}

// invite adds the signalling by which tshark knows the RTP.
func (m *made) invite() {
	head := "Via: SIP/2.0/UDP 10.1.0.1:5060;branch=z9hG4bK1\r\nFrom: <sip:a@10.1.0.1>;tag=1\r\nTo: <sip:b@10.1.0.2>%s\r\n" +
		"Call-ID: made@10.1.0.1\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.1.0.1>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s"
	offer := fmt.Sprintf(madeSDP, madeCaller.Addr(), madeCaller.Port())
	answer := fmt.Sprintf(madeSDP, madeCallee.Addr(), madeCallee.Port())
	a, b := netip.AddrPortFrom(madeCaller.Addr(), 5060), netip.AddrPortFrom(madeCallee.Addr(), 5060)
	m.frames = append(m.frames,
		frame{0.1, a, b, []byte("INVITE sip:b@10.1.0.2 SIP/2.0\r\nMax-Forwards: 70\r\n" + fmt.Sprintf(head, "", len(offer), offer))},
		frame{0.2, b, a, []byte("SIP/2.0 200 OK\r\n" + fmt.Sprintf(head, ";tag=2", len(answer), answer))})
}

// packet adds the packet that is due, after delay.
func (m *made) packet(delay float64) {
	p := make([]byte, 12, 12+len(m.body))
	p[0], p[1] = 0x80, m.pt
	if m.marker {
		p[1] |= 0x80
	}
	binary.BigEndian.PutUint16(p[2:], m.seq)
	binary.BigEndian.PutUint32(p[4:], m.ts)
	binary.BigEndian.PutUint32(p[8:], m.ssrc)
	m.frames = append(m.frames, frame{m.at + delay, madeCaller, madeCallee, append(p, m.body...)})
	m.marker = false
}

// next goes on to the next packet.
func (m *made) next() {
	m.seq++
	m.ts += uint32(m.ptime * float64(m.rate))
	m.at += m.ptime
}

func (m *made) send(n int) {
	for range n {
		m.packet(m.late())
		m.next()
	}
}

// drop loses n packets.
func (m *made) drop(n int) {
	for range n {
		m.next()
	}
}

// jitter delays packets by up to the given time, without reordering.
func (m *made) jitter(most float64) {
	m.late = func() float64 { return m.rng.Float64() * most }
}

// codec changes payload type, clock rate and packet length.
func (m *made) codec(pt uint8, rate uint32, ptime float64) {
	m.pt, m.rate, m.ptime = pt, rate, ptime
}

// talk sends a talkspurt, then silence with or without comfort noise.
func (m *made) talk(packets int, silence float64, noise bool) {
	m.marker = true
	m.send(packets)
	if noise {
		pt := m.pt
		m.pt = 13
		m.packet(m.late())
		m.pt = pt
		m.seq++
	}
	m.at += silence
	m.ts += uint32(silence * float64(m.rate))
}

// press sends a digit by RFC 4733, in place of audio.
func (m *made) press(digit byte, packets int) {
	pt, body, start := m.pt, m.body, m.ts
	m.pt, m.marker = 101, true
	for i := range packets + 3 {
		held := uint16(min(i+1, packets)) * 160
		m.body = []byte{digit, 10, byte(held >> 8), byte(held)}
		if i >= packets {
			m.body[1] |= 0x80
		}
		ts := m.ts
		m.ts = start
		m.packet(m.late())
		m.ts = ts
		m.next()
	}
	m.pt, m.body = pt, body
}

// write makes a pcap of what was sent, in order of arrival.
func (m *made) write(t *testing.T, name string, keep func(payload []byte) bool) string {
	t.Helper()
	var b bytes.Buffer
	le := binary.LittleEndian
	b.Write(le.AppendUint32(le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, 0xa1b2c3d4), 2), 4), 0))
	b.Write(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 0), 262144), 1))
	sorted := append([]frame(nil), m.frames...)
	for i := range sorted { // insertion: arrival is nearly in order, and equal times keep theirs
		for j := i; j > 0 && sorted[j].at < sorted[j-1].at; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	for _, f := range sorted {
		if keep != nil && !keep(f.payload) {
			continue
		}
		data := ethernet(f)
		us := int64(math.Round(f.at*1e6)) + 1_700_000_000_000_000
		b.Write(le.AppendUint32(le.AppendUint32(nil, uint32(us/1e6)), uint32(us%1e6)))
		b.Write(le.AppendUint32(le.AppendUint32(nil, uint32(len(data))), uint32(len(data))))
		b.Write(data)
	}
	file := filepath.Join(t.TempDir(), name+".pcap")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ethernet puts a payload into UDP, IPv4 and Ethernet.
func ethernet(f frame) []byte {
	be := binary.BigEndian
	b := append(make([]byte, 12), 0x08, 0x00)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	be.PutUint16(ip[2:], uint16(28+len(f.payload)))
	copy(ip[12:], f.src.Addr().AsSlice())
	copy(ip[16:], f.dst.Addr().AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(be.Uint16(ip[i:]))
	}
	be.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	b = append(b, ip...)
	b = be.AppendUint16(be.AppendUint16(b, f.src.Port()), f.dst.Port())
	b = be.AppendUint16(be.AppendUint16(b, uint16(8+len(f.payload))), 0)
	return append(b, f.payload...)
}

// madeScenarios are captures on which loss and jitter of every SSRC must agree.
var madeScenarios = []struct {
	name string
	run  func(m *made)
}{
	{"clean", func(m *made) { m.send(500) }},
	{"small jitter", func(m *made) { m.jitter(0.0005); m.send(1500) }},
	{"jitter", func(m *made) { m.jitter(0.015); m.send(1500) }},
	{"random loss", func(m *made) {
		m.jitter(0.004)
		for range 2000 {
			if m.send(1); m.rng.Float64() < 0.05 {
				m.drop(1)
			}
		}
		m.send(1)
	}},
	{"bursts of loss", func(m *made) {
		m.jitter(0.008)
		for range 20 {
			m.send(80 + m.rng.IntN(40))
			m.drop(1 + m.rng.IntN(30))
		}
		m.send(5)
	}},
	{"a minute lost", func(m *made) { m.jitter(0.002); m.send(500); m.drop(2900); m.send(500) }},
	{"reordering", func(m *made) { // delays of more than a packet's length change the order
		m.late = func() float64 {
			if m.rng.Float64() < 0.1 {
				return 0.025 + m.rng.Float64()*0.05
			}
			return m.rng.Float64() * 0.003
		}
		m.send(2000)
		m.late = func() float64 { return 0 }
		m.drop(5)
		m.send(20)
	}},
	{"duplicates", func(m *made) {
		m.jitter(0.003)
		for range 1500 {
			late := m.late()
			m.packet(late)
			if m.rng.Float64() < 0.05 {
				m.packet(late + 0.0004)
			}
			m.next()
		}
	}},
	{"duplicates, loss and reordering", func(m *made) {
		m.late = func() float64 { return m.rng.ExpFloat64() * 0.008 }
		for range 3000 {
			if m.rng.Float64() > 0.03 {
				m.packet(m.late())
			}
			if m.rng.Float64() < 0.02 {
				m.packet(m.late() + 0.001)
			}
			m.next()
		}
		m.late = func() float64 { return 0 }
		m.drop(20)
		m.send(20)
	}},
	{"sequence wraps", func(m *made) { m.jitter(0.004); m.seq = 65000; m.send(1000); m.drop(30); m.send(1000) }},
	{"sequence wraps three times", func(m *made) { m.seq = 60000; m.send(200_000) }},
	{"timestamp wraps", func(m *made) { m.jitter(0.004); m.ts = math.MaxUint32 - 300*160; m.send(1000) }},
	{"another SSRC", func(m *made) {
		m.jitter(0.006)
		for i := range 4 {
			m.ssrc, m.seq, m.ts = m.ssrc+uint32(i)*0x01010101, m.seq*7+31, m.ts*13
			m.send(300)
			m.drop(3)
			m.send(100)
		}
	}},
	{"G.722", func(m *made) { m.codec(9, 8000, 0.02); m.jitter(0.008); m.send(1000) }},
	{"G.729, 40 ms", func(m *made) {
		m.codec(18, 8000, 0.04)
		m.body = make([]byte, 40)
		m.jitter(0.012)
		m.send(300)
		m.drop(7)
		m.send(300)
	}},
	{"AMR-WB", func(m *made) { m.codec(97, 16000, 0.02); m.body = make([]byte, 33); m.jitter(0.008); m.send(1000) }},
	{"Opus", func(m *made) {
		m.codec(111, 48000, 0.02)
		m.body = make([]byte, 80)
		m.jitter(0.008)
		m.send(600)
		m.drop(2)
		m.send(600)
	}},
	{"codec change", func(m *made) {
		m.jitter(0.005)
		for range 5 {
			m.codec(0, 8000, 0.02)
			m.send(200)
			m.codec(8, 8000, 0.02)
			m.send(200)
		}
	}},
	{"packet length change", func(m *made) { m.jitter(0.005); m.send(400); m.codec(0, 8000, 0.03); m.send(400) }},
	{"talkspurts", func(m *made) {
		m.jitter(0.006)
		for range 40 {
			m.talk(20+m.rng.IntN(60), 0.1+m.rng.Float64(), false)
		}
	}},
	{"comfort noise", func(m *made) {
		m.jitter(0.006)
		for range 40 {
			m.talk(20+m.rng.IntN(60), 0.1+m.rng.Float64(), true)
		}
	}},
	{"clock drift", func(m *made) {
		for range 3000 {
			m.send(1)
			m.at += 0.000002
		}
	}},
}

func TestRTPAgreesWithTsharkOnMadeCaptures(t *testing.T) {
	needTshark(t)
	for i, c := range madeScenarios {
		t.Run(c.name, func(t *testing.T) {
			m := newMade(uint64(i))
			c.run(m)
			file := m.write(t, "made", nil)
			ours := measureRTP(t, file, madeFormats)
			var packets, lost int64
			for _, s := range tshark(t, file) {
				sameLoss(t, s, ours[s.key])
				sameJitter(t, s, ours[s.key])
				packets += s.packets
				lost += s.lost
			}
			// The direction as a whole is the sum of its SSRCs.
			sameLoss(t, tsharkStream{key: "40000>40002", packets: packets, lost: lost}, ours["40000>40002"])
		})
	}
}

// Where a digit's timestamp stands still, tshark takes its length for jitter. The loss agrees; the jitter is that of
// the audio: what tshark says of the same capture without the digits.
func TestRTPWithDTMFAgainstTshark(t *testing.T) {
	needTshark(t)
	m := newMade(99)
	m.jitter(0.004)
	for digit := range byte(12) {
		m.send(60)
		m.press(digit, 8)
	}
	m.send(60)
	all := m.write(t, "digits", nil)
	audio := m.write(t, "audio", func(p []byte) bool { return len(p) < 2 || p[1]&0x7f != 101 })
	ours := measureRTP(t, all, madeFormats)
	with, without := tshark(t, all)[0], tshark(t, audio)[0]
	sameLoss(t, with, ours[with.key])
	sameJitter(t, without, ours[without.key])
	if with.mean < 1.2*without.mean {
		t.Errorf("tshark has a jitter of %.3f ms with digits and %.3f without: it treats them otherwise now, and so should ctigate",
			with.mean, without.mean)
	}
}

// A restart of the sequence numbers is no loss (RFC 3550, A.1); tshark counts what the numbers jumped by.
func TestRTPRestartAgainstTshark(t *testing.T) {
	needTshark(t)
	m := newMade(98)
	m.send(300)
	m.seq, m.ts = m.seq+20000, m.ts+1<<30
	m.send(300)
	file := m.write(t, "restart", nil)
	s := tshark(t, file)[0]
	q := measureRTP(t, file, madeFormats)[s.key]
	if q.Packets != 600 || q.Lost != 0 || q.Restarts != 1 || q.MaxJitterMS > 0.01 {
		t.Errorf("%d packets, %d lost, %d restarts, jitter at most %.3f ms", q.Packets, q.Lost, q.Restarts, q.MaxJitterMS)
	}
	if s.packets != 600 || s.lost != 20000 {
		t.Errorf("tshark has %d packets and %d lost: it knows restarts now, and the text of package media is out of date", s.packets, s.lost)
	}
}
