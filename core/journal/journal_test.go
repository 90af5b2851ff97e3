package journal

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// payload is what record seq holds in all tests: it tells its seq.
func payload(seq uint64) []byte {
	return fmt.Appendf(nil, "record %d %s", seq, string(make([]byte, seq%97)))
}

func open(t testing.TB, o Options) (*Journal, Report) {
	t.Helper()
	j, r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, r
}

func appendOne(j *Journal) (uint64, error) {
	seq := j.Stats().Last + 1
	return j.Append(Record{At: call.Time(seq) * call.Second, Kind: 1, Data: payload(seq)})
}

// fill appends and syncs records up to seq.
func fill(t testing.TB, j *Journal, upTo uint64) {
	t.Helper()
	for j.Stats().Last < upTo {
		if _, err := appendOne(j); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Sync(); err != nil {
		t.Fatal(err)
	}
}

// all reads the records from seq on, until the end, and what was damaged or gone among them.
func all(t testing.TB, j interface{ Read(uint64) (*Reader, error) }, from uint64) (recs []Record, passed []error) {
	t.Helper()
	r, err := j.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		var damage *DamageError
		var gone *GoneError
		switch {
		case err == io.EOF:
			return recs, passed
		case errors.As(err, &damage) || errors.As(err, &gone):
			passed = append(passed, err)
		case err != nil:
			t.Fatal(err)
		default:
			recs = append(recs, rec)
		}
	}
}

// sound fails the test unless rec is the record that was appended as rec.Seq.
func sound(t testing.TB, rec Record) {
	t.Helper()
	if string(rec.Data) != string(payload(rec.Seq)) || rec.At != call.Time(rec.Seq)*call.Second || rec.Kind != 1 {
		t.Fatalf("record %d is wrong: %+v", rec.Seq, rec)
	}
}

// whole fails the test unless j has the records from first to last and nothing else.
func whole(t testing.TB, j interface{ Read(uint64) (*Reader, error) }, first, last uint64) {
	t.Helper()
	recs, passed := all(t, j, first)
	if len(passed) > 0 {
		t.Fatal(passed)
	}
	for i, rec := range recs {
		if rec.Seq != first+uint64(i) {
			t.Fatalf("record %d where %d should be", rec.Seq, first+uint64(i))
		}
		sound(t, rec)
	}
	if n := uint64(len(recs)); n != last-first+1 {
		t.Fatalf("%d records, want %d", n, last-first+1)
	}
}

func TestRecordsComeBack(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4096}
	j, r := open(t, o)
	if r.First != 0 || r.Last != 0 {
		t.Errorf("%+v", r)
	}
	fill(t, j, 500)
	whole(t, j, 1, 500)
	if s := j.Stats(); s.Segments < 5 || s.First != 1 || s.Durable != 500 {
		t.Errorf("%+v", s)
	}
	if _, _, err := Open(o); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, r = open(t, o)
	if r.First != 1 || r.Last != 500 || len(r.Damage) > 0 || r.Torn.Bytes > 0 {
		t.Errorf("%+v", r)
	}
	fill(t, j, 510)
	whole(t, j, 1, 510)
	whole(t, j, 333, 510)
}

func TestReadersSeeOnlyWhatIsDurable(t *testing.T) {
	j, _ := open(t, Options{Dir: t.TempDir()})
	fill(t, j, 3)
	r, _ := j.Read(0)
	defer r.Close()
	for range 3 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := appendOne(j); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("%v", err)
	}
	if _, err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	if rec, err := r.Next(); err != nil || rec.Seq != 4 {
		t.Errorf("%+v %v", rec, err)
	}
}

func TestCursorsAndCheckpointsComeBack(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	j, _ := open(t, o)
	fill(t, j, 10)
	a, err := j.Cursor("kafka main")
	if err != nil {
		t.Fatal(err)
	}
	a.Advance(7)
	a.Advance(5)
	a.Advance(99)
	for seq := range uint64(4) {
		if err := j.SaveCheckpoint(seq+3, payload(seq+3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.SaveCheckpoint(11, nil); err == nil {
		t.Error("a checkpoint ahead of the journal")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, r := open(t, o)
	if len(r.Damage) > 0 {
		t.Error(r.Damage)
	}
	if a, _ = j.Cursor("kafka main"); a.Seq() != 10 {
		t.Errorf("at %d", a.Seq())
	}
	if seq, data, err := j.Checkpoint(); seq != 6 || string(data) != string(payload(6)) || err != nil {
		t.Errorf("%d %q %v", seq, data, err)
	}
	if n := len(j.checkpoints.kept); n != 2 {
		t.Errorf("%d checkpoints", n)
	}
}
