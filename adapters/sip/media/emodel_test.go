package media

import (
	"math"
	"testing"
)

func of(t *testing.T, codec string, rate uint32) *impairment {
	t.Helper()
	i, ok := impairmentOf(payload{codec: codec, rate: rate, known: true})
	if !ok {
		t.Fatalf("no factors for %s", codec)
	}
	return &i
}

// The rating of all default values is 93.2, its MOS 4.41 (ITU-T G.107, 7.7 and annex B).
func TestDefaultRating(t *testing.T) {
	c := of(t, "PCMU", 8000)
	r := c.rating(0, 1, 0)
	if math.Abs(r-93.2) > 0.05 || math.Abs(c.mos(r)-4.41) > 0.005 {
		t.Errorf("R %.3f MOS %.3f", r, c.mos(r))
	}
}

// Impairments under random loss as ITU-T G.113, appendix I, lists them: 93.2 - R without delay.
func TestImpairmentUnderLoss(t *testing.T) {
	for _, c := range []struct {
		codec      string
		loss, want float64
	}{
		{"G729", 0, 11}, {"G729", 0.5, 13}, {"G729", 1, 15}, {"G729", 1.5, 17}, {"G729", 2, 19}, {"G729", 3, 23},
		{"G729", 4, 26}, {"G729", 8, 36}, {"G729", 16, 49},
		{"G723", 0, 15}, {"G723", 1, 19}, {"G723", 2, 24}, {"G723", 3, 27}, {"G723", 8, 41}, {"G723", 16, 55},
		{"PCMA", 1, 5}, {"PCMA", 2, 7}, {"PCMA", 3, 10}, {"PCMA", 5, 15}, {"PCMA", 7, 20}, {"PCMA", 10, 25},
		{"GSM-EFR", 0, 5}, {"GSM", 0, 20}, {"G726-32", 0, 7}, {"G728", 0, 7},
	} {
		got := narrowband(0) - of(t, c.codec, 8000).rating(c.loss, 1, 0)
		slack := 1.0
		if c.codec == "PCMA" {
			slack = 2.5 // listed in steps of five
		}
		if math.Abs(got-c.want) > slack {
			t.Errorf("%s at %.1f %%: impairment %.1f, want %.0f", c.codec, c.loss, got, c.want)
		}
	}
}

// Cole and Rosenbluth's line through G.107's delay impairment: 0.024 d, and 0.11 for each ms beyond 177.3.
func TestDelayImpairment(t *testing.T) {
	for _, d := range []float64{0, 50, 100, 150, 177, 200, 250, 300} {
		want := 93.2 - 0.024*d - 0.11*max(d-177.3, 0)
		if got := narrowband(d); math.Abs(got-want) > 1 {
			t.Errorf("%v ms: R %.2f, the line has %.2f", d, got, want)
		}
	}
	if a, b := narrowband(150), narrowband(400); a-b < 20 {
		t.Errorf("400 ms cost %.1f more than 150", a-b)
	}
}

// MOS_CQEW of AMR-WB's modes by G.107.1 and G.113, table IV.1.
func TestWideband(t *testing.T) {
	for _, c := range []struct{ ie, loss, bpl, want float64 }{
		{0, 0, 4.3, 4.5}, {1, 0, 4.6, 4.494}, {8, 0, 4.9, 4.4206}, {13, 0, 4.3, 4.3371}, {41, 0, 4.3, 3.5123},
		{56, 0, 4.3, 2.9220}, {20, 2, 4.3, 3.4062},
	} {
		i := impairment{ie: c.ie, bpl: c.bpl, wide: true}
		if got := i.mos(i.rating(c.loss, 1, 0)); math.Abs(got-c.want) > 5e-4 {
			t.Errorf("Ie,wb %.0f at %.0f %%: MOS %.4f, want %.4f", c.ie, c.loss, got, c.want)
		}
	}
	nb, wb := of(t, "PCMU", 8000), of(t, "G722", 8000)
	if a, b := nb.rating(0, 1, 80), wb.rating(0, 1, 80); b < a+20 {
		t.Errorf("G.722 rates %.1f, G.711 %.1f", b, a)
	}
}

func TestBurstsCostMoreThanRandomLoss(t *testing.T) {
	c := of(t, "PCMU", 8000)
	if random, bursty := c.rating(3, 1, 0), c.rating(3, 2, 0); bursty >= random {
		t.Errorf("R %.1f with bursts, %.1f without", bursty, random)
	}
}

func TestRatingStaysInRange(t *testing.T) {
	for _, codec := range []string{"PCMU", "G729", "GSM", "G723", "iLBC", "AMR", "AMR-WB", "G722", "opus", "speex", "G726-16"} {
		for _, loss := range []float64{0, 0.1, 5, 50, 100} {
			for _, burst := range []float64{1, 3, 8} {
				for _, delay := range []float64{0, 1, 99, 101, 500, 5000, 60000} {
					c := of(t, codec, 16000)
					r := c.rating(loss, burst, delay)
					m := c.mos(r)
					if math.IsNaN(r) || r < 0 || r > 129 || math.IsNaN(m) || m < 1 || m > 4.5 {
						t.Errorf("%s loss %v burst %v delay %v: R %v MOS %v", codec, loss, burst, delay, r, m)
					}
				}
			}
		}
	}
}

func TestNoRatingWithoutFactors(t *testing.T) {
	for _, p := range []payload{
		{codec: "SILK", known: true, rate: 24000},
		{codec: "telephone-event", known: true, kind: telephoneEvent, rate: 8000},
		{number: 97},
	} {
		if i, ok := impairmentOf(p); ok {
			t.Errorf("%+v has %+v", p, i)
		}
	}
	if i := of(t, "speex", 8000); i.wide {
		t.Error("Speex at 8 kHz is wideband")
	}
	if i := of(t, "speex", 16000); !i.wide {
		t.Error("Speex at 16 kHz is narrowband")
	}
}
