package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func openLog(t testing.TB, s *Sink, topic string) *Log {
	t.Helper()
	l, err := s.OpenLog(t.Context(), LogConfig{Topic: topic, Retention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entries(prefix string, n int) (es [][]byte) {
	for i := range n {
		es = append(es, fmt.Appendf(nil, "%s-%d", prefix, i))
	}
	return es
}

// readLog reads from the beginning to the end of now.
func readLog(t testing.TB, l *Log) (all []Entry) {
	t.Helper()
	for at := int64(0); ; {
		p, err := l.ReadFrom(t.Context(), at, 7)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Entries...)
		if at = p.Next; at >= p.End {
			return all
		}
	}
}

func wantLog(t testing.TB, l *Log, want [][]byte) {
	t.Helper()
	got := readLog(t, l)
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i, e := range got {
		if !bytes.Equal(e.Data, want[i]) {
			t.Fatalf("entry %d is %.80q, want %.80q", i, e.Data, want[i])
		}
	}
}

func TestLog(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, _ *fake) {
		cfg = cfg.as("unit")
		inputs := cfg.TopicPrefix + "inputs"
		cfg.FenceTopics = []string{inputs}
		first, second := open(t, cfg), open(t, cfg)
		defer shut(t, first)
		defer shut(t, second)
		w, r := openLog(t, first, inputs), openLog(t, second, inputs)
		defer w.Close()
		defer r.Close()
		if _, err := w.Append(t.Context(), entries("x", 1)); !errors.Is(err, errNotFenced) {
			t.Fatalf("appended without a fence: %v", err)
		}
		fenceIn(t, first)
		all := entries("a", 20)
		big := make([]byte, DefaultMaxEntry)
		if _, err := rand.Read(big); err != nil {
			t.Fatal(err)
		}
		all = append(all, big, []byte{}, big[:512<<10])
		offsets, err := w.Append(t.Context(), all)
		if err != nil || len(offsets) != len(all) || !slices.IsSorted(offsets) {
			t.Fatalf("%v, %v", offsets, err)
		}
		got := readLog(t, r)
		for i, e := range got {
			if e.Offset != offsets[i] || time.Since(e.Time) > time.Minute {
				t.Errorf("entry %d has offset %d and time %s, want %d", i, e.Offset, e.Time, offsets[i])
			}
		}
		wantLog(t, r, all)
		if _, err := w.Append(t.Context(), [][]byte{make([]byte, DefaultMaxEntry+1)}); !errors.Is(err, ErrEntryTooLarge) {
			t.Errorf("got %v", err)
		}

		fenceIn(t, second)
		if _, err := w.Append(t.Context(), entries("late", 1)); !errors.Is(err, core.ErrFenced) {
			t.Errorf("the writer that is shut out: %v", err)
		}
		more := entries("b", 3)
		if _, err := r.Append(t.Context(), more); err != nil {
			t.Fatal(err)
		}
		wantLog(t, w, append(all, more...))
		end, err := r.End(t.Context())
		if p, rerr := w.ReadFrom(t.Context(), end, 1); err != nil || rerr != nil || len(p.Entries) != 0 || p.Next != end || p.End != end {
			t.Errorf("at the end %d: %+v, %v, %v", end, p, err, rerr)
		}
		var off *OffsetError
		if _, err := w.ReadFrom(t.Context(), end+5, 1); !errors.As(err, &off) || off.End != end || off.First != 0 {
			t.Errorf("got %v", err)
		}
	})
}

// A follower sees what is appended within milliseconds.
func TestLogIsFollowed(t *testing.T) {
	onBrokers(t, func(t *testing.T, cfg *Config, _ *fake) {
		s := open(t, cfg)
		defer shut(t, s)
		l := openLog(t, s, cfg.TopicPrefix+"inputs")
		defer l.Close()
		type seen struct {
			data string
			at   time.Time
		}
		const n = 50
		got := make(chan seen, n)
		go func() {
			defer close(got)
			for at := int64(0); at < n; {
				p, err := l.ReadFrom(t.Context(), at, 100)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range p.Entries {
					got <- seen{string(e.Data), time.Now()}
				}
				at = p.Next
			}
		}()
		var waits []time.Duration
		for _, e := range entries("f", n) {
			if _, err := l.Append(t.Context(), [][]byte{e}); err != nil {
				t.Fatal(err)
			}
			acked := time.Now()
			s := <-got
			if s.data != string(e) {
				t.Fatalf("got %q, want %q", s.data, e)
			}
			waits = append(waits, s.at.Sub(acked))
		}
		for range got {
		}
		slices.Sort(waits)
		t.Logf("seen after its acknowledgement: median %s, longest %s", waits[n/2], waits[n-1])
	})
}

// An append whose outcome is unknown is repeated without writing anything twice, and nothing else gets before it.
func TestLogUndecided(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	cfg := f.config()
	s := open(t, cfg)
	defer shut(t, s)
	l := openLog(t, s, "cti.inputs")
	defer l.Close()
	all := entries("a", 5)
	if _, err := l.Append(t.Context(), all[:2]); err != nil {
		t.Fatal(err)
	}
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: -1}) // after the append
	patient := cfg.WriteTimeout
	cfg.WriteTimeout = 2 * time.Second
	if _, err := l.Append(t.Context(), all[2:]); err == nil {
		t.Fatal("appended without an acknowledgement")
	}
	if _, err := l.Append(t.Context(), entries("other", 1)); !errors.Is(err, ErrUndecided) {
		t.Errorf("got %v", err)
	}
	fault.Remove()
	cfg.WriteTimeout = patient
	offsets, err := l.Append(t.Context(), all[2:])
	if err != nil || !slices.Equal(offsets, []int64{2, 3, 4}) {
		t.Errorf("%v, %v", offsets, err)
	}
	wantLog(t, l, all)
	f.cutAnswer.Store(1)
	if _, err := l.Append(t.Context(), entries("b", 1)); err != nil {
		t.Error(err)
	}
	wantLog(t, l, append(all, entries("b", 1)...))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Append(ctx, entries("c", 1)); err == nil {
		t.Error("appended although the context was over")
	}
	l.Close()
	if _, err := l.End(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
