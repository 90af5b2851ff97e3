package media

import "strings"

// impairment is what a codec does to speech, for the E-model.
type impairment struct {
	ie        float64 // equipment impairment factor: Ie, or Ie,wb on the wideband scale
	bpl       float64 // packet-loss robustness factor
	lookahead float64 // algorithmic delay beyond a packet's length, ms
	wide      bool    // wideband (G.107.1)
}

// defaultBpl is Bpl of ITU-T G.107, table 3: a codec that does nothing about loss.
const defaultBpl = 4.3

// impairmentOf returns a codec's factors; false when there are none that could be used, or the payload is no audio.
//
// Narrowband: ITU-T G.113, appendix I, whose tables also give Bpl for G.711 with concealment, G.729A, G.723.1 and
// GSM-EFR. AMR at 12.2 kbit/s is GSM-EFR, bit for bit. Wideband: G.113, appendix IV, Ie,wb of a handset (table IV.1)
// and, for AMR-WB, Bpl of table IV.4.
//
// Not of the ITU, and so only an indication: Bpl where no loss was ever measured is that of a codec without
// concealment; iLBC's are of the literature; Speex is taken for G.729 or AMR-WB at 12.65 kbit/s; Opus is taken for
// AMR-WB at 15.85 kbit/s, with the Bpl that Al-Ahmadi and others measured at 25 kbit/s.
//
// The bit rate is not looked at: AMR-WB is 12.65 kbit/s, G.722 64, G.7221 32, G.723.1 6.3.
func impairmentOf(p payload) (impairment, bool) {
	if !p.known || p.kind != audio {
		return impairment{}, false
	}
	name := strings.ToUpper(p.codec)
	if i, ok := wideband(name, p.rate); ok {
		return i, true
	}
	return standard(name)
}

// standard is the narrowband codecs.
func standard(codec string) (impairment, bool) {
	switch codec {
	case "PCMU", "PCMA":
		return impairment{ie: 0, bpl: 25.1}, true // with concealment (G.711, appendix I)
	case "L16", "L8":
		return impairment{ie: 0, bpl: defaultBpl}, true
	case "G729":
		return impairment{ie: 11, bpl: 19, lookahead: 5}, true
	case "G723":
		return impairment{ie: 15, bpl: 16.1, lookahead: 7.5}, true
	case "GSM":
		return impairment{ie: 20, bpl: defaultBpl}, true
	case "GSM-EFR":
		return impairment{ie: 5, bpl: 10}, true
	case "AMR":
		return impairment{ie: 5, bpl: 10, lookahead: 5}, true
	case "GSM-HR-08":
		return impairment{ie: 23, bpl: defaultBpl, lookahead: 4.4}, true
	case "ILBC":
		return impairment{ie: 11, bpl: 32}, true
	case "SPEEX":
		return impairment{ie: 11, bpl: 19, lookahead: 10}, true
	case "G728":
		return impairment{ie: 7, bpl: defaultBpl}, true
	case "G726-40":
		return impairment{ie: 2, bpl: defaultBpl}, true
	case "G726-32", "DVI4":
		return impairment{ie: 7, bpl: defaultBpl}, true
	case "G726-24":
		return impairment{ie: 25, bpl: defaultBpl}, true
	case "G726-16":
		return impairment{ie: 50, bpl: defaultBpl}, true
	}
	return impairment{}, false
}

// wideband is the wideband codecs; the clock rate tells for those that are both.
func wideband(codec string, rate uint32) (impairment, bool) {
	switch codec {
	case "G722":
		return impairment{ie: 13, bpl: defaultBpl, lookahead: 1.5, wide: true}, true
	case "AMR-WB":
		return impairment{ie: 13, bpl: 4.3, lookahead: 5, wide: true}, true
	case "G7221":
		return impairment{ie: 13, bpl: defaultBpl, lookahead: 20, wide: true}, true
	case "OPUS":
		return impairment{ie: 7, bpl: 11.3, lookahead: 6.5, wide: true}, true
	case "SPEEX":
		return impairment{ie: 13, bpl: 4.3, lookahead: 14, wide: true}, rate >= 16000
	case "L16":
		return impairment{ie: 0, bpl: defaultBpl, wide: true}, rate >= 16000
	}
	return impairment{}, false
}
