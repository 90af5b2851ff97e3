package core

import "context"

// Log is the one ordered log of a cluster: its owner writes it, and every node reads it.
type Log interface {
	// Append adds entries, in order, behind all others and returns their offsets once enough replicas keep them. With an
	// error it returns the offsets of those that are there; appending the rest again, as it is, then adds none twice. An
	// error that wraps ErrFenced says that another writer has taken the log over. Any Log takes entries of 600 KiB.
	Append(ctx context.Context, entries [][]byte) (offsets []int64, err error)
	// Read returns entries from offset from on. It waits a little for there to be some, and may return none. Where from
	// is older than what is kept, or behind all there is, since the log was made anew, it begins with the oldest.
	Read(ctx context.Context, from int64) (LogPage, error)
	// End is the offset that the next entry will get, or an earlier one than that: offsets have holes.
	End(ctx context.Context) (int64, error)
}

// LogPage is what one Read found.
type LogPage struct {
	Entries []LogEntry
	Next    int64 // the offset to go on from
	End     int64 // behind all that was there; Next equals it when all has been read
}

// LogEntry is one entry of a Log.
type LogEntry struct {
	Offset int64
	Data   []byte
}
