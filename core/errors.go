package core

import (
	"errors"
	"fmt"

	"github.com/ctigate/ctigate/core/call"
)

// ErrFenced is wrapped by what a Fencer's methods return once a later writer has shut it out: nothing more that it writes
// is accepted, until it calls Fence itself.
var ErrFenced = errors.New("fenced off: another writer has taken over")

// PermanentError is a failure that trying again soon will not mend: a refused password, a setting the peer rejects.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// Permanent marks err; nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{err}
}

// IsPermanent reports whether err, or one it wraps, is a *PermanentError.
func IsPermanent(err error) bool {
	var p *PermanentError
	return errors.As(err, &p)
}

// LossError ends a session of several connections: what came by the one that was lost is complete up to Since only, though
// others were heard for longer.
type LossError struct {
	Err   error
	Since call.Time
}

func (e *LossError) Error() string { return e.Err.Error() }
func (e *LossError) Unwrap() error { return e.Err }

// LostSince is up to when all was heard as err says, or an error that it wraps; 0 when none says so.
func LostSince(err error) call.Time {
	var l *LossError
	if errors.As(err, &l) {
		return l.Since
	}
	return 0
}

// BatchError says which items of a batch were not accepted, by index, and why. Items not named were.
type BatchError struct {
	Failed map[int]error
}

func (e *BatchError) Error() string {
	for i, err := range e.Failed {
		return fmt.Sprintf("%d of the batch not accepted, item %d: %v", len(e.Failed), i, err)
	}
	return "empty batch error"
}
