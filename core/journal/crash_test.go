package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// promised is what a journal has said is safe.
type promised struct {
	appended, durable, cursor, checkpoint, keep uint64
}

// workload uses a journal in every way until it is done or the disk fails.
func workload(j *Journal, rng *rand.Rand, p *promised) error {
	c, err := j.Cursor("sink")
	if err != nil {
		return err
	}
	for turn := range 14 {
		var group []Record
		for range rng.IntN(4) + 1 {
			seq := p.appended + 1 + uint64(len(group))
			group = append(group, Record{At: call.Time(seq) * call.Second, Kind: 1, Data: payload(seq)})
		}
		last, err := j.Append(group...)
		if err != nil {
			return err
		}
		if p.appended += uint64(len(group)); last != p.appended {
			return fmt.Errorf("appended to %d, want %d", last, p.appended)
		}
		if turn%3 == 2 {
			continue
		}
		if p.durable, err = j.Sync(); err != nil {
			return err
		}
		if err := workloadRest(j, c, turn, p); err != nil {
			return err
		}
	}
	return nil
}

func workloadRest(j *Journal, c *Cursor, turn int, p *promised) error {
	c.Advance(p.durable - 1)
	if turn%2 == 0 {
		if err := c.Flush(); err != nil {
			return err
		}
		p.cursor = c.Seq()
	}
	if turn%4 == 0 {
		if err := j.SaveCheckpoint(p.durable, payload(p.durable)); err != nil {
			return err
		}
		p.checkpoint = p.durable
	}
	p.keep = p.durable / 2
	j.Trim(p.keep)
	return nil
}

// kept fails the test unless j holds all that was promised and nothing that never was.
func kept(t *testing.T, j *Journal, p promised) {
	t.Helper()
	recs, passed := all(t, j, 0)
	for _, err := range passed {
		var d *DamageError
		if errors.As(err, &d) && d.Lost() > 0 && d.FirstSeq <= p.durable {
			t.Fatal(err)
		}
	}
	got := map[uint64]bool{}
	for _, rec := range recs {
		sound(t, rec)
		got[rec.Seq] = true
		if rec.Seq > p.appended+4 {
			t.Fatalf("record %d was never appended", rec.Seq)
		}
	}
	for seq := max(p.keep, 1); seq <= p.durable; seq++ {
		if !got[seq] {
			t.Fatalf("record %d, which was durable, is lost; passed over: %v", seq, passed)
		}
	}
	c, err := j.Cursor("sink")
	if err != nil || c.Seq() < p.cursor || c.Seq() > max(p.durable, j.Stats().Last) {
		t.Fatalf("the cursor is at %d, was saved at %d: %v", c.Seq(), p.cursor, err)
	}
	seq, data, err := j.Checkpoint()
	if err != nil || seq < p.checkpoint || data != nil && string(data) != string(payload(seq)) {
		t.Fatalf("checkpoint %d, saved %d: %v", seq, p.checkpoint, err)
	}
}

// goesOn fails the test unless appending continues and survives another start.
func goesOn(t *testing.T, j *Journal, fs FS) {
	t.Helper()
	before := j.Stats()
	fill(t, j, before.Last+7)
	whole(t, j, before.Last+1, before.Last+7)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, _ = open(t, Options{Dir: "d", FS: fs})
	if got := j.Stats(); got.Last != before.Last+7 {
		t.Fatalf("last %d, want %d", got.Last, before.Last+7)
	}
	whole(t, j, before.Last+1, before.Last+7)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPowerGoesAtEveryWrite(t *testing.T) {
	const rounds = 6
	for power, done := 0, false; !done; power++ {
		for round := range rounds * crashModes {
			done = powerGoes(t, power, round%crashModes, uint64(round)) || done
			if t.Failed() {
				t.Fatalf("power gone after %d operations, mode %d, seed %d", power, round%crashModes, round)
			}
		}
	}
}

// powerGoes reports whether the workload was done before the power went.
func powerGoes(t *testing.T, power, mode int, seed uint64) (done bool) {
	f := newFakeFS(seed)
	f.power = power
	var p promised
	j, _, err := Open(Options{Dir: "d", FS: f, SegmentBytes: 300})
	if err == nil {
		err = workload(j, rand.New(rand.NewPCG(seed, 2)), &p)
		if err != nil && !errors.Is(err, errPower) {
			t.Error(err)
		}
	}
	g := f.crash(mode)
	if j != nil {
		_ = j.Close()
	}
	k, _ := open(t, Options{Dir: "d", FS: g, SegmentBytes: 300})
	kept(t, k, p)
	goesOn(t, k, g)
	return err == nil
}

func TestAFailedSyncIsNeverForgotten(t *testing.T) {
	for seed := range uint64(400) {
		f := newFakeFS(seed)
		j, _ := open(t, Options{Dir: "d", FS: f, SegmentBytes: 300})
		var p promised
		rng := rand.New(rand.NewPCG(seed, 3))
		for range 30 {
			seq := j.Stats().Last + 1
			if _, err := j.Append(Record{At: call.Time(seq) * call.Second, Kind: 1, Data: payload(seq)}); err == nil {
				p.appended = seq
			}
			f.mu.Lock()
			f.noTrunc = rng.IntN(3) == 0
			if rng.IntN(3) == 0 {
				f.syncs = rng.IntN(4)
			}
			f.mu.Unlock()
			if durable, err := j.Sync(); err == nil {
				p.durable = durable
				if durable != p.appended {
					t.Fatalf("durable %d of %d", durable, p.appended)
				}
			}
		}
		p.durable = j.Stats().Durable // Append may have made more so
		whole(t, j, 1, p.durable)
		g := f.crash(int(seed % crashModes))
		_ = j.Close()
		k, _ := open(t, Options{Dir: "d", FS: g})
		kept(t, k, p)
		goesOn(t, k, g)
	}
}

func TestAFullDiskChangesNothing(t *testing.T) {
	for space := range 1500 {
		f := newFakeFS(uint64(space))
		f.space, f.noTrunc = space, space%2 == 1
		j, _, err := Open(Options{Dir: "d", FS: f, SegmentBytes: 300})
		if err != nil {
			t.Fatal(err)
		}
		for j.Stats().Last < 12 {
			var seq uint64
			if seq, err = appendOne(j); err != nil {
				break
			}
			if durable, syncErr := j.Sync(); syncErr != nil || durable != seq {
				t.Fatal(durable, syncErr)
			}
		}
		if err != nil && !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		last := j.Stats().Last
		if err == nil && last != 12 {
			t.Fatal(last)
		}
		f.mu.Lock()
		f.space, f.noTrunc = -1, false
		f.mu.Unlock()
		fill(t, j, last+5)
		whole(t, j, 1, last+5)
		_ = j.Close()
		k, _ := open(t, Options{Dir: "d", FS: f})
		nothingLost(t, k, last+5)
		_ = k.Close()
	}
}

// nothingLost fails the test unless j has all records up to last, whatever else is between them.
func nothingLost(t *testing.T, j *Journal, last uint64) {
	t.Helper()
	recs, passed := all(t, j, 1)
	for i, rec := range recs {
		if sound(t, rec); rec.Seq != uint64(i)+1 {
			t.Fatalf("record %d where %d should be", rec.Seq, i+1)
		}
	}
	for _, err := range passed {
		var d *DamageError
		if !errors.As(err, &d) || d.Lost() > 0 {
			t.Fatal(err)
		}
	}
	if uint64(len(recs)) != last {
		t.Fatalf("%d records, want %d", len(recs), last)
	}
}

// A batch of which a part was written before the disk was full is taken back, or overruled by what follows, whatever
// crashes then.
func TestAFailedBatchLeavesNothing(t *testing.T) {
	for space := range 400 {
		for _, noTrunc := range []bool{false, true} {
			f := newFakeFS(uint64(space))
			j, _ := open(t, Options{Dir: "d", FS: f})
			fill(t, j, 2)
			f.space, f.noTrunc = space, noTrunc
			wrong := Record{At: 5, Kind: 2, Data: []byte("never")}
			if _, err := j.Append(wrong, wrong, wrong, Record{Data: make([]byte, 400)}); !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			f.space = -1
			last := uint64(2)
			if noTrunc || space%2 == 0 {
				last = 5
				fill(t, j, last)
			}
			_ = j.Close()
			k, _ := open(t, Options{Dir: "d", FS: f})
			nothingLost(t, k, last)
			_ = k.Close()
		}
	}
}

func TestTrimmedSegmentsLeaveNoHoleAfterACrash(t *testing.T) {
	for seed := range uint64(100) {
		f := newFakeFS(seed)
		j, _ := open(t, Options{Dir: "d", FS: f, SegmentBytes: 300})
		fill(t, j, 60)
		j.Trim(50)
		g := f.crash(keepAny)
		_ = j.Close()
		k, r := open(t, Options{Dir: "d", FS: g})
		if len(r.Damage) > 0 {
			t.Fatal(r.Damage)
		}
		whole(t, k, r.First, 60)
		_ = k.Close()
	}
}
