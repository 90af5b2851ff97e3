package cloudevents

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/ctigate/ctigate/core/call"
)

// buf is JSON under construction. A field writes its own comma, so that fields can be left out freely.
type buf []byte

// key starts a member of the object that was opened last.
func (b *buf) key(k string) {
	if last := (*b)[len(*b)-1]; last != '{' {
		*b = append(*b, ',')
	}
	*b = append(*b, '"')
	*b = append(*b, k...)
	*b = append(*b, '"', ':')
}

// elem starts an element of the array that was opened last.
func (b *buf) elem() {
	if last := (*b)[len(*b)-1]; last != '[' {
		*b = append(*b, ',')
	}
}

func (b *buf) open(c byte)  { *b = append(*b, c) }
func (b *buf) close(c byte) { *b = append(*b, c) }

// str writes a string member, even when empty.
func (b *buf) str(k, v string) {
	b.key(k)
	*b = appendString(*b, v)
}

// optStr leaves an empty string out.
func (b *buf) optStr(k, v string) {
	if v != "" {
		b.str(k, v)
	}
}

func (b *buf) int(k string, v int64) {
	b.key(k)
	*b = strconv.AppendInt(*b, v, 10)
}

func (b *buf) optInt(k string, v int64) {
	if v != 0 {
		b.int(k, v)
	}
}

func (b *buf) optUint(k string, v uint64) {
	if v != 0 {
		b.key(k)
		*b = strconv.AppendUint(*b, v, 10)
	}
}

func (b *buf) float(k string, v float64) {
	b.key(k)
	*b = appendFloat(*b, v)
}

func (b *buf) optFloat(k string, v float64) {
	if v != 0 {
		b.float(k, v)
	}
}

func (b *buf) bool(k string, v bool) {
	b.key(k)
	*b = strconv.AppendBool(*b, v)
}

// time writes null for an unknown instant.
func (b *buf) time(k string, t call.Time) {
	b.key(k)
	if t == 0 {
		*b = append(*b, "null"...)
		return
	}
	*b = append(*b, '"')
	*b = appendTime(*b, t)
	*b = append(*b, '"')
}

func (b *buf) optTime(k string, t call.Time) {
	if t != 0 {
		b.time(k, t)
	}
}

func (b *buf) optStrings(k string, vs []string) {
	if len(vs) == 0 {
		return
	}
	b.key(k)
	b.open('[')
	for _, v := range vs {
		b.elem()
		*b = appendString(*b, v)
	}
	b.close(']')
}

// appendFloat follows encoding/json (ECMA-262 number to string); what JSON cannot say becomes null.
func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	abs := math.Abs(f)
	if abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); n >= 4 && b[n-4] == 'e' && (b[n-3] == '-' || b[n-3] == '+') && b[n-2] == '0' {
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

const hexDigits = "0123456789abcdef"

// plain marks the ASCII bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString quotes s as encoding/json does with HTML escaping off: invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			b = appendEscaped(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if esc := runeEscape(r, size); esc != "" {
			b = append(b, s[start:i]...)
			b = append(b, esc...)
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// runeEscape names the runes that JSON text does not carry as they are: broken ones, and the line separators that
// JavaScript trips over.
func runeEscape(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size == 1:
		return `\ufffd`
	case r == '\u2028':
		return `\u2028`
	case r == '\u2029':
		return `\u2029`
	}
	return ""
}

func appendEscaped(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

const (
	secondsPerDay = 86400
	minYear0      = call.Time(-62167219200 * 1e6) // 0000-01-01
	maxYear9999   = call.Time(253402300800*1e6 - 1)
)

// appendTime is Time.AppendFormat for the years RFC 3339 knows, several times faster: a call holds some twenty times.
func appendTime(b []byte, t call.Time) []byte {
	if t < minYear0 || t > maxYear9999 {
		return t.AppendFormat(b)
	}
	sec, micro := int64(t)/1e6, int64(t)%1e6
	if micro < 0 {
		sec, micro = sec-1, micro+1e6
	}
	days, rest := sec/secondsPerDay, sec%secondsPerDay
	if rest < 0 {
		days, rest = days-1, rest+secondsPerDay
	}
	y, m, d := civil(days)
	b = append(b, byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-')
	b = append(two(b, m), '-')
	b = append(two(b, d), 'T')
	b = append(two(b, rest/3600), ':')
	b = append(two(b, rest/60%60), ':')
	b = append(two(b, rest%60), '.')
	b = two(two(two(b, micro/10000), micro/100%100), micro%100)
	return append(b, 'Z')
}

func two(b []byte, v int64) []byte { return append(b, byte('0'+v/10), byte('0'+v%10)) }

// civil turns days since 1970-01-01 into a proleptic Gregorian date. Years are counted from March, so that the leap
// day is the last of its year.
func civil(days int64) (y, m, d int64) {
	days += 719468 // 0000-03-01
	era := days / 146097
	if days < 0 {
		era = (days - 146096) / 146097
	}
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = doy - (153*mp+2)/5 + 1
	m = mp + 3
	y = yoe + era*400
	if m > 12 {
		m, y = m-12, y+1
	}
	return y, m, d
}
