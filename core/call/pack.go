package call

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Pack writes values in a compact binary form, or reads them back, by the same code: each method takes a pointer to a
// field, and appends the field's value, which it does not touch, or replaces it by the value read. So what is written
// and what is read cannot part ways. It is lossless: a nil slice, an empty one, invalid UTF-8 and a NaN come back as they were. What pointed to
// one Event or Connection points to one again.
//
// Reading never panics, whatever the bytes, and takes memory in proportion to them; the first fault is kept for Done,
// and everything after it reads as zero. A field that is read into must be zero. The zero Pack is ready for Write or
// Read, and may be used again; it is not safe for concurrent use.
type Pack struct {
	buf     []byte // written
	src     string // to be read, from at on
	at      int
	reading bool
	ids     bool // words alone are remembered, ids are not
	own     bool // strings read are copies, a few together, so that none keeps all alive
	err     error
	last    Time // the latest, for each is told by its distance from the one before

	copy   string // of a part of src
	copyAt int    // where it begins

	written map[string]uint64 // words, by their numbers
	read    []string          // words, by their numbers
	conns   shared[Connection]
	events  shared[Event]
}

// shared numbers what is pointed to from several places.
type shared[T any] struct {
	written map[*T]uint64
	read    []*T
}

func (s *shared[T]) reset() {
	clear(s.written)
	clear(s.read)
	s.read = s.read[:0]
}

// maxWords bounds how many strings a Pack remembers: beyond it they are written out again.
const maxWords = 1 << 20

// Write starts writing at the end of dst.
func (p *Pack) Write(dst []byte) {
	p.reset()
	p.buf = dst
	if p.written == nil {
		p.written = map[string]uint64{}
	}
}

// Read starts reading src, of which nothing is kept.
func (p *Pack) Read(src []byte) {
	p.reset()
	p.reading = true
	p.src = string(src)
}

func (p *Pack) reset() {
	clear(p.written)
	clear(p.read)
	p.conns.reset()
	p.events.reset()
	*p = Pack{written: p.written, read: p.read[:0], conns: p.conns, events: p.events}
}

// Bytes returns what Write was given with what was written after it. The Pack keeps nothing of it.
func (p *Pack) Bytes() []byte {
	b := p.buf
	p.buf = nil
	return b
}

// Done returns the first fault met while reading; that bytes are left over is one.
func (p *Pack) Done() error {
	if p.err == nil && p.Left() > 0 {
		p.err = fmt.Errorf("%d bytes are left over at its end", p.Left())
	}
	return p.err
}

// Reading tells which way the Pack works.
func (p *Pack) Reading() bool { return p.reading }

// Failed reports whether reading has met a fault.
func (p *Pack) Failed() bool { return p.err != nil }

// Left is how many bytes are yet to be read: nothing has more elements than that.
func (p *Pack) Left() int { return len(p.src) - p.at }

// Fail notes a fault, unless there was one before.
func (p *Pack) Fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.at = len(p.src)
}

// Format writes the name and version of what follows. Reading checks them: version is the newest that can be read, and
// the one found is returned.
func (p *Pack) Format(name string, version uint64) uint64 {
	if !p.reading {
		p.buf = append(p.buf, name...)
		p.Uint(&version)
		return version
	}
	if !strings.HasPrefix(p.src[p.at:], name) {
		p.Fail("it does not begin with %q: it is damaged or something else", name)
		return 0
	}
	p.at += len(name)
	var found uint64
	p.Uint(&found)
	if found == 0 || found > version {
		p.Fail("it has format %s %d, and this version of ctigate reads up to %d: use the version that wrote it, or set it aside", name, found, version)
	}
	return found
}

// Uint takes one byte up to 127.
func (p *Pack) Uint(v *uint64) {
	if p.reading {
		*v = p.uvarint()
		return
	}
	p.put(*v)
}

func (p *Pack) put(v uint64) {
	for v >= 0x80 {
		p.buf = append(p.buf, byte(v)|0x80)
		v >>= 7
	}
	p.buf = append(p.buf, byte(v))
}

func (p *Pack) uvarint() uint64 {
	if p.at < len(p.src) && p.src[p.at] < 0x80 {
		p.at++
		return uint64(p.src[p.at-1])
	}
	var v uint64
	left := p.src[p.at:]
	for i := 0; i < len(left) && i < 10; i++ {
		c := left[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			p.at += i + 1
			return v
		}
	}
	p.Fail("a number is cut off, %d bytes before the end", p.Left())
	return 0
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// Int takes one byte from -64 to 63.
func (p *Pack) Int(v *int64) {
	if p.reading {
		*v = unzigzag(p.uvarint())
		return
	}
	p.put(zigzag(*v))
}

func packInt(p *Pack, v *int) {
	if p.reading {
		*v = int(unzigzag(p.uvarint()))
		return
	}
	p.put(zigzag(int64(*v)))
}

// Bool takes one byte.
func (p *Pack) Bool(v *bool) {
	if x := p.flag(*v); p.reading {
		*v = x
	}
}

func (p *Pack) flag(v bool) bool {
	if p.reading {
		return p.uvarint() != 0
	}
	if v {
		p.buf = append(p.buf, 1)
	} else {
		p.buf = append(p.buf, 0)
	}
	return v
}

// Float takes few bytes where the number is round.
func (p *Pack) Float(v *float64) {
	if p.reading {
		*v = math.Float64frombits(bits.ReverseBytes64(p.uvarint()))
		return
	}
	p.put(bits.ReverseBytes64(math.Float64bits(*v)))
}

// Time takes one byte when unknown, else few when it is near the one before. Zero is told by 0; the other instants by
// their distance from the last one, without the distance that would lead to zero.
func (p *Pack) Time(v *Time) {
	zero := zigzag(-int64(p.last))
	if !p.reading {
		p.putTime(*v, zero)
		return
	}
	z := p.uvarint()
	if z == 0 {
		*v = 0
		return
	}
	if z <= zero {
		z--
	}
	p.last += Time(unzigzag(z))
	*v = p.last
}

func (p *Pack) putTime(t Time, zero uint64) {
	if t == 0 {
		p.put(0)
		return
	}
	z := zigzag(int64(t - p.last))
	if z < zero {
		z++
	}
	p.put(z)
	p.last = t
}

// A string is told by its length and how it is told, in the lowest two bits, and its bytes.
const (
	inline     = iota // not remembered
	remembered        // remembered under the next number
	repeated          // the length is the number of a remembered one
)

// Word is a string that comes often.
func (p *Pack) Word(v *string) {
	switch {
	case p.reading:
		*v = p.text()
	case *v == "":
		p.put(0)
	default:
		p.putWord(*v)
	}
}

func (p *Pack) putWord(s string) {
	if n, ok := p.written[s]; ok {
		p.put(n<<2 | repeated)
		return
	}
	how := uint64(inline)
	if n := len(p.written); n < maxWords {
		p.written[s] = uint64(n)
		how = remembered
	}
	p.put(uint64(len(s))<<2 | how)
	p.buf = append(p.buf, s...)
}

// String is a string that comes a few times, or once.
func (p *Pack) String(v *string) {
	if p.reading || !p.ids {
		p.Word(v)
		return
	}
	p.put(uint64(len(*v)) << 2)
	p.buf = append(p.buf, *v...)
}

func (p *Pack) text() string {
	n := p.uvarint()
	how, n := n&3, n>>2
	if how == repeated {
		return p.again(n)
	}
	if n > uint64(p.Left()) {
		p.Fail("a string of %d bytes is said to follow, %d are left", n, p.Left())
		return ""
	}
	s := p.src[p.at : p.at+int(n)]
	if p.own {
		s = p.copied(int(n))
	}
	p.at += int(n)
	if how == remembered {
		p.read = append(p.read, s)
	}
	return s
}

// copied returns the next n bytes as part of a copy of some more of them.
func (p *Pack) copied(n int) string {
	const window = 4096
	from := p.at - p.copyAt
	if p.copy == "" || from+n > len(p.copy) {
		p.copy = strings.Clone(p.src[p.at : p.at+min(max(n, window), p.Left())])
		p.copyAt, from = p.at, 0
	}
	return p.copy[from : from+n]
}

func (p *Pack) again(n uint64) string {
	if n >= uint64(len(p.read)) {
		p.Fail("string number %d is meant, %d are known", n, len(p.read))
		return ""
	}
	return p.read[n]
}

// PackWord is Word for the types of string.
func PackWord[T ~string](p *Pack, v *T) {
	s := string(*v)
	p.Word(&s)
	if p.reading {
		*v = T(s)
	}
}

// Data is bytes, which are not remembered.
func (p *Pack) Data(v *[]byte) {
	n, is := p.size(len(*v), *v != nil)
	switch {
	case !is:
	case !p.reading:
		p.buf = append(p.buf, *v...)
	case n > p.Left():
		p.Fail("%d bytes are said to follow, %d are left", n, p.Left())
	default:
		*v = []byte(p.src[p.at : p.at+n])
		p.at += n
	}
}

// fixed packs the bytes of v, whose number is known.
func (p *Pack) fixed(v []byte) {
	switch {
	case !p.reading:
		p.buf = append(p.buf, v...)
	case len(v) > p.Left():
		p.Fail("%d bytes are missing at its end", len(v)-p.Left())
	default:
		copy(v, p.src[p.at:])
		p.at += len(v)
	}
}

// size is the number of elements of a slice or map that is not nil.
func (p *Pack) size(n int, is bool) (int, bool) {
	if !p.reading {
		if !is {
			p.put(0)
			return 0, false
		}
		p.put(uint64(n) + 1)
		return n, true
	}
	m := p.uvarint()
	if m == 0 {
		return 0, false
	}
	if m-1 > uint64(p.Left()) { // an element takes a byte at least
		p.Fail("%d elements are said to follow in %d bytes", m-1, p.Left())
		return 0, false
	}
	return int(m - 1), true
}

// PackList packs v, element by element.
func PackList[T any](p *Pack, v *[]T, each func(*Pack, *T)) {
	n, is := p.size(len(*v), *v != nil)
	if !is {
		return
	}
	if !p.reading {
		for i := range *v {
			each(p, &(*v)[i])
		}
		return
	}
	const trusted = 64 // elements that room is made for before they are seen
	out := make([]T, 0, min(n, trusted))
	for range n {
		var x T
		out = append(out, x)
		each(p, &out[len(out)-1])
		if p.err != nil {
			return
		}
	}
	*v = out
}

// optional packs what v points to, if anything.
func optional[T any](p *Pack, v **T, fields func(*Pack, *T)) {
	if !p.flag(*v != nil) {
		return
	}
	if p.reading {
		*v = new(T)
	}
	fields(p, *v)
}

// share packs what v points to: 0 is nothing, 1 something new, and the rest are those before by their numbers.
func share[T any](p *Pack, s *shared[T], v **T, fields func(*Pack, *T)) {
	if p.reading {
		s.take(p, v, fields)
		return
	}
	if *v == nil {
		p.put(0)
		return
	}
	if n, ok := s.written[*v]; ok {
		p.put(n + 2)
		return
	}
	if s.written == nil {
		s.written = map[*T]uint64{}
	}
	s.written[*v] = uint64(len(s.written))
	p.put(1)
	fields(p, *v)
}

func (s *shared[T]) take(p *Pack, v **T, fields func(*Pack, *T)) {
	switch n := p.uvarint(); {
	case n == 0:
	case n == 1:
		x := new(T)
		s.read = append(s.read, x)
		fields(p, x)
		*v = x
	case n-2 < uint64(len(s.read)):
		*v = s.read[n-2]
	default:
		p.Fail("thing number %d is meant, %d are known", n-2, len(s.read))
	}
}
