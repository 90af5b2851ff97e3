package media

import "math"

// Defaults of ITU-T G.107, table 3, that the delay impairments need.
const (
	slr  = 8.0   // sending loudness rating, dB
	rlr  = 2.0   // receiving loudness rating, dB
	stmr = 15.0  // sidetone masking rating, dB
	lstr = 18.0  // listener sidetone rating, dB
	ds   = 3.0   // D-value of the telephone, sending side
	telr = 65.0  // talker echo loudness rating, dB
	wepl = 110.0 // weighted echo path loss, dB
	ps   = 35.0  // room noise, sending side, dB(A)
	pr   = 35.0  // room noise, receiving side, dB(A)
	nc   = -70.0 // circuit noise, dBm0p
	nfor = -64.0 // noise floor, receiving side, dBmp
	qdu  = 1.0   // quantizing distortion units
)

const (
	maxBurstR    = 8.0 // upper limit of BurstR, G.107, table 3
	widebandTop  = 129.0
	impairedMost = 95.0
)

// rating is the transmission rating factor R for a loss in percent, a burst ratio and a one-way delay in ms
// (G.107, 7.1; G.107.1, 7.1). It is never below 0.
func (c *impairment) rating(loss, burstR, delay float64) float64 {
	effective := c.ie + (impairedMost-c.ie)*loss/(loss/burstR+c.bpl)
	if loss <= 0 {
		effective = c.ie
	}
	if c.wide {
		return max(widebandTop-delayed(delay)-effective, 0)
	}
	return max(narrowband(delay)-effective, 0)
}

// mos is the conversational MOS of a rating (G.107, annex B; G.107.1, annex A: wideband R counts by R/1.29).
func (c *impairment) mos(r float64) float64 {
	if c.wide {
		r /= widebandTop / 100
	}
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	// Below R = 6.5 the cubic dips under 1.
	return max(1+0.035*r+r*(r-60)*(100-r)*7e-6, 1)
}

// narrowband is Ro - Is - Id of G.107 for its default values and a one-way delay in ms: 93.2 without delay.
func narrowband(delay float64) float64 {
	ro, no := signalToNoise()
	return ro - simultaneous(ro, no, delay) - echo(ro, no, delay) - delayed(delay)
}

// signalToNoise is Ro and No (G.107, 7.2).
func signalToNoise() (ro, no float64) {
	olr := slr + rlr
	nos := ps - slr - ds - 100 + 0.004*square(ps-olr-ds-14)
	pre := pr + 10*math.Log10(1+math.Pow(10, (10-lstr)/10))
	nor := rlr - 121 + pre + 0.008*square(pre-35)
	nfo := nfor + rlr
	no = decibels(nc, nos, nor, nfo)
	return 15 - 1.5*(slr+no), no
}

// simultaneous is Is (G.107, 7.3).
func simultaneous(ro, no, delay float64) float64 {
	olr := slr + rlr
	x := (olr + 0.2*(64+no-rlr)) / 8
	loudness := 20 * (math.Pow(1+math.Pow(x, 8), 1.0/8) - x)
	st := -10 * math.Log10(math.Pow(10, -stmr/10)+math.Exp(-delay/4)*math.Pow(10, -telr/10))
	sidetone := 12*math.Pow(1+math.Pow((st-13)/6, 8), 1.0/8) - 28*math.Pow(1+math.Pow((st+1)/19.4, 35), 1.0/35) -
		13*math.Pow(1+math.Pow((st-3)/33, 13), 1.0/13) + 29
	quant := 37 - 15*math.Log10(qdu)
	g := 1.07 + 0.258*quant + 0.0602*quant*quant
	y, z := (ro-100)/15+46/8.4-g/9, 46.0/30-g/40
	return loudness + sidetone + 15*math.Log10(1+math.Pow(10, y)+math.Pow(10, z))
}

// echo is Idte + Idle (G.107, 7.4).
func echo(ro, no, t float64) float64 {
	terv := telr - 40*math.Log10((1+t/10)/(1+t/150)) + 6*math.Exp(-0.3*t*t)
	half := (-1.5*(no-rlr) - (80 + 2.5*(terv-14))) / 2
	talker := (half + math.Sqrt(half*half+100) - 1) * (1 - math.Exp(-t))
	half = (ro - 10.5*(wepl+7)*math.Pow(2*t+1, -0.25)) / 2
	return talker + half + math.Sqrt(half*half+169)
}

// delayed is Idd (G.107, 7.4): delay without any echo, from 100 ms on.
func delayed(delay float64) float64 {
	if delay <= 100 {
		return 0
	}
	x := math.Log2(delay / 100)
	return 25 * (math.Pow(1+math.Pow(x, 6), 1.0/6) - 3*math.Pow(1+math.Pow(x/3, 6), 1.0/6) + 2)
}

func square(v float64) float64 { return v * v }

// decibels adds up powers in dB.
func decibels(levels ...float64) float64 {
	sum := 0.0
	for _, l := range levels {
		sum += math.Pow(10, l/10)
	}
	return 10 * math.Log10(sum)
}
