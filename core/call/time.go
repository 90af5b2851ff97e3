package call

import (
	"strconv"
	"time"
)

// Time is an instant in microseconds since the Unix epoch, UTC. Zero means unknown. It is eight bytes where
// time.Time is twenty-four, and a call holds dozens of them.
type Time int64

// Micros per unit, for arithmetic on Time.
const (
	Millisecond Time = 1e3
	Second      Time = 1e6
)

// At converts t; the zero time.Time becomes the unknown Time.
func At(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixMicro())
}

// Std converts to a UTC time.Time.
func (t Time) Std() time.Time { return time.UnixMicro(int64(t)).UTC() }

// IsZero reports whether the instant is unknown.
func (t Time) IsZero() bool { return t == 0 }

// Sub returns t-u in whole milliseconds, rounded to nearest.
func (t Time) Sub(u Time) int64 { return int64((t - u + 500) / Millisecond) }

// AppendFormat appends RFC 3339 with microseconds, UTC.
func (t Time) AppendFormat(b []byte) []byte {
	return t.Std().AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
}

// String is RFC 3339 with microseconds, UTC.
func (t Time) String() string { return string(t.AppendFormat(nil)) }

// MarshalJSON writes a quoted RFC 3339 string, or null when unknown.
func (t Time) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	b := make([]byte, 0, 30)
	b = append(b, '"')
	b = t.AppendFormat(b)
	return append(b, '"'), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and any RFC 3339 instant.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == "null" || string(b) == `""` {
		*t = 0
		return nil
	}
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return err
	}
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return err
	}
	*t = At(v)
	return nil
}
