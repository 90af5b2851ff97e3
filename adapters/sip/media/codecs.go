package media

import "strings"

// impairment is what a codec does to speech.
type impairment struct {
	ie        float64 // equipment impairment factor Ie, or Ie,wb
	bpl       float64 // packet-loss robustness factor Bpl
	lookahead float64 // algorithmic delay beyond the packet's length, ms
	wide      bool    // on the wideband scale
}

// impairmentOf returns a codec's factors; false when none are published that could be used, or the payload is no audio.
func impairmentOf(p payload) (impairment, bool) {
	if !p.known || p.kind != audio {
		return impairment{}, false
	}
	i, ok := impairments(strings.ToUpper(p.codec))
	return i, ok
}

func impairments(codec string) (impairment, bool) {
	switch codec {
	case "PCMU", "PCMA":
		return impairment{ie: 0, bpl: 25.1}, true
	case "G729":
		return impairment{ie: 10, bpl: 19, lookahead: 5}, true
	}
	return impairment{}, false
}
