package sdp

import "strings"

// static is the payload types that need no a=rtpmap (RFC 3551, tables 4 and 5).
func static(pt uint8) (f Format, ok bool) {
	f = Format{PayloadType: pt, ClockRate: 8000, SampleRate: 8000, Channels: 1}
	switch pt {
	case 0:
		f.Codec = "PCMU"
	case 3:
		f.Codec = "GSM"
	case 4:
		f.Codec = "G723"
	case 5:
		f.Codec = "DVI4"
	case 6:
		f.Codec, f.ClockRate, f.SampleRate = "DVI4", 16000, 16000
	case 7:
		f.Codec = "LPC"
	case 8:
		f.Codec = "PCMA"
	case 9:
		f.Codec, f.SampleRate = "G722", 16000
	case 10:
		f.Codec, f.ClockRate, f.SampleRate, f.Channels = "L16", 44100, 44100, 2
	case 11:
		f.Codec, f.ClockRate, f.SampleRate = "L16", 44100, 44100
	case 12:
		f.Codec = "QCELP"
	case 13:
		f.Codec = "CN"
	case 14:
		f.Codec, f.ClockRate, f.SampleRate = "MPA", 90000, 0
	case 15:
		f.Codec = "G728"
	case 16:
		f.Codec, f.ClockRate, f.SampleRate = "DVI4", 11025, 11025
	case 17:
		f.Codec, f.ClockRate, f.SampleRate = "DVI4", 22050, 22050
	case 18:
		f.Codec = "G729"
	default:
		return staticVideo(pt)
	}
	return f, true
}

func staticVideo(pt uint8) (f Format, ok bool) {
	f = Format{PayloadType: pt, ClockRate: 90000}
	switch pt {
	case 25:
		f.Codec = "CelB"
	case 26:
		f.Codec = "JPEG"
	case 28:
		f.Codec = "nv"
	case 31:
		f.Codec = "H261"
	case 32:
		f.Codec = "MPV"
	case 33:
		f.Codec = "MP2T"
	case 34:
		f.Codec = "H263"
	default:
		return Format{PayloadType: pt}, false
	}
	return f, true
}

// Static returns the format that a payload type has without any a=rtpmap (RFC 3551, tables 4 and 5).
func Static(payloadType uint8) (Format, bool) { return static(payloadType) }

// codecNames are the IANA spellings of names that are often written otherwise. An array, not a map: it is never changed.
var codecNames = [...]string{
	"PCMU", "PCMA", "G722", "G729", "opus", "telephone-event", "CN", "GSM", "GSM-EFR", "G723", "G728", "G7221", "G719",
	"G726-16", "G726-24", "G726-32", "G726-40", "G729D", "G729E", "AMR", "AMR-WB", "EVS", "iLBC", "speex", "SILK", "L16",
	"DVI4", "LPC", "QCELP", "EVRC", "red", "rtx", "ulpfec", "VP8", "VP9", "H261", "H263", "H263-1998", "H264", "H265",
	"AV1", "JPEG",
}

// canonical is a codec's name as IANA spells it: names are compared without regard to case (RFC 4855, 3).
func canonical(name string) string {
	for i := range codecNames {
		if len(name) == len(codecNames[i]) && strings.EqualFold(name, codecNames[i]) {
			return codecNames[i]
		}
	}
	return name
}

// sampleRate is the audio's rate, which a few codecs do not tell by their clock.
func sampleRate(codec string, clock int) int {
	switch codec {
	case "G722": // the clock is a mistake kept for compatibility (RFC 3551, 4.5.2)
		return 16000
	case "opus":
		return 48000
	case "MPA":
		return 0
	}
	return clock
}

// IsSpeech reports whether the format carries the call's audio or video rather than tones, comfort noise, redundancy or
// error correction.
func (f Format) IsSpeech() bool {
	switch f.Codec {
	case "telephone-event", "tone", "CN", "red", "rtx", "ulpfec", "flexfec", "parityfec":
		return false
	}
	return true
}

// same reports whether two formats are one codec, whatever their payload types (RFC 3264, 6.1).
func (f Format) same(g Format) bool {
	if !strings.EqualFold(f.Codec, g.Codec) || f.ClockRate != g.ClockRate {
		return false
	}
	return f.Channels == g.Channels || f.Codec == "opus" // which is always opus/48000/2, and often written without the 2
}
