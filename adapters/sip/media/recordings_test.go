package media

import (
	"fmt"
	"math"
	"testing"
)

// What Wireshark 4.0.17 says of the recordings: tshark -q -z rtp,streams. The live tests ask it again.
var wireshark = map[string][]string{
	"asterisk/lossy_media": {
		"12210 45000 3dbc2a8f 300 0 0.085 0.223", "13006 41000 2190af1e 266 34 9.465 13.040",
		"45000 12210 46436f96 266 34 9.462 13.008", "41000 13006 6275eb3d 301 0 0.031 0.045",
	},
	"asterisk/codec_change": {
		"11554 45000 16e027b5 175 0 0.042 0.062", "10310 41000 34464fa3 76 0 0.016 0.024",
		"45000 11554 6041aac1 176 0 0.013 0.026", "41000 10310 1e3d4a46 176 0 0.021 0.031",
	},
	"asterisk/inbound_answered_caller_hangup": {
		"14432 41000 36465697 158 0 0.042 0.102", "12282 45000 0885dc4a 158 0 0.068 0.205",
		"41000 14432 f1a523ce 158 0 0.027 0.042", "12282 45000 72a4fb94 25 0 0.023 0.035",
		"45000 12282 a4ff06cd 201 0 0.023 0.048",
	},
	"freeswitch/lossy_media": {
		"31624 41000 ab1f9e1d 255 0 1.932 5.578", "33224 45000 9305096d 299 0 0.087 1.185",
		"45000 33224 b662ce1b 266 34 9.457 12.986", "41000 31624 ccfccada 303 0 0.039 0.176",
	},
	"freeswitch/codec_change": {
		"35718 41000 a305de1d 74 0 0.022 0.037", "33852 45000 9305094d 174 0 0.134 1.186",
		"45000 33852 b43bcee1 176 0 0.030 0.073", "41000 35718 fcada398 179 0 0.015 0.023",
	},
	"freeswitch/inbound_answered_caller_hangup": {
		"35090 41000 a712afae 155 0 0.011 0.020", "32642 45000 930508ed 155 0 0.142 1.191",
		"41000 35090 c4141ecf 159 0 0.013 0.023", "45000 32642 bc8cb57c 201 0 0.018 0.039",
	},
}

// bySSRC measures each SSRC of each direction by itself, as Wireshark does.
func bySSRC(packets []datagram) map[string]*Stream {
	streams := map[string]*Stream{}
	for _, d := range packets {
		ssrc, ok := SSRC(d.payload)
		if !ok {
			continue
		}
		key := fmt.Sprintf("%d %d %08x", d.src.Port(), d.dst.Port(), ssrc)
		if streams[key] == nil {
			streams[key] = New(nil, d.at)
		}
		if _, err := streams[key].RTP(d.at, d.payload); err != nil {
			panic(err)
		}
	}
	return streams
}

func TestRecordingsAgreeWithWireshark(t *testing.T) {
	for name, lines := range wireshark {
		t.Run(name, func(t *testing.T) {
			streams := bySSRC(readPcap(t, "../../adaptertest/traces/"+name+"/sip-rtp.pcap.gz"))
			if len(streams) != len(lines) {
				t.Errorf("%d streams, Wireshark has %d", len(streams), len(lines))
			}
			for _, line := range lines {
				var src, dst int
				var ssrc uint32
				var packets uint64
				var lost int64
				var mean, top float64
				if _, err := fmt.Sscanf(line, "%d %d %x %d %d %f %f", &src, &dst, &ssrc, &packets, &lost, &mean, &top); err != nil {
					t.Fatal(line, err)
				}
				s := streams[fmt.Sprintf("%d %d %08x", src, dst, ssrc)]
				if s == nil {
					t.Errorf("no stream %s", line)
					continue
				}
				q := s.Report(0, true)
				if q.Packets+q.Duplicates != packets || q.Lost-int64(q.Duplicates) != lost {
					t.Errorf("%s: %d packets, %d lost", line, q.Packets, q.Lost)
				}
				if math.Abs(q.JitterMS-mean) > 0.0011 || math.Abs(q.MaxJitterMS-top) > 0.0011 {
					t.Errorf("%s: jitter %.3f, at most %.3f", line, q.JitterMS, q.MaxJitterMS)
				}
			}
		})
	}
}

// Asterisk's own report about the stream it received, in the recording, says what is measured here of the same packets.
func TestRecordedReportAgrees(t *testing.T) {
	streams := map[uint32]*Stream{}
	reports := 0
	for _, d := range readPcap(t, "../../adaptertest/traces/asterisk/lossy_media/sip-rtp.pcap.gz") {
		if ssrc, ok := SSRC(d.payload); ok {
			if streams[ssrc] == nil {
				streams[ssrc] = New(nil, d.at)
			}
			if _, err := streams[ssrc].RTP(d.at, d.payload); err != nil {
				t.Fatal(err)
			}
		}
		if !IsRTCP(d.payload) {
			continue
		}
		r, err := ParseRTCP(d.payload, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Blocks {
			s := streams[r.Blocks[i].SSRC]
			if s == nil || !s.Reported(d.at, &r.Blocks[i]) {
				continue // of the call before
			}
			reports++
			q := s.Report(d.at, true)
			if q.Lost != q.Remote.Lost || math.Abs(s.clock.jitter-q.Remote.JitterMS) > 0.5 {
				t.Errorf("%s: %d lost, jitter %.2f ms; Asterisk has %d and %.2f", q.Stream, q.Lost, s.clock.jitter, q.Remote.Lost, q.Remote.JitterMS)
			}
		}
	}
	if reports != 2 {
		t.Errorf("%d reports about the streams of the call", reports)
	}
}
