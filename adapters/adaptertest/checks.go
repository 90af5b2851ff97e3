package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/core/call"
)

func inOrder(r *run) error {
	s, err := r.up()
	if err != nil {
		return err
	}
	defer s.stop()
	if err := r.Send(0, events); err != nil {
		return fmt.Errorf("the harness could not send: %w", err)
	}
	l, err := s.arrive(events)
	if err != nil {
		return err
	}
	return errors.Join(s.wellFormed(l, 0, events), s.end())
}

// wellFormed checks the numbered frames: order, bytes, times, and that Up came first.
func (s *session) wellFormed(l Log, first, n int) error {
	frames, numbers := s.r.numbered(l)
	if len(numbers) != n {
		return fmt.Errorf("%d numbered events arrived, %d were sent", len(numbers), n)
	}
	if l.UpAt[0] > 0 {
		for _, f := range l.Frames[:l.UpAt[0]] {
			if _, ok := s.r.Number(f); ok {
				return errors.New("an event of the session came before Up")
			}
		}
	}
	for i, f := range frames {
		switch {
		case numbers[i] != first+i:
			return fmt.Errorf("event %d came in the place of %d: order is not kept", numbers[i], first+i)
		case len(f.Raw) == 0:
			return fmt.Errorf("event %d has no raw bytes", numbers[i])
		case f.Type == "":
			return fmt.Errorf("event %d has no native type", numbers[i])
		case f.Received < call.At(s.began) || f.Received > call.At(time.Now()):
			return fmt.Errorf("event %d says it was received at %s, between %s and now it was", numbers[i], f.Received, call.At(s.began))
		case i > 0 && f.Received < frames[i-1].Received:
			return fmt.Errorf("event %d was received before the one ahead of it", numbers[i])
		}
	}
	return nil
}

func endsWithContext(r *run) error {
	s, err := r.up()
	if err != nil {
		return err
	}
	return s.end()
}

func overBefore(r *run) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	done := make(chan error, 1)
	go func() { done <- r.Adapter.Run(ctx, NewRecorder(ctx)) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("the adapter's Run with a context that is over must return nil, not: %w", err)
		}
		return nil
	case <-time.After(prompt):
		return fmt.Errorf("the adapter's Run with a context that is over has not returned after %s", prompt)
	}
}

func lostLink(r *run) error {
	for i := range 2 {
		s, err := r.up()
		if err != nil {
			return fmt.Errorf("session %d: %w", i+1, err)
		}
		if err := r.Send(i*events, 10); err != nil {
			return fmt.Errorf("the harness could not send: %w", err)
		}
		l, err := s.arrive(10)
		if err != nil {
			s.stop()
			return fmt.Errorf("session %d: %w", i+1, err)
		}
		r.Cut()
		if err := errors.Join(s.wellFormed(l, i*events, 10), s.failed("its link was cut", false)); err != nil {
			return fmt.Errorf("session %d: %w", i+1, err)
		}
	}
	return nil
}

func backpressure(r *run) error {
	s, err := r.up()
	if err != nil {
		return err
	}
	defer s.stop()
	s.Hold()
	if err := r.Send(0, events); err != nil {
		return fmt.Errorf("the harness could not send: %w", err)
	}
	if _, err := s.Wait(patience, "a blocked call", func(l Log) bool { return l.Waiting > 0 }); err != nil {
		return err
	}
	// An adapter with a goroutine for each event now piles up calls. Clock samples may wait beside the event.
	if l, err := s.Wait(200*time.Millisecond, "more calls", func(l Log) bool { return l.Waiting > 4 }); err == nil {
		return fmt.Errorf("%d calls wait at once for the router: order cannot be kept that way", l.Waiting)
	}
	s.Release()
	l, err := s.arrive(events)
	if err != nil {
		return err
	}
	return errors.Join(s.wellFormed(l, 0, events), s.end())
}

func endsWhileBlocked(r *run) error {
	s, err := r.up()
	if err != nil {
		return err
	}
	defer s.stop()
	s.Hold()
	if err := r.Send(0, events); err != nil {
		return fmt.Errorf("the harness could not send: %w", err)
	}
	if _, err := s.Wait(patience, "a blocked call", func(l Log) bool { return l.Waiting > 0 }); err != nil {
		return err
	}
	return s.end()
}

func emitterError(r *run) error {
	s, err := r.up()
	if err != nil {
		return err
	}
	defer s.stop()
	s.Fail(errors.New("the session is over"))
	sent := r.Send(0, events) // the adapter may hang up on the first of them
	err = s.result("the emitter returned an error")
	var stuck *stuckError
	if errors.As(err, &stuck) {
		return err
	}
	if l := s.Log(); l.Refused == 0 && sent != nil {
		return fmt.Errorf("the harness could not send: %w", sent)
	} else if l.Refused > 10 {
		return fmt.Errorf("the adapter emitted %d times after an error", l.Refused)
	}
	return nil
}

func refused(r *run) error {
	s := r.start()
	defer s.stop()
	if err := s.failed("its login was refused", true); err != nil {
		return err
	}
	if l := s.Log(); len(l.Ups) > 0 {
		return errors.New("the session said Up although its login was refused")
	}
	return nil
}

func absent(r *run) error {
	r.Close()
	s := r.start()
	defer s.stop()
	return s.failed("nobody listened", false)
}

func deadLetters(r *run) error {
	s, err := r.up()
	if err != nil {
		return err
	}
	defer s.stop()
	if err := r.Garbage(); err != nil {
		return fmt.Errorf("the harness could not send: %w", err)
	}
	l, err := s.Wait(patience, "a dead letter", func(l Log) bool { return len(l.DeadLetters) > 0 })
	if err != nil {
		return err
	}
	for _, d := range l.DeadLetters {
		if len(d.Raw) == 0 || d.Reason == "" || d.Received < call.At(s.began) {
			return fmt.Errorf("a dead letter needs its bytes, a reason and when it was received: %q %q %s", d.Raw, d.Reason, d.Received)
		}
	}
	return r.afterGarbage(s)
}

// afterGarbage: the session goes on, or, when there is no telling where the next frame begins, ends with an error that
// is not permanent.
func (r *run) afterGarbage(s *session) error {
	if err := r.Send(0, 10); err == nil {
		if l, err := s.arrive(10); err == nil {
			return errors.Join(s.wellFormed(l, 0, 10), s.end())
		}
	}
	return s.failed("garbage", false)
}

func noLeak(r *run) error {
	here := goleak.IgnoreCurrent() // the switch's own goroutines are running
	s, err := r.up()
	if err != nil {
		return err
	}
	err = r.Send(0, 10)
	if err == nil {
		_, err = s.arrive(10)
	}
	if err := errors.Join(err, s.end()); err != nil {
		return err
	}
	r.Close() // and with it what the switch started for this session
	if err := goleak.Find(here); err != nil {
		return fmt.Errorf("after Run has returned: %w", err)
	}
	return nil
}

// discreet reports an error that shows the secret.
func (r *run) discreet(err error) error {
	if r.secret != "" && strings.Contains(err.Error(), r.secret) {
		return errors.New("the error of Run shows the secret")
	}
	return nil
}
