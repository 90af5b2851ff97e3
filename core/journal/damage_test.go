package journal

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

const smallLast = 15

// small makes a journal of several segments with two cursors, saved twice, and two checkpoints.
func small(t testing.TB) *fakeFS {
	t.Helper()
	f := newFakeFS(1)
	j, _ := open(t, Options{Dir: "d", FS: f, SegmentBytes: 300})
	a, _ := j.Cursor("kafka")
	b, _ := j.Cursor("file")
	for i, upTo := range []uint64{5, 10, smallLast} {
		fill(t, j, upTo)
		if i > 0 {
			if err := j.SaveCheckpoint(upTo-2, payload(upTo-2)); err != nil {
				t.Fatal(err)
			}
		}
		a.Advance(upTo - 3)
		b.Advance(upTo - 4)
		if err := a.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// with is a copy of f whose file name holds b.
func (f *fakeFS) with(name string, b []byte) *fakeFS {
	g := newFakeFS(2)
	for n, node := range f.names {
		g.names[n] = &inode{now: node.now, stable: bytes.Clone(node.now)}
	}
	if name != "" {
		g.names[name] = &inode{now: b, stable: bytes.Clone(b)}
	}
	maps.Copy(g.stable, g.names)
	return g
}

// touched is the seqs of the records that stand, in part, in [from, to) of a segment's bytes.
func touched(t testing.TB, b []byte, from, to int64) map[uint64]bool {
	t.Helper()
	seqs := map[uint64]bool{}
	p, ok := parseSegmentHeader(b)
	if !ok {
		t.Fatal("no header")
	}
	for off := int64(headerSize); off < int64(len(b)); {
		h, ok := p.parseHead(off, b[off:])
		if !ok {
			t.Fatal("no record")
		}
		end := off + int64(frameSize+h.length)
		if off < to && from < end {
			seqs[h.seq] = true
		}
		off = end
	}
	return seqs
}

// survives opens f, of which the records in lost may be missing, and looks for everything else.
func survives(t testing.TB, f *fakeFS, file string, lost map[uint64]bool) Report {
	t.Helper()
	j, r := open(t, Options{Dir: "d", FS: f, SegmentBytes: 300})
	defer j.Close()
	recs, passed := all(t, j, 1)
	want := uint64(1)
	for _, rec := range recs {
		sound(t, rec)
		for ; want < rec.Seq; want++ {
			if !lost[want] {
				t.Fatalf("%s: record %d is missing; passed over: %v", file, want, passed)
			}
		}
		want++
	}
	for ; want <= smallLast; want++ {
		if !lost[want] {
			t.Fatalf("%s: record %d is missing at the end", file, want)
		}
	}
	at := j.Cursors()
	if k, f := at["kafka"], at["file"]; len(at) != 2 || k != 12 && k != 7 || f != 11 && f != 6 {
		t.Fatalf("%s: cursors %v", file, at)
	}
	seq, data, err := j.Checkpoint()
	if err != nil || seq != 13 && seq != 8 || string(data) != string(payload(seq)) {
		t.Fatalf("%s: checkpoint %d %q %v", file, seq, data, err)
	}
	if last := j.Stats().Last; last < max(at["kafka"], seq) { // what a cursor has seen is never said of another record
		t.Fatalf("%s: appending goes on after %d, cursors are at %v", file, last, at)
	}
	fill(t, j, j.Stats().Last+2)
	return r
}

func bytesTold(r Report) (n int64) {
	for _, d := range r.Damage {
		n += d.Bytes
	}
	return n + r.Torn.Bytes
}

func TestABitFlipsAtEveryOffset(t *testing.T) {
	f := small(t)
	flips := 0
	for name, node := range f.names {
		for off := range node.now {
			lost := map[uint64]bool{}
			if strings.HasSuffix(name, segmentSuffix) && off >= headerSize {
				lost = touched(t, node.now, int64(off), int64(off)+1)
			}
			for bit := range 8 {
				b := bytes.Clone(node.now)
				b[off] ^= 1 << bit
				r := survives(t, f.with(name, b), name, lost)
				if n := bytesTold(r); n == 0 {
					t.Fatalf("%s: bit %d of byte %d: no damage told: %+v", name, bit, off, r)
				}
				flips++
			}
		}
	}
	t.Logf("%d flips in %d files", flips, len(f.names))
	if flips < 9_000 || len(f.names) < 8 {
		t.Errorf("%d flips in %d files only", flips, len(f.names))
	}
}

func TestEveryLength(t *testing.T) {
	f := small(t)
	for name, node := range f.names {
		for size := range node.now {
			lost := map[uint64]bool{}
			if strings.HasSuffix(name, segmentSuffix) {
				lost = touched(t, node.now, int64(size), int64(len(node.now)))
			}
			survives(t, f.with(name, node.now[:size]), name, lost)
		}
	}
}

func TestAMissingSegmentIsTold(t *testing.T) {
	f := small(t)
	names := slices.Sorted(maps.Keys(f.names))
	g := f.with("", nil)
	delete(g.names, names[1])
	lost := touched(t, f.names[names[1]].now, 0, 1<<20)
	r := survives(t, g, names[1], lost)
	if len(r.Damage) != 1 || r.Damage[0].Lost() != uint64(len(lost)) {
		t.Errorf("%+v", r)
	}
}

// A record whose data is a record, as it would stand there without the key, is not taken for one when what is around it
// is damaged; nor is one copied from elsewhere in the journal.
func TestARecordInARecordIsNotTaken(t *testing.T) {
	f := newFakeFS(1)
	j, _ := open(t, Options{Dir: "d", FS: f})
	fill(t, j, 2)
	seg := f.names[segmentName(1)]
	guess := newPlace([keySize]byte{}, 1)
	evil := append(guess.appendFrame(nil, int64(len(seg.now))+frameSize, Record{Seq: 3, Kind: 9, Data: []byte("evil")}), seg.now[headerSize:]...)
	if _, err := j.Append(Record{At: 3 * call.Second, Kind: 1, Data: evil}); err != nil {
		t.Fatal(err)
	}
	start := len(seg.now) - len(evil) - frameSize
	if _, err := j.Append(Record{At: 4 * call.Second, Kind: 1, Data: payload(4)}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(seg.now)
	binary.LittleEndian.PutUint32(b[start+4:], 7) // its length
	j, r := open(t, Options{Dir: "d", FS: f.with(segmentName(1), b)})
	recs, _ := all(t, j, 1)
	if len(recs) != 3 || recs[2].Seq != 4 || len(r.Damage) != 1 || r.Damage[0].FirstSeq != 3 || r.Damage[0].LastSeq != 3 {
		t.Errorf("%d records, %+v", len(recs), r)
	}
}

func TestARecordHoldsInItsPlaceOnly(t *testing.T) {
	p := newPlace(newKey(), 7)
	b := p.appendFrame(nil, 1000, Record{Seq: 9, Data: []byte("x")})
	if _, ok := p.parseHead(1000, b); !ok {
		t.Error("not taken where it stands")
	}
	for _, off := range []int64{0, 999, 1001, 1000 + 1<<31, 1000 + 1<<32} {
		if _, ok := p.parseHead(off, b); ok {
			t.Errorf("taken at %d", off)
		}
	}
	for _, q := range []place{newPlace(p.key, 8), newPlace(newKey(), 7)} {
		if _, ok := q.parseHead(1000, b); ok {
			t.Error("taken in another segment")
		}
	}
}

func FuzzSegment(f *testing.F) {
	base := small(f)
	f.Add([]byte(nil))
	f.Add(base.names[segmentName(1)].now)
	f.Fuzz(func(t *testing.T, b []byte) {
		g := base.with(segmentName(1), b)
		g = g.with(segmentName(smallLast+1), b)
		j, _ := open(t, Options{Dir: "d", FS: g})
		_, _ = all(t, j, 1)
		fill(t, j, j.Stats().Last+2)
		_ = j.Close()
	})
}

// Damage of any form: each triple of bytes names a place and what to do there.
func FuzzDamage(f *testing.F) {
	base := small(f)
	names := slices.Sorted(maps.Keys(base.names))
	f.Add([]byte{0, 40, 1})
	f.Fuzz(func(t *testing.T, edits []byte) {
		g := base.with("", nil)
		for ; len(edits) >= 3; edits = edits[3:] {
			name := names[int(edits[0])%len(names)]
			b := bytes.Clone(g.names[name].now)
			if len(b) == 0 {
				continue
			}
			at := int(edits[1]) * len(b) / 256
			switch edits[2] % 4 {
			case 0:
				b = b[:at]
			case 1:
				b = append(b[:at:at], b[min(len(b), at+int(edits[2])):]...)
			case 2:
				b = append(b[:at:at], append([]byte(mark), b[at:]...)...)
			default:
				b[at] ^= edits[2]
			}
			g = g.with(name, b)
		}
		j, _ := open(t, Options{Dir: "d", FS: g})
		recs, _ := all(t, j, 1)
		for _, rec := range recs {
			sound(t, rec)
		}
		_ = j.Close()
	})
}
