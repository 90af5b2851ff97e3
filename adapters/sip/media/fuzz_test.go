package media

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/pion/rtcp"

	"github.com/ctigate/ctigate/core/call"
)

// FuzzRTP makes several packets of its input: a length and a time step before each. Whatever they are, the measures
// keep to their ranges, and intervals add up to the whole.
func FuzzRTP(f *testing.F) {
	packet := func(step byte, b []byte) []byte { return append([]byte{step, byte(len(b))}, b...) }
	var clean, mixed []byte
	for i := range 8 {
		clean = append(clean, packet(20, raw(0, false, uint16(i), uint32(160*i), 7, muMilliwatt))...)
		mixed = append(mixed, packet(byte(i*9), raw([]uint8{0, 101, 13, 9}[i%4], i == 3, uint16(65533+i*i), uint32(i*1<<29), uint32(i/4), event(1, i > 5, 800)))...)
	}
	f.Add(clean)
	f.Add(mixed)
	f.Add(packet(0, []byte{0xbf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := New(&Options{}, 1e15)
		at, n := call.Time(1e15), 0
		var sum totals
		for len(in) >= 2 {
			step, length := in[0], min(int(in[1]), len(in)-2)
			at += call.Time(int8(step)) * 7 * ms
			_, _ = s.RTP(at, bytes.Clone(in[2:2+length]))
			in = in[2+length:]
			if n++; n%5 == 0 {
				q := s.Report(at, false)
				sane(t, q)
				sum.packets, sum.expected = sum.packets+q.Packets, sum.expected+q.Expected
			}
			if n%7 == 0 {
				s.Negotiate(agreed, step&1 != 0)
			}
		}
		q := s.Report(at, false)
		sum.packets, sum.expected = sum.packets+q.Packets, sum.expected+q.Expected
		whole := s.Report(at, true)
		sane(t, q)
		sane(t, whole)
		if whole.Packets != sum.packets || whole.Expected != sum.expected || whole.Packets+whole.Duplicates > uint64(n) {
			t.Errorf("%d packets of %d expected, the intervals have %d of %d, there were %d", whole.Packets, whole.Expected,
				sum.packets, sum.expected, n)
		}
		if _, err := json.Marshal(whole); err != nil { // NaN and Inf have no JSON
			t.Error(err)
		}
	})
}

func FuzzRTCP(f *testing.F) {
	for _, p := range [][]rtcp.Packet{{someSR, someSDES}, {someXR}, {&rtcp.Goodbye{Sources: []uint32{1, 2}}}} {
		b, err := rtcp.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 0x80, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, encrypted := range []bool{false, true} {
			r, err := ParseRTCP(b, encrypted)
			if err != nil {
				continue
			}
			if encrypted && !r.Opaque {
				t.Error("SRTCP was read")
			}
			use(t, r)
		}
	})
}

func FuzzRTCPJSON(f *testing.F) {
	f.Add([]byte(`{"sender_information":{"ntp_timestamp_sec":"1744711006","ntp_timestamp_usec":"500000","rtp_timestamp":-5,"packets":35,"octets":5600},"ssrc":7,"report_blocks":[{"source_ssrc":7,"fraction_lost":300,"packets_lost":-9999999999,"highest_seq_no":1e18,"ia_jitter":"x","lsr":null,"dlsr":0}],"report_blocks_xr":{"type":7,"id":7,"burst_density":-1}}`))
	f.Add([]byte(`{"ssrc":7,"extended_report_information":{"type":7,"identifier":7,"MOS_CQ":1e300},"sdes_information":[{"type":1,"text":"x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRTCPJSON(b); err == nil {
			use(t, r)
		}
	})
}

// use does with a report what the adapter does.
func use(t *testing.T, r *RTCP) {
	t.Helper()
	if len(r.Blocks) > maxBlocks || len(r.Metrics) > maxBlocks || len(r.Senders) > maxBlocks || len(r.Bye) > maxBlocks {
		t.Errorf("%d blocks, %d metrics, %d senders, %d bye", len(r.Blocks), len(r.Metrics), len(r.Senders), len(r.Bye))
	}
	var trip RoundTrip
	trip.RTCP(1e15, r)
	trip.RTCP(1e15+50, r)
	if v, _, _ := trip.MS(); !(v >= 0 && v <= 2*maxRoundTripMS) {
		t.Errorf("round trip %v", v)
	}
	s := New(nil, 1)
	_, _ = s.RTP(2, raw(0, false, 1, 1, 7, nil))
	for i := range r.Blocks {
		r.Blocks[i].SSRC = 7
		s.Reported(3, &r.Blocks[i])
	}
	for i := range r.Metrics {
		r.Metrics[i].SSRC = 7
		s.ReportedXR(3, &r.Metrics[i])
	}
	q := s.Report(4, true)
	if far := q.Remote; far != nil && !(far.LossPercent >= 0 && far.LossPercent <= 100 && far.MOSCQ <= 5 && far.BurstDensity <= 100) {
		t.Errorf("%+v", far)
	}
}
