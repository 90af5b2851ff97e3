package trunk

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// heard is what a reader of the packets finds of one stream, written apart from truth.go.
type heard struct {
	seen       map[string]bool // SSRC and extended sequence number
	top        map[uint32]int64
	first      map[uint32]int64
	dups, back uint64
	types      map[uint8]uint64
	payload    []byte
	gaps       []time.Duration
	last       time.Time
	jitter     float64
	transit    float64
	digits     string
	lastDigit  uint32
}

func hear(t *testing.T, all []Packet) map[[2]netip.AddrPort]*heard {
	t.Helper()
	streams := map[[2]netip.AddrPort]*heard{}
	for _, p := range all {
		if p.Kind != RTP {
			continue
		}
		var r rtp.Packet
		if err := r.Unmarshal(p.Payload); err != nil {
			t.Fatal(err)
		}
		k := [2]netip.AddrPort{p.Src, p.Dst}
		h := streams[k]
		if h == nil {
			h = &heard{seen: map[string]bool{}, top: map[uint32]int64{}, first: map[uint32]int64{}, types: map[uint8]uint64{}}
			streams[k] = h
		}
		h.take(p.At, &r)
	}
	return streams
}

func (h *heard) take(at time.Time, r *rtp.Packet) {
	seq := int64(r.SequenceNumber)
	if top, ok := h.top[r.SSRC]; ok {
		for seq < top-32768 {
			seq += 65536
		}
		for seq > top+32768 {
			seq -= 65536
		}
	} else {
		h.first[r.SSRC], h.top[r.SSRC] = seq, seq-1
	}
	id := fmt.Sprint(r.SSRC, " ", seq)
	if h.seen[id] {
		h.dups++
		return
	}
	h.seen[id] = true
	if seq < h.top[r.SSRC] {
		h.back++
	}
	h.top[r.SSRC] = max(h.top[r.SSRC], seq)
	h.types[r.PayloadType]++
	if r.PayloadType == 101 || r.PayloadType == 96 {
		if r.Timestamp != h.lastDigit {
			h.digits += string("0123456789*#"[r.Payload[0]])
		}
		h.lastDigit = r.Timestamp
		return
	}
	h.payload = append(h.payload, r.Payload...)
	transit := float64(at.UnixMicro())*0.008 - float64(r.Timestamp)
	if !h.last.IsZero() {
		h.gaps = append(h.gaps, at.Sub(h.last))
		h.jitter += (math.Abs(transit-h.transit) - h.jitter) / 16
	}
	h.last, h.transit = at, transit
}

func (h *heard) lost() (n int64) {
	for ssrc, top := range h.top {
		n += top - h.first[ssrc] + 1
	}
	return n - int64(len(h.seen))
}

// The counts of every stream in the truth are those a reader of the packets comes to, whatever the audio's profile.
func TestStreamsAreAsTheTruthSays(t *testing.T) {
	for _, profile := range Profiles() {
		if profile == "restart" { // a jump inside an SSRC is loss to a naive reader
			continue
		}
		all, truth := one(t, "hold_retrieve", profile, nil)
		streams := hear(t, all)
		for _, s := range truth.Streams {
			h := streams[[2]netip.AddrPort{s.Source, s.Destination}]
			if h == nil {
				if s.Packets > 0 {
					t.Errorf("%s: no packets from %s", profile, s.Source)
				}
				continue
			}
			if got := uint64(len(h.seen)); got != s.Packets || h.lost() != s.Lost || h.dups != s.Duplicates || h.back != s.Reordered || len(h.top) != len(s.SSRCs) {
				t.Errorf("%s %s: packets %d lost %d duplicates %d reordered %d SSRCs %d; the truth says %+v",
					profile, s.Source, got, h.lost(), h.dups, h.back, len(h.top), s)
			}
			for pt, n := range s.PayloadTypes {
				if h.types[pt] != n {
					t.Errorf("%s %s: payload type %d %d times, want %d", profile, s.Source, pt, h.types[pt], n)
				}
			}
		}
	}
}

// trunkStream is what the carrier sends to the PBX.
func trunkStream(t *testing.T, truth Truth) StreamTruth {
	t.Helper()
	for _, s := range truth.Streams {
		if s.CallID == truth.Dialogs[0] && s.Source.Addr() == carrierHost {
			return s
		}
	}
	t.Fatal("no stream of the carrier's")
	return StreamTruth{}
}

// Each profile does what it says to what the carrier sends, and nothing to the rest.
func TestProfiles(t *testing.T) {
	share := func(n int64, s StreamTruth) float64 { return float64(n) / float64(int64(s.Packets)+s.Lost) }
	between := func(v, lo, hi float64) bool { return v >= lo && v <= hi }
	for profile, fits := range map[string]func(StreamTruth, *heard) bool{
		"clean":  func(s StreamTruth, h *heard) bool { return s.Lost == 0 && h.jitter/8 < 1 && s.Packets > 1000 },
		"lossy":  func(s StreamTruth, _ *heard) bool { return between(share(s.Lost, s), 0.015, 0.05) },
		"bursty": func(s StreamTruth, _ *heard) bool { return between(share(s.Lost, s), 0.01, 0.1) },
		"jittery": func(s StreamTruth, h *heard) bool {
			return s.Lost == 0 && s.Reordered == 0 && between(h.jitter/8, 5, 30)
		},
		"duplicates":  func(s StreamTruth, _ *heard) bool { return between(share(int64(s.Duplicates), s), 0.02, 0.08) },
		"reordered":   func(s StreamTruth, _ *heard) bool { return between(share(int64(s.Reordered), s), 0.02, 0.07) },
		"bad":         func(s StreamTruth, h *heard) bool { return share(s.Lost, s) > 0.03 && h.jitter/8 > 5 },
		"far_loss":    func(s StreamTruth, _ *heard) bool { return s.Lost == 0 },
		"ssrc_change": func(s StreamTruth, _ *heard) bool { return s.Restarts == maxChanges && len(s.SSRCs) == maxChanges+1 },
		"restart": func(s StreamTruth, _ *heard) bool {
			return s.Restarts == maxChanges && len(s.SSRCs) == 1 && s.Lost == 0
		},
		"one_way":  func(s StreamTruth, h *heard) bool { return s.Packets == 0 && h == nil },
		"no_media": func(s StreamTruth, h *heard) bool { return s.Packets == 0 && h == nil },
		"silent":   func(_ StreamTruth, h *heard) bool { return loud(h.payload) == 0 },
		"clipping": func(_ StreamTruth, h *heard) bool { return full(h.payload) > 0.1 },
		"wrong_pt": func(s StreamTruth, _ *heard) bool { return s.PayloadTypes[0] == s.Packets },
	} {
		var all []Packet
		var truth Truth
		for seed := uint64(1); truth.Codec != "PCMA"; seed++ {
			all, truth = one(t, "inbound_answered", profile, func(o *Options) { o.Seed, o.Speed = seed, 1.5 })
		}
		s, streams := trunkStream(t, truth), hear(t, all)
		if h := streams[[2]netip.AddrPort{s.Source, s.Destination}]; !fits(s, h) {
			t.Errorf("%s: %+v, loud %v", profile, s, h != nil && loud(h.payload) > 0)
		}
		for _, o := range truth.Streams {
			if o.Source != s.Source && (o.Lost != 0 || o.Duplicates != 0 || o.Restarts != 0) {
				t.Errorf("%s: another stream suffers: %+v", profile, o)
			}
			if wants := profile != "no_media" && (profile != "one_way" || o.Source.Addr() != pbxHost || o.Destination.Addr() == carrierHost); o.Source != s.Source && wants != (o.Packets > 0) {
				t.Errorf("%s: %d packets from %s", profile, o.Packets, o.Source)
			}
		}
	}
}

// loud is the share of A-law samples that are not near zero; full that at full scale.
func loud(b []byte) float64 {
	return count(b, func(v byte) bool { return v&0x7f != 0x55 && v&0x7f != 0x54 })
}

func full(b []byte) float64 { return count(b, func(v byte) bool { return v&0x7f == 0x2a }) }

func count(b []byte, is func(byte) bool) float64 {
	n := 0
	for _, v := range b {
		if is(v) {
			n++
		}
	}
	return float64(n) / float64(max(1, len(b)))
}

// G.711 by the Recommendation's own numbers: silence, and the largest values of each sign.
func TestG711(t *testing.T) {
	for _, x := range []struct {
		v      int
		mu, al byte
	}{{0, 0xff, 0xd5}, {32767, 0x80, 0xaa}, {-32768, 0x00, 0x2a}, {-1, 0x7f, 0x55}, {1000, 0xce, 0xfa}, {-1000, 0x4e, 0x7a}} {
		if muLaw(x.v) != x.mu || aLaw(x.v) != x.al {
			t.Errorf("%d: %#x %#x, want %#x %#x", x.v, muLaw(x.v), aLaw(x.v), x.mu, x.al)
		}
	}
}

func TestKeysInTheRTP(t *testing.T) {
	for seed := range uint64(6) {
		all, truth := one(t, "ivr_agent", "clean", func(o *Options) { o.Seed = seed })
		s := trunkStream(t, truth)
		if got := hear(t, all)[[2]netip.AddrPort{s.Source, s.Destination}].digits; got != truth.Digits || got == "" {
			t.Errorf("digits %q, the truth says %q", got, truth.Digits)
		}
	}
	all, truth := one(t, "ivr_info", "clean", nil)
	var got strings.Builder
	for _, p := range all {
		if _, rest, ok := strings.Cut(string(p.Payload), "Signal="); p.Kind == SIP && ok {
			got.WriteByte(rest[0])
		}
	}
	if got.String() != truth.Digits || truth.Digits == "" {
		t.Errorf("digits %q, the truth says %q", &got, truth.Digits)
	}
}

// Receivers report the loss that the packets show, and with far_loss more; the round trip is that of the two ends.
func TestReportsAgreeWithThePackets(t *testing.T) {
	for _, x := range []struct {
		profile string
		beyond  bool
	}{{"lossy", false}, {"clean", false}, {"far_loss", true}, {"jittery", false}} {
		all, truth := one(t, "inbound_answered", x.profile, func(o *Options) { o.Speed = 1 })
		s := trunkStream(t, truth)
		var last *rtcp.ReceptionReport
		srs, trips, lastAt := map[uint32]time.Time{}, 0, map[netip.AddrPort]time.Time{}
		var sent rtcp.SenderReport
		for _, p := range all {
			if p.Kind != RTCP || p.CallID != truth.Dialogs[0] {
				continue
			}
			packets, err := rtcp.Unmarshal(p.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if at, ok := lastAt[p.Src]; ok && p.At.Sub(at) > 6*time.Second {
				t.Errorf("%s reports after %s", p.Src, p.At.Sub(at))
			}
			lastAt[p.Src] = p.At
			sr, ok := packets[0].(*rtcp.SenderReport)
			if !ok || len(sr.Reports) == 0 {
				continue
			}
			srs[uint32(sr.NTPTime>>16)] = p.At
			r := sr.Reports[0]
			if r.SSRC == s.SSRCs[0] {
				last = &r
			} else {
				sent = *sr
			}
			if at, ok := srs[r.LastSenderReport]; ok {
				trips++
				// From the capture point to this end and back: 16 to 76 ms for the carrier, nothing for the PBX.
				trip := p.At.Sub(at) - time.Duration(r.Delay)*time.Second/65536
				if far := p.Src.Addr() == carrierHost; trip < -time.Millisecond || trip > 80*time.Millisecond || far != (trip > 15*time.Millisecond) {
					t.Errorf("%s: round trip of %s from %s", x.profile, trip, p.Src)
				}
			}
		}
		if last == nil || trips < 5 {
			t.Fatalf("%s: no reports (%d round trips)", x.profile, trips)
		}
		lost := int64(int32(last.TotalLost<<8) >> 8)
		if x.beyond != (lost > s.Lost) || !x.beyond && (lost < s.Lost-2 || lost > s.Lost) {
			t.Errorf("%s: the receiver lost %d, the truth says %d", x.profile, lost, s.Lost)
		}
		if all := int64(s.Packets) + s.Lost; int64(sent.PacketCount) < all-300 || int64(sent.PacketCount) > all+20 {
			t.Errorf("%s: the sender says %d packets, %d were seen or lost", x.profile, sent.PacketCount, all)
		}
		if x.profile == "jittery" != (last.Jitter > 40) {
			t.Errorf("%s: jitter %d", x.profile, last.Jitter)
		}
	}
}

// On hold the phone's leg is quiet but for a phone that keeps sending silence, and time goes on.
func TestHoldStopsTheAudio(t *testing.T) {
	for seed := range uint64(4) {
		all, truth := one(t, "hold_retrieve", "clean", func(o *Options) { o.Seed = seed })
		h := truth.Holds[0]
		byTime, ts := 0, map[netip.AddrPort][2]int64{}
		for _, p := range all {
			if p.Kind != RTP {
				continue
			}
			if p.CallID == truth.Dialogs[1] && p.Dst.Addr() == phonesHost && p.At.After(h.From.Add(30*time.Millisecond)) && p.At.Before(h.To) {
				byTime++
			}
			var r rtp.Packet
			if err := r.Unmarshal(p.Payload); err != nil {
				t.Fatal(err)
			}
			now := [2]int64{p.At.UnixMicro(), int64(r.Timestamp)}
			if was, ok := ts[p.Src]; ok {
				if d := (now[0]-was[0])*8/1000 - int64(int32(uint32(now[1]-was[1]))); d < -170 || d > 170 {
					t.Fatalf("%s: the timestamp is off by %d samples", p.Src, d)
				}
			}
			ts[p.Src] = now
		}
		if byTime > 2 {
			t.Errorf("%d packets to a phone on hold", byTime)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	opt := day(1<<30, 1)
	opt.Rate, opt.Speed = 5, 1
	n := 0
	for b.Loop() {
		if _, err := Render(opt, 20*time.Second, func(Packet) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "packets/s")
}
