package core

import (
	"cmp"
	"math"
	"sync/atomic"
	"time"
)

// Mark is when something last happened, by the monotonic clock: setting the machine's clock makes nothing seem long ago
// that was not. It is safe for concurrent use. The zero Mark is of something that never did.
type Mark struct{ at atomic.Int64 } // since marks, or 0 for never

var marks = time.Now()

// Set says that it happens now.
func (m *Mark) Set() { m.at.Store(cmp.Or(int64(time.Since(marks)), 1)) }

// Clear makes it something that never happened.
func (m *Mark) Clear() { m.at.Store(0) }

// Never is how long ago something is that did not happen.
const Never time.Duration = math.MaxInt64

// Ago is how long ago it happened, or Never.
func (m *Mark) Ago() time.Duration {
	at := m.at.Load()
	if at == 0 {
		return Never
	}
	return time.Since(marks) - time.Duration(at)
}

// ByClockNow is t, a reading of this process's clock, as that clock would have told it if it had been then as it is now: for
// what is compared with times read since, when the clock may have been set in between.
func ByClockNow(t time.Time) time.Time {
	now := time.Now()
	return now.Add(t.Sub(now))
}
