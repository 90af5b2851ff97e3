package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	"github.com/ctigate/ctigate/sinks/sinktest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, change func(*Config)) *Sink {
	t.Helper()
	cfg := NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "events")
	if change != nil {
		change(cfg)
	}
	if errs := cfg.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	s, err := cfg.Open(t.Context(), core.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Sink)
}

// disk is a fault that handles obey.
type disk struct {
	room    int // bytes left; negative: any number
	noSync  bool
	noTrunc bool
}

type faulty struct {
	handle
	d *disk
}

func (f faulty) Write(b []byte) (int, error) {
	if f.d.room >= 0 && len(b) > f.d.room {
		n, _ := f.handle.Write(b[:f.d.room])
		return n, syscall.ENOSPC
	}
	return f.handle.Write(b)
}

func (f faulty) Sync() error {
	if f.d.noSync {
		return syscall.EIO
	}
	return f.handle.Sync()
}

func (f faulty) Truncate(n int64) error {
	if f.d.noTrunc {
		return syscall.EIO
	}
	return f.handle.Truncate(n)
}

func (s *Sink) on(d *disk) {
	s.create = func(path string) (handle, error) {
		h, err := create(path)
		return faulty{h, d}, err
	}
}

// delivered reads all files of a folder, oldest first.
func delivered(dir string) ([]sinktest.Delivered, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // events-2006… sorts before events.jsonl
	var ds []sinktest.Delivered
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		stream := strings.FieldsFunc(filepath.Base(name), func(r rune) bool { return r == '-' || r == '.' })[0]
		for line := range bytes.Lines(text) {
			d, err := parse(line)
			if err != nil {
				return nil, err
			}
			d.Stream = core.Stream(stream)
			ds = append(ds, d)
		}
	}
	return ds, nil
}

func parse(line []byte) (sinktest.Delivered, error) {
	var m struct {
		ID, Type, PartitionKey string
		Data                   json.RawMessage
		Base64                 []byte `json:"data_base64"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return sinktest.Delivered{}, err
	}
	d := sinktest.Delivered{Key: m.PartitionKey, ID: m.ID, Data: m.Data}
	if m.Base64 != nil {
		d.Data = m.Base64
	} else if bytes.HasPrefix(m.Data, []byte(`"`)) {
		var s string
		if err := json.Unmarshal(m.Data, &s); err != nil {
			return d, err
		}
		d.Data = []byte(s)
	}
	if m.Type == cloudevents.TypeCallExpired {
		d.ID = sinktest.Tombstone
	}
	return d, nil
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		d := &disk{room: -1}
		s := open(t, func(c *Config) { c.RotateBytes = 60000; c.Keep = 0 })
		s.on(d)
		set := func(fault disk) func() func() {
			return func() func() {
				*d = fault
				return func() { *d = disk{room: -1} }
			}
		}
		return &sinktest.Harness{
			Sink: s, Once: true, Read: func() ([]sinktest.Delivered, error) { return delivered(s.cfg.Dir) },
			Faults: map[string]func() func(){
				"a full disk":                 set(disk{room: 0}),
				"a disk full in mid line":     set(disk{room: 777}),
				"a failing fsync":             set(disk{room: -1, noSync: true}),
				"a disk that takes no change": set(disk{room: 100, noSync: true, noTrunc: true}),
			},
		}
	})
}

// A failed write must leave no trace, whatever is offered next.
func TestFailedWritesLeaveNoTrace(t *testing.T) {
	d := &disk{room: -1}
	s := open(t, nil)
	s.on(d)
	items := sinktest.Events("f", 30, 3)
	for i, fault := range []disk{{room: 1234}, {room: -1, noSync: true}} {
		*d = fault
		err := s.Write(t.Context(), items)
		var be *core.BatchError
		if !errors.As(err, &be) || len(be.Failed) != len(items) {
			t.Fatalf("fault %d: got %v, want all items failed", i, err)
		}
		*d = disk{room: -1}
	}
	if got := s.Stats(); got.Failures != 2 || got.Written != 0 {
		t.Errorf("stats: got %+v", got)
	}
	if err := s.Write(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	if got, err := delivered(s.cfg.Dir); err != nil || len(got) != len(items) {
		t.Errorf("got %d lines, %v, want %d", len(got), err, len(items))
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An item must not get past an earlier one whose file could not be opened for a moment.
func TestFileThatOpensLate(t *testing.T) {
	s := open(t, nil)
	tries := 0
	s.create = func(path string) (handle, error) {
		if tries++; tries == 1 {
			return nil, syscall.EMFILE
		}
		return create(path)
	}
	items := sinktest.Events("l", 5, 1)
	var be *core.BatchError
	if err := s.Write(t.Context(), items); !errors.As(err, &be) || len(be.Failed) != 5 {
		t.Errorf("got %v, want all five items failed", err)
	}
	if err := s.Write(t.Context(), items); err != nil {
		t.Error(err)
	}
	if got, err := delivered(s.cfg.Dir); err != nil || len(got) != 5 || got[0].ID != items[0].Event.ID {
		t.Errorf("got %v, %v, want five lines in order", got, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskIsSaidPlainly(t *testing.T) {
	d := &disk{room: 0}
	s := open(t, nil)
	s.on(d)
	err := s.Write(t.Context(), sinktest.Events("d", 1, 1))
	if err == nil || !strings.Contains(err.Error(), "no room in "+s.cfg.Dir) || core.IsPermanent(err) {
		t.Errorf("got %v, want no room, retryable", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTornLineIsCutOff(t *testing.T) {
	for name, tail := range map[string]string{"short": `{"specversion":"1.0","id":`, "long": strings.Repeat("x", 200_000)} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil)
			items := sinktest.Events("t", 4, 1)
			if err := s.Write(t.Context(), items[:2]); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			path := s.path(core.StreamEvents)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(text, tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, func(c *Config) { c.Dir = s.cfg.Dir })
			if err := s.Write(t.Context(), items[2:]); err != nil {
				t.Fatal(err)
			}
			got, err := delivered(s.cfg.Dir)
			if err != nil || len(got) != 4 || s.Stats().Torn != 1 {
				t.Errorf("got %d lines, %v, %+v, want 4 and one torn", len(got), err, s.Stats())
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	now := time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	s := open(t, func(c *Config) { c.RotateBytes = 4096; c.Keep = 3; c.RotateAge = time.Hour })
	s.now = func() time.Time { return now } // stands still: names must differ all the same
	items := sinktest.Events("r", 60, 2)
	for i := range items {
		if err := s.Write(t.Context(), items[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	names := files(t, s.cfg.Dir)
	if len(names) != 4 || names[3] != "events.jsonl" {
		t.Fatalf("got %v, want three closed files and the open one", names)
	}
	for _, n := range names {
		if info, err := os.Stat(filepath.Join(s.cfg.Dir, n)); err != nil || info.Size() > 4096 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v bytes, mode %v, %v", n, info.Size(), info.Mode(), err)
		}
	}
	got, err := delivered(s.cfg.Dir)
	if err != nil || len(got) == 0 || got[len(got)-1].ID != sinktest.ID(t, items[59]) {
		t.Errorf("the last line is not the last event: %v, %v", got, err)
	}
	before := s.Stats().Rotated
	now = now.Add(time.Hour)
	if err := s.Write(t.Context(), items[:1]); err != nil || s.Stats().Rotated != before+1 {
		t.Errorf("after an hour: %v, %d rotations, want %d", err, s.Stats().Rotated, before+1)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A file's age counts from its first line, also when the gateway was restarted since.
func TestAgeSurvivesARestart(t *testing.T) {
	s := open(t, nil)
	items := sinktest.Events("a", 2, 1)
	if err := s.Write(t.Context(), items[:1]); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	recorded := items[0].Event.Time.Received
	path := s.path(core.StreamEvents)
	if err := os.Chtimes(path, time.Time{}, recorded.Std().Add(10*time.Hour)); err != nil {
		t.Fatal(err)
	}
	s = open(t, func(c *Config) { c.Dir = s.cfg.Dir })
	if got := call.At(s.files[core.StreamEvents].born); got != recorded {
		t.Errorf("born: got %v, want %v", got, recorded)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestCheckChangesNothing(t *testing.T) {
	cfg := NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "none")
	if got := cfg.Check(t.Context()); len(got) != 1 || got[0].Level != core.OK {
		t.Errorf("missing folder: got %+v", got)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("Check made the folder")
	}
	cfg.Dir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(cfg.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cfg.Check(t.Context()); len(got) != 1 || got[0].Level != core.Fail || got[0].Fix == "" {
		t.Errorf("a file in its place: got %+v", got)
	}
	if _, err := cfg.Open(t.Context(), core.Env{}); err == nil {
		t.Error("Open took a file for a folder")
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Dir = "" }, "dir: "},
		{func(c *Config) { c.Streams = nil }, "streams: "},
		{func(c *Config) { c.Streams = []core.Stream{"x"} }, "streams[0]: "},
		{func(c *Config) { c.RotateBytes = 1 }, "rotate_bytes: "},
		{func(c *Config) { c.RotateAge = 0 }, "rotate_age: "},
		{func(c *Config) { c.Keep = -1 }, "keep: "},
	} {
		cfg := NewConfig()
		cfg.Dir = "events"
		if errs := cfg.Validate(); len(errs) != 0 {
			t.Fatalf("the defaults have faults: %v", errs)
		}
		c.change(cfg)
		if errs := cfg.Validate(); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), c.want) {
			t.Errorf("got %v, want %q", errs, c.want)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	s := open(b, nil)
	items := sinktest.Events("b", 500, 50)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Write(b.Context(), items); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(items))/b.Elapsed().Seconds(), "items/s")
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
