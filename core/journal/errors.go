package journal

import (
	"errors"
	"fmt"
	"syscall"
)

// Why a journal cannot do what it was asked; use errors.Is.
var (
	// ErrFull: the journal has reached Options.MaxBytes and may drop nothing. Trim, or a cursor that moves, makes room.
	ErrFull = errors.New("the journal has reached its bound")
	// ErrNoSpace: the disk, or a quota on it, is full. Nothing has changed; trying again is right.
	ErrNoSpace = errors.New("no space on the journal's disk")
	// ErrLocked: another process has the journal open.
	ErrLocked = errors.New("another process has the journal open")
	// ErrTooLarge: a record's data is bigger than MaxData, or a batch bigger than Options.MaxBytes.
	ErrTooLarge = errors.New("too large for the journal")
	// ErrClosed: the journal, or the reader, has been closed.
	ErrClosed = errors.New("the journal is closed")
)

// Damage is a stretch of a file that cannot be read for what it was, or records that are not there.
type Damage struct {
	File   string // name in the journal's folder
	Offset int64  // where in the file
	Bytes  int64  // how many bytes; 0 when a whole file is missing
	// The lost records, as far as known; both 0 when none is lost.
	FirstSeq, LastSeq uint64
}

// Lost counts the records that are known to be lost.
func (d Damage) Lost() uint64 {
	if d.FirstSeq == 0 {
		return 0
	}
	return d.LastSeq - d.FirstSeq + 1
}

func (d Damage) String() string {
	s := fmt.Sprintf("%s: %d bytes damaged at offset %d", d.File, d.Bytes, d.Offset)
	if d.Bytes == 0 {
		s = d.File + ": missing before it"
	}
	switch d.Lost() {
	case 0:
		return s + ", no record lost"
	case 1:
		return fmt.Sprintf("%s, record %d lost", s, d.FirstSeq)
	}
	return fmt.Sprintf("%s, records %d to %d lost", s, d.FirstSeq, d.LastSeq)
}

// DamageError is what Reader.Next returns in place of records that are damaged. Reading goes on after them.
type DamageError struct{ Damage }

func (e *DamageError) Error() string { return "reading the journal: " + e.String() }

// GoneError is what Reader.Next returns in place of records that retention has removed. Reading goes on after them.
type GoneError struct{ FirstSeq, LastSeq uint64 }

func (e *GoneError) Error() string {
	return fmt.Sprintf("reading the journal: records %d to %d are no longer kept", e.FirstSeq, e.LastSeq)
}

// spaced marks what a full disk says as ErrNoSpace.
func spaced(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
