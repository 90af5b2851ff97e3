// Package stdout prints items as structured CloudEvents, one JSON object a line, for looking at and for piping on.
package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

// Config is the settings of a stdout sink. Start from NewConfig: it holds the defaults.
type Config struct {
	Streams []core.Stream `yaml:"streams"` // what to print; default events and records
}

// NewConfig returns the defaults.
func NewConfig() *Config {
	return &Config{Streams: []core.Stream{core.StreamEvents, core.StreamRecords}}
}

var known = []core.Stream{
	core.StreamEvents, core.StreamCalls, core.StreamRecords, core.StreamMedia, core.StreamSources, core.StreamStale,
	core.StreamDeadLetter, core.StreamRaw,
}

// Validate returns every fault, each naming its field.
func (c *Config) Validate() []error {
	var errs []error
	if len(c.Streams) == 0 {
		errs = append(errs, errors.New("streams: at least one is needed, or remove the sink"))
	}
	for i, s := range c.Streams {
		if !slices.Contains(known, s) {
			errs = append(errs, fmt.Errorf("streams[%d]: %q is unknown: use %v", i, s, known))
		}
	}
	return errs
}

// Open makes a sink on standard output.
func (c *Config) Open(context.Context, core.Env) (core.Sink, error) {
	return New(os.Stdout, c.Streams...), nil
}

// Sink prints to a writer.
type Sink struct {
	w       io.Writer
	streams []core.Stream
	enc     cloudevents.Encoder
	pending chan result // of a write that an earlier Write did not wait for
	torn    bool        // the last write ended inside a line
	closed  bool
}

type result struct {
	n   int
	err error
}

var (
	_ core.SinkConfig = (*Config)(nil)
	_ core.Sink       = (*Sink)(nil)
)

// New prints the streams given to w, each batch in one call of w.Write.
func New(w io.Writer, streams ...core.Stream) *Sink {
	return &Sink{w: w, streams: slices.Clone(streams)}
}

// ErrClosed is returned by Write after Close.
var ErrClosed = errors.New("the stdout sink is closed")

// Write prints the batch. Items of streams that are not selected are accepted and dropped. When ctx ends while the
// reader of a pipe does not read, Write returns; what it was printing may still appear.
//
// When the reader is gone, the items are still retryable, each with syscall.EPIPE in its error, and the error as a whole
// is a permanent one: no reader comes back to a pipe. Whether to go on without it is for the host to say, which must also
// take SIGPIPE, or the process ends before Write returns.
func (s *Sink) Write(ctx context.Context, batch []core.Item) error {
	if s.closed {
		return ErrClosed
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	var p page
	failed := s.compose(&p, batch)
	var err error
	if len(p.text) > 0 {
		err = s.print(ctx, &p, failed)
	}
	switch {
	case len(failed) == 0:
		return nil
	case errors.Is(err, syscall.EPIPE):
		return core.Permanent(&core.BatchError{Failed: failed})
	}
	return &core.BatchError{Failed: failed}
}

// page is the text of one batch: ends[i] is where the line of item items[i] ends.
type page struct {
	text  []byte
	items []int
	ends  []int
}

func (s *Sink) compose(p *page, batch []core.Item) map[int]error {
	failed := make(map[int]error)
	if s.torn {
		p.text = append(p.text, '\n')
	}
	empty := len(p.text)
	for i := range batch {
		if !slices.Contains(s.streams, batch[i].Stream) {
			continue
		}
		text, err := s.enc.AppendStructured(p.text, &batch[i])
		if err != nil {
			failed[i] = core.Permanent(err)
			continue
		}
		p.text = append(text, '\n')
		p.items = append(p.items, i)
		p.ends = append(p.ends, len(p.text))
	}
	s.enc.Reset()
	if len(p.text) == empty {
		p.text = nil
	}
	return failed
}

// print writes the page, fails the items whose line is not out in full, and returns why.
func (s *Sink) print(ctx context.Context, p *page, failed map[int]error) error {
	done := make(chan result, 1)
	go func() {
		n, err := s.w.Write(p.text)
		done <- result{n, err}
	}()
	s.pending = done
	var r result
	select {
	case r = <-done:
		s.note(r, p.text)
	case <-ctx.Done():
		r.err = ctx.Err()
	}
	if r.err == nil {
		return nil
	}
	err := fmt.Errorf("printing: %w", r.err)
	if errors.Is(r.err, syscall.EPIPE) {
		err = fmt.Errorf("the reader of standard output is gone: start it anew with the gateway, or remove the stdout sink: %w", err)
	}
	for i, item := range p.items {
		if p.ends[i] > r.n {
			failed[item] = err
		}
	}
	return err
}

// note remembers how the last write ended.
func (s *Sink) note(r result, text []byte) {
	s.pending = nil
	if r.n > 0 {
		s.torn = !bytes.HasSuffix(text[:r.n], []byte("\n"))
	}
}

// settle waits for a write that was left under way. How much of it came out is not known, so the next line starts anew.
func (s *Sink) settle(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	if s.pending == nil {
		return nil
	}
	select {
	case r := <-s.pending:
		s.pending, s.torn = nil, r.err != nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("printing: the reader of standard output does not read: %w", ctx.Err())
	}
}

// Close waits until ctx ends for a write that is under way. It leaves standard output open.
func (s *Sink) Close(ctx context.Context) error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.pending == nil {
		return nil
	}
	return s.settle(ctx)
}
