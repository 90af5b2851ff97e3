package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

// Sink writes to one folder. Make one with Config.Open. No two sinks can share a folder.
type Sink struct {
	cfg    *Config
	log    *slog.Logger
	files  map[core.Stream]*streamFile
	enc    cloudevents.Encoder
	now    func() time.Time
	create func(path string) (handle, error)
	lock   *os.File // keeps other sinks out of the folder
	closed bool

	written, torn, rotated, failures atomic.Uint64
}

// Stats are running totals since the sink was opened.
type Stats struct {
	Written  uint64 // items on disk
	Torn     uint64 // unfinished lines cut off
	Rotated  uint64 // files closed for size or age
	Failures uint64 // failed writes of a file's share of a batch
}

// Stats may be called at any time, from any goroutine.
func (s *Sink) Stats() Stats {
	return Stats{s.written.Load(), s.torn.Load(), s.rotated.Load(), s.failures.Load()}
}

var (
	_ core.SinkConfig = (*Config)(nil)
	_ core.Checker    = (*Config)(nil)
	_ core.Sink       = (*Sink)(nil)
	_ core.Checker    = (*Sink)(nil)
)

// ErrClosed is returned by Write after Close.
var ErrClosed = errors.New("the file sink is closed")

// Write appends the batch and returns after fsync. What a full disk or another fault kept out is named in a
// *core.BatchError, and its traces are removed. Items of streams that are not selected are accepted and dropped.
func (s *Sink) Write(ctx context.Context, batch []core.Item) error {
	if s.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing to files: %w", err)
	}
	failed := make(map[int]error)
	shares := s.compose(batch, failed)
	var wg sync.WaitGroup
	for _, f := range shares {
		wg.Go(func() { f.err = f.commit() })
	}
	wg.Wait()
	for _, f := range shares {
		s.settle(f, failed)
	}
	if len(failed) > 0 {
		return &core.BatchError{Failed: failed}
	}
	return nil
}

// compose puts each item's line into its file's buffer and returns the files concerned.
func (s *Sink) compose(batch []core.Item, failed map[int]error) []*streamFile {
	var shares []*streamFile
	shut := make(map[core.Stream]error) // files that could not be opened: later items must not overtake earlier ones
	for i := range batch {
		it := &batch[i]
		if !slices.Contains(s.cfg.Streams, it.Stream) {
			continue
		}
		if err := shut[it.Stream]; err != nil {
			failed[i] = err
			continue
		}
		f, err := s.file(it.Stream)
		if err != nil {
			failed[i], shut[it.Stream] = err, err
			continue
		}
		text, err := s.enc.AppendStructured(f.text, it)
		if err != nil {
			failed[i] = core.Permanent(err)
			continue
		}
		f.text = append(text, '\n')
		f.items = append(f.items, i)
		if len(f.items) == 1 {
			shares = append(shares, f)
		}
	}
	s.enc.Reset()
	return shares
}

// maxBuffer is the largest buffer kept from one Write to the next, in bytes.
const maxBuffer = 8 << 20

func (s *Sink) settle(f *streamFile, failed map[int]error) {
	if f.err == nil {
		s.written.Add(uint64(len(f.items)))
	} else {
		s.failures.Add(1)
		err := explain(s.cfg.Dir, f.err)
		for _, i := range f.items {
			failed[i] = err
		}
	}
	f.items, f.text = f.items[:0], f.text[:0]
	if cap(f.text) > maxBuffer {
		f.text = nil
	}
}

// explain adds what to do about the usual faults.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no room in %s: free some, or lower keep and rotate_bytes: %w", dir, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s cannot be written to: give the gateway's user the right to: %w", dir, err)
	}
	return err
}

// Close closes the files; all that Write accepted is on disk already.
func (s *Sink) Close(context.Context) error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.release()
}

func (s *Sink) release() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Check looks whether the folder can be used.
func (s *Sink) Check(ctx context.Context) []core.Finding { return s.cfg.Check(ctx) }
