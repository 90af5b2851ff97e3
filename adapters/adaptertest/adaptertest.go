package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Harness is what an adapter's author gives to Run.
type Harness struct {
	// Open starts a simulated switch and opens an adapter that is configured for it, which does not connect yet. Each
	// subtest opens its own.
	Open func(t *testing.T, o Options) *Switch
	// Secret is the password, or whatever must not appear in an error. Empty: nothing is looked for.
	Secret string
	// NoLogin says that the protocol has no login that could be refused.
	NoLogin bool
	// Listens says that the adapter waits for the switch to connect, or only watches: it has no link that could be lost,
	// and an absent switch is merely silent. Cut may then be nil.
	Listens bool
}

// Options ask for a particular switch.
type Options struct {
	Refuse bool // refuse the adapter's login, as the real switch does for a wrong password
}

// Switch is a simulated switch, and the adapter under test that is to connect to it. Its functions are called from one
// goroutine at a time, not necessarily the test's: they must not call t.FailNow.
type Switch struct {
	Adapter core.Adapter
	// Send sends n native events to the session that is up, in order, numbered first, first+1 … It may not wait until
	// the adapter has taken them: up to 300 small events must find room in socket buffers.
	Send func(first, n int) error
	// Number finds in a frame the number that Send put there; false for frames that Send did not cause.
	Number func(f core.Frame) (n int, ok bool)
	// Garbage sends something that is framed well but cannot be understood, or is not framed well; nil when the protocol
	// has nothing of the kind.
	Garbage func() error
	// Cut breaks every connection to the adapter and goes on accepting new ones.
	Cut func()
	// Close stops the switch: nothing listens any more, and its goroutines have ended. It may be called twice.
	Close func()
}

// How long the suite waits: for something to arrive, and for Run to return when it must.
const (
	patience = 10 * time.Second
	prompt   = 5 * time.Second
	events   = 300
)

// Run checks the adapter that h opens.
func Run(t *testing.T, h Harness) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if c.refuse && h.NoLogin {
				t.Skip("the protocol has no login")
			}
			if c.linked && h.Listens {
				t.Skip("the adapter has no link to lose")
			}
			sw := h.Open(t, Options{Refuse: c.refuse})
			t.Cleanup(sw.Close)
			if c.name == garbage && sw.Garbage == nil {
				t.Skip("the harness sends no garbage")
			}
			if err := c.run(&run{Switch: sw, secret: h.Secret}); err != nil {
				t.Error(err)
			}
		})
	}
}

type check struct {
	name   string
	refuse bool
	linked bool // about a link that the adapter makes
	run    func(*run) error
}

const garbage = "garbage becomes dead letters"

var checks = []check{
	{name: "events arrive in order after Up", run: inOrder},
	{name: "an ended context ends Run with nil", run: endsWithContext},
	{name: "a context that is over before Run ends it with nil", run: overBefore},
	{name: "a lost link ends Run with an error and Run works again", linked: true, run: lostLink},
	{name: "a blocked router slows the adapter and reorders nothing", run: backpressure},
	{name: "an ended context ends Run while the router blocks", run: endsWhileBlocked},
	{name: "an emitter's error ends Run", run: emitterError},
	{name: "a refused login is permanent", refuse: true, run: refused},
	{name: "an absent switch is not permanent", linked: true, run: absent},
	{name: garbage, run: deadLetters},
	{name: "no goroutine is left", run: noLeak},
}

// run is one check's switch.
type run struct {
	*Switch
	secret string
}

// session is one Run of the adapter under way.
type session struct {
	*Recorder
	r      *run
	cancel context.CancelFunc
	done   chan error    // what Run returned
	ended  chan struct{} // closed when Run has returned
	began  time.Time
}

func (r *run) start() *session {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{Recorder: NewRecorder(ctx), r: r, cancel: cancel, done: make(chan error, 1), ended: make(chan struct{}), began: time.Now()}
	go func() {
		defer close(s.ended)
		s.done <- r.Adapter.Run(ctx, s.Recorder)
	}()
	return s
}

// stop ends a session and waits until Run has returned, so that no check leaves one to the next; an adapter that ignores
// its context is given up.
func (s *session) stop() {
	s.cancel()
	select {
	case <-s.ended:
	case <-time.After(prompt):
	}
}

// up starts a session and waits for its Up.
func (r *run) up() (*session, error) {
	s := r.start()
	_, err := s.Wait(patience, "Up", func(l Log) bool { return len(l.Ups) > 0 })
	if err == nil {
		return s, nil
	}
	s.cancel()
	select {
	case ended := <-s.done:
		return nil, fmt.Errorf("%w; Run returned: %w", err, ended)
	case <-time.After(prompt):
		return nil, err
	}
}

// result waits for Run to return of its own accord.
func (s *session) result(why string) error {
	select {
	case err := <-s.done:
		return err
	case <-time.After(prompt):
		s.cancel()
		return &stuckError{fmt.Sprintf("the adapter's Run has not returned %s after %s", prompt, why)}
	}
}

// stuckError says that Run did not return, as opposed to what it returned.
type stuckError struct{ what string }

func (e *stuckError) Error() string { return e.what }

// end cancels the session, which must then return nil promptly.
func (s *session) end() error {
	s.cancel()
	if err := s.result("the end of its context"); err != nil {
		return fmt.Errorf("ending the context must end Run with nil: %w", err)
	}
	return nil
}

// failed waits for Run to return an error, which must be permanent or not as told, and must not hold the secret.
func (s *session) failed(why string, permanent bool) error {
	err := s.result(why)
	s.cancel()
	var stuck *stuckError
	switch {
	case errors.As(err, &stuck):
		return err
	case err == nil:
		return fmt.Errorf("the adapter's Run returned nil after %s: the router takes that for the end of its context", why)
	case core.IsPermanent(err) != permanent:
		return fmt.Errorf("the error of Run after %s must be permanent: %v, but is: %v (%w)", why, permanent, core.IsPermanent(err), err)
	}
	return s.r.discreet(err)
}

// numbered returns the frames that Send caused, with their numbers.
func (r *run) numbered(l Log) (frames []core.Frame, numbers []int) {
	for _, f := range l.Frames {
		if n, ok := r.Number(f); ok {
			frames, numbers = append(frames, f), append(numbers, n)
		}
	}
	return frames, numbers
}

// arrive waits until as many numbered frames are there.
func (s *session) arrive(n int) (Log, error) {
	return s.Wait(patience, fmt.Sprintf("%d numbered events", n), func(l Log) bool {
		_, got := s.r.numbered(l)
		return len(got) >= n
	})
}
