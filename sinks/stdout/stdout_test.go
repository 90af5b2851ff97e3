package stdout

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	"github.com/ctigate/ctigate/sinks/sinktest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// paper is a writer that can refuse, and can stop in the middle.
type paper struct {
	bytes.Buffer
	room int // bytes it takes before it is full; negative: any number
}

func (p *paper) Write(b []byte) (int, error) {
	if p.room < 0 || len(b) <= p.room {
		return p.Buffer.Write(b)
	}
	n, _ := p.Buffer.Write(b[:p.room])
	p.room = 0
	return n, io.ErrShortWrite
}

// delivered reads whole lines back; torn ones are skipped, as a consumer would.
func (p *paper) delivered() ([]sinktest.Delivered, error) {
	var ds []sinktest.Delivered
	lines := bufio.NewScanner(bytes.NewReader(p.Bytes()))
	for lines.Scan() {
		var m struct {
			ID, Type     string
			PartitionKey string
			Data         json.RawMessage
			Base64       string `json:"data_base64"`
		}
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		d := sinktest.Delivered{Key: m.PartitionKey, ID: m.ID, Data: m.Data, Stream: core.StreamEvents}
		switch m.Type {
		case cloudevents.TypeCallState:
			d.Stream = core.StreamCalls
		case cloudevents.TypeCallExpired:
			d.Stream, d.ID = core.StreamCalls, sinktest.Tombstone
		case cloudevents.TypeDeadLetter:
			d.Stream = core.StreamDeadLetter
		case cloudevents.TypeRaw:
			d.Stream = core.StreamRaw
		case "cti.call.record.v1":
			d.Stream = core.StreamRecords
		case "cti.media.quality.v1":
			d.Stream = core.StreamMedia
		case "cti.source.up.v1":
			d.Stream = core.StreamSources
		}
		if m.Base64 != "" {
			d.Data, _ = base64.StdEncoding.DecodeString(m.Base64)
		} else if bytes.HasPrefix(m.Data, []byte(`"`)) {
			var text string
			if err := json.Unmarshal(m.Data, &text); err != nil {
				return nil, err
			}
			d.Data = []byte(text)
		}
		ds = append(ds, d)
	}
	return ds, lines.Err()
}

func TestConformance(t *testing.T) {
	// The stale stream repeats events under their own type: standard output cannot tell them apart.
	streams := []core.Stream{
		core.StreamEvents, core.StreamCalls, core.StreamRecords, core.StreamMedia, core.StreamSources, core.StreamDeadLetter,
		core.StreamRaw,
	}
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		p := &paper{room: -1}
		full := func(room int) func() func() {
			return func() func() { p.room = room; return func() { p.room = -1 } }
		}
		return &sinktest.Harness{
			Sink: New(p, streams...), Streams: streams, Read: p.delivered, Once: true,
			Faults: map[string]func() func(){"a closed pipe": full(0), "a line torn in two": full(5000), "a torn first line": full(7)},
		}
	})
}

func TestDefaultStreams(t *testing.T) {
	p := &paper{room: -1}
	s := New(p, NewConfig().Streams...)
	if err := s.Write(t.Context(), sinktest.Everything("d")); err != nil {
		t.Fatal(err)
	}
	got, err := p.delivered()
	if err != nil || len(got) != 3 || got[2].Stream != core.StreamRecords {
		t.Errorf("got %v, %v, want two events and a record", got, err)
	}
}

// A reader that does not read must not keep the gateway from stopping.
func TestStuckReader(t *testing.T) {
	r, w := io.Pipe()
	s := New(w, core.StreamEvents)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Write(ctx, sinktest.Events("s", 1, 1)) }()
	one := make([]byte, 1)
	if _, err := r.Read(one); err != nil { // the write is under way, and stuck
		t.Fatal(err)
	}
	cancel()
	var be *core.BatchError
	if err := <-done; !errors.As(err, &be) || !errors.Is(be.Failed[0], context.Canceled) {
		t.Fatalf("got %v, want the item as not accepted", err)
	}
	if err := s.Write(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v while the first write is stuck", err)
	}
	r.Close()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The host must be able to tell a reader that is gone from a fault that passes, and must not discard anything for it.
func TestReaderThatIsGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s := New(w, core.StreamEvents)
	items := sinktest.Events("g", 2, 1)
	if err := s.Write(t.Context(), items[:1]); err != nil {
		t.Fatal(err)
	}
	r.Close()
	err = s.Write(t.Context(), items)
	var be *core.BatchError
	if !errors.As(err, &be) || len(be.Failed) != 2 || !core.IsPermanent(err) {
		t.Fatalf("got %v, permanent %v, want both items failed, not to be tried again soon", err, core.IsPermanent(err))
	}
	for i, e := range be.Failed {
		if core.IsPermanent(e) || !errors.Is(e, syscall.EPIPE) || !strings.Contains(e.Error(), "reader of standard output is gone") {
			t.Errorf("item %d: got %v, want a broken pipe, retryable", i, e)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	if errs := NewConfig().Validate(); len(errs) != 0 {
		t.Errorf("the defaults have faults: %v", errs)
	}
	for _, c := range []struct {
		streams []core.Stream
		want    string
	}{{nil, "streams: at least one"}, {[]core.Stream{"events", "evnts"}, `streams[1]: "evnts" is unknown`}} {
		errs := (&Config{Streams: c.streams}).Validate()
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.streams, errs, c.want)
		}
	}
}
