package media

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/pion/rtcp"

	"github.com/ctigate/ctigate/core/call"
)

func compound(t *testing.T, packets ...rtcp.Packet) []byte {
	t.Helper()
	b, err := rtcp.Marshal(packets)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	someSR = &rtcp.SenderReport{SSRC: 0xa, NTPTime: 0xe0000001_80000000, RTPTime: 160, PacketCount: 5, OctetCount: 800,
		Reports: []rtcp.ReceptionReport{{SSRC: 0xb, FractionLost: 64, TotalLost: 0xffffff, LastSequenceNumber: 70000,
			Jitter: 80, LastSenderReport: 0x12345678, Delay: 65536}}}
	someSDES = &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{Source: 0xa,
		Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "phone@example"}}}}}
	someXR = &rtcp.ExtendedReport{SenderSSRC: 0xa, Reports: []rtcp.ReportBlock{&rtcp.VoIPMetricsReportBlock{
		SSRC: 0xb, LossRate: 3, DiscardRate: 64, BurstDensity: 128, GapDensity: 1, BurstDuration: 120, GapDuration: 9000,
		RoundTripDelay: 50, EndSystemDelay: 80, SignalLevel: 0xe7, NoiseLevel: 0xce, RERL: 55, Gmin: 16, RFactor: 88,
		ExtRFactor: 127, MOSLQ: 42, MOSCQ: 41, JBNominal: 60, JBMaximum: 200}}}
)

func TestParseCompound(t *testing.T) {
	r, err := ParseRTCP(compound(t, someSR, someSDES, someXR, &rtcp.Goodbye{Sources: []uint32{0xa}}), false)
	if err != nil {
		t.Fatal(err)
	}
	if r.Opaque || r.Skipped != 0 || r.SSRC != 0xa || r.CNAME != "phone@example" || len(r.Bye) != 1 || r.Bye[0] != 0xa {
		t.Errorf("%+v", r)
	}
	if want := (SenderReport{SSRC: 0xa, NTP: 0xe0000001_80000000, RTP: 160, Packets: 5, Octets: 800}); len(r.Senders) != 1 || r.Senders[0] != want {
		t.Errorf("%+v", r.Senders)
	}
	// A cumulative loss of -1, as duplicates make it, is not 16,777,215.
	if want := (Block{Reporter: 0xa, SSRC: 0xb, FractionLost: 64, Lost: -1, HighestSeq: 70000, Jitter: 80, LSR: 0x12345678,
		DLSR: 65536}); len(r.Blocks) != 1 || r.Blocks[0] != want {
		t.Errorf("%+v", r.Blocks)
	}
	if m := r.Metrics; len(m) != 1 || m[0].SSRC != 0xb || m[0].SignalLevel != -25 || m[0].NoiseLevel != -50 || m[0].MOSCQ != 41 ||
		m[0].Reporter != 0xa || m[0].JitterBufferMaximumMS != 200 {
		t.Errorf("%+v", m)
	}
}

func TestParseOddCompounds(t *testing.T) {
	rr := compound(t, &rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 2}}})
	app := []byte{0x80, 204, 0, 3, 0, 0, 0, 1, 'n', 'a', 'm', 'e', 1, 2, 3, 4}
	unknown := []byte{0x80, 199, 0, 1, 0, 0, 0, 1}
	broken := []byte{0x9f, 201, 0, 1, 0, 0, 0, 1} // 31 blocks that are not there
	for _, c := range []struct {
		name            string
		bytes           []byte
		blocks, skipped int
	}{
		{"RR alone (RFC 5506)", rr, 1, 0},
		{"APP first", append(append([]byte{}, app...), rr...), 1, 0},
		{"unknown type", append(append([]byte{}, rr...), unknown...), 1, 1},
		{"malformed RR, then a good one", append(append([]byte{}, broken...), rr...), 1, 1},
	} {
		r, err := ParseRTCP(c.bytes, false)
		if err != nil || len(r.Blocks) != c.blocks || r.Skipped != c.skipped || r.Opaque {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
}

func TestNotRTCP(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty": nil, "short": {0x80, 200, 0, 6}, "RTP": raw(0, false, 1, 1, 1, make([]byte, 160)),
		"version 1":              {0x40, 200, 0, 1, 0, 0, 0, 1},
		"longer than it is":      {0x80, 200, 0, 90, 0, 0, 0, 1},
		"three bytes too many":   {0x80, 201, 0, 1, 0, 0, 0, 1, 2, 3, 4},
		"STUN":                   {0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0},
		"an SDES that goes on":   {0x81, 202, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9},
		"SR that is only header": {0x80, 200, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9},
	} {
		if r, err := ParseRTCP(b, false); !errors.Is(err, ErrNotRTCP) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// SRTCP (RFC 3711, 3.4): the first header in the clear, then ciphertext, E flag and index, and a tag of 10 bytes.
func TestSRTCPIsOpaque(t *testing.T) {
	b := compound(t, someSR, someSDES)
	for i := 8; i < len(b); i++ {
		b[i] ^= 0x5a
	}
	b = append(b, 0x80, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	for _, known := range []bool{true, false} {
		r, err := ParseRTCP(b, known)
		if err != nil || !r.Opaque || r.SSRC != 0xa || len(r.Senders)+len(r.Blocks) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// What agents send, as they send it.
func TestParseJSON(t *testing.T) {
	for _, c := range []struct {
		name, json string
		sender     *SenderReport
		block      *Block
	}{
		{"heplify", `{"sender_information":{"ntp_timestamp_sec":3916733675,"ntp_timestamp_usec":1764527184,"octets":80000,"packets":500,"rtp_timestamp":144252},"ssrc":837588258,"type":200,"report_count":1,"report_blocks":[{"dlsr":34209,"fraction_lost":0,"highest_seq_no":28813,"ia_jitter":7,"lsr":2632639317,"packets_lost":0,"source_ssrc":3341962185}],"sdes_information":[{"sdes_chunk_ssrc":837588258,"text":"sip:a@b","type":1}],"sdes_report_count":1}`,
			&SenderReport{SSRC: 837588258, NTP: 3916733675<<32 | 1764527184, RTP: 144252, Packets: 500, Octets: 80000},
			&Block{Reporter: 837588258, SSRC: 3341962185, HighestSeq: 28813, Jitter: 7, LSR: 2632639317, DLSR: 34209}},
		{"Asterisk: times are strings, of 1970", `{"ssrc":1723189040,"type":200,"report_count":1,"sender_information":{"ntp_timestamp_sec":"1744711006","ntp_timestamp_usec":"500000","rtp_timestamp":5600,"packets":35,"octets":5600},"report_blocks":[{"source_ssrc":620378479,"fraction_lost":12,"packets_lost":3,"highest_seq_no":3543,"ia_jitter":63,"lsr":"305419896","dlsr":6553}]}`,
			&SenderReport{SSRC: 1723189040, NTP: 3953699806<<32 | 1<<31, RTP: 5600, Packets: 35, Octets: 5600},
			&Block{Reporter: 1723189040, SSRC: 620378479, FractionLost: 12, Lost: 3, HighestSeq: 3543, Jitter: 63, LSR: 305419896, DLSR: 6553}},
		{"Asterisk, RR", `{"ssrc":5,"type":201,"report_count":1,"sender_information":null,"report_blocks":[{"source_ssrc":6,"fraction_lost":0,"packets_lost":0,"highest_seq_no":1,"ia_jitter":0,"lsr":"0","dlsr":0}]}`,
			nil, &Block{Reporter: 5, SSRC: 6, HighestSeq: 1}},
		{"signed numbers", `{"sender_information":{"ntp_timestamp_sec":"3373905459","ntp_timestamp_usec":"4280379832","packets":2,"rtp_timestamp":-210833031,"octets":40},"type":200,"ssrc":1814766290,"report_count":1,"report_blocks":[{"source_ssrc":-1640316609,"highest_seq_no":20881,"fraction_lost":0,"ia_jitter":1,"packets_lost":-2,"lsr":-1097006646,"dlsr":7733}]}`,
			&SenderReport{SSRC: 1814766290, NTP: 3373905459<<32 | 4280379832, RTP: 4084134265, Packets: 2, Octets: 40},
			&Block{Reporter: 1814766290, SSRC: 2654650687, Lost: -2, HighestSeq: 20881, Jitter: 1, LSR: 3197960650, DLSR: 7733}},
		{"rtpengine: loss as unsigned 24 bits", `{ "sender_information":{"ntp_timestamp_sec":3950000000,"ntp_timestamp_usec":0,"octets":1,"rtp_timestamp":1, "packets":1},"ssrc":7,"type":200,"report_count":1,"report_blocks":[{"source_ssrc":8,"highest_seq_no":1,"fraction_lost":0,"ia_jitter":0,"packets_lost":16777215,"lsr":0,"dlsr":0}],"sdes_ssrc":7}`,
			&SenderReport{SSRC: 7, NTP: 3950000000 << 32, RTP: 1, Packets: 1, Octets: 1},
			&Block{Reporter: 7, SSRC: 8, Lost: -1, HighestSeq: 1}},
		{"zeros for a sender that is none", `{"sender_information":{"ntp_timestamp_sec":0,"ntp_timestamp_usec":0,"rtp_timestamp":0,"packets":0,"octets":0},"ssrc":7,"type":202,"report_count":0,"report_blocks":null,"report_blocks_xr":{"type":0},"sdes_ssrc":7}`,
			nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseRTCPJSON([]byte(c.json))
			if err != nil {
				t.Fatal(err)
			}
			if c.sender == nil != (len(r.Senders) == 0) || (c.sender != nil && r.Senders[0] != *c.sender) {
				t.Errorf("got  %+v\nwant %+v", r.Senders, c.sender)
			}
			if c.block == nil != (len(r.Blocks) == 0) || (c.block != nil && r.Blocks[0] != *c.block) {
				t.Errorf("got  %+v\nwant %+v", r.Blocks, c.block)
			}
			if len(r.Metrics) != 0 {
				t.Errorf("%+v", r.Metrics)
			}
		})
	}
}

func TestParseJSONMetrics(t *testing.T) {
	for name, j := range map[string]string{
		"heplify":   `{"ssrc":1,"type":207,"report_blocks":[],"report_blocks_xr":{"type":7,"id":2,"fraction_lost":1,"fraction_discard":64,"burst_density":128,"gap_density":1,"burst_duration":120,"gap_duration":9000,"round_trip_delay":50,"end_system_delay":80}}`,
		"captagent": `{"ssrc":1,"extended_report_information":{"type":7, "identifier":2, "loss_rate":1, "discard_rate":64, "burst_rate":128, "gap_rate":1, "burst_duration":120, "gap_duration":9000, "round_trip_delay":50, "end_sys_delay":80, "signal_lev":231, "noise_lev":206, "RERL":55, "Gmin":16, "R_fact":88, "ext_R_fact":127, "MOS_LQ":42, "MOS_CQ":41, "RX_conf":[{"PLC":3, "JB_adapt":3, "JB_rate":0}], "JB_nom":60, "JB_max":200, "JB_abs_max":200}}`,
	} {
		r, err := ParseRTCPJSON([]byte(j))
		if err != nil || len(r.Metrics) != 1 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		m := r.Metrics[0]
		if m.SSRC != 2 || m.DiscardRate != 64 || m.BurstDensity != 128 || m.GapMS != 9000 || m.RoundTripMS != 50 || m.EndSystemMS != 80 {
			t.Errorf("%s: %+v", name, m)
		}
		if name == "captagent" && (m.SignalLevel != -25 || m.NoiseLevel != -50 || m.RFactor != 88 || m.MOSCQ != 41) {
			t.Errorf("%+v", m)
		}
	}
}

func TestNotJSON(t *testing.T) {
	for _, j := range []string{"", "{}", "[]", "null", `"x"`, "{", `{"ssrc":[]}`, `{"report_blocks":7}`, `{"a":"` + string(make([]byte, maxJSON)) + `"}`} {
		if r, err := ParseRTCPJSON([]byte(j)); !errors.Is(err, ErrNotRTCP) {
			t.Errorf("%.40s: %+v, %v", j, r, err)
		}
	}
}

func TestReported(t *testing.T) {
	s := newSender(t)
	s.send(100)
	if s.stream.Reported(7, &Block{SSRC: 0xdead}) || s.stream.ReportedXR(7, &VoIPMetrics{SSRC: 0}) || s.final().Remote != nil {
		t.Error("took a report about another stream")
	}
	if !s.stream.Reported(7, &Block{SSRC: 0xcafe, FractionLost: 64, Lost: 12, Jitter: 160}) {
		t.Error("refused a report about itself")
	}
	m := VoIPMetrics{SSRC: 0xcafe, BurstDensity: 128, DiscardRate: 64, SignalLevel: -25, NoiseLevel: 127, RFactor: 88, MOSLQ: 42,
		MOSCQ: 127, RoundTripMS: 50, EndSystemMS: 80}
	if !s.stream.ReportedXR(8, &m) {
		t.Error("refused metrics about itself")
	}
	want := call.RemoteQuality{At: 8, Lost: 12, LossPercent: 25, JitterMS: 20, RoundTripMS: 50, MOSLQ: 4.2, RFactor: 88,
		BurstDensity: 50, EndSystemMS: 80, SignalDBM: -25, DiscardedPart: 25}
	q := s.final()
	if *q.Remote != want {
		t.Errorf("got  %+v\nwant %+v", *q.Remote, want)
	}
	s.stream.Reported(9, &Block{SSRC: 0xcafe, Lost: 13})
	if q.Remote.Lost != 12 {
		t.Error("a report changed after it was handed out")
	}
	s.ssrc = 0xbeef
	s.send(3)
	if !s.stream.Reported(9, &Block{SSRC: 0xcafe}) || !s.stream.Reported(9, &Block{SSRC: 0xbeef}) {
		t.Error("refused a report about the SSRC before, or the new one")
	}
}

func TestRoundTripCountsInTheMOS(t *testing.T) {
	s := newSender(t)
	s.send(100)
	near := s.final()
	s.stream.SetRoundTrip(600)
	s.stream.SetRoundTrip(-1)
	s.stream.SetRoundTrip(math.NaN())
	far := s.final()
	if far.DelayMS != near.DelayMS+300 || far.MOS > near.MOS-0.5 {
		t.Errorf("delay %v and %v, MOS %v and %v", near.DelayMS, far.DelayMS, near.MOS, far.MOS)
	}
}

// ntpAt is the NTP time of an instant.
func ntpAt(at call.Time) uint64 {
	return uint64(at/call.Second+ntpEpoch)<<32 | uint64(at%call.Second)<<32/1000000
}

// A and B are 30 ms and 50 ms away from here, there and back.
func TestRoundTrip(t *testing.T) {
	const a, b, start = 0xaaaa, 0xbbbb, call.Time(1.7e15)
	var r RoundTrip
	if _, _, ok := r.MS(); ok {
		t.Error("a round trip of nothing")
	}
	sr := func(at call.Time, ssrc uint32, sent call.Time) {
		r.RTCP(at, &RTCP{Senders: []SenderReport{{SSRC: ssrc, NTP: ntpAt(sent)}}})
	}
	rr := func(at call.Time, ssrc uint32, sent, held call.Time) {
		r.RTCP(at, &RTCP{Blocks: []Block{{SSRC: ssrc, LSR: uint32(ntpAt(sent) >> 16), DLSR: uint32(held * 65536 / call.Second)}}})
	}
	sr(start+15*ms, a, start)
	rr(start+15*ms+50*ms+400*ms, a, start, 400*ms)
	if got, whole, ok := r.MS(); !ok || whole || math.Abs(got-50) > 0.1 {
		t.Errorf("towards B: %v %v", got, whole)
	}
	sr(start+1025*ms, b, start+1000*ms)
	rr(start+1025*ms+30*ms+2000*ms, b, start+1000*ms, 2000*ms)
	if got, whole, ok := r.MS(); !ok || !whole || math.Abs(got-80) > 0.1 {
		t.Errorf("whole: %v %v", got, whole)
	}
	// What quotes nothing that passed here, nonsense, and a wrong SSRC change nothing.
	rr(start+5000*ms, a, start+7777*ms, 0)
	rr(start+16*ms, a, start, 400*ms)
	rr(start+3600*call.Second, a, start, 0)
	rr(start+100*ms, 0xcccc, start, 0)
	r.Block(start, &Block{SSRC: a})
	if got, _, _ := r.MS(); math.Abs(got-80) > 0.1 {
		t.Errorf("then %v", got)
	}
	// A new SSRC of A takes the place of the older half.
	sr(start+8015*ms, 0xa2, start+8000*ms)
	rr(start+8015*ms+70*ms, 0xa2, start+8000*ms, 0)
	if got, whole, _ := r.MS(); !whole || math.Abs(got-100) > 0.1 {
		t.Errorf("after a new SSRC: %v", got)
	}
}

// Asterisk's JSON has the time of its SR in microseconds, the far end quotes its 32 bits.
func TestRoundTripOfJSON(t *testing.T) {
	var r RoundTrip
	sent := call.Time(1.7e15 + 123457)
	r.SR(sent, 9, ntp(number(sent/call.Second), number(sent%call.Second)))
	if got, ok := r.Block(sent+40*ms, &Block{SSRC: 9, LSR: uint32(ntpAt(sent) >> 16)}); !ok || math.Abs(got-40) > 0.1 {
		t.Errorf("%v %v", got, ok)
	}
}

func TestIsRTCP(t *testing.T) {
	for b, want := range map[byte]bool{0: false, 0x80: false, 200: true, 201: true, 207: true, 191: false, 224: false} {
		p := make([]byte, 12)
		p[0], p[1] = 0x80, b
		binary.BigEndian.PutUint32(p[8:], 77)
		if IsRTCP(p) != want {
			t.Errorf("second byte %d", b)
		}
		if ssrc, ok := SSRC(p); ok == want || (ok && ssrc != 77) {
			t.Errorf("second byte %d: SSRC %d", b, ssrc)
		}
	}
}
