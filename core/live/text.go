package live

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
)

// clean makes s safe to draw: what a caller calls himself must not move the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '·'
		}
		return r
	}, s)
}

// runeWidth is the number of terminal cells r takes.
func runeWidth(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cells is the number of terminal cells s takes.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// visible is the number of cells that a line with colours takes.
func visible(s string) int {
	n := 0
	for s != "" {
		before, rest, ok := strings.Cut(s, "\x1b[")
		n += cells(before)
		if !ok {
			break
		}
		_, s, _ = strings.Cut(rest, "m")
	}
	return n
}

// fit cuts s to n cells, with … where something is missing.
func fit(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	var b strings.Builder
	used := 0
	for _, r := range s {
		if used+runeWidth(r) > n-1 {
			break
		}
		used += runeWidth(r)
		b.WriteRune(r)
	}
	if n > 0 {
		b.WriteString("…")
	}
	return b.String()
}

// pad fits s into exactly n cells.
func pad(s string, n int) string {
	s = fit(clean(s), n)
	return s + strings.Repeat(" ", n-cells(s))
}

// padLeft is pad with s at the right.
func padLeft(s string, n int) string {
	s = fit(clean(s), n)
	return strings.Repeat(" ", n-cells(s)) + s
}

// grouped writes n with thousands separated: 12,345.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// clock writes d as 0:07, 12:34 or 1:02:03.
func clock(d time.Duration) string {
	s := max(0, int64(d/time.Second))
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// span writes milliseconds in few characters: 3 ms, 1.2 s, 4 min.
func span(ms float64) string {
	if ms < 0 && ms > -1 { // within what any clock measurement can tell
		ms = 0
	}
	switch a := max(ms, -ms); {
	case a < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case a < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	case a < 100_000:
		return fmt.Sprintf("%.1f s", ms/1000)
	default:
		return fmt.Sprintf("%.0f min", ms/60_000)
	}
}
