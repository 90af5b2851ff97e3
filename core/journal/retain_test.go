package journal

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

func TestTrimWaitsForCursorsAndTheSecondNewestCheckpoint(t *testing.T) {
	j, _ := open(t, Options{Dir: "d", FS: newFakeFS(1), SegmentBytes: 300})
	fill(t, j, 60)
	c, _ := j.Cursor("a")
	for _, x := range []struct{ cursor, checkpoint, keep, want uint64 }{
		{20, 0, 100, 20}, {40, 30, 100, 20}, {40, 50, 100, 30}, {40, 55, 100, 40}, {60, 60, 45, 45},
	} {
		c.Advance(x.cursor)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if x.checkpoint > 0 {
			if err := j.SaveCheckpoint(x.checkpoint, nil); err != nil {
				t.Fatal(err)
			}
		}
		j.keep = 0
		j.Trim(x.keep)
		if first := j.Stats().First; first > x.want+1 || first+12 < x.want {
			t.Errorf("%+v: the first is %d", x, first)
		}
	}
	if d := j.TakeDropped(); d != nil {
		t.Errorf("%+v", d)
	}
	whole(t, j, j.Stats().First, 60)
}

func TestFullBlocks(t *testing.T) {
	j, _ := open(t, Options{Dir: "d", FS: newFakeFS(1), MaxBytes: 40_000})
	c, _ := j.Cursor("a")
	var err error
	for err == nil {
		if _, err = appendOne(j); err == nil {
			_, err = j.Sync()
		}
	}
	s := j.Stats()
	if !errors.Is(err, ErrFull) || errors.Is(err, ErrNoSpace) || s.Bytes > 40_000 || s.Bytes < 39_000 {
		t.Fatal(err, s.Bytes)
	}
	j.Trim(s.Last)
	if _, err := appendOne(j); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	c.Advance(s.Last)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	fill(t, j, s.Last+100) // Append trims by itself
	if _, err := j.Append(Record{Data: make([]byte, 40_000)}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestFullDropsTheOldestAndTells(t *testing.T) {
	f := newFakeFS(1)
	o := Options{Dir: "d", FS: f, MaxBytes: 40_000, WhenFull: DropOldest}
	j, _ := open(t, o)
	ahead, _ := j.Cursor("ahead")
	if _, err := j.Cursor("behind"); err != nil {
		t.Fatal(err)
	}
	fill(t, j, 200)
	ahead.Advance(150)
	fill(t, j, 1000)
	s := j.Stats()
	if s.Bytes > 40_000 || s.First < 400 {
		t.Errorf("%+v", s)
	}
	dropped := map[string]Dropped{}
	for _, d := range j.TakeDropped() {
		dropped[d.Cursor] = d
	}
	b, a := dropped["behind"], dropped["ahead"]
	if b.FirstSeq != 1 || b.LastSeq != s.First-1 || b.Records != b.LastSeq || b.FirstAt != call.Second || b.LastAt != call.Time(b.LastSeq)*call.Second {
		t.Errorf("%+v", b)
	}
	if a.FirstSeq != 151 || a.LastSeq != s.First-1 || a.Records != a.LastSeq-150 || s.Dropped != b.Records {
		t.Errorf("%+v, %d counted", a, s.Dropped)
	}
	recs, passed := all(t, j, 151)
	var gone *GoneError
	if len(passed) != 1 || !errors.As(passed[0], &gone) || gone.FirstSeq != 151 || gone.LastSeq != s.First-1 || recs[0].Seq != s.First {
		t.Errorf("%v", passed)
	}
}

func TestAge(t *testing.T) {
	f := newFakeFS(1)
	j, _ := open(t, Options{Dir: "d", FS: f, MaxAge: 160 * time.Second})
	if _, err := j.Cursor("a"); err != nil {
		t.Fatal(err)
	}
	fill(t, j, 1000) // a second each
	if s := j.Stats(); s.First > 840 || s.First < 820 {
		t.Errorf("%+v", s)
	}
	j.Expire(2000 * call.Second)
	if s := j.Stats(); s.First != 0 || s.Last != 1000 {
		t.Errorf("%+v", s)
	}
	if d := j.TakeDropped(); len(d) != 1 || d[0].Records != 1000 || d[0].Reason != ByAge {
		t.Errorf("%+v", d)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, _ = open(t, Options{Dir: "d", FS: f})
	fill(t, j, 1003) // the count goes on although no record was left
	recs, passed := all(t, j, 900)
	if len(recs) != 3 || recs[0].Seq != 1001 || len(passed) != 1 {
		t.Errorf("%d records, %v", len(recs), passed)
	}
}

func TestARemovedCursorHoldsNothing(t *testing.T) {
	f := newFakeFS(1)
	j, _ := open(t, Options{Dir: "d", FS: f, SegmentBytes: 300})
	if _, err := j.Cursor("old"); err != nil {
		t.Fatal(err)
	}
	fill(t, j, 50)
	j.Trim(50)
	if j.Stats().First != 1 {
		t.Error("trimmed")
	}
	if err := j.RemoveCursor("old"); err != nil {
		t.Fatal(err)
	}
	j.Trim(50)
	if j.Stats().First == 1 {
		t.Error("not trimmed")
	}
	_ = j.Close()
	if j, _ = open(t, Options{Dir: "d", FS: f}); len(j.Cursors()) != 0 {
		t.Error(j.Cursors())
	}
}

func TestReadersBesideTheAppender(t *testing.T) {
	j, _ := open(t, Options{Dir: t.TempDir(), SegmentBytes: 8 << 10, MaxBytes: 64 << 10, WhenFull: DropOldest})
	const last = 3000
	var wg sync.WaitGroup
	for range 3 {
		r, err := j.Read(1)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.Close()
			follow(t, r, last)
		})
	}
	wg.Go(func() {
		for range last / 3 {
			if _, err := j.Sync(); err != nil {
				t.Error(err)
			}
			_ = j.Stats()
		}
	})
	for range last {
		if _, err := appendOne(j); err != nil {
			t.Error(err)
		}
	}
	if _, err := j.Sync(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// follow reads to last.
func follow(t *testing.T, r *Reader, last uint64) {
	for expect := uint64(1); expect <= last; {
		rec, err := r.Next()
		var gone *GoneError
		switch {
		case err == io.EOF:
			time.Sleep(100 * time.Microsecond)
		case errors.As(err, &gone):
			expect = gone.LastSeq + 1
		case err != nil:
			t.Error(err)
			return
		default:
			if rec.Seq != expect || string(rec.Data) != string(payload(rec.Seq)) {
				t.Errorf("record %d where %d should be", rec.Seq, expect)
				return
			}
			expect++
		}
	}
}

func TestInspectBesideTheAppender(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, Options{Dir: dir, SegmentBytes: 4 << 10, MaxBytes: 48 << 10, WhenFull: DropOldest})
	c, _ := j.Cursor("a")
	fill(t, j, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 150 {
			fill(t, j, j.Stats().Last+20)
			c.Advance(j.Stats().Durable)
			if err := errors.Join(c.Flush(), j.SaveCheckpoint(j.Stats().Durable, payload(1))); err != nil {
				t.Error(err)
			}
			j.Trim(c.Seq())
		}
	}()
	for n := 0; ; n++ {
		select {
		case <-done:
			if n < 3 {
				t.Errorf("inspected %d times only", n)
			}
			return
		default:
		}
		v, err := Inspect(dir)
		if err != nil || len(v.Damage) > 0 || v.Last == 0 {
			t.Fatal(err, v)
		}
		recs, passed := all(t, v, 0)
		for _, rec := range recs {
			sound(t, rec)
		}
		for _, err := range passed {
			var gone *GoneError
			if !errors.As(err, &gone) {
				t.Fatal(err)
			}
		}
	}
}
