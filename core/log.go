package core

import "context"

// Log is the one ordered log of a cluster: its owner writes it, and every node reads it.
type Log interface {
	// Append adds entries, in order, behind all others and returns the offset of the first. It returns nil only when all
	// are kept by enough replicas. After another error some may have been kept; appending the same again then adds none
	// twice. An error that wraps ErrFenced says that another writer has taken the log over.
	Append(ctx context.Context, entries [][]byte) (first int64, err error)
	// Read returns entries from offset from on, and the end: the offset that the next one will get. It waits a little for
	// there to be some, and may return none. Offsets have holes. One that is older than what is kept reads as the oldest.
	Read(ctx context.Context, from int64) (entries []LogEntry, end int64, err error)
	// End is the offset that the next entry will get.
	End(ctx context.Context) (int64, error)
}

// LogEntry is one entry of a Log.
type LogEntry struct {
	Offset int64
	Data   []byte
}
