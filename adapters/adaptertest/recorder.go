package adaptertest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Recorder is a core.Emitter that keeps what it is given. It can be told to block, as the router does while its queue
// is full, and to fail, as the router does when it takes nothing more. Like the router it takes what is handed over
// after the end of the session's context, unless it blocks then. It is safe for concurrent use.
type Recorder struct {
	ctx context.Context

	mu      sync.Mutex
	log     Log
	open    chan struct{} // closed while emitting does not block
	fail    error
	changed chan struct{} // closed and replaced at each change
}

var _ core.Emitter = (*Recorder)(nil)

// Log is what was emitted so far. Entries of Frames to Missing are in the order they were emitted.
type Log struct {
	Frames      []core.Frame
	DeadLetters []core.DeadLetter
	Ups         []core.Instance
	Clocks      []core.ClockSample
	Gaps        []string
	Missing     [][]string
	Counts      map[string]int

	UpAt    []int // for each of Ups, how many Frames came before it
	Waiting int   // emitting calls that are blocked now
	Refused int   // emitting calls that got an error
}

// NewRecorder makes a Recorder for a session whose context is ctx.
func NewRecorder(ctx context.Context) *Recorder {
	open := make(chan struct{})
	close(open)
	return &Recorder{ctx: ctx, open: open, changed: make(chan struct{}), log: Log{Counts: map[string]int{}}}
}

// Hold makes every emitting call but Count block until Release, Fail, or the end of the session's context.
func (r *Recorder) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.open:
		r.open = make(chan struct{})
	default:
	}
}

// Release ends Hold.
func (r *Recorder) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release()
}

func (r *Recorder) release() {
	select {
	case <-r.open:
	default:
		close(r.open)
	}
}

// Fail makes every emitting call from now on, and those that are blocked, return err.
func (r *Recorder) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
	r.release()
}

// Frame implements core.Emitter.
func (r *Recorder) Frame(f core.Frame) error {
	return r.emit(func(l *Log) { l.Frames = append(l.Frames, f) })
}

// DeadLetter implements core.Emitter.
func (r *Recorder) DeadLetter(d core.DeadLetter) error {
	return r.emit(func(l *Log) { l.DeadLetters = append(l.DeadLetters, d) })
}

// Up implements core.Emitter.
func (r *Recorder) Up(i core.Instance) error {
	return r.emit(func(l *Log) {
		l.Ups = append(l.Ups, i)
		l.UpAt = append(l.UpAt, len(l.Frames))
	})
}

// Clock implements core.Emitter.
func (r *Recorder) Clock(c core.ClockSample) error {
	return r.emit(func(l *Log) { l.Clocks = append(l.Clocks, c) })
}

// Gap implements core.Emitter.
func (r *Recorder) Gap(reason string, _ call.Time) error {
	return r.emit(func(l *Log) { l.Gaps = append(l.Gaps, reason) })
}

// Missing implements core.Emitter.
func (r *Recorder) Missing(what []string) error {
	return r.emit(func(l *Log) { l.Missing = append(l.Missing, what) })
}

// Count implements core.Emitter. It never blocks.
func (r *Recorder) Count(name string, n int) {
	r.note(func(l *Log) { l.Counts[name] += n })
}

func (r *Recorder) emit(add func(*Log)) error {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	var over error
	select {
	case <-open:
	default:
		r.note(func(l *Log) { l.Waiting++ })
		select {
		case <-open:
		case <-r.ctx.Done():
			over = r.ctx.Err()
		}
		r.note(func(l *Log) { l.Waiting-- })
	}
	r.mu.Lock()
	err := r.fail
	if err == nil {
		err = over
	}
	r.mu.Unlock()
	if err != nil {
		r.note(func(l *Log) { l.Refused++ })
		return err
	}
	r.note(add)
	return nil
}

func (r *Recorder) note(f func(*Log)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.log)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Log returns a copy of what was emitted so far.
func (r *Recorder) Log() Log {
	l, _ := r.now()
	return l
}

func (r *Recorder) now() (Log, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.log
	l.Frames = append([]core.Frame(nil), l.Frames...)
	l.DeadLetters = append([]core.DeadLetter(nil), l.DeadLetters...)
	l.Ups = append([]core.Instance(nil), l.Ups...)
	l.UpAt = append([]int(nil), l.UpAt...)
	l.Clocks = append([]core.ClockSample(nil), l.Clocks...)
	l.Gaps = append([]string(nil), l.Gaps...)
	l.Missing = append([][]string(nil), l.Missing...)
	l.Counts = maps.Clone(l.Counts)
	return l, r.changed
}

// Wait returns the log once ok says so, or an error that names what was waited for when it does not within d.
func (r *Recorder) Wait(d time.Duration, what string, ok func(Log) bool) (Log, error) {
	late := time.NewTimer(d)
	defer late.Stop()
	for {
		l, changed := r.now()
		if ok(l) {
			return l, nil
		}
		select {
		case <-changed:
		case <-late.C:
			return l, fmt.Errorf("waited %s for %s: there are %d frames, %d dead letters, %d ups, %d gaps %q",
				d, what, len(l.Frames), len(l.DeadLetters), len(l.Ups), len(l.Gaps), l.Gaps)
		}
	}
}
