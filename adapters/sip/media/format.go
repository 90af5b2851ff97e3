package media

import "strings"

// Format is what the SDP says of one payload type. A slice of them is shared by all streams of a session and never
// changed after Negotiate got it.
type Format struct {
	PayloadType uint8  // 0 to 127
	Codec       string // encoding name of the rtpmap: PCMU, opus, telephone-event, CN
	ClockRate   int    // of the RTP timestamps, Hz; 8000 for G722 (RFC 3551, 4.5.2)
}

// kind says what a payload type carries.
type kind uint8

const (
	audio kind = iota
	telephoneEvent
	comfortNoise
)

// law is the companding of G.711, the only audio that is looked into.
type law uint8

const (
	noLaw law = iota
	muLaw
	aLaw
)

// payload is what is known of the payload type of the packets that pass now, so that a packet costs no look-up.
type payload struct {
	codec   string
	tick    float64 // ms of one timestamp unit, 0 when the clock rate is unknown
	rate    uint32  // Hz, 0 when unknown
	number  uint8
	known   bool // by the SDP or RFC 3551
	agreed  bool // the SDP names it
	kind    kind
	law     law
	defined bool // false before the first packet
}

// maxClockRate bounds what an SDP may claim: the highest registered is 90 kHz, of video; audio stays below 192 kHz.
const maxClockRate = 192000

// resolve finds payload type pt in the SDP's formats, or in the static table of RFC 3551.
func resolve(formats []Format, pt uint8) payload {
	p := payload{number: pt, defined: true}
	for i := range formats {
		if formats[i].PayloadType == pt {
			p.agreed = true
			p.set(formats[i].Codec, formats[i].ClockRate)
			break
		}
	}
	if p.rate != 0 {
		return p
	}
	if codec, rate := static(pt); codec != "" {
		p.set(codec, rate)
	}
	return p
}

func (p *payload) set(codec string, rate int) {
	p.codec, p.known, p.kind, p.law = codec, true, audio, noLaw
	switch {
	case strings.EqualFold(codec, "telephone-event"):
		p.kind = telephoneEvent
	case strings.EqualFold(codec, "CN"):
		p.kind = comfortNoise
	case strings.EqualFold(codec, "PCMU"):
		p.law = muLaw
	case strings.EqualFold(codec, "PCMA"):
		p.law = aLaw
	case strings.EqualFold(codec, "G722"):
		rate = 8000 // some SDP says 16000, the sampling rate; no sender's timestamps do (RFC 3551, 4.5.2)
	}
	if rate > 0 && rate <= maxClockRate {
		p.rate, p.tick = uint32(rate), 1000/float64(rate)
	}
}

// static is the audio of RFC 3551, table 4. Type 19 is the old number of comfort noise.
func static(pt uint8) (codec string, rate int) {
	switch pt {
	case 0:
		return "PCMU", 8000
	case 3:
		return "GSM", 8000
	case 4:
		return "G723", 8000
	case 5:
		return "DVI4", 8000
	case 6:
		return "DVI4", 16000
	case 7:
		return "LPC", 8000
	case 8:
		return "PCMA", 8000
	case 9:
		return "G722", 8000
	case 10, 11:
		return "L16", 44100
	case 12:
		return "QCELP", 8000
	case 13, 19:
		return "CN", 8000
	case 15:
		return "G728", 8000
	case 16:
		return "DVI4", 11025
	case 17:
		return "DVI4", 22050
	case 18:
		return "G729", 8000
	}
	return "", 0
}
