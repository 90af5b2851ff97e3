package media

import (
	"encoding/binary"

	"github.com/ctigate/ctigate/core/call"
)

// Digit is one DTMF digit, by RFC 4733 (or 2833).
type Digit struct {
	Digit      string    // 0-9, *, #, A-D
	Start      call.Time // arrival of its first packet
	End        call.Time // arrival of the packet that ended it, or of its last one when its end was lost
	DurationMS int       // by its timestamps
}

const (
	// eventSilence is how long a digit may be silent before its end is taken for lost: senders update it every 20 to
	// 50 ms.
	eventSilence = 300 * call.Millisecond
	digits       = "0123456789*#ABCD"
)

// dtmf follows one event at a time. All packets of an event have the timestamp of its start (RFC 4733, 2.2.1), which
// makes retransmitted, duplicate and reordered ones harmless.
type dtmf struct {
	start, last call.Time
	ts          uint32 // of the event, or of its latest segment
	rate        uint32
	before      uint32 // units of the segments before this one
	duration    uint32 // units, of this segment
	event       uint8
	known       bool // ts is valid
	open        bool // begun and not reported
}

// packet takes a telephone-event payload and appends the digits it finishes: at most two, one whose end was lost and
// one that came whole. In sequence, another timestamp is another event, even a smaller one: switches pass events on with
// timestamps of their own. Of packets that come late, only a larger one is.
func (d *dtmf) packet(at call.Time, h *header, rate uint32, inSequence bool, out []Digit) []Digit {
	if len(h.payload) < 4 {
		return out
	}
	event, end := h.payload[0], h.payload[1]&0x80 != 0
	duration := uint32(binary.BigEndian.Uint16(h.payload[2:]))
	switch {
	case !d.known || h.ts != d.ts && (inSequence || int32(h.ts-d.ts) > 0):
		if !d.continues(event, h) {
			out = d.finish(out)
			d.begin(at, event, h.ts, rate)
		} else {
			d.before += h.ts - d.ts
			d.ts, d.duration = h.ts, 0
		}
	case h.ts != d.ts || !d.open || event != d.event:
		return out // of an event that is over
	}
	d.last = at
	d.lengthen(duration)
	if end {
		out = d.finish(out)
	}
	return out
}

func (d *dtmf) begin(at call.Time, event uint8, ts, rate uint32) {
	*d = dtmf{start: at, last: at, ts: ts, rate: rate, event: event, known: true, open: true}
}

// continues says whether a newer timestamp is the next segment of a long event (RFC 4733, 2.5.1.3): the same event,
// from where the last segment ended, without a marker.
func (d *dtmf) continues(event uint8, h *header) bool {
	return d.open && event == d.event && !h.marker && d.duration >= 0x8000 && h.ts-d.ts <= 0xffff && h.ts-d.ts >= d.duration
}

// lengthen takes the duration of a packet. RFC 2833 senders let it roll over.
func (d *dtmf) lengthen(duration uint32) {
	switch {
	case duration+0x8000 < d.duration:
		d.before += 0x10000
		d.duration = duration
	case duration > d.duration && (d.before == 0 || duration-d.duration < 0x8000):
		d.duration = duration
	}
}

// finish reports the open event.
func (d *dtmf) finish(out []Digit) []Digit {
	if !d.open {
		return out
	}
	d.open = false
	if int(d.event) >= len(digits) {
		return out // flash, or a tone
	}
	g := Digit{Digit: digits[d.event : d.event+1], Start: d.start, End: d.last}
	if d.rate != 0 {
		g.DurationMS = int((uint64(d.before+d.duration)*1000 + uint64(d.rate)/2) / uint64(d.rate))
	}
	return append(out, g)
}

// expire reports an event that has been silent for too long.
func (d *dtmf) expire(now call.Time, out []Digit) []Digit {
	if d.open && now-d.last > eventSilence {
		return d.finish(out)
	}
	return out
}
