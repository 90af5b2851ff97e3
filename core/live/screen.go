package live

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Refresh is how often the picture is redrawn.
const Refresh = 250 * time.Millisecond

// Fallback is the size that is taken when the terminal does not tell its own.
const (
	fallbackWidth  = 80
	fallbackHeight = 24
)

// Control sequences.
const (
	enter     = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J" // other screen, no cursor, no wrapping
	leave     = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home      = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

// Usable says whether out is a terminal that a Screen can draw on.
func Usable(out *os.File) bool {
	t := os.Getenv("TERM")
	return term.IsTerminal(int(out.Fd())) && t != "" && t != "dumb"
}

// Color says whether out should be coloured: NO_COLOR, when set and not empty, says no (no-color.org).
func Color(out *os.File) bool { return Usable(out) && os.Getenv("NO_COLOR") == "" }

// Restore gives a terminal back as it was, for a program that ends while a Screen is drawing.
func Restore(out *os.File) {
	if Usable(out) {
		_, _ = io.WriteString(out, leave)
	}
}

// Screen draws pictures in place.
type Screen struct {
	out  io.Writer
	size func() (width, height int)
}

// NewScreen draws on a terminal.
func NewScreen(out *os.File) *Screen {
	return &Screen{out: out, size: func() (int, int) {
		w, h, err := term.GetSize(int(out.Fd()))
		if err != nil || w < 1 || h < 1 {
			return fallbackWidth, fallbackHeight
		}
		return w, h
	}}
}

// Run draws what picture returns for the terminal's present size, four times a second until ctx ends, then gives the
// terminal back as it was.
func (s *Screen) Run(ctx context.Context, picture func(width, height int) []string) {
	_, _ = io.WriteString(s.out, enter)
	defer func() { _, _ = io.WriteString(s.out, leave) }()
	tick := time.NewTicker(Refresh)
	defer tick.Stop()
	for {
		s.draw(picture)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// draw writes one picture in one write: home, each line cleared to its end, nothing erased before it is redrawn.
func (s *Screen) draw(picture func(width, height int) []string) {
	w, h := s.size()
	var b bytes.Buffer
	b.WriteString(home)
	lines := picture(w, h)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l)
		if visible(l) < w { // at the right edge it would take away the last character
			b.WriteString(clearLine)
		}
	}
	if len(lines) < h {
		b.WriteString(clearRest)
	}
	_, _ = s.out.Write(b.Bytes())
}

// Log keeps the latest log lines for the picture. It is an io.Writer for a slog handler.
type Log struct {
	mu    sync.Mutex
	lines []string
}

const keptLines = 50

// Write takes one or more lines.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.SplitSeq(strings.TrimRight(string(b), "\n"), "\n") {
		l.lines = append(l.lines, line)
	}
	if n := len(l.lines); n > keptLines {
		l.lines = append([]string(nil), l.lines[n-keptLines:]...)
	}
	return len(b), nil
}

// Lines returns the latest lines, oldest first.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}
