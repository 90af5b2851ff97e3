package sinktest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
	"go.uber.org/goleak"
)

// Delivered is one message as it was read at the far end.
type Delivered struct {
	Stream core.Stream
	Key    string
	ID     string // CloudEvents id, or Tombstone
	Data   []byte // the data alone; nil where the far end does not keep it as it was
}

// Harness is one open sink with an empty far end, for one test.
type Harness struct {
	Sink    core.Sink
	Streams []core.Stream // that the sink delivers; nil: all. Items of others must be accepted and go nowhere.

	// Read returns all that has arrived, in order within each stream and key.
	Read func() ([]Delivered, error)

	// Stop tears the far end down, after the sink was closed; may be nil.
	Stop func()

	// Faults are ways to make the next Write fail, by name. Each is called between two Writes; the function it
	// returns ends the fault. A sink may ride a fault out, or return an error that says what was not accepted.
	Faults map[string]func() (mend func())

	// Once: no fault may make a duplicate, as long as Write returned nil. Always: nor when what a Write did not accept is
	// offered again.
	Once, Always bool
}

// patience bounds every single call of a sink.
const patience = 30 * time.Second

// Run checks every promise of core.Sink in a subtest with a harness of its own.
func Run(t *testing.T, open func(t *testing.T) *Harness) {
	for _, c := range []struct {
		name  string
		check func(t *testing.T, h *Harness)
	}{
		{"delivers every shape of item", everyShape},
		{"keeps order within a key", order},
		{"accepts an empty batch", empty},
		{"names the items it did not accept", batchError},
		{"refuses to write after Close", closed},
		{"returns at once when its context is over", cancelled},
		{"has delivered before Close returns", flushed},
	} {
		t.Run(c.name, func(t *testing.T) { with(t, open, c.check) })
	}
	for _, name := range faultNames(t, open) {
		t.Run("survives "+name, func(t *testing.T) { with(t, open, func(t *testing.T, h *Harness) { survives(t, h, name) }) })
		t.Run("obeys its context during "+name, func(t *testing.T) {
			with(t, open, func(t *testing.T, h *Harness) { obeys(t, h, name) })
		})
	}
}

// with opens a harness, runs check, closes all, and looks for goroutines left behind.
func with(t *testing.T, open func(t *testing.T) *Harness, check func(*testing.T, *Harness)) {
	before := goleak.IgnoreCurrent()
	h := open(t)
	check(t, h)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.Sink.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	if h.Stop != nil {
		h.Stop()
	}
	goleak.VerifyNone(t, before)
}

func faultNames(t *testing.T, open func(t *testing.T) *Harness) (names []string) {
	with(t, open, func(_ *testing.T, h *Harness) {
		for name := range h.Faults {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return names
}

func everyShape(t *testing.T, h *Harness) {
	items, untouched := Everything("a"), Everything("a")
	write(t, h, items[:5])
	write(t, h, items[5:])
	if !reflect.DeepEqual(items, untouched) {
		t.Error("the sink changed the items, which are shared with other sinks")
	}
	expect(t, h, items)
}

func order(t *testing.T, h *Harness) {
	items := Events("o", 700, 23)
	for rest, size := items, 1; len(rest) > 0; size = size*3 + 1 {
		n := min(size, len(rest))
		write(t, h, rest[:n])
		rest = rest[n:]
	}
	expect(t, h, items)
}

func empty(t *testing.T, h *Harness) {
	write(t, h, nil)
	write(t, h, []core.Item{})
	expect(t, h, nil)
}

// batchError writes an item that breaks the contract of core.Item between two good ones.
func batchError(t *testing.T, h *Harness) {
	items := Events("b", 2, 2)
	bad := core.Item{Stream: core.StreamEvents, Key: "nothing"}
	err := h.Sink.Write(bounded(t), []core.Item{items[0], bad, items[1]})
	var be *core.BatchError
	switch {
	case err == nil:
		t.Error("Write returned nil for an item with nothing in it")
	case !errors.As(err, &be):
		expect(t, h, nil) // another error: none were accepted
	case len(be.Failed) != 1 || be.Failed[1] == nil:
		t.Errorf("failed items: got %v, want only number 1", be.Failed)
	default:
		expect(t, h, items)
	}
}

func closed(t *testing.T, h *Harness) {
	for range 2 {
		if err := h.Sink.Close(bounded(t)); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := h.Sink.Write(bounded(t), Events("c", 1, 1)); err == nil {
		t.Error("Write after Close returned nil")
	}
}

func cancelled(t *testing.T, h *Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Sink.Write(ctx, Events("x", 3, 1)); err == nil {
		t.Error("Write returned nil although its context was over before it began")
	}
	items := Events("y", 3, 1)
	write(t, h, items) // and the sink is still of use
	got := read(t, h)
	got = slices.DeleteFunc(got, func(d Delivered) bool { return d.Key == "x-call-0" })
	compare(t, h, got, items)
}

func flushed(t *testing.T, h *Harness) {
	items := Events("f", 50, 5)
	write(t, h, items)
	if err := h.Sink.Close(bounded(t)); err != nil {
		t.Fatalf("Close: %v", err)
	}
	expect(t, h, items)
}

// survives delivers as the host does, through a fault: what failed is offered again before anything later.
func survives(t *testing.T, h *Harness, fault string) {
	items := Events("s", 240, 7)
	write(t, h, items[:80])
	mend := h.Faults[fault]()
	failures := deliver(t, h, items[80:160], mend)
	mend()
	write(t, h, items[160:])
	got := read(t, h)
	if h.Always || h.Once && failures == 0 {
		compare(t, h, got, items)
		return
	}
	compare(t, h, dedupe(got), items)
}

// deliver repeats what failed until all is accepted, and ends the fault after the first failure.
func deliver(t *testing.T, h *Harness, pending []core.Item, mend func()) (failures int) {
	t.Helper()
	for ; len(pending) > 0; failures++ {
		if failures == 1 {
			mend()
		}
		if failures == 20 {
			t.Fatalf("after the fault: %d items are still not accepted", len(pending))
		}
		err := h.Sink.Write(bounded(t), pending)
		if err == nil {
			return failures
		}
		pending = left(t, pending, err)
	}
	return failures
}

// left picks the items that err says were not accepted, and checks that no later one of the same key overtook them.
func left(t *testing.T, batch []core.Item, err error) []core.Item {
	t.Helper()
	var be *core.BatchError
	if !errors.As(err, &be) {
		return batch
	}
	type lane struct {
		stream core.Stream
		key    string
	}
	var failed []core.Item
	blocked := make(map[lane]bool)
	for i, it := range batch {
		l := lane{it.Stream, it.Key}
		if be.Failed[i] != nil {
			if core.IsPermanent(be.Failed[i]) {
				t.Errorf("item %d: a fault of the far end came out as the item's own, which the host discards: %v", i, be.Failed[i])
			}
			failed = append(failed, it)
			blocked[l] = true
		} else if blocked[l] {
			t.Errorf("item %d of key %s was accepted although an earlier one was not", i, it.Key)
		}
	}
	if len(failed) != len(be.Failed) || len(failed) == 0 {
		t.Fatalf("BatchError names %d items, %d of them in the batch of %d", len(be.Failed), len(failed), len(batch))
	}
	return failed
}

// obeys ends the context of a Write that a fault may be holding up.
func obeys(t *testing.T, h *Harness, fault string) {
	mend := h.Faults[fault]()
	defer mend()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.Sink.Write(ctx, Events("z", 100, 3)) // an error or not: it must return
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		t.Error("Write went on for 15 s after its context was over")
		<-done
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func write(t *testing.T, h *Harness, items []core.Item) {
	t.Helper()
	if err := h.Sink.Write(bounded(t), items); err != nil {
		t.Fatalf("Write of %d items: %v", len(items), err)
	}
}

func read(t *testing.T, h *Harness) []Delivered {
	t.Helper()
	got, err := h.Read()
	if err != nil {
		t.Fatalf("reading back: %v", err)
	}
	return got
}

func expect(t *testing.T, h *Harness, items []core.Item) {
	t.Helper()
	compare(t, h, read(t, h), items)
}

// dedupe keeps each message's first delivery, as a consumer that knows the ids would.
func dedupe(ds []Delivered) []Delivered {
	type message struct {
		stream  core.Stream
		key, id string
	}
	seen := make(map[message]bool)
	return slices.DeleteFunc(slices.Clone(ds), func(d Delivered) bool {
		m := message{d.Stream, d.Key, d.ID}
		dup := seen[m]
		seen[m] = true
		return dup
	})
}

// compare wants the items of the harness's streams, each once, in order within stream and key, with their data.
func compare(t *testing.T, h *Harness, got []Delivered, items []core.Item) {
	t.Helper()
	wanted, arrived := make(map[string][]Delivered), make(map[string][]Delivered)
	for _, it := range items {
		if h.Streams != nil && !slices.Contains(h.Streams, it.Stream) {
			continue
		}
		data, err := cloudevents.Data(it)
		if err != nil {
			t.Fatal(err)
		}
		lane := string(it.Stream) + " " + it.Key
		wanted[lane] = append(wanted[lane], Delivered{it.Stream, it.Key, ID(t, it), data})
	}
	for _, d := range got {
		lane := string(d.Stream) + " " + d.Key
		arrived[lane] = append(arrived[lane], d)
	}
	for lane, ds := range arrived {
		if wanted[lane] == nil {
			t.Errorf("%s: %d messages nobody sent, the first %q", lane, len(ds), ds[0].ID)
		}
	}
	for lane, want := range wanted {
		compareLane(t, lane, arrived[lane], want)
	}
}

func compareLane(t *testing.T, lane string, got, want []Delivered) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d messages arrived, want %d", lane, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i].ID != want[i].ID {
			t.Errorf("%s: message %d is %q, want %q", lane, i, got[i].ID, want[i].ID)
			return
		}
		if got[i].Data != nil && !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("%s: data of %q:\n got %q\nwant %q", lane, got[i].ID, got[i].Data, want[i].Data)
		}
	}
}
