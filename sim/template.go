package sim

import (
	"strconv"
	"time"
)

// op is what a placeholder is filled with.
type op uint8

const (
	opNone      op = iota
	opSlot         // value arg of the call
	opMicro        // time as microseconds since the epoch
	opSec          // as seconds
	opISO          // 2026-11-22T12:48:34.751+0000
	opLocal        // 2026-11-22 12:48:34
	opHTTP         // Sun, 22 Nov 2026 12:48:34 GMT
	opDurMicro     // from time to time2: microseconds
	opDurMilli     // difference of the two in whole milliseconds
	opDurSec       // difference of the two in whole seconds
	opWaitMilli    // the same, times 1000
	opTookMilli    // milliseconds that passed
	opTookSec      // seconds that passed
	opSeq          // the event's sequence number
	opApp          // the reader's ARI application: nothing is written, its place is noted
	opGlobal       // value arg of the switch
	opBoot         // when the switch started, in seconds
	opTaken        // calls agent arg has taken
	opLast         // when agent arg's last call ended, in seconds
)

// piece is some literal bytes and the placeholder after them. Times are microseconds of the recording's own time line,
// whose zero is its first event.
type piece struct {
	lit   []byte
	op    op
	url   bool // percent-encode what is filled in (event plain)
	maybe bool // a moment that a call cut short may never have reached
	arg   int
	t, t2 int64
}

type template []piece

// append writes the frame of call c that t describes.
func (t template) append(b []byte, c *simCall) []byte {
	for i := range t {
		p := &t[i]
		b = append(b, p.lit...)
		if p.op == opNone {
			continue
		}
		if !p.url {
			b = p.fill(b, c)
			continue
		}
		var tmp [128]byte
		b = appendURL(b, p.fill(tmp[:0], c))
	}
	return b
}

func (p *piece) fill(b []byte, c *simCall) []byte {
	switch p.op {
	case opSlot:
		return append(b, c.vals[p.arg]...)
	case opGlobal:
		return append(b, c.sw.globals[p.arg]...)
	case opSeq:
		return strconv.AppendInt(b, c.seq, 10)
	case opApp:
		c.sw.appAt = len(b)
		return b
	case opBoot:
		return strconv.AppendInt(b, c.sw.stamp(c.sw.boot)/1e6, 10)
	case opTaken:
		return strconv.AppendInt(b, int64(c.agent(p.arg).taken), 10)
	case opLast:
		return strconv.AppendInt(b, c.agent(p.arg).last/1e6, 10)
	case opDurMicro:
		return strconv.AppendInt(b, c.cutDur(p, 1), 10)
	case opDurMilli:
		return strconv.AppendInt(b, c.cutDur(p, 1e3), 10)
	case opTookMilli:
		return strconv.AppendInt(b, c.cutDur(p, 1)/1e3, 10)
	case opTookSec:
		return strconv.AppendInt(b, c.cutDur(p, 1)/1e6, 10)
	case opWaitMilli:
		return strconv.AppendInt(b, c.cutDur(p, 1e6)*1000, 10)
	case opDurSec:
		return strconv.AppendInt(b, c.cutDur(p, 1e6), 10)
	}
	if p.maybe && c.skipped(p.t) {
		return append(b, '0')
	}
	return appendTime(b, p.op, c.sw.stamp(c.warp(p.t)), &c.sw.clock)
}

// clockText remembers the last second as text, since most times of an event fall into it.
type clockText struct {
	sec   [3]int64
	text  [3]string
	valid [3]bool
}

func (k *clockText) get(i int, sec int64, layout string) string {
	if !k.valid[i] || k.sec[i] != sec {
		k.sec[i], k.valid[i] = sec, true
		k.text[i] = time.Unix(sec, 0).UTC().Format(layout)
	}
	return k.text[i]
}

func appendTime(b []byte, o op, micros int64, k *clockText) []byte {
	sec := micros / 1e6
	switch o {
	case opMicro:
		return strconv.AppendInt(b, micros, 10)
	case opSec:
		return strconv.AppendInt(b, sec, 10)
	case opISO:
		b = append(b, k.get(0, sec, "2006-01-02T15:04:05")...)
		ms := micros / 1e3 % 1e3
		return append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), '+', '0', '0', '0', '0')
	case opLocal:
		return append(b, k.get(1, sec, "2006-01-02 15:04:05")...)
	default:
		return append(b, k.get(2, sec, "Mon, 02 Jan 2006 15:04:05 GMT")...)
	}
}

const hexUpper = "0123456789ABCDEF"

// appendURL percent-encodes as FreeSWITCH does (switch_url_encode).
func appendURL(b, s []byte) []byte {
	for _, c := range s {
		if c <= ' ' || c > '~' || urlUnsafe[c] {
			b = append(b, '%', hexUpper[c>>4], hexUpper[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}

var urlUnsafe = func() (t [256]bool) {
	for _, c := range "\"#%&+:;<=>?@[\\]^`{|}" {
		t[c] = true
	}
	return
}()

// appendJSONText escapes as jansson and cJSON do: no more than RFC 8259 asks for.
func appendJSONText(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		default:
			if c < ' ' {
				b = append(b, `\u00`...)
				b = append(b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
				continue
			}
			b = append(b, c)
		}
	}
	return b
}
